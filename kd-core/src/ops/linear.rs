//! A linear map of the last dimension.
//!
//! `y = x Wᵀ + b`, with gradients `dx = dy W`, `dW = dyᵀ x` and `db = Σ_rows dy`. One op instead of a transpose,
//! a product and an addition: the bias is written into the output before the product is added to it, and the
//! backward reads transposes as strides. `candle_nn::Linear` is wrong on some non-contiguous inputs; this is not.
//!
//! ```
//! use candle_core::{Device, Tensor};
//! let x = Tensor::new(&[[1f32, 2.]], &Device::Cpu)?;
//! let weight = Tensor::new(&[[1f32, 1.], [0., 3.]], &Device::Cpu)?;
//! let bias = Tensor::new(&[10f32, 20.], &Device::Cpu)?;
//! assert_eq!(kd_core::ops::linear(&x, &weight, Some(&bias))?.to_vec2::<f32>()?, [[13., 26.]]);
//! # Ok::<(), candle_core::Error>(())
//! ```

mod activation;
mod function;
pub(crate) mod kernel;

use candle_core::backend::BackendStorage;
use candle_core::{CpuStorage, CustomOp2, CustomOp3, D, Layout, Result, Shape, Tensor, bail};

use super::backward::hand_over;
use super::cpu::{self, Float, for_float};
use kernel::Sizes;

pub use activation::{Activation, linear_activation};

/// `x Wᵀ + b` over the last dimension.
///
/// # Shapes
/// - `x`: `(.., in)`, `weight`: `(out, in)`, `bias`: `(out,)`
/// - returns `(.., out)`, differentiable in all three
///
/// # Errors
/// If shapes, dtypes or devices do not fit.
pub fn linear(x: &Tensor, weight: &Tensor, bias: Option<&Tensor>) -> Result<Tensor> {
    check("linear", x, weight, bias)?;
    #[cfg(feature = "cuda")]
    if super::cuda::has_linear(x, weight, bias) {
        return super::cuda::linear(x, weight, bias, None);
    }
    if !cpu::has_kernel(x) {
        return composed(x, weight, bias);
    }
    let (x, weight) = (x.contiguous()?, weight.contiguous()?);
    match bias {
        Some(bias) => x.apply_op3(&weight, &bias.contiguous()?, Linear),
        None => x.apply_op2(&weight, Linear),
    }
}

fn check(op: &str, x: &Tensor, weight: &Tensor, bias: Option<&Tensor>) -> Result<()> {
    let (out, width) = weight.dims2()?;
    if x.rank() == 0 || x.dim(D::Minus1)? != width {
        bail!("{op}: expected x of shape (.., {width}) for weight {:?}, found {:?}", weight.dims(), x.dims());
    }
    if let Some(bias) = bias.filter(|bias| bias.dims() != [out]) {
        bail!("{op}: expected bias of shape [{out}] for weight {:?}, found {:?}", weight.dims(), bias.dims());
    }
    Ok(())
}

/// The same from Candle's operations.
fn composed(x: &Tensor, weight: &Tensor, bias: Option<&Tensor>) -> Result<Tensor> {
    let (out, width) = weight.dims2()?;
    let mut shape = x.dims().to_vec();
    let rows = shape.iter().rev().skip(1).product::<usize>();
    let y = x.contiguous()?.reshape((rows, width))?.matmul(&weight.t()?)?;
    let y = match bias {
        Some(bias) => y.broadcast_add(bias)?,
        None => y,
    };
    if let Some(last) = shape.last_mut() {
        *last = out;
    }
    y.reshape(shape)
}

struct Linear;

/// The output's shape and the sizes of the product for an input and a weight.
fn sizes(x: &Shape, weight: &Shape) -> Result<(Shape, Sizes)> {
    let (out, width) = weight.dims2()?;
    let mut dims = x.dims().to_vec();
    dims.pop();
    let rows = dims.iter().product();
    dims.push(out);
    Ok((Shape::from(dims), Sizes { rows, width, out }))
}

