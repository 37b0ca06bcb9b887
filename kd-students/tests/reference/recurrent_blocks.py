"""Writes recurrent_blocks.json: PyTorch's values and gradients for the recurrent blocks, in float64, on packed sequences.

Run with: python recurrent_blocks.py > recurrent_blocks.json
Made with torch 2.15 on one thread. Each case has weights under the names of the block's variables, an input with values on
padding, the lengths, the output (0 on padding), and the gradients of sum(output * weights) for input and variables.
"""

import json

import torch
from torch import nn
from torch.nn.utils.rnn import pack_padded_sequence, pad_packed_sequence

torch.set_num_threads(1)
torch.set_default_dtype(torch.float64)
torch.manual_seed(11)
LENGTHS = [4, 1, 3]
BATCH, LEN, INPUT, HIDDEN, CLASSES = 3, 4, 3, 2, 3


def rounded(tensor):
    return (tensor * 1e4).round() / 1e4


def pack(tensor):
    return {"shape": list(tensor.shape), "values": tensor.detach().flatten().tolist()}


def round_all(module):
    with torch.no_grad():
        for parameter in module.parameters():
            parameter.copy_(rounded(parameter))
    return module


def states(rnn, x):
    packed = pack_padded_sequence(x, LENGTHS, batch_first=True, enforce_sorted=False)
    output, last = rnn(packed)
    return pad_packed_sequence(output, batch_first=True, total_length=LEN)[0], last


def case(block, conf, named, compute):
    x = rounded(torch.randn(BATCH, LEN, INPUT)).requires_grad_()
    for value in named.values():
        value.grad = None
    output = compute(x)
    weights = rounded(torch.randn(output.shape))
    (output * weights).sum().backward()
    return {
        "block": block,
        "conf": conf,
        "x": pack(x),
        "lengths": LENGTHS,
        "variables": {name: pack(value) for name, value in named.items()},
        "weights": pack(weights),
        "output": pack(output),
        "gradients": {"x": pack(x.grad)} | {name: pack(value.grad) for name, value in named.items()},
    }


def lstm_names(lstm, prefix=""):
    names = {}
    for name, value in lstm.named_parameters():
        kind, layer = name.split("_l", 1)
        number, suffix = layer.split("_", 1) if "_" in layer else (layer, "")
        names[f"{prefix}layers.{number}.{kind}_l0" + (f"_{suffix}" if suffix else "")] = value
    return names


def bi_lstm_last(lstm, x):
    _, (hidden, _) = states(lstm, x)
    return torch.cat([hidden[-2], hidden[-1]], 1)


def bi_lstm_att(lstm, attention, x):
    hidden, _ = states(lstm, x)
    scores = hidden @ attention @ hidden.transpose(1, 2)
    mask = torch.tensor([[at < n for at in range(LEN)] for n in LENGTHS])
    probs = scores.masked_fill(~mask[:, None, :], float("-inf")).softmax(2)
    return (probs @ hidden) * mask[:, :, None]


class Decoder(nn.Module):
    """One step after another, each sequence of the batch alone and without padding."""

    def __init__(self, width):
        super().__init__()
        self.embedding = nn.Embedding(CLASSES + 1, width)
        self.lstm = nn.LSTM(width + 4 * HIDDEN, 3, batch_first=True)
        self.attention = nn.Linear(2 * HIDDEN, 3)
        self.output = nn.Linear(2 * HIDDEN + 3, CLASSES)

    def forward(self, encoded):
        said, context, state, outputs = torch.tensor(CLASSES), encoded[-1], None, []
        for token in encoded:
            x = torch.cat([self.embedding(said), context, token])
            _, state = self.lstm(x[None, None], state)
            hidden = state[0].flatten()
            outputs.append(self.output(torch.cat([hidden, context])).log_softmax(0))
            said = outputs[-1].argmax()
            context = (self.attention(encoded) @ hidden).softmax(0) @ encoded
        return torch.stack(outputs)


def encoder_decoder(lstm, decoder, x):
    encoded, _ = states(lstm, x)
    alone = [decoder(encoded[row, :n]) for row, n in enumerate(LENGTHS)]
    return torch.stack([torch.cat([rows, torch.zeros(LEN - len(rows), CLASSES)]) for rows in alone])


cases = []
lstm = round_all(nn.LSTM(INPUT, HIDDEN, batch_first=True, bidirectional=True))
deep = round_all(nn.LSTM(INPUT, HIDDEN, 2, batch_first=True, bidirectional=True))
gru = round_all(nn.GRU(INPUT, HIDDEN, batch_first=True, bidirectional=True))
cases.append(case("BiLSTM", {"hidden_dim": HIDDEN}, lstm_names(lstm), lambda x: states(lstm, x)[0]))
two = {"hidden_dim": HIDDEN, "num_layers": 2}
cases.append(case("BiLSTM", two, lstm_names(deep), lambda x: states(deep, x)[0]))
cases.append(case("BiLSTMLast", two, lstm_names(deep), lambda x: bi_lstm_last(deep, x)))
attention = rounded(torch.rand(2 * HIDDEN, 2 * HIDDEN)).requires_grad_()
names = lstm_names(lstm) | {"attention": attention}
cases.append(case("BiLSTMAtt", {"hidden_dim": HIDDEN}, names, lambda x: bi_lstm_att(lstm, attention, x)))
names = dict(gru.named_parameters())
cases.append(case("BiGRU", {"hidden_dim": HIDDEN}, names, lambda x: states(gru, x)[0]))
last = lambda x: torch.cat(list(states(gru, x)[1]), 1)
cases.append(case("BiGRULast", {"hidden_dim": HIDDEN}, names, last))
decoder = round_all(Decoder(2))
names = lstm_names(lstm, "encoder.") | {f"decoder.{name}": value for name, value in decoder.named_parameters()}
conf = {"encoder_conf": {"hidden_dim": HIDDEN}, "decoder_conf": {"hidden_dim": 3, "decoder_emb_dim": 2}}
cases.append(case("EncoderDecoder", conf, names, lambda x: encoder_decoder(lstm, decoder, x)))
print(json.dumps(cases))
