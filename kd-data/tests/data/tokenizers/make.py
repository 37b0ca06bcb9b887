"""Makes the tiny tokenizers beside this file and what transformers says of some texts, `expected.json`.

    python make.py            # transformers 5, tokenizers

The vocabularies are made of the letters and words below; nothing is derived from a published tokenizer. Each folder is
what `save_pretrained` writes, less its `tokenizer_config.json` where the Rust reader does not need it. `bert-cased`, `bert-accents`
and `roberta-files` hold vocabulary files without a `tokenizer.json`.
"""

import json
import shutil
from pathlib import Path

from tokenizers import Tokenizer, models, pre_tokenizers, trainers
from transformers import AlbertTokenizer, BertTokenizer, MPNetTokenizer, RobertaTokenizer, XLMRobertaTokenizer, XLNetTokenizer

here = Path(__file__).parent
LETTERS = "abcdefghijklmnopqrstuvwxyzABCT0123456789.,!?'-éë東京Мо"
WORDS = "the cat sat on mat Tokyo runs running The Cat naive café Zoe and so it was a long story".split()

TEXTS = [
    "The cat sat on the mat.",
    "",
    "   ",
    "a",
    " The  cat\t runs \n",
    "Zoë's naïve café — 東京 Москва \U0001f600!",
    "a\u0001b\u200bc\u00a0d\u0000 \ufffd \u00ad",
    "Tokyo ``runs'' ﬁne, e\u0301 ½",
    "running running running running running and so it was a long, long story",
    "x" * 120,
]
PAIRS = [
    (0, 3, None), (0, 5, None), (1, 0, None), (0, 1, None), (1, 1, None), (5, 7, None), (4, 8, None), (2, 6, None),
    (0, 8, 12), (8, 0, 12), (8, 8, 12), (8, 8, 11), (8, 8, 6), (8, 8, 7), (0, 3, 7), (3, 0, 7), (3, 8, 8), (5, 8, 13), (8, 5, 14), (1, 8, 9),
]
SINGLES = [(idx, None) for idx in range(len(TEXTS))] + [(8, 3), (8, 4), (8, 9), (5, 8), (1, 5)]
SENTENCES = [
    ["The", "cat", "runs", "."],
    ["a"],
    ["Zoë", "'s", "naïve", "café", "東京", "\U0001f600", "-"],
    ["running", "x" * 30, "so", "it", "was", "``", "½", "!?"],
]


def save(tokenizer, name, keep=("tokenizer.json",)):
    folder = here / name
    shutil.rmtree(folder, ignore_errors=True)
    tokenizer.save_pretrained(folder)
    for file in folder.iterdir():
        if file.name not in keep:
            file.unlink()


def files(name, contents):
    folder = here / name
    shutil.rmtree(folder, ignore_errors=True)
    folder.mkdir()
    for file, text in contents.items():
        (folder / file).write_text(text, "utf-8")


pieces = list(LETTERS) + ["##" + letter for letter in LETTERS] + [word for word in WORDS if len(word) > 1] + ["##ning", "##s"]
pieces = list(dict.fromkeys(pieces))
bert = ["[PAD]", "[UNK]", "[CLS]", "[SEP]", "[MASK]"] + pieces
# As MPNet's: RoBERTa's special tokens in front of BERT's vocabulary.
mpnet = ["<s>", "<pad>", "</s>", "<unk>"] + bert + ["<mask>"]
ids = lambda names: {name: idx for idx, name in enumerate(names)}

corpus = " ".join(WORDS * 3) + " " + " ".join(text for text in TEXTS[:1] + TEXTS[8:9])
bpe = Tokenizer(models.BPE())
bpe.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
bpe.train_from_iterator([corpus], trainers.BpeTrainer(
    vocab_size=340, special_tokens=["<s>", "<pad>", "</s>", "<unk>", "<mask>"], show_progress=False,
    initial_alphabet=pre_tokenizers.ByteLevel.alphabet()))
made = json.loads(bpe.to_str())["model"]
merges = [tuple(merge) for merge in made["merges"]]

unigram = [("▁", -2.0)] + [(letter, -5.0 - 0.01 * idx) for idx, letter in enumerate(LETTERS)]
unigram += [("▁" + word, -3.0 - 0.01 * idx) for idx, word in enumerate(WORDS)] + [("ning", -4.0), ("s", -4.5)]
unigram = list(dict(unigram).items())
special = lambda names: [(name, 0.0) for name in names]

