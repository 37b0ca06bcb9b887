//! `BiLSTMAtt`: an LSTM whose states look at one another.

use std::ops::RangeInclusive;

use candle_core::{Result, Tensor};
use candle_nn::{Init, VarBuilder};
use kd_core::model::Mode;
use kd_core::ops;
use serde::Deserialize;

use super::super::{Block, BlockConfig, Shape, Site, Value, mask_or_ones};
use super::bi_lstm::{BiLstmConfig, Stack};

/// `softmax(H W Hᵀ) H` over the states `H` of a [`BiLstmConfig`], `(batch, len, input)` → `(batch, len, 2 · hidden_dim)`.
///
/// | variable | shape | start |
/// |---|---|---|
/// | `layers.N.*` | of the LSTM | |
/// | `attention` (W) | `(2 · hidden_dim, 2 · hidden_dim)` | uniform in `[0, 1)`, as published |
///
/// Padding gets no attention. The published code excludes scores that are exactly 0, which is the same where a mask says what
/// padding is, for states are 0 there.
#[derive(Debug, Clone, PartialEq, Default, Deserialize)]
#[serde(transparent)]
pub struct BiLstmAttConfig(pub BiLstmConfig);

impl BlockConfig for BiLstmAttConfig {
    fn arity(&self) -> RangeInclusive<usize> {
        1..=1
    }

    fn infer(&self, inputs: &[Shape], site: &Site) -> std::result::Result<Shape, String> {
        self.0.infer(inputs, site)
    }

    fn build(&self, inputs: &[Shape], _: &Site, vb: VarBuilder<'_>) -> crate::Result<Box<dyn Block>> {
        let (input, width) = (inputs[0].width().map_err(candle_core::Error::msg)?, 2 * self.0.hidden_dim);
        let weight = vb.get_with_hints((width, width), "attention", Init::Uniform { lo: 0.0, up: 1.0 })?;
        Ok(Box::new(BiLstmAtt { states: Stack::new(&self.0, input, vb)?, weight }))
    }
}

#[derive(Debug)]
struct BiLstmAtt {
    states: Stack,
    weight: Tensor,
}

impl Block for BiLstmAtt {
    fn forward(&self, inputs: &[Value], mode: Mode) -> Result<Value> {
        let input = &inputs[0];
        let states = self.states.forward(&input.vectors()?, &input.lengths()?, mode)?; // (batch, len, width)
        let (batch, len, _) = states.dims3()?;
        let mask = mask_or_ones(input.mask.as_ref(), batch, len, &states)?;
        let scores = ops::linear(&states, &self.weight.t()?.contiguous()?, None)?.matmul(&states.t()?.contiguous()?)?;
        let probs = ops::masked_softmax(&scores, 1.0, &mask, 0.0, Mode::Eval)?; // (batch, len, len)
        Ok(input.with_last(probs.matmul(&states)?))
    }
}
