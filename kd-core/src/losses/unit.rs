//! Rows taken as directions: centred, and divided by their length.

use candle_core::{D, Result, Tensor};

/// `x` less the mean over its last dimension. Rows of equal values become exactly 0.
pub(super) fn centred(x: &Tensor) -> Result<Tensor> {
    // Taken from values that are 0 where all are equal, for the mean of equal values may be off by rounding.
    let first = x.narrow(D::Minus1, 0, 1)?;
    let x = x.broadcast_sub(&first)?;
    x.broadcast_sub(&x.mean_keepdim(D::Minus1)?)
}

/// `x` divided by its length over the last dimension. A row of zeros stays 0 and its gradient is 0.
///
/// Rows are divided by their largest value first, so that no square overflows or underflows.
pub(super) fn unit(x: &Tensor) -> Result<Tensor> {
    if x.elem_count() == 0 {
        return Ok(x.clone()); // Candle has no largest of nothing.
    }
    let largest = x.detach().abs()?.max_keepdim(D::Minus1)?;
    let zero = largest.eq(0f64)?.to_dtype(x.dtype())?;
    // 1 in rows of zeros, where neither the division nor the root then has anything to fail on.
    let x = x.broadcast_div(&(largest + &zero)?)?;
    let lengths = (x.sqr()?.sum_keepdim(D::Minus1)? + &zero)?.sqrt()?;
    x.broadcast_mul(&zero.affine(-1.0, 1.0)?)?.broadcast_div(&lengths)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::testing::{assert_close, check_gradient, random};
    use candle_core::{Device, Var};

    #[test]
    fn lengths_are_one_at_any_scale() {
        for scale in [1e-200, 1.0, 1e200] {
            let x = (Tensor::new(&[[3.0, 4.0], [-5.0, 12.0]], &Device::Cpu).unwrap() * scale).unwrap();
            let expected = Tensor::new(&[[0.6, 0.8], [-5.0 / 13.0, 12.0 / 13.0]], &Device::Cpu).unwrap();
            assert_close(&unit(&x).unwrap(), &expected, 1e-15, 0.0).unwrap();
        }
        check_gradient(unit, &random(1, (3, 4)).unwrap(), 1e-8).unwrap();
        check_gradient(centred, &random(1, (3, 4)).unwrap(), 1e-8).unwrap();
    }

    #[test]
    fn rows_of_equal_values_are_zero_and_have_no_gradient() {
        // The mean of three times 0.1 is not 0.1.
        for value in [0.0f32, 0.1, -1e4, 1e-30] {
            let x = Var::new(&[[value; 3], [0.0, 1.0, 5.0]], &Device::Cpu).unwrap();
            let y = unit(&centred(&x).unwrap()).unwrap();
            assert_eq!(y.to_vec2::<f32>().unwrap()[0], [0.0; 3]);
            let weights = random(2, (2, 3)).unwrap().to_dtype(x.dtype()).unwrap();
            let gradients = (y * weights).unwrap().sum_all().unwrap().backward().unwrap();
            let gradient = gradients.get(&x).unwrap().to_vec2::<f32>().unwrap();
            assert_eq!(gradient[0], [0.0; 3]);
            assert!(gradient[1].iter().all(|x| x.is_finite() && *x != 0.0), "{gradient:?}");
        }
    }
}
