"""Values of scikit-learn's and scipy's metrics, to compare kd_data::scores with.

    pip install scikit-learn scipy
    python kd-data/tests/reference/scores.py > kd-data/tests/reference/scores.json
"""

import json
import sys

import numpy
import scipy.stats
import sklearn
from sklearn import metrics

generator = numpy.random.default_rng(7)


def classes(names, rows, positive):
    gold = generator.integers(len(names), size=rows)
    logits = generator.normal(size=(rows, len(names)))
    logits[numpy.arange(rows), gold] += 0.7
    scores = numpy.exp(logits) / numpy.exp(logits).sum(1, keepdims=True)
    scores = numpy.round(scores, 2).astype(numpy.float32)  # rounded, so that some are tied
    predicted = scores.argmax(1)
    values = {"accuracy": metrics.accuracy_score(gold, predicted)}
    functions = {"f1": metrics.f1_score, "precision": metrics.precision_score, "recall": metrics.recall_score}
    for name, function in functions.items():
        for average in ["macro", "micro", "weighted"]:
            values[f"{average}_{name}"] = function(gold, predicted, average=average, zero_division=0)
        if positive is not None:
            place = names.index(positive)
            values[name] = function(gold == place, predicted == place, zero_division=0)
    areas = [metrics.roc_auc_score(gold == place, scores[:, place]) for place in range(len(names))]
    values.update({f"auc@{name}": area for name, area in zip(names, areas)})
    values["auc@average"] = float(numpy.mean(areas))
    if positive is not None:
        values["auc"] = areas[names.index(positive)]
    return {
        "classes": names,
        "positive": positive,
        "gold": gold.tolist(),
        "scores": [[float(x) for x in row] for row in scores],
        "values": {name: float(value) for name, value in values.items()},
    }


def numbers(rows):
    gold = generator.normal(size=rows)
    predicted = gold + generator.normal(size=rows)
    mse = metrics.mean_squared_error(gold, predicted)
    values = {
        "MSE": mse,
        "RMSE": float(numpy.sqrt(mse)),
        "pearsonr": float(scipy.stats.pearsonr(gold, predicted)[0]),
        "spearmanr": float(scipy.stats.spearmanr(gold, predicted)[0]),
    }
    return {"gold": gold.tolist(), "predicted": predicted.tolist(), "values": values}


reference = {
    "scikit-learn": sklearn.__version__,
    "classes": [classes(["0", "1"], 40, "1"), classes(["yes", "no"], 30, "yes"), classes(["a", "b", "c", "d"], 50, None)],
    "numbers": [numbers(25), numbers(3)],
}
json.dump(reference, sys.stdout, indent=1)
print()
