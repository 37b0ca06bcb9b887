"""The models of the table as plain PyTorch modules, with the variable names of ours."""

import torch
import torch.nn.functional as F
from torch import nn

import place


def weights_of(tensors):
    """Takes what stands under `weights.` out of `tensors`."""
    names = [name for name in tensors if name.startswith("weights.")]
    return {name.removeprefix("weights."): tensors.pop(name) for name in names}


class Layer(nn.Module):
    def __init__(self, hidden, heads, intermediate, eps, dropout):
        super().__init__()
        self.heads, self.p = heads, dropout
        self.query, self.key, self.value, self.output = (nn.Linear(hidden, hidden) for _ in range(4))
        self.inner, self.outer = nn.Linear(hidden, intermediate), nn.Linear(intermediate, hidden)
        self.attention_norm, self.norm = nn.LayerNorm(hidden, eps), nn.LayerNorm(hidden, eps)
        self.dropout = nn.Dropout(dropout)

    def forward(self, x):
        batch, length, hidden = x.shape
        split = lambda y: y.view(batch, length, self.heads, hidden // self.heads).transpose(1, 2)
        mixed = F.scaled_dot_product_attention(
            split(self.query(x)), split(self.key(x)), split(self.value(x)), dropout_p=self.p if self.training else 0.0
        )
        mixed = self.output(mixed.transpose(1, 2).reshape(batch, length, hidden))
        x = self.attention_norm(self.dropout(mixed) + x)
        return self.norm(self.dropout(self.outer(F.gelu(self.inner(x)))) + x)


class Encoder(nn.Module):
    """BERT without a pooler: (batch, len) ids to (batch, len, hidden); no padding."""

    def __init__(self, vocabulary, hidden, layers, heads, intermediate, positions, segments, eps, dropout, classes=None):
        super().__init__()
        self.words, self.positions = nn.Embedding(vocabulary, hidden), nn.Embedding(positions, hidden)
        self.segments = nn.Embedding(segments, hidden)
        self.norm, self.dropout = nn.LayerNorm(hidden, eps), nn.Dropout(dropout)
        self.layers = nn.ModuleList(Layer(hidden, heads, intermediate, eps, dropout) for _ in range(layers))
        self.classifier = nn.Linear(hidden, classes) if classes else None

    def forward(self, ids):
        x = self.words(ids) + (self.positions.weight[: ids.shape[1]] + self.segments.weight[0])
        x = self.dropout(self.norm(x))
        for layer in self.layers:
            x = layer(x)
        return x if self.classifier is None else self.classifier(self.dropout(x)).flatten(0, 1)


def local(name):
    """Our name of a variable of an encoder (transformers') to the one of `Encoder`."""
    for theirs, ours in (
        ("embeddings.word_embeddings", "words"),
        ("embeddings.position_embeddings", "positions"),
        ("embeddings.token_type_embeddings", "segments"),
        ("embeddings.LayerNorm", "norm"),
        ("encoder.layer.", "layers."),
        ("attention.self.", ""),
        ("attention.output.dense", "output"),
        ("attention.output.LayerNorm", "attention_norm"),
        ("intermediate.dense", "inner"),
        ("output.dense", "outer"),
        ("output.LayerNorm", "norm"),
    ):
        name = name.replace(theirs, ours)
    return name


def encoder(tensors, config):
    model = Encoder(**config).to(place.device)
    model.load_state_dict({local(name): tensor for name, tensor in weights_of(tensors).items()})
    return model


def prepare_encoder(tensors, params):
    model, ids = encoder(tensors, params["config"]).eval(), tensors["ids"]
    precision = params.get("precision", "F32")
    if precision == "Int8":
        model = torch.ao.quantization.quantize_dynamic(model, {nn.Linear}, torch.qint8)
    elif precision == "Bf16" or place.is_bf16:
        model = model.to(torch.bfloat16)

    def call():
        with torch.inference_mode():
            return model(ids)

    return lambda: {"hidden": call().float()}, call


def prepare_training(model, inputs, labels, params, name_of):
    """Loss and some gradients without dropout to compare; a whole training step with dropout to time."""
    named = dict(model.named_parameters())
    # As ours: no decay of biases and norms.
    groups = [
        {"params": [p for p in named.values() if p.dim() >= 2], "weight_decay": params["weight_decay"]},
        {"params": [p for p in named.values() if p.dim() < 2], "weight_decay": 0.0},
    ]
    optimizer = torch.optim.AdamW(groups, lr=params["lr"], fused=True)

    def forward_backward():
        optimizer.zero_grad(set_to_none=True)
        with place.autocast():
            loss = F.cross_entropy(model(*inputs), labels)
        loss.backward()
        return loss

    def check():
        model.eval()
        # cuDNN has no backward of an LSTM in evaluation mode.
        with torch.backends.cudnn.flags(enabled=False):
            outputs = {"loss": forward_backward()}
        outputs.update({f"d_{name}": named[name_of(name)].grad.clone() for name in params["check"]})
        model.train()
        return outputs

    def call():
        forward_backward()
        optimizer.step()

    return check, call


def prepare_encoder_training(tensors, params):
    model = encoder(tensors, params["config"])
    return prepare_training(model, [tensors["ids"]], tensors["labels"], params, local)


class Characters(nn.Module):
    def __init__(self, table, conv):
        super().__init__()
        self.embedding = nn.Embedding(table[0], table[1], padding_idx=0)
        self.conv = nn.Conv1d(conv[1], conv[0], conv[2], padding=conv[2] // 2)

    def forward(self, chars):
        batch, length, _ = chars.shape
        chars = chars.flatten(0, 1)
        features = self.conv(self.embedding(chars).transpose(1, 2))  # (words, filters, chars)
        return features.masked_fill((chars == 0).unsqueeze(1), 0.0).amax(2).relu().view(batch, length, -1)


class Words(nn.Module):
    def __init__(self, shapes):
        super().__init__()
        self.words = nn.Embedding(*shapes["encoder.words.weight"])
        self.characters = Characters(
            shapes["encoder.characters.embedding.weight"], shapes["encoder.characters.conv.weight"]
        )
        (gates, width), hidden = shapes["encoder.lstm.weight_ih_l0"], shapes["encoder.lstm.weight_hh_l0"][1]
        layers = sum(name.startswith("encoder.lstm.weight_ih") for name in shapes) // 2
        assert gates == 4 * hidden
        self.lstm = nn.LSTM(width, hidden, layers, batch_first=True, bidirectional=True)


class Tagger(nn.Module):
    """Word embedding and char-CNN, BiLSTM, linear: (batch, len) words and (batch, len, chars) to (rows, classes)."""

    def __init__(self, shapes, dropout):
        super().__init__()
        self.encoder = Words(shapes)
        self.out = nn.Linear(*reversed(shapes["out.weight"]))
        self.dropout = nn.Dropout(dropout)

    def forward(self, words, chars):
        x = torch.cat([self.encoder.words(words), self.encoder.characters(chars)], dim=2)
        x, _ = self.encoder.lstm(self.dropout(x))
        return self.out(self.dropout(x)).flatten(0, 1)


def tagger(weights, dropout=0.0):
    model = Tagger({name: tuple(tensor.shape) for name, tensor in weights.items()}, dropout).to(place.device)
    model.load_state_dict(weights)
    return model


def prepare_tagger(tensors, _params):
    weights = {name.removeprefix("weights."): value for name, value in tensors.items() if name.startswith("weights.")}
    model = tagger(weights).eval()

    def call():
        with torch.inference_mode():
            return model(tensors["words"], tensors["chars"])

    return lambda: {"logits": call()}, call


def prepare_tagger_training(tensors, params):
    model = tagger(weights_of(tensors), params["dropout"])
    inputs = [tensors["words"], tensors["chars"]]
    return prepare_training(model, inputs, tensors["labels"], params, lambda name: name)
