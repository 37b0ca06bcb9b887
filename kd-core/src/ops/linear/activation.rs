//! A linear map and the function behind it.

use std::sync::{Mutex, PoisonError};

use candle_core::backend::BackendStorage;
use candle_core::{CpuStorage, CustomOp3, Layout, Result, Shape, Tensor};

use super::{backward, check, linear, sizes};
use crate::ops::cpu::{self, Float, for_float};
use crate::ops::gelu::gelu;

/// A function of each value.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Activation {
    /// `x Φ(x)`, [`gelu()`].
    Gelu,
    /// `x (1 + tanh(√(2/π) (x + 0.044715 x³))) / 2`, the approximation of GELU by a hyperbolic tangent (Hendrycks & Gimpel
    /// 2016, section 2): transformers' `gelu_new` and `gelu_pytorch_tanh`.
    GeluTanh,
    /// The hyperbolic tangent.
    Tanh,
    /// `max(x, 0)`, with slope 0 at 0.
    Relu,
}

/// `f(x Wᵀ + b)` over the last dimension, as one op.
///
/// The bias is added where the function is computed. For both GELUs the product is kept for the backward; the slopes of the
/// others are functions of the output.
///
/// # Shapes
/// - `x`: `(.., in)`, `weight`: `(out, in)`, `bias`: `(out,)`
/// - returns `(.., out)`, differentiable in all three
///
/// # Errors
/// If shapes, dtypes or devices do not fit.
///
/// ```
/// use candle_core::{Device, Tensor};
/// use kd_core::ops::{Activation, linear_activation};
/// let x = Tensor::new(&[[1f32, 2.]], &Device::Cpu)?;
/// let weight = Tensor::new(&[[1f32, 1.], [0., 3.]], &Device::Cpu)?;
/// let bias = Tensor::new(&[-10f32, 20.], &Device::Cpu)?;
/// let y = linear_activation(&x, &weight, &bias, Activation::Relu)?;
/// assert_eq!(y.to_vec2::<f32>()?, [[0., 26.]]);
/// # Ok::<(), candle_core::Error>(())
/// ```
pub fn linear_activation(x: &Tensor, weight: &Tensor, bias: &Tensor, activation: Activation) -> Result<Tensor> {
    check("linear_activation", x, weight, Some(bias))?;
    #[cfg(feature = "cuda")]
    if crate::ops::cuda::has_linear(x, weight, Some(bias)) {
        return crate::ops::cuda::linear(x, weight, Some(bias), Some(activation));
    }
    if !cpu::has_kernel(x) {
        let y = linear(x, weight, Some(bias))?;
        return match activation {
            Activation::Gelu => gelu(&y),
            Activation::GeluTanh => y.gelu(),
            Activation::Tanh => y.tanh(),
            Activation::Relu => y.relu(),
        };
    }
    let (x, weight, bias) = (x.contiguous()?, weight.contiguous()?, bias.contiguous()?);
    let trained = x.track_op() || weight.track_op() || bias.track_op();
    let keep = trained && activation.is_of_input();
    x.apply_op3(&weight, &bias, LinearActivation { activation, keep, kept: Mutex::new(None) })
}

impl Activation {
    /// Whether the slope is a function of the input only, not of the output.
    fn is_of_input(self) -> bool {
        matches!(self, Self::Gelu | Self::GeluTanh)
    }
}

struct LinearActivation {
    activation: Activation,
    keep: bool,
    /// `x Wᵀ` without the bias. The first backward takes it; another one computes it again.
    kept: Mutex<Option<CpuStorage>>,
}

impl LinearActivation {
    fn forward<T: Float>(&self, mut u: Vec<T>, bias: &[T]) -> CpuStorage {
        if self.keep {
            let y = self.activation.of_sum(&u, bias);
            *self.kept.lock().unwrap_or_else(PoisonError::into_inner) = Some(cpu::storage(u));
            return cpu::storage(y);
        }
        self.activation.apply(&mut u, bias);
        cpu::storage(u)
    }

