//! `LinearAttention`: a text as a weighted sum of its tokens.
//!
//! `y = Σ_t softmax_t(w · x_t) x_t`, or with `keep_dim` its terms one by one. The softmax is over tokens; with `legacy_padding`
//! over padding too.

use std::ops::RangeInclusive;

use candle_core::{Result, Tensor};
use candle_nn::{Init, VarBuilder};
use kd_core::model::Mode;
use kd_core::ops;
use serde::Deserialize;

use super::{Block, BlockConfig, Shape, Site, Value, mask_or_ones};

/// Configuration of `LinearAttention`: `(batch, len, width)` → `(batch, width)`, with `keep_dim` the same shape.
#[derive(Debug, Clone, Default, PartialEq, Eq, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct LinearAttentionConfig {
    /// Whether the terms are not added up.
    pub keep_dim: bool,
}

impl BlockConfig for LinearAttentionConfig {
    fn ignored() -> &'static [&'static str] {
        &["attention_weight_dim"]
    }

    fn arity(&self) -> RangeInclusive<usize> {
        1..=1
    }

    fn infer(&self, inputs: &[Shape], _: &Site) -> std::result::Result<Shape, String> {
        inputs[0].expect_rank([3])?;
        let width = inputs[0].width()?;
        Ok(if self.keep_dim { inputs[0].clone() } else { Shape::vector(width) })
    }

    fn build(&self, inputs: &[Shape], site: &Site, vb: VarBuilder<'_>) -> crate::Result<Box<dyn Block>> {
        let width = inputs[0].width().map_err(candle_core::Error::msg)?;
        let init = Init::Randn { mean: 0.0, stdev: 1.0 };
        let weight = vb.get_with_hints((1, width), "weight", init)?;
        Ok(Box::new(LinearAttention { weight, keep_dim: self.keep_dim, legacy_padding: site.legacy_padding }))
    }
}

/// | variable | shape | start |
/// |---|---|---|
/// | `weight` | `(1, width)` | normal, standard deviation 1, as published |
#[derive(Debug)]
struct LinearAttention {
    weight: Tensor,
    keep_dim: bool,
    legacy_padding: bool,
}

impl Block for LinearAttention {
    fn forward(&self, inputs: &[Value], _: Mode) -> Result<Value> {
        let x = &inputs[0].vectors()?;
        let (batch, len, _) = x.dims3()?;
        let seen = inputs[0].mask.as_ref().filter(|_| !self.legacy_padding);
        let scores = ops::linear(x, &self.weight, None)?.reshape((batch, len))?;
        let probs = ops::masked_softmax(&scores, 1.0, &mask_or_ones(seen, batch, len, x)?, 0.0, Mode::Eval)?;
        Ok(match self.keep_dim {
            true => inputs[0].with_last(x.broadcast_mul(&probs.unsqueeze(2)?)?),
            false => Value::new(probs.unsqueeze(1)?.matmul(&x.contiguous()?)?.squeeze(1)?),
        })
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
        for keep_dim in [false, true] {
            check(&LinearAttentionConfig { keep_dim }, &[Given::text(LEN, 4, &[5, 1, 7, 0])]);
            check(&LinearAttentionConfig { keep_dim }, &[Given::text(Dim::Fixed(6), 4, &[5, 0, 6])]);
        }
    }

    #[test]
    fn two_tokens_by_hand() {
        // Scores 0 and ln 3: probabilities 1/4 and 3/4; the padding has the score of a million.
        let x = Tensor::new(&[[[0f64, 8.], [3f64.ln(), 4.], [1e6, 1e6]]], device()).unwrap();
        let x = Value::masked(x, Some(Tensor::new(&[[1u8, 1, 0]], device()).unwrap()));
        let weight = || [("weight", Tensor::new(&[[1f64, 0.]], device()).unwrap())];
        let y =
            run_with(&LinearAttentionConfig { keep_dim: false }, std::slice::from_ref(&x), &weight()).unwrap().tensor;
        let expected = Tensor::new(&[[0.75 * 3f64.ln(), 5.]], device()).unwrap();
        assert_close(&y, &expected, 1e-12, 0.0).unwrap();
        let y = run_with(&LinearAttentionConfig { keep_dim: true }, &[x], &weight()).unwrap().zeroed().unwrap();
        let expected = Tensor::new(&[[[0., 2.], [0.75 * 3f64.ln(), 3.], [0., 0.]]], device()).unwrap();
        assert_close(&y, &expected, 1e-12, 0.0).unwrap();
    }

    #[test]
    fn other_ranks_are_refused() {
        assert!(refused(&LinearAttentionConfig::default(), &[Shape::vector(4)]).contains("rank 3"));
    }
}
