//! `f32` and `f64` with the functions that the kernels need.
//!
//! The `f32` functions are polynomials and rationals without branches, so that loops over them vectorise; the
//! `f64` functions are the standard library's, because `f64` is for checking gradients.

use std::ops::Neg;

use candle_core::WithDType;

/// A float type with kernels. All functions return NaN for NaN.
pub trait Float: WithDType + Neg<Output = Self> + Default {
    /// `e^x`. In `f32` relative error below 2e-7; 0 below -86.9, where the true value is below 2e-38.
    fn exp(self) -> Self;
    /// Natural logarithm.
    fn ln(self) -> Self;
    /// Square root.
    fn sqrt(self) -> Self;
    /// Hyperbolic tangent. In `f32` absolute error below 3e-7.
    fn tanh(self) -> Self;
    /// Error function. In `f32` absolute error below 3e-7.
    fn erf(self) -> Self;
    /// The larger of two values; one NaN is ignored.
    fn maximum(self, other: Self) -> Self;
    /// Negative infinity.
    const NEG_INFINITY: Self;

    /// Logistic function `1 / (1 + e^-x)`.
    #[inline(always)]
    fn sigmoid(self) -> Self {
        Self::one() / (Self::one() + (-self).exp())
    }
}

impl Float for f64 {
    const NEG_INFINITY: Self = f64::NEG_INFINITY;

    #[inline(always)]
    fn exp(self) -> Self {
        f64::exp(self)
    }

    #[inline(always)]
    fn ln(self) -> Self {
        f64::ln(self)
    }

    #[inline(always)]
    fn sqrt(self) -> Self {
        f64::sqrt(self)
    }

    #[inline(always)]
    fn tanh(self) -> Self {
        f64::tanh(self)
    }

    #[inline(always)]
    fn erf(self) -> Self {
        candle_core::cpu::erf::erf_f64(self)
    }

    #[inline(always)]
    fn maximum(self, other: Self) -> Self {
        f64::max(self, other)
    }
}

impl Float for f32 {
    const NEG_INFINITY: Self = f32::NEG_INFINITY;

    /// `e^x = 2^n · e^r` with `n` the nearest integer to `x / ln 2`; the polynomial for `e^r` is Cephes' `expf`.
    #[inline(always)]
    fn exp(self) -> Self {
        const LOWEST: f32 = -86.9;
        const HIGHEST: f32 = 88.722_84;
        /// 1.5 · 2²³: adding it leaves the nearest integer in the low bits of the mantissa.
        const ROUND: f32 = 12_582_912.0;
        // Comparisons instead of min and max, which would turn NaN into a number.
        let x = if self < LOWEST { LOWEST } else { self };
        let x = if x > HIGHEST { HIGHEST } else { x };
        let shifted = x * std::f32::consts::LOG2_E + ROUND;
        let n = shifted - ROUND;
        // ln 2 in two parts, the first with few bits so that the product is exact.
        let r = (x - n * 0.693_359_4) - n * -2.121_944_4e-4;
        let p = 1.987_569_1e-4f32;
        let p = p * r + 1.398_2e-3;
        let p = p * r + 8.333_452e-3;
        let p = p * r + 4.166_579_6e-2;
        let p = p * r + 1.666_666_5e-1;
        let p = p * r + 0.5;
        let e_r = p * r * r + r + 1.0;
        // Half of 2^n and then twice that: 2^128 itself has no f32.
        let bits = (shifted.to_bits() as i32).wrapping_sub(0x4b40_0000).wrapping_add(126);
        let y = e_r * f32::from_bits((bits << 23) as u32) * 2.0;
        let y = if self < LOWEST { 0.0 } else { y };
        if self > HIGHEST { f32::INFINITY } else { y }
    }

    #[inline(always)]
    fn ln(self) -> Self {
        f32::ln(self)
    }

    #[inline(always)]
    fn sqrt(self) -> Self {
        f32::sqrt(self)
    }

