"""Losses against numbers, signs and sets: python targets.py writes ../losses/*.json. All are PyTorch's."""

import torch
import torch.nn.functional as F

from common import case, write

torch.manual_seed(1)

RANDOM = torch.randn(5, 4)
LARGE = torch.randn(3, 2) * 30
LABELS = torch.tensor([0, 3, 2, 2, 1])
SIGNS = torch.tensor([[1.0, -1, -1, 1]]).expand(5, 4).contiguous()
WEIGHTS = [0.5, 2.0, 0.0, 1.5]


def numbers(loss, parameters=None, targets=None, key="random", x=RANDOM, **more):
    """A case of `predictions` and `targets`; `loss` gives a value of each element, of which rows are means."""
    targets = torch.randn(x.shape) if targets is None else targets
    f = lambda given: loss(given["predictions"], given["targets"]).mean(-1)
    return case(key, f, {"predictions": x, "targets": targets}, parameters, differentiable=("predictions",), **more)


def labelled(loss, parameters=None, key="random", x=RANDOM, name="student_logits", **more):
    f = lambda given: loss(given[name], given["labels"])
    labels = LABELS[: len(x)] % x.shape[1]
    return case(key, f, {name: x, "labels": labels}, parameters, differentiable=(name,), **more)


write(
    "absolute_error",
    "torch.nn.functional.l1_loss",
    "|x - t|, the mean over columns",
    [
        numbers(lambda x, t: F.l1_loss(x, t, reduction="none")),
        numbers(lambda x, t: F.l1_loss(x, t, reduction="none"), key="large", x=LARGE),
        numbers(lambda x, t: F.l1_loss(x, t, reduction="none"), key="equal", targets=RANDOM.clone(), finite_differences=False),
    ],
)

write(
    "smooth_absolute_error",
    "torch.nn.functional.smooth_l1_loss; Girshick 2015, equation 3",
    "d^2 / (2 beta) where d = |x - t| < beta, else d - beta / 2; the mean over columns",
    [
        numbers(lambda x, t: F.smooth_l1_loss(x, t, reduction="none", beta=beta), {"beta": beta}, key=f"{key}, beta {beta}", x=x)
        for beta in (1.0, 0.3, 0.0)
        for key, x in (("random", RANDOM), ("large", LARGE))
    ],
)

write(
    "poisson",
    "torch.nn.functional.poisson_nll_loss",
    "e^x - k x, or x - k ln(x + eps); with full, k ln k - k + ln(2 pi k) / 2 is added where k > 1; the mean over columns",
    [
        numbers(
            lambda x, t: F.poisson_nll_loss(x, t, log_input=log, full=full, eps=eps, reduction="none"),
            {"log_input": log, "full": full, "epsilon": eps},
            targets=torch.randint(0, 6, RANDOM.shape).double(),
            x=RANDOM if log else RANDOM.abs() + 0.1,
            key=f"log {log}, full {full}, eps {eps}",
        )
        for log, full, eps in [(True, False, 1e-8), (True, True, 1e-8), (False, False, 1e-8), (False, True, 0.5)]
    ],
)


def negative(weights, divisor="rows"):
    w = None if weights is None else torch.tensor(weights)
    reduction = "none" if divisor == "rows" else "mean"
    loss = lambda x, y: F.nll_loss(x, y, w, reduction=reduction)
    parameters = {"class_weights": weights, "divisor": divisor}
    # Not normalised: the loss takes what it is given.
    return labelled(loss, parameters, f"weights {weights}", x=RANDOM, name="log_probs")


write(
    "negative_log_likelihood",
    "torch.nn.functional.nll_loss",
    "-w_y x_y; the mean divides by rows",
    [negative(None), negative(WEIGHTS)],
)
write(
    "negative_log_likelihood_by_weights",
    "torch.nn.functional.nll_loss with reduction='mean'",
    "the sum of -w_y x_y divided by the sum of w_y",
    [negative(WEIGHTS, "weights")],
)

