"""Tiny word vectors in binary formats, written and read by gensim, to compare kd_data::vectors with.

    pip install gensim
    python kd-data/tests/reference/vectors.py kd-data/tests/reference/vectors

writes word2vec.bin, fasttext.bin and vectors.json, the vectors as gensim reads them again.
"""

import json
import pathlib
import sys

import gensim
import numpy
from gensim.models import FastText, KeyedVectors
from gensim.models.fasttext import load_facebook_model, save_facebook_model

out = pathlib.Path(sys.argv[1])
out.mkdir(parents=True, exist_ok=True)
texts = [["the", "cat", "sat"], ["a", "café", "the", "的", "naïve", "的"], ["the", "cat", "a"]] * 3
model = FastText(texts, vector_size=3, window=2, min_count=1, bucket=13, min_n=2, max_n=4, seed=1, epochs=1, workers=1)
model.wv.vectors_vocab = numpy.round(model.wv.vectors_vocab * 8, 3)
model.wv.vectors_ngrams = numpy.round(model.wv.vectors_ngrams * 8, 3)
save_facebook_model(model, str(out / "fasttext.bin"))

words = KeyedVectors(4)
values = numpy.arange(20, dtype=numpy.float32).reshape(5, 4) / 8 - 1
words.add_vectors(["the", "New_York", "café", "的", "a"], values)
words.save_word2vec_format(str(out / "word2vec.bin"), binary=True)


def read(vectors):
    return {word: [float(value) for value in vectors[word]] for word in vectors.index_to_key}


reference = {
    "gensim": gensim.__version__,
    "word2vec": read(KeyedVectors.load_word2vec_format(str(out / "word2vec.bin"), binary=True)),
    "fasttext": read(load_facebook_model(str(out / "fasttext.bin")).wv),
}
(out / "vectors.json").write_text(json.dumps(reference, ensure_ascii=False, indent=1) + "\n", encoding="utf-8")
