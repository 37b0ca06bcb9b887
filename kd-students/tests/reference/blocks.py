"""Writes blocks.json: PyTorch's values of the blocks that it has, and of the formulas of those that it has not, in f64.

Run with Python 3 and torch: python blocks.py > blocks.json

Maps and texts have their channels last, as the blocks have; masks are 1 on tokens and 0 on padding.
"""

import json
import math

import torch
import torch.nn.functional as F
from torch import nn

torch.set_num_threads(1)
torch.set_default_dtype(torch.float64)
torch.manual_seed(11)

CASES = {}


def array(t):
    return {"shape": list(t.shape), "data": t.detach().to(torch.float64).flatten().tolist()}


def case(name, inputs, y, **parameters):
    CASES[name] = {"inputs": {key: array(t) for key, t in inputs.items()}, "parameters": parameters, "outputs": {"y": array(y)}}


def mask(rows, lengths, longest):
    return (torch.arange(longest)[None, :] < torch.tensor(lengths)[:, None]).double()


# Convolution over texts: filters (channels, window, width), PyTorch's (channels, width, window).
for name, window, stride, padding in [("conv1d", 3, 1, 0), ("conv1d_stride_2_padding_1", 2, 2, 1), ("conv1d_same", 3, 1, "same")]:
    x, weight = torch.randn(2, 6, 3), torch.randn(4, window, 3)
    y = F.conv1d(x.transpose(1, 2), weight.transpose(1, 2), stride=stride, padding=padding).transpose(1, 2)
    case(name, {"x": x, "weight": weight}, y, window=window, stride=stride, padding=0 if padding == "same" else padding)

# Convolution and pooling over maps.
for name in ["conv2d", "conv2d_batch_norm"]:
    x, weight, bias = torch.randn(2, 5, 6, 2), torch.randn(3, 3, 2, 2), torch.randn(3)
    inputs = {"x": x, "weight": weight, "bias": bias}
    y = F.conv2d(x.permute(0, 3, 1, 2), weight.permute(0, 3, 1, 2), bias, stride=(1, 2), padding=(1, 0))
    if name.endswith("norm"):
        norm = nn.BatchNorm2d(3).eval()
        for key in ("weight", "bias", "running_mean", "running_var"):
            value = torch.rand(3) + 0.5
            getattr(norm, key).data.copy_(value)
            inputs[f"batch_norm.{key}"] = value
        y = norm(y)
    case(name, inputs, y.relu().permute(0, 2, 3, 1), window=[3, 2], stride=[1, 2], padding=[1, 0])

for name, pool in [("max_pool2d", F.max_pool2d), ("avg_pool2d", F.avg_pool2d)]:
    x = torch.randn(2, 5, 6, 2)
    y = pool(x.permute(0, 3, 1, 2), (3, 2), stride=(2, 1), padding=(1, 0)).permute(0, 2, 3, 1)
    case(name, {"x": x}, y, window=[3, 2], stride=[2, 1], padding=[1, 0])


# Attention between texts.
def attend(scores, keys, values):
    return F.softmax(scores.masked_fill(keys[:, None, :] == 0, -math.inf), -1) @ values


x, z, keys = torch.randn(2, 3, 4), torch.randn(2, 5, 4), mask(2, [5, 2], 5)
reference = F.scaled_dot_product_attention(x, z, z, attn_mask=keys[:, None, :].bool(), scale=1.0)
case("attention", {"x": x, "z": z, "mask": keys}, reference)
linear = nn.Linear(4, 4)
f = lambda t: F.relu(linear(t))
case(
    "match_attention",
    {"x": x, "z": z, "mask": keys, "weight": linear.weight, "bias": linear.bias},
    F.scaled_dot_product_attention(f(x), f(z), z, attn_mask=keys[:, None, :].bool(), scale=1.0),
)

