//! `BiQRNN`: quasi-recurrent layers.

use std::ops::RangeInclusive;

use candle_core::{Result, Tensor};
use candle_nn::VarBuilder;
use candle_nn::ops::sigmoid;
use kd_core::model::Mode;
use kd_core::nn::Linear;
use kd_core::ops;
use serde::Deserialize;

use super::super::dropout::check_probability;
use super::super::{Block, BlockConfig, Shape, Site, Value, replace_padding};
use super::check;

/// Layers of a bidirectional quasi-recurrent network with "fo-pooling" (Bradbury et al. 2017, Eq. 5), `(batch, len, input)` →
/// `(batch, len, 2 · hidden_dim)`; the left-to-right states first.
///
/// ```text
/// z, f, o = W [x_t; x_{t-1}] + b        c_t = σ(f) · tanh(z) + (1 - σ(f)) · c_{t-1}        h_t = σ(o) · c_t
/// ```
///
/// with `x_{t-1}` only if `window` is 2; the other direction runs from the last token to the first. Zoneout keeps a unit's old
/// cell in training with probability `zoneout`, and scales `σ(f)` by `1 - zoneout` otherwise. Variables `layers.N.*` are those of
/// a linear layer to `3 · hidden_dim`, the directions of the first layer being 0 and 1, of the next 2 and 3.
///
/// Padding is not read; the published code begins the second direction in it.
#[derive(Debug, Clone, PartialEq, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct BiQrnnConfig {
    /// Width of the states of each direction, ≥ 1; 128 as in the format.
    pub hidden_dim: usize,
    /// Tokens that a state sees, 1 or 2; 1 as in the format.
    pub window: usize,
    /// Probability that a unit keeps its old cell, in `[0, 1)`; 0 as in the format.
    pub zoneout: f64,
    /// Probability of dropping a value between two layers, in `[0, 1)`; 0 as in the format.
    pub dropout: f64,
    /// Layers, ≥ 1; 1 as in the format.
    pub num_layers: usize,
}

impl Default for BiQrnnConfig {
    fn default() -> Self {
        Self { hidden_dim: 128, window: 1, zoneout: 0.0, dropout: 0.0, num_layers: 1 }
    }
}

impl BlockConfig for BiQrnnConfig {
    fn arity(&self) -> RangeInclusive<usize> {
        1..=1
    }

    fn infer(&self, inputs: &[Shape], _: &Site) -> std::result::Result<Shape, String> {
        check(&inputs[0], self.hidden_dim, self.num_layers, self.dropout)?;
        check_probability("zoneout", self.zoneout)?;
        if !(1..=2).contains(&self.window) {
            return Err(format!("window: expected 1 or 2, found {}", self.window));
        }
        Ok(inputs[0].with_width(2 * self.hidden_dim))
    }

    fn build(&self, inputs: &[Shape], site: &Site, vb: VarBuilder<'_>) -> crate::Result<Box<dyn Block>> {
        let input = inputs[0].width().map_err(candle_core::Error::msg)?;
        let layer = |idx: usize| {
            let input = if idx < 2 { input } else { 2 * self.hidden_dim };
            Linear::new(self.window * input, 3 * self.hidden_dim, vb.pp(format!("layers.{idx}")))
        };
        let layers = (0..2 * self.num_layers).map(layer).collect::<Result<_>>()?;
        Ok(Box::new(BiQrnn { config: self.clone(), layers, legacy_padding: site.legacy_padding }))
    }
}

#[derive(Debug)]
struct BiQrnn {
    config: BiQrnnConfig,
    layers: Vec<Linear>,
    legacy_padding: bool,
}

impl Block for BiQrnn {
    fn forward(&self, inputs: &[Value], mode: Mode) -> Result<Value> {
        let mask = if self.legacy_padding { None } else { inputs[0].mask.as_ref() };
        let mut xs = inputs[0].vectors()?;
        for (layer, directions) in self.layers.chunks(2).enumerate() {
            let site = mode.site(layer as u64);
            if layer > 0 {
                xs = ops::dropout(&xs, self.config.dropout, site)?;
            }
            if let Some(mask) = mask {
                xs = replace_padding(&xs, mask, 1, 0.0)?;
            }
            let run = |idx: usize| self.run(&directions[idx], &xs, mask, idx == 1, site.site(idx as u64));
            xs = Tensor::cat(&[run(0)?, run(1)?], 2)?;
        }
        Ok(inputs[0].with_last(xs))
    }
}

impl BiQrnn {
    fn run(
        &self,
        linear: &Linear,
        xs: &Tensor,
        mask: Option<&Tensor>,
        is_reversed: bool,
        mode: Mode,
    ) -> Result<Tensor> {
        let (batch, len, width) = xs.dims3()?;
        let source = if self.config.window == 1 {
            xs.clone()
        } else {
            let zeros = Tensor::zeros((batch, 1, width), xs.dtype(), xs.device())?;
            let before = match is_reversed {
                false => Tensor::cat(&[&zeros, &xs.narrow(1, 0, len - 1)?], 1)?,
                true => Tensor::cat(&[&xs.narrow(1, 1, len - 1)?, &zeros], 1)?,
            };
            Tensor::cat(&[xs, &before], 2)?
        };
        let hidden = self.config.hidden_dim;
        let gates = linear.forward(&source)?; // (batch, len, 3 · hidden)
        let gate = |idx: usize| gates.narrow(2, idx * hidden, hidden)?.contiguous();
        let (candidate, mut forget, output) = (gate(0)?.tanh()?, sigmoid(&gate(1)?)?, sigmoid(&gate(2)?)?);
        let kept = 1.0 - self.config.zoneout;
        forget = match mode {
            // A dropout that does not scale up what it keeps.
            Mode::Train { .. } if self.config.zoneout > 0.0 => {
                (ops::dropout(&forget, self.config.zoneout, mode)? * kept)?
            }
            _ => (forget * kept)?,
        };
        if let Some(mask) = mask {
            forget = replace_padding(&forget, mask, 1, 0.0)?; // cells stay as they are
        }
        let by_time = |tensor: &Tensor| tensor.transpose(0, 1)?.contiguous();
        let (added, left) = (by_time(&(&forget * &candidate)?)?, by_time(&(1.0 - &forget)?)?);
        let mut cell = Tensor::zeros((batch, hidden), xs.dtype(), xs.device())?;
        let mut cells = Vec::with_capacity(len);
        for step in 0..len {
            let at = if is_reversed { len - 1 - step } else { step };
            cell = (added.get(at)? + (left.get(at)? * cell)?)?;
            cells.push(cell.clone());
        }
        if is_reversed {
            cells.reverse();
        }
        let states = (output * Tensor::stack(&cells, 1)?)?;
        mask.map_or(Ok(states.clone()), |mask| replace_padding(&states, mask, 1, 0.0))
    }
}
