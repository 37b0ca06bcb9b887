"""Writes crf.json: a linear-chain CRF by the forward algorithm and autograd, in f64.

Marginals come twice: as the gradient of the log-partition, and from a forward-backward pass whose own gradients
are taken. Run with Python 3 and torch: python crf.py
"""

import json
import pathlib

import torch

torch.set_num_threads(1)
torch.set_default_dtype(torch.float64)
torch.manual_seed(12)

CLASSES, LENGTHS = 4, [3, 0, 1, 5]


def tensor(t):
    return {"shape": list(t.shape), "values": [float(f"{x:.15g}") for x in t.detach().flatten().tolist()]}


def split(emissions):
    return emissions.split(LENGTHS)


def alphas(e, a):
    steps = [a[CLASSES] + e[0]]
    for row in e[1:]:
        steps.append(torch.logsumexp(steps[-1].unsqueeze(1) + a[:CLASSES], 0) + row)
    return torch.stack(steps)


def betas(e, a):
    steps = [a[CLASSES + 1]]
    for row in e.flip(0)[:-1]:
        steps.append(torch.logsumexp(a[:CLASSES] + row + steps[-1], 1))
    return torch.stack(steps[::-1])


def log_partition(emissions, a):
    return torch.stack([
        torch.logsumexp(alphas(e, a)[-1] + a[CLASSES + 1], 0) if len(e) else torch.zeros(()) for e in split(emissions)
    ])


def path_scores(emissions, a, labels):
    out = []
    for e, y in zip(split(emissions), labels.split(LENGTHS)):
        score = torch.zeros(())
        if len(y):
            score = a[CLASSES, y[0]] + e[range(len(y)), y].sum() + a[y[:-1], y[1:]].sum() + a[CLASSES + 1, y[-1]]
        out.append(score)
    return torch.stack(out)


def log_marginals(emissions, a):
    return torch.cat([torch.log_softmax(alphas(e, a) + betas(e, a), 1) for e in split(emissions) if len(e)])


def gradients(value, emissions, a):
    return [tensor(g) for g in torch.autograd.grad(value, (emissions, a), retain_graph=True)]


rows = sum(LENGTHS)
e = (2 * torch.randn(rows, CLASSES)).requires_grad_()
a = torch.randn(CLASSES + 2, CLASSES).requires_grad_()
labels = torch.randint(CLASSES, (rows,))
sequence_weights, row_weights = torch.randn(len(LENGTHS)), torch.randn(rows, CLASSES)

z, path, marginals = log_partition(e, a), path_scores(e, a, labels), log_marginals(e, a)
assert torch.allclose(torch.autograd.grad(z.sum(), e, retain_graph=True)[0], marginals.exp())
nll = (z - path).sum() / rows
reference = {
    "classes": CLASSES, "lengths": LENGTHS, "emissions": tensor(e), "transitions": tensor(a), "labels": labels.tolist(),
    "sequence_weights": tensor(sequence_weights), "row_weights": tensor(row_weights),
    "log_partition": tensor(z), "d_log_partition": gradients((z * sequence_weights).sum(), e, a),
    "path_scores": tensor(path), "d_path_scores": gradients((path * sequence_weights).sum(), e, a),
    "negative_log_likelihood": tensor(nll), "d_negative_log_likelihood": gradients(nll, e, a),
    "log_marginals": tensor(marginals), "d_log_marginals": gradients((marginals * row_weights).sum(), e, a),
}
path = pathlib.Path(__file__).with_suffix(".json")
path.write_text(json.dumps(reference, separators=(",", ":")) + "\n")
print(path.stat().st_size, "bytes")
