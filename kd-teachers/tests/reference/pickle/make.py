"""State dicts as torch.save writes them, and their values.

    python3 -m venv venv && venv/bin/pip install torch numpy
    venv/bin/python kd-teachers/tests/reference/pickle/make.py

Written with torch 2.15.
"""

import json
from collections import OrderedDict
from pathlib import Path

import torch

HERE = Path(__file__).parent
LAYER = "bert.encoder.layer.0."


def values(*shape: int) -> torch.Tensor:
    return torch.randn(*shape, generator=torch.Generator().manual_seed(sum(shape)))


def save(name: str, tensors: dict) -> None:
    torch.save(OrderedDict(tensors), HERE / name)


shared = values(4, 3)
first = {
    # Saved as parameters, as a state dict of a module in training has them.
    LAYER + "intermediate.dense.weight": torch.nn.Parameter(shared),
    # A transposed view.
    LAYER + "output.dense.weight": values(2, 5).t(),
    # A view that begins in the middle of its storage.
    LAYER + "attention.self.key.weight": values(6, 4)[2:4],
}
second = {
    LAYER + "attention.self.key.bias": values(7).half(),
    LAYER + "attention.self.query.bias": values(7).bfloat16(),
    # Two names of one storage, and one of the names that older versions have.
    LAYER + "attention.output.dense.weight": shared,
    LAYER + "output.LayerNorm.gamma": values(3),
    # Not used, and of a dtype that no weight has.
    "bert.embeddings.position_ids": torch.arange(5)[None],
}
save("pytorch_model.bin", {**first, **second})
save("pytorch_model-00001-of-00002.bin", first)
save("pytorch_model-00002-of-00002.bin", second)
shards = {name: "pytorch_model-00001-of-00002.bin" for name in first}
shards |= {name: "pytorch_model-00002-of-00002.bin" for name in second}
index = {"metadata": {"total_size": 1}, "weight_map": shards}
(HERE / "pytorch_model.bin.index.json").write_text(json.dumps(index, indent=1) + "\n")
save("strided.bin", {LAYER + "output.dense.weight": values(2, 6)[:, ::2]})
save("integers.bin", {LAYER + "output.dense.bias": torch.arange(3)})
torch.save([1, 2], HERE / "list.bin")

reference = {
    name: {"shape": list(tensor.shape), "values": tensor.detach().double().flatten().tolist()}
    for name, tensor in {**first, **second}.items()
}
(HERE / "reference.json").write_text(json.dumps(reference, indent=1) + "\n")
