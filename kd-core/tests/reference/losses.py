"""Reference values of kd_core::losses, in f64 from PyTorch: python losses.py > losses.json

Every case has the student's logits, what it is compared with, the value of each row, the mean, and the gradient of
the mean with respect to the student's logits.
"""

import json

import torch
import torch.nn.functional as F

torch.manual_seed(0)
torch.set_default_dtype(torch.float64)


def case(name, student, rows, **given):
    student = student.clone().requires_grad_()
    values = rows(student)
    values.mean().backward()
    shown = {key: value.tolist() if torch.is_tensor(value) else value for key, value in given.items()}
    return {
        "loss": name,
        "student": student.tolist(),
        "rows": values.tolist(),
        "mean": values.mean().item(),
        "gradient": student.grad.tolist(),
        **shown,
    }


def kl(teacher, t):
    def rows(student):
        p, log_q = F.softmax(teacher / t, -1), F.log_softmax(student / t, -1)
        return t * t * F.kl_div(log_q, p, reduction="none").sum(-1)

    return rows


cases = []
inputs = [
    (torch.randn(5, 4), torch.randn(5, 4)),
    (torch.randn(3, 2) * 8, torch.randn(3, 2) * 8),
    (torch.tensor([[300.0, -300.0, 0.0], [1e4, 0.0, 1e4]]), torch.tensor([[-30.0, 30.0, 0.0], [0.0, 20.0, 20.0]])),
    (torch.zeros(1, 7), torch.arange(7.0).reshape(1, 7)),
]
for student, teacher in inputs:
    labels = torch.arange(student.shape[0]) % student.shape[1]
    cases.append(case("cross_entropy", student, lambda s: F.cross_entropy(s, labels, reduction="none"), labels=labels))
    cases.append(case("logit_mse", student, lambda s: F.mse_loss(s, teacher, reduction="none").mean(-1), teacher=teacher))
    for t in (1.0, 2.0, 5.0):
        cases.append(case("kl_divergence", student, kl(teacher, t), teacher=teacher, temperature=t))
        probs = F.softmax(teacher / t, -1)
        cases.append(
            case(
                "soft_cross_entropy",
                student,
                lambda s: t * t * F.cross_entropy(s / t, probs, reduction="none"),
                probs=probs,
                temperature=t,
            )
        )
print(json.dumps(cases, separators=(",", ":")))
