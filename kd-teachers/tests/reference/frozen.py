"""Makes tiny random checkpoints with heads for the frozen models, and what transformers says of them.

    python frozen.py          # transformers 5, torch 2; writes frozen/*/ and frozen.json

The weights are random; nothing is derived from a published model. A DeBERTa sequence is longer than half its position buckets,
a ModernBERT sequence longer than its window, so that each formula's second branch counts.
"""

import json
import shutil
from pathlib import Path

import torch
import transformers as hf

here = Path(__file__).parent
torch.set_num_threads(1)
torch.manual_seed(2)
VOCABULARY, LENGTHS = 60, [20, 9, 1]

small = dict(vocab_size=VOCABULARY, hidden_size=16, num_hidden_layers=2, num_attention_heads=2, intermediate_size=24)
classes = ["no", "perhaps", "yes"]
names = dict(id2label=dict(enumerate(classes)), label2id={name: idx for idx, name in enumerate(classes)})
bert = dict(small, max_position_embeddings=24, type_vocab_size=2, **names)
roberta = dict(small, max_position_embeddings=24, type_vocab_size=1, pad_token_id=1, **names)
deberta = dict(small, max_position_embeddings=24, type_vocab_size=0, relative_attention=True, position_biased_input=False,
               pos_att_type=["p2c", "c2p"], **names)
v3 = dict(deberta, position_buckets=8, max_relative_positions=-1, share_att_key=True, norm_rel_ebd="layer_norm")
modern = dict(small, max_position_embeddings=32, local_attention=6, pad_token_id=0, cls_token_id=2, sep_token_id=3,
              bos_token_id=2, eos_token_id=3, **names)
modern["num_hidden_layers"] = 4

MODELS = {
    "bert-sequence": hf.BertForSequenceClassification(hf.BertConfig(**bert)),
    "bert-token": hf.BertForTokenClassification(hf.BertConfig(**bert)),
    "roberta-sequence": hf.RobertaForSequenceClassification(hf.RobertaConfig(**roberta)),
    "xlm-roberta-token": hf.XLMRobertaForTokenClassification(hf.XLMRobertaConfig(**roberta)),
    "deberta-v3-sequence": hf.DebertaV2ForSequenceClassification(hf.DebertaV2Config(**v3)),
    "deberta-v3-token": hf.DebertaV2ForTokenClassification(hf.DebertaV2Config(**v3)),
    "deberta-v2-sequence": hf.DebertaV2ForSequenceClassification(hf.DebertaV2Config(**dict(
        deberta, type_vocab_size=2, max_relative_positions=6, pooler_hidden_act="tanh"))),
    "modernbert-sequence": hf.ModernBertForSequenceClassification(hf.ModernBertConfig(**modern)),
    "modernbert-mean": hf.ModernBertForSequenceClassification(hf.ModernBertConfig(
        **modern, classifier_pooling="mean", global_rope_theta=1000.0, local_rope_theta=50.0)),
    "modernbert-token": hf.ModernBertForTokenClassification(hf.ModernBertConfig(**modern)),
}


def randomise(model):
    """Larger than the usual start, so that no part of the forward pass hides behind a small number."""
    for name, parameter in model.named_parameters():
        with torch.no_grad():
            mean = 1.0 if "norm" in name.lower() and name.endswith("weight") else 0.0
            parameter.normal_(mean, 0.25)


width = max(LENGTHS)
mask = (torch.arange(width)[None] < torch.tensor(LENGTHS)[:, None]).long()
ids = torch.randint(4, VOCABULARY, (len(LENGTHS), width)) * mask
segments = (torch.arange(width)[None] >= torch.tensor([[7], [4], [1]])).long() * mask
words = [1, 2, 5, 19, 21, 28, 40]  # positions in the flattened batch


def rounded(tensor):
    return [float(f"{value:.7g}") for value in tensor.detach().flatten().tolist()]


reference = {"ids": ids.tolist(), "lengths": LENGTHS, "segments": segments.tolist(), "words": words, "classes": classes, "logits": {}}
shutil.rmtree(here / "frozen", ignore_errors=True)
for name, model in MODELS.items():
    randomise(model)
    model.eval()
    if hasattr(model, "set_attn_implementation"):
        model.set_attn_implementation("eager")
    model.save_pretrained(here / "frozen" / name)
    # RoBERTa takes its positions from what is padding by id; ours is padded with 0 and the mask says where.
    padding = getattr(model.config, "pad_token_id", 0) or 0
    inputs = torch.where(mask.bool(), ids, torch.tensor(padding))
    extra = {"token_type_ids": segments} if name.startswith(("bert", "deberta-v2")) else {}
    with torch.no_grad():
        logits = model(inputs, attention_mask=mask, **extra).logits
    reference["logits"][name] = rounded(logits.reshape(-1, 3)[words] if name.endswith("token") else logits)
(here / "frozen.json").write_text(json.dumps(reference, separators=(",", ":")) + "\n")
