//! Layer norm on slices, with and without a residual: what the ops and a whole encoder layer share.

use crate::ops::cpu::{self, Float};
use crate::ops::dropout::Mask;
use crate::ops::pieces::{for_each_piece, sum_shares};

/// Mean and `1 / √(var + eps)` of a row.
#[inline(always)]
fn moments<T: Float>(row: &[T], eps: T) -> (T, T) {
    let width = T::from_f64(row.len() as f64);
    let mean = cpu::sum(row) / width;
    let variance = cpu::sum_map(row, |x| (x - mean) * (x - mean)) / width;
    (mean, T::one() / (variance + eps).sqrt())
}

/// Weights of a norm.
#[derive(Clone, Copy)]
pub(crate) struct Norm<'a, T> {
    pub(crate) gamma: &'a [T],
    pub(crate) beta: &'a [T],
    pub(crate) eps: f64,
}

impl<T: Float> Norm<'_, T> {
    /// The normalised rows of `x`.
    pub(crate) fn forward(&self, x: &[T]) -> Vec<T> {
        let (width, eps) = (self.gamma.len(), T::from_f64(self.eps));
        // SAFETY: the loop writes every row.
        let mut y = unsafe { cpu::uninit::<T>(x.len()) };
        cpu::par_rows(
            &mut y,
            width,
            #[inline(always)]
            |first_row, y| {
                let x = &x[first_row * width..][..y.len()];
                for (y, x) in y.chunks_exact_mut(width).zip(x.chunks_exact(width)) {
                    y.copy_from_slice(x);
                    self.forward_row(y, eps);
                }
            },
        );
        y
    }

    /// Normalises a row in place.
    #[inline(always)]
    fn forward_row(&self, row: &mut [T], eps: T) {
        let (mean, scale) = moments(row, eps);
        for ((x, &gamma), &beta) in row.iter_mut().zip(self.gamma).zip(self.beta) {
            *x = (*x - mean) * scale * gamma + beta;
        }
    }
}

/// What is added to `x` before a norm: `s = residual + dropout(x + bias)`.
#[derive(Clone, Copy)]
pub(crate) struct Addition<'a, T> {
    pub(crate) bias: Option<&'a [T]>,
    pub(crate) residual: &'a [T],
    pub(crate) dropout: Option<Mask>,
}

impl<T: Float> Addition<'_, T> {
    #[inline(always)]
    fn row(&self, x: &mut [T], row: usize) {
        if let Some(bias) = self.bias {
            for (x, &bias) in x.iter_mut().zip(bias) {
                *x += bias;
            }
        }
        if let Some(dropout) = &self.dropout {
            dropout.apply((row * x.len()) as u64, x);
        }
        let first = row * x.len();
        for (x, &residual) in x.iter_mut().zip(&self.residual[first..]) {
            *x += residual;
        }
    }

    /// The sum, in place of `x`, which has rows of `width` values.
    pub(crate) fn add(&self, x: &mut [T], width: usize) {
        cpu::par_rows(
            x,
            width,
            #[inline(always)]
            |first_row, rows| {
                for (row, x) in (first_row..).zip(rows.chunks_exact_mut(width)) {
                    self.row(x, row);
                }
            },
        );
    }

    /// The norm of the sum, in place of `x`.
    pub(crate) fn normalise_in_place(&self, x: &mut [T], norm: Norm<'_, T>) {
        let (width, eps) = (norm.gamma.len(), T::from_f64(norm.eps));
        cpu::par_rows(
            x,
            width,
            #[inline(always)]
            |first_row, rows| {
                for (row, x) in (first_row..).zip(rows.chunks_exact_mut(width)) {
                    self.row(x, row);
                    norm.forward_row(x, eps);
                }
            },
        );
    }

    /// The norm of the sum; `x` becomes the sum, which the backward needs.
    pub(crate) fn normalise(&self, x: &mut [T], norm: Norm<'_, T>) -> Vec<T> {
        let (width, eps) = (norm.gamma.len(), T::from_f64(norm.eps));
        // SAFETY: the loop writes every row.
        let mut y = unsafe { cpu::uninit::<T>(x.len()) };
        let rows_per_task = cpu::rows_per_task(width);
        let pieces = x.chunks_mut((rows_per_task * width).max(1)).zip(y.chunks_mut((rows_per_task * width).max(1)));
        for_each_piece(
            pieces.collect(),
            #[inline(always)]
            |piece_idx, (x, y)| {
                let rows = x.chunks_exact_mut(width).zip(y.chunks_exact_mut(width));
                for (row, (x, y)) in (piece_idx * rows_per_task..).zip(rows) {
                    self.row(x, row);
                    y.copy_from_slice(x);
                    norm.forward_row(y, eps);
                }
            },
        );
        y
    }
}

