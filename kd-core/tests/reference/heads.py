"""Writes heads.json: a gold head and one per teacher on one representation, with all losses and gradients, in f64.

Run with Python 3 and torch: python heads.py > heads.json
"""

import json

import torch
from torch import nn
from torch.nn import functional as F

torch.set_num_threads(1)
torch.set_default_dtype(torch.float64)
torch.manual_seed(23)

ROWS, INPUT, WIDTH = 4, 3, 4


def tensor(t):
    return {"shape": list(t.shape), "values": [float(f"{x:.15g}") for x in t.detach().flatten().tolist()]}


def kl(student, teacher, t):
    log_q, log_p = F.log_softmax(student / t, -1), F.log_softmax(teacher / t, -1)
    return t * t * F.kl_div(log_q, log_p, log_target=True, reduction="batchmean")


def jensen_shannon(student, teacher, t):
    log_q, log_p = F.log_softmax(student / t, -1), F.log_softmax(teacher / t, -1)
    log_m = torch.log((log_q.exp() + log_p.exp()) / 2)
    halves = [F.kl_div(log_m, log, log_target=True, reduction="batchmean") for log in (log_p, log_q)]
    return t * t * sum(halves) / 2


SOFT = {
    "logit_mse": lambda s, t: F.mse_loss(s, t),
    "centred": lambda s, t: F.mse_loss(s, t - t.mean(-1, keepdim=True)),
    "prob_mse": lambda s, t: F.mse_loss(F.softmax(s, -1), F.softmax(t, -1)),
    "kl": lambda s, t: kl(s, t, 2.0),
    "reverse_kl": lambda s, t: kl(t, s, 2.0),
    "jensen_shannon": lambda s, t: jensen_shannon(s, t, 2.0),
}


def case(soft, n_teachers, classes, alpha, gold):
    body = nn.Linear(INPUT, WIDTH)
    heads = nn.ModuleList([nn.Linear(WIDTH, classes) for _ in range(n_teachers + gold)])
    xs = torch.randn(ROWS, INPUT)
    labels = torch.randint(classes, (ROWS,))
    teachers = [3 * torch.randn(ROWS, classes) + idx for idx in range(n_teachers)]
    hidden = torch.tanh(body(xs))
    logits = [head(hidden) for head in heads]
    l_s = sum(SOFT[soft](student, teacher) for student, teacher in zip(logits[gold:], teachers)) / n_teachers
    l_g = F.cross_entropy(logits[0], labels) if gold else torch.zeros(())
    loss = (1 - alpha) * l_g + alpha * l_s
    loss.backward()
    names = ["gold"] * gold + [f"teacher.{idx}" for idx in range(n_teachers)]
    modules = {"body": body} | {f"heads.set.{name}": head for name, head in zip(names, heads)}
    named = {f"{m}.{p}": value for m, module in modules.items() for p, value in module.named_parameters()}
    return {
        "soft": soft, "teachers": n_teachers, "classes": classes, "alpha": alpha, "gold": bool(gold),
        "xs": tensor(xs), "labels": labels.tolist(), "teacher_logits": [tensor(t) for t in teachers],
        "variables": {name: tensor(value) for name, value in named.items()},
        "loss": loss.item(), "hard": l_g.item(), "soft_part": l_s.item(),
        "gradients": {name: tensor(value.grad) for name, value in named.items()},
        "probs": tensor(sum(F.softmax(student, -1) for student in logits) / len(logits)),
    }


cases = [case(soft, 3, 3, 0.9, 1) for soft in SOFT]
cases += [case("logit_mse", 1, 2, 0.3, 1), case("logit_mse", 4, 2, 1.0, 0), case("kl", 2, 5, 1.0, 0)]
print(json.dumps({"cases": cases}, separators=(",", ":")))
