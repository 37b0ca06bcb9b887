"""Losses on representations: python representations.py writes ../losses/*.json.

Everything is written out from the papers' formulas, example by example on its tokens alone, pair by pair, triple by
triple; nothing is masked or batched here.
"""

import itertools
import math

import torch
import torch.nn.functional as F

from common import case, write

torch.manual_seed(1)

STUDENT = ("student",)
MASKS = {
    "no padding": torch.ones(2, 3, dtype=torch.uint8),
    "padding": torch.tensor([[1, 1, 1, 1], [1, 1, 0, 0], [1, 0, 0, 0]], dtype=torch.uint8),
}


def per_example(value, mask, tensors):
    """`value` of each example's tensors, (batch, .., len, ..), on its tokens alone. Attention, (batch, heads, len, len),
    loses queries and keys."""
    rows = []
    for i, kept in enumerate(mask.bool()):
        own = [x[i][:, kept][:, :, kept] if x.dim() == 4 else x[i][kept] for x in tensors]
        rows.append(value(*own))
    return torch.stack(rows)


# Hidden states ---------------------------------------------------------------------------------------------------------

STATES = {
    "random": (torch.randn(4, 5), torch.randn(4, 5)),
    "large": (torch.randn(2, 3) * 1e3, torch.randn(2, 3) * 1e3),
    "one row, one column": (torch.tensor([[0.5]]), torch.tensor([[-2.0]])),
}


def on_states(loss, states=STATES, finite_differences=lambda key: True):
    return [
        case(
            key,
            lambda x: loss(x["student"], x["teacher"]),
            {"student": student, "teacher": teacher},
            differentiable=STUDENT,
            finite_differences=finite_differences(key),
        )
        for key, (student, teacher) in states.items()
    ]


def normalised_distance(s, t):
    return ((s / s.norm(dim=-1, keepdim=True) - t / t.norm(dim=-1, keepdim=True)) ** 2).sum(-1)


write(
    "hidden_mse",
    "Romero et al. 2015, section 2.2; Jiao et al. 2020, equation 8",
    "mean over the width of (s - t)^2",
    on_states(lambda s, t: ((s - t) ** 2).mean(-1)),
)
write(
    "hidden_cosine",
    "Sanh et al. 2019, section 2",
    "1 - s.t / (|s| |t|)",
    on_states(lambda s, t: 1 - F.cosine_similarity(s, t, dim=-1, eps=0)),
)
write(
    "normalised_distance",
    "Sun et al. 2019 (patient distillation), equation 7",
    "sum over the width of (s/|s| - t/|t|)^2",
    on_states(normalised_distance),
)
pairs = [[1, 2], [2, 4]]
write(
    "first_token_distance",
    "Sun et al. 2019 (patient distillation), equation 7",
    "sum over pairs (i, j) of layers of the normalised distance of the first tokens' states student[i] and teacher[j]",
    [
        case(
            "two pairs of layers",
            lambda x: sum(normalised_distance(x["student"][i][:, 0], x["teacher"][j][:, 0]) for i, j in pairs),
            {"student": torch.randn(3, 2, 3, 4), "teacher": torch.randn(5, 2, 3, 4)},
            {"pairs": pairs},
            differentiable=STUDENT,
        )
    ],
)

# Attention -------------------------------------------------------------------------------------------------------------


def probabilities(mask, heads, scale):
    """Attention probabilities as a model has them: 0 for keys of padding."""
    batch, length = mask.shape
    scores = torch.randn(batch, heads, length, length) * scale
    return F.softmax(scores.masked_fill(mask[:, None, None, :] == 0, -math.inf), -1)


write(
    "attention_mse",
    "Jiao et al. 2020 (TinyBERT), equation 7",
    "per example, the mean over heads, its queries and its keys of (s - t)^2",
    [
        case(
            key,
            lambda x: per_example(lambda s, t: ((s - t) ** 2).mean(), x["mask"], [x["student"], x["teacher"]]),
            {
                "student": torch.randn(mask.shape[0], 2, *[mask.shape[1]] * 2),
                "teacher": torch.randn(mask.shape[0], 2, *[mask.shape[1]] * 2),
                "mask": mask,
            },
            differentiable=STUDENT,
        )
        for key, mask in MASKS.items()
    ],
)
write(
    "attention_kl",
    "Sun et al. 2020 (MobileBERT), section 3.4",
    "per example, the mean over heads and its queries of sum over keys of t (log t - log s)",
    [
        case(
            f"{key}, scores of size {scale}",
            lambda x: per_example(
                lambda s, t: torch.special.xlogy(t, t / s).sum(-1).mean(), x["mask"], [x["student"], x["teacher"]]
            ),
            {"student": probabilities(mask, 2, 1), "teacher": probabilities(mask, 2, scale), "mask": mask},
            differentiable=STUDENT,
            # A key of padding has probability 0 on both sides, where a difference to one side is none.
            finite_differences=key == "no padding" and scale == 1,
        )
        for key, mask in MASKS.items()
        for scale in (1, 30)
    ],
)

