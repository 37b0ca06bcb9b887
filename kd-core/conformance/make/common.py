"""What the scripts beside this one share: cases with PyTorch's values and gradients, and their files.

A script computes a loss from named tensors and calls `write` once per loss:

    write("logit_mse", source="...", formula="...", cases=[
        case("random", lambda x: ((x["student_logits"] - x["teacher_logits"]) ** 2).mean(-1),
             {"student_logits": torch.randn(5, 4), "teacher_logits": torch.randn(5, 4)}),
    ])
"""

import json
import pathlib

import torch

torch.set_default_dtype(torch.float64)

LOSSES = pathlib.Path(__file__).resolve().parent.parent / "losses"
DTYPES = {torch.float64: "f64", torch.int64: "u32", torch.uint8: "u8"}


def shown(tensor):
    return {"shape": list(tensor.shape), "dtype": DTYPES[tensor.dtype], "data": tensor.reshape(-1).tolist()}


def case(name, loss, inputs, parameters=None, differentiable=("student_logits",), tolerance=1e-10, finite_differences=True):
    """One case. `loss` takes the dictionary of inputs, with gradients for those in `differentiable`, and returns the values
    of all rows, a tensor of one dimension, or a scalar where the loss has no rows."""
    given = {key: x.clone().requires_grad_(key in differentiable) for key, x in inputs.items()}
    value = loss(given)
    mean = value.mean()
    gradients = torch.autograd.grad(mean, [given[key] for key in differentiable])
    expected = {"rows": shown(value.detach())} if value.dim() == 1 else {}
    expected["mean"] = mean.item()
    expected["gradients"] = {key: shown(gradient) for key, gradient in zip(differentiable, gradients)}
    return {
        "name": name,
        "inputs": {key: shown(x) for key, x in inputs.items()},
        "parameters": parameters or {},
        "expected": expected,
        "tolerance": {"absolute": tolerance, "relative": tolerance},
        "finite_differences": finite_differences,
    }


def write(loss, source, formula, cases):
    """The file of a loss, one line per case."""
    names = [case["name"] for case in cases]
    assert len(set(names)) == len(names), f"{loss}: two cases of one name"
    head = json.dumps({"loss": loss, "source": source, "formula": formula}, indent=1, ensure_ascii=False)[:-2]
    lines = ",\n  ".join(json.dumps(case, separators=(",", ":"), allow_nan=False) for case in cases)
    (LOSSES / f"{loss}.json").write_text(f'{head},\n "cases": [\n  {lines}\n ]\n}}\n')
