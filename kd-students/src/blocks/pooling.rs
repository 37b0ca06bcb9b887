//! `Pooling`: one value of all positions of an axis.
//!
//! The largest, or the mean, over the tokens of axis 1 (or, in a matrix of two texts, of axis 2); over another axis of all its
//! values. With `legacy_padding` as published: the largest of padding too, and the mean a sum over all positions divided by the
//! number of tokens.

use std::ops::RangeInclusive;

use candle_core::Result;
use candle_nn::VarBuilder;
use kd_core::model::Mode;
use serde::Deserialize;

use super::pool::{PoolType, legacy_mean, pool};
use super::{Block, BlockConfig, Shape, Site, Value};

/// Configuration of `Pooling`: `(batch, .., n, ..)` → the same without the axis `pool_axis`.
#[derive(Debug, Clone, PartialEq, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct PoolingConfig {
    /// What is taken.
    pub pool_type: PoolType,
    /// The axis that is dropped, counted from that of the batch, which is 0.
    pub pool_axis: usize,
}

impl Default for PoolingConfig {
    fn default() -> Self {
        Self { pool_type: PoolType::Max, pool_axis: 1 }
    }
}

impl BlockConfig for PoolingConfig {
    fn arity(&self) -> RangeInclusive<usize> {
        1..=1
    }

    fn infer(&self, inputs: &[Shape], _: &Site) -> std::result::Result<Shape, String> {
        inputs[0].expect_rank([3, 4])?;
        if !(1..inputs[0].rank()).contains(&self.pool_axis) {
            return Err(format!(
                "pool_axis: expected an axis after the first of {}, found {}",
                inputs[0], self.pool_axis
            ));
        }
        let mut dims = inputs[0].0.clone();
        dims.remove(self.pool_axis - 1);
        Ok(Shape(dims))
    }

    fn build(&self, _: &[Shape], site: &Site, _: VarBuilder<'_>) -> crate::Result<Box<dyn Block>> {
        Ok(Box::new(Pooling { config: self.clone(), legacy_padding: site.legacy_padding }))
    }
}

#[derive(Debug)]
struct Pooling {
    config: PoolingConfig,
    legacy_padding: bool,
}

impl Block for Pooling {
    fn forward(&self, inputs: &[Value], _: Mode) -> Result<Value> {
        let (input, axis) = (&inputs[0], self.config.pool_axis);
        let (pooled, [mask, second_mask]) = match axis {
            1 => (&input.mask, [&input.second_mask, &None]),
            2 => (&input.second_mask, [&input.mask, &None]),
            _ => (&None, [&input.mask, &input.second_mask]),
        };
        let tensor = match (self.config.pool_type, pooled) {
            (PoolType::Mean, Some(mask)) if self.legacy_padding => legacy_mean(&input.tensor, axis, mask)?,
            (kind, mask) => pool(&input.tensor, axis, mask.as_ref().filter(|_| !self.legacy_padding), kind)?,
        };
        Ok(Value { second_mask: second_mask.clone(), ..Value::masked(tensor, mask.clone()) })
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::blocks::Dim;
    use crate::blocks::checks::{Given, LEN, check, refused, run_values};
    use candle_core::Tensor;
    use kd_core::testing::device;

    #[test]
    fn shapes_and_padding() {
        for pool_type in [PoolType::Max, PoolType::Mean] {
            for pool_axis in 1..=2 {
                check(&PoolingConfig { pool_type, pool_axis }, &[Given::text(LEN, 3, &[5, 1, 7, 0])]);
            }
            let matrix = || Given::matrix(&[LEN, LEN, Dim::Fixed(3)], &[5, 1, 4], &[2, 6, 3]);
            for pool_axis in 1..=3 {
                check(&PoolingConfig { pool_type, pool_axis }, &[matrix()]);
            }
            check(&PoolingConfig { pool_type, pool_axis: 1 }, &[Given::text(Dim::Fixed(6), 3, &[5, 0, 6])]);
        }
    }

    #[test]
    fn padding_counts_only_as_published() {
        let x = Tensor::new(&[[[1f64], [-5.], [8.]]], device()).unwrap();
        let x = Value::masked(x, Some(Tensor::new(&[[1u8, 1, 0]], device()).unwrap()));
        let of = |pool_type, legacy_padding| {
            let site = Site { legacy_padding, ..Default::default() };
            let y = run_values(&PoolingConfig { pool_type, pool_axis: 1 }, std::slice::from_ref(&x), &site).unwrap();
            y.tensor.to_vec2::<f64>().unwrap()[0][0]
        };
        assert_eq!((of(PoolType::Max, false), of(PoolType::Max, true)), (1., 8.));
        assert_eq!((of(PoolType::Mean, false), of(PoolType::Mean, true)), (-2., 2.)); // -4 / 2 and 4 / 2
    }

    #[test]
    fn an_axis_that_is_not_there_is_named() {
        let text = [Shape::sequence(LEN, 3)];
        for pool_axis in [0, 3] {
            let message = refused(&PoolingConfig { pool_axis, ..Default::default() }, &text);
            let expected = format!("pool_axis: expected an axis after the first of (batch, len, 3), found {pool_axis}");
            assert_eq!(message, expected);
        }
        assert!(refused(&PoolingConfig::default(), &[Shape::vector(3)]).contains("rank 3 or 4"));
    }
}
