//! Softmax of scores with scale, mask and dropout.

use candle_core::backend::BackendStorage;
use candle_core::{CpuStorage, CustomOp1, D, DType, Layout, Result, Shape, Tensor, bail};

use super::{softmax, softmax_row};
use crate::model::Mode;
use crate::ops::backward::hand_over;
use crate::ops::cpu::{self, Float, for_float};
use crate::ops::dropout::Mask;

/// `dropout(softmax(scale · scores))` over the keys that the mask keeps.
///
/// A masked key gets probability exactly 0 and no gradient, whatever its score; a row without any key is all zeros.
/// The backward computes the probabilities again.
///
/// # Shapes
/// - `scores`: `(batch, .., keys)`, `mask`: `(batch, keys)` u8, 0 on padding
/// - `p`: probability in `[0, 1)` that a probability is dropped in training
/// - returns the shape of `scores`, differentiable in them
///
/// # Errors
/// If shapes do not fit, the mask is not u8, or `scale` or `p` is out of range.
///
/// ```
/// use candle_core::{Device, Tensor};
/// use kd_core::{model::Mode, ops::masked_softmax};
/// let scores = Tensor::new(&[[[0f64, 9f64.ln(), 100.]]], &Device::Cpu)?;
/// let mask = Tensor::new(&[[1u8, 1, 0]], &Device::Cpu)?;
/// // e^0 : e^(ln 9 / 2) = 1 : 3.
/// let probs = masked_softmax(&scores, 0.5, &mask, 0.1, Mode::Eval)?.flatten_all()?.to_vec1::<f64>()?;
/// assert!((probs[0] - 0.25).abs() < 1e-15 && (probs[1] - 0.75).abs() < 1e-15 && probs[2] == 0.0);
/// # Ok::<(), candle_core::Error>(())
/// ```
pub fn masked_softmax(scores: &Tensor, scale: f64, mask: &Tensor, p: f64, mode: Mode) -> Result<Tensor> {
    if scores.rank() < 2 || mask.dims() != [scores.dim(0)?, scores.dim(D::Minus1)?] || mask.dtype() != DType::U8 {
        bail!(
            "masked_softmax: expected scores (batch, .., keys) and a u8 mask (batch, keys), found {:?} and {:?} {:?}",
            scores.dims(),
            mask.dtype(),
            mask.dims()
        );
    }
    if !scale.is_finite() {
        bail!("masked_softmax: expected a finite scale, found {scale}");
    }
    let dropout = Mask::new(p, mode)?;
    #[cfg(feature = "cuda")]
    if crate::ops::cuda::has_kernel(scores) {
        return crate::ops::cuda::masked_softmax(scores, scale, mask, dropout);
    }
    if !cpu::has_kernel(scores) {
        return composed(scores, scale, mask, dropout);
    }
    let mask = mask.flatten_all()?.to_vec1()?;
    scores.contiguous()?.apply_op1(MaskedSoftmax { scale, mask, dropout })
}

/// The same from Candle's operations.
fn composed(scores: &Tensor, scale: f64, mask: &Tensor, dropout: Option<Mask>) -> Result<Tensor> {
    let mut shape = vec![1; scores.rank()];
    (shape[0], shape[scores.rank() - 1]) = mask.dims2()?;
    let mask = mask.reshape(shape)?.broadcast_as(scores.shape())?.contiguous()?;
    let lowest = match scores.dtype() {
        DType::F16 => -6e4f32, // the range ends at -65504
        _ => -1e30,
    };
    let lowest = Tensor::new(lowest, scores.device())?.to_dtype(scores.dtype())?;
    let scores = mask.where_cond(&(scores * scale)?, &lowest.broadcast_as(scores.shape())?.contiguous()?)?;
    // The product makes rows without any key zero instead of even.
    let probs = (softmax(&scores)? * mask.to_dtype(scores.dtype())?)?;
    match dropout {
        Some(dropout) => &probs * dropout.tensor(&probs)?,
        None => Ok(probs),
    }
}

