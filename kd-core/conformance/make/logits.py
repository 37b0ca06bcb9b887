"""Losses on logits: python logits.py writes ../losses/*.json.

A loss that PyTorch has is PyTorch's; the others are their formulas on probabilities and, where those underflow, on logarithms
from PyTorch's log_softmax.
"""

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

# Temperatures of student and teacher, and whether the loss is multiplied by the square of the student's.
TEMPERATURES = {
    "T = 1": (1.0, 1.0, True),
    "T = 2": (2.0, 2.0, True),
    "T = 5": (5.0, 5.0, True),
    "T = 2, unscaled": (2.0, 2.0, False),
    "T = 2 and 3": (2.0, 3.0, True),
}


def named(student, teacher):
    return {"student_logits": student, "teacher_logits": teacher}


def both(loss, inputs=INPUTS, parameters=None, name="{}"):
    """A case of every pair of student and teacher logits. Central differences leave no digits of an extreme case."""
    return [
        case(name.format(key), loss, named(*pair), parameters, finite_differences="extreme" not in key)
        for key, pair in inputs.items()
    ]


def softened(loss, inputs=INPUTS):
    """`both` at all temperatures; `loss` takes the softened logits of both sides."""
    cases = []
    for key, (student, teacher, scaled) in TEMPERATURES.items():
        factor = student**2 if scaled else 1.0
        parameters = {"temperature": {"student": student, "teacher": teacher, "scaled": scaled}}
        rows = lambda x: factor * loss(x["student_logits"] / student, x["teacher_logits"] / teacher)
        cases += both(rows, inputs, parameters, "{}, " + key)
    return cases


def labels_of(student):
    return torch.arange(student.shape[0]) % student.shape[1]


def divergence(log_p, log_q):
    """KL(p || q) of each row."""
    return F.kl_div(log_q, log_p, reduction="none", log_target=True).sum(-1)


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


def hard(student, smoothing, weights, key, divisor="rows"):
    """PyTorch's, of each row, or its own mean where that divides by the weights."""
    w = None if weights is None else torch.tensor(weights)
    reduction = "none" if divisor == "rows" else "mean"
    loss = lambda x: F.cross_entropy(x["student_logits"], x["labels"], w, label_smoothing=smoothing, reduction=reduction)
    parameters = {"label_smoothing": smoothing, "class_weights": weights, "divisor": divisor}
    inputs = {"student_logits": student, "labels": labels_of(student)}
    return case(f"{key}, smoothing {smoothing}, weights {weights}", loss, inputs, parameters, finite_differences=key != "extreme")


write(
    "hard_cross_entropy",
    "torch.nn.functional.cross_entropy with weight and label_smoothing; Szegedy et al. 2016, section 7",
    "-(1 - smoothing) w_y l_y - smoothing / classes sum_c w_c l_c, l = log_softmax(student); the mean divides by rows",
    [
        hard(student, smoothing, [0.5, 2.0, 0.0, 1.0, 3.0, 1.5, 0.25][: student.shape[1]] if weighted else None, key)
        for key, (student, _) in INPUTS.items()
        for smoothing, weighted in [(0.1, False), (0.0, True), (0.3, True)]
    ],
)

write(
    "hard_cross_entropy_by_weights",
    "torch.nn.functional.cross_entropy with weight, label_smoothing and reduction='mean'",
    "the sum of hard_cross_entropy over rows, divided by the sum of w_y over rows",
    [
        hard(student, smoothing, [0.5, 2.0, 0.0, 1.0, 3.0, 1.5, 0.25][: student.shape[1]], key, "weights")
        for key, (student, _) in INPUTS.items()
        for smoothing in (0.0, 0.3)
    ],
)

write(
    "kl_divergence",
    "Hinton et al. 2015, section 2",
    "T^2 sum_c p_c (log p_c - log q_c), p = softmax(teacher / T), q = softmax(student / T)",
    softened(lambda s, t: F.kl_div(F.log_softmax(s, -1), F.softmax(t, -1), reduction="none").sum(-1)),
)

write(
    "reverse_kl_divergence",
    "Gu et al. 2024 (MiniLLM), section 2.1",
    "T^2 sum_c q_c (log q_c - log p_c), p = softmax(teacher / T), q = softmax(student / T)",
    softened(lambda s, t: divergence(F.log_softmax(s, -1), F.log_softmax(t, -1))),
)


def jensen_shannon(s, t):
    log_q, log_p = F.log_softmax(s, -1), F.log_softmax(t, -1)
    log_m = torch.logaddexp(log_p, log_q) - torch.log(torch.tensor(2.0))
    return (divergence(log_p, log_m) + divergence(log_q, log_m)) / 2


write(
    "jensen_shannon_divergence",
    "Lin 1991",
    "T^2 (KL(p || m) + KL(q || m)) / 2, m = (p + q) / 2, p = softmax(teacher / T), q = softmax(student / T)",
    softened(jensen_shannon),
)

