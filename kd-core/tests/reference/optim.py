"""Writes optim.json: weights of a table after steps of PyTorch's SparseAdam and AdamW, in f64.

Every step has the rows with a gradient and the gradient. Run with Python 3 and torch: python optim.py
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

sparse = torch.nn.Parameter(start.clone())
optimizer = torch.optim.SparseAdam([sparse], lr=LR)
for rows, values in steps:
    sparse.grad = torch.sparse_coo_tensor(torch.tensor([rows]), values, (ROWS, WIDTH))
    optimizer.step()

dense = torch.nn.Parameter(start.clone())
optimizer = torch.optim.AdamW([dense], lr=LR, weight_decay=0.2)
for rows, values in steps:
    dense.grad = torch.zeros(ROWS, WIDTH)
    dense.grad[rows] = values
    optimizer.step()

reference = {
    "lr": LR,
    "start": start.tolist(),
    "steps": [{"ids": rows, "values": values.tolist()} for rows, values in steps],
    "sparse_adam": sparse.tolist(),
    "adamw": {"weight_decay": 0.2, "weights": dense.tolist()},
}
path = pathlib.Path(__file__).with_suffix(".json")
path.write_text(json.dumps(reference, separators=(",", ":")) + "\n")
print(path.stat().st_size, "bytes")
