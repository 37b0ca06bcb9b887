"""Loads the folders that the example `families` saved with transformers, compares logits, and saves them again.

    cargo run --release -p kd-teachers --example families -- save DIR
    python check_saved.py DIR       # transformers 5, torch 2
    cargo run --release -p kd-teachers --example families -- check DIR

Each folder is loaded by `AutoModelForSequenceClassification` or `AutoModelForTokenClassification.from_pretrained`, which
must miss and be surprised by no weight. XLNet reads the last position of a row, so its padding stands on the left.
"""

import json
import sys
from pathlib import Path

import torch
import transformers

torch.set_num_threads(1)
HEADS = {
    "sequence": transformers.AutoModelForSequenceClassification,
    "token": transformers.AutoModelForTokenClassification,
}

worst_of_all = 0.0
for folder in sorted(path.parent for path in Path(sys.argv[1]).glob("*/expected.json")):
    expected = json.loads((folder / "expected.json").read_text())
    head = folder.name.rsplit("-", 1)[1]
    model, info = HEADS[head].from_pretrained(folder, output_loading_info=True)
    model.eval()
    # XLNet's mask embedding is of pretraining only, and not saved.
    missing = [name for name in info["missing_keys"] if not name.endswith("mask_emb")]
    assert not missing and not info["unexpected_keys"] and not info["mismatched_keys"], (folder, info)
    padding = model.config.pad_token_id
    longest = max(map(len, expected["ids"]))
    left = model.config.model_type == "xlnet"
    pad = lambda row, value: [value] * (longest - len(row)) + row if left else row + [value] * (longest - len(row))
    ids = torch.tensor([pad(row, padding) for row in expected["ids"]])
    mask = torch.tensor([pad([1] * len(row), 0) for row in expected["ids"]])
    with torch.no_grad():
        logits = model(ids, attention_mask=mask).logits
    if head == "token":
        logits = logits[mask.bool()]
    difference = (logits.flatten() - torch.tensor(expected["logits"])).abs().max().item()
    worst_of_all = max(worst_of_all, difference)
    print(f"{folder.name} ({type(model).__name__}): the largest difference is {difference:.2e}, "
          f"the largest logit {logits.abs().max().item():.2f}")
    assert difference < 5e-6, folder
    model.save_pretrained(folder / "again")
    (folder / "again" / "tokenizer.json").write_bytes((folder / "tokenizer.json").read_bytes())
print(f"the largest difference of all is {worst_of_all:.2e}")
