"""Makes tokenizer.json: a word-piece tokenizer of a few hundred pieces for tests.

    python3 make_tokenizer.py

Lower-cased like most published BERT tokenizers, and with a truncation and a padding section as some have, which readers
must not obey. The pieces are the special tokens, printable ASCII with and without `##`, and the most frequent words and
word ends of the two test texts. Needs the standard library only.
"""

import json
from collections import Counter
from pathlib import Path

here = Path(__file__).parent
words = [line.split("\t")[0] for line in (here / "wnut17.conll").read_text("utf-8").split("\n") if line.strip(" \t")]
words += (here / "snips" / "seq.in").read_text("utf-8").split()
words = [word.lower() for word in words if word.isascii() and word.isalpha()]

whole = Counter(words)
ends = Counter("##" + word[-size:] for word in words for size in (2, 3) if len(word) > size + 1)


def top(counts, n):
    """The n most frequent; equally frequent ones in the order of their text."""
    return [text for text, _ in sorted(counts.items(), key=lambda item: (-item[1], item[0]))[:n]]


ascii_characters = [chr(code) for code in range(0x21, 0x7F) if not chr(code).isupper()]
pieces = ["[PAD]", "[UNK]", "[CLS]", "[SEP]", "[MASK]"] + ascii_characters
pieces += ["##" + c for c in ascii_characters if c.isalnum()]
pieces += [word for word in top(whole, 150) if word not in pieces] + top(ends, 80)
assert len(set(pieces)) == len(pieces)

special = [
    {
        "id": idx,
        "content": piece,
        "single_word": False,
        "lstrip": False,
        "rstrip": False,
        "normalized": False,
        "special": True,
    }
    for idx, piece in enumerate(pieces[:5])
]
tokenizer = {
    "version": "1.0",
    "truncation": {"direction": "Right", "max_length": 8, "strategy": "LongestFirst", "stride": 0},
    "padding": {
        "strategy": {"Fixed": 8},
        "direction": "Right",
        "pad_to_multiple_of": None,
        "pad_id": 0,
        "pad_type_id": 0,
        "pad_token": "[PAD]",
    },
    "added_tokens": special,
    "normalizer": {
        "type": "BertNormalizer",
        "clean_text": True,
        "handle_chinese_chars": True,
        "strip_accents": None,
        "lowercase": True,
    },
    "pre_tokenizer": {"type": "BertPreTokenizer"},
    "post_processor": None,
    "decoder": {"type": "WordPiece", "prefix": "##", "cleanup": True},
    "model": {
        "type": "WordPiece",
        "unk_token": "[UNK]",
        "continuing_subword_prefix": "##",
        "max_input_chars_per_word": 100,
        "vocab": {piece: idx for idx, piece in enumerate(pieces)},
    },
}
(here / "tokenizer.json").write_text(json.dumps(tokenizer, indent=1) + "\n", "utf-8")
