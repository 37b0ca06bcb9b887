//! `Attention` and `MatchAttention`: each token of a text sees another text.
//!
//! ```text
//! Attention       y_i = Σ_j softmax_j(x_i · z_j) z_j
//! MatchAttention  y_i = Σ_j softmax_j(f(W x_i + b) · f(W z_j + b)) z_j        (Chen et al. 2017, DrQA, §3.2)
//! ```
//!
//! The softmax is over the tokens of the second text. With `legacy_padding` that of `MatchAttention` is over its padding too.

use std::ops::RangeInclusive;

use candle_core::{Result, Tensor};
use candle_nn::VarBuilder;
use kd_core::model::Mode;
use kd_core::nn::{Activation, ActivationKind, Linear};
use kd_core::ops;
use serde::Deserialize;

use super::linear::check_activation;
use super::{Block, BlockConfig, Shape, Site, Value, mask_or_ones};

/// Configuration of `Attention`: `(batch, len, width)` and `(batch, len2, width)` → `(batch, len, width)`.
#[derive(Debug, Clone, Default, PartialEq, Eq, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct AttentionConfig {}

/// Configuration of `MatchAttention`: as `Attention`, after a projection that both texts share.
#[derive(Debug, Clone, PartialEq, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct MatchAttentionConfig {
    /// Function of the projections.
    pub activation: Option<ActivationKind>,
}

impl Default for MatchAttentionConfig {
    fn default() -> Self {
        Self { activation: Some(ActivationKind::ReLU) }
    }
}

/// Checks two texts of one width.
pub(crate) fn two_texts(inputs: &[Shape]) -> std::result::Result<usize, String> {
    inputs.iter().take(2).try_for_each(|input| input.expect_rank([3]))?;
    match (inputs[0].width()?, inputs[1].width()?) {
        (first, second) if first == second => Ok(first),
        (first, second) => Err(format!("expected two texts of one width, found {first} and {second}")),
    }
}

/// `softmax(scores)` over the last axis, where `keys` has no padding, times `values`.
///
/// `scores`: `(batch, len, len2)`, `values`: `(batch, len2, width)` → `(batch, len, width)`.
pub(crate) fn attend(scores: &Tensor, keys: Option<&Tensor>, values: &Tensor) -> Result<Tensor> {
    let (batch, _, len) = scores.dims3()?;
    let mask = mask_or_ones(keys, batch, len, scores)?;
    ops::masked_softmax(scores, 1.0, &mask, 0.0, Mode::Eval)?.matmul(&values.contiguous()?)
}

/// `x_i · z_j`: `(batch, len, width)` and `(batch, len2, width)` → `(batch, len, len2)`.
pub(crate) fn dots(x: &Tensor, z: &Tensor) -> Result<Tensor> {
    x.contiguous()?.matmul(&z.transpose(1, 2)?.contiguous()?)
}

impl BlockConfig for AttentionConfig {
    fn arity(&self) -> RangeInclusive<usize> {
        2..=2
    }

    fn infer(&self, inputs: &[Shape], _: &Site) -> std::result::Result<Shape, String> {
        two_texts(inputs)?;
        Ok(inputs[0].clone())
    }

    fn build(&self, _: &[Shape], _: &Site, _: VarBuilder<'_>) -> crate::Result<Box<dyn Block>> {
        Ok(Box::new(Attention { projection: None, legacy_padding: false }))
    }
}

impl BlockConfig for MatchAttentionConfig {
    fn arity(&self) -> RangeInclusive<usize> {
        2..=2
    }

    fn infer(&self, inputs: &[Shape], _: &Site) -> std::result::Result<Shape, String> {
        two_texts(inputs)?;
        check_activation(self.activation, &inputs[0])?;
        Ok(inputs[0].clone())
    }

    fn build(&self, inputs: &[Shape], site: &Site, vb: VarBuilder<'_>) -> crate::Result<Box<dyn Block>> {
        let width = inputs[0].width().map_err(candle_core::Error::msg)?;
        let projection = Projection::new(width, width, self.activation, vb)?;
        Ok(Box::new(Attention { projection: Some(projection), legacy_padding: site.legacy_padding }))
    }
}

/// `f(W x + b)`.
#[derive(Debug)]
pub(crate) struct Projection {
    linear: Linear,
    activation: Option<Activation>,
}

impl Projection {
    pub(crate) fn new(
        in_width: usize,
        out_width: usize,
        activation: Option<ActivationKind>,
        vb: VarBuilder<'_>,
    ) -> crate::Result<Self> {
        let activation = activation.map(|kind| Activation::new(kind, vb.pp("activation"))).transpose()?;
        Ok(Self { linear: Linear::new(in_width, out_width, vb)?, activation })
    }