# Relations between positions -------------------------------------------------------------------------------------------


def log_relation(a, b, heads):
    n, width = a.shape
    a, b = (x.reshape(n, heads, width // heads).transpose(0, 1) for x in (a, b))
    return F.log_softmax(a @ b.transpose(1, 2) / math.sqrt(width // heads), -1)


def relation_kl(heads):
    def value(sa, sb, ta, tb):
        s, t = log_relation(sa, sb, heads), log_relation(ta, tb, heads)
        return F.kl_div(s, t, reduction="none", log_target=True).sum(-1).mean()

    return value


def vectors(mask, width, scale=1.0):
    return torch.randn(*mask.shape, width) * scale


relations = []
for key, mask in MASKS.items():
    for heads, student_width, teacher_width in [(1, 4, 4), (2, 4, 6), (3, 3, 12)]:
        relations.append(
            case(
                f"{key}, {heads} heads, widths {student_width} and {teacher_width}",
                lambda x: per_example(
                    relation_kl(heads),
                    x["mask"],
                    [x["student_a"], x["student_b"], x["teacher_a"], x["teacher_b"]],
                ),
                {
                    "student_a": vectors(mask, student_width, 2),
                    "student_b": vectors(mask, student_width, 2),
                    "teacher_a": vectors(mask, teacher_width, 2),
                    "teacher_b": vectors(mask, teacher_width, 2),
                    "mask": mask,
                },
                {"heads": heads},
                differentiable=("student_a", "student_b"),
            )
        )
write(
    "relation_kl",
    "Wang et al. 2020 (MiniLM), sections 3.1 and 3.2; Wang et al. 2021 (MiniLMv2), section 3.1",
    "per example, the mean over relation heads and its queries of KL(softmax(ta tb^T / sqrt(d)) || softmax(sa sb^T / sqrt(d)))",
    relations,
)
names = ("queries", "keys", "values")
write(
    "self_relations_kl",
    "Wang et al. 2021 (MiniLMv2), section 3.1",
    "the mean of relation_kl over query-query, key-key and value-value relations",
    [
        case(
            key,
            lambda x: sum(
                per_example(relation_kl(2), x["mask"], [x[f"student_{n}"]] * 2 + [x[f"teacher_{n}"]] * 2) for n in names
            )
            / 3,
            {
                **{f"student_{n}": vectors(mask, 4) for n in names},
                **{f"teacher_{n}": vectors(mask, 8) for n in names},
                "mask": mask,
            },
            {"heads": 2},
            differentiable=tuple(f"student_{n}" for n in names),
        )
        for key, mask in MASKS.items()
    ],
)


def flow(early, late):
    return sum(torch.outer(f, g) for f, g in zip(early, late)) / len(early)


write(
    "flow_mse",
    "Yim et al. 2017, equations 1 and 2",
    "per example, the mean over cells of (G_s - G_t)^2, G = 1/tokens sum over tokens of early late^T",
    [
        case(
            key,
            lambda x: per_example(
                lambda sa, sb, ta, tb: ((flow(sa, sb) - flow(ta, tb)) ** 2).mean(),
                x["mask"],
                [x["student_early"], x["student_late"], x["teacher_early"], x["teacher_late"]],
            ),
            {
                "student_early": vectors(mask, 2),
                "student_late": vectors(mask, 3),
                "teacher_early": vectors(mask, 2),
                "teacher_late": vectors(mask, 3),
                "mask": mask,
            },
            differentiable=("student_early", "student_late"),
        )
        for key, mask in MASKS.items()
    ],
)

KERNELS = {"linear": lambda x, y: x @ y, "polynomial": lambda x, y: (x @ y) ** 2}


def mean_discrepancy(kernel):
    def value(s, t):
        s, t = ([column / column.norm() for column in x.T] for x in (s, t))
        mean = lambda a, b: sum(kernel(x, y) for x in a for y in b) / (len(a) * len(b))
        return mean(t, t) + mean(s, s) - 2 * mean(s, t)

    return value


write(
    "neuron_selectivity",
    "Huang and Wang 2017, section 4",
    "per example, the squared MMD of the neurons' normalised activations over its tokens, kernel x.y or (x.y)^2",
    [
        case(
            f"{key}, {name}",
            lambda x: per_example(mean_discrepancy(kernel), x["mask"], [x["student"], x["teacher"]]),
            {"student": vectors(mask, 3), "teacher": vectors(mask, 5), "mask": mask},
            {"kernel": name},
            differentiable=STUDENT,
        )
        for key, mask in MASKS.items()
        for name, kernel in KERNELS.items()
    ],
)

# Relations between examples --------------------------------------------------------------------------------------------

BATCHES = {
    "random": (torch.randn(5, 3), torch.randn(5, 4)),
    "far apart": (torch.cat([torch.randn(3, 2), torch.randn(1, 2) + 50]), torch.randn(4, 2)),
    "three rows": (torch.randn(3, 1), torch.randn(3, 2)),
}


def huber(x):
    return F.huber_loss(x, torch.zeros_like(x), delta=1.0)


def relational_distance(s, t):
    n = len(s)
    every = list(itertools.permutations(range(n), 2))
    distances = [torch.stack([(x[i] - x[j]).norm() for i, j in every]) for x in (s, t)]
    relative = [d / d.mean() for d in distances]
    return sum(huber(a - b) for a, b in zip(*relative)) / len(every)


def relational_angle(s, t):
    def cosine(x, i, j, k):
        a, b = x[i] - x[j], x[k] - x[j]
        return (a / a.norm()) @ (b / b.norm())

    every = list(itertools.permutations(range(len(s)), 3))
    return sum(huber(cosine(s, *at) - cosine(t, *at)) for at in every) / len(every)


def similarity_preserving(s, t):
    similarity = lambda q: F.normalize(q @ q.T, p=2, dim=1)
    return ((similarity(s) - similarity(t)) ** 2).sum() / len(s) ** 2


write(
    "relational_distance",
    "Park et al. 2019, section 3.2.1",
    "mean over ordered pairs of distinct rows of huber(d_s / mean d_s - d_t / mean d_t), delta 1",
    on_states(relational_distance, BATCHES),
)
write(
    "relational_angle",
    "Park et al. 2019, section 3.2.2",
    "mean over ordered triples of distinct rows of huber(cos_s - cos_t) of the angle at the second, delta 1",
    # In one dimension all angles of the student are 0 or 180 degrees.
    on_states(relational_angle, {key: value for key, value in BATCHES.items() if key != "three rows"}),
)
write(
    "similarity_preserving",
    "Tung and Mori 2019, section 3",
    "1/n^2 of the squared Frobenius norm of G_s - G_t, G = Q Q^T with rows of length 1",
    on_states(similarity_preserving, BATCHES),
)

# Contrast --------------------------------------------------------------------------------------------------------------


def noise_contrast(temperature, log_normaliser, examples):
    def rows(x):
        noise = (x["candidates"].shape[1] - 1) / examples
        values = []
        for anchor, candidates in zip(x["anchors"], x["candidates"]):
            p = torch.exp(candidates @ anchor / temperature) / math.exp(log_normaliser)
            h = p / (p + noise)
            values.append(-torch.log(h[0]) - torch.log(1 - h[1:]).sum())
        return torch.stack(values)

    return rows


write(
    "noise_contrast",
    "Tian et al. 2020, section 3; Wu et al. 2018, equations 6 and 7",
    "-ln h_0 - sum over k > 0 of ln(1 - h_k), h = P / (P + K/N), P = exp(candidate . anchor / temperature) / Z",
    [
        case(
            f"temperature {temperature}",
            noise_contrast(temperature, log_normaliser, examples),
            {
                "anchors": F.normalize(torch.randn(3, 4), dim=-1),
                "candidates": F.normalize(torch.randn(3, 6, 4), dim=-1),
            },
            {"temperature": temperature, "log_normaliser": log_normaliser, "examples": examples},
            differentiable=("anchors",),
        )
        for temperature, log_normaliser, examples in [(1.0, math.log(50.0), 40), (0.07, 12.5, 1000)]
    ],
)

# A recipe --------------------------------------------------------------------------------------------------------------

mask = MASKS["padding"]
batch, length = mask.shape
every = mask.bool()
layer_pairs = [[0, 0], [1, 2], [2, 4]]


def layer_by_layer(temperature):
    def value(x):
        total = 0
        for i, j in layer_pairs:
            weight = x["hidden_weight" if i else "embeddings_weight"]
            total = total + F.mse_loss(x["student_hidden"][i][every] @ weight.T, x["teacher_hidden"][j][every])
            if i:
                maps = [x["student_attention"][i - 1], x["teacher_attention"][j - 1]]
                total = total + per_example(lambda s, t: ((s - t) ** 2).mean(), mask, maps).mean()
        probs = F.softmax(x["teacher_logits"] / temperature, -1)
        return total + temperature**2 * F.cross_entropy(x["student_logits"] / temperature, probs)

    return value


write(
    "layer_by_layer",
    "Jiao et al. 2020 (TinyBERT), section 3",
    "sum over pairs of layers of MSE(student W^T, teacher) on tokens and attention_mse, plus soft_cross_entropy",
    [
        case(
            f"two layers of four, T = {temperature:g}",
            layer_by_layer(temperature),
            {
                "student_hidden": torch.randn(3, batch, length, 3),
                "teacher_hidden": torch.randn(5, batch, length, 4),
                "student_attention": torch.randn(2, batch, 2, length, length),
                "teacher_attention": torch.randn(4, batch, 2, length, length),
                "student_logits": torch.randn(batch, 2),
                "teacher_logits": torch.randn(batch, 2),
                "embeddings_weight": torch.randn(4, 3),
                "hidden_weight": torch.randn(4, 3),
                "mask": mask,
            },
            {"pairs": layer_pairs, "temperature": temperature},
            differentiable=(
                "student_hidden",
                "student_attention",
                "student_logits",
                "embeddings_weight",
                "hidden_weight",
            ),
        )
        for temperature in (1.0, 2.0)
    ],
)
