"""Writes activations.json: PyTorch's activation modules made without arguments, values and gradients, in f64.

Run with Python 3 and torch: python activations.py > activations.json
"""

import json
import warnings

import torch
from torch import nn

warnings.simplefilter("ignore")
torch.set_num_threads(1)
torch.set_default_dtype(torch.float64)
torch.manual_seed(7)

NAMES = """Sigmoid Tanh ReLU PReLU ReLU6 LeakyReLU LogSigmoid ELU SELU Threshold Hardtanh Softplus Softshrink Softsign Tanhshrink
Softmin Softmax Softmax2d LogSoftmax""".split()


def module(name):
    if name == "Threshold":
        return nn.Threshold(0.0, 0.0)
    if name in ("Softmin", "Softmax", "LogSoftmax"):
        return getattr(nn, name)(dim=-1)
    return getattr(nn, name)()


def values(t):
    return t.detach().flatten().tolist()


# Corners of all functions, large values, and random ones; the last axis has four values.
x = torch.cat([torch.tensor([0.0, 6.0, -1.0, 1.0, 0.5, -0.5, 15.0, -15.0]), torch.randn(16) * 3]).reshape(1, 2, 3, 4)
weights = torch.randn(x.shape)
cases = {}
for name in NAMES:
    f = module(name)
    given = x.clone().requires_grad_()
    y = f(given)
    parameters = list(f.parameters())
    gradients = torch.autograd.grad((y * weights).sum(), [given] + parameters)
    cases[name] = {"values": values(y), "gradient": values(gradients[0]), "parameter_gradients": [values(g) for g in gradients[1:]]}
print(json.dumps({"shape": list(x.shape), "x": values(x), "weights": values(weights), "cases": cases}))
