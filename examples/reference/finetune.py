"""The recipe of `finetune_teacher` in PyTorch and transformers: the yardstick for its scores and its seconds.

The same files, head (`AutoModelForSequenceClassification`), AdamW without decay of biases and norms, linear rise and fall of
the learning rate, clipping, batches of similar lengths (pools of 8, shuffled), epochs and choice of the epoch. One line
of JSON a learning rate and seed goes to standard output.

    pip install -r examples/reference/requirements.txt
    python examples/reference/finetune.py --task mrpc --data glue/MRPC --model sentence-transformers/all-MiniLM-L6-v2 --lr 2e-5,5e-5
    python examples/reference/finetune.py --task snips-intents --data snips --model intfloat/e5-small --lr 5e-5 --seeds 1,2,3
"""

import argparse
import json
import math
import random
import time
from pathlib import Path

import numpy as np
import torch
from transformers import AutoModelForSequenceClassification, AutoTokenizer

POOL = 8

ENTAILMENT = {"entailment": "entailment", "not_entailment": "not_entailment"}
# Columns of the texts and of the label, how classes are written and what they are called, in the order of their numbers.
TSV = {
    "rte": (("sentence1", "sentence2"), "label", ENTAILMENT),
    "qnli": (("question", "sentence"), "label", ENTAILMENT),
    "mrpc": (("#1 String", "#2 String"), "Quality", {"0": "not_equivalent", "1": "equivalent"}),
    "sst2": (("sentence",), "label", {"0": "negative", "1": "positive"}),
    "snli": (("sentence1", "sentence2"), "gold_label", {name: name for name in ("entailment", "neutral", "contradiction")}),
}
TASKS = [*TSV, "snips-intents"]


def read_tsv(path):
    lines = path.read_text(encoding="utf-8-sig").rstrip("\n").split("\n")
    rows = [line.rstrip("\r").split("\t") for line in lines]
    return [dict(zip(rows[0], row, strict=True)) for row in rows[1:]]


def read(task, folder, part):
    """Texts (tuples of one or two) and the names of their classes, or None if there is no such file."""
    if task == "snips-intents":
        folder = folder / {"dev": "valid"}.get(part, part)
        texts = [(" ".join(line.split()),) for line in (folder / "seq.in").read_text().splitlines()]
        return texts, [line.strip() for line in (folder / "label").read_text().splitlines()]
    path = folder / f"{part}.tsv"
    if not path.exists():
        return None
    columns, label, names = TSV[task]
    rows = [row for row in read_tsv(path) if row.get(label) != "-"]
    if rows and label not in rows[0]:
        return None
    return [tuple(row[column] for column in columns) for row in rows], [names[row[label]] for row in rows]


def classes_of(task, train):
    return sorted(set(train[1])) if task == "snips-intents" else list(TSV[task][2].values())


def encode(tokenizer, texts, max_len):
    return tokenizer(*map(list, zip(*texts)), truncation="longest_first", max_length=max_len)


class Part:
    def __init__(self, tokenizer, texts, labels, classes, max_len):
        encoded = encode(tokenizer, texts, max_len)
        self.examples = [{key: encoded[key][row] for key in encoded} for row in range(len(texts))]
        self.lengths = [len(example["input_ids"]) for example in self.examples]
        self.labels = torch.tensor([classes.index(label) for label in labels])
        self.tokenizer = tokenizer

    def batch(self, rows, device):
        inputs = self.tokenizer.pad([self.examples[row] for row in rows], return_tensors="pt")
        return {key: value.to(device) for key, value in inputs.items()}, self.labels[rows].to(device)


def epoch_of_batches(lengths, size, rng):
    """Each example once, in shuffled batches of similar lengths; as kd_data::batches."""
    rows = list(range(len(lengths)))
    rng.shuffle(rows)
    batches = []
    for start in range(0, len(rows), size * POOL):
        pool = sorted(rows[start : start + size * POOL], key=lengths.__getitem__)
        batches += [pool[at : at + size] for at in range(0, len(pool), size)]
    rng.shuffle(batches)
    return batches


def factor(step, warmup, total):
    return (step + 1) / warmup if step < warmup else max(0.0, (total - step) / max(1, total - warmup))


@torch.no_grad()
def scores(model, part, device):
    model.eval()
    order = sorted(range(len(part.lengths)), key=lambda row: -part.lengths[row])
    predicted = torch.zeros(len(order), dtype=torch.long)
    for start in range(0, len(order), 32):
        rows = order[start : start + 32]
        predicted[rows] = model(**part.batch(rows, device)[0]).logits.argmax(1).cpu()
    predicted, gold = predicted.numpy(), part.labels.numpy()
    result = {"accuracy": float(np.mean(predicted == gold))}
    if model.config.num_labels == 2:
        right = np.sum((predicted == 1) & (gold == 1))
        result["f1"] = float(2 * right / max(1, np.sum(predicted == 1) + np.sum(gold == 1)))
    return result