write(
    "soft_cross_entropy",
    "Hinton et al. 2015, section 2",
    "-T^2 sum_c p_c log softmax(student / T)_c, p the teacher's probabilities, already softened",
    [
        case(
            f"{key}, {at}",
            lambda x: (s * s if scaled else 1) * F.cross_entropy(x["student_logits"] / s, x["teacher_probs"], reduction="none"),
            {"student_logits": student, "teacher_probs": F.softmax(teacher / t, -1)},
            {"temperature": {"student": s, "teacher": t, "scaled": scaled}},
            finite_differences=key != "extreme",
        )
        for at, (s, t, scaled) in TEMPERATURES.items()
        for key, (student, teacher) in INPUTS.items()
    ],
)

write(
    "soft_cross_entropy_from_logits",
    "Hinton et al. 2015, section 2",
    "-T^2 sum_c p_c log softmax(student / T)_c, p = softmax(teacher / T)",
    softened(lambda s, t: F.cross_entropy(s, F.softmax(t, -1), reduction="none")),
)

write(
    "kl_from_log_probs",
    "Kullback and Leibler 1951",
    "sum_c e^(t_c) (t_c - s_c), s and t logarithms of distributions",
    [
        case(
            key,
            lambda x: divergence(x["teacher_log_probs"], x["student_log_probs"]),
            {"student_log_probs": F.log_softmax(student, -1), "teacher_log_probs": F.log_softmax(teacher, -1)},
            differentiable=("student_log_probs",),
            finite_differences=key != "extreme",
        )
        for key, (student, teacher) in INPUTS.items()
    ],
)

# Two teachers; the first has the weight w of each row, from 0 to below 1, and the second the rest.
write(
    "weighted_kl_divergence",
    "Yuan et al. 2021",
    "T^2 (w KL(p_1 || q) + (1 - w) KL(p_2 || q)), p_k = softmax(teacher_k / T), q = softmax(student / T)",
    [
        case(
            f"{key}, {at}",
            lambda x: (s * s if scaled else 1)
            * sum(
                w.squeeze(-1) * divergence(F.log_softmax(x[name] / t, -1), F.log_softmax(x["student_logits"] / s, -1))
                for name, w in (("teacher_logits", x["first_weights"]), ("second_teacher_logits", 1 - x["first_weights"]))
            ),
            {
                "student_logits": student,
                "teacher_logits": teacher,
                "second_teacher_logits": teacher.flip(-1) / 2,
                "first_weights": (torch.arange(len(student)) / len(student)).double().unsqueeze(-1),
            },
            {"temperature": {"student": s, "teacher": t, "scaled": scaled}},
            finite_differences=key != "extreme",
        )
        for at, (s, t, scaled) in TEMPERATURES.items()
        for key, (student, teacher) in INPUTS.items()
    ],
)

write(
    "logit_mse",
    "Ba and Caruana 2014, section 2",
    "mean_c (s_c - t_c)^2",
    both(lambda x: F.mse_loss(x["student_logits"], x["teacher_logits"], reduction="none").mean(-1)),
)

centred = lambda x: x - x.mean(-1, keepdim=True)
write(
    "centred_logit_mse",
    "Ba and Caruana 2014, section 2; Hinton et al. 2015, section 2.1",
    "mean_c ((s_c - mean s) - (t_c - mean t))^2",
    both(lambda x: (centred(x["student_logits"]) - centred(x["teacher_logits"])).square().mean(-1)),
)

write(
    "probability_mse",
    "Brier 1950",
    "T^2 mean_c (q_c - p_c)^2, p = softmax(teacher / T), q = softmax(student / T)",
    softened(lambda s, t: F.mse_loss(F.softmax(s, -1), F.softmax(t, -1), reduction="none").mean(-1)),
)

# A row of zeros has no direction, and what a loss makes of it is no matter of reference values.
DIRECTIONS = {key: pair for key, pair in INPUTS.items() if key != "one row of equal logits"}
write(
    "cosine_distance",
    "Sanh et al. 2019 (DistilBERT), section 2, there of hidden states",
    "1 - s . t / (|s| |t|)",
    both(lambda x: 1 - F.cosine_similarity(x["student_logits"], x["teacher_logits"], dim=-1), DIRECTIONS),
)

bce = lambda z, y: F.binary_cross_entropy_with_logits(z, y, reduction="none").mean(-1)
write(
    "binary_cross_entropy",
    "torch.nn.functional.binary_cross_entropy_with_logits",
    "mean_c log(1 + e^(s_c)) - y_c s_c, y in [0, 1]",
    [
        case(
            f"{key}, {kind} targets",
            lambda x: bce(x["student_logits"], x["targets"]),
            {"student_logits": student, "targets": (teacher > 0).double() if kind == "hard" else torch.sigmoid(teacher)},
            finite_differences=key != "extreme",
        )
        for key, (student, teacher) in INPUTS.items()
        for kind in ("hard", "soft")
    ],
)

