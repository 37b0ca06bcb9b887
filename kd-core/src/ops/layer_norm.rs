//! Layer normalisation with a backward.
//!
//! `y = γ (x - mean) / √(var + ε) + β` over the last dimension, `var` dividing by the width (Ba et al. 2016).
//! With `x̂` the normalised input and `g = γ dy`, `dx = (g - mean(g) - x̂ mean(g x̂)) / √(var + ε)`. Mean and
//! variance are computed again in the backward: that is cheaper than keeping them.
//!
//! `candle_nn::LayerNorm` has no backward on contiguous input and says nothing; this has one.
//!
//! ```
//! use candle_core::{DType, Device, Tensor};
//! let x = Tensor::new(&[[1f32, 3.]], &Device::Cpu)?;
//! let (gamma, beta) = (Tensor::new(&[1f32, 2.], &Device::Cpu)?, Tensor::new(&[0f32, 10.], &Device::Cpu)?);
//! // Mean 2, variance 1: normalised to [-1, 1].
//! assert_eq!(kd_core::ops::layer_norm(&x, &gamma, &beta, 0.0)?.to_vec2::<f32>()?, [[-1., 12.]]);
//! # Ok::<(), candle_core::Error>(())
//! ```

use candle_core::backend::BackendStorage;
use candle_core::{CpuStorage, CustomOp3, D, DType, Layout, Result, Shape, Tensor, bail};
use rayon::prelude::*;

use super::cpu::{self, Float, for_float};

/// Normalises the last dimension to mean 0 and variance 1, then scales by `gamma` and adds `beta`.
///
/// # Shapes
/// - `x`: `(.., width)`, `gamma` and `beta`: `(width,)`; `eps` is added to the variance
/// - returns the shape of `x`, differentiable in all three
///
/// # Errors
/// If shapes, dtypes or devices do not fit, or `eps` is negative or not finite.
pub fn layer_norm(x: &Tensor, gamma: &Tensor, beta: &Tensor, eps: f64) -> Result<Tensor> {
    let width = gamma.dims1()?;
    if x.rank() == 0 || x.dim(D::Minus1)? != width {
        bail!("layer_norm: expected x of shape (.., {width}) for gamma {:?}, found {:?}", gamma.dims(), x.dims());
    }
    if beta.dims() != [width] {
        bail!("layer_norm: expected beta of shape [{width}], found {:?}", beta.dims());
    }
    if !(eps >= 0.0 && eps.is_finite()) {
        bail!("layer_norm: expected a finite eps >= 0, found {eps}");
    }
    if cpu::has_kernel(x) {
        x.contiguous()?.apply_op3(&gamma.contiguous()?, &beta.contiguous()?, LayerNorm { eps })
    } else {
        composed(x, gamma, beta, eps)
    }
}

/// The same from Candle's operations; half precision is widened to `f32` in between.
fn composed(x: &Tensor, gamma: &Tensor, beta: &Tensor, eps: f64) -> Result<Tensor> {
    let dtype = x.dtype();
    let wide = match dtype {
        DType::F16 | DType::BF16 => DType::F32,
        other => other,
    };
    let x = x.to_dtype(wide)?;
    let centred = x.broadcast_sub(&x.mean_keepdim(D::Minus1)?)?;
    let variance = centred.sqr()?.mean_keepdim(D::Minus1)?;
    let normalised = centred.broadcast_div(&(variance + eps)?.sqrt()?)?;
    normalised.broadcast_mul(&gamma.to_dtype(wide)?)?.broadcast_add(&beta.to_dtype(wide)?)?.to_dtype(dtype)
}

struct LayerNorm {
    eps: f64,
}

/// Mean and `1 / √(var + eps)` of a row.
#[inline(always)]
fn moments<T: Float>(row: &[T], eps: T) -> (T, T) {
    let width = T::from_f64(row.len() as f64);
    let mean = cpu::sum(row) / width;
    let variance = cpu::sum_map(row, |x| (x - mean) * (x - mean)) / width;
    (mean, T::one() / (variance + eps).sqrt())
}

