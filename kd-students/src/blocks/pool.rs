//! Maxima and means over a padded axis.

use candle_core::{Result, Tensor};
use serde::Deserialize;

use super::value::replace_padding;

/// What is taken of several values.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum PoolType {
    /// The largest.
    #[default]
    Max,
    /// Their sum divided by their number.
    Mean,
}

/// The largest value along `axis`, which is dropped; of no values 0. Of equal ones the first gets the gradient.
pub(crate) fn largest(x: &Tensor, axis: usize) -> Result<Tensor> {
    if x.elem_count() == 0 {
        let mut dims = x.dims().to_vec();
        dims.remove(axis);
        return Tensor::zeros(dims, x.dtype(), x.device()); // Candle has no largest of nothing.
    }
    let x = x.contiguous()?;
    let index = x.detach().argmax_keepdim(axis)?;
    x.gather(&index, axis)?.squeeze(axis)
}

/// Pools `axis` of `x` over the positions whose `mask`, `(batch, len)` u8, is not 0, and drops it; an example of no such
/// positions gives 0.
///
/// # Errors
/// If the mask does not fit.
pub(crate) fn pool(x: &Tensor, axis: usize, mask: Option<&Tensor>, pool_type: PoolType) -> Result<Tensor> {
    match (pool_type, mask) {
        (PoolType::Max, None) => largest(x, axis),
        (PoolType::Max, Some(mask)) => finite(&largest(&replace_padding(x, mask, axis, f64::NEG_INFINITY)?, axis)?),
        (PoolType::Mean, None) => x.sum(axis)? / x.dim(axis)?.max(1) as f64,
        (PoolType::Mean, Some(mask)) => divided(&replace_padding(x, mask, axis, 0.0)?.sum(axis)?, mask),
    }
}

/// The sum over all of `axis`, padding too, divided by the number of tokens: the mean as published.
pub(crate) fn legacy_mean(x: &Tensor, axis: usize, mask: &Tensor) -> Result<Tensor> {
    divided(&x.sum(axis)?, mask)
}

/// Sums of each example, divided by the number of tokens in its `mask`; those of no tokens are not.
fn divided(sums: &Tensor, mask: &Tensor) -> Result<Tensor> {
    let mut shape = vec![1; sums.rank()];
    shape[0] = sums.dim(0)?;
    let counts = mask.to_dtype(sums.dtype())?.sum(1)?.maximum(1f64)?;
    sums.broadcast_div(&counts.reshape(shape)?)
}

/// `x` with 0 instead of the largest of nothing.
pub(crate) fn finite(x: &Tensor) -> Result<Tensor> {
    let zero = Tensor::zeros((), x.dtype(), x.device())?.broadcast_as(x.shape())?;
    x.eq(f64::NEG_INFINITY)?.where_cond(&zero, x)
}

#[cfg(test)]
mod tests {
    use super::*;
    use candle_core::Var;
    use kd_core::testing::{check_gradient, device, random};

    #[test]
    fn padding_and_examples_of_nothing() {
        let x = Tensor::new(&[[[1f64, -4.], [3., -2.], [9., 9.]], [[5., 5.], [5., 5.], [5., 5.]]], device()).unwrap();
        let mask = Tensor::new(&[[1u8, 1, 0], [0, 0, 0]], device()).unwrap();
        let of = |kind, mask| pool(&x, 1, mask, kind).unwrap().to_vec2::<f64>().unwrap();
        assert_eq!(of(PoolType::Max, Some(&mask)), [[3., -2.], [0., 0.]]);
        assert_eq!(of(PoolType::Mean, Some(&mask)), [[2., -3.], [0., 0.]]);
        assert_eq!(of(PoolType::Max, None), [[9., 9.], [5., 5.]]);
        assert_eq!(of(PoolType::Mean, None)[1], [5., 5.]);
        for kind in [PoolType::Max, PoolType::Mean] {
            let nothing = pool(&x.narrow(1, 0, 0).unwrap(), 1, None, kind).unwrap();
            assert_eq!(nothing.to_vec2::<f64>().unwrap(), [[0.; 2]; 2]);
        }
        for kind in [PoolType::Max, PoolType::Mean] {
            check_gradient(|x| pool(x, 1, Some(&mask), kind), &random(3, (2, 3, 2)).unwrap(), 1e-8).unwrap();
        }
    }

    #[test]
    fn of_equal_values_one_learns() {
        let x = Var::new(&[[[2f64], [7.], [7.]]], device()).unwrap();
        let gradients = largest(&x, 1).unwrap().sum_all().unwrap().backward().unwrap();
        assert_eq!(gradients.get(&x).unwrap().to_vec3::<f64>().unwrap(), [[[0.], [1.], [0.]]]);
    }
}
