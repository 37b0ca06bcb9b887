//! BERT encoders: forward passes, training steps and their memory.

use std::rc::Rc;

use candle_core::{DType, Device, Result, Tensor};
use candle_nn::VarBuilder;
use kd_core::batch::{Rows, Sequence, Tokens};
use kd_core::losses::cross_entropy;
use kd_core::model::{Mode, Student};
use kd_core::ops;
use kd_core::ops::packed::Precision;
use kd_core::optim::{AdamW, AdamWConfig, Optimizer};
use kd_core::variables::Variables;
use kd_teachers::config::EncoderConfig;
use kd_teachers::encoder::Encoder;
use kd_teachers::heads::{HeadOptions, TokenTagger};
use serde_json::{Value, json};

use crate::table::inputs::{builder, frozen, ids, named, with_weights};
use crate::table::place::Place;
use crate::table::row::{Row, Tensors, Unit, Work};

/// Tags of CoNLL-2003.
pub(super) const CLASSES: usize = 9;
const LEN: usize = 128;

pub(super) fn rows() -> Vec<Row> {
    let (base, small, short) = (shape(12, 768), shape(6, 384), shape(3, 768));
    let mut rows = Vec::new();
    for (config, target) in [(&base, Some(0.85)), (&small, None), (&short, None)] {
        rows.extend([1, 8, 32].map(|batch| forward(config, batch, Precision::F32).target(target)));
    }
    for (precision, target) in [(Precision::Int8, Some(1.0)), (Precision::Bf16, None)] {
        rows.extend([1, 8, 32].map(|batch| forward(&base, batch, precision).target(target)));
    }
    rows.push(training("BERT-3", &short, 32, 64));
    rows.push(training("BERT-3", &short, 32, 128).target(0.8));
    rows.push(training("MiniLM-L6", &small, 32, 128).target(0.8));
    let memory = training("BERT-3", &short, 32, 128);
    let memory = Row { name: format!("peak memory, {}", memory.name), unit: Unit::Mebibytes, ..memory };
    rows.push(Row { flop: None, ..memory.target(0.8) }.without_cuda());
    rows
}

/// Twelve heads, as in BERT-base and in MiniLM-L6, and an inner layer four times as wide.
pub(super) fn shape(layers: usize, hidden: usize) -> EncoderConfig {
    EncoderConfig { layers, hidden, intermediate: 4 * hidden, ..EncoderConfig::bert_base() }
}

/// The arguments of `pytorch/models.py`'s `Encoder`.
pub(super) fn torch_config(config: &EncoderConfig) -> Value {
    json!({
        "vocabulary": config.vocabulary, "hidden": config.hidden, "layers": config.layers, "heads": config.heads,
        "intermediate": config.intermediate, "positions": config.max_positions, "segments": config.segments,
        "eps": config.layer_norm_eps, "dropout": config.hidden_dropout,
    })
}

/// Operations of the forward pass's products: four projections and attention's two products, and the two of the inner layer.
fn flop(config: &EncoderConfig, batch: usize, len: usize) -> f64 {
    let weights = 4 * config.hidden * config.hidden + 2 * config.hidden * config.intermediate;
    2.0 * (config.layers * batch * len) as f64 * (weights + 2 * len * config.hidden) as f64
}

fn sequence(config: &EncoderConfig, batch: usize, len: usize, device: &Device) -> Result<Sequence> {
    Ok(Sequence {
        ids: ids(1, (batch, len), config.vocabulary as u64)?.to_device(device)?,
        mask: Tensor::ones((batch, len), DType::U8, device)?,
        segments: None,
        chars: None,
        features: Vec::new(),
    })
}

/// A packed encoder, its forward pass, and what PyTorch needs for the same.
pub(super) fn encoder_work(
    config: &EncoderConfig,
    batch: usize,
    len: usize,
    precision: Precision,
    place: &Place,
) -> Result<Work> {
    let variables = Variables::new(0, DType::F32, &Device::Cpu);
    Encoder::new(config, variables.builder())?;
    let weights = frozen(&variables)?;
    if !place.is_cpu() {
        let on_device = VarBuilder::from_tensors(place.take_all(&weights)?, place.dtype(), &place.device);
        let encoder = Encoder::new(config, on_device)?;
        let sequence = sequence(config, batch, len, &place.device)?;
        let inputs = with_weights(weights, [("ids", &sequence.ids)]);
        return Ok(Work::new(inputs, move || Ok(named([("hidden", &encoder.forward(&sequence, Mode::Eval)?)]))));
    }
    let encoder = Encoder::new(config, builder(&weights))?.pack(precision)?;
    let sequence = sequence(config, batch, len, &place.device)?;
    let inputs = with_weights(weights, [("ids", &sequence.ids)]);
    Ok(Work::new(inputs, move || Ok(named([("hidden", &encoder.forward(&sequence, Mode::Eval)?)]))))
}

