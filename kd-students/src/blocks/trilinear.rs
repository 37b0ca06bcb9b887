//! `Seq2SeqAttention` and `BiAttFlow`: two texts compared by their tokens and the product of them.
//!
//! Both score tokens `x_i` and `z_j` with `s_ij = w · [z_j; x_i; x_i ∘ z_j]` (Seo et al. 2017, BiDAF, §2, step 4), and both have
//! `c_i = Σ_j softmax_j(s_ij) z_j`, what the second text says of token `i`:
//!
//! ```text
//! Seq2SeqAttention  [a_i x_i; c_i]                        a = softmax_i(max_j s_ij)
//! BiAttFlow         [x_i; c_i; x_i ∘ c_i; x_i ∘ q]        q = Σ_i a_i x_i
//! ```
//!
//! A bias of the scores would change no softmax, and there is none. `attention_dropout` drops scores before the softmax, as
//! published. With `legacy_padding` `Seq2SeqAttention` sees padding on both sides; `BiAttFlow`, whose published code calls a
//! layer that it never makes, does not.

use std::ops::RangeInclusive;

use candle_core::{Result, Tensor};
use candle_nn::{Init, VarBuilder};
use kd_core::model::Mode;
use kd_core::ops;
use serde::Deserialize;

use super::attention::{attend, dots, two_texts};
use super::dropout::check_probability;
use super::pool::{PoolType, pool};
use super::value::replace_padding;
use super::{Block, BlockConfig, Shape, Site, Value, mask_or_ones};

/// Configuration of `Seq2SeqAttention`: `(batch, len, width)` and `(batch, len2, width)` → `(batch, len, 2 · width)`.
#[derive(Debug, Clone, Default, PartialEq, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct Seq2SeqAttentionConfig {
    /// Probability of dropping a score, in `[0, 1)`.
    pub attention_dropout: f64,
}

/// Configuration of `BiAttFlow`: `(batch, len, width)` and `(batch, len2, width)` → `(batch, len, 4 · width)`.
#[derive(Debug, Clone, Default, PartialEq, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct BiAttFlowConfig {
    /// Probability of dropping a score, in `[0, 1)`.
    pub attention_dropout: f64,
}

fn infer(inputs: &[Shape], dropout: f64, times: usize) -> std::result::Result<Shape, String> {
    check_probability("attention_dropout", dropout)?;
    Ok(inputs[0].with_width(times * two_texts(inputs)?))
}

impl BlockConfig for Seq2SeqAttentionConfig {
    fn arity(&self) -> RangeInclusive<usize> {
        2..=2
    }

    fn infer(&self, inputs: &[Shape], _: &Site) -> std::result::Result<Shape, String> {
        infer(inputs, self.attention_dropout, 2)
    }

    fn build(&self, inputs: &[Shape], site: &Site, vb: VarBuilder<'_>) -> crate::Result<Box<dyn Block>> {
        let scores = Trilinear::new(inputs, self.attention_dropout, vb)?;
        Ok(Box::new(Seq2SeqAttention { scores, legacy_padding: site.legacy_padding }))
    }
}

impl BlockConfig for BiAttFlowConfig {
    fn arity(&self) -> RangeInclusive<usize> {
        2..=2
    }

    fn infer(&self, inputs: &[Shape], _: &Site) -> std::result::Result<Shape, String> {
        infer(inputs, self.attention_dropout, 4)
    }

    fn build(&self, inputs: &[Shape], _: &Site, vb: VarBuilder<'_>) -> crate::Result<Box<dyn Block>> {
        Ok(Box::new(BiAttFlow { scores: Trilinear::new(inputs, self.attention_dropout, vb)? }))
    }
}

/// The scores `w · [z_j; x_i; x_i ∘ z_j]`.
///
/// | variable | shape | start |
/// |---|---|---|
/// | `weight` | `(1, 3 · width)`, of `z`, `x` and their product | uniform in `±1/√(3 · width)` |
#[derive(Debug)]
struct Trilinear {
    weight: Tensor,
    dropout: f64,
}

impl Trilinear {
    fn new(inputs: &[Shape], dropout: f64, vb: VarBuilder<'_>) -> crate::Result<Self> {
        let width = 3 * inputs[0].width().map_err(candle_core::Error::msg)?;
        let bound = 1.0 / (width as f64).sqrt();
        let weight = vb.get_with_hints((1, width), "weight", Init::Uniform { lo: -bound, up: bound })?;
        Ok(Self { weight, dropout })
    }

    /// `(batch, len, len2)`.
    fn forward(&self, x: &Tensor, z: &Tensor, mode: Mode) -> Result<Tensor> {
        let width = x.dim(2)?;
        let part = |at: usize| self.weight.narrow(1, at * width, width)?.contiguous();
        let of_z = ops::linear(z, &part(0)?, None)?.transpose(1, 2)?; // (batch, 1, len2)
        let of_x = ops::linear(x, &part(1)?, None)?; // (batch, len, 1)
        let of_both = dots(&x.broadcast_mul(&part(2)?.unsqueeze(0)?)?, z)?;
        let scores = of_both.broadcast_add(&of_x)?.broadcast_add(&of_z)?;
        ops::dropout(&scores, self.dropout, mode)
    }
}

