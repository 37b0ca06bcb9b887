//! Layer norm of a residual sum.

use candle_core::backend::BackendStorage;
use candle_core::{CpuStorage, CustomOp3, Layout, Result, Shape, Tensor, bail};

use super::kernel::{self, Addition, Norm};
use super::{check, layer_norm};
use crate::model::Mode;
use crate::ops::cpu::{self, for_float};
use crate::ops::dropout::{Mask, dropout};
use crate::ops::tie::Ties;

/// `LayerNorm(residual + dropout(x))`: how the blocks of a post-norm Transformer end, as one op.
///
/// # Shapes
/// - `x`, `residual`: `(.., width)`, of one shape; `gamma` and `beta`: `(width,)`; `eps` is added to the variance
/// - `p`: probability in `[0, 1)` that a value of `x` is dropped in training
/// - returns the shape of `x`, differentiable in all four tensors
///
/// # Errors
/// If shapes, dtypes or devices do not fit, or `eps` or `p` is out of range.
///
/// ```
/// use candle_core::{Device, Tensor};
/// use kd_core::{model::Mode, ops::layer_norm_residual};
/// let (x, residual) = (Tensor::new(&[[0f32, 2.]], &Device::Cpu)?, Tensor::new(&[[1f32, 1.]], &Device::Cpu)?);
/// let (gamma, beta) = (Tensor::new(&[1f32, 2.], &Device::Cpu)?, Tensor::new(&[0f32, 10.], &Device::Cpu)?);
/// // The sum is [1, 3]: mean 2, variance 1.
/// let y = layer_norm_residual(&x, &residual, &gamma, &beta, 0.0, 0.1, Mode::Eval)?;
/// assert_eq!(y.to_vec2::<f32>()?, [[-1., 12.]]);
/// # Ok::<(), candle_core::Error>(())
/// ```
pub fn layer_norm_residual(
    x: &Tensor,
    residual: &Tensor,
    gamma: &Tensor,
    beta: &Tensor,
    eps: f64,
    p: f64,
    mode: Mode,
) -> Result<Tensor> {
    check("layer_norm_residual", x, gamma, beta, eps)?;
    if residual.dims() != x.dims() {
        bail!("layer_norm_residual: expected a residual of shape {:?}, found {:?}", x.dims(), residual.dims());
    }
    let mask = Mask::new(p, mode)?;
    #[cfg(feature = "cuda")]
    if crate::ops::cuda::has_norm(x)? {
        return crate::ops::cuda::norm(x, Some(residual), gamma, beta, eps, mask);
    }
    if !cpu::has_kernel(x) {
        return layer_norm(&(dropout(x, p, mode)? + residual)?, gamma, beta, eps);
    }
    let weights = [gamma.contiguous()?, beta.contiguous()?];
    let (ties, token) = Ties::new(&weights)?;
    let op = LayerNormResidual { weights: weights.map(|weight| weight.detach()), eps, mask, ties };
    x.contiguous()?.apply_op3(&residual.contiguous()?, &token, op)
}

struct LayerNormResidual {
    /// Gamma and beta.
    weights: [Tensor; 2],
    eps: f64,
    mask: Option<Mask>,
    ties: Ties,
}

