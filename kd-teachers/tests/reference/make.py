"""Makes the tiny random checkpoints beside this file and what transformers says of them.

    python make.py            # transformers 5, torch 2; writes bert/, distilbert/ and reference.json

The weights are random (nothing is derived from a published model). `bert/` is a BertForTokenClassification, whose
tensors carry the prefix `bert.`; `distilbert/` is a plain DistilBertModel, whose tensors carry none. The tests make
the other spellings by renaming.
"""

import json
import shutil
from pathlib import Path

import torch
from tokenizers import Tokenizer, models, normalizers, pre_tokenizers, processors
from transformers import BertConfig, BertForTokenClassification, DistilBertConfig, DistilBertModel

here = Path(__file__).parent
torch.set_num_threads(1)
torch.manual_seed(1)

WORDS = "the a cat dog sat ran on in mat rug big red anna london paris runs".split()
SPECIAL = ["[PAD]", "[UNK]", "[CLS]", "[SEP]", "[MASK]"]
LETTERS = [letter for letter in "abcdefghijklmnopqrstuvwxyz"] + ["##" + letter for letter in "abcdefghijklmnopqrstuvwxyz"]
VOCABULARY = SPECIAL + LETTERS + [word for word in WORDS if len(word) > 1]
VOCABULARY += [f"[unused{idx}]" for idx in range(100 - len(VOCABULARY))]
assert len(VOCABULARY) == len(set(VOCABULARY)) == 100


def tokenizer(folder):
    made = Tokenizer(models.WordPiece({piece: idx for idx, piece in enumerate(VOCABULARY)}, unk_token="[UNK]"))
    made.normalizer = normalizers.BertNormalizer(lowercase=True)
    made.pre_tokenizer = pre_tokenizers.BertPreTokenizer()
    made.post_processor = processors.TemplateProcessing(
        single="[CLS] $A [SEP]", pair="[CLS] $A [SEP] $B:1 [SEP]:1", special_tokens=[("[CLS]", 2), ("[SEP]", 3)]
    )
    made.add_special_tokens(SPECIAL)
    made.save(str(folder / "tokenizer.json"), pretty=False)


def randomise(model):
    """Larger than the usual start, so that no part of the forward pass hides behind a small number."""
    for name, parameter in model.named_parameters():
        with torch.no_grad():
            mean = 1.0 if "norm" in name.lower() and name.endswith("weight") else 0.0
            parameter.normal_(mean, 0.25)


shared = dict(vocab_size=100, max_position_embeddings=40)
bert = BertForTokenClassification(BertConfig(
    hidden_size=32, num_hidden_layers=2, num_attention_heads=4, intermediate_size=64,
    id2label={0: "O", 1: "B-PER", 2: "I-PER"}, label2id={"O": 0, "B-PER": 1, "I-PER": 2}, **shared))
distilbert = DistilBertModel(DistilBertConfig(dim=32, n_layers=2, n_heads=4, hidden_dim=64, **shared))

lengths = [7, 4, 1]
ids = torch.randint(5, 100, (3, 7))
mask = (torch.arange(7)[None] < torch.tensor(lengths)[:, None]).long()
ids = ids * mask
segments = (torch.arange(7)[None] >= torch.tensor([[4], [2], [1]])).long() * mask
words = torch.tensor([1, 2, 5, 8, 10, 14])  # positions in the flattened batch


def rounded(tensor):
    return [float(f"{value:.7g}") for value in tensor.detach().flatten().tolist()]


def gradients(model, loss):
    """Sum and norm of each parameter's gradient."""
    model.zero_grad()
    loss.backward()
    return {
        name: rounded(torch.stack([p.grad.double().sum(), p.grad.double().norm()]))
        for name, p in model.named_parameters() if p.grad is not None
    }


def weigh(tensor):
    """A loss that no symmetry makes zero: `sum_i cos(i) x_i`."""
    return (tensor.flatten() * torch.cos(torch.arange(tensor.numel(), dtype=torch.float32))).sum()


reference = {"ids": ids.tolist(), "lengths": lengths, "segments": segments.tolist(), "words": words.tolist()}
for name, model in [("bert", bert), ("distilbert", distilbert)]:
    randomise(model)
    model.eval()
    folder = here / name
    shutil.rmtree(folder, ignore_errors=True)
    model.save_pretrained(folder, safe_serialization=True)
    tokenizer(folder)
    extra = {"token_type_ids": segments} if name == "bert" else {}
    said = model(ids, attention_mask=mask, output_hidden_states=True, **extra)
    alone = model(ids[2:, :1], output_hidden_states=True)
    entry = {"hidden": [rounded(hidden[mask.bool()]) for hidden in said.hidden_states],
             "one_token": rounded(alone.hidden_states[-1])}
    if name == "bert":
        rows = said.logits.reshape(21, 3)[words]
        entry["logits"] = rounded(rows)
    else:
        rows = said.last_hidden_state.reshape(21, 32)[words]
    entry["gradients"] = gradients(model, weigh(rows))
    reference[name] = entry
(here / "reference.json").write_text(json.dumps(reference, separators=(",", ":")) + "\n")
