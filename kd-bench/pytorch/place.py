"""Where and in what PyTorch computes: `--device cpu|cuda` and `--arithmetic f32|tf32|bf16`, as `kd-bench table` has them."""

import argparse
import contextlib

import torch

parser = argparse.ArgumentParser()
parser.add_argument("--device", choices=["cpu", "cuda"], required=True)
parser.add_argument("--arithmetic", choices=["f32", "tf32", "bf16"], required=True)
options = parser.parse_args()
device, is_bf16 = torch.device(options.device), options.arithmetic == "bf16"
torch.backends.cuda.matmul.allow_tf32 = torch.backends.cudnn.allow_tf32 = options.arithmetic == "tf32"


def take(tensors):
    """The tensors on the device."""
    return {name: tensor.to(device) for name, tensor in tensors.items()}


def narrow(tensors):
    """The same with floats in the dtype that operations get."""
    cast = lambda tensor: tensor.bfloat16() if is_bf16 and tensor.is_floating_point() else tensor
    return {name: cast(tensor) for name, tensor in tensors.items()}


def autocast():
    """For training with f32 weights."""
    return torch.autocast(device.type, torch.bfloat16) if is_bf16 else contextlib.nullcontext()


def synchronize():
    if device.type == "cuda":
        torch.cuda.synchronize()