    /// The gradient of `x Wᵀ + b`.
    fn slope<T: Float>(&self, x: &Tensor, weight: &Tensor, bias: &[T], y: &[T], dy: &[T]) -> Result<Vec<T>> {
        /// `dy f'`, where the slope is a function of the output.
        fn of_output<T: Float>(y: &[T], dy: &[T], slope: impl Fn(T) -> T + Sync + Send) -> Vec<T> {
            // SAFETY: the loop writes every value.
            let mut du = unsafe { cpu::uninit::<T>(y.len()) };
            cpu::par_elements(
                &mut du,
                #[inline(always)]
                |start, du| {
                    for ((du, &y), &dy) in du.iter_mut().zip(&y[start..]).zip(&dy[start..]) {
                        *du = dy * slope(y);
                    }
                },
            );
            du
        }
        Ok(match self.activation {
            Activation::Tanh => of_output(
                y,
                dy,
                #[inline(always)]
                |y| T::one() - y * y,
            ),
            Activation::Relu => of_output(
                y,
                dy,
                #[inline(always)]
                |y| if y > T::zero() { T::one() } else { T::zero() },
            ),
            Activation::Gelu | Activation::GeluTanh => {
                let kept = self.kept.lock().unwrap_or_else(PoisonError::into_inner).take();
                let mut u = match kept {
                    Some(kept) => T::cpu_storage_data(kept)?,
                    None => {
                        let (_, sizes) = sizes(x.shape(), weight.shape())?;
                        sizes.product(&cpu::values(x)?, &cpu::values(weight)?, None)
                    }
                };
                self.activation.slope_of_sum(&mut u, bias, dy);
                u
            }
        })
    }
}

impl CustomOp3 for LinearActivation {
    fn name(&self) -> &'static str {
        "linear-activation"
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
            Ok((self.forward(sizes.product(x, weight, None), bias), shape))
        })
    }

    fn bwd(
        &self,
        x: &Tensor,
        weight: &Tensor,
        bias: &Tensor,
        y: &Tensor,
        grad: &Tensor,
    ) -> Result<(Option<Tensor>, Option<Tensor>, Option<Tensor>)> {
        let grad = grad.contiguous()?;
        for_float!(x.dtype(), T => {
            let du = self.slope::<T>(x, weight, &cpu::values(bias)?, &cpu::values(y)?, &cpu::values(&grad)?)?;
            backward(x, weight, Some(bias), &du)
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::testing::{assert_close, check_gradients, random};
    use candle_core::DType;

    const ALL: [Activation; 4] = [Activation::Gelu, Activation::GeluTanh, Activation::Tanh, Activation::Relu];

    #[test]
    fn it_is_the_function_of_the_linear_map() {
        for shape in [vec![3], vec![4, 3], vec![2, 5, 3], vec![0, 3]] {
            let inputs = [random(1, shape).unwrap(), random(2, (7, 3)).unwrap(), random(3, 7).unwrap()];
            let [x, weight, bias] = &inputs;
            let u = linear(x, weight, Some(bias)).unwrap();
            let expected = [u.gelu_erf().unwrap(), u.gelu().unwrap(), u.tanh().unwrap(), u.relu().unwrap()];
            for (activation, expected) in ALL.into_iter().zip(expected) {
                let y = linear_activation(x, weight, bias, activation).unwrap();
                assert_close(&y, &expected, 1e-14, 0.0).unwrap();
                let run = |x: &[Tensor]| linear_activation(&x[0], &x[1], &x[2], activation);
                check_gradients(run, &inputs, 1e-7).unwrap();
            }
        }
    }

    #[test]
    fn a_second_backward_gives_the_same() {
        let x = candle_core::Var::from_tensor(&random(1, (2, 3)).unwrap()).unwrap();
        for activation in ALL {
            let y = linear_activation(&x, &random(2, (4, 3)).unwrap(), &random(3, 4).unwrap(), activation).unwrap();
            let [first, second] = [0; 2].map(|_| y.backward().unwrap().get(&x).unwrap().clone());
            assert_close(&first, &second, 0.0, 0.0).unwrap();
        }
    }

    #[test]
    fn half_precision_is_composed_and_errors_name_shapes() {
        let half = [random(1, (2, 3)).unwrap(), random(2, (4, 3)).unwrap(), random(3, 4).unwrap()]
            .map(|x| x.to_dtype(DType::BF16).unwrap());
        for activation in ALL {
            assert_eq!(linear_activation(&half[0], &half[1], &half[2], activation).unwrap().dtype(), DType::BF16);
        }
        let message = linear_activation(&half[0], &half[1], &half[0], Activation::Tanh).unwrap_err().to_string();
        assert!(message.contains("linear_activation: expected bias of shape [4]"), "{message}");
    }
}
