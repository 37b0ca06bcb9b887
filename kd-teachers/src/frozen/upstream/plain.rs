//! BERT, RoBERTa and XLM-RoBERTa.

use candle_core::Tensor;
use candle_transformers::models::{bert, xlm_roberta};
use serde_json::json;

use super::head::{Activation, Head, Task, linear};
use super::source::Source;
use super::{Encoder, segments};
use crate::error::Result;

pub(super) fn bert(source: &Source) -> Result<Encoder> {
    source.only("position_embedding_type", &[json!("absolute")])?;
    let config: bert::Config = source.parse(source.config.clone())?;
    // The prefix is given here, so the model is to look for none.
    let config = bert::Config { model_type: None, ..config };
    let model = bert::BertModel::load(source.builder().pp("bert"), &config)?;
    Ok(Box::new(move |sequence| model.forward(&sequence.ids, &segments(sequence)?, Some(&sequence.mask))))
}

pub(super) fn bert_head(source: &Source) -> Result<Head> {
    let (hidden, vb) = (source.size("hidden_size")?, source.builder());
    let classifier = linear(hidden, source.classes.len(), vb.pp("classifier"))?;
    let dense = match source.task {
        Task::Token => return Ok(Head::linear(classifier)),
        Task::Sequence => linear(hidden, hidden, vb.pp("bert.pooler.dense"))?,
    };
    Ok(Head { dense: Some((dense, Activation::Tanh)), ..Head::linear(classifier) })
}

pub(super) fn roberta(source: &Source) -> Result<Encoder> {
    source.only("position_embedding_type", &[json!("absolute")])?;
    source.only("is_decoder", &[json!(false)])?;
    let mut config = source.config.clone();
    // Newer files do not say it; that crate does not look at it.
    config.insert("position_embedding_type".to_string(), json!("absolute"));
    let config: xlm_roberta::Config = source.parse(config)?;
    let several_segments = config.type_vocab_size > 1;
    let model = xlm_roberta::XLMRobertaModel::new(&config, source.builder().pp("roberta"))?;
    Ok(Box::new(move |sequence| {
        let segments: Tensor = if several_segments { segments(sequence)? } else { sequence.ids.zeros_like()? };
        model.forward(&sequence.ids, &sequence.mask, &segments, None, None, None)
    }))
}

pub(super) fn roberta_head(source: &Source) -> Result<Head> {
    let (hidden, classes, vb) = (source.size("hidden_size")?, source.classes.len(), source.builder().pp("classifier"));
    match source.task {
        Task::Token => Ok(Head::linear(linear(hidden, classes, vb)?)),
        Task::Sequence => {
            let dense = linear(hidden, hidden, vb.pp("dense"))?;
            let classifier = linear(hidden, classes, vb.pp("out_proj"))?;
            Ok(Head { dense: Some((dense, Activation::Tanh)), ..Head::linear(classifier) })
        }
    }
}
