"""Writes batch_norm.json: PyTorch's BatchNorm1d in float64: two training batches, then evaluation.

Run with: python batch_norm.py > batch_norm.json
Made with torch 2.15 on one thread.
"""

import json

import torch

torch.set_num_threads(1)
torch.set_default_dtype(torch.float64)
torch.manual_seed(8)
width = 3
norm = torch.nn.BatchNorm1d(width)
with torch.no_grad():
    norm.weight.copy_(torch.tensor([1.5, -0.7, 0.2]))
    norm.bias.copy_(torch.tensor([0.1, 0.0, -0.4]))
steps = []
for rows, training in [(5, True), (2, True), (4, False)]:
    norm.train(training)
    norm.zero_grad()
    x = ((torch.randn(rows, width) * 2 + 1) * 1e4).round().div(1e4).requires_grad_()
    weights = (torch.randn(rows, width) * 1e4).round() / 1e4
    y = norm(x)
    (y * weights).sum().backward()
    steps.append({
        "training": training,
        "x": x.tolist(),
        "weights": weights.tolist(),
        "y": y.tolist(),
        "x_gradient": x.grad.tolist(),
        "weight_gradient": norm.weight.grad.tolist(),
        "bias_gradient": norm.bias.grad.tolist(),
        "running_mean": norm.running_mean.tolist(),
        "running_var": norm.running_var.tolist(),
    })
print(json.dumps({"weight": norm.weight.tolist(), "bias": norm.bias.tolist(), "steps": steps}))
