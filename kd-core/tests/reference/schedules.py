"""Writes schedules.json: the factors on the learning rate of transformers' and PyTorch's schedules, in f64.

The list of each schedule has the factor at every step from 0 on. Run with Python 3, torch and transformers: python schedules.py
"""

import json
import pathlib

import torch
import transformers

STEPS = 30


def factors(make):
    optimizer = torch.optim.SGD([torch.nn.Parameter(torch.zeros(1))], lr=1.0)
    schedule = make(optimizer)
    values = []
    for _ in range(STEPS):
        values.append(optimizer.param_groups[0]["lr"])
        optimizer.step()
        schedule.step()
    return values


def warmup(name, **settings):
    return lambda optimizer: getattr(transformers, name)(optimizer, **settings)


def neuronblocks(lr_decay, minimum_lr, epoch_start_lr_decay, steps_per_epoch):
    """The rule of NeuronBlocks' training loop: epochs count from 1, the rate decays after each from the start epoch on."""
    lr, values = 1.0, []
    for epoch in range(1, STEPS // steps_per_epoch + 1):
        values += [lr] * steps_per_epoch
        if epoch >= epoch_start_lr_decay:
            lr = max(lr * lr_decay, minimum_lr)
    return values


run = {"num_warmup_steps": 5, "num_training_steps": 25}
cold = {"num_warmup_steps": 0, "num_training_steps": 25}
polynomial = {"lr_end": 0.1, "power": 3.0}
step = lambda optimizer: torch.optim.lr_scheduler.StepLR(optimizer, step_size=7, gamma=0.3)
cosine = lambda optimizer: torch.optim.lr_scheduler.CosineAnnealingLR(optimizer, T_max=STEPS)
reference = [
    ({"warmup_constant": {"warmup": 5}}, factors(warmup("get_constant_schedule_with_warmup", num_warmup_steps=5))),
    ({"warmup_linear": {"warmup": 5, "total": 25}}, factors(warmup("get_linear_schedule_with_warmup", **run))),
    ({"warmup_linear": {"warmup": 0, "total": 25}}, factors(warmup("get_linear_schedule_with_warmup", **cold))),
    # transformers' cosine rises again after its last step; the last value here is the last before that.
    ({"warmup_cosine": {"warmup": 5, "total": 25}}, factors(warmup("get_cosine_schedule_with_warmup", **run))[:26]),
    ({"warmup_cosine": {"warmup": 0, "total": STEPS}}, factors(cosine)),
    (
        {"warmup_polynomial": {"warmup": 5, "total": 25, "power": 3.0, "end": 0.1}},
        factors(warmup("get_polynomial_decay_schedule_with_warmup", **run, **polynomial)),
    ),
    ({"step_decay": {"start": 7, "every": 7, "rate": 0.3, "minimum": 0.0}}, factors(step)),
    (
        {"step_decay": {"start": 8, "every": 4, "rate": 0.6, "minimum": 0.2}},
        neuronblocks(lr_decay=0.6, minimum_lr=0.2, epoch_start_lr_decay=2, steps_per_epoch=4),
    ),
]
path = pathlib.Path(__file__).with_suffix(".json")
cases = [{"schedule": schedule, "factors": values} for schedule, values in reference]
path.write_text(json.dumps(cases, separators=(",", ":")) + "\n")