def run(args, parts, classes, lr, seed, device):
    torch.manual_seed(seed)
    rng = random.Random(seed)
    names = dict(enumerate(classes))
    model = AutoModelForSequenceClassification.from_pretrained(
        args.model, num_labels=len(classes), id2label=names, label2id={name: number for number, name in names.items()}
    ).to(device)
    is_bare = lambda name, value: value.ndim < 2 or name.endswith("bias")
    groups = [
        {"params": [v for n, v in model.named_parameters() if not is_bare(n, v)], "weight_decay": args.weight_decay},
        {"params": [v for n, v in model.named_parameters() if is_bare(n, v)], "weight_decay": 0.0},
    ]
    optimizer = torch.optim.AdamW(groups, lr=lr, betas=(0.9, 0.999), eps=1e-8)
    per_epoch = math.ceil(len(parts["train"].lengths) / args.batch_size)
    total = args.epochs * per_epoch
    warmup = math.ceil(args.warmup * total)
    schedule = torch.optim.lr_scheduler.LambdaLR(optimizer, lambda step: factor(step, warmup, total))
    epochs = []
    for epoch in range(1, args.epochs + 1):
        model.train()
        start = time.perf_counter()
        for rows in epoch_of_batches(parts["train"].lengths, args.batch_size, rng):
            inputs, labels = parts["train"].batch(rows, device)
            with torch.autocast(device.type, dtype=torch.bfloat16, enabled=args.bf16):
                logits = model(**inputs).logits
            loss = torch.nn.functional.cross_entropy(logits.float(), labels)
            loss.backward()
            torch.nn.utils.clip_grad_norm_(model.parameters(), 1.0)
            optimizer.step()
            schedule.step()
            optimizer.zero_grad()
        if device.type == "cuda":
            torch.cuda.synchronize()
        seconds = time.perf_counter() - start
        found = {name: scores(model, part, device) for name, part in parts.items() if name != "train"}
        epochs.append({"epoch": epoch, "training_seconds": round(seconds, 3), "scores": found})
        if args.out:
            model.save_pretrained(Path(args.out) / f"lr-{lr:g}-seed-{seed}")
            parts["train"].tokenizer.save_pretrained(Path(args.out) / f"lr-{lr:g}-seed-{seed}")
    best = max(epochs, key=lambda epoch: epoch["scores"]["dev"]["accuracy"])
    return {"task": args.task, "model": args.model, "lr": lr, "seed": seed, "kept_epoch": best["epoch"], "kept": best["scores"], "epochs": epochs}


def numbers(kind):
    return lambda text: [kind(part) for part in text.split(",")]


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--task", required=True, choices=TASKS)
    parser.add_argument("--data", required=True, type=Path)
    parser.add_argument("--model", required=True)
    parser.add_argument("--lr", required=True, type=numbers(float))
    parser.add_argument("--seeds", default=[1], type=numbers(int))
    parser.add_argument("--epochs", default=3, type=int)
    parser.add_argument("--batch-size", default=32, type=int)
    parser.add_argument("--max-len", default=128, type=int)
    parser.add_argument("--warmup", default=0.1, type=float)
    parser.add_argument("--weight-decay", default=0.01, type=float)
    parser.add_argument("--limit-train", type=int)
    parser.add_argument("--bf16", action="store_true")
    parser.add_argument("--device", default="cuda" if torch.cuda.is_available() else "cpu")
    parser.add_argument("--threads", type=int, help="of the CPU; PyTorch's own choice without")
    parser.add_argument("--out", help="folder for the last epoch's models")
    args = parser.parse_args()
    if args.threads:
        torch.set_num_threads(args.threads)
    tokenizer = AutoTokenizer.from_pretrained(args.model)
    read_parts = {part: read(args.task, args.data, part) for part in ("train", "dev", "test")}
    texts, labels = read_parts["train"]
    read_parts["train"] = (texts[: args.limit_train], labels[: args.limit_train])
    classes = classes_of(args.task, read_parts["train"])
    parts = {
        name: Part(tokenizer, *part, classes, args.max_len) for name, part in read_parts.items() if part is not None
    }
    for lr in args.lr:
        for seed in args.seeds:
            print(json.dumps(run(args, parts, classes, lr, seed, torch.device(args.device))), flush=True)


if __name__ == "__main__":
    main()
