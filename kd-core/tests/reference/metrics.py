"""Writes metrics.json: metrics of random predictions by scikit-learn and scipy, and MAP, MRR and ECE by plain loops.

Run with Python 3, numpy, scipy and scikit-learn: python metrics.py
"""

import json
import math
import pathlib
import warnings

import numpy
import scipy.stats
from sklearn import metrics

warnings.simplefilter("ignore")
rng = numpy.random.default_rng(7)


def number(x):
    """JSON has no NaN."""
    return None if math.isnan(x) else float(x)


def classes(predicted, gold):
    expected = {"accuracy": metrics.accuracy_score(gold, predicted), "matthews": metrics.matthews_corrcoef(gold, predicted)}
    for average in ["macro", "micro", "weighted"]:
        precision, recall, f1, _ = metrics.precision_recall_fscore_support(gold, predicted, average=average, zero_division=0)
        expected[average] = [precision, recall, f1]
    # Class 1 against the others.
    precision, recall, f1, _ = metrics.precision_recall_fscore_support(
        [x == 1 for x in gold], [x == 1 for x in predicted], average="binary", pos_label=True, zero_division=0
    )
    expected["binary"] = [precision, recall, f1]
    return {"predicted": predicted, "gold": gold, **expected}


def scores(values, gold):
    return {
        "scores": values,
        "gold": gold,
        "roc_auc": number(metrics.roc_auc_score(gold, values)) if len(set(gold)) == 2 else None,
        "average_precision": number(metrics.average_precision_score(gold, values)),
    }


def correlations(xs, ys):
    return {
        "predicted": xs,
        "gold": ys,
        "pearson": number(scipy.stats.pearsonr(xs, ys)[0]),
        "spearman": number(scipy.stats.spearmanr(xs, ys)[0]),
    }


def ranking(questions, values, gold):
    """trec_eval's map and recip_rank over questions with a right answer; wrong answers first among equal scores."""
    precisions, reciprocals, without, only = [], [], 0, 0
    for question in sorted(set(questions)):
        answers = [(-value, right) for other, value, right in zip(questions, values, gold) if other == question]
        answers.sort()
        if not any(right for _, right in answers):
            without += 1
            continue
        only += all(right for _, right in answers)
        seen, total, first = 0, 0.0, None
        for rank, (_, right) in enumerate(answers, 1):
            if right:
                seen += 1
                total += seen / rank
                first = first or rank
        precisions.append(total / seen)
        reciprocals.append(1 / first)
    return {
        "questions": questions,
        "scores": values,
        "gold": gold,
        "map": sum(precisions) / len(precisions),
        "mrr": sum(reciprocals) / len(reciprocals),
        "without_right": without,
        "only_right": only,
    }


def calibration(confidences, correct, bins):
    error = 0.0
    for b in range(bins):
        low, high = b / bins, (b + 1) / bins
        inside = [i for i, c in enumerate(confidences) if (low < c <= high) or (b == 0 and c == 0)]
        if inside:
            accuracy = sum(correct[i] for i in inside) / len(inside)
            confidence = sum(confidences[i] for i in inside) / len(inside)
            error += len(inside) / len(confidences) * abs(accuracy - confidence)
    return {"confidences": confidences, "correct": correct, "bins": bins, "error": error}


def draw(n, classes):
    return rng.integers(0, classes, n).tolist()


def tied(n, steps):
    """Scores of few values, so that there are ties."""
    return (rng.integers(0, steps, n) / steps).tolist()


def bits(n, chance=0.5):
    return (rng.random(n) < chance).tolist()


reference = {
    "classes": [
        *(classes(draw(n, k), draw(n, k)) for n, k in [(20, 2), (50, 3), (8, 6), (200, 10), (1, 2)]),
        classes([1] * 6, draw(6, 3)),
        classes(draw(6, 3), [1] * 6),
        classes([1] * 4, [1] * 4),
        classes([0] * 4, [1] * 4),
    ],
    "scores": [
        *(scores(rng.random(n).tolist(), bits(n)) for n in (10, 60)),
        *(scores(tied(n, steps), bits(n, 0.3)) for n, steps in [(30, 4), (100, 10), (40, 1)]),
        scores(rng.normal(size=25).tolist(), bits(25)),
        scores(rng.random(5).tolist(), [True] * 5),
        scores(rng.random(5).tolist(), [False] * 5),
    ],
    "correlations": [
        *(correlations(rng.normal(size=n).tolist(), rng.normal(size=n).tolist()) for n in (2, 10, 60)),
        *(correlations(tied(n, 5), tied(n, 3)) for n in (30, 60)),
        correlations((rng.normal(size=20) * 1e-3 + 1e3).tolist(), rng.normal(size=20).tolist()),
        correlations([0.1] * 10, rng.normal(size=10).tolist()),
    ],
    "ranking": [
        ranking(draw(60, 12), rng.random(60).tolist(), bits(60, 0.2)),
        ranking(draw(60, 12), tied(60, 3), bits(60, 0.4)),
        ranking(draw(40, 20), tied(40, 2), bits(40, 0.6)),
    ],
    "calibration": [
        calibration(rng.random(80).tolist(), bits(80, 0.7), 15),
        calibration(tied(80, 10), bits(80, 0.7), 10),
        calibration([0.0, 1.0, *tied(30, 15)], bits(32), 15),
    ],
}
path = pathlib.Path(__file__).with_suffix(".json")
path.write_text(json.dumps(reference, separators=(",", ":")) + "\n")
print(path.stat().st_size, "bytes")