impl LayerNorm {
    fn forward<T: Float>(&self, x: &[T], gamma: &[T], beta: &[T]) -> CpuStorage {
        let (width, eps) = (gamma.len(), T::from_f64(self.eps));
        // SAFETY: the loop writes every row.
        let mut y = unsafe { cpu::uninit::<T>(x.len()) };
        cpu::par_rows(&mut y, width, |first_row, y| {
            let x = &x[first_row * width..][..y.len()];
            for (y, x) in y.chunks_exact_mut(width).zip(x.chunks_exact(width)) {
                let (mean, scale) = moments(x, eps);
                for (((y, &x), &gamma), &beta) in y.iter_mut().zip(x).zip(gamma).zip(beta) {
                    *y = (x - mean) * scale * gamma + beta;
                }
            }
        });
        cpu::storage(y)
    }

    /// Gradients of `x`, `gamma` and `beta`.
    fn backward<T: Float>(&self, x: &[T], gamma: &[T], dy: &[T]) -> (Vec<T>, Vec<T>, Vec<T>) {
        let (width, eps) = (gamma.len(), T::from_f64(self.eps));
        if x.is_empty() {
            return (vec![], vec![T::zero(); width], vec![T::zero(); width]);
        }
        let piece = cpu::rows_per_task(width) * width;
        // SAFETY: the loop writes every row.
        let mut dx = unsafe { cpu::uninit::<T>(x.len()) };
        // Each piece of rows sums its own share of the gradients of gamma and beta.
        let mut shares = vec![T::zero(); x.len().div_ceil(piece) * 2 * width];
        let work = |(dx, shares): (&mut [T], &mut [T]), (x, dy): (&[T], &[T])| {
            let (dgamma, dbeta) = shares.split_at_mut(width);
            for ((dx, x), dy) in dx.chunks_exact_mut(width).zip(x.chunks_exact(width)).zip(dy.chunks_exact(width)) {
                let (mean, scale) = moments(x, eps);
                backward_row(dx, x, dy, gamma, mean, scale, dgamma, dbeta);
            }
        };
        if x.len() <= piece {
            work((&mut dx, &mut shares), (x, dy));
        } else {
            let outputs = dx.par_chunks_mut(piece).zip(shares.par_chunks_mut(2 * width));
            outputs
                .zip(x.par_chunks(piece).zip(dy.par_chunks(piece)))
                .for_each(|(outputs, inputs)| work(outputs, inputs));
        }
        let mut dgamma = vec![T::zero(); 2 * width];
        for share in shares.chunks_exact(2 * width) {
            for (sum, &value) in dgamma.iter_mut().zip(share) {
                *sum += value;
            }
        }
        let dbeta = dgamma.split_off(width);
        (dx, dgamma, dbeta)
    }
}

#[inline(always)]
#[allow(clippy::too_many_arguments)] // slices of equal length, one loop
fn backward_row<T: Float>(
    dx: &mut [T],
    x: &[T],
    dy: &[T],
    gamma: &[T],
    mean: T,
    scale: T,
    dgamma: &mut [T],
    dbeta: &mut [T],
) {
    let width = x.len();
    let (dx, dy, gamma) = (&mut dx[..width], &dy[..width], &gamma[..width]);
    let (dgamma, dbeta) = (&mut dgamma[..width], &mut dbeta[..width]);
    for i in 0..width {
        let normalised = (x[i] - mean) * scale;
        dgamma[i] += dy[i] * normalised;
        dbeta[i] += dy[i];
        dx[i] = dy[i] * gamma[i];
    }
    let count = T::from_f64(width as f64);
    let mean_g = cpu::sum(dx) / count;
    let mean_gx = cpu::sum_map2(dx, x, |g, x| g * (x - mean)) * scale / count;
    for i in 0..width {
        let normalised = (x[i] - mean) * scale;
        dx[i] = (dx[i] - mean_g - normalised * mean_gx) * scale;
    }
}

