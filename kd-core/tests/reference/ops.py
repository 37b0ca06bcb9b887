"""Writes ops.json: PyTorch's values and gradients of the operations in kd_core::ops, in float64.

Run with: python ops.py > ops.json
Made with torch 2.15 on one thread. Each case has inputs, an output, and the gradient of sum(output * weights) for
each differentiable input. Extreme rows are part of the cases. The string "-inf" stands for that value.
"""

import json

import torch

torch.set_num_threads(1)
torch.set_default_dtype(torch.float64)
generator = torch.Generator().manual_seed(20)


def random(*shape, scale=1.0):
    # Five digits keep the file small; the values are exact for PyTorch and for the reader.
    return (torch.randn(*shape, generator=generator) * scale * 1e4).round() / 1e4


def pack(tensor):
    values = ["-inf" if v == float("-inf") else v for v in tensor.detach().flatten().tolist()]
    return {"shape": list(tensor.shape), "values": values}


def case(op, inputs, compute, **extra):
    inputs = {name: value.clone().requires_grad_() for name, value in inputs.items()}
    output = compute(**inputs)
    weights = random(*output.shape)
    # A masked value times its weight is no number; such outputs stay out of the loss.
    finite = torch.isfinite(output)
    torch.where(finite, output * weights, torch.zeros_like(output)).sum().backward()
    return {
        "op": op,
        "inputs": {name: pack(value) for name, value in inputs.items()},
        "weights": pack(torch.where(finite, weights, torch.zeros_like(weights))),
        "output": pack(output),
        "gradients": {name: pack(value.grad) for name, value in inputs.items()},
        **extra,
    }


def attention(heads, mask):
    def compute(q, k, v):
        batch, length, hidden = q.shape
        split = lambda x: x.view(batch, length, heads, hidden // heads).transpose(1, 2)
        keys = mask.bool()[:, None, None, :].expand(batch, heads, length, length)
        y = torch.nn.functional.scaled_dot_product_attention(split(q), split(k), split(v), attn_mask=keys)
        return y.transpose(1, 2).reshape(batch, length, hidden)

    return compute


functional = torch.nn.functional
cases = []

for bias in (False, True):
    inputs = {"x": random(2, 3, 5), "weight": random(4, 5)}
    if bias:
        inputs["bias"] = random(4)
    cases.append(case("linear", inputs, lambda x, weight, bias=None: functional.linear(x, weight, bias)))

x = random(4, 19)
x[1] = 3.0 * x[1] + 1000.0  # a mean far from zero
x[2] *= 1e-4  # a variance below eps
x[3] = 2.5  # no variance
cases.append(
    case(
        "layer_norm",
        {"x": x, "gamma": random(19), "beta": random(19)},
        lambda x, gamma, beta: functional.layer_norm(x, (19,), gamma, beta, 1e-5),
        eps=1e-5,
    )
)

logits = random(5, 18, scale=3.0)
logits[1] *= 300.0  # one class takes all
logits[2] = 7.0  # all equal
logits[3, :9] = float("-inf")  # masked classes
logits[4] -= 1e4
cases.append(case("softmax", {"x": logits}, lambda x: functional.softmax(x, -1)))
finite = logits.clone()
finite[3, :9] = -1e30
cases.append(case("log_softmax", {"x": finite}, lambda x: functional.log_softmax(x, -1)))

points = torch.cat([torch.linspace(-8, 8, 33), torch.tensor([-1e4, -40.0, -1e-8, 0.0, 1e-8, 40.0, 1e4])])
cases.append(case("gelu", {"x": points}, functional.gelu))

ids = torch.tensor([[3, 0, 3], [6, 3, 1]])
cases.append(
    case("embedding", {"table": random(7, 4)}, lambda table: functional.embedding(ids, table), ids=pack(ids))
)

mask = torch.tensor([[1, 1, 1, 1, 1], [1, 1, 1, 0, 0], [1, 0, 0, 0, 0]])
for heads, scale in ((1, 1.0), (2, 1.0), (4, 20.0)):
    inputs = {"q": random(3, 5, 8, scale=scale), "k": random(3, 5, 8), "v": random(3, 5, 8)}
    cases.append(case("attention", inputs, attention(heads, mask), heads=heads, mask=pack(mask)))

scores = random(3, 2, 4, 5, scale=3.0)
scores[0, 0] *= 300.0  # one key takes all
scores[1, 1] = 7.0  # all equal
keys = mask.bool()[:, None, None, :]
cases.append(
    case(
        "masked_softmax",
        {"scores": scores},
        lambda scores: functional.softmax((0.3 * scores).masked_fill(~keys, -torch.inf), -1),
        mask=pack(mask),
        scale=0.3,
    )
)

cases.append(
    case(
        "layer_norm_residual",
        {"x": x, "residual": random(4, 19), "gamma": random(19), "beta": random(19)},
        lambda x, residual, gamma, beta: functional.layer_norm(x + residual, (19,), gamma, beta, 1e-5),
        eps=1e-5,
    )
)

for activation in (functional.gelu, torch.tanh, torch.relu):
    cases.append(
        case(
            "linear_activation",
            {"x": random(2, 3, 5, scale=2.0), "weight": random(4, 5), "bias": random(4)},
            lambda x, weight, bias: activation(functional.linear(x, weight, bias)),
            activation=activation.__name__,
        )
    )

# torch.nn's own layer, with the weights of query, key and value in one tensor as it has them.
layer = torch.nn.TransformerEncoderLayer(8, 2, 12, dropout=0.0, activation="gelu", layer_norm_eps=1e-5, batch_first=True)
shapes = {name: parameter.shape for name, parameter in layer.named_parameters()}
inputs = {"x": random(3, 5, 8), **{name: random(*shape, scale=0.5) for name, shape in shapes.items()}}


def encoder_layer(x, **parameters):
    y = torch.func.functional_call(layer, parameters, (x,), {"src_key_padding_mask": ~mask.bool()})
    return y * mask[:, :, None]  # padding means nothing


layer.train()  # the fast path of evaluation has no gradient
rename = str.maketrans(".", "_")
named = {name.translate(rename): name for name in inputs}
cases.append(
    case(
        "encoder_layer",
        {name: inputs[key] for name, key in named.items()},
        lambda **inputs: encoder_layer(**{named[name]: value for name, value in inputs.items()}),
        mask=pack(mask),
    )
)


def gelu_tanh(x):
    return functional.gelu(x, approximate="tanh")


cases.append(
    case(
        "linear_activation",
        {"x": random(2, 3, 5, scale=2.0), "weight": random(4, 5), "bias": random(4)},
        lambda x, weight, bias: gelu_tanh(functional.linear(x, weight, bias)),
        activation="gelu_tanh",
    )
)
layer.activation = gelu_tanh
cases.append(
    case(
        "encoder_layer",
        {name: inputs[key] for name, key in named.items()},
        lambda **inputs: encoder_layer(**{named[name]: value for name, value in inputs.items()}),
        mask=pack(mask),
        activation="gelu_tanh",
    )
)

print(json.dumps(cases))
