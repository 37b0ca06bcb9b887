"""Makes a tiny random checkpoint with a sequence classifier's head for each family, and what transformers says of it.

    python families.py              # transformers 5, torch 2; all families
    python families.py albert       # some of them

Writes `FAMILY/config.json`, `model.safetensors`, `tokenizer.json` (a copy of bert/'s) and `reference.json` beside this
file. The weights are random; nothing is derived from a published model. `reference.json` has for each input the ids, the
segments if there are any, the logits of the sequence classifier, those of a token classifier on the same encoder (its
weights stand in `token_weight`, `token_bias`), all hidden states and all attention probabilities, of tokens that are not
padding; and the sum and norm of every parameter's gradient of `weigh(logits)` on the padded input.
"""

import json
import shutil
import sys
from pathlib import Path

import torch
import transformers

here = Path(__file__).parent
torch.set_num_threads(1)

sizes = dict(vocab_size=100, hidden_size=16, num_hidden_layers=2, num_attention_heads=2, intermediate_size=32)
three = dict(id2label={0: "no", 1: "maybe", 2: "yes"}, label2id={"no": 0, "maybe": 1, "yes": 2})
LEN = 12

# name: config, padding id, whether it has two segments
FAMILIES = {
    "bert-classifier": (
        transformers.BertConfig(max_position_embeddings=LEN, hidden_act="gelu_new", classifier_dropout=0.3, **three, **sizes),
        0, True),
    "distilbert-classifier": (
        transformers.DistilBertConfig(
            vocab_size=100, dim=16, n_layers=2, n_heads=2, hidden_dim=32, max_position_embeddings=LEN, activation="relu", **three),
        0, False),
    "roberta": (
        transformers.RobertaConfig(
            max_position_embeddings=LEN + 2, type_vocab_size=1, layer_norm_eps=1e-5,
            problem_type="multi_label_classification", **three, **sizes),
        1, False),
    "xlm-roberta": (
        transformers.XLMRobertaConfig(
            max_position_embeddings=LEN + 2, type_vocab_size=1, layer_norm_eps=1e-5, num_labels=1, problem_type="regression",
            **sizes),
        1, False),
    "albert": (
        transformers.AlbertConfig(
            max_position_embeddings=LEN, embedding_size=8, num_hidden_groups=2, inner_group_num=1, **three,
            **{**sizes, "num_hidden_layers": 4}),
        0, True),
    "electra": (
        transformers.ElectraConfig(max_position_embeddings=LEN, embedding_size=8, **three, **sizes),
        0, True),
}


def randomise(model):
    """Larger than the usual start, so that no part of the forward pass hides behind a small number."""
    for name, parameter in model.named_parameters():
        with torch.no_grad():
            mean = 1.0 if "norm" in name.lower() and name.endswith("weight") else 0.0
            parameter.normal_(mean, 0.25)


def numbers(tensor):
    return [float(f"{value:.7g}") for value in tensor.detach().flatten().tolist()]


def weigh(tensor):
    """A loss that no symmetry makes zero: `sum_i cos(i) x_i`."""
    return (tensor.flatten() * torch.cos(torch.arange(tensor.numel(), dtype=torch.float32))).sum()


def cases(padding, has_segments):
    """Lengths, ids and segments of each input."""
    def ids(lengths):
        rows = torch.randint(5, 100, (len(lengths), max(lengths)))
        mask = torch.arange(max(lengths))[None] < torch.tensor(lengths)[:, None]
        return torch.where(mask, rows, padding), mask.long()

    for name, lengths in [("padded", [7, 4, 1]), ("paired", [7, 5, 3]), ("truncated", [LEN]), ("one_token", [1])]:
        rows, mask = ids(lengths)
        segments = None
        if name == "paired" and has_segments:
            segments = (torch.arange(max(lengths))[None] >= torch.tensor([[4], [2], [1]])).long() * mask
        yield name, lengths, rows, mask, segments


def said(model, token_head, lengths, rows, mask, segments):
    extra = {} if segments is None else {"token_type_ids": segments}
    output = model(rows, attention_mask=mask, output_hidden_states=True, output_attentions=True, **extra)
    last = output.hidden_states[-1]
    attention = [
        torch.cat([layer[row, :, :length, :length].flatten() for row, length in enumerate(lengths)])
        for layer in output.attentions
    ]
    entry = {
        "ids": [row[:length] for row, length in zip(rows.tolist(), lengths)],
        "logits": numbers(output.logits),
        "token_logits": numbers(token_head(last)[mask.bool()]),
        "hidden": [numbers(hidden[mask.bool()]) for hidden in output.hidden_states],
        "attention": [numbers(layer) for layer in attention],
    }
    if segments is not None:
        entry["segments"] = [row[:length] for row, length in zip(segments.tolist(), lengths)]
    return entry, output.logits


def gradients(model, loss):
    """Sum and norm of each parameter's gradient."""
    model.zero_grad()
    loss.backward()
    return {
        name: numbers(torch.stack([p.grad.double().sum(), p.grad.double().norm()]))
        for name, p in model.named_parameters() if p.grad is not None
    }


def make(name, config, padding, has_segments):
    torch.manual_seed(sum(map(ord, name)))
    # The implementation that returns probabilities.
    model = transformers.AutoModelForSequenceClassification.from_config(config, attn_implementation="eager")
    randomise(model)
    model.eval()
    token_head = torch.nn.Linear(16, 3)
    randomise(token_head)
    folder = here / name
    shutil.rmtree(folder, ignore_errors=True)
    model.save_pretrained(folder)
    shutil.copy(here / "bert" / "tokenizer.json", folder / "tokenizer.json")
    reference = {"token_weight": numbers(token_head.weight), "token_bias": numbers(token_head.bias), "cases": {}}
    for case, *inputs in cases(padding, has_segments):
        reference["cases"][case], logits = said(model, token_head, *inputs)
        if case == "padded":
            reference["gradients"] = gradients(model, weigh(logits))
    (folder / "reference.json").write_text(json.dumps(reference, separators=(",", ":")) + "\n")


for name in sys.argv[1:] or FAMILIES:
    make(name, *FAMILIES[name])
