//! The Gaussian error linear unit, with the error function itself.
//!
//! `y = x Φ(x)`, `dx = dy (Φ(x) + x φ(x))` with `Φ(x) = (1 + erf(x / √2)) / 2` and `φ(x) = e^(-x²/2) / √(2π)`
//! (Hendrycks & Gimpel 2016); BERT's `gelu`, not the tanh approximation. In `f32` within 1e-6 of the exact value.
//!
//! ```
//! use candle_core::{Device, Tensor};
//! let y = kd_core::ops::gelu(&Tensor::new(&[-1f64, 0., 1.], &Device::Cpu)?)?.to_vec1::<f64>()?;
//! // Φ(1) = 0.8413447460685429.
//! assert!((y[2] - 0.8413447460685429).abs() < 1e-14 && y[1] == 0.0 && (y[0] + 0.1586552539314571).abs() < 1e-14);
//! # Ok::<(), candle_core::Error>(())
//! ```

use candle_core::backend::BackendStorage;
use candle_core::{CpuStorage, CustomOp1, Layout, Result, Shape, Tensor};

use super::backward::hand_over;
use super::cpu::{self, Float, for_float};

/// `x Φ(x)` for each value; any shape.
///
/// # Errors
/// If the device has no error function.
pub fn gelu(x: &Tensor) -> Result<Tensor> {
    #[cfg(feature = "cuda")]
    if super::cuda::has_kernel(x) {
        return super::cuda::gelu(x);
    }
    if cpu::has_kernel(x) { x.contiguous()?.apply_op1(Gelu) } else { x.gelu_erf() }
}

struct Gelu;

/// `1 / √(2π)`, the largest value of `φ`.
const PEAK: f64 = 0.398_942_280_401_432_7;

/// The function and its slope.
#[inline(always)]
pub(crate) fn value_and_slope<T: Float>(x: T) -> (T, T) {
    let (cdf, kernel) = x.normal();
    (x * cdf, cdf + x * (T::from_f64(PEAK) * kernel))
}

/// `√(2/π)` and what multiplies `x³`: the approximation of `Φ(x)` by `(1 + tanh(√(2/π) (x + 0.044715 x³))) / 2`.
const ROOT: f64 = 0.797_884_560_802_865_4;
const CUBIC: f64 = 0.044_715;

/// The approximation of `Φ(x)` as a logistic function, `1 / (1 + e^-2u)`, which keeps its digits where `1 + tanh(u)` cancels;
/// and `du/dx`. Beyond ±10 the function is 0 or 1 to all digits, and `x` is held there so that nothing overflows.
#[inline(always)]
pub(crate) fn logistic<T: Float>(x: T) -> (T, T) {
    let bound = T::from_f64(10.0);
    // Comparisons instead of min and max, which would turn NaN into a number.
    let below = x < -bound;
    let x = if below { -bound } else { x };
    let x = if x > bound { bound } else { x };
    let square = T::from_f64(CUBIC) * x * x;
    let root = T::from_f64(ROOT);
    let u = root * x * (T::one() + square);
    let cdf = if below { T::zero() } else { (u + u).sigmoid() };
    (cdf, root * (T::one() + T::from_f64(3.0) * square))
}

/// The approximation by a hyperbolic tangent and its slope, `σ + 2 x σ (1 - σ) du/dx` with `σ` that of [`logistic`].
#[inline(always)]
pub(crate) fn tanh_value_and_slope<T: Float>(x: T) -> (T, T) {
    let (cdf, du) = logistic(x);
    let density = T::from_f64(2.0) * cdf * (T::one() - cdf) * du;
    // Where the density is 0, `x` may be infinite.
    (x * cdf, cdf + if density == T::zero() { T::zero() } else { x * density })
}

fn forward<T: Float>(x: &[T]) -> CpuStorage {
    // SAFETY: the loop writes every value.
    let mut y = unsafe { cpu::uninit::<T>(x.len()) };
    cpu::par_elements(
        &mut y,
        #[inline(always)]
        |start, y| {
            for (y, &x) in y.iter_mut().zip(&x[start..]) {
                *y = x * x.normal().0;
            }
        },
    );
    cpu::storage(y)
}

