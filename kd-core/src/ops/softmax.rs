//! Softmax and its logarithm over the last dimension, with backwards.
//!
//! `softmax(x)_i = e^(x_i - m) / Σ_j e^(x_j - m)` with `m` the largest value, `dx = p (dy - Σ p dy)`;
//! `log_softmax(x)_i = x_i - m - ln Σ_j e^(x_j - m)`, `dx = dy - p Σ dy`.
//! `candle_nn::ops::softmax_last_dim` has no backward and says nothing; these have one.
//!
//! ```
//! use candle_core::{Device, Tensor};
//! let x = Tensor::new(&[0f64, 3f64.ln()], &Device::Cpu)?;
//! let probs = kd_core::ops::softmax(&x)?.to_vec1::<f64>()?;
//! assert!((probs[0] - 0.25).abs() < 1e-12 && (probs[1] - 0.75).abs() < 1e-12);
//! # Ok::<(), candle_core::Error>(())
//! ```

pub(crate) mod masked;

use candle_core::backend::BackendStorage;
use candle_core::{CpuStorage, CustomOp1, D, Layout, Result, Shape, Tensor, bail};

use super::backward::hand_over;
use super::cpu::{self, Float, for_float};

pub use masked::masked_softmax;

/// Probabilities over the last dimension.
///
/// A logit of negative infinity gets probability 0. A row of nothing else, with a NaN or with positive infinity,
/// becomes NaN, as in PyTorch.
///
/// # Errors
/// If `x` is a scalar.
pub fn softmax(x: &Tensor) -> Result<Tensor> {
    apply(x, Softmax { log: false })
}

/// Logarithms of [`softmax()`], in nats; finite for all finite logits.
///
/// # Errors
/// If `x` is a scalar.
pub fn log_softmax(x: &Tensor) -> Result<Tensor> {
    apply(x, Softmax { log: true })
}

fn apply(x: &Tensor, op: Softmax) -> Result<Tensor> {
    if x.rank() == 0 {
        bail!("{}: expected at least one dimension, found a scalar", op.name());
    }
    #[cfg(feature = "cuda")]
    if super::cuda::has_kernel(x) {
        return super::cuda::softmax(x, op.log);
    }
    if cpu::has_kernel(x) { x.contiguous()?.apply_op1(op) } else { composed(x, op.log) }
}

/// The same from Candle's operations.
fn composed(x: &Tensor, log: bool) -> Result<Tensor> {
    if x.elem_count() == 0 {
        return Ok(x.clone());
    }
    if log { candle_nn::ops::log_softmax(x, D::Minus1) } else { candle_nn::ops::softmax(x, D::Minus1) }
}

#[derive(Clone, Copy)]
struct Softmax {
    log: bool,
}

/// Softmax of one row in place.
#[inline(always)]
pub(crate) fn softmax_row<T: Float>(row: &mut [T]) {
    let max = cpu::max(row);
    for x in row.iter_mut() {
        *x = (*x - max).exp();
    }
    let scale = T::one() / cpu::sum(row);
    for x in row.iter_mut() {
        *x *= scale;
    }
}

impl Softmax {
    fn forward<T: Float>(self, x: &[T], width: usize) -> CpuStorage {
        // SAFETY: the loop writes every row.
        let mut y = unsafe { cpu::uninit::<T>(x.len()) };
        cpu::par_rows(
            &mut y,
            width,
            #[inline(always)]
            |first_row, y| {
                let x = &x[first_row * width..][..y.len()];
                for (y, x) in y.chunks_exact_mut(width).zip(x.chunks_exact(width)) {
                    if self.log {
                        let max = cpu::max(x);
                        let shift = max + cpu::sum_map(x, |x| (x - max).exp()).ln();
                        for (y, &x) in y.iter_mut().zip(x) {
                            *y = x - shift;
                        }
                    } else {
                        y.copy_from_slice(x);
                        softmax_row(y);
                    }
                }
            },
        );
        cpu::storage(y)
    }

