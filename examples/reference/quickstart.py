"""The quick start in PyTorch: distil a pretrained encoder, fine-tuned on few SNIPS utterances, into a BiLSTM.

Yardstick for `examples/src/bin/quickstart.rs`: the same files, sizes, losses and numbers of updates.
One line of JSON a draw goes to standard output, then the table of mean ± standard deviation:

| row           | test accuracy of                                                                       |
|---------------|----------------------------------------------------------------------------------------|
| `teacher`     | the fine-tuned encoder (`pseudo`: on the unlabelled utterances instead)                |
| `gold`        | a student trained on the labelled utterances alone                                     |
| `distilled`   | the same student, same start and as many updates, with the teacher's logits on the rest |
| `pseudo_only` | the same with only the teacher's first choices (`--students ... pseudo_only`)          |
| `gain`        | `distilled` less `gold`, by draw                                                       |

`..._last` is the state after the last update in place of the best on the dev set.

    python examples/reference/quickstart.py --model-folder examples/models/pocket-encoder --data examples/data/snips

Needs torch, transformers, tokenizers and safetensors. `--model-folder` takes the int8 folder that
`make_pocket_encoder` writes as well as any BERT folder from the hub (`model.safetensors`, `config.json`, `tokenizer.json`).
"""

import argparse
import copy
import json
import math
import random
import statistics
import time
from pathlib import Path

import torch
import torch.nn.functional as F
from safetensors.torch import load_file
from tokenizers import Tokenizer
from torch import nn
from transformers import BertConfig, BertModel

CHARACTERS = {c: i + 2 for i, c in enumerate(map(chr, range(33, 127)))}  # 0 padding, 1 unknown
WORD_LENGTH = 20


def read_split(folder):
    """Utterances of one part of SNIPS: words and intent."""
    lines = [(folder / name).read_text(encoding="utf-8").split("\n") for name in ("seq.in", "label")]
    return [(words.split(), label.strip()) for words, label in zip(*lines, strict=True) if label.strip()]


def draw_per_class(split, per_class, rng):
    """Indices of `per_class` utterances of each intent, and the indices of all others; both shuffled."""
    order = list(range(len(split)))
    rng.shuffle(order)
    taken, counts, rest = [], {}, []
    for i in order:
        label = split[i][1]
        if counts.get(label, 0) < per_class:
            counts[label] = counts.get(label, 0) + 1
            taken.append(i)
        else:
            rest.append(i)
    return taken, rest


# ---------------------------------------------------------------------------------------------- encoder


def quantise(weight):
    """Symmetric int8, one scale a row, as `make_pocket_encoder` stores matrices."""
    scale = weight.abs().amax(dim=1) / 127.0
    scale = torch.where(scale > 0, scale, torch.ones_like(scale))
    return torch.round(weight / scale[:, None]).clamp(-127, 127), scale


def load_state(folder, round_trip):
    stored = load_file(str(Path(folder) / "model.safetensors"))
    state = {}
    for name, tensor in stored.items():
        if name.endswith(".scale"):
            continue
        if name + ".scale" in stored:
            tensor = tensor.float() * stored[name + ".scale"][:, None]
        tensor = tensor.float() if tensor.is_floating_point() else tensor
        if round_trip and tensor.dim() == 2 and tensor.is_floating_point():
            values, scale = quantise(tensor)
            tensor = values * scale[:, None]
        state[name.removeprefix("bert.")] = tensor
    return state


