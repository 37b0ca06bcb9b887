"""Losses of a linear-chain CRF: python sequences.py writes ../losses/*.json.

Everything is summed over all label paths, one by one. Scores: `transitions` is (classes + 2, classes), from each class to each, then from
the start, then from each class to the end. The rows of all sequences stand one after another; the parameter `lengths` says how
many each has.
"""

import itertools

import torch
import torch.nn.functional as F

from common import case, write

torch.manual_seed(0)


def all_paths(emissions, transitions):
    """Every label path of one sequence, in order of the last label, then of the one before; and their scores."""
    length, classes = emissions.shape
    paths = [path[::-1] for path in itertools.product(range(classes), repeat=length)]
    scores = []
    for path in paths:
        score = torch.zeros(())
        for at, label in enumerate(path):
            score = score + emissions[at, label] + transitions[path[at - 1] if at else classes, label]
        scores.append(score + transitions[classes + 1, path[-1]] if length else score)
    return paths, torch.stack(scores)


def sequences(emissions, transitions, lengths):
    return [all_paths(part, transitions) for part in emissions.split(lengths)]


def marginals(emissions, transitions, lengths):
    """log p(label of a row), (rows, classes)."""
    rows = []
    for paths, scores in sequences(emissions, transitions, lengths):
        log_probs = F.log_softmax(scores, 0)
        for at in range(len(paths[0])):
            labels = torch.tensor([path[at] for path in paths])
            rows.append(torch.stack([log_probs[labels == c].logsumexp(0) for c in range(emissions.shape[1])]))
    return torch.stack(rows)


def crf(classes, lengths, scale, prefix):
    rows = sum(lengths)
    return {
        f"{prefix}_emissions": torch.randn(rows, classes) * scale,
        f"{prefix}_transitions": torch.randn(classes + 2, classes),
    }


STUDENT = ("student_emissions", "student_transitions")
SHAPES = {
    "three sequences": (3, [2, 4, 1], 1.0),
    "two classes, sure": (2, [5, 3], 8.0),
    "one word, five classes": (5, [1], 1.0),
    "a sequence without words": (3, [2, 0, 3], 2.0),
}
GIVEN = {key: {**crf(*shape, "student"), **crf(*shape, "teacher")} for key, shape in SHAPES.items()}
# Demands of ten thousand against transitions that cost as much.
GIVEN["extreme"] = {
    "student_emissions": torch.tensor([[1e4, -1e4], [-1e4, 1e4], [0.0, 3.0]]),
    "student_transitions": torch.tensor([[0.0, -1e4], [0.0, 0.0], [1.0, 0.0], [0.0, 0.5]]),
    "teacher_emissions": torch.tensor([[0.0, 2.0], [1e3, 0.0], [0.0, 1e3]]),
    "teacher_transitions": torch.zeros(4, 2),
}
SHAPES["extreme"] = (2, [2, 1], None)


def cases(loss, keep, parameters=None, name="{}"):
    """Cases of all CRFs. Losses return the value of each sequence, and the mean divides their sum by the rows."""
    made = []
    for key, given in GIVEN.items():
        lengths = SHAPES[key][1]
        made.append(
            case(
                name.format(key),
                lambda x: loss(x, lengths),
                {name: given[name] for name in given if name.split("_")[0] in keep} | extra(given, keep),
                {"lengths": lengths, **(parameters or {})},
                differentiable=STUDENT,
                finite_differences=key != "extreme",
            )
        )
    return made


def extra(given, keep):
    rows, classes = given["student_emissions"].shape
    return {"labels": torch.arange(rows) * 2 % classes} if "labels" in keep else {}


def log_likelihood(x, lengths):
    total = 0
    for (paths, scores), labels in zip(
        sequences(x["student_emissions"], x["student_transitions"], lengths), x["labels"].split(lengths)
    ):
        total = total + F.log_softmax(scores, 0)[paths.index(tuple(labels.tolist()))]
    return -total / sum(lengths)


write(
    "crf_negative_log_likelihood",
    "Lafferty, McCallum and Pereira 2001",
    "sum over sequences of -log p(labels), divided by the number of rows",
    cases(log_likelihood, ("student", "labels")),
)


def marginal_divergence(x, lengths):
    student, teacher = (marginals(x[f"{side}_emissions"], x[f"{side}_transitions"], lengths) for side in ("student", "teacher"))
    return F.kl_div(student, teacher, reduction="none", log_target=True).sum(-1)


write(
    "crf_marginal_kl",
    "Wang et al. 2020 (structure-level), section 3",
    "sum_c p_c (log p_c - log q_c) of a row, p and q the marginals of the teacher's and the student's CRF",
    cases(marginal_divergence, ("student", "teacher")),
)


def best_paths(k, posterior):
    def loss(x, lengths):
        total = 0
        student = sequences(x["student_emissions"], x["student_transitions"], lengths)
        teacher = sequences(x["teacher_emissions"], x["teacher_transitions"], lengths)
        for (_, scores), (_, taught) in zip(student, teacher):
            # Stable, so of equal scores the path that comes first in `all_paths`.
            best = torch.sort(taught.detach(), descending=True, stable=True).indices[:k]
            weights = F.softmax(taught.detach()[best], 0) if posterior else torch.full((len(best),), 1 / len(best))
            total = total + weights @ F.log_softmax(scores, 0)[best]
        return -total / sum(lengths)

    return loss


write(
    "path_cross_entropy",
    "Wang et al. 2020 (structure-level), section 3",
    "sum over sequences of -sum_k w_k log p_student(path_k) over the teacher's k best paths, divided by the number of rows; "
    "w = 1 / paths (uniform) or the teacher's probabilities of these paths, made to sum to 1 (posterior)",
    [
        c
        for k in (1, 3, 1000)
        for weights in ("uniform", "posterior")
        for c in cases(
            best_paths(k, weights == "posterior"),
            ("student", "teacher"),
            {"k": k, "weights": weights},
            f"{{}}, {weights}, k = {k}",
        )
    ],
)
