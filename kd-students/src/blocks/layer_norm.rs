//! `LayerNorm`: every vector brought to mean 0 and variance 1.

use std::ops::RangeInclusive;

use candle_core::Result;
use candle_nn::VarBuilder;
use kd_core::model::Mode;
use kd_core::nn::LayerNorm;
use serde::Deserialize;

use super::{Block, BlockConfig, Shape, Site, Value};

/// [`LayerNorm`] over the last axis, of any shape (Ba et al. 2016). Its variables are `weight` and `bias`, `(width,)`.
#[derive(Debug, Clone, PartialEq, Default, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct LayerNormConfig {}

/// 1e-5, as in the format.
const EPS: f64 = 1e-5;

impl BlockConfig for LayerNormConfig {
    fn arity(&self) -> RangeInclusive<usize> {
        1..=1
    }

    fn infer(&self, inputs: &[Shape], _: &Site) -> std::result::Result<Shape, String> {
        inputs[0].width()?;
        Ok(inputs[0].clone())
    }

    fn build(&self, inputs: &[Shape], _: &Site, vb: VarBuilder<'_>) -> crate::Result<Box<dyn Block>> {
        let width = inputs[0].width().map_err(candle_core::Error::msg)?;
        Ok(Box::new(Norm(LayerNorm::new(width, EPS, vb)?)))
    }
}

#[derive(Debug)]
struct Norm(LayerNorm);

impl Block for Norm {
    fn forward(&self, inputs: &[Value], _: Mode) -> Result<Value> {
        Ok(inputs[0].with_last(self.0.forward(&inputs[0].vectors()?)?))
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::blocks::Dim;
    use crate::blocks::checks::{Given, LEN, check, refused, run_with};
    use candle_core::{Device, Tensor};

    #[test]
    fn shapes_padding_and_variables() {
        check(&LayerNormConfig {}, &[Given::text(LEN, 4, &[3, 1])]);
        check(&LayerNormConfig {}, &[Given::vector(3)]);
        let message = refused(&LayerNormConfig {}, &[Shape(vec![Dim::Fixed(3), LEN])]);
        assert!(message.starts_with("expected a last axis of one size"), "{message}");
    }

    #[test]
    fn a_value_by_hand() {
        // (1, 3) has mean 2 and variance 1: ±1 / √(1 + 1e-5), times 2, plus 1.
        let of = |values: [f64; 2]| Tensor::new(&values, &Device::Cpu).unwrap();
        let x = Value::new(of([1.0, 3.0]).reshape((1, 2)).unwrap());
        let y = run_with(&LayerNormConfig {}, &[x], &[("weight", of([2.0; 2])), ("bias", of([1.0; 2]))]).unwrap();
        let y = y.tensor.to_vec2::<f64>().unwrap();
        let deviation = 2.0 / (1.0f64 + 1e-5).sqrt();
        assert!((y[0][0] - (1.0 - deviation)).abs() < 1e-12 && (y[0][1] - (1.0 + deviation)).abs() < 1e-12, "{y:?}");
    }
}
