//! `Flatten`: all values of an example in one row.
//!
//! Its input has one size in every batch, so texts before it have fixed lengths; padding is 0 in the row, unless
//! `legacy_padding` leaves what stands there.

use std::ops::RangeInclusive;

use candle_core::Result;
use candle_nn::VarBuilder;
use kd_core::model::Mode;
use serde::Deserialize;

use super::{Block, BlockConfig, Dim, Shape, Site, Value};

/// Configuration of `Flatten`: `(batch, ..)` → `(batch, product)`.
#[derive(Debug, Clone, Default, PartialEq, Eq, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct FlattenConfig {}

impl BlockConfig for FlattenConfig {
    fn arity(&self) -> RangeInclusive<usize> {
        1..=1
    }

    fn infer(&self, inputs: &[Shape], _: &Site) -> std::result::Result<Shape, String> {
        let mut product = 1;
        for dim in &inputs[0].0 {
            match dim {
                Dim::Fixed(size) => product *= size,
                Dim::Varies(_) => {
                    return Err(format!("expected fixed lengths (fixed_lengths of the branch), found {}", inputs[0]));
                }
            }
        }
        Ok(Shape::vector(product))
    }

    fn build(&self, _: &[Shape], site: &Site, _: VarBuilder<'_>) -> crate::Result<Box<dyn Block>> {
        Ok(Box::new(Flatten { legacy_padding: site.legacy_padding }))
    }
}

#[derive(Debug)]
struct Flatten {
    legacy_padding: bool,
}

impl Block for Flatten {
    fn forward(&self, inputs: &[Value], _: Mode) -> Result<Value> {
        let x = if self.legacy_padding { inputs[0].tensor.clone() } else { inputs[0].zeroed()? };
        Ok(Value::new(x.flatten_from(1)?))
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::blocks::checks::{Given, LEN, check, refused, run};
    use candle_core::Tensor;
    use kd_core::testing::device;

    #[test]
    fn shapes_and_padding() {
        check(&FlattenConfig {}, &[Given::text(Dim::Fixed(5), 3, &[5, 1, 0])]);
        let fixed = [Dim::Fixed(4), Dim::Fixed(6), Dim::Fixed(2)];
        check(&FlattenConfig {}, &[Given::matrix(&fixed, &[4, 1], &[2, 6])]);
        let x = Tensor::new(&[[[1f64, 2.], [3., 4.]]], device()).unwrap();
        assert_eq!(run(&FlattenConfig {}, &[x]).unwrap().to_vec2::<f64>().unwrap(), [[1., 2., 3., 4.]]);
    }

    #[test]
    fn lengths_are_fixed() {
        let message = refused(&FlattenConfig {}, &[Shape::sequence(LEN, 3)]);
        assert_eq!(message, "expected fixed lengths (fixed_lengths of the branch), found (batch, len, 3)");
    }
}