/// Gradients of `x` and `weight`, and of the bias where there is one; none where nobody asks.
fn backward<T: Float>(
    x: &Tensor,
    weight: &Tensor,
    bias: Option<&Tensor>,
    dy: &[T],
) -> Result<(Option<Tensor>, Option<Tensor>, Option<Tensor>)> {
    let (_, sizes) = sizes(x.shape(), weight.shape())?;
    let dx = if x.track_op() {
        hand_over(x, cpu::tensor(sizes.input_gradient(dy, &cpu::values(weight)?), x.shape())?)
    } else {
        None
    };
    let dw = if weight.track_op() {
        hand_over(weight, cpu::tensor(sizes.weight_gradient(dy, &cpu::values(x)?), weight.shape())?)
    } else {
        None
    };
    let db = match bias {
        Some(bias) if bias.track_op() => hand_over(bias, cpu::tensor(cpu::column_sums(dy, sizes.out), bias.shape())?),
        _ => None,
    };
    Ok((dx, dw, db))
}

impl CustomOp2 for Linear {
    fn name(&self) -> &'static str {
        "linear"
    }

    fn cpu_fwd(&self, s1: &CpuStorage, l1: &Layout, s2: &CpuStorage, l2: &Layout) -> Result<(CpuStorage, Shape)> {
        for_float!(s1.dtype(), T => {
            let (x, weight) = (cpu::slice::<T>(s1, l1)?, cpu::slice::<T>(s2, l2)?);
            let (shape, sizes) = sizes(l1.shape(), l2.shape())?;
            Ok((cpu::storage(sizes.product(x, weight, None)), shape))
        })
    }

    fn bwd(&self, x: &Tensor, weight: &Tensor, _: &Tensor, grad: &Tensor) -> Result<(Option<Tensor>, Option<Tensor>)> {
        for_float!(x.dtype(), T => {
            let (dx, dw, _) = backward::<T>(x, weight, None, &cpu::values(&grad.contiguous()?)?)?;
            Ok((dx, dw))
        })
    }
}

impl CustomOp3 for Linear {
    fn name(&self) -> &'static str {
        "linear"
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
            let (x, weight, bias) = (cpu::slice::<T>(s1, l1)?, cpu::slice::<T>(s2, l2)?, cpu::slice::<T>(s3, l3)?);
            let (shape, sizes) = sizes(l1.shape(), l2.shape())?;
            Ok((cpu::storage(sizes.product(x, weight, Some(bias))), shape))
        })
    }

    fn bwd(
        &self,
        x: &Tensor,
        weight: &Tensor,
        bias: &Tensor,
        _: &Tensor,
        grad: &Tensor,
    ) -> Result<(Option<Tensor>, Option<Tensor>, Option<Tensor>)> {
        for_float!(x.dtype(), T => backward::<T>(x, weight, Some(bias), &cpu::values(&grad.contiguous()?)?))
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::testing::{assert_close, random};

    #[test]
    fn kernel_and_composition_agree() {
        for shape in [vec![3], vec![4, 3], vec![2, 5, 3], vec![0, 3]] {
            let (x, weight, bias) = (random(1, shape).unwrap(), random(2, (7, 3)).unwrap(), random(3, 7).unwrap());
            for bias in [None, Some(&bias)] {
                let expected = composed(&x, &weight, bias).unwrap();
                assert_close(&linear(&x, &weight, bias).unwrap(), &expected, 1e-14, 0.0).unwrap();
            }
        }
    }

    #[test]
    fn a_transposed_batch_is_read_in_its_own_order() {
        let (x, weight) = (random(1, (3, 2, 5)).unwrap(), random(2, (4, 5)).unwrap());
        let swapped =
            linear(&x.transpose(0, 1).unwrap(), &weight.t().unwrap().contiguous().unwrap().t().unwrap(), None);
        let expected = linear(&x, &weight, None).unwrap().transpose(0, 1).unwrap();
        assert_close(&swapped.unwrap(), &expected, 1e-14, 0.0).unwrap();
    }

    #[test]
    fn errors_name_both_shapes() {
        let (x, weight) = (random(1, (2, 3)).unwrap(), random(2, (4, 5)).unwrap());
        let message = linear(&x, &weight, None).unwrap_err().to_string();
        assert!(message.contains("(.., 5)") && message.contains("[2, 3]"), "{message}");
        let message =
            linear(&random(1, (2, 5)).unwrap(), &weight, Some(&random(3, 5).unwrap())).unwrap_err().to_string();
        assert!(message.contains("[4]") && message.contains("[5]"), "{message}");
    }
}