class Encoder(nn.Module):
    """First `layers` layers of a BERT, mean of the last hidden states (or the first one), dropout, a linear head."""

    def __init__(self, config, state, layers, classes, pooling, used):
        super().__init__()
        config = BertConfig.from_dict({**config, "num_hidden_layers": layers})
        # Rows that no text of this run uses never receive a gradient: dropping them only saves optimizer time.
        state = {**state, "embeddings.word_embeddings.weight": state["embeddings.word_embeddings.weight"][used]}
        config.vocab_size = len(used)
        self.bert = BertModel(config, add_pooling_layer=False)
        missing = self.bert.load_state_dict(state, strict=False).missing_keys
        assert not [m for m in missing if "position_ids" not in m and "token_type_ids" not in m], missing
        self.pooling = pooling
        self.head = nn.Linear(config.hidden_size, classes)
        nn.init.normal_(self.head.weight, std=0.02)
        nn.init.zeros_(self.head.bias)

    def forward(self, ids, mask):
        hidden = self.bert(input_ids=ids, attention_mask=mask).last_hidden_state
        if self.pooling == "cls":
            pooled = hidden[:, 0]
        else:
            weight = mask[:, :, None].float()
            pooled = (hidden * weight).sum(1) / weight.sum(1)
        return self.head(F.dropout(pooled, 0.1, self.training))


def pad(rows, value=0):
    width = max(map(len, rows))
    return torch.tensor([r + [value] * (width - len(r)) for r in rows])


def encoder_batch(pieces, indices):
    ids = pad([pieces[i] for i in indices])
    lengths = torch.tensor([len(pieces[i]) for i in indices])
    return ids, (torch.arange(ids.shape[1])[None] < lengths[:, None]).long()


