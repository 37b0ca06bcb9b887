//! `CalculateDistance`: how far two vectors are apart.
//!
//! | operation | `d(x, z)` |
//! |---|---|
//! | `cos` | `x · z / (‖x‖ ‖z‖)`, a similarity; 0 where one is 0 |
//! | `euclidean` | `√Σ (x - z)²` |
//! | `manhattan` | `Σ \|x - z\|` |
//! | `chebyshev` | `max \|x - z\|` |
//!
//! A column for each operation listed, in their order. A file that lists none has `cos` alone: the published code computes one
//! column whatever is listed, and that is the one of its default.

use std::ops::RangeInclusive;

use candle_core::{D, Result, Tensor};
use candle_nn::VarBuilder;
use kd_core::model::Mode;
use serde::Deserialize;

use super::elementwise::{absolute_difference, one_shape};
use super::pool::largest;
use super::{Block, BlockConfig, Shape, Site, Value};

/// A column of the output.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Deserialize)]
#[serde(rename_all = "lowercase")]
#[allow(missing_docs)] // the table of the module says what each is
pub enum Distance {
    Cos,
    Euclidean,
    Manhattan,
    Chebyshev,
}

/// Configuration of `CalculateDistance`: `(batch, width)` twice → `(batch, operations)`.
#[derive(Debug, Clone, PartialEq, Eq, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct CalculateDistanceConfig {
    /// At least one.
    pub operations: Vec<Distance>,
}

impl Default for CalculateDistanceConfig {
    fn default() -> Self {
        Self { operations: vec![Distance::Cos] }
    }
}

impl BlockConfig for CalculateDistanceConfig {
    fn arity(&self) -> RangeInclusive<usize> {
        2..=2
    }

    fn infer(&self, inputs: &[Shape], _: &Site) -> std::result::Result<Shape, String> {
        inputs[0].expect_rank([2])?;
        one_shape(inputs)?;
        if self.operations.is_empty() {
            return Err("operations: expected at least one, found none".to_string());
        }
        Ok(Shape::vector(self.operations.len()))
    }

    fn build(&self, _: &[Shape], _: &Site, _: VarBuilder<'_>) -> crate::Result<Box<dyn Block>> {
        Ok(Box::new(self.clone()))
    }
}

impl Block for CalculateDistanceConfig {
    fn forward(&self, inputs: &[Value], _: Mode) -> Result<Value> {
        let [x, z] = &[inputs[0].vectors()?, inputs[1].vectors()?];
        let columns = self.operations.iter().map(|operation| match operation {
            Distance::Cos => (unit(x)? * unit(z)?)?.sum_keepdim(D::Minus1),
            Distance::Euclidean => length(&(x - z)?),
            Distance::Manhattan => absolute_difference(x, z)?.sum_keepdim(D::Minus1),
            Distance::Chebyshev => largest(&absolute_difference(x, z)?, 1)?.unsqueeze(1),
        });
        Ok(Value::new(Tensor::cat(&columns.collect::<Result<Vec<_>>>()?, 1)?))
    }
}

/// Euclidean lengths, `(batch, 1)`; of zeros 0, without a gradient where a root alone has an infinite one.
fn length(x: &Tensor) -> Result<Tensor> {
    let squares = x.sqr()?.sum_keepdim(D::Minus1)?;
    let zero = squares.eq(0f64)?.to_dtype(x.dtype())?;
    (squares + &zero)?.sqrt()? * zero.affine(-1.0, 1.0)?
}

/// `x` divided by its length; zeros stay.
fn unit(x: &Tensor) -> Result<Tensor> {
    let length = length(x)?;
    x.broadcast_div(&(&length + length.eq(0f64)?.to_dtype(x.dtype())?)?)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::blocks::checks::{Given, LEN, check, refused, run};
    use crate::blocks::reference::{case, tensor};
    use candle_core::Var;
    use kd_core::testing::{assert_close, check_gradients, device, random};

    fn all() -> CalculateDistanceConfig {
        let operations = vec![Distance::Chebyshev, Distance::Cos, Distance::Manhattan, Distance::Euclidean];
        CalculateDistanceConfig { operations }
    }

    #[test]
    fn shapes_and_gradients() {
        check(&CalculateDistanceConfig::default(), &[Given::vector(3), Given::vector(3)]);
        check(&all(), &[Given::vector(3), Given::vector(3)]);
        check_gradients(|x| run(&all(), x), &[random(1, (3, 4)).unwrap(), random(2, (3, 4)).unwrap()], 1e-7).unwrap();
    }

    #[test]
    fn distances_by_hand() {
        let inputs = [[3f64, 4.], [0., 8.]].map(|row| Tensor::new(&[row], device()).unwrap());
        let y = run(&all(), &inputs).unwrap();
        assert_close(&y, &Tensor::new(&[[4f64, 0.8, 7., 5.]], device()).unwrap(), 1e-15, 0.0).unwrap();
    }

    #[test]
    fn values_are_those_of_pytorch() {
        let case = case("distance");
        let y = run(&all(), &[tensor(&case.inputs["x"]), tensor(&case.inputs["z"])]).unwrap();
        assert_close(&y, &tensor(&case.outputs["y"]), 1e-12, 1e-12).unwrap();
    }

    #[test]
    fn equal_vectors_and_zeros_have_finite_gradients() {
        let x = Var::new(&[[3f64, 4.], [0., 0.]], device()).unwrap();
        let z = Tensor::new(&[[3f64, 4.], [1., 0.]], device()).unwrap();
        let y = run(&all(), &[x.as_tensor().clone(), z]).unwrap();
        assert_close(&y, &Tensor::new(&[[0f64, 1., 0., 0.], [1., 0., 1., 1.]], device()).unwrap(), 1e-15, 0.0).unwrap();
        let gradients = y.sum_all().unwrap().backward().unwrap();
        let gradient = gradients.get(&x).unwrap().flatten_all().unwrap().to_vec1::<f64>().unwrap();
        assert!(gradient.iter().all(|g| g.is_finite()), "{gradient:?}");
    }

    #[test]
    fn what_does_not_fit_is_named() {
        let config = CalculateDistanceConfig::default();
        let message = refused(&config, &[Shape::vector(3), Shape::vector(4)]);
        assert_eq!(message, "expected inputs of one shape, found (batch, 3) and (batch, 4)");
        let text = Shape::sequence(LEN, 3);
        assert!(refused(&config, &[text.clone(), text]).contains("rank 2"));
        let none = CalculateDistanceConfig { operations: vec![] };
        assert_eq!(
            refused(&none, &[Shape::vector(3), Shape::vector(3)]),
            "operations: expected at least one, found none"
        );
    }
}
