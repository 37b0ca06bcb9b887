"""Losses on logits: python logits.py writes ../losses/*.json."""

import torch
import torch.nn.functional as F

from common import case, write

torch.manual_seed(0)

# Student and teacher logits: random; two classes and large; where probabilities underflow; a student that knows nothing.
INPUTS = {
    "random": (torch.randn(5, 4), torch.randn(5, 4)),
    "two classes, large": (torch.randn(3, 2) * 8, torch.randn(3, 2) * 8),
    "extreme": (
        torch.tensor([[300.0, -300.0, 0.0], [1e4, 0.0, 1e4]]),
        torch.tensor([[-30.0, 30.0, 0.0], [0.0, 20.0, 20.0]]),
    ),
    "one row of equal logits": (torch.zeros(1, 7), torch.arange(7.0).reshape(1, 7)),
}


def both(loss, parameters, name="{}"):
    """A case of every pair of student and teacher logits."""
    return [
        case(
            name.format(key),
            loss,
            {"student_logits": student, "teacher_logits": teacher},
            parameters,
            finite_differences=key != "extreme",
        )
        for key, (student, teacher) in INPUTS.items()
    ]


def labels_of(student):
    return torch.arange(student.shape[0]) % student.shape[1]


write(
    "cross_entropy",
    "the negative log-likelihood of a categorical distribution",
    "log sum_c exp(s_c) - s_label",
    [
        case(
            key,
            lambda x: F.cross_entropy(x["student_logits"], x["labels"], reduction="none"),
            {"student_logits": student, "labels": labels_of(student)},
            finite_differences=key != "extreme",
        )
        for key, (student, _) in INPUTS.items()
    ],
)


def kl(t):
    def rows(x):
        p, log_q = F.softmax(x["teacher_logits"] / t, -1), F.log_softmax(x["student_logits"] / t, -1)
        return t * t * F.kl_div(log_q, p, reduction="none").sum(-1)

    return rows


write(
    "kl_divergence",
    "Hinton et al. 2015, section 2",
    "T^2 sum_c p_c (log p_c - log q_c), p = softmax(teacher / T), q = softmax(student / T)",
    [c for t in (1.0, 2.0, 5.0) for c in both(kl(t), {"temperature": t}, f"{{}}, T = {t:g}")],
)

write(
    "soft_cross_entropy",
    "Hinton et al. 2015, section 2",
    "-T^2 sum_c p_c log softmax(student / T)_c, p the teacher's probabilities, already softened",
    [
        case(
            f"{key}, T = {t:g}",
            lambda x: t * t * F.cross_entropy(x["student_logits"] / t, x["teacher_probs"], reduction="none"),
            {"student_logits": student, "teacher_probs": F.softmax(teacher / t, -1)},
            {"temperature": t},
            finite_differences=key != "extreme",
        )
        for t in (1.0, 2.0, 5.0)
        for key, (student, teacher) in INPUTS.items()
    ],
)

write(
    "logit_mse",
    "Ba and Caruana 2014",
    "mean_c (s_c - t_c)^2",
    both(lambda x: F.mse_loss(x["student_logits"], x["teacher_logits"], reduction="none").mean(-1), {}),
)

write(
    "kl_from_log_probs",
    "Kullback and Leibler 1951",
    "sum_c e^(t_c) (t_c - s_c), s and t logarithms of distributions",
    [
        case(
            key,
            lambda x: F.kl_div(x["student_log_probs"], x["teacher_log_probs"], reduction="none", log_target=True).sum(-1),
            {"student_log_probs": F.log_softmax(student, -1), "teacher_log_probs": F.log_softmax(teacher, -1)},
            differentiable=("student_log_probs",),
            finite_differences=key != "extreme",
        )
        for key, (student, teacher) in INPUTS.items()
    ],
)