save(BertTokenizer(vocab=ids(bert)), "bert")
save(MPNetTokenizer(vocab=ids(mpnet)), "mpnet")
save(RobertaTokenizer(vocab=made["vocab"], merges=merges), "roberta")
save(AlbertTokenizer(vocab=special(["<pad>", "<unk>", "[CLS]", "[SEP]", "[MASK]"]) + unigram), "albert")
save(XLMRobertaTokenizer(vocab=special(["<s>", "<pad>", "</s>", "<unk>"]) + unigram + special(["<mask>"])), "xlm-roberta")
save(XLNetTokenizer(vocab=special(["<unk>", "<s>", "</s>", "<cls>", "<sep>", "<pad>", "<mask>", "<eod>", "<eop>"]) + unigram), "xlnet")
lines = lambda names: "\n".join(names) + "\n"
files("bert-cased", {
    "vocab.txt": lines(bert),
    "tokenizer_config.json": json.dumps({"do_lower_case": False, "tokenize_chinese_chars": False}),
})
files("bert-accents", {
    "vocab.txt": lines(bert), "tokenizer_config.json": json.dumps({"strip_accents": False, "cls_token": {"content": "[CLS]"}}),
})
files("mpnet-files", {"vocab.txt": lines(mpnet), "tokenizer_config.json": json.dumps({"tokenizer_class": "MPNetTokenizer"})})
files("roberta-files", {
    "vocab.json": json.dumps(made["vocab"], ensure_ascii=False),
    "merges.txt": "#version: 0.2\n" + lines(" ".join(merge) for merge in merges),
})

tokenizers = {
    "bert/tokenizer.json": BertTokenizer(vocab=ids(bert)),
    "bert-cased/vocab.txt": BertTokenizer(vocab=str(here / "bert-cased/vocab.txt"), do_lower_case=False, tokenize_chinese_chars=False),
    "bert-accents/vocab.txt": BertTokenizer(vocab=str(here / "bert-accents/vocab.txt"), strip_accents=False),
    "mpnet/tokenizer.json": MPNetTokenizer(vocab=ids(mpnet)),
    "mpnet-files/vocab.txt": MPNetTokenizer(vocab=ids(mpnet)),
    "roberta/tokenizer.json": RobertaTokenizer(vocab=made["vocab"], merges=merges),
    "roberta-files/vocab.json": RobertaTokenizer(
        vocab=str(here / "roberta-files/vocab.json"), merges=str(here / "roberta-files/merges.txt")),
    "albert/tokenizer.json": AlbertTokenizer.from_pretrained(here / "albert"),
    "xlm-roberta/tokenizer.json": XLMRobertaTokenizer.from_pretrained(here / "xlm-roberta"),
    "xlnet/tokenizer.json": XLNetTokenizer.from_pretrained(here / "xlnet"),
}
expected = {}
for name, tokenizer in tokenizers.items():
    def encode(*texts, max_len=None, tokenizer=tokenizer, **more):
        # In a batch of one: alone, an empty second text would count as none.
        texts = [[text] for text in texts]
        said = tokenizer(*texts, truncation=max_len is not None, max_length=max_len, return_token_type_ids=True, **more)
        return said, {"ids": said["input_ids"][0], "segments": said["token_type_ids"][0]}
    split = RobertaTokenizer(vocab=made["vocab"], merges=merges, add_prefix_space=True) if "roberta" in name.split("-")[0] else tokenizer
    words = []
    for sentence in SENTENCES:
        said, entry = encode(sentence, tokenizer=split, is_split_into_words=True)
        words.append({**entry, "words": said.word_ids(0)})
    expected[name] = {
        "texts": [{"text": text, "max_len": max_len, **encode(TEXTS[text], max_len=max_len)[1]} for text, max_len in SINGLES],
        "pairs": [{"first": a, "second": b, "max_len": max_len, **encode(TEXTS[a], TEXTS[b], max_len=max_len)[1]} for a, b, max_len in PAIRS],
        "words": words,
    }
document = {"texts": TEXTS, "sentences": SENTENCES, "tokenizers": expected}
(here / "expected.json").write_text(json.dumps(document, separators=(",", ":")) + "\n", "utf-8")
