//! What transformers calls the variables of the encoders that are shaped as BERT.

use crate::config::Family;

/// The parts of a layer, below the layer's own name.
#[derive(Debug, Clone, Copy)]
pub(super) struct LayerNames {
    pub(super) query: &'static str,
    pub(super) key: &'static str,
    pub(super) value: &'static str,
    pub(super) output: &'static str,
    pub(super) attention_norm: &'static str,
    pub(super) inner: &'static str,
    pub(super) outer: &'static str,
    pub(super) norm: &'static str,
}

const BERT: LayerNames = LayerNames {
    query: "attention.self.query",
    key: "attention.self.key",
    value: "attention.self.value",
    output: "attention.output.dense",
    attention_norm: "attention.output.LayerNorm",
    inner: "intermediate.dense",
    outer: "output.dense",
    norm: "output.LayerNorm",
};

const DISTILBERT: LayerNames = LayerNames {
    query: "attention.q_lin",
    key: "attention.k_lin",
    value: "attention.v_lin",
    output: "attention.out_lin",
    attention_norm: "sa_layer_norm",
    inner: "ffn.lin1",
    outer: "ffn.lin2",
    norm: "output_layer_norm",
};

/// Of the only layer of a group.
const ALBERT: LayerNames = LayerNames {
    query: "albert_layers.0.attention.query",
    key: "albert_layers.0.attention.key",
    value: "albert_layers.0.attention.value",
    output: "albert_layers.0.attention.dense",
    attention_norm: "albert_layers.0.attention.LayerNorm",
    inner: "albert_layers.0.ffn",
    outer: "albert_layers.0.ffn_output",
    norm: "albert_layers.0.full_layer_layer_norm",
};

/// The names of a family's layers.
pub(super) fn layer(family: Family) -> LayerNames {
    match family {
        Family::DistilBert => DISTILBERT,
        Family::Albert => ALBERT,
        _ => BERT,
    }
}

/// The linear map from the embeddings' width to the hidden states', in the families that have one.
pub(super) fn projection(family: Family) -> Option<&'static str> {
    match family {
        Family::Albert => Some("encoder.embedding_hidden_mapping_in"),
        Family::Electra => Some("embeddings_project"),
        _ => None,
    }
}
