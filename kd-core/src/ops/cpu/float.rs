//! `f32` and `f64` with the functions that the kernels need.
//!
//! The `f32` functions are polynomials and rationals without branches, so that loops over them vectorise; the
//! `f64` functions are the standard library's, because `f64` is for checking gradients. The polynomials are written with
//! `mul_add`, half the instructions where there is FMA; an x86 program that is not built for it has FMA inside
//! [`super::vectorized`] only, and outside calls a slow library function.

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
    /// Hyperbolic tangent. In `f32` relative error below 3e-7.
    fn tanh(self) -> Self;
    /// The normal distribution function `Φ(x) = (1 + erf(x / √2)) / 2`, and `e^(-x²/2)`, which comes with it.
    /// In `f32` the absolute error of both is below 3e-7.
    fn normal(self) -> (Self, Self);
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
    fn normal(self) -> (Self, Self) {
        let cdf = 0.5 * candle_core::cpu::erf::erfc_f64(-self * std::f64::consts::FRAC_1_SQRT_2);
        (cdf, f64::exp(-0.5 * self * self))
    }

    #[inline(always)]
    fn maximum(self, other: Self) -> Self {
        f64::max(self, other)
    }
}

impl Float for f32 {
    const NEG_INFINITY: Self = f32::NEG_INFINITY;