fn backward<T: Float>(x: &[T], dy: &[T]) -> Vec<T> {
    // SAFETY: the loop writes every value.
    let mut dx = unsafe { cpu::uninit::<T>(x.len()) };
    cpu::par_elements(
        &mut dx,
        #[inline(always)]
        |start, dx| {
            for ((dx, &x), &dy) in dx.iter_mut().zip(&x[start..]).zip(&dy[start..]) {
                *dx = dy * value_and_slope(x).1;
            }
        },
    );
    dx
}

impl CustomOp1 for Gelu {
    fn name(&self) -> &'static str {
        "gelu"
    }

    fn cpu_fwd(&self, storage: &CpuStorage, layout: &Layout) -> Result<(CpuStorage, Shape)> {
        for_float!(storage.dtype(), T => Ok((forward(cpu::slice::<T>(storage, layout)?), layout.shape().clone())))
    }

    fn bwd(&self, x: &Tensor, _: &Tensor, grad: &Tensor) -> Result<Option<Tensor>> {
        let grad = grad.contiguous()?;
        for_float!(x.dtype(), T => {
            Ok(hand_over(x, cpu::tensor(backward::<T>(&cpu::values(x)?, &cpu::values(&grad)?), x.shape())?))
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::testing::{assert_close, random};
    use candle_core::{DType, Device};

    #[test]
    fn f32_is_within_a_millionth_of_the_exact_value() {
        let x = Tensor::arange_step(-12f64, 12., 1e-4, &Device::Cpu).unwrap();
        let exact = x.gelu_erf().unwrap();
        let x = x.to_dtype(DType::F32).unwrap();
        // The input is rounded too: half a unit in the last place of x, 5e-7 at 12, passes through the slope 1.
        assert_close(&gelu(&x).unwrap(), &exact, 1e-6, 6e-8).unwrap();
    }

    #[test]
    fn large_values_give_finite_results_and_slopes() {
        let x = candle_core::Var::from_vec(vec![-1e30f32, -100., 100., 1e30], 4, &Device::Cpu).unwrap();
        let y = gelu(&x).unwrap();
        assert_eq!(y.to_vec1::<f32>().unwrap(), [0.0, 0.0, 100.0, 1e30]);
        let gradients = y.sum_all().unwrap().backward().unwrap();
        assert_eq!(gradients.get(&x).unwrap().to_vec1::<f32>().unwrap(), [0.0, 0.0, 1.0, 1.0]);
    }

    #[test]
    fn the_approximation_is_that_of_the_hyperbolic_tangent() {
        for step in -1200..=1200 {
            let x = f64::from(step) * 0.01;
            let u = ROOT * (x + CUBIC * x.powi(3));
            let (value, slope) = tanh_value_and_slope(x);
            assert!((value - 0.5 * x * (1.0 + u.tanh())).abs() < 1e-14, "{x}: {value}");
            let (narrow_value, narrow_slope) = tanh_value_and_slope(x as f32);
            assert!((f64::from(narrow_value) - value).abs() < 2e-6, "{x}: {narrow_value}");
            assert!((f64::from(narrow_slope) - slope).abs() < 2e-6, "{x}: {narrow_slope}");
        }
        for x in [-1e30f32, -100.0, 100.0, 1e30] {
            let step = if x > 0.0 { 1.0 } else { 0.0 };
            let (value, slope) = tanh_value_and_slope(x);
            assert_eq!((value, slope), (x * step, step));
        }
        assert!(tanh_value_and_slope(f32::NAN).0.is_nan());
    }

    #[test]
    fn kernel_and_composition_agree() {
        let x = (random(1, (3, 17)).unwrap() * 5.0).unwrap();
        assert_close(&gelu(&x).unwrap(), &x.gelu_erf().unwrap(), 1e-14, 0.0).unwrap();
        assert_eq!(gelu(&x.narrow(0, 0, 0).unwrap()).unwrap().dims(), [0, 17]);
    }
}