probs = F.softmax(torch.randn(5, 4), -1)
some = torch.tensor([[1.0, 0, 0, 0], [0.5, 0.5, 0, 0]])
kl = lambda x: F.kl_div(x["student_log_probs"], x["target_probs"], reduction="none").sum(-1)
write(
    "kl_from_probs",
    "torch.nn.functional.kl_div",
    "sum_c t_c (ln t_c - s_c), 0 where t_c is 0",
    [
        case("random", kl, {"student_log_probs": F.log_softmax(RANDOM, -1), "target_probs": probs}, differentiable=("student_log_probs",)),
        case("zeros", kl, {"student_log_probs": F.log_softmax(RANDOM[:2], -1), "target_probs": some}, differentiable=("student_log_probs",)),
    ],
)

binary = lambda x, t: F.binary_cross_entropy(x, t, reduction="none")
write(
    "binary_cross_entropy_of_probs",
    "torch.nn.functional.binary_cross_entropy",
    "-t max(ln p, -100) - (1 - t) max(ln(1 - p), -100); the mean over columns",
    [
        numbers(binary, x=torch.rand(5, 4) * 0.9 + 0.05, targets=torch.rand(5, 4)),
        numbers(
            binary,
            x=torch.tensor([[0.0, 1.0, 0.0, 1.0]]),
            targets=torch.tensor([[0.0, 1.0, 1.0, 0.0]]),
            key="sure",
            finite_differences=False,
            tolerance=1e-8,  # PyTorch's least divisor is 1e-12 in single precision
        ),
    ],
)

write(
    "weighted_binary_cross_entropy",
    "torch.nn.functional.binary_cross_entropy_with_logits",
    "w_c (-v_c t ln s(x) - (1 - t) ln(1 - s(x))), s the logistic function; the mean over columns",
    [
        numbers(
            lambda x, t: F.binary_cross_entropy_with_logits(
                x, t, weight=None if w is None else torch.tensor(w), pos_weight=None if v is None else torch.tensor(v), reduction="none"
            ),
            {"class_weights": w, "positive_weights": v},
            targets=torch.rand(RANDOM.shape),
            key=f"weights {w}, positive {v}",
        )
        for w, v in [(None, None), (WEIGHTS, None), (None, WEIGHTS), (WEIGHTS, [3.0, 0.1, 1.0, 2.0])]
    ]
    + [
        numbers(
            lambda x, t: F.multilabel_soft_margin_loss(x, t, torch.tensor(WEIGHTS), reduction="none").unsqueeze(-1),
            {"class_weights": WEIGHTS},
            targets=(torch.rand(RANDOM.shape) > 0.5).double(),
            key="multilabel_soft_margin_loss",
        ),
        numbers(
            lambda x, t: F.binary_cross_entropy_with_logits(x, t, reduction="none"),
            {},
            x=LARGE * 100,
            targets=(torch.rand(LARGE.shape) > 0.5).double(),
            key="large",
            finite_differences=False,
        ),
    ],
)


def focal(x, labels, gamma, weights):
    log_p = F.log_softmax(x, -1).gather(1, labels[:, None]).squeeze(1)
    alpha = torch.ones(x.shape[1]) if weights is None else torch.tensor(weights)
    return -((1 - log_p.exp()) ** gamma) * alpha[labels] * log_p


write(
    "focal",
    "Lin et al. 2017, equation 5",
    "-(1 - p_y)^gamma w_y log p_y, p = softmax(x)",
    [
        labelled(lambda x, y: focal(x, y, gamma, w), {"gamma": gamma, "class_weights": w}, f"gamma {gamma}, weights {w}")
        for gamma in (0.0, 0.5, 2.0)
        for w in (None, WEIGHTS)
    ],
)

write(
    "multi_class_margin",
    "torch.nn.functional.multi_margin_loss",
    "w_y sum_{c != y} max(0, margin - x_y + x_c)^p / classes, p = 2 if squared, else 1",
    [
        labelled(
            lambda x, y: F.multi_margin_loss(x, y, 2 if squared else 1, margin, None if w is None else torch.tensor(w), reduction="none"),
            {"margin": margin, "squared": squared, "class_weights": w},
            f"margin {margin}, squared {squared}, weights {w}",
        )
        for margin, squared, w in [(1.0, False, None), (0.5, True, None), (2.0, False, WEIGHTS), (1.0, True, WEIGHTS)]
    ],
)