impl CustomOp3 for LayerNormResidual {
    fn name(&self) -> &'static str {
        "layer-norm-residual"
    }

    fn cpu_fwd(
        &self,
        s1: &CpuStorage,
        l1: &Layout,
        s2: &CpuStorage,
        l2: &Layout,
        _: &CpuStorage,
        _: &Layout,
    ) -> Result<(CpuStorage, Shape)> {
        let [gamma, beta] = &self.weights;
        for_float!(s1.dtype(), T => {
            let residual = cpu::slice::<T>(s2, l2)?;
            let (gamma, beta) = (cpu::values::<T>(gamma)?, cpu::values::<T>(beta)?);
            let mut y = cpu::slice::<T>(s1, l1)?.to_vec();
            let addition = Addition { bias: None, residual, dropout: self.mask };
            addition.normalise_in_place(&mut y, Norm { gamma: &gamma, beta: &beta, eps: self.eps });
            Ok((cpu::storage(y), l1.shape().clone()))
        })
    }

    fn bwd(
        &self,
        x: &Tensor,
        residual: &Tensor,
        token: &Tensor,
        _: &Tensor,
        grad: &Tensor,
    ) -> Result<(Option<Tensor>, Option<Tensor>, Option<Tensor>)> {
        let grad = grad.contiguous()?;
        let gamma = &self.weights[0];
        for_float!(x.dtype(), T => {
            // The sum is made again: cheaper than keeping it.
            let mut sum = cpu::values::<T>(x)?.to_vec();
            Addition { bias: None, residual: &cpu::values::<T>(residual)?, dropout: self.mask }.add(&mut sum, gamma.dim(0)?);
            // SAFETY: `backward` writes every value.
            let mut d = unsafe { cpu::uninit::<T>(sum.len()) };
            let dy = cpu::values::<T>(&grad)?;
            let gradients = kernel::backward(&mut d, Some(&dy), &sum, &cpu::values(gamma)?, self.eps, self.mask);
            self.ties.give(0, || cpu::tensor(gradients.gamma, gamma.shape()))?;
            self.ties.give(1, || cpu::tensor(gradients.beta, gamma.shape()))?;
            let d = cpu::tensor(d, x.shape())?;
            let dx = match gradients.x {
                Some(dx) if x.track_op() => Some(cpu::tensor(dx, x.shape())?),
                Some(_) => None,
                None => x.track_op().then(|| d.clone()),
            };
            let token_gradient = self.ties.token_gradient(token)?;
            Ok((dx, residual.track_op().then_some(d), token_gradient))
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::testing::{assert_close, check_gradients, random};
    use candle_core::{DType, Var};

    const TRAIN: Mode = Mode::Train { seed: 6 };

    fn inputs(shape: &[usize]) -> [Tensor; 4] {
        let width = shape[shape.len() - 1];
        [random(1, shape).unwrap(), random(2, shape).unwrap(), random(3, width).unwrap(), random(4, width).unwrap()]
    }

    #[test]
    fn it_is_the_norm_of_the_sum_with_dropped_values() {
        for shape in [vec![5], vec![4, 5], vec![2, 3, 37], vec![0, 5]] {
            let [x, residual, gamma, beta] = inputs(&shape);
            for p in [0.0, 0.4] {
                let y = layer_norm_residual(&x, &residual, &gamma, &beta, 1e-5, p, TRAIN).unwrap();
                let sum = (dropout(&x, p, TRAIN).unwrap() + &residual).unwrap();
                assert_close(&y, &layer_norm(&sum, &gamma, &beta, 1e-5).unwrap(), 1e-13, 0.0).unwrap();
            }
        }
    }

    #[test]
    fn gradients_are_right_and_reach_only_variables() {
        for p in [0.0, 0.4] {
            let run = |x: &[Tensor]| layer_norm_residual(&x[0], &x[1], &x[2], &x[3], 1e-3, p, TRAIN);
            check_gradients(run, &inputs(&[2, 3, 6]), 1e-7).unwrap();
        }
        let [x, residual, gamma, beta] = inputs(&[2, 6]);
        let beta = Var::from_tensor(&beta).unwrap();
        let y = layer_norm_residual(&x, &residual, &gamma, &beta, 1e-3, 0.1, TRAIN).unwrap();
        let gradients = y.sum_all().unwrap().backward().unwrap();
        assert_close(gradients.get(&beta).unwrap(), &Tensor::full(2f64, 6, x.device()).unwrap(), 1e-14, 0.0).unwrap();
        assert_eq!(gradients.get_ids().count(), 1);
    }

    #[test]
    fn half_precision_is_composed_and_errors_name_shapes() {
        let half = inputs(&[2, 6]).map(|x| x.to_dtype(DType::BF16).unwrap());
        let [x, residual, gamma, beta] = &half;
        assert_eq!(layer_norm_residual(x, residual, gamma, beta, 1e-3, 0.1, TRAIN).unwrap().dtype(), DType::BF16);
        let short = residual.narrow(0, 0, 1).unwrap();
        let message = layer_norm_residual(x, &short, gamma, beta, 1e-3, 0.1, TRAIN).unwrap_err().to_string();
        assert!(message.contains("[2, 6], found [1, 6]"), "{message}");
    }
}
