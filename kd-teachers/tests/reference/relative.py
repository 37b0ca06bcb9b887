"""Makes tiny random MPNet and XLNet checkpoints with a sequence classifier's head, and what transformers says of them.

    python relative.py        # transformers 5, torch 2; writes mpnet/, xlnet/ and xlnet-clamped/

Files and `reference.json` are those of families.py, in its form. XLNet is padded on the left in here, as transformers' tokenizer
pads it: its head reads the last position. Everything in `reference.json` is of tokens that are not padding, and XLNet knows
distances only, so it is what a batch padded on the right must come to. Case `one_token` has no segments.
"""

import json
import shutil
from pathlib import Path

import torch
import transformers

here = Path(__file__).parent
torch.set_num_threads(1)
LEN = 20

three = dict(id2label={0: "no", 1: "maybe", 2: "yes"}, label2id={"no": 0, "maybe": 1, "yes": 2})
xlnet = dict(vocab_size=100, d_model=16, n_layer=2, n_head=2, d_inner=32, use_mems_eval=False, **three)
MODELS = {
    "mpnet": transformers.MPNetConfig(
        vocab_size=100, hidden_size=16, num_hidden_layers=2, num_attention_heads=2, intermediate_size=32,
        max_position_embeddings=LEN + 2, layer_norm_eps=1e-5, pad_token_id=1, **three),
    "xlnet": transformers.XLNetConfig(**xlnet),
    "xlnet-clamped": transformers.XLNetConfig(**xlnet, clamp_len=3, ff_activation="relu"),
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


def batch(rows, left, padding):
    width = max(map(len, rows))
    fill = [[padding] * (width - len(row)) for row in rows]
    return torch.tensor([more + row if left else row + more for row, more in zip(rows, fill)])


def said(model, token_head, left, padding, ids, segments):
    mask = batch([[1] * len(row) for row in ids], left, 0)
    extra = {} if segments is None else {"token_type_ids": batch(segments, left, 3)}
    output = model(batch(ids, left, padding), attention_mask=mask, output_hidden_states=True, output_attentions=True, **extra)
    part = lambda row: slice(-len(row), None) if left else slice(0, len(row))
    entry = {
        "ids": ids,
        "logits": numbers(output.logits),
        "token_logits": numbers(token_head(output.hidden_states[-1])[mask.bool()]),
        "hidden": [numbers(hidden[mask.bool()]) for hidden in output.hidden_states],
        "attention": [
            numbers(torch.cat([layer[idx, :, part(row), part(row)].flatten() for idx, row in enumerate(ids)]))
            for layer in output.attentions
        ],
    }
    if segments is not None:
        entry["segments"] = segments
    return entry, output.logits


for name, config in MODELS.items():
    torch.manual_seed(sum(map(ord, name)))
    model = transformers.AutoModelForSequenceClassification.from_config(config, attn_implementation="eager")
    randomise(model)
    model.eval()
    token_head = torch.nn.Linear(16, 3)
    randomise(token_head)
    folder = here / name
    shutil.rmtree(folder, ignore_errors=True)
    model.save_pretrained(folder)
    shutil.copy(here / "bert" / "tokenizer.json", folder / "tokenizer.json")
    left = name.startswith("xlnet")
    reference = {"token_weight": numbers(token_head.weight), "token_bias": numbers(token_head.bias), "cases": {}}
    for case, lengths in [("padded", [7, 4, 1]), ("paired", [9, 5, 3]), ("truncated", [LEN]), ("one_token", [1])]:
        ids = [torch.randint(5, 100, (length,)).tolist() for length in lengths]
        segments = None
        if left and case != "one_token":
            # The last one is `<cls>`, in a segment of its own.
            border = {"paired": [4, 2, 1]}.get(case, lengths)
            segments = [[int(idx >= at) for idx in range(length - 1)] + [2] for length, at in zip(lengths, border)]
        reference["cases"][case], logits = said(model, token_head, left, config.pad_token_id, ids, segments)
        if case == "padded":
            model.zero_grad()
            weigh(logits).backward()
            reference["gradients"] = {
                name: numbers(torch.stack([p.grad.double().sum(), p.grad.double().norm()]))
                for name, p in model.named_parameters() if p.grad is not None
            }
    (folder / "reference.json").write_text(json.dumps(reference, separators=(",", ":")) + "\n")
