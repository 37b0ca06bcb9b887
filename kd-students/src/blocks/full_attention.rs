//! `FullAttention`: attention over the whole history of each word (Huang et al. 2018, FusionNet, §3.1).
//!
//! The inputs are two texts `x` and `z` and what is known of their words, the keys `k` and `l`:
//!
//! ```text
//! y_i = Σ_j softmax_j(s_ij) z_j        s_ij = f(U k_i) · (d ∘ f(U l_j))
//! ```
//!
//! `U` is one matrix where the keys are of one width, else one for each side. Of `x` only its length counts.

use std::ops::RangeInclusive;

use candle_core::{Result, Tensor};
use candle_nn::{Init, VarBuilder};
use kd_core::model::Mode;
use kd_core::nn::{Activation, ActivationKind, Linear};
use serde::Deserialize;

use super::attention::{attend, dots};
use super::linear::check_activation;
use super::{Block, BlockConfig, Shape, Site, Value};

/// Configuration of `FullAttention`: `(batch, len, ..)`, `(batch, len2, width)`, `(batch, len, ..)` and `(batch, len2, ..)` →
/// `(batch, len, width)`.
#[derive(Debug, Clone, PartialEq, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct FullAttentionConfig {
    /// Width that the keys are compared in, ≥ 1.
    pub hidden_dim: usize,
    /// Function of the projected keys.
    pub activation: Option<ActivationKind>,
}

impl Default for FullAttentionConfig {
    fn default() -> Self {
        Self { hidden_dim: 128, activation: Some(ActivationKind::ReLU) }
    }
}

impl BlockConfig for FullAttentionConfig {
    fn arity(&self) -> RangeInclusive<usize> {
        4..=4
    }

    fn infer(&self, inputs: &[Shape], _: &Site) -> std::result::Result<Shape, String> {
        for input in inputs {
            input.expect_rank([3])?;
            input.width()?;
        }
        for (text, key) in [(0, 2), (1, 3)] {
            if inputs[text].0[0] != inputs[key].0[0] {
                let (text, key) = (&inputs[text], &inputs[key]);
                return Err(format!("expected a key for each word of {text}, found {key}"));
            }
        }
        check_activation(self.activation, &inputs[2])?;
        if self.hidden_dim == 0 {
            return Err("hidden_dim: expected at least 1, found 0".to_string());
        }
        Ok(inputs[0].with_width(inputs[1].width()?))
    }

    fn build(&self, inputs: &[Shape], _: &Site, vb: VarBuilder<'_>) -> crate::Result<Box<dyn Block>> {
        let [first, second] = [2, 3].map(|at| inputs[at].width().map_err(candle_core::Error::msg));
        let (first, second) = (first?, second?);
        let linear = Linear::without_bias(first, self.hidden_dim, vb.pp("linear"))?;
        let second = match first == second {
            true => linear.clone(),
            false => Linear::without_bias(second, self.hidden_dim, vb.pp("linear2"))?,
        };
        Ok(Box::new(FullAttention {
            linears: [linear, second],
            diagonal: vb.get_with_hints((1, self.hidden_dim), "diagonal", Init::Const(1.0))?,
            activation: self.activation.map(|kind| Activation::new(kind, vb.pp("activation"))).transpose()?,
        }))
    }
}

/// | variable | shape | start |
/// |---|---|---|
/// | `linear.weight`, `linear2.weight` | `(hidden, width of the keys)` | as PyTorch's `nn.Linear` |
/// | `diagonal` | `(1, hidden)` | 1 |
#[derive(Debug)]
struct FullAttention {
    linears: [Linear; 2],
    diagonal: Tensor,
    activation: Option<Activation>,
}

impl Block for FullAttention {
    fn forward(&self, inputs: &[Value], _: Mode) -> Result<Value> {
        let project = |side: usize| {
            let y = self.linears[side].forward(&inputs[2 + side].zeroed()?)?;
            self.activation.as_ref().map_or(Ok(y.clone()), |activation| activation.forward(&y))
        };
        let scores = dots(&project(0)?, &project(1)?.broadcast_mul(&self.diagonal)?)?;
        Ok(inputs[0].with_last(attend(&scores, inputs[1].mask.as_ref(), &inputs[1].vectors()?)?))
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::blocks::Dim;
    use crate::blocks::checks::{Given, LEN, check, refused, run_with};
    use kd_core::testing::{assert_close, device};

    #[test]
    fn shapes_padding_and_variables() {
        for second in [5, 3] {
            let of = |width, tokens: &[usize]| Given::text(LEN, width, tokens);
            let (first, other) = ([5, 1, 7], [3, 6, 1]);
            let config = FullAttentionConfig { hidden_dim: 6, activation: Some(ActivationKind::PReLU) };
            check(&config, &[of(2, &first), of(4, &other), of(3, &first), of(second, &other)]);
        }
    }

    #[test]
    fn two_words_by_hand() {
        // U = 1, d = ln 3: the scores of the keys 0 and 1 against 1 are 0 and ln 3, probabilities 1/4 and 3/4.
        let value = |words: &[f64]| Value::new(Tensor::from_slice(words, (1, words.len(), 1), device()).unwrap());
        let inputs = [value(&[9.]), value(&[4., 8.]), value(&[1.]), value(&[0., 1.])];
        let weights = [
            ("linear.weight", Tensor::new(&[[1f64]], device()).unwrap()),
            ("diagonal", Tensor::new(&[[3f64.ln()]], device()).unwrap()),
        ];
        let config = FullAttentionConfig { hidden_dim: 1, ..Default::default() };
        let y = run_with(&config, &inputs, &weights).unwrap().tensor;
        assert_close(&y, &Tensor::new(&[[[7f64]]], device()).unwrap(), 1e-12, 0.0).unwrap();
    }

    #[test]
    fn every_word_has_a_key() {
        let of = |len, width| Shape::sequence(Dim::Fixed(len), width);
        let message = refused(&FullAttentionConfig::default(), &[of(3, 2), of(4, 2), of(3, 5), of(3, 5)]);
        assert_eq!(message, "expected a key for each word of (batch, 4, 2), found (batch, 3, 5)");
    }
}
