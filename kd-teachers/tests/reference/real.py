"""What PyTorch's transformers says of 20 texts with published checkpoints, for `examples/parity.rs` and kd-data's `examples/pieces.rs`.

    python real.py OUT [MODEL ...]    # transformers 5, torch 2; MODEL is a hub id, by default those below

Writes for each model `OUT/NAME.json`: the folder of its files, the texts, and their ids and segments as its tokenizer makes
them, in batches of five; and `OUT/NAME.safetensors`: all hidden states and attention probabilities in f32, of tokens that are not
padding, in the order of the texts. Obeys HF_HOME and HF_HUB_OFFLINE.
"""

import json
import sys
from pathlib import Path

import torch
from huggingface_hub import snapshot_download
from safetensors.torch import save_file
from transformers import AutoConfig, AutoModel, AutoTokenizer

MODELS = [
    "sentence-transformers/all-MiniLM-L6-v2",
    "sentence-transformers/paraphrase-MiniLM-L3-v2",
    "intfloat/e5-small",
    "local/quire-grammar-distilbert-cased",
    "sentence-transformers/all-mpnet-base-v2",
]
LONG = (
    "The committee, which had been appointed in the spring and had met eleven times since, agreed on almost nothing: not on "
    "the cost of the bridge, not on where it should stand, and least of all on whether the old ferry ought to be kept running "
    "while it was built. "
)
TEXTS = [
    ("A man is playing a guitar on stage.", None),
    ("Stocks fell sharply on Monday after the central bank raised rates by 0.75%.", None),
    ("I can't believe it's not butter!", None),
    ("ok", None),
    ("", None),
    ("Barack Obama was born in Honolulu, Hawaii, on August 4, 1961.", None),
    ("Zoë's naïve café-owner façade didn't fool Ångström or Čapek.", None),
    ("東京は日本の首都です。", None),
    ("Привет, мир! Γειά σου Κόσμε! مرحبا بالعالم", None),
    ("\U0001f602\U0001f602 that's hilarious \U0001f469‍\U0001f680 #winning @someone https://example.com/a?b=c&d=1", None),
    ("control\u0001 and\u200bzero-width\u00a0characters\tand\nlines", None),
    ("Antidisestablishmentarianism and pneumonoultramicroscopicsilicovolcanoconiosis are long words.", None),
    ("ALL CAPS SENTENCE WITH NUMBERS 1234567890 AND SYMBOLS <>[]{}()!?", None),
    ("query: how many people live in the Netherlands?", None),
    (LONG, None),
    (LONG * 4, None),
    ("A soccer game with multiple males playing.", "Some men are playing a sport."),
    ("The bank of the river was steep.", "He went to the bank to deposit a cheque in 2019."),
    (LONG, "Nobody agreed."),
    (LONG * 3, LONG * 2),
]
MAX_LEN, BATCH = 256, 5


def unpadded(tensor, lengths):
    """`(batch, len, width)` or `(batch, heads, len, len)` as one row of numbers, without padding."""
    if tensor.dim() == 3:
        return torch.cat([tensor[idx, :length].flatten() for idx, length in enumerate(lengths)])
    return torch.cat([tensor[idx, :, :length, :length].flatten() for idx, length in enumerate(lengths)])


@torch.no_grad()
def ask(model_id, out):
    folder = Path(snapshot_download(model_id))
    tokenizer = AutoTokenizer.from_pretrained(folder)
    model = AutoModel.from_pretrained(folder, attn_implementation="eager", dtype=torch.float32).eval()
    uses_segments = getattr(AutoConfig.from_pretrained(folder), "type_vocab_size", 0) > 1 and "token_type_ids" in tokenizer.model_input_names
    encoded = [tokenizer([a], None if b is None else [b], truncation=True, max_length=MAX_LEN, return_token_type_ids=True) for a, b in TEXTS]
    ids = [one["input_ids"][0] for one in encoded]
    segments = [one["token_type_ids"][0] for one in encoded]
    parts = {}
    for start in range(0, len(ids), BATCH):
        rows, kinds = ids[start:start + BATCH], segments[start:start + BATCH]
        lengths = [len(row) for row in rows]
        pad = lambda rows, filler: torch.tensor([row + [filler] * (max(lengths) - len(row)) for row in rows])
        inputs = {"input_ids": pad(rows, tokenizer.pad_token_id), "attention_mask": pad([[1] * n for n in lengths], 0)}
        if uses_segments:
            inputs["token_type_ids"] = pad(kinds, 0)
        said = model(**inputs, output_hidden_states=True, output_attentions=True)
        for kind, tensors in [("hidden", said.hidden_states), ("attention", said.attentions)]:
            for idx, tensor in enumerate(tensors):
                parts.setdefault(f"{kind}.{idx}", []).append(unpadded(tensor, lengths))
        parts.setdefault("last", []).append(unpadded(said.last_hidden_state, lengths))
    name = model_id.split("/")[-1]
    save_file({key: torch.cat(values) for key, values in parts.items()}, out / f"{name}.safetensors")
    document = {"model": model_id, "folder": str(folder), "texts": TEXTS, "max_len": MAX_LEN, "batch": BATCH, "ids": ids, "segments": segments,
                "uses_segments": uses_segments, "layers": len(said.attentions)}
    (out / f"{name}.json").write_text(json.dumps(document, ensure_ascii=False) + "\n", "utf-8")
    print(f"{name}: {sum(map(len, ids))} tokens, the longest text {max(map(len, ids))}")


out = Path(sys.argv[1])
out.mkdir(parents=True, exist_ok=True)
for model_id in sys.argv[2:] or MODELS:
    ask(model_id, out)