    /// `e^x = 2^n · e^r` with `n` the nearest integer to `x / ln 2`; `e^r = 1 + r + r² P(r)` with `P`
    /// fitted for the least relative error, 5e-11, on `|r| <= ln 2 / 2`.
    #[inline(always)]
    fn exp(self) -> Self {
        const LOWEST: f32 = -86.9;
        const HIGHEST: f32 = 88.722_84;
        /// 1.5 · 2²³: adding it leaves the nearest integer in the low bits of the mantissa.
        const ROUND: f32 = 12_582_912.0;
        // Comparisons instead of min and max, which would turn NaN into a number.
        let x = if self < LOWEST { LOWEST } else { self };
        let x = if x > HIGHEST { HIGHEST } else { x };
        let shifted = x.mul_add(std::f32::consts::LOG2_E, ROUND);
        let n = shifted - ROUND;
        // ln 2 in two parts, the first with few bits so that the product is exact.
        let r = n.mul_add(2.121_944_4e-4, n.mul_add(-0.693_359_4, x));
        let p = 1.979_035_5e-4f32;
        let p = p.mul_add(r, 1.394_464_9e-3);
        let p = p.mul_add(r, 8.333_497e-3);
        let p = p.mul_add(r, 4.166_629_5e-2);
        let p = p.mul_add(r, 1.666_666_6e-1);
        let p = p.mul_add(r, 0.5);
        let e_r = (p * r).mul_add(r, r) + 1.0;
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

    /// `x + x³ P(x²)` up to 0.7, with `P` fitted for the least relative error, 1.4e-8; `1 - 2 / (e^(2|x|) + 1)` beyond,
    /// which would lose the digits of small values.
    #[inline(always)]
    fn tanh(self) -> Self {
        let (x, x2) = (self.abs(), self * self);
        let p = -5.155_109e-3f32;
        let p = p.mul_add(x2, 2.011_165_3e-2);
        let p = p.mul_add(x2, -5.356_699e-2);
        let p = p.mul_add(x2, 1.332_924_3e-1);
        let p = p.mul_add(x2, -3.333_319_7e-1);
        let near = self.mul_add(x2 * p, self);
        let far = (1.0 - 2.0 / (Float::exp(2.0 * x) + 1.0)).copysign(self);
        if x < 0.7 { near } else { far }
    }

    /// `Φ(-|x|) = t P(t) e^(-x²/2)` with `t = 1 / (1 + 0.3 |x|)`, the form of Abramowitz & Stegun 7.1.26. `P` was fitted
    /// to `e^(x²/2) Φ(-x) / t` for the least relative error, 1.2e-7, on `[0, 13]`.
    #[inline(always)]
    fn normal(self) -> (Self, Self) {
        let x = self.abs();
        // In this order the product is large only where x is, and never infinity times 0.
        let kernel = Float::exp(-(0.5 * x) * x);
        // Beyond, the tail would be a denormal number, which takes several times as long to compute with.
        let kernel = if x > 12.9 { 0.0 } else { kernel };
        let t = 1.0 / x.mul_add(0.3, 1.0);
        let p = 3.619_503e-2f32;
        let p = p.mul_add(t, -1.593_789_8e-1);
        let p = p.mul_add(t, 2.101_194_7e-1);
        let p = p.mul_add(t, -5.716_827_6e-2);
        let p = p.mul_add(t, 1.304_169e-1);
        let p = p.mul_add(t, 9.934_7e-2);
        let p = p.mul_add(t, 1.208_455_5e-1);
        let p = p.mul_add(t, 1.196_232_6e-1);
        let tail = p * t * kernel;
        (if self > 0.0 { 1.0 - tail } else { tail }, kernel)
    }

    #[inline(always)]
    fn maximum(self, other: Self) -> Self {
        f32::max(self, other)
    }
}

/// Number of partial sums that a reduction keeps, so that it vectorises with a fixed order: four vectors of AVX-512, because
/// an addition takes as long as four can be begun.
const LANES: usize = 64;

/// The sum of all partial sums, halves upon halves.
#[inline(always)]
fn total<T: Float>(mut lanes: [T; LANES]) -> T {
    let mut len = LANES / 2;
    while len > 0 {
        let (low, high) = lanes.split_at_mut(len);
        for (low, &high) in low.iter_mut().zip(&high[..len]) {
            *low += high;
        }
        len /= 2;
    }
    lanes[0]
}

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
    let mut total = total(lanes);
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
    let mut total = total(lanes);
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
    let mut len = LANES / 2;
    while len > 0 {
        let (low, high) = lanes.split_at_mut(len);
        for (low, &high) in low.iter_mut().zip(&high[..len]) {
            *low = low.maximum(high);
        }
        len /= 2;
    }
    chunks.remainder().iter().fold(lanes[0], |max, &x| max.maximum(x))
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
        // An even number of steps has 0 in the middle, so two ranges.
        for (lo, hi) in [(-12.0, -1e-6), (1e-6, 12.0)] {
            let tanh = worst(lo, hi, true, Float::tanh, f64::tanh);
            assert!(tanh < 3e-7, "{tanh}");
        }
        let cdf = worst(-15.0, 15.0, false, |x| x.normal().0, |x| x.normal().0);
        assert!(cdf < 3e-7, "{cdf}");
        let kernel = worst(-15.0, 15.0, false, |x| x.normal().1, |x| (-x * x / 2.0).exp());
        assert!(kernel < 3e-7, "{kernel}");
        let sigmoid = worst(-100.0, 100.0, false, Float::sigmoid, |x| 1.0 / (1.0 + (-x).exp()));
        assert!(sigmoid < 2e-7, "{sigmoid}");
    }

    #[test]
    fn f32_functions_are_right_at_the_edges() {
        assert_eq!([f32::NEG_INFINITY, -1e30, -87.0].map(Float::exp), [0.0; 3]);
        assert_eq!([f32::INFINITY, 1e30, 89.0].map(Float::exp), [f32::INFINITY; 3]);
        assert_eq!(Float::exp(0f32), 1.0);
        let nan = f32::NAN;
        for y in [Float::exp(nan), Float::tanh(nan), nan.sigmoid(), nan.normal().0, nan.normal().1] {
            assert!(y.is_nan());
        }
        assert_eq!([f32::NEG_INFINITY, -10.0, 0.0, 10.0, f32::INFINITY].map(Float::tanh), [-1.0, -1.0, 0.0, 1.0, 1.0]);
        assert_eq!([f32::NEG_INFINITY, -1e30, 1e30, f32::INFINITY].map(|x| x.normal().0), [0.0, 0.0, 1.0, 1.0]);
        assert_eq!([f32::NEG_INFINITY, -1e30, 0.0, 1e30].map(|x| x.normal().1), [0.0, 0.0, 1.0, 0.0]);
    }

    #[test]
    fn the_f64_normal_distribution_agrees_with_tabulated_values() {
        // Φ(x) = (1 + erf(x / √2)) / 2 from erf(0.5), erf(1), erf(2), erf(3), NIST Digital Library of Mathematical
        // Functions, table 7.23.
        for (x, erf) in [
            (0.5f64, 0.520_499_877_813_046_5f64),
            (1.0, 0.842_700_792_949_714_9),
            (2.0, 0.995_322_265_018_952_7),
            (3.0, 0.999_977_909_503_001_4),
        ] {
            let (above, _) = (x * std::f64::consts::SQRT_2).normal();
            let (below, _) = (-x * std::f64::consts::SQRT_2).normal();
            assert!((above - (1.0 + erf) / 2.0).abs() < 1e-14, "{x}");
            assert!((below - (1.0 - erf) / 2.0).abs() < 1e-14, "{x}");
        }
    }

    #[test]
    fn reductions_cover_whole_chunks_and_the_rest() {
        for len in [0, 1, 15, 63, 64, 65, 200] {
            let xs: Vec<f64> = (1..=len).map(|x| x as f64).collect();
            let n = len as f64;
            assert_eq!(sum(&xs), n * (n + 1.0) / 2.0);
            assert_eq!(dot(&xs, &xs), n * (n + 1.0) * (2.0 * n + 1.0) / 6.0);
            assert_eq!(max(&xs), if len == 0 { f64::NEG_INFINITY } else { n });
        }
    }
}
