"""Single operations, by the name that the row gives. Sizes are those of the inputs."""

import torch
import torch.nn.functional as F

import place

HEADS = 12
TEMPERATURE = 2.0


def attention(t):
    batch, length, hidden = t["q"].shape
    split = lambda x: x.view(batch, length, HEADS, hidden // HEADS).transpose(1, 2)
    mixed = F.scaled_dot_product_attention(split(t["q"]), split(t["k"]), split(t["v"]))
    return mixed.transpose(1, 2).reshape(batch, length, hidden)


def knowledge_distillation(t):
    student, teacher = t["student"], t["teacher"]
    kl = F.kl_div(
        F.log_softmax(student / TEMPERATURE, dim=-1),
        F.log_softmax(teacher / TEMPERATURE, dim=-1),
        reduction="batchmean",
        log_target=True,
    )
    return 0.5 * F.cross_entropy(student, t["labels"]) + 0.5 * TEMPERATURE**2 * kl


def char_cnn(t):
    """Every word fills its row, so no padding has to be kept from the maximum."""
    words = F.embedding(t["chars"].flatten(0, 1), t["table"], padding_idx=0).transpose(1, 2)
    features = F.conv1d(words, t["weight"], t["bias"], padding=t["weight"].shape[2] // 2)
    return features.amax(2).relu().view(*t["chars"].shape[:2], -1)


def lstm(t):
    """What `nn.LSTM(bidirectional=True, batch_first=True)` calls, without the Python around it."""
    names = [f"{kind}{suffix}" for suffix in ("", "_reverse") for kind in ("weight_ih", "weight_hh", "bias_ih", "bias_hh")]
    weights = [t[name] for name in names]
    start = t["x"].new_zeros(2, t["x"].shape[0], weights[1].shape[1])
    training = torch.is_grad_enabled()
    return torch._VF.lstm(t["x"], (start, start), weights, True, 1, 0.0, training, True, True)[0]


def cudnn_lstm(t):
    """On a GPU the weights have to lie one behind the other, as `nn.LSTM` has them, or they are copied at every call."""
    (gates, width), hidden = t["weight_ih"].shape, t["weight_hh"].shape[1]
    module = torch.nn.LSTM(width, hidden, batch_first=True, bidirectional=True).to(t["x"])
    for name, parameter in module.named_parameters():
        kind = name.replace("_l0", "")
        parameter.data.copy_(t[kind])
        t[kind] = parameter
    module.flatten_parameters()
    return lambda t: module(t["x"])[0]


def crf(t):
    """Log-partition by the forward recursion over all sentences at once."""
    classes = t["transitions"].shape[1]
    between, start, end = t["transitions"][:classes], t["transitions"][classes], t["transitions"][classes + 1]
    emissions = t["emissions"].view(32, 40, classes)
    alpha = start + emissions[:, 0]
    for step in range(1, emissions.shape[1]):
        alpha = torch.logsumexp(alpha.unsqueeze(2) + between, dim=1) + emissions[:, step]
    return torch.logsumexp(alpha + end, dim=1)


OPS = {
    "layer_norm": lambda t: F.layer_norm(t["x"], t["gamma"].shape, t["gamma"], t["beta"], 1e-12),
    "softmax": lambda t: F.softmax(t["x"], dim=-1),
    "gelu": lambda t: F.gelu(t["x"]),
    "dropout": lambda t: F.dropout(t["x"], 0.1, training=True),
    "product": lambda t: F.linear(t["x"], t["weight"]),
    "linear": lambda t: F.linear(t["x"], t["weight"], t["bias"]),
    "attention": attention,
    "embedding": lambda t: F.embedding(t["ids"], t["table"]),
    "cross_entropy": lambda t: F.cross_entropy(t["logits"], t["labels"]),
    "knowledge_distillation": knowledge_distillation,
    "char_cnn": char_cnn,
    "lstm": lstm,
    "crf": crf,
}


def prepare(tensors, params):
    """The operation alone, or with the gradients of `leaves` for a given gradient of the output."""
    op, leaves = OPS[params["op"]], params["leaves"]
    tensors = place.narrow(tensors)
    gradient = tensors.pop("gradient", None)
    if params["op"] == "lstm" and place.device.type == "cuda":
        op = cudnn_lstm(tensors)
    for name in leaves:
        tensors[name].requires_grad_()

    def forward():
        with torch.inference_mode():
            return [op(tensors)]

    def forward_backward():
        return torch.autograd.grad(op(tensors), [tensors[name] for name in leaves], gradient)

    call = forward_backward if leaves else forward
    names = [f"d_{name}" for name in leaves] if leaves else ["y"]

    def check():
        outputs = dict(zip(names, call()))
        if params["of_chance"]:
            reference = tensors["x"] if gradient is None else gradient
            share = lambda value: (value * reference).mean() / (reference * reference).mean()
            outputs = {name: share(value.detach()) for name, value in outputs.items()}
        return outputs

    return check, call


def prepare_adamw(tensors, params):
    count = len(tensors) // 2
    weights = [torch.nn.Parameter(tensors[f"w{idx}"]) for idx in range(count)]
    for idx, weight in enumerate(weights):
        weight.grad = tensors[f"g{idx}"]
    optimizer = torch.optim.AdamW(weights, lr=params["lr"], weight_decay=params["weight_decay"], fused=True)

    def check():
        optimizer.step()
        return {f"w{idx}": weights[idx] for idx in (0, count - 1)}

    return check, optimizer.step
