//! `BiGRU` and `BiGRULast`.

use std::ops::RangeInclusive;

use candle_core::{Result, Tensor};
use candle_nn::ops::sigmoid;
use candle_nn::{Init, VarBuilder};
use kd_core::model::Mode;
use kd_core::ops;
use serde::Deserialize;

use super::super::{Block, BlockConfig, Shape, Site, Value, mask_or_ones};
use super::{check, last_states};

/// One bidirectional layer of gated recurrent units (Cho et al. 2014, §2.3) in PyTorch's form, `(batch, len, input)` → `(batch,
/// len, 2 · hidden_dim)`; the left-to-right states first, 0 on padding.
///
/// ```text
/// r, z = σ(W_i x_t + b_i + W_h h_{t-1} + b_h)        n = tanh(W_in x_t + b_in + r · (W_hn h_{t-1} + b_hn))
/// h_t = (1 - z) · n + z · h_{t-1}
/// ```
///
/// Variables `weight_ih_l0` `(3 · hidden, input)`, `weight_hh_l0` `(3 · hidden, hidden)`, `bias_ih_l0`, `bias_hh_l0`
/// `(3 · hidden,)`, and the same with `_reverse`, gates in the order r, z, n; uniform in `±1/√hidden`.
///
/// There is no dropout: the format's works between layers, of which there is one.
#[derive(Debug, Clone, PartialEq, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct BiGruConfig {
    /// Width of the states of each direction, ≥ 1; 128 as in the format.
    pub hidden_dim: usize,
}

impl Default for BiGruConfig {
    fn default() -> Self {
        Self { hidden_dim: 128 }
    }
}

/// `dropout` is read and without effect on one layer; `num_layers` was never read.
const IGNORED: &[&str] = &["dropout", "num_layers"];

impl BlockConfig for BiGruConfig {
    fn ignored() -> &'static [&'static str] {
        IGNORED
    }

    fn arity(&self) -> RangeInclusive<usize> {
        1..=1
    }

    fn infer(&self, inputs: &[Shape], _: &Site) -> std::result::Result<Shape, String> {
        check(&inputs[0], self.hidden_dim, 1, 0.0)?;
        Ok(inputs[0].with_width(2 * self.hidden_dim))
    }

    fn build(&self, inputs: &[Shape], _: &Site, vb: VarBuilder<'_>) -> crate::Result<Box<dyn Block>> {
        Ok(Box::new(States(Gru::new(self, inputs, &vb)?)))
    }
}

/// The states of a [`BiGruConfig`] at the ends of its runs, `(batch, len, input)` → `(batch, 2 · hidden_dim)`: the left-to-right
/// state of the last token and the other of the first.
#[derive(Debug, Clone, PartialEq, Default, Deserialize)]
#[serde(transparent)]
pub struct BiGruLastConfig(pub BiGruConfig);

impl BlockConfig for BiGruLastConfig {
    fn ignored() -> &'static [&'static str] {
        IGNORED
    }

    fn arity(&self) -> RangeInclusive<usize> {
        1..=1
    }

    fn infer(&self, inputs: &[Shape], _: &Site) -> std::result::Result<Shape, String> {
        check(&inputs[0], self.0.hidden_dim, 1, 0.0)?;
        Ok(Shape::vector(2 * self.0.hidden_dim))
    }

    fn build(&self, inputs: &[Shape], _: &Site, vb: VarBuilder<'_>) -> crate::Result<Box<dyn Block>> {
        Ok(Box::new(Last(Gru::new(&self.0, inputs, &vb)?)))
    }
}

#[derive(Debug)]
struct Direction {
    weight_ih: Tensor,
    weight_hh: Tensor,
    bias_ih: Tensor,
    bias_hh: Tensor,
}

#[derive(Debug)]
struct Gru {
    directions: [Direction; 2],
    hidden: usize,
}

impl Gru {
    fn new(config: &BiGruConfig, inputs: &[Shape], vb: &VarBuilder<'_>) -> Result<Self> {
        let (input, hidden) = (inputs[0].width().map_err(candle_core::Error::msg)?, config.hidden_dim);
        let bound = 1.0 / (hidden as f64).sqrt();
        let init = Init::Uniform { lo: -bound, up: bound };
        let direction = |suffix: &str| {
            Ok::<_, candle_core::Error>(Direction {
                weight_ih: vb.get_with_hints((3 * hidden, input), &format!("weight_ih_l0{suffix}"), init)?,
                weight_hh: vb.get_with_hints((3 * hidden, hidden), &format!("weight_hh_l0{suffix}"), init)?,
                bias_ih: vb.get_with_hints(3 * hidden, &format!("bias_ih_l0{suffix}"), init)?,
                bias_hh: vb.get_with_hints(3 * hidden, &format!("bias_hh_l0{suffix}"), init)?,
            })
        };
        Ok(Self { directions: [direction("")?, direction("_reverse")?], hidden })
    }

    fn forward(&self, input: &Value) -> Result<Tensor> {
        let (batch, len, _) = input.tensor.dims3()?;
        let mask = mask_or_ones(input.mask.as_ref(), batch, len, &input.tensor)?;
        let xs = input.zeroed()?;
        let [forward, backward] = &self.directions;
        let (forward, backward) = (self.run(forward, &xs, &mask, false)?, self.run(backward, &xs, &mask, true)?);
        Tensor::cat(&[forward, backward], 2)
    }

    fn run(&self, weights: &Direction, xs: &Tensor, mask: &Tensor, is_reversed: bool) -> Result<Tensor> {
        let (batch, len, _) = xs.dims3()?;
        // (len, batch, 3 · hidden): the product over all tokens at once.
        let projected = ops::linear(xs, &weights.weight_ih, Some(&weights.bias_ih))?.transpose(0, 1)?.contiguous()?;
        let mut state = Tensor::zeros((batch, self.hidden), xs.dtype(), xs.device())?;
        let zeros = state.clone();
        let mut states = Vec::with_capacity(len);
        for step in 0..len {
            let at = if is_reversed { len - 1 - step } else { step };
            let of_input = projected.get(at)?;
            let of_state = ops::linear(&state, &weights.weight_hh, Some(&weights.bias_hh))?;
            let part = |gates: &Tensor, first: usize, count: usize| {
                gates.narrow(1, first * self.hidden, count * self.hidden)?.contiguous()
            };
            let gates = sigmoid(&(part(&of_input, 0, 2)? + part(&of_state, 0, 2)?)?)?;
            let (reset, update) = (part(&gates, 0, 1)?, part(&gates, 1, 1)?);
            let new = (part(&of_input, 2, 1)? + (reset * part(&of_state, 2, 1)?)?)?.tanh()?;
            let next = (&new + (update * (&state - &new)?)?)?;
            // States stay 0 before a reversed sequence's last token, and become 0 behind its end.
            let is_token = mask.narrow(1, at, 1)?.broadcast_as(next.shape())?.contiguous()?;
            state = is_token.where_cond(&next, &zeros)?;
            states.push(state.clone());
        }
        if is_reversed {
            states.reverse();
        }
        Tensor::stack(&states, 1)
    }
}

#[derive(Debug)]
struct States(Gru);

impl Block for States {
    fn forward(&self, inputs: &[Value], _: Mode) -> Result<Value> {
        Ok(inputs[0].with_last(self.0.forward(&inputs[0])?))
    }
}

#[derive(Debug)]
struct Last(Gru);

impl Block for Last {
    fn forward(&self, inputs: &[Value], _: Mode) -> Result<Value> {
        Ok(Value::new(last_states(&self.0.forward(&inputs[0])?, &inputs[0].lengths()?)?))
    }
}