def fine_tune(encoder, pieces, labels, taken, args, rng):
    decay, plain = [], []
    for name, parameter in encoder.named_parameters():
        if args.freeze_embeddings and "embeddings" in name:
            parameter.requires_grad_(False)
            continue
        (plain if parameter.dim() == 1 else decay).append(parameter)
    groups = [{"params": decay, "weight_decay": 0.01}, {"params": plain, "weight_decay": 0.0}]
    optimizer = torch.optim.AdamW(groups, lr=args.teacher_lr)
    steps, warm = args.teacher_steps, max(1, args.teacher_steps // 10)
    encoder.train()
    queue = []
    for step in range(steps):
        while len(queue) < args.teacher_batch:
            queue += rng.sample(taken, len(taken))
        batch, queue = queue[: args.teacher_batch], queue[args.teacher_batch :]
        rate = min((step + 1) / warm, (steps - step) / max(1, steps - warm))
        for group in optimizer.param_groups:
            group["lr"] = args.teacher_lr * rate
        loss = F.cross_entropy(encoder(*encoder_batch(pieces, batch)), labels[batch])
        optimizer.zero_grad()
        loss.backward()
        nn.utils.clip_grad_norm_(encoder.parameters(), 1.0)
        optimizer.step()
    return loss.item()


@torch.inference_mode()
def teach(encoder, pieces, indices):
    """Logits of `indices`, in their order; batches are formed by length."""
    encoder.eval()
    order = sorted(range(len(indices)), key=lambda k: len(pieces[indices[k]]))
    out = [None] * len(indices)
    for start in range(0, len(order), 64):
        part = order[start : start + 64]
        for k, row in zip(part, encoder(*encoder_batch(pieces, [indices[k] for k in part]))):
            out[k] = row
    return torch.stack(out).clone()


# ---------------------------------------------------------------------------------------------- student


class Student(nn.Module):
    """Word vectors and a character CNN, dropout, BiLSTM, maximum and mean over words, dropout, linear."""

    def __init__(self, table, classes, filters, hidden, layers, pooling, dropout):
        super().__init__()
        self.words = nn.Embedding.from_pretrained(table.clone(), freeze=False, padding_idx=0)
        self.chars = nn.Embedding(len(CHARACTERS) + 2, 16, padding_idx=0)
        self.cnn = nn.Conv1d(16, filters, 3, padding=1)
        self.lstm = nn.LSTM(table.shape[1] + filters, hidden, layers, batch_first=True, bidirectional=True)
        self.head = nn.Linear((4 if pooling == "both" else 2) * hidden, classes)
        self.pooling, self.dropout = pooling, dropout

    def forward(self, words, chars, lengths):
        batch, width, letters = chars.shape
        mapped = F.relu(self.cnn(self.chars(chars.view(batch * width, letters)).transpose(1, 2)))
        mapped = mapped.masked_fill((chars.view(batch * width, 1, letters) == 0), 0.0).amax(2).view(batch, width, -1)
        x = F.dropout(torch.cat([self.words(words), mapped], 2), self.dropout, self.training)
        packed = nn.utils.rnn.pack_padded_sequence(x, lengths, batch_first=True, enforce_sorted=False)
        hidden, _ = nn.utils.rnn.pad_packed_sequence(self.lstm(packed)[0], batch_first=True)
        mask = (torch.arange(width)[None] < lengths[:, None])[:, :, None]
        largest, mean = hidden.masked_fill(~mask, -math.inf).amax(1), (hidden * mask).sum(1) / mask.sum(1)
        pooled = {"max": largest, "mean": mean, "both": torch.cat([largest, mean], 1)}[self.pooling]  # (batch, width)
        return self.head(F.dropout(pooled, self.dropout, self.training))


def word_table(vocabulary, tokenizer, embeddings, width, how, generator):
    """Rows 0 padding and 1 unknown (zeros), then one a word, scaled to a standard deviation of 0.3 overall.

    `random`: normal. `projection`: the mean of the encoder's own vectors of the word's pieces, less the mean of
    all words, times a random normal matrix, which nearly keeps angles. `pca`: the same on the principal axes.
    """
    if how == "random":
        rows = torch.randn(len(vocabulary), width, generator=generator)
    else:
        pieces = (tokenizer.encode(word, add_special_tokens=False).ids for word in vocabulary)
        # A word that the tokenizer normalises away has no pieces and starts at zero, before the mean is taken off.
        rows = torch.stack([embeddings[ids].mean(0) if ids else torch.zeros(embeddings.shape[1]) for ids in pieces])
        rows = rows - rows.mean(0)
        if how == "pca":
            matrix = torch.linalg.eigh(rows.T @ rows)[1][:, -width:]
        else:
            matrix = torch.randn(rows.shape[1], width, generator=generator)
        rows = rows @ matrix
    return torch.cat([torch.zeros(2, width), rows * (0.3 / rows.std())])


def student_batch(encoded, indices):
    words = pad([encoded[i][0] for i in indices])
    lengths = torch.tensor([len(encoded[i][0]) for i in indices])
    letters = max(3, max(len(c) for i in indices for c in encoded[i][1]))
    blank = [0] * letters
    chars = [[c + [0] * (letters - len(c)) for c in encoded[i][1]] for i in indices]
    chars = torch.tensor([rows + [blank] * (words.shape[1] - len(rows)) for rows in chars])
    return words, chars, lengths


@torch.inference_mode()
def accuracy(student, encoded, labels, batch=100):
    student.eval()
    right = 0
    for start in range(0, len(encoded), batch):
        part = list(range(start, min(start + batch, len(encoded))))
        right += (student(*student_batch(encoded, part)).argmax(1) == labels[part]).sum().item()
    return right / len(encoded)


def train_student(student, encoded, hard, soft, gold, unlabelled, dev, test, args, rng):
    """Test accuracy of the state that was best on `dev`, and of the last one.

    `gold` and `unlabelled` index `encoded`; with no `unlabelled` every batch is gold. `hard` holds gold labels and
    the teacher's first choices, `soft` the teacher's logits or nothing. Every `args.every` updates `dev` is scored;
    of equally good states the later is kept.
    """
    optimizer = torch.optim.Adam(student.parameters(), lr=args.student_lr)
    queues = {"gold": [], "rest": []}

    def take(kind, source, count):
        while len(queues[kind]) < count:
            queues[kind] += rng.sample(source, len(source))
        out, queues[kind] = queues[kind][:count], queues[kind][count:]
        return out

    best, kept = -1.0, None
    for step in range(1, args.student_steps + 1):
        student.train()
        if unlabelled:
            batch = take("gold", gold, args.gold_rows) + take("rest", unlabelled, args.student_batch - args.gold_rows)
        else:
            batch = take("gold", gold, args.student_batch)
        logits = student(*student_batch(encoded, batch))
        loss = F.cross_entropy(logits, hard[batch])
        if soft is not None:
            t = args.temperature
            told, should = (logits / t).log_softmax(1), (soft[batch] / t).log_softmax(1)
            kl = F.kl_div(told, should, log_target=True, reduction="batchmean")
            loss = args.alpha * loss + args.beta * t * t * kl
        optimizer.zero_grad()
        loss.backward()
        nn.utils.clip_grad_norm_(student.parameters(), 5.0)
        optimizer.step()
        if step % args.every == 0 or step == args.student_steps:
            score = accuracy(student, *dev)
            if score >= best:
                best, kept = score, copy.deepcopy(student.state_dict())
    last = accuracy(student, *test)
    student.load_state_dict(kept)
    return accuracy(student, *test), last


def one_draw(draw, data, tokenizer, config, state, args):
    rng = random.Random(draw)
    torch.manual_seed(draw)
    train, valid, test = data
    classes = sorted({label for _, label in train})
    number = {c: i for i, c in enumerate(classes)}
    labels_of = lambda split: torch.tensor([number[label] for _, label in split])
    gold, rest = draw_per_class(train, args.per_class, rng)
    rest = rest[: args.unlabelled]
    dev = [valid[i] for i in draw_per_class(valid, args.dev_per_class, rng)[0]]

    # Word pieces of every utterance; ids are renumbered to the pieces that occur.
    texts = [" ".join(w) for split in (train, test) for w, _ in split]
    pieces = [e.ids for e in tokenizer.encode_batch([args.prefix + t for t in texts])]
    used = sorted({i for p in pieces for i in p})
    place = {p: i for i, p in enumerate(used)}
    pieces = [[place[i] for i in p] for p in pieces]
    train_pieces, test_pieces = pieces[: len(train)], pieces[len(train) :]
    hard, test_labels = labels_of(train), labels_of(test)

    encoder = Encoder(config, state, args.layers, len(classes), args.pooling, used)
    clock = time.time()
    fine_tune(encoder, train_pieces, hard, gold, args, rng)
    report = {"draw": draw, "teacher_train_s": round(time.time() - clock, 1)}
    report["teacher"] = (teach(encoder, test_pieces, list(range(len(test)))).argmax(1) == test_labels).float().mean().item()
    if args.only_teacher:
        return report
    clock = time.time()
    indices = gold + rest
    logits = teach(encoder, train_pieces, indices)
    report["teach_s"] = round(time.time() - clock, 1)
    report["pseudo"] = (logits[len(gold) :].argmax(1) == hard[rest]).float().mean().item()

    # The student sees words: its vocabulary is that of the text it may read, labelled or not.
    vocabulary = sorted({w for i in indices for w in train[i][0]})
    position = {w: i + 2 for i, w in enumerate(vocabulary)}

    def encode(split):
        letters = lambda word: [CHARACTERS.get(c, 1) for c in word[:WORD_LENGTH]]
        return [([position.get(w, 1) for w in words], [letters(w) for w in words]) for words, _ in split]

    encoded = encode([train[i] for i in indices])
    # Gold rows keep their gold labels; the others get the teacher's first choice.
    targets = torch.cat([hard[gold], logits[len(gold) :].argmax(1)])
    splits = [(encode(dev), labels_of(dev)), (encode(test), test_labels)]
    embeddings, generator = state["embeddings.word_embeddings.weight"], torch.Generator().manual_seed(draw)
    table = word_table(vocabulary, tokenizer, embeddings, args.word_width, args.init, generator)
    gold_rows, rest_rows = list(range(len(gold))), list(range(len(gold), len(indices)))
    for name, soft, unlabelled in [("gold", None, []), ("distilled", logits, rest_rows), ("pseudo_only", None, rest_rows)]:
        if name not in args.students:
            continue
        torch.manual_seed(1000 + draw)
        sizes = (args.filters, args.hidden, args.lstm_layers, args.student_pooling, args.dropout)
        student = Student(table, len(classes), *sizes)
        clock = time.time()
        report[name], report[name + "_last"] = train_student(
            student, encoded, targets, soft, gold_rows, unlabelled, *splits, args, random.Random(draw)
        )
        report[name + "_s"] = round(time.time() - clock, 1)
    report["student_parameters"] = sum(p.numel() for p in student.parameters())
    return report


def main():
    p = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    p.add_argument("--model-folder", required=True)
    p.add_argument("--data", type=Path, required=True)
    p.add_argument("--draws", type=int, nargs="+", default=[1, 2, 3], help="seeds, one a draw of the labelled utterances")
    p.add_argument("--threads", type=int, default=1)
    p.add_argument("--per-class", type=int, default=10)
    p.add_argument("--dev-per-class", type=int, default=10)
    p.add_argument("--unlabelled", type=int, default=2000)
    p.add_argument("--layers", type=int, default=6)
    p.add_argument("--pooling", default="mean")
    p.add_argument("--prefix", default="")
    p.add_argument("--round-trip", action="store_true", help="round the matrices to int8 and back first")
    p.add_argument("--freeze-embeddings", action="store_true")
    p.add_argument("--teacher-lr", type=float, default=2e-4)
    p.add_argument("--teacher-steps", type=int, default=60)
    p.add_argument("--teacher-batch", type=int, default=8)
    p.add_argument("--only-teacher", action="store_true")
    p.add_argument("--students", nargs="+", default=["gold", "distilled"])
    p.add_argument("--student-steps", type=int, default=400)
    p.add_argument("--student-batch", type=int, default=16)
    p.add_argument("--student-lr", type=float, default=1e-3)
    p.add_argument("--gold-rows", type=int, default=4, help="gold utterances in each batch of the distilled student")
    p.add_argument("--temperature", type=float, default=1.0)
    p.add_argument("--alpha", type=float, default=0.5)
    p.add_argument("--beta", type=float, default=0.5)
    p.add_argument("--every", type=int, default=50)
    p.add_argument("--init", default="projection", choices=["projection", "pca", "random"])
    p.add_argument("--word-width", type=int, default=64)
    p.add_argument("--filters", type=int, default=32)
    p.add_argument("--hidden", type=int, default=100)
    p.add_argument("--lstm-layers", type=int, default=1)
    p.add_argument("--student-pooling", default="both", choices=["max", "mean", "both"])
    p.add_argument("--dropout", type=float, default=0.5)
    args = p.parse_args()
    torch.set_num_threads(args.threads)

    data = [read_split(args.data / split) for split in ("train", "valid", "test")]
    folder = Path(args.model_folder)
    tokenizer = Tokenizer.from_file(str(folder / "tokenizer.json"))
    tokenizer.no_truncation()
    tokenizer.no_padding()
    config = json.loads((folder / "config.json").read_text())
    state = load_state(folder, args.round_trip)
    reports = []
    for draw in args.draws:
        reports.append(one_draw(draw, data, tokenizer, config, state, args))
        print(json.dumps({k: round(v, 4) if isinstance(v, float) else v for k, v in reports[-1].items()}), flush=True)
        if "gold" in reports[-1] and "distilled" in reports[-1]:
            reports[-1]["gain"] = reports[-1]["distilled"] - reports[-1]["gold"]
    for name in ("teacher", "pseudo", "gold", "gold_last", "distilled", "distilled_last", "pseudo_only", "gain"):
        values = [100 * r[name] for r in reports if name in r]
        if values:
            spread = statistics.stdev(values) if len(values) > 1 else 0.0
            print(f"{name:16} {statistics.mean(values):6.2f} ± {spread:.2f}  ({len(values)} draws)")


if __name__ == "__main__":
    main()
