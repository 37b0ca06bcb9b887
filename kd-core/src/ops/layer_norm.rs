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

pub(crate) mod kernel;
mod residual;

use candle_core::backend::BackendStorage;
use candle_core::{CpuStorage, CustomOp3, D, DType, Layout, Result, Shape, Tensor, bail};

use super::backward::hand_over;
use super::cpu::{self, for_float};
use kernel::Norm;

pub use residual::layer_norm_residual;

/// Normalises the last dimension to mean 0 and variance 1, then scales by `gamma` and adds `beta`.
///
/// # Shapes
/// - `x`: `(.., width)`, `gamma` and `beta`: `(width,)`; `eps` is added to the variance
/// - returns the shape of `x`, differentiable in all three
///
/// # Errors
/// If shapes, dtypes or devices do not fit, or `eps` is negative or not finite.
pub fn layer_norm(x: &Tensor, gamma: &Tensor, beta: &Tensor, eps: f64) -> Result<Tensor> {
    check("layer_norm", x, gamma, beta, eps)?;
    #[cfg(feature = "cuda")]
    if super::cuda::has_norm(x)? {
        return super::cuda::norm(x, None, gamma, beta, eps, None);
    }
    if cpu::has_kernel(x) {
        x.contiguous()?.apply_op3(&gamma.contiguous()?, &beta.contiguous()?, LayerNorm { eps })
    } else {
        composed(x, gamma, beta, eps)
    }
}

fn check(op: &str, x: &Tensor, gamma: &Tensor, beta: &Tensor, eps: f64) -> Result<()> {
    let width = gamma.dims1()?;
    if x.rank() == 0 || x.dim(D::Minus1)? != width {
        bail!("{op}: expected x of shape (.., {width}) for gamma {:?}, found {:?}", gamma.dims(), x.dims());
    }
    if beta.dims() != [width] {
        bail!("{op}: expected beta of shape [{width}], found {:?}", beta.dims());
    }
    if !(eps >= 0.0 && eps.is_finite()) {
        bail!("{op}: expected a finite eps >= 0, found {eps}");
    }
    Ok(())
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
            Ok((cpu::storage(Norm { gamma, beta, eps: self.eps }.forward(x)), l1.shape().clone()))
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
            // SAFETY: `backward` writes every value.
            let mut dx = unsafe { cpu::uninit::<T>(x.elem_count()) };
            let (sum, weight) = (cpu::values(x)?, cpu::values(gamma)?);
            let gradients = kernel::backward(&mut dx, Some(&cpu::values(&grad)?), &sum, &weight, self.eps, None);
            Ok((
                hand_over(x, cpu::tensor(dx, x.shape())?),
                hand_over(gamma, cpu::tensor(gradients.gamma, gamma.shape())?),
                hand_over(beta, cpu::tensor(gradients.beta, beta.shape())?),
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
