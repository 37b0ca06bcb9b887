"""Writes optim.json: weights of a table after steps of PyTorch's optimisers, in f64.

Every step has the rows with a gradient, the gradient and a factor on the learning rate; `cases` have the settings and the
weights after each step, some of them for the same steps again. PyTorch's SparseAdam ignores the factors. Run with Python 3 and torch: python optim.py
"""

import json
import pathlib

import torch

torch.set_default_dtype(torch.float64)
torch.manual_seed(5)

ROWS, WIDTH, LR = 6, 3, 0.1
start = torch.randn(ROWS, WIDTH)
ids = [[1, 4], [4], [0, 1, 2, 3, 4, 5], [2], [1, 5]]
steps = [(rows, torch.randn(len(rows), WIDTH)) for rows in ids]
factors = [1.0, 0.5, 1.0, 0.25, 2.0]

sparse = torch.nn.Parameter(start.clone())
optimizer = torch.optim.SparseAdam([sparse], lr=LR)
for rows, values in steps:
    sparse.grad = torch.sparse_coo_tensor(torch.tensor([rows]), values, (ROWS, WIDTH))
    optimizer.step()


def case(name, optimizer, config, rounds=1, **arguments):
    """`config` has our names; `arguments` are PyTorch's, for those that differ. The steps are made `rounds` times."""
    table = torch.nn.Parameter(start.clone())
    settings = {key: value for key, value in config.items() if key not in ("beta1", "beta2")}
    optimizer = optimizer([table], **settings, **arguments)
    weights = []
    for (rows, values), factor in zip(steps * rounds, factors * rounds):
        table.grad = torch.zeros(ROWS, WIDTH)
        table.grad[rows] = values
        optimizer.param_groups[0]["lr"] = config["lr"] * factor
        optimizer.step()
        weights.append(table.tolist())
    return {"config": {"name": name, **config}, "weights": weights}


adam = {"lr": LR, "beta1": 0.9, "beta2": 0.999, "eps": 1e-8}
fast = {"lr": LR, "beta1": 0.6, "beta2": 0.7, "eps": 1e-3}
momentum = {"lr": LR, "momentum": 0.9}
adagrad = {"lr": LR, "lr_decay": 0.0, "weight_decay": 0.0, "initial_accumulator_value": 0.0, "eps": 1e-10}
adadelta = {"lr": LR, "rho": 0.9, "eps": 1e-6, "weight_decay": 0.0}
rmsprop = {"lr": LR, "alpha": 0.99, "eps": 1e-8, "weight_decay": 0.0, "momentum": 0.0, "centered": False}
nadam = {**adam, "weight_decay": 0.0, "momentum_decay": 4e-3, "decoupled_weight_decay": False}
radam = {**adam, "weight_decay": 0.0, "decoupled_weight_decay": False}
decoupled = {"weight_decay": 0.2, "decoupled_weight_decay": True}
cases = [
    case("adamw", torch.optim.AdamW, {**adam, "weight_decay": 0.2}, betas=(0.9, 0.999)),
    case("adamw", torch.optim.AdamW, {**fast, "weight_decay": 0.0}, betas=(0.6, 0.7)),
    case("sgd", torch.optim.SGD, {"lr": LR}),
    case("sgd", torch.optim.SGD, {"lr": LR, "weight_decay": 0.2}),
    case("sgd", torch.optim.SGD, momentum),
    case("sgd", torch.optim.SGD, {**momentum, "weight_decay": 0.2}),
    case("sgd", torch.optim.SGD, {**momentum, "nesterov": True}),
    case("sgd", torch.optim.SGD, {**momentum, "nesterov": True, "weight_decay": 0.2}),
    case("adamax", torch.optim.Adamax, {**adam, "weight_decay": 0.0}, betas=(0.9, 0.999)),
    case("adamax", torch.optim.Adamax, {**fast, "weight_decay": 0.2}, betas=(0.6, 0.7)),
    case("adam", torch.optim.Adam, {**adam, "weight_decay": 0.0}, betas=(0.9, 0.999)),
    case("adam", torch.optim.Adam, {**fast, "weight_decay": 0.2}, betas=(0.6, 0.7)),
    case("adagrad", torch.optim.Adagrad, adagrad),
    case(
        "adagrad",
        torch.optim.Adagrad,
        {**adagrad, "lr_decay": 0.3, "weight_decay": 0.2, "initial_accumulator_value": 0.5, "eps": 1e-3},
    ),
    case("adadelta", torch.optim.Adadelta, adadelta),
    case("adadelta", torch.optim.Adadelta, {**adadelta, "rho": 0.6, "eps": 1e-2, "weight_decay": 0.2}),
    case("rmsprop", torch.optim.RMSprop, rmsprop),
    case("rmsprop", torch.optim.RMSprop, {**rmsprop, "momentum": 0.9, "weight_decay": 0.2}),
    case("rmsprop", torch.optim.RMSprop, {**rmsprop, "alpha": 0.7, "eps": 1e-3, "centered": True}),
    case("rmsprop", torch.optim.RMSprop, {**rmsprop, "momentum": 0.5, "centered": True, "weight_decay": 0.2}),
    case("nadam", torch.optim.NAdam, nadam, betas=(0.9, 0.999)),
    case(
        "nadam",
        torch.optim.NAdam,
        {**nadam, **fast, "weight_decay": 0.2, "momentum_decay": 0.3},
        betas=(0.6, 0.7),
    ),
    case("nadam", torch.optim.NAdam, {**nadam, **decoupled}, betas=(0.9, 0.999)),
    # The second moment counts from the sixth step on, or with 0.7 from the tenth.
    case("radam", torch.optim.RAdam, radam, rounds=2, betas=(0.9, 0.999)),
    case("radam", torch.optim.RAdam, {**radam, **fast, "weight_decay": 0.2}, rounds=3, betas=(0.6, 0.7)),
    case("radam", torch.optim.RAdam, {**radam, **decoupled}, rounds=2, betas=(0.9, 0.999)),
]

reference = {
    "lr": LR,
    "start": start.tolist(),
    "steps": [
        {"ids": rows, "values": values.tolist(), "factor": factor} for (rows, values), factor in zip(steps, factors)
    ],
    "sparse_adam": sparse.tolist(),
    "cases": cases,
}
path = pathlib.Path(__file__).with_suffix(".json")
path.write_text(json.dumps(reference, separators=(",", ":")) + "\n")
print(path.stat().st_size, "bytes")