/// In int8 and bf16 both sides round, each in its own way; outputs are compared with each other and so only roughly.
fn forward(config: &EncoderConfig, batch: usize, precision: Precision) -> Row {
    let (suffix, tolerance) = match precision {
        Precision::F32 => ("", 1e-3),
        Precision::Bf16 => (", bf16", 0.05),
        Precision::Int8 => (", int8", 0.25),
    };
    let name = format!("encoder {}x{} forward{suffix}, batch {batch}x{LEN}", config.layers, config.hidden);
    let params = json!({"config": torch_config(config), "precision": format!("{precision:?}")});
    let (config, flop) = (config.clone(), flop(config, batch, LEN));
    let row = Row::new(name, "encoder", params, move |place| encoder_work(&config, batch, LEN, precision, place));
    Row { tolerance, flop: Some(flop), on_cuda: precision == Precision::F32, ..row }
}

/// Forward with dropout 0.1, cross-entropy over the tags of all tokens, backward and AdamW.
fn training(name: &str, config: &EncoderConfig, batch: usize, len: usize) -> Row {
    let checked = [
        "embeddings.LayerNorm.weight".to_string(),
        "encoder.layer.0.attention.self.query.weight".to_string(),
        format!("encoder.layer.{}.output.dense.bias", config.layers - 1),
        "classifier.weight".to_string(),
    ];
    let optimizer = AdamWConfig::with_lr(5e-5);
    let mut torch = torch_config(config);
    torch["classes"] = json!(CLASSES);
    let params = json!({"config": torch, "lr": optimizer.lr, "weight_decay": optimizer.weight_decay, "check": checked});
    let (config, flop) = (config.clone(), flop(config, batch, len));
    let work = move |place: &Place| {
        let device = &place.device;
        let variables = Variables::new(0, DType::F32, device);
        let classes: Vec<String> = (0..CLASSES).map(|class| class.to_string()).collect();
        let options = HeadOptions { compute: place.compute(), ..HeadOptions::default() };
        let model = TokenTagger::new(&config, &classes, &variables, &options);
        let model = model.map_err(candle_core::Error::wrap)?;
        let index = Tensor::arange(0, (batch * len) as u32, device)?;
        let rows = Rows::Words { index, per_example: vec![len; batch] };
        let tokens = Tokens { first: sequence(&config, batch, len, device)?, second: None, more: Vec::new(), rows };
        let labels = ids(2, batch * len, CLASSES as u64)?.to_device(device)?;
        let more = named([("ids", &tokens.first.ids), ("labels", &labels)]);
        training_work(model, variables, tokens, labels, more, &checked, optimizer)
    };
    let row = Row::new(format!("{name} training step, batch {batch}x{len}"), "encoder_training", params, work);
    // Backwards there are two products for each of the forward pass.
    Row { tolerance: 1e-3, flop: Some(3.0 * flop), ..row }
}

/// Loss and some gradients without dropout to compare; a whole training step to time.
pub(super) fn training_work(
    model: impl Student + 'static,
    variables: Variables,
    tokens: Tokens,
    labels: Tensor,
    more: Tensors,
    checked: &[String],
    optimizer: AdamWConfig,
) -> Result<Work> {
    let mut inputs = with_weights(variables.tensors(), []);
    inputs.extend(more);
    let mut optimizer = AdamW::new(variables.named(), optimizer).map_err(candle_core::Error::wrap)?;
    let loss = Rc::new(move |mode| cross_entropy(model.forward(&tokens, mode)?.logits()?, &labels));
    let (loss_of, checked) = (Rc::clone(&loss), checked.to_vec());
    let check = move || {
        let loss = loss_of(Mode::Eval)?;
        let gradients = ops::backward(&loss)?;
        let mut outputs = named([("loss", &loss)]);
        for (name, variable) in variables.named().into_iter().filter(|(name, _)| checked.contains(name)) {
            let Some(gradient) = gradients.get(variable.as_tensor()) else {
                candle_core::bail!("`{name}` gets no gradient")
            };
            outputs.insert(format!("d_{name}"), gradient.clone());
        }
        Ok(outputs)
    };
    let mut seed = 0;
    let call = move || {
        seed += 1;
        let gradients = ops::backward(&loss(Mode::Train { seed })?)?;
        optimizer.step(&gradients, 1.0, 1.0)
    };
    Ok(Work { inputs, check: Box::new(check), call: Box::new(call) })
}
