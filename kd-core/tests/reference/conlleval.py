"""Reference counts for tests/conlleval.rs, by conlleval's published tables.

    python3 conlleval.py > conlleval.json

The Perl script walks through two tag columns and asks, at every word, whether a chunk ends before it and whether
one starts at it (`endOfChunk`, `startOfChunk`); an empty line counts as `O`. This is the same walk, with the rows for
S (and E before B) that the script's Python successors added. For B, I and O both tables are compared below.
Random sequences, about half of them invalid; needs the standard library only.
"""

import json
import random
from collections import defaultdict


def end_of_chunk(prev_tag, tag, prev_type, type_):
    end = False
    if prev_tag in ("E", "S"):
        end = True
    if prev_tag == "B" and tag in ("B", "S", "O"):
        end = True
    if prev_tag == "I" and tag in ("B", "S", "O"):
        end = True
    if prev_tag != "O" and prev_tag != "." and prev_type != type_:
        end = True
    return end


def start_of_chunk(prev_tag, tag, prev_type, type_):
    start = False
    if tag in ("B", "S"):
        start = True
    if prev_tag == "E" and tag in ("E", "I"):
        start = True
    if prev_tag == "S" and tag in ("E", "I"):
        start = True
    if prev_tag == "O" and tag in ("E", "I"):
        start = True
    if tag != "O" and tag != "." and prev_type != type_:
        start = True
    return start


def perl_end(prev_tag, tag, prev_type, type_):
    """The rows of the Perl script that speak of B, I and O."""
    return (
        (prev_tag, tag) in {("B", "B"), ("B", "O"), ("I", "B"), ("I", "O")}
        or (prev_tag not in ("O", ".") and prev_type != type_)
    )


def perl_start(prev_tag, tag, prev_type, type_):
    return (
        (prev_tag, tag) in {("B", "B"), ("I", "B"), ("O", "B"), ("O", "I")}
        or (tag not in ("O", ".") and prev_type != type_)
    )


for a in "BIO":
    for b in "BIO":
        for ta in ("", "x", "y"):
            for tb in ("", "x", "y"):
                if (a == "O") == (ta == "") and (b == "O") == (tb == ""):
                    assert end_of_chunk(a, b, ta, tb) == perl_end(a, b, ta, tb)
                    assert start_of_chunk(a, b, ta, tb) == perl_start(a, b, ta, tb)


def split(tag):
    return ("O", "") if tag == "O" else tuple(tag.split("-", 1))


def evaluate(sentences):
    correct, gold, guessed = defaultdict(int), defaultdict(int), defaultdict(int)
    in_correct = False
    last = last_guess = ("O", "")
    lines = []
    for sentence in sentences:
        lines += list(zip(*sentence)) + [("O", "O")]
    for line in lines:
        now, guess = split(line[0]), split(line[1])
        ends = end_of_chunk(last[0], now[0], last[1], now[1])
        guess_ends = end_of_chunk(last_guess[0], guess[0], last_guess[1], guess[1])
        starts = start_of_chunk(last[0], now[0], last[1], now[1])
        guess_starts = start_of_chunk(last_guess[0], guess[0], last_guess[1], guess[1])
        if in_correct:
            if ends and guess_ends and last[1] == last_guess[1]:
                in_correct = False
                correct[last[1]] += 1
            elif ends != guess_ends or now[1] != guess[1]:
                in_correct = False
        if starts and guess_starts and now[1] == guess[1]:
            in_correct = True
        if starts:
            gold[now[1]] += 1
        if guess_starts:
            guessed[guess[1]] += 1
        last, last_guess = now, guess
    return {kind: [correct[kind], gold[kind], guessed[kind]] for kind in sorted(set(gold) | set(guessed))}


def random_tags(rng, length, marks, types):
    return [
        "O" if mark == "O" else f"{mark}-{rng.choice(types)}" for mark in (rng.choice(marks) for _ in range(length))
    ]


def disturb(rng, tags, marks, types):
    """A prediction that is right in most places, so that whole entities match."""
    return [tag if rng.random() < 0.8 else random_tags(rng, 1, marks, types)[0] for tag in tags]


def main():
    rng = random.Random(2003)
    cases = []
    for case in range(120):
        marks = ["BIO", "BIOO", "IO", "BIOES", "BIESOO"][case % 5]
        types = [["PER"], ["PER", "LOC"], ["PER", "LOC", "creative-work"]][case % 3]
        sentences = []
        for _ in range(rng.randint(1, 4)):
            gold = random_tags(rng, rng.randint(1, 10), marks, types)
            sentences.append((gold, disturb(rng, gold, marks, types)))
        cases.append(
            {
                "sentences": [[" ".join(gold), " ".join(guess)] for gold, guess in sentences],
                "by_type": evaluate(sentences),
            }
        )
    print("[\n" + ",\n".join(json.dumps(case) for case in cases) + "\n]")


main()