# The classes of each row as indices, ended by -1.
SETS = [[0, -1, -1, -1], [2, 3, -1, -1], [-1, -1, -1, -1], [0, 1, 2, 3], [1, 0, 3, -1]]
hot = torch.tensor([[float(c in row[: (row + [-1]).index(-1)]) for c in range(4)] for row in SETS])
write(
    "multi_label_margin",
    "torch.nn.functional.multilabel_margin_loss",
    "sum_{y in Y, c not in Y} max(0, 1 - x_y + x_c) / classes, Y the classes whose target is 1",
    [
        case(
            "random",
            lambda x: F.multilabel_margin_loss(x["student_logits"], torch.tensor(SETS), reduction="none"),
            {"student_logits": RANDOM, "targets": hot},
        )
    ],
)

write(
    "soft_margin",
    "torch.nn.functional.soft_margin_loss",
    "ln(1 + e^(-y x)), the mean over columns",
    [
        numbers(lambda x, t: F.soft_margin_loss(x, t, reduction="none"), targets=SIGNS),
        numbers(lambda x, t: F.soft_margin_loss(x, t, reduction="none"), x=LARGE, targets=SIGNS[:3, :2].contiguous(), key="large"),
    ],
)

write(
    "hinge_embedding",
    "torch.nn.functional.hinge_embedding_loss",
    "x where y = 1, max(0, margin - x) where y = -1; the mean over columns",
    [
        numbers(
            lambda x, t: F.hinge_embedding_loss(x, t, margin, reduction="none"),
            {"margin": margin},
            targets=SIGNS,
            x=RANDOM.abs(),
            key=f"margin {margin}",
        )
        for margin in (1.0, 0.25)
    ],
)

SECOND = torch.randn(5, 4)
ROW_SIGNS = SIGNS[:, :2].reshape(-1)[:5].contiguous()


def paired(loss, parameters, key):
    inputs = {"first": RANDOM, "second": SECOND, "signs": ROW_SIGNS}
    return case(key, lambda x: loss(x["first"], x["second"], x["signs"]), inputs, parameters, differentiable=("first", "second"))


write(
    "margin_ranking",
    "torch.nn.functional.margin_ranking_loss",
    "max(0, margin - y (x1 - x2)), the mean over columns",
    [
        paired(lambda a, b, y: F.margin_ranking_loss(a, b, y[:, None], margin, reduction="none").mean(-1), {"margin": margin}, f"margin {margin}")
        for margin in (0.0, 0.7)
    ],
)

write(
    "cosine_embedding",
    "torch.nn.functional.cosine_embedding_loss",
    "1 - cos where y = 1, max(0, cos - margin) where y = -1",
    [
        paired(lambda a, b, y: F.cosine_embedding_loss(a, b, y, margin, reduction="none"), {"margin": margin}, f"margin {margin}")
        for margin in (0.0, -0.4)
    ],
)
THIRD = torch.randn(5, 4)
write(
    "triplet_margin",
    "torch.nn.functional.triplet_margin_loss; Balntas et al. 2016",
    "max(0, d(a, b) - d(a, c) + margin), d the p-norm of the difference + eps; with swap the lesser of d(a, c) and d(b, c)",
    [
        case(
            f"{parameters}",
            lambda x: F.triplet_margin_loss(x["anchor"], x["positive"], x["negative"], reduction="none", **parameters),
            {"anchor": RANDOM, "positive": SECOND, "negative": THIRD},
            parameters,
            differentiable=("anchor", "positive", "negative"),
        )
        for parameters in (
            {"margin": 1.0, "p": 2.0, "eps": 1e-6, "swap": False},
            {"margin": 0.5, "p": 2.0, "eps": 1e-6, "swap": True},
            {"margin": 2.0, "p": 1.0, "eps": 1e-6, "swap": False},
            {"margin": 2.0, "p": 3.0, "eps": 1e-3, "swap": True},
        )
    ],
)
