//! What the losses on representations share: checks of two sides, wide numbers, and lengths that are safe at zero.

use candle_core::{D, DType, Result, Tensor, bail};

use super::preconditions::wide;

/// A student's and a teacher's tensor as the losses compute with them: half precision in `f32`, because a square of
/// hidden states leaves the range of `f16`; the teacher detached and in the student's dtype.
pub(super) fn wide_pair(loss: &str, student: &Tensor, teacher: &Tensor) -> Result<(Tensor, Tensor)> {
    for (tensor, name) in [(student, "student"), (teacher, "teacher")] {
        if !matches!(tensor.dtype(), DType::F16 | DType::BF16 | DType::F32 | DType::F64) {
            bail!("{loss}: the {name} has dtype {:?}, expected a float", tensor.dtype());
        }
    }
    let student = wide(student)?;
    let teacher = teacher.detach().to_dtype(student.dtype())?;
    Ok((student, teacher))
}

/// Checks that two tensors have `rank` dimensions, described by `shape`, at least one row, and are alike in all
/// dimensions but the last where `any_width`.
pub(super) fn check(loss: &str, shape: &str, rank: usize, any_width: bool, x: &Tensor, y: &Tensor) -> Result<()> {
    let compared = if any_width { rank - 1 } else { rank };
    if x.rank() != rank || y.rank() != rank || x.dims()[..compared] != y.dims()[..compared] {
        let widths = if any_width { ", each with its own width" } else { " of one shape" };
        bail!("{loss}: expected two tensors {shape}{widths}, found {:?} and {:?}", x.dims(), y.dims());
    }
    if x.elem_count() == 0 || y.elem_count() == 0 {
        bail!("{loss}: expected values, found {:?} and {:?}", x.dims(), y.dims());
    }
    Ok(())
}

/// Euclidean lengths over the last dimension, which becomes 1. A vector of zeros has length 0 and no gradient, where the
/// root alone would give NaN.
pub(super) fn lengths(x: &Tensor) -> Result<Tensor> {
    let squares = x.sqr()?.sum_keepdim(D::Minus1)?;
    let zero = squares.eq(0f64)?.to_dtype(x.dtype())?;
    (squares + &zero)?.sqrt()? * zero.affine(-1.0, 1.0)?
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::testing::{check_gradient, random};
    use candle_core::Device;

    #[test]
    fn zero_vectors_have_no_length_and_no_gradient() {
        let x = candle_core::Var::new(&[[3f64, 4.], [0., 0.], [-1e-100, 0.]], &Device::Cpu).unwrap();
        let y = lengths(&x).unwrap();
        assert_eq!(y.flatten_all().unwrap().to_vec1::<f64>().unwrap(), [5., 0., 1e-100]);
        let gradients = y.sum_all().unwrap().backward().unwrap();
        let gradient = gradients.get(&x).unwrap().to_vec2::<f64>().unwrap();
        assert!((gradient[0][0] - 0.6).abs() < 1e-15 && (gradient[0][1] - 0.8).abs() < 1e-15, "{gradient:?}");
        assert_eq!(gradient[1..], [[0., 0.], [-1., 0.]]);
        check_gradient(lengths, &random(1, (2, 3, 4)).unwrap(), 1e-8).unwrap();
    }
}