/// Softmax of one row in place, over the values whose mask is not 0.
#[inline(always)]
pub(crate) fn masked_row<T: Float>(row: &mut [T], mask: &[u8]) {
    let mut any = false;
    for (score, &mask) in row.iter_mut().zip(mask) {
        if mask == 0 {
            *score = T::NEG_INFINITY;
        }
        any |= mask != 0;
    }
    if any { softmax_row(row) } else { row.fill(T::zero()) }
}

/// Turns a row's gradients of the dropped probabilities into those of the scores, and `probs` into the dropped ones.
#[inline(always)]
pub(crate) fn backward_row<T: Float>(probs: &mut [T], gradients: &mut [T], factors: Option<&[T]>) {
    if let Some(factors) = factors {
        for (g, &factor) in gradients.iter_mut().zip(factors) {
            *g *= factor;
        }
    }
    let mean = cpu::dot(gradients, probs);
    for (g, &p) in gradients.iter_mut().zip(&*probs) {
        *g = p * (*g - mean);
    }
    if let Some(factors) = factors {
        for (p, &factor) in probs.iter_mut().zip(factors) {
            *p *= factor;
        }
    }
}

struct MaskedSoftmax {
    scale: f64,
    /// `(batch · keys)`, 0 on padding.
    mask: Vec<u8>,
    dropout: Option<Mask>,
}

impl MaskedSoftmax {
    /// The mask of a row.
    #[inline(always)]
    fn mask(&self, row: usize, rows_per_example: usize, keys: usize) -> &[u8] {
        &self.mask[row / rows_per_example * keys..][..keys]
    }

    /// Writes the probabilities of a row before dropout.
    #[inline(always)]
    fn row<T: Float>(&self, scores: &[T], mask: &[u8], probs: &mut [T]) {
        let scale = T::from_f64(self.scale);
        for (y, &x) in probs.iter_mut().zip(scores) {
            *y = x * scale;
        }
        masked_row(probs, mask);
    }

    fn forward<T: Float>(&self, scores: &[T], rows_per_example: usize, keys: usize) -> Vec<T> {
        // SAFETY: the loop writes every row.
        let mut y = unsafe { cpu::uninit::<T>(scores.len()) };
        cpu::par_rows(
            &mut y,
            keys,
            #[inline(always)]
            |first_row, rows| {
                for (row, y) in (first_row..).zip(rows.chunks_exact_mut(keys)) {
                    self.row(&scores[row * keys..][..keys], self.mask(row, rows_per_example, keys), y);
                    if let Some(dropout) = &self.dropout {
                        dropout.apply((row * keys) as u64, y);
                    }
                }
            },
        );
        y
    }

    fn backward<T: Float>(&self, scores: &[T], dy: &[T], rows_per_example: usize, keys: usize) -> Vec<T> {
        let scale = T::from_f64(self.scale);
        // SAFETY: the loop writes every row.
        let mut dx = unsafe { cpu::uninit::<T>(scores.len()) };
        cpu::par_rows(
            &mut dx,
            keys,
            #[inline(always)]
            |first_row, rows| {
                let (mut probs, mut factors) = (vec![T::zero(); keys], vec![T::zero(); keys]);
                for (row, dx) in (first_row..).zip(rows.chunks_exact_mut(keys)) {
                    self.row(&scores[row * keys..][..keys], self.mask(row, rows_per_example, keys), &mut probs);
                    dx.copy_from_slice(&dy[row * keys..][..keys]);
                    let factors = self.dropout.as_ref().map(|dropout| {
                        dropout.factors((row * keys) as u64, &mut factors);
                        factors.as_slice()
                    });
                    backward_row(&mut probs, dx, factors);
                    for dx in dx {
                        *dx *= scale;
                    }
                }
            },
        );
        dx
    }
}