# The trilinear scores, pair by pair.
rows, weight = mask(2, [2, 3], 3), torch.randn(1, 12)
pairs = [[[torch.cat([z[b, j], x[b, i], x[b, i] * z[b, j]]) for j in range(5)] for i in range(3)] for b in range(2)]
scores = torch.stack([torch.stack([torch.stack(row) for row in example]) for example in pairs]) @ weight[0]
of_second = attend(scores, keys, z)
largest = scores.masked_fill(keys[:, None, :] == 0, -math.inf).max(-1).values
probs = F.softmax(largest.masked_fill(rows == 0, -math.inf), -1)
inputs = {"x": x, "z": z, "mask": rows, "second_mask": keys, "weight": weight}
case("seq2seq_attention", inputs, torch.cat([probs[..., None] * x, of_second], -1) * rows[..., None])
of_first = (probs[:, None, :] @ x).expand_as(x)
case("bi_att_flow", inputs, torch.cat([x, of_second, x * of_second, x * of_first], -1) * rows[..., None])

# Self-attention of several heads: PyTorch's module, its causal mask and its padding mask.
x, keys = torch.randn(2, 4, 6), mask(2, [4, 2], 4)
module = nn.MultiheadAttention(6, 3, batch_first=True).eval()
module.in_proj_bias.data.normal_()
module.out_proj.bias.data.normal_()
weights = {
    "c_attn.weight": module.in_proj_weight,
    "c_attn.bias": module.in_proj_bias,
    "c_proj.weight": module.out_proj.weight,
    "c_proj.bias": module.out_proj.bias,
}
for name, causal in [("multi_head_attention", False), ("multi_head_attention_causal", True)]:
    later = torch.triu(torch.ones(4, 4), 1).bool() if causal else None
    y, _ = module(x, x, x, key_padding_mask=keys == 0, attn_mask=later, need_weights=False)
    case(name, {"x": x, "mask": keys, **weights}, y * keys[..., None], heads=3)

inner, output = nn.Linear(6, 24), nn.Linear(24, 6)
weights = {"c_fc.weight": inner.weight, "c_fc.bias": inner.bias, "c_proj.weight": output.weight, "c_proj.bias": output.bias}
case("mlp", {"x": x, **weights}, output(F.gelu(inner(x), approximate="tanh")))

# Distances: largest, cosine, sum, Euclid's.
x, z = torch.randn(5, 4), torch.randn(5, 4)
columns = [torch.cdist(x, z, p).diagonal() for p in (math.inf, 1.0, 2.0)]
case("distance", {"x": x, "z": z}, torch.stack([columns[0], F.cosine_similarity(x, z), columns[1], columns[2]], -1))

# A layer of post-norm attention and feed-forward: PyTorch's, with the activation of GPT.
x, keys = torch.randn(2, 4, 6), mask(2, [4, 2], 4)
gelu = lambda x: F.gelu(x, approximate="tanh")
module = nn.TransformerEncoderLayer(6, 3, dim_feedforward=24, dropout=0.0, activation=gelu, batch_first=True)
for parameter in module.parameters():
    parameter.data.add_(torch.randn_like(parameter) * 0.3)
weights = {
    "0.attention.c_attn.weight": module.self_attn.in_proj_weight,
    "0.attention.c_attn.bias": module.self_attn.in_proj_bias,
    "0.attention.c_proj.weight": module.self_attn.out_proj.weight,
    "0.attention.c_proj.bias": module.self_attn.out_proj.bias,
    "0.layernorm_1.weight": module.norm1.weight,
    "0.layernorm_1.bias": module.norm1.bias,
    "0.mlp.c_fc.weight": module.linear1.weight,
    "0.mlp.c_fc.bias": module.linear1.bias,
    "0.mlp.c_proj.weight": module.linear2.weight,
    "0.mlp.c_proj.bias": module.linear2.bias,
    "0.layernorm_2.weight": module.norm2.weight,
    "0.layernorm_2.bias": module.norm2.bias,
}
y = module(x, src_key_padding_mask=keys == 0) * keys[..., None]
case("transformer", {"x": x, "mask": keys, **weights}, y, heads=3)

print(json.dumps(CASES))