impl CustomOp3 for LayerNorm {
    fn name(&self) -> &'static str {
        "layer-norm"
    }

    fn cpu_fwd(
        &self,
        s1: &CpuStorage,
        l1: &Layout,
        s2: &CpuStorage,
        l2: &Layout,
        s3: &CpuStorage,
        l3: &Layout,
    ) -> Result<(CpuStorage, Shape)> {
        for_float!(s1.dtype(), T => {
            let (x, gamma, beta) = (cpu::slice::<T>(s1, l1)?, cpu::slice::<T>(s2, l2)?, cpu::slice::<T>(s3, l3)?);
            Ok((self.forward(x, gamma, beta), l1.shape().clone()))
        })
    }

    fn bwd(
        &self,
        x: &Tensor,
        gamma: &Tensor,
        beta: &Tensor,
        _: &Tensor,
        grad: &Tensor,
    ) -> Result<(Option<Tensor>, Option<Tensor>, Option<Tensor>)> {
        let grad = grad.contiguous()?;
        for_float!(x.dtype(), T => {
            let (dx, dgamma, dbeta) =
                self.backward::<T>(&cpu::values(x)?, &cpu::values(gamma)?, &cpu::values(&grad)?);
            Ok((
                Some(cpu::tensor(dx, x.shape())?),
                Some(cpu::tensor(dgamma, gamma.shape())?),
                Some(cpu::tensor(dbeta, beta.shape())?),
            ))
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::testing::{assert_close, random};

    #[test]
    fn kernel_and_composition_agree() {
        for shape in [vec![5], vec![4, 5], vec![2, 3, 37], vec![0, 5]] {
            let width = shape[shape.len() - 1];
            let (x, gamma, beta) = (random(1, shape).unwrap(), random(2, width).unwrap(), random(3, width).unwrap());
            let expected = composed(&x, &gamma, &beta, 1e-5).unwrap();
            assert_close(&layer_norm(&x, &gamma, &beta, 1e-5).unwrap(), &expected, 1e-12, 0.0).unwrap();
        }
    }

    #[test]
    fn half_precision_is_normalised_in_f32() {
        // The squares of 1000 and -1000 overflow f16, whose largest value is 65504.
        let x = Tensor::new(&[[1000f32, -1000.]], &candle_core::Device::Cpu).unwrap().to_dtype(DType::F16).unwrap();
        let (gamma, beta) = (Tensor::ones_like(&x.get(0).unwrap()).unwrap(), x.get(0).unwrap().zeros_like().unwrap());
        let y = layer_norm(&x, &gamma, &beta, 1e-5).unwrap().to_dtype(DType::F32).unwrap();
        assert_eq!(y.to_vec2::<f32>().unwrap(), [[1.0, -1.0]]);
    }

    #[test]
    fn a_large_common_offset_does_not_reach_the_result() {
        let x = (random(1, (3, 64)).unwrap().to_dtype(DType::F32).unwrap() * 4.0).unwrap();
        let shifted = (x.round().unwrap() + 10_000.0).unwrap();
        let (gamma, beta) = (Tensor::ones(64, DType::F32, x.device()).unwrap(), random(2, 64).unwrap());
        let beta = beta.to_dtype(DType::F32).unwrap();
        let expected = layer_norm(&x.round().unwrap(), &gamma, &beta, 1e-5).unwrap();
        assert_close(&layer_norm(&shifted, &gamma, &beta, 1e-5).unwrap(), &expected, 1e-3, 0.0).unwrap();
    }

    #[test]
    fn errors_name_both_shapes() {
        let (x, gamma) = (random(1, (2, 3)).unwrap(), random(2, 4).unwrap());
        let message = layer_norm(&x, &gamma, &gamma, 1e-5).unwrap_err().to_string();
        assert!(message.contains("(.., 4)") && message.contains("[2, 3]"), "{message}");
    }
}