    pub(crate) fn forward(&self, x: &Tensor) -> Result<Tensor> {
        let y = self.linear.forward(x)?;
        self.activation.as_ref().map_or(Ok(y.clone()), |activation| activation.forward(&y))
    }
}

#[derive(Debug)]
struct Attention {
    projection: Option<Projection>,
    legacy_padding: bool,
}

impl Block for Attention {
    fn forward(&self, inputs: &[Value], _: Mode) -> Result<Value> {
        let [x, z] = [inputs[0].vectors()?, inputs[1].vectors()?];
        let scores = match &self.projection {
            None => dots(&x, &z)?,
            Some(projection) => dots(&projection.forward(&x)?, &projection.forward(&z)?)?,
        };
        Ok(inputs[0].with_last(attend(&scores, inputs[1].mask.as_ref().filter(|_| !self.legacy_padding), &z)?))
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::blocks::Dim;
    use crate::blocks::checks::{Given, LEN, check, refused, run_values, run_with};
    use crate::blocks::reference::{case, tensor};
    use kd_core::testing::{assert_close, device};

    fn texts() -> [Given; 2] {
        [Given::text(LEN, 4, &[5, 1, 7, 2, 0]), Given::text(LEN, 4, &[3, 6, 0, 2, 1])]
    }

    #[test]
    fn shapes_padding_and_variables() {
        check(&AttentionConfig {}, &texts());
        check(&MatchAttentionConfig { activation: Some(ActivationKind::PReLU) }, &texts());
        check(&MatchAttentionConfig { activation: None }, &texts());
        check(
            &MatchAttentionConfig::default(),
            &[Given::text(Dim::Fixed(7), 4, &[5, 1, 7, 2]), Given::text(Dim::Fixed(6), 4, &[3, 6, 1, 2])],
        );
    }

    #[test]
    fn two_tokens_by_hand() {
        // Scores 0 and ln 3: probabilities 1/4 and 3/4.
        let x = Value::new(Tensor::new(&[[[1f64]]], device()).unwrap());
        let z = Value::new(Tensor::new(&[[[0f64], [3f64.ln()]]], device()).unwrap());
        let y = run_values(&AttentionConfig {}, &[x, z], &Site::default()).unwrap().tensor;
        let expected = Tensor::new(&[[[0.75 * 3f64.ln()]]], device()).unwrap();
        assert_close(&y, &expected, 1e-15, 0.0).unwrap();
    }

    #[test]
    fn values_are_those_of_pytorch() {
        for (name, config) in [
            ("attention", &AttentionConfig {} as &dyn BlockConfig),
            ("match_attention", &MatchAttentionConfig::default()),
        ] {
            let case = case(name);
            let mask = tensor(&case.inputs["mask"]).to_dtype(candle_core::DType::U8).unwrap();
            let inputs = [Value::new(tensor(&case.inputs["x"])), Value::masked(tensor(&case.inputs["z"]), Some(mask))];
            let weights = ["weight", "bias"].map(|name| (name, case.inputs.get(name).map(tensor)));
            let weights: Vec<_> = weights.into_iter().filter_map(|(name, tensor)| Some((name, tensor?))).collect();
            let y = run_with(config, &inputs, &weights).unwrap().tensor;
            assert_close(&y, &tensor(&case.outputs["y"]), 1e-12, 1e-12)
                .unwrap_or_else(|error| panic!("{name}: {error}"));
        }
    }

    #[test]
    fn padding_is_seen_as_published_only_on_demand() {
        let x = Value::new(Tensor::new(&[[[1f64], [2.]]], device()).unwrap());
        let z = Tensor::new(&[[[1f64], [50.]]], device()).unwrap();
        let z = Value::masked(z, Some(Tensor::new(&[[1u8, 0]], device()).unwrap()));
        let of = |legacy_padding| {
            let site = Site { legacy_padding, ..Default::default() };
            let y = run_values(&MatchAttentionConfig { activation: None }, &[x.clone(), z.clone()], &site).unwrap();
            y.tensor.flatten_all().unwrap().to_vec1::<f64>().unwrap()
        };
        assert_eq!(of(false), [1.0, 1.0]);
        assert!(of(true).iter().all(|&y| y > 1.5), "{:?}", of(true));
    }

    #[test]
    fn widths_that_differ_are_named() {
        let texts = [3, 5].map(|width| Shape::sequence(LEN, width));
        assert_eq!(refused(&AttentionConfig {}, &texts), "expected two texts of one width, found 3 and 5");
        let vector = [Shape::sequence(LEN, 3), Shape::vector(3)];
        assert!(refused(&MatchAttentionConfig::default(), &vector).contains("rank 3, found (batch, 3)"));
    }
}