/// `softmax_i(max_j s_ij)`, `(batch, len)`, over tokens of both texts where there are masks.
fn of_largest(scores: &Tensor, mask: Option<&Tensor>, second: Option<&Tensor>) -> Result<Tensor> {
    let (batch, len, _) = scores.dims3()?;
    let seen = match second {
        Some(second) => replace_padding(scores, second, 2, -1e30)?,
        None => scores.clone(),
    };
    let largest = pool(&seen, 2, None, PoolType::Max)?;
    ops::masked_softmax(&largest, 1.0, &mask_or_ones(mask, batch, len, scores)?, 0.0, Mode::Eval)
}

#[derive(Debug)]
struct Seq2SeqAttention {
    scores: Trilinear,
    legacy_padding: bool,
}

impl Block for Seq2SeqAttention {
    fn forward(&self, inputs: &[Value], mode: Mode) -> Result<Value> {
        let [mask, second] = [0, 1].map(|at| inputs[at].mask.as_ref().filter(|_| !self.legacy_padding));
        let [x, z] = [inputs[0].vectors()?, inputs[1].vectors()?];
        let scores = self.scores.forward(&x, &z, mode)?;
        let of_itself = x.broadcast_mul(&of_largest(&scores, mask, second)?.unsqueeze(2)?)?;
        let of_second = attend(&scores, second, &z)?;
        Ok(inputs[0].with_last(Tensor::cat(&[of_itself, of_second], 2)?))
    }
}

#[derive(Debug)]
struct BiAttFlow {
    scores: Trilinear,
}

impl Block for BiAttFlow {
    fn forward(&self, inputs: &[Value], mode: Mode) -> Result<Value> {
        let [mask, second] = [0, 1].map(|at| inputs[at].mask.as_ref());
        let [x, z] = [inputs[0].vectors()?, inputs[1].vectors()?];
        let scores = self.scores.forward(&x, &z, mode)?;
        let of_second = attend(&scores, second, &z)?;
        let probs = of_largest(&scores, mask, second)?;
        let of_first = probs.unsqueeze(1)?.matmul(&x.contiguous()?)?; // (batch, 1, width)
        let products = [(&x * &of_second)?, x.broadcast_mul(&of_first)?];
        let [by_second, by_first] = &products;
        Ok(inputs[0].with_last(Tensor::cat(&[&x, &of_second, by_second, by_first], 2)?))
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::blocks::Dim;
    use crate::blocks::checks::{Given, LEN, check, refused, run_with};
    use crate::blocks::reference::{case, tensor};
    use kd_core::testing::assert_close;

    #[test]
    fn shapes_padding_and_variables() {
        let texts = || [Given::text(LEN, 4, &[5, 1, 7, 2, 0]), Given::text(LEN, 4, &[3, 6, 0, 2, 1])];
        let fixed = || [Given::text(Dim::Fixed(5), 4, &[5, 1]), Given::text(Dim::Fixed(3), 4, &[2, 3])];
        for attention_dropout in [0.0, 0.5] {
            check(&Seq2SeqAttentionConfig { attention_dropout }, &texts());
            check(&BiAttFlowConfig { attention_dropout }, &texts());
            check(&BiAttFlowConfig { attention_dropout }, &fixed());
        }
    }

    #[test]
    fn values_are_those_of_the_formulas_in_pytorch() {
        for (name, config) in [
            ("seq2seq_attention", &Seq2SeqAttentionConfig::default() as &dyn BlockConfig),
            ("bi_att_flow", &BiAttFlowConfig::default()),
        ] {
            let case = case(name);
            let mask = |name: &str| Some(tensor(&case.inputs[name]).to_dtype(candle_core::DType::U8).unwrap());
            let inputs = [
                Value::masked(tensor(&case.inputs["x"]), mask("mask")),
                Value::masked(tensor(&case.inputs["z"]), mask("second_mask")),
            ];
            let y = run_with(config, &inputs, &[("weight", tensor(&case.inputs["weight"]))]).unwrap();
            let y = y.zeroed().unwrap();
            assert_close(&y, &tensor(&case.outputs["y"]), 1e-12, 1e-12)
                .unwrap_or_else(|error| panic!("{name}: {error}"));
        }
    }

    #[test]
    fn what_does_not_fit_is_named() {
        let texts = [3, 5].map(|width| Shape::sequence(LEN, width));
        assert_eq!(refused(&BiAttFlowConfig::default(), &texts), "expected two texts of one width, found 3 and 5");
        let dropped = Seq2SeqAttentionConfig { attention_dropout: 1.5 };
        assert_eq!(refused(&dropped, &texts), "attention_dropout: expected a number in [0, 1), found 1.5");
    }
}
