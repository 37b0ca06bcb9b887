"""Loads a teacher that `finetune_teacher` saved with transformers and compares its logits with those of the program.

    finetune_teacher --task rte --data glue/RTE ... --predict dev --out out/rte
    python examples/reference/saved_teacher.py --task rte --data glue/RTE --teacher out/rte/lr-2e-5 --predictions out/rte/lr-2e-5.dev.tsv

Prints the largest difference over the first 20 examples, and fails if it is above 1e-4 or a class has another name. Tasks are
those of finetune.py, and of tagging `conll2003` and `snips-slots`. Needs the packages of requirements.txt.
"""

import argparse
import csv
from pathlib import Path

import numpy as np
import torch
from transformers import AutoModelForSequenceClassification, AutoModelForTokenClassification, AutoTokenizer

from finetune import TASKS, encode, read

TAGGING = ["conll2003", "snips-slots"]
EXAMPLES = 20


def sentences(task, folder, part):
    if task == "snips-slots":
        folder = folder / {"dev": "valid"}.get(part, part)
        return [line.split() for line in (folder / "seq.in").read_text().splitlines()]
    name = {"dev": "eng.testa", "test": "eng.testb"}[part]
    blocks = (folder / name).read_text().split("\n\n")
    words = [[line.split()[0] for line in block.splitlines() if not line.startswith("-DOCSTART-")] for block in blocks]
    return [sentence for sentence in words if sentence]


@torch.no_grad()
def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--task", required=True, choices=[*TASKS, *TAGGING])
    parser.add_argument("--data", required=True, type=Path)
    parser.add_argument("--part", default="dev", choices=["dev", "test"])
    parser.add_argument("--teacher", required=True)
    parser.add_argument("--predictions", required=True)
    parser.add_argument("--max-len", default=128, type=int)
    args = parser.parse_args()
    is_tagging = args.task in TAGGING
    auto = AutoModelForTokenClassification if is_tagging else AutoModelForSequenceClassification
    model, loading = auto.from_pretrained(args.teacher, output_loading_info=True)
    assert not loading["missing_keys"] and not loading["unexpected_keys"], loading
    model.eval()
    tokenizer = AutoTokenizer.from_pretrained(args.teacher)
    with open(args.predictions, newline="") as file:
        ours = list(csv.reader(file, delimiter="\t", quoting=csv.QUOTE_NONE))
    classes = [model.config.id2label[number] for number in range(model.config.num_labels)]
    assert ours[0][-len(classes) :] == classes, (ours[0], classes)
    ours = [[float(value) for value in row[-len(classes) :]] for row in ours[1:] if int(row[0]) < EXAMPLES]
    theirs = []
    if is_tagging:
        for words in sentences(args.task, args.data, args.part)[:EXAMPLES]:
            inputs = tokenizer([words], is_split_into_words=True, return_tensors="pt")
            word_ids = inputs.word_ids(0)
            logits = model(**inputs).logits[0]
            theirs += [logits[word_ids.index(word)].tolist() for word in range(len(words))]
    else:
        for text in read(args.task, args.data, args.part)[0][:EXAMPLES]:
            inputs = encode(tokenizer, [text], args.max_len).convert_to_tensors("pt")
            theirs.append(model(**inputs).logits[0].tolist())
    difference = np.abs(np.array(ours) - np.array(theirs)).max()
    print(f"{type(model).__name__}, {type(tokenizer).__name__}: {len(ours)} rows, largest difference of logits {difference:.2e}")
    assert difference < 1e-4


if __name__ == "__main__":
    main()
