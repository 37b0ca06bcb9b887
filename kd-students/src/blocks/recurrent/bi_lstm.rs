//! `BiLSTM` and `BiLSTMLast`.

use std::ops::RangeInclusive;

use candle_core::{Result, Tensor};
use candle_nn::VarBuilder;
use kd_core::model::Mode;
use kd_core::nn::BiLstm;
use kd_core::ops;
use serde::Deserialize;

use super::super::{Block, BlockConfig, Shape, Site, Value};
use super::{check, last_states};

/// Layers of a bidirectional LSTM, `(batch, len, input)` → `(batch, len, 2 · hidden_dim)`; the left-to-right states first, 0 on
/// padding.
///
/// Variables `layers.N.*` are those of a [`BiLstm`] of one layer each.
#[derive(Debug, Clone, PartialEq, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct BiLstmConfig {
    /// Width of the states of each direction, ≥ 1; 128 as in the format.
    pub hidden_dim: usize,
    /// Probability of dropping a value between two layers, in `[0, 1)`; 0 as in the format.
    pub dropout: f64,
    /// Layers, ≥ 1; 1 as in the format.
    pub num_layers: usize,
}

impl Default for BiLstmConfig {
    fn default() -> Self {
        Self { hidden_dim: 128, dropout: 0.0, num_layers: 1 }
    }
}

/// The layers of an LSTM with dropout between them.
#[derive(Debug)]
pub(super) struct Stack {
    layers: Vec<BiLstm>,
    dropout: f64,
}

impl Stack {
    pub(super) fn new(config: &BiLstmConfig, input: usize, vb: VarBuilder<'_>) -> Result<Self> {
        let layer = |idx: usize| {
            let input = if idx == 0 { input } else { 2 * config.hidden_dim };
            BiLstm::new(input, config.hidden_dim, 1, vb.pp(format!("layers.{idx}")))
        };
        Ok(Self { layers: (0..config.num_layers).map(layer).collect::<Result<_>>()?, dropout: config.dropout })
    }

    pub(super) fn forward(&self, xs: &Tensor, lengths: &[usize], mode: Mode) -> Result<Tensor> {
        let mut states = xs.clone();
        for (layer, site) in self.layers.iter().zip(0..) {
            if site > 0 {
                states = ops::dropout(&states, self.dropout, mode.site(site))?;
            }
            states = layer.forward(&states, lengths)?;
        }
        Ok(states)
    }
}

impl BiLstmConfig {
    pub(super) fn check(&self, input: &Shape) -> std::result::Result<usize, String> {
        check(input, self.hidden_dim, self.num_layers, self.dropout)
    }
}

impl BlockConfig for BiLstmConfig {
    fn arity(&self) -> RangeInclusive<usize> {
        1..=1
    }

    fn infer(&self, inputs: &[Shape], _: &Site) -> std::result::Result<Shape, String> {
        self.check(&inputs[0])?;
        Ok(inputs[0].with_width(2 * self.hidden_dim))
    }

    fn build(&self, inputs: &[Shape], _: &Site, vb: VarBuilder<'_>) -> crate::Result<Box<dyn Block>> {
        let input = inputs[0].width().map_err(candle_core::Error::msg)?;
        Ok(Box::new(States(Stack::new(self, input, vb)?)))
    }
}

#[derive(Debug)]
struct States(Stack);

impl Block for States {
    fn forward(&self, inputs: &[Value], mode: Mode) -> Result<Value> {
        Ok(inputs[0].with_last(self.0.forward(&inputs[0].vectors()?, &inputs[0].lengths()?, mode)?))
    }
}

/// The states of the last layer at the ends of a [`BiLstmConfig`]'s runs, `(batch, len, input)` → `(batch, 2 · hidden_dim)`: the
/// left-to-right state of the last token and the other of the first.
///
/// The published code takes the *first* layer's where there are several.
#[derive(Debug, Clone, PartialEq, Default, Deserialize)]
#[serde(transparent)]
pub struct BiLstmLastConfig(pub BiLstmConfig);

impl BlockConfig for BiLstmLastConfig {
    fn arity(&self) -> RangeInclusive<usize> {
        1..=1
    }

    fn infer(&self, inputs: &[Shape], _: &Site) -> std::result::Result<Shape, String> {
        self.0.check(&inputs[0])?;
        Ok(Shape::vector(2 * self.0.hidden_dim))
    }

    fn build(&self, inputs: &[Shape], _: &Site, vb: VarBuilder<'_>) -> crate::Result<Box<dyn Block>> {
        let input = inputs[0].width().map_err(candle_core::Error::msg)?;
        Ok(Box::new(Last(Stack::new(&self.0, input, vb)?)))
    }
}

#[derive(Debug)]
struct Last(Stack);

impl Block for Last {
    fn forward(&self, inputs: &[Value], mode: Mode) -> Result<Value> {
        let lengths = inputs[0].lengths()?;
        Ok(Value::new(last_states(&self.0.forward(&inputs[0].vectors()?, &lengths, mode)?, &lengths)?))
    }
}
