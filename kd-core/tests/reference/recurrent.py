"""Writes recurrent.json: a bidirectional LSTM over packed sequences and a character CNN, with all gradients, in f64.

Run with Python 3 and torch: python recurrent.py
"""

import json
import pathlib

import torch
from torch import nn
from torch.nn.utils.rnn import pack_padded_sequence, pad_packed_sequence

torch.set_num_threads(1)
torch.set_default_dtype(torch.float64)
torch.manual_seed(11)


def tensor(t):
    return {"shape": list(t.shape), "values": [float(f"{x:.15g}") for x in t.detach().flatten().tolist()]}


def named(module, gradient):
    return {name: tensor(p.grad if gradient else p) for name, p in module.named_parameters()}


def lstm():
    input_size, hidden, lengths = 3, 2, [3, 5, 1, 4]
    module = nn.LSTM(input_size, hidden, num_layers=2, bidirectional=True, batch_first=True)
    xs = torch.randn(len(lengths), max(lengths), input_size, requires_grad=True)
    packed = pack_padded_sequence(xs, torch.tensor(lengths), batch_first=True, enforce_sorted=False)
    states, _ = pad_packed_sequence(module(packed)[0], batch_first=True)
    weights = torch.randn_like(states)  # at padding too, where nothing may come back
    (states * weights).sum().backward()
    return {
        "input": input_size, "hidden": hidden, "layers": 2, "lengths": lengths,
        "xs": tensor(xs), "variables": named(module, False), "states": tensor(states),
        "weights": tensor(weights), "d_xs": tensor(xs.grad), "d_variables": named(module, True),
    }


class CharCnn(nn.Module):
    def __init__(self, symbols, width, filters, kernel):
        super().__init__()
        self.embedding = nn.Embedding(symbols, width, padding_idx=0)
        self.conv = nn.Conv1d(width, filters, kernel, padding=kernel // 2)

    def forward(self, chars):
        words = chars.flatten(0, 1)
        values = torch.relu(self.conv(self.embedding(words).transpose(1, 2)))  # (words, filters, chars)
        values = values.masked_fill((words == 0).unsqueeze(1), 0.0)  # ReLU gives at least 0
        return values.max(2).values.unflatten(0, chars.shape[:2])


def char_cnn(kernel):
    symbols, width, filters = 7, 3, 4
    module = CharCnn(symbols, width, filters, kernel)
    chars = torch.zeros(2, 3, 6, dtype=torch.long)
    words = [[[1, 2, 3], [4], [5, 1, 6, 2, 4, 3]], [[6, 6], [3, 1, 4, 1], []]]
    for i, row in enumerate(words):
        for j, word in enumerate(row):
            chars[i, j, : len(word)] = torch.tensor(word, dtype=torch.long)
    out = module(chars)
    weights = torch.randn_like(out)
    (out * weights).sum().backward()
    return {
        "symbols": symbols, "width": width, "filters": filters, "kernel": kernel,
        "chars": {"shape": list(chars.shape), "values": chars.flatten().tolist()},
        "variables": named(module, False), "out": tensor(out),
        "weights": tensor(weights), "d_variables": named(module, True),
    }


reference = {"lstm": lstm(), "char_cnn": [char_cnn(kernel) for kernel in (1, 3, 5)]}
path = pathlib.Path(__file__).with_suffix(".json")
path.write_text(json.dumps(reference, separators=(",", ":")) + "\n")
print(path.stat().st_size, "bytes")