    /// An odd rational of degree 13 over 6 on `|x| <= 7.9`, beyond which the result is 1 in `f32` (as in Eigen's `ptanh`).
    #[inline(always)]
    fn tanh(self) -> Self {
        const LIMIT: f32 = 7.905_311;
        let x = if self < -LIMIT { -LIMIT } else { self };
        let x = if x > LIMIT { LIMIT } else { x };
        let x2 = x * x;
        let p = -2.760_768_5e-16f32;
        let p = p * x2 + 2.000_188e-13;
        let p = p * x2 - 8.604_672e-11;
        let p = p * x2 + 5.122_297e-8;
        let p = p * x2 + 1.485_722_4e-5;
        let p = p * x2 + 6.372_619e-4;
        let p = p * x2 + 4.893_524_6e-3;
        let q = 1.198_258_4e-6f32;
        let q = q * x2 + 1.185_347_1e-4;
        let q = q * x2 + 2.268_434_6e-3;
        let q = q * x2 + 4.893_525e-3;
        x * p / q
    }

    /// An odd rational of degree 9 over 12 on `|x| <= 3.83`, beyond which the result is 1 in `f32` (as in Eigen's `perf`).
    #[inline(always)]
    fn erf(self) -> Self {
        const LIMIT: f32 = 3.832_506_9;
        let x = if self < -LIMIT { -LIMIT } else { self };
        let x = if x > LIMIT { LIMIT } else { x };
        let x2 = x * x;
        let p = 2.290_506_6e-4f32;
        let p = p * x2 + 3.408_291e-3;
        let p = p * x2 + 5.095_569_5e-2;
        let p = p * x2 + 1.852_083_2e-1;
        let p = p * x2 + 1.128_379_1;
        let q = -1.179_160_3e-7f32;
        let q = q * x2 + 2.354_796_6e-5;
        let q = q * x2 + 1.017_962_5e-3;
        let q = q * x2 + 1.407_047e-2;
        let q = q * x2 + 1.109_850_5e-1;
        let q = q * x2 + 4.974_692_5e-1;
        let q = q * x2 + 1.0;
        x * p / q
    }

    #[inline(always)]
    fn maximum(self, other: Self) -> Self {
        f32::max(self, other)
    }
}

/// Number of partial sums that a reduction keeps, so that it vectorises with a fixed order.
const LANES: usize = 16;

/// `Σ f(x)`.
#[inline(always)]
pub fn sum_map<T: Float>(xs: &[T], f: impl Fn(T) -> T) -> T {
    let mut lanes = [T::zero(); LANES];
    let mut chunks = xs.chunks_exact(LANES);
    for chunk in &mut chunks {
        for (lane, &x) in lanes.iter_mut().zip(chunk) {
            *lane += f(x);
        }
    }
    let mut total = T::zero();
    for lane in lanes {
        total += lane;
    }
    for &x in chunks.remainder() {
        total += f(x);
    }
    total
}

/// `Σ x`.
#[inline(always)]
pub fn sum<T: Float>(xs: &[T]) -> T {
    sum_map(xs, |x| x)
}

/// `Σ f(x, y)` over the shorter of the two.
#[inline(always)]
pub fn sum_map2<T: Float>(xs: &[T], ys: &[T], f: impl Fn(T, T) -> T) -> T {
    let len = xs.len().min(ys.len());
    let mut lanes = [T::zero(); LANES];
    let (mut x_chunks, mut y_chunks) = (xs[..len].chunks_exact(LANES), ys[..len].chunks_exact(LANES));
    for (xs, ys) in (&mut x_chunks).zip(&mut y_chunks) {
        for ((lane, &x), &y) in lanes.iter_mut().zip(xs).zip(ys) {
            *lane += f(x, y);
        }
    }
    let mut total = T::zero();
    for lane in lanes {
        total += lane;
    }
    for (&x, &y) in x_chunks.remainder().iter().zip(y_chunks.remainder()) {
        total += f(x, y);
    }
    total
}

/// `Σ x · y` over the shorter of the two.
#[inline(always)]
pub fn dot<T: Float>(xs: &[T], ys: &[T]) -> T {
    sum_map2(xs, ys, |x, y| x * y)
}

