//! One step along the chain, `out_j = log Σ_i exp(prev_i + weights_ij)`, and its derivative.
//!
//! Rows of `classes` values are kept in `lanes` values, a multiple of [`LANES`], with -∞ in what is too many: as a score
//! that is a class no path goes through.

use super::double::{exp, ln};

/// Values of f64 that loops take together.
pub(super) const LANES: usize = 8;

/// Below this a sum of scaled probabilities may have lost terms to underflow and is taken again in log space.
/// Terms that underflow next to a larger sum are smaller than it by a factor of 10¹⁰⁰ and do not count.
const TINY: f64 = 1e-200;

/// `log Σ exp` of `values`; -∞ if there is none or all are -∞, NaN if there is one.
pub(super) fn log_sum_exp(values: impl Iterator<Item = f64> + Clone) -> f64 {
    let max = values.clone().fold(f64::NEG_INFINITY, |max, x| if x > max || x.is_nan() { x } else { max });
    if max == f64::NEG_INFINITY { max } else { max + values.map(|x| (x - max).exp()).sum::<f64>().ln() }
}

/// The largest of whole lanes, ignoring NaN.
#[inline(always)]
fn largest(values: &[f64]) -> f64 {
    let mut max = [f64::NEG_INFINITY; LANES];
    for values in values.chunks_exact(LANES) {
        for (max, &x) in max.iter_mut().zip(values) {
            *max = if x > *max { x } else { *max };
        }
    }
    max.into_iter().fold(f64::NEG_INFINITY, f64::max)
}

/// Taken as `log Σ_i exp(prev_i - max prev) · exp(weights_ij)`, so a step takes `classes` exponentials instead
/// of `classes²`; where that underflows, from the sums themselves.
pub(super) struct Step {
    classes: usize,
    /// `(classes, classes)`
    weights: Vec<f64>,
    /// `exp(weights - shift)`, at most 1: `(lanes / LANES, classes, LANES)`.
    pub(super) factors: Vec<f64>,
    shift: f64,
}

/// What a step computes on its way, kept from step to step for its memory.
pub(super) struct Work {
    /// `exp(prev - max prev)`
    scaled: Vec<f64>,
    /// The products of `scaled` with the factors; in the backward pass the gradient over them.
    sums: Vec<f64>,
    /// The products of that gradient with the transposed factors.
    back: Vec<f64>,
}

impl Work {
    pub(super) fn new(lanes: usize) -> Self {
        Self { scaled: vec![0.0; lanes], sums: vec![0.0; lanes], back: vec![0.0; lanes] }
    }
}

/// Where `(from, to)` is in [`Step::factors`].
pub(super) fn place(classes: usize, from: usize, to: usize) -> usize {
    (to / LANES * classes + from) * LANES + to % LANES
}

/// `out_j = Σ_i xs_i · factors_ij`.
#[inline(always)]
fn product(xs: &[f64], factors: &[f64], out: &mut [f64]) {
    let classes = factors.len() / out.len();
    for (out, rows) in out.chunks_exact_mut(LANES).zip(factors.chunks_exact(classes * LANES)) {
        // Two sums, so that an addition need not wait for the one before it.
        let mut sums = [[0.0; LANES]; 2];
        let (pairs, xs) = (rows.chunks_exact(2 * LANES), &xs[..classes]);
        let last = pairs.remainder();
        for (rows, xs) in pairs.zip(xs.chunks_exact(2)) {
            for lane in 0..LANES {
                sums[0][lane] += xs[0] * rows[lane];
                sums[1][lane] += xs[1] * rows[LANES + lane];
            }
        }
        if last.len() == LANES {
            for (sum, factor) in sums[0].iter_mut().zip(last) {
                *sum += xs[classes - 1] * factor;
            }
        }
        for (lane, out) in out.iter_mut().enumerate() {
            *out = sums[0][lane] + sums[1][lane];
        }
    }
}

