//! A network from JSON with a block that this crate does not have: `Gate`, which lets a part of each value through.
//!
//! ```sh
//! cargo run --release -p kd-students --example own_block
//! ```
//!
//! prints the layers with their shapes and parameters, and what the network says of two sentences.

use std::ops::RangeInclusive;

use candle_core::{DType, Device};
use candle_nn::VarBuilder;
use kd_core::batch::{Rows, Tokens, pad};
use kd_core::model::{Mode, Student};
use kd_core::nn::Linear;
use kd_core::variables::Variables;
use kd_students::blocks::{Block, BlockConfig, Kind, Shape, Site, Value};
use kd_students::plan::{Branch, Inputs, Plan, Target};

/// The `conf` of the block: `y = strength · x · σ(W x + b)`, of any shape.
#[derive(Debug, serde::Deserialize)]
#[serde(deny_unknown_fields)]
struct GateConfig {
    strength: f64,
}

impl BlockConfig for GateConfig {
    fn arity(&self) -> RangeInclusive<usize> {
        1..=1
    }

    fn infer(&self, inputs: &[Shape], _: &Site) -> Result<Shape, String> {
        inputs[0].width()?; // an error where it is not known
        Ok(inputs[0].clone())
    }

    fn build(&self, inputs: &[Shape], _: &Site, vb: VarBuilder<'_>) -> kd_students::Result<Box<dyn Block>> {
        let width = inputs[0].width().map_err(candle_core::Error::msg)?;
        Ok(Box::new(Gate { linear: Linear::new(width, width, vb)?, strength: self.strength }))
    }
}

#[derive(Debug)]
struct Gate {
    linear: Linear,
    strength: f64,
}

impl Block for Gate {
    fn forward(&self, inputs: &[Value], _: Mode) -> candle_core::Result<Value> {
        let gate = candle_nn::ops::sigmoid(&self.linear.forward(&inputs[0].tensor)?)?;
        Ok(inputs[0].with(((&inputs[0].tensor * gate)? * self.strength)?)) // with the padding of the input
    }
}

fn main() -> Result<(), Box<dyn std::error::Error>> {
    let architecture = serde_json::json!([
        {"layer": "Embedding", "conf": {"word": {"cols": ["text"], "dim": 8}}},
        {"layer_id": "states", "layer": "BiLSTM", "conf": {"hidden_dim": 4}, "inputs": ["sentence"]},
        {"layer_id": "gate", "layer": "Gate", "conf": {"strength": 2.0}, "inputs": ["states"]},
        {"layer_id": "pooled", "layer": "Pooling", "inputs": ["gate"]},
        {"layer_id": "out", "layer": "Linear", "conf": {"hidden_dim": -1, "activation": null}, "inputs": ["pooled"],
         "output_layer_flag": true},
    ]);
    let inputs = Inputs {
        branches: vec![Branch { name: "sentence".into(), columns: vec!["text".into()], length: None }],
        targets: vec![Target { name: "label".into(), classes: Some(2) }],
        ..Inputs::default()
    };
    let plan = Plan::parse(&architecture, &inputs, &[Kind::of::<GateConfig>("Gate")])?;
    let rows = [("word".to_string(), 100)].into();
    let parameters = plan.parameters(&rows)?;
    for layer in plan.layers() {
        println!("{:<8} {:<8} {:<16} {:>6}", layer.id, layer.block, layer.shape.to_string(), parameters[&layer.id]);
    }
    let variables = Variables::new(1, DType::F32, &Device::Cpu);
    let network = plan.build(&rows, variables.builder())?;
    let first = pad(&[vec![5, 17, 99], vec![42]], &Device::Cpu)?;
    let tokens = Tokens { first, second: None, more: Vec::new(), rows: Rows::Examples };
    println!("logits {:?}", network.forward(&tokens, Mode::Eval)?.logits()?.to_vec2::<f32>()?);
    Ok(())
}