/// Gradients of a norm of a sum.
pub(crate) struct Gradients<T> {
    pub(crate) gamma: Vec<T>,
    pub(crate) beta: Vec<T>,
    /// Of the bias of an [`Addition`].
    pub(crate) bias: Vec<T>,
    /// Of the `x` of an [`Addition`] with dropout; without it is that of the sum.
    pub(crate) x: Option<Vec<T>>,
}

/// The backward of a norm of `sum`, which writes the gradient of `sum` into `d`.
///
/// `dy` is the gradient of the result; where it is `None`, `d` holds it. With `dropout` as in the [`Addition`].
pub(crate) fn backward<T: Float>(
    d: &mut [T],
    dy: Option<&[T]>,
    sum: &[T],
    gamma: &[T],
    eps: f64,
    dropout: Option<Mask>,
) -> Gradients<T> {
    let (width, eps) = (gamma.len(), T::from_f64(eps));
    let rows_per_task = cpu::rows_per_task(width);
    let piece = (rows_per_task * width).max(1);
    // SAFETY: the loop writes every row.
    let mut masked = dropout.map(|_| unsafe { cpu::uninit::<T>(d.len()) });
    // Each piece of rows sums its own share of the gradients of gamma, beta and the bias.
    let mut shares = vec![T::zero(); d.len().div_ceil(piece) * 3 * width];
    let mut masked_pieces = masked.as_mut().map(|masked| masked.chunks_mut(piece));
    let pieces = d
        .chunks_mut(piece)
        .zip(shares.chunks_mut(3 * width))
        .map(|(d, shares)| (d, shares, masked_pieces.as_mut().and_then(Iterator::next)));
    for_each_piece(
        pieces.collect(),
        #[inline(always)]
        |piece_idx, (d, shares, mut masked)| {
            let (dgamma, rest) = shares.split_at_mut(width);
            let (dbeta, dbias) = rest.split_at_mut(width);
            for (idx, d) in d.chunks_exact_mut(width).enumerate() {
                let row = piece_idx * rows_per_task + idx;
                let sum = &sum[row * width..][..width];
                if let Some(dy) = dy {
                    d.copy_from_slice(&dy[row * width..][..width]);
                }
                let (mean, scale) = moments(sum, eps);
                backward_row(d, sum, gamma, (mean, scale), dgamma, dbeta);
                let dx = match (&dropout, &mut masked) {
                    (Some(dropout), Some(masked)) => {
                        let masked = &mut masked[idx * width..][..width];
                        dropout.map((row * width) as u64, d, masked);
                        masked
                    }
                    _ => d,
                };
                for (dbias, &dx) in dbias.iter_mut().zip(&*dx) {
                    *dbias += dx;
                }
            }
        },
    );
    let mut sums = sum_shares(&shares, 3 * width);
    let bias = sums.split_off(2 * width);
    let beta = sums.split_off(width);
    Gradients { gamma: sums, beta, bias, x: masked }
}

/// `d` is the gradient of the normalised row, then that of the row.
#[inline(always)]
fn backward_row<T: Float>(d: &mut [T], x: &[T], gamma: &[T], (mean, scale): (T, T), dgamma: &mut [T], dbeta: &mut [T]) {
    let width = x.len();
    let (d, gamma) = (&mut d[..width], &gamma[..width]);
    let (dgamma, dbeta) = (&mut dgamma[..width], &mut dbeta[..width]);
    for i in 0..width {
        let normalised = (x[i] - mean) * scale;
        dgamma[i] += d[i] * normalised;
        dbeta[i] += d[i];
        d[i] *= gamma[i];
    }
    let count = T::from_f64(width as f64);
    let mean_g = cpu::sum(d) / count;
    let mean_gx = cpu::sum_map2(d, x, |g, x| g * (x - mean)) * scale / count;
    for i in 0..width {
        let normalised = (x[i] - mean) * scale;
        d[i] = (d[i] - mean_g - normalised * mean_gx) * scale;
    }
}