impl Step {
    /// From weights `(classes, classes)`.
    pub(super) fn new(classes: usize, weights: Vec<f64>) -> Self {
        let shift = weights.iter().copied().fold(f64::NEG_INFINITY, f64::max);
        let shift = if shift.is_finite() { shift } else { 0.0 };
        let mut factors = vec![0.0; classes * classes.next_multiple_of(LANES)];
        for (idx, weight) in weights.iter().enumerate() {
            factors[place(classes, idx / classes, idx % classes)] = (weight - shift).exp();
        }
        Self { classes, weights, factors, shift }
    }

    /// Fills `scaled` and `sums`; returns `max prev`.
    #[inline(always)]
    fn sums(&self, prev: &[f64], work: &mut Work) -> f64 {
        let max = largest(prev);
        let shift = if max == f64::NEG_INFINITY { 0.0 } else { max }; // exp(-∞) is 0, exp(-∞ + ∞) is not a number
        for (scaled, prev) in work.scaled.iter_mut().zip(prev) {
            *scaled = exp(prev - shift);
        }
        product(&work.scaled, &self.factors, &mut work.sums);
        max
    }

    fn arriving<'a>(&'a self, prev: &'a [f64], class: usize) -> impl Iterator<Item = f64> + Clone + 'a {
        prev.iter().zip(self.weights.iter().skip(class).step_by(self.classes)).map(|(prev, weight)| prev + weight)
    }

    /// The step from `prev` to `out`; what is too many in `out` is some finite number.
    #[inline(always)]
    pub(super) fn forward(&self, prev: &[f64], out: &mut [f64], work: &mut Work) {
        let max = self.sums(prev, work);
        for (out, &sum) in out.iter_mut().zip(&work.sums) {
            *out = max + self.shift + ln(sum);
        }
        for (class, (out, &sum)) in out.iter_mut().zip(&work.sums[..self.classes]).enumerate() {
            if sum > TINY {
                continue;
            }
            *out = log_sum_exp(self.arriving(prev, class));
        }
    }

    /// Adds the gradient of `prev`, given that of the step's result, and of the weights: to `d_factors`, in the order
    /// of the factors, before it is multiplied by them, and where sums underflow to `d_weights`.
    #[inline(always)]
    pub(super) fn backward(
        &self,
        transposed: &Self,
        prev: &[f64],
        d_out: &[f64],
        d_prev: &mut [f64],
        (d_factors, d_weights): (&mut [f64], &mut [f64]),
        work: &mut Work,
    ) {
        let classes = self.classes;
        self.sums(prev, work);
        for (class, (&sum, &d_out)) in work.sums[..classes].iter().zip(d_out).enumerate() {
            if sum > TINY {
                continue;
            }
            let out = log_sum_exp(self.arriving(prev, class));
            if d_out != 0.0 && out != f64::NEG_INFINITY {
                for (from, x) in self.arriving(prev, class).enumerate() {
                    let d = d_out * (x - out).exp();
                    d_prev[from] += d;
                    d_weights[from * classes + class] += d;
                }
            }
        }
        for (sum, &d_out) in work.sums.iter_mut().zip(d_out) {
            *sum = if *sum > TINY { d_out / *sum } else { 0.0 };
        }
        let ratios = &work.sums;
        product(ratios, &transposed.factors, &mut work.back);
        for ((d_prev, scaled), back) in d_prev.iter_mut().zip(&work.scaled).zip(&work.back) {
            *d_prev += scaled * back;
        }
        for (ratios, d_factors) in ratios.chunks_exact(LANES).zip(d_factors.chunks_exact_mut(classes * LANES)) {
            for (scaled, d_factors) in work.scaled.iter().zip(d_factors.chunks_exact_mut(LANES)) {
                for (d, ratio) in d_factors.iter_mut().zip(ratios) {
                    *d += scaled * ratio;
                }
            }
        }
    }
}
