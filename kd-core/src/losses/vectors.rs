//! Arithmetic that the losses on representations share: wide numbers, and lengths that are safe at zero.

use candle_core::{D, DType, Result, Tensor, bail};

/// A vector that is not longer than this counts as zero, as in PyTorch's `F.normalize`.
const SHORTEST: f64 = 1e-12;

/// A student's and a teacher's tensor as the losses compute with them: half precision in `f32`, because a square of
/// hidden states leaves the range of `f16`; the teacher detached and in the student's dtype.
pub(super) fn wide(loss: &str, student: &Tensor, teacher: &Tensor) -> Result<(Tensor, Tensor)> {
    for (tensor, name) in [(student, "student"), (teacher, "teacher")] {
        if !matches!(tensor.dtype(), DType::F16 | DType::BF16 | DType::F32 | DType::F64) {
            bail!("{loss}: the {name} has dtype {:?}, expected a float", tensor.dtype());
        }
    }
    let student = widen(student)?;
    let teacher = teacher.detach().to_dtype(student.dtype())?;
    Ok((student, teacher))
}

/// Half precision in `f32`, the rest as it is.
pub(super) fn widen(x: &Tensor) -> Result<Tensor> {
    match x.dtype() {
        DType::F16 | DType::BF16 => x.to_dtype(DType::F32),
        _ => Ok(x.clone()),
    }
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

/// Euclidean lengths over the last dimension, which becomes 1. A vector that counts as zero has length 0 and no
/// gradient, where the root alone would give NaN.
pub(super) fn lengths(x: &Tensor) -> Result<Tensor> {
    let (lengths, present) = guarded_lengths(x)?;
    lengths * present
}

/// `x / |x|` over the last dimension. A vector that counts as zero becomes exactly zero, without a gradient.
pub(super) fn unit(x: &Tensor) -> Result<Tensor> {
    let (lengths, present) = guarded_lengths(x)?;
    x.broadcast_div(&lengths)?.broadcast_mul(&present)
}

/// Lengths, with 1 in place of zeros, and 1 where the vector is not zero.
fn guarded_lengths(x: &Tensor) -> Result<(Tensor, Tensor)> {
    let squares = x.sqr()?.sum_keepdim(D::Minus1)?;
    let present = squares.gt(SHORTEST * SHORTEST)?;
    let lengths = present.where_cond(&squares, &squares.ones_like()?)?.sqrt()?;
    Ok((lengths, present.to_dtype(x.dtype())?))
}

/// `x / divisor` with an integer count that no tensor holds.
pub(super) fn divided(x: &Tensor, count: usize) -> Result<Tensor> {
    x * (1.0 / count as f64)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::testing::{check_gradient, random};
    use candle_core::Device;

    #[test]
    fn zero_vectors_have_no_direction_and_no_gradient() {
        let x = candle_core::Var::new(&[[3f64, 4.], [0., 0.], [1e-13, 0.]], &Device::Cpu).unwrap();
        assert_eq!(lengths(&x).unwrap().flatten_all().unwrap().to_vec1::<f64>().unwrap(), [5., 0., 0.]);
        assert_eq!(unit(&x).unwrap().to_vec2::<f64>().unwrap(), [[3. / 5., 4. / 5.], [0., 0.], [0., 0.]]);
        let sum = (lengths(&x).unwrap().sum_all().unwrap() + unit(&x).unwrap().sum_all().unwrap()).unwrap();
        let gradients = sum.backward().unwrap();
        let gradient = gradients.get(&x).unwrap().to_vec2::<f64>().unwrap();
        // x/|x| of the length, and (1 - u Σ u) / |x| of the direction: 0.6 + (1 - 0.6 · 1.4) / 5.
        assert!((gradient[0][0] - 0.632).abs() < 1e-12, "{gradient:?}");
        assert_eq!(gradient[1..], [[0., 0.], [0., 0.]]);
    }

    #[test]
    fn lengths_and_directions_have_their_gradients() {
        check_gradient(lengths, &random(1, (2, 3, 4)).unwrap(), 1e-8).unwrap();
        check_gradient(unit, &random(2, (2, 3, 4)).unwrap(), 1e-8).unwrap();
    }
}
