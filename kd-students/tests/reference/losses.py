"""Writes losses.json: losses by the names and keys of a configuration, PyTorch's values and gradients, in f64.

Run with Python 3 and torch: python losses.py > losses.json
"""

import json
import warnings

import torch
import torch.nn.functional as F
from torch import nn

warnings.simplefilter("ignore")
torch.set_num_threads(1)
torch.set_default_dtype(torch.float64)
torch.manual_seed(5)

CASES = []
HEADS = {"a": torch.randn(5, 4), "b": torch.randn(5, 4), "c": torch.randn(5, 4), "one": torch.randn(5, 1), "two": torch.randn(5, 2)}
LABEL, TOPIC = torch.tensor([0, 3, 2, 2, 1]), torch.tensor([0, 1, 1, 0, 1])
SIGNS = torch.tensor([1.0, -1, -1, 1, 1])
WEIGHTS = [0.5, 2.0, 0.25, 1.5]


def array(t):
    return {"shape": list(t.shape), "data": t.detach().to(torch.float64).flatten().tolist()}


def case(kind, conf, inputs, target=None, heads=None, loss=None, **module):
    """`loss` computes what PyTorch's module of that name does not; `module` has its arguments where they differ from `conf`."""
    names = inputs if target is None else inputs[:-1]
    given = {name: (heads or {}).get(name, HEADS[name]).clone().requires_grad_() for name in names}
    arguments = {key: torch.tensor(x) if isinstance(x, list) else x for key, x in {**conf, **module}.items()}
    loss = loss or getattr(nn, kind)(**arguments)
    value = loss(*given.values()) if target is None else loss(*given.values(), target)
    gradients = torch.autograd.grad(value, list(given.values()))
    shown = target
    CASES.append(
        {
            "type": kind,
            "conf": conf,
            "inputs": inputs,
            "heads": {name: array(t) for name, t in given.items()},
            "target": None if shown is None else array(shown),
            "value": value.item(),
            "gradients": {name: array(g) for name, g in zip(given, gradients)},
        }
    )


log_probs = {"a": F.log_softmax(HEADS["a"], -1)}
for conf in (
    {},
    {"size_average": True},
    {"size_average": False},
    {"weight": WEIGHTS},
    {"weight": WEIGHTS, "reduction": "sum"},
    {"ignore_index": 2},
    {"ignore_index": 2, "weight": WEIGHTS, "size_average": False},
    {"ignore_index": -100},
):
    case("CrossEntropyLoss", conf, ["a", "label"], LABEL)
    case("NLLLoss", conf, ["a", "label"], LABEL, log_probs)
case("CrossEntropyLoss", {"label_smoothing": 0.2, "weight": WEIGHTS}, ["a", "label"], LABEL)
case("CrossEntropyLoss", {}, ["two", "topic"], TOPIC)
case("NLLLoss2d", {}, ["a", "label"], LABEL, log_probs, loss=nn.NLLLoss())


def focal(gamma, alpha, reduce):
    def loss(x, labels):
        log_p = F.log_softmax(x, -1).gather(1, labels[:, None]).squeeze(1)
        return reduce(-((1 - log_p.exp()) ** gamma) * torch.tensor(alpha)[labels] * log_p)

    return loss


case("FocalLoss", {}, ["two", "topic"], TOPIC, loss=focal(0.0, [0.5, 0.5], torch.mean))
case("FocalLoss", {"gamma": 2, "alpha": 0.3}, ["two", "topic"], TOPIC, loss=focal(2.0, [0.3, 0.7], torch.mean))
conf = {"gamma": 2, "alpha": WEIGHTS, "size_average": False}
case("FocalLoss", conf, ["a", "label"], LABEL, loss=focal(2.0, WEIGHTS, torch.sum))
for conf in ({}, {"p": 2, "margin": 0.5, "weight": WEIGHTS}, {"reduction": "sum"}):
    case("MultiMarginLoss", conf, ["a", "label"], LABEL)

numbers, one = torch.randn(5, 4), torch.randn(5)
column = lambda loss: lambda x, t: loss(x.squeeze(1), t)
for reduction in ({}, {"size_average": False}):
    for kind, conf in [("MSELoss", {}), ("L1Loss", {}), ("SmoothL1Loss", {}), ("SmoothL1Loss", {"beta": 0.5})]:
        conf = {**conf, **reduction}
        case(kind, conf, ["one", "score"], one, loss=column(getattr(nn, kind)(**conf)))
        case(kind, conf, ["a", "score"], numbers)
    counts = torch.randint(0, 6, (5, 4)).double()
    case("PoissonNLLLoss", reduction, ["a", "score"], counts)
    conf = {"log_input": False, "full": True, "eps": 0.1, **reduction}
    case("PoissonNLLLoss", conf, ["a", "score"], counts, {"a": HEADS["a"].abs() + 0.1})
    probs = F.softmax(numbers, -1)
    case("KLDivLoss", reduction, ["a", "score"], probs, log_probs)
    case("KLDivLoss", {"log_target": True, **reduction}, ["a", "score"], F.log_softmax(numbers, -1), log_probs)
    hot = (numbers > 0).double()
    case("BCELoss", reduction, ["a", "score"], torch.rand(5, 4), {"a": torch.sigmoid(HEADS["a"])})
    case("BCELoss", reduction, ["one", "score"], torch.rand(5), {"one": torch.sigmoid(HEADS["one"])}, column(nn.BCELoss(**reduction)))
    case("BCEWithLogitsLoss", {"weight": WEIGHTS, "pos_weight": [3.0, 0.5, 1.0, 2.0], **reduction}, ["a", "score"], hot)
    case("MultiLabelSoftMarginLoss", {"weight": WEIGHTS, **reduction}, ["a", "score"], hot)
    indices = torch.tensor([[c for c in range(4) if row[c] > 0] + [-1] * int(4 - row.sum()) for row in hot])
    loss = nn.MultiLabelMarginLoss(**reduction)
    case("MultiLabelMarginLoss", reduction, ["a", "score"], hot, loss=lambda x, t: loss(x, indices))
    signs = SIGNS[:, None].expand(5, 4).contiguous()
    case("SoftMarginLoss", reduction, ["a", "score"], signs)
    case("HingeEmbeddingLoss", {"margin": 0.7, **reduction}, ["a", "score"], signs, {"a": HEADS["a"].abs()})
    ranking = nn.MarginRankingLoss(margin=0.3, **reduction)
    case("MarginRankingLoss", {"margin": 0.3, **reduction}, ["a", "b", "score"], SIGNS, loss=lambda x, y, t: ranking(x, y, t[:, None]))
    case("CosineEmbeddingLoss", {"margin": 0.2, **reduction}, ["a", "b", "score"], SIGNS)
    case("TripletMarginLoss", {"margin": 2.0, "swap": True, **reduction}, ["a", "b", "c"])
case("KLDivLoss", {"reduction": "batchmean"}, ["a", "score"], F.softmax(numbers, -1), log_probs)

print(json.dumps(CASES))