    fn backward<T: Float>(self, y: &[T], dy: &[T], width: usize) -> Vec<T> {
        // SAFETY: the loop writes every row.
        let mut dx = unsafe { cpu::uninit::<T>(y.len()) };
        cpu::par_rows(
            &mut dx,
            width,
            #[inline(always)]
            |first_row, dx| {
                let (y, dy) = (&y[first_row * width..][..dx.len()], &dy[first_row * width..][..dx.len()]);
                for ((dx, y), dy) in dx.chunks_exact_mut(width).zip(y.chunks_exact(width)).zip(dy.chunks_exact(width)) {
                    if self.log {
                        let sum = cpu::sum(dy);
                        for ((dx, &y), &dy) in dx.iter_mut().zip(y).zip(dy) {
                            *dx = dy - y.exp() * sum;
                        }
                    } else {
                        let sum = cpu::dot(y, dy);
                        for ((dx, &y), &dy) in dx.iter_mut().zip(y).zip(dy) {
                            *dx = y * (dy - sum);
                        }
                    }
                }
            },
        );
        dx
    }
}

impl CustomOp1 for Softmax {
    fn name(&self) -> &'static str {
        if self.log { "log-softmax" } else { "softmax" }
    }

    fn cpu_fwd(&self, storage: &CpuStorage, layout: &Layout) -> Result<(CpuStorage, Shape)> {
        let width = layout.shape().dim(D::Minus1)?;
        for_float!(storage.dtype(), T => {
            Ok((self.forward(cpu::slice::<T>(storage, layout)?, width), layout.shape().clone()))
        })
    }

    fn bwd(&self, x: &Tensor, y: &Tensor, grad: &Tensor) -> Result<Option<Tensor>> {
        let (grad, width) = (grad.contiguous()?, x.dim(D::Minus1)?);
        for_float!(x.dtype(), T => {
            let dx = self.backward::<T>(&cpu::values(y)?, &cpu::values(&grad)?, width);
            Ok(hand_over(x, cpu::tensor(dx, x.shape())?))
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::testing::{assert_close, random};
    use candle_core::{DType, Device};

    #[test]
    fn kernel_and_composition_agree() {
        for shape in [vec![5], vec![3, 1], vec![2, 3, 40], vec![0, 3]] {
            let x = (random(1, shape).unwrap() * 10.0).unwrap();
            assert_close(&softmax(&x).unwrap(), &composed(&x, false).unwrap(), 1e-14, 0.0).unwrap();
            assert_close(&log_softmax(&x).unwrap(), &composed(&x, true).unwrap(), 1e-13, 0.0).unwrap();
        }
    }

    #[test]
    fn extreme_logits_stay_exact() {
        let x = Tensor::new(&[[1e4f32, 0., f32::NEG_INFINITY]], &Device::Cpu).unwrap();
        assert_eq!(softmax(&x).unwrap().to_vec2::<f32>().unwrap(), [[1.0, 0.0, 0.0]]);
        assert_eq!(log_softmax(&x).unwrap().to_vec2::<f32>().unwrap(), [[0.0, -1e4, f32::NEG_INFINITY]]);
        let x = Tensor::new(&[[f32::NAN, 0.]], &Device::Cpu).unwrap();
        assert!(softmax(&x).unwrap().to_vec2::<f32>().unwrap()[0].iter().all(|p| p.is_nan()));
    }

    #[test]
    fn no_classes_and_scalars() {
        let empty = Tensor::zeros((2, 0), DType::F32, &Device::Cpu).unwrap();
        assert_eq!(softmax(&empty).unwrap().dims(), [2, 0]);
        let message = softmax(&Tensor::new(1f32, &Device::Cpu).unwrap()).unwrap_err().to_string();
        assert!(message.contains("scalar"), "{message}");
    }
}