/// The largest value, ignoring NaN; negative infinity of an empty slice.
#[inline(always)]
pub fn max<T: Float>(xs: &[T]) -> T {
    let mut lanes = [T::NEG_INFINITY; LANES];
    let mut chunks = xs.chunks_exact(LANES);
    for chunk in &mut chunks {
        for (lane, &x) in lanes.iter_mut().zip(chunk) {
            *lane = lane.maximum(x);
        }
    }
    lanes.iter().chain(chunks.remainder()).fold(T::NEG_INFINITY, |max, &x| max.maximum(x))
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Largest error of `fast` against `exact` on a grid of `[lo, hi]`: absolute, or relative to the exact value.
    fn worst(lo: f64, hi: f64, relative: bool, fast: impl Fn(f32) -> f32, exact: impl Fn(f64) -> f64) -> f64 {
        let steps = 400_000;
        (0..=steps).fold(0.0, |worst, step| {
            let x = (lo + (hi - lo) * f64::from(step) / f64::from(steps)) as f32;
            let (found, expected) = (f64::from(fast(x)), exact(f64::from(x)));
            let error = (found - expected).abs() / if relative { expected.abs() } else { 1.0 };
            if error > worst { error } else { worst }
        })
    }

    #[test]
    fn f32_functions_keep_their_stated_error() {
        let exp = worst(-86.8, 88.7, true, Float::exp, f64::exp);
        assert!(exp < 2e-7, "{exp}");
        let tanh = worst(-12.0, 12.0, false, Float::tanh, f64::tanh);
        assert!(tanh < 3e-7, "{tanh}");
        let erf = worst(-6.0, 6.0, false, Float::erf, candle_core::cpu::erf::erf_f64);
        assert!(erf < 3e-7, "{erf}");
        let sigmoid = worst(-100.0, 100.0, false, Float::sigmoid, |x| 1.0 / (1.0 + (-x).exp()));
        assert!(sigmoid < 2e-7, "{sigmoid}");
    }

    #[test]
    fn f32_functions_are_right_at_the_edges() {
        assert_eq!([f32::NEG_INFINITY, -1e30, -87.0].map(Float::exp), [0.0; 3]);
        assert_eq!([f32::INFINITY, 1e30, 89.0].map(Float::exp), [f32::INFINITY; 3]);
        assert_eq!(Float::exp(0f32), 1.0);
        for f in [Float::exp, Float::tanh, Float::erf, Float::sigmoid] {
            assert!(f(f32::NAN).is_nan());
        }
        for f in [<f32 as Float>::tanh, <f32 as Float>::erf] {
            assert_eq!(f(0.0), 0.0);
            assert!((f(f32::INFINITY) - 1.0).abs() < 2e-7 && (f(f32::NEG_INFINITY) + 1.0).abs() < 2e-7);
        }
    }

    #[test]
    fn f64_erf_agrees_with_tabulated_values() {
        // erf(0.5), erf(1), erf(2), erf(3) to 16 digits, NIST Digital Library of Mathematical Functions, table 7.23.
        for (x, expected) in [
            (0.5f64, 0.520_499_877_813_046_5f64),
            (1.0, 0.842_700_792_949_714_9),
            (2.0, 0.995_322_265_018_952_7),
            (3.0, 0.999_977_909_503_001_4),
        ] {
            assert!((Float::erf(x) - expected).abs() < 1e-14, "{x}");
            assert!((Float::erf(-x) + expected).abs() < 1e-14, "{x}");
        }
    }

    #[test]
    fn reductions_cover_whole_chunks_and_the_rest() {
        for len in [0, 1, 15, 16, 17, 100] {
            let xs: Vec<f64> = (1..=len).map(|x| x as f64).collect();
            let n = len as f64;
            assert_eq!(sum(&xs), n * (n + 1.0) / 2.0);
            assert_eq!(dot(&xs, &xs), n * (n + 1.0) * (2.0 * n + 1.0) / 6.0);
            assert_eq!(max(&xs), if len == 0 { f64::NEG_INFINITY } else { n });
        }
    }
}