impl CustomOp1 for MaskedSoftmax {
    fn name(&self) -> &'static str {
        "masked-softmax"
    }

    fn cpu_fwd(&self, storage: &CpuStorage, layout: &Layout) -> Result<(CpuStorage, Shape)> {
        let (rows_per_example, keys) = sizes(layout.shape());
        for_float!(storage.dtype(), T => {
            let y = self.forward(cpu::slice::<T>(storage, layout)?, rows_per_example, keys);
            Ok((cpu::storage(y), layout.shape().clone()))
        })
    }

    fn bwd(&self, x: &Tensor, _: &Tensor, grad: &Tensor) -> Result<Option<Tensor>> {
        let (grad, (rows_per_example, keys)) = (grad.contiguous()?, sizes(x.shape()));
        for_float!(x.dtype(), T => {
            let dx = self.backward::<T>(&cpu::values(x)?, &cpu::values(&grad)?, rows_per_example, keys);
            Ok(hand_over(x, cpu::tensor(dx, x.shape())?))
        })
    }
}

/// Rows of an example and values of a row.
fn sizes(shape: &Shape) -> (usize, usize) {
    match shape.dims() {
        [_, rows @ .., keys] => (rows.iter().product(), *keys),
        _ => (0, 0),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::testing::{assert_close, check_gradient, random};
    use candle_core::Device;

    const TRAIN: Mode = Mode::Train { seed: 2 };

    fn mask() -> Tensor {
        Tensor::new(&[[1u8, 1, 1, 1], [0, 1, 0, 1], [0, 0, 0, 0]], &Device::Cpu).unwrap()
    }

    #[test]
    fn kernel_and_composition_agree() {
        for shape in [vec![3, 4], vec![3, 5, 4], vec![3, 2, 5, 4], vec![3, 0, 4]] {
            let scores = (random(1, shape).unwrap() * 3.0).unwrap();
            for p in [0.0, 0.4] {
                let found = masked_softmax(&scores, 0.7, &mask(), p, TRAIN).unwrap();
                let expected = composed(&scores, 0.7, &mask(), Mask::new(p, TRAIN).unwrap()).unwrap();
                assert_close(&found, &expected, 1e-15, 0.0).unwrap();
            }
        }
    }

    #[test]
    fn gradients_are_right() {
        for p in [0.0, 0.4] {
            let run = |x: &Tensor| masked_softmax(x, 0.7, &mask(), p, TRAIN);
            check_gradient(run, &(random(1, (3, 5, 4)).unwrap() * 3.0).unwrap(), 1e-8).unwrap();
            let swapped = random(1, (4, 5, 3)).unwrap();
            check_gradient(|x| run(&x.transpose(0, 2)?)?.transpose(0, 1)?.exp(), &swapped, 1e-8).unwrap();
        }
    }

    #[test]
    fn masked_scores_do_not_matter() {
        let scores = Tensor::new(&[[f32::NAN, 1.0, f32::INFINITY, 1.0]], &Device::Cpu).unwrap();
        let mask = mask().narrow(0, 1, 1).unwrap();
        let probs = masked_softmax(&scores, 1.0, &mask, 0.0, TRAIN).unwrap();
        assert_eq!(probs.to_vec2::<f32>().unwrap(), [[0.0, 0.5, 0.0, 0.5]]);
    }

    #[test]
    fn errors_name_what_was_found() {
        let scores = random(1, (3, 2, 5)).unwrap();
        let message = masked_softmax(&scores, 1.0, &mask(), 0.0, TRAIN).unwrap_err().to_string();
        assert!(message.contains("[3, 2, 5] and U8 [3, 4]"), "{message}");
        let message = masked_softmax(&mask(), f64::NAN, &mask(), 0.0, TRAIN).unwrap_err().to_string();
        assert!(message.contains("NaN"), "{message}");
    }
}
