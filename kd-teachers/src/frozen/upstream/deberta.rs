//! DeBERTa-v2 and v3 (He et al. 2021, He et al. 2023), `model_type` `deberta-v2`.

use candle_transformers::models::debertav2::{Config, DebertaV2Model};
use serde_json::{Value, json};

use super::Encoder;
use super::head::{Activation, Head, Task, linear};
use super::segments;
use super::source::Source;
use crate::error::Result;

pub(super) fn encoder(source: &Source) -> Result<Encoder> {
    let hidden = source.size("hidden_size")?;
    source.only("conv_kernel_size", &[json!(0)])?;
    // That crate adds positions to one example only, and fails on a batch.
    source.only("position_biased_input", &[json!(false)])?;
    source.only("embedding_size", &[json!(hidden)])?;
    source.only("norm_rel_ebd", &[json!("none"), json!("layer_norm")])?;
    if let Some(heads) = source.config.get("num_attention_heads").and_then(Value::as_u64).filter(|&heads| heads > 0) {
        source.only("attention_head_size", &[json!(hidden as u64 / heads)])?;
    }
    let mut config = source.config.clone();
    if config.get("pos_att_type").is_none_or(Value::is_null) {
        config.insert("pos_att_type".to_string(), json!([]));
    }
    // The pooler is put on here, and that crate does not know every function it may have.
    config.remove("pooler_hidden_act");
    let config: Config = source.parse(config)?;
    if let Some(other) = config.pos_att_type.iter().find(|kind| !["c2p", "p2c"].contains(&kind.as_str())) {
        return Err(source.wrong(format!("`pos_att_type`: expected `c2p` and `p2c`, found `{other}`")));
    }
    let model = DebertaV2Model::load(source.builder().pp("deberta"), &config)?;
    Ok(Box::new(move |sequence| model.forward(&sequence.ids, Some(segments(sequence)?), Some(sequence.mask.clone()))))
}

pub(super) fn head(source: &Source) -> Result<Head> {
    let (hidden, vb) = (source.size("hidden_size")?, source.builder());
    let classifier = linear(hidden, source.classes.len(), vb.pp("classifier"))?;
    if source.task == Task::Token {
        return Ok(Head::linear(classifier));
    }
    source.only("pooler_hidden_size", &[json!(hidden)])?;
    source.only("pooler_hidden_act", &[json!("gelu"), json!("relu"), json!("tanh")])?;
    let activation = match source.config.get("pooler_hidden_act").and_then(Value::as_str) {
        Some("relu") => Activation::Relu,
        Some("tanh") => Activation::Tanh,
        _ => Activation::Gelu,
    };
    let dense = linear(hidden, hidden, vb.pp("pooler.dense"))?;
    Ok(Head { dense: Some((dense, activation)), ..Head::linear(classifier) })
}
