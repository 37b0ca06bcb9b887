"""The other side of `kd-bench table`: does what it is told on stdin, one JSON object a line, and answers on stdout.

    {"do": "prepare", "kind": ..., "params": {...}, "inputs": FILE, "outputs": FILE}   -> {}
    {"do": "run", "side": "pytorch" or "onnxruntime", "calls": N}                     -> {"ms": of one call}
    {"do": "release"}                   -> {}, and the row's tensors are gone
    {"do": "memory"}                    -> {"mib": peak since the start, without what the imports took}

The first line it writes, unasked, are versions. A request that fails is answered with {"error": TEXT}.
"""

import gc
import json
import os
import resource
import sys
import time
import traceback

# Whatever libraries print must not land between the answers.
answers = os.fdopen(os.dup(1), "w", buffering=1)
os.dup2(2, 1)

import numpy
import torch
from safetensors.torch import load_file, save_file

import models
import ops
import place

try:
    import onnxruntime

    import onnx_tagger
except ImportError:
    onnxruntime = None

KINDS = {
    "op": ops.prepare,
    "adamw": ops.prepare_adamw,
    "encoder": models.prepare_encoder,
    "encoder_training": models.prepare_encoder_training,
    "tagger": models.prepare_tagger,
    "tagger_training": models.prepare_tagger_training,
}


def resident_mib():
    with open("/proc/self/statm") as statm:
        return int(statm.read().split()[1]) * resource.getpagesize() / 2**20


def peak_mib():
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 2**10


class Worker:
    def __init__(self):
        self.baseline = resident_mib()
        self.calls = {}

    def release(self, _request):
        self.calls = {}
        gc.collect()
        return {}

    def prepare(self, request):
        self.release(request)
        tensors, params = place.take(load_file(request["inputs"])), request["params"]
        check, call = KINDS[request["kind"]](tensors, params)
        self.calls["pytorch"] = call
        if params.get("onnx") and onnxruntime and place.device.type == "cpu":
            self.calls["onnxruntime"], run = onnx_tagger.prepare(tensors, torch.get_num_threads())
            name, expected = next(iter(check().items()))
            difference = abs(run() - expected.numpy()).max()
            if not difference <= 1e-3 * expected.abs().max():
                raise ValueError(f"ONNX Runtime and PyTorch differ in {name} by up to {difference}")
        outputs = {name: tensor.detach().float().cpu().contiguous() for name, tensor in check().items()}
        save_file(outputs, request["outputs"])
        gc.collect()
        return {}

    def run(self, request):
        call, calls = self.calls[request["side"]], request["calls"]
        if calls > 1:  # The first call after a pause wakes threads and caches.
            call()
        gc.disable()
        place.synchronize()
        start = time.perf_counter()
        for _ in range(calls):
            call()
        place.synchronize()
        seconds = time.perf_counter() - start
        gc.enable()
        return {"ms": 1e3 * seconds / calls}

    def memory(self, _request):
        return {"mib": peak_mib() - self.baseline}


def main():
    torch.set_num_threads(int(os.environ["OMP_NUM_THREADS"]))
    torch.manual_seed(0)
    versions = {
        "python": sys.version.split()[0],
        "torch": torch.__version__,
        "gpu": torch.cuda.get_device_name(0) if place.device.type == "cuda" else None,
        "numpy": numpy.__version__,
        "onnxruntime": onnxruntime.__version__ if onnxruntime else None,
    }
    print(json.dumps(versions), file=answers)
    worker = Worker()
    for line in sys.stdin:
        request = json.loads(line)
        try:
            answer = getattr(worker, request["do"])(request)
        except Exception as error:
            traceback.print_exc()
            answer = {"error": f"{type(error).__name__}: {error}"}
        print(json.dumps(answer), file=answers)


main()