write(
    "binary_cross_entropy_from_logits",
    "Hinton et al. 2015, section 2, for two outcomes of each class",
    "T^2 mean_c log(1 + e^z) - sigmoid(teacher / T) z, z = student / T",
    softened(lambda s, t: bce(s, torch.sigmoid(t))),
)


def decoupled(alpha, beta, s, t, labels):
    """On logarithms of probabilities of the label, of all the rest, and within the rest."""
    others = torch.tensor([[c for c in range(s.shape[1]) if c != label] for label in labels.tolist()])

    def split(z):
        log_probs = F.log_softmax(z, -1)
        rest = log_probs.gather(1, others)
        sides = torch.cat([log_probs.gather(1, labels[:, None]), rest.logsumexp(-1, keepdim=True)], 1)
        return sides, F.log_softmax(z.gather(1, others), -1)

    (s_sides, s_rest), (t_sides, t_rest) = split(s), split(t)
    return alpha * divergence(t_sides, s_sides) + beta * divergence(t_rest, s_rest)


write(
    "decoupled_divergence",
    "Zhao et al. 2022 (DKD), section 3",
    "T^2 (alpha KL(b_t || b_s) + beta KL(n_t || n_s)), b the probabilities of the label and of the rest, n those within the rest",
    [
        case(
            f"{key}, alpha {alpha:g}, beta {beta:g}, {at}",
            lambda x: (s * s if scaled else 1)
            * decoupled(alpha, beta, x["student_logits"] / s, x["teacher_logits"] / t, x["labels"]),
            {**named(student, teacher), "labels": labels_of(student)},
            {"target": alpha, "non_target": beta, "temperature": {"student": s, "teacher": t, "scaled": scaled}},
            finite_differences=key != "extreme",
        )
        for at, (s, t, scaled) in TEMPERATURES.items()
        for alpha, beta in ((1.0, 8.0), (0.0, 1.0))
        for key, (student, teacher) in INPUTS.items()
        if student.shape[1] > 2
    ],
)

# Where all probabilities of a row or a column are equal there is no correlation. More rows, so that columns have one.
CORRELATED = {
    "random": INPUTS["random"],
    "three rows of nine classes": (torch.randn(3, 9), torch.randn(3, 9) * 3),
    "sure": (torch.randn(6, 5) * 6, torch.randn(6, 5) * 6),
}


def distance(a, b):
    """1 - Pearson's correlation of each row."""
    return 1 - F.cosine_similarity(centred(a), centred(b), dim=-1, eps=0)


inter = lambda s, t: distance(F.softmax(s, -1), F.softmax(t, -1))
intra = lambda s, t: distance(F.softmax(s, -1).T, F.softmax(t, -1).T).mean()
write(
    "row_correlation",
    "Huang et al. 2022 (DIST), section 4, inter-class",
    "T^2 (1 - corr(q, p)) of a row, p = softmax(teacher / T), q = softmax(student / T)",
    softened(inter, CORRELATED),
)
write(
    "column_correlation",
    "Huang et al. 2022 (DIST), section 4, intra-class",
    "T^2 mean over classes of 1 - corr(q[:, c], p[:, c]); no value per row",
    softened(intra, CORRELATED),
)
write(
    "correlation",
    "Huang et al. 2022 (DIST), section 4",
    "beta row_correlation + gamma column_correlation",
    [
        case(
            f"{key}, {at}",
            lambda x: (s * s if scaled else 1)
            * (
                1.5 * inter(x["student_logits"] / s, x["teacher_logits"] / t).mean()
                + 0.5 * intra(x["student_logits"] / s, x["teacher_logits"] / t)
            ),
            named(student, teacher),
            {"inter_class": 1.5, "intra_class": 0.5, "temperature": {"student": s, "teacher": t, "scaled": scaled}},
        )
        for at, (s, t, scaled) in TEMPERATURES.items()
        for key, (student, teacher) in CORRELATED.items()
    ],
)

standardise = lambda x: centred(x) / x.std(-1, correction=0, keepdim=True)
write(
    "standardised_kl_divergence",
    "Sun et al. 2024, algorithm 1",
    "kl_divergence of (s - mean s) / std s and (t - mean t) / std t, std dividing by the number of classes",
    [
        case(
            f"{key}, T = {t:g}",
            lambda x: t * t * divergence(F.log_softmax(standardise(x["teacher_logits"]) / t, -1), F.log_softmax(standardise(x["student_logits"]) / t, -1)),
            named(*pair),
            {"temperature": {"student": t, "teacher": t, "scaled": True}},
            # Two classes standardise to -1 and 1, whatever they are: the gradient is 0 but for rounding.
            finite_differences=key != "extreme",
        )
        for t in (1.0, 2.0)
        for key, pair in DIRECTIONS.items()
    ],
)
