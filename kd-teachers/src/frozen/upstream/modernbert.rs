//! ModernBERT (Warner et al. 2024).

use candle_core::Tensor;
use candle_transformers::models::modernbert::{Config, ModernBert};
use kd_core::nn::{LayerNorm, Linear};
use serde_json::{Value, json};

use super::Encoder;
use super::head::{Activation, Head, Task, linear};
use super::source::Source;
use crate::error::{Error, Result};

pub(super) fn encoder(source: &Source) -> Result<Encoder> {
    source.only("hidden_activation", &[json!("gelu")])?;
    // That model looks for no bias, and takes a missing norm before the attention for one that is not to be there.
    for option in ["attention_bias", "mlp_bias", "norm_bias"] {
        source.only(option, &[json!(false)])?;
    }
    let layers = source.size("num_hidden_layers")?;
    let config = Config {
        vocab_size: source.size("vocab_size")?,
        hidden_size: source.size("hidden_size")?,
        num_hidden_layers: layers,
        num_attention_heads: source.size("num_attention_heads")?,
        intermediate_size: source.size("intermediate_size")?,
        max_position_embeddings: source.size("max_position_embeddings")?,
        layer_norm_eps: number(source, source.config.get("norm_eps"), "norm_eps", 1e-5)?,
        pad_token_id: 0, // not used
        global_attn_every_n_layers: global_every(source, layers)?,
        global_rope_theta: theta(source, "full_attention", "global_rope_theta", 160_000.0)?,
        local_attention: source.size("local_attention")?,
        local_rope_theta: theta(source, "sliding_attention", "local_rope_theta", 10_000.0)?,
        classifier_config: None,
    };
    for layer in 1..layers {
        let name = format!("model.layers.{layer}.attn_norm.weight");
        if !source.names().any(|found| found == name) {
            let message = format!("`{name}`: expected a tensor, found none");
            return Err(Error::Checkpoint { files: source.config_path.display().to_string(), message });
        }
    }
    let max_len = config.max_position_embeddings;
    let model = ModernBert::load(source.builder(), &config)?;
    Ok(Box::new(move |sequence| {
        let len = sequence.ids.dim(1)?;
        if len > max_len {
            candle_core::bail!("expected at most {max_len} tokens, the model's positions, found {len}");
        }
        model.forward(&sequence.ids, &sequence.mask)
    }))
}

pub(super) fn head(source: &Source) -> Result<Head> {
    source.only("classifier_activation", &[json!("gelu")])?;
    source.only("classifier_pooling", &[json!("cls"), json!("mean")])?;
    let (hidden, vb) = (source.size("hidden_size")?, source.builder());
    let dense_vb = vb.pp("head.dense");
    let bias = source.config.get("classifier_bias").and_then(Value::as_bool).unwrap_or(false);
    let bias = if bias { Some(dense_vb.get(hidden, "bias")?) } else { None };
    let dense = Linear::from_tensors(dense_vb.get((hidden, hidden), "weight")?, bias);
    let weight = vb.get(hidden, "head.norm.weight")?;
    let zero: Tensor = weight.zeros_like()?;
    let eps = number(source, source.config.get("norm_eps"), "norm_eps", 1e-5)?;
    let mean = source.config.get("classifier_pooling").and_then(Value::as_str) == Some("mean");
    Ok(Head {
        mean: mean && source.task == Task::Sequence,
        dense: Some((dense, Activation::Gelu)),
        norm: Some(LayerNorm::from_tensors(weight, zero, eps)),
        classifier: linear(hidden, source.classes.len(), vb.pp("classifier"))?,
    })
}

/// Every how many layers one sees the whole sequence: a number in older files, one entry per layer in newer ones.
fn global_every(source: &Source, layers: usize) -> Result<usize> {
    let Some(types) = source.config.get("layer_types").filter(|types| !types.is_null()) else {
        return match source.config.get("global_attn_every_n_layers") {
            None => Ok(3),
            Some(_) => source.size("global_attn_every_n_layers").map(|every| every.max(1)),
        };
    };
    let global: Vec<bool> =
        types.as_array().into_iter().flatten().map(|kind| kind.as_str() == Some("full_attention")).collect();
    let every = (1..layers).find(|&layer| global.get(layer) == Some(&true)).unwrap_or(layers.max(1));
    let expected: Vec<bool> = (0..layers).map(|layer| layer % every == 0).collect();
    if global == expected {
        return Ok(every);
    }
    Err(source
        .wrong(format!("`layer_types`: expected `full_attention` every so many layers from the first, found {types}")))
}

fn theta(source: &Source, kind: &str, older: &'static str, default: f64) -> Result<f64> {
    let parameters = source.config.get("rope_parameters").map(|parameters| &parameters[kind]);
    match parameters.filter(|parameters| !parameters.is_null()) {
        Some(parameters) => match parameters["rope_type"].as_str() {
            None | Some("default") => number(source, parameters.get("rope_theta"), "rope_theta", default),
            Some(other) => Err(source.wrong(format!("`rope_type`: expected `default`, found `{other}`"))),
        },
        None => number(source, source.config.get(older), older, default),
    }
}

fn number(source: &Source, value: Option<&Value>, key: &str, default: f64) -> Result<f64> {
    match value {
        None | Some(Value::Null) => Ok(default),
        Some(value) => value.as_f64().ok_or_else(|| source.wrong(format!("`{key}`: expected a number, found {value}"))),
    }
}
