//! Forward and backward of an encoder layer on slices.

use candle_core::Result;

use crate::ops::attention::Kernel;
use crate::ops::cpu::{self, Float};
use crate::ops::dropout::Mask;
use crate::ops::layer_norm::kernel::{self as norms, Addition, Norm};
use crate::ops::linear::Activation;
use crate::ops::linear::kernel::Sizes;
use crate::ops::pieces::{for_each_piece, sum_shares};

/// Sizes and dropout of one call; the same for forward and backward.
#[derive(Debug)]
pub(super) struct Settings {
    pub(super) rows: usize,
    pub(super) hidden: usize,
    pub(super) intermediate: usize,
    pub(super) eps: f64,
    pub(super) activation: Activation,
    pub(super) attention: Kernel,
    pub(super) output_dropout: Option<Mask>,
    pub(super) hidden_dropout: Option<Mask>,
}

/// Places of weights; the bias of each stands one behind its weight.
pub(crate) mod slot {
    pub(crate) const QUERY: usize = 0;
    pub(crate) const OUTPUT: usize = 6;
    pub(crate) const ATTENTION_NORM: usize = 8;
    pub(crate) const INNER: usize = 10;
    pub(crate) const OUTER: usize = 12;
    pub(crate) const NORM: usize = 14;
    pub(crate) const COUNT: usize = 16;
}

/// What the forward leaves for the backward. The outputs of the first norm and of the activation are made again.
pub(super) struct Kept<T> {
    query: Vec<T>,
    key: Vec<T>,
    value: Vec<T>,
    mixed: Vec<T>,
    /// What the first norm normalises.
    attention_sum: Vec<T>,
    /// `W_1 a` without the bias.
    inner: Vec<T>,
    /// What the second norm normalises.
    sum: Vec<T>,
}

/// Who gets gradients.
pub(super) trait Gradients<T> {
    /// Whether the gradient of the weight in a slot is wanted.
    fn wants(&self, slot: usize) -> bool;
    /// Takes it.
    fn give(&self, slot: usize, gradient: Vec<T>) -> Result<()>;
}

pub(super) struct Layer<'a, T> {
    pub(super) settings: &'a Settings,
    /// By [`slot`].
    pub(super) weights: [&'a [T]; slot::COUNT],
}

impl<T: Float> Layer<'_, T> {
    fn square(&self) -> Sizes {
        let Settings { rows, hidden, .. } = *self.settings;
        Sizes { rows, width: hidden, out: hidden }
    }

    fn inner(&self) -> Sizes {
        let Settings { rows, hidden, intermediate, .. } = *self.settings;
        Sizes { rows, width: hidden, out: intermediate }
    }

    fn outer(&self) -> Sizes {
        let Settings { rows, hidden, intermediate, .. } = *self.settings;
        Sizes { rows, width: intermediate, out: hidden }
    }

    fn norm(&self, slot: usize) -> Norm<'_, T> {
        Norm { gamma: self.weights[slot], beta: self.weights[slot + 1], eps: self.settings.eps }
    }

    /// The norm of `residual + dropout(x + bias)`; `x` becomes the sum if it is to be kept, else the result.
    fn add_and_normalise(
        &self,
        mut x: Vec<T>,
        addition: Addition<'_, T>,
        norm: Norm<'_, T>,
        keep: bool,
    ) -> (Vec<T>, Vec<T>) {
        if keep {
            let y = addition.normalise(&mut x, norm);
            (x, y)
        } else {
            addition.normalise_in_place(&mut x, norm);
            (Vec::new(), x)
        }
    }

    /// The layer's output, and what a backward needs if `keep`.
    pub(super) fn forward(&self, x: &[T], keep: bool) -> (Vec<T>, Option<Kept<T>>) {
        let (settings, weights) = (self.settings, self.weights);
        let project = |idx: usize| {
            let slot = slot::QUERY + 2 * idx;
            self.square().product(x, weights[slot], Some(weights[slot + 1]))
        };
        let [query, key, value] = [project(0), project(1), project(2)];
        let mixed = settings.attention.forward(&query, &key, &value, settings.hidden);
        let projections = keep.then_some([query, key, value]); // freed here if not

        let addition =
            Addition { bias: Some(weights[slot::OUTPUT + 1]), residual: x, dropout: settings.output_dropout };
        let sum = self.square().product(&mixed, weights[slot::OUTPUT], None);
        let mixed = if keep { mixed } else { Vec::new() };
        let (attention_sum, attended) = self.add_and_normalise(sum, addition, self.norm(slot::ATTENTION_NORM), keep);

        let mut inner = self.inner().product(&attended, weights[slot::INNER], None); // (rows, intermediate)
        let bias = weights[slot::INNER + 1];
        let (inner, activated) = if keep {
            let activated = settings.activation.of_sum(&inner, bias);
            (inner, activated)
        } else {
            settings.activation.apply(&mut inner, bias);
            (Vec::new(), inner)
        };

        let addition =
            Addition { bias: Some(weights[slot::OUTER + 1]), residual: &attended, dropout: settings.hidden_dropout };
        let sum = self.outer().product(&activated, weights[slot::OUTER], None);
        drop(activated);
        let (sum, y) = self.add_and_normalise(sum, addition, self.norm(slot::NORM), keep);
        let kept = projections.map(|[query, key, value]| Kept { query, key, value, mixed, attention_sum, inner, sum });
        (y, kept)
    }

    /// The gradient of `x` if `want_x`; those of the weights go to `gradients`.
    pub(super) fn backward(
        &self,
        x: &[T],
        dy: &[T],
        kept: Kept<T>,
        want_x: bool,
        gradients: &dyn Gradients<T>,
    ) -> Result<Option<Vec<T>>> {
        let Settings { hidden, eps, activation, ref attention, output_dropout, hidden_dropout, .. } = *self.settings;
        let weights = self.weights;
        let give = |slot: usize, gradient: Vec<T>| gradients.give(slot, gradient);
        // Nothing in front of the first slot that wants a gradient is computed.
        let first = if want_x { Some(0) } else { (0..slot::COUNT).find(|&slot| gradients.wants(slot)) };
        let done = |slot: usize| first.is_none_or(|first| first >= slot);
        let Kept { query, key, value, mixed, attention_sum, inner, sum } = kept;

        // `d` is the gradient of what the second norm normalises; it is also that of the residual.
        // SAFETY: `backward` writes every value.
        let mut d = unsafe { cpu::uninit::<T>(dy.len()) };
        let norm = norms::backward(&mut d, Some(dy), &sum, weights[slot::NORM], eps, hidden_dropout);
        drop(sum);
        give(slot::NORM, norm.gamma)?;
        give(slot::NORM + 1, norm.beta)?;
        give(slot::OUTER + 1, norm.bias)?;
        if done(slot::OUTER + 1) {
            return Ok(None);
        }

        let mut slopes = inner;
        let mut activated = activation.of_sum_and_slopes(&mut slopes, weights[slot::INNER + 1]);
        let d_outer = norm.x.as_deref().unwrap_or(&d);
        if gradients.wants(slot::OUTER) {
            give(slot::OUTER, self.outer().weight_gradient(d_outer, &activated))?;
        }
        if done(slot::OUTER) {
            return Ok(None);
        }
        self.outer().write_input_gradient(&mut activated, d_outer, weights[slot::OUTER]);
        drop(norm.x);
        let mut d_inner = activated;
        give(slot::INNER + 1, multiply_and_sum(&mut d_inner, &slopes, weights[slot::INNER + 1].len()))?;
        drop(slopes);
        if gradients.wants(slot::INNER) {
            let attended = self.norm(slot::ATTENTION_NORM).forward(&attention_sum);
            give(slot::INNER, self.inner().weight_gradient(&d_inner, &attended))?;
        }
        if done(slot::INNER) {
            return Ok(None);
        }
        self.inner().add_input_gradient(&mut d, &d_inner, weights[slot::INNER]);
        drop(d_inner);

        // Now `d` is the gradient of the first norm's output, then of what it normalises.
        let norm = norms::backward(&mut d, None, &attention_sum, weights[slot::ATTENTION_NORM], eps, output_dropout);
        drop(attention_sum);
        give(slot::ATTENTION_NORM, norm.gamma)?;
        give(slot::ATTENTION_NORM + 1, norm.beta)?;
        give(slot::OUTPUT + 1, norm.bias)?;
        let d_output = norm.x.as_deref().unwrap_or(&d);
        if gradients.wants(slot::OUTPUT) {
            give(slot::OUTPUT, self.square().weight_gradient(d_output, &mixed))?;
        }
        drop(mixed);
        if done(slot::OUTPUT) {
            return Ok(None);
        }
        let d_mixed = self.square().input_gradient(d_output, weights[slot::OUTPUT]);
        drop(norm.x);

        let projections = attention.backward(&query, &key, &value, &d_mixed, hidden);
        drop((query, key, value, d_mixed));
        for (idx, gradient) in projections.into_iter().enumerate() {
            let slot = slot::QUERY + 2 * idx;
            if gradients.wants(slot) {
                give(slot, self.square().weight_gradient(&gradient, x))?;
            }
            if gradients.wants(slot + 1) {
                give(slot + 1, cpu::column_sums(&gradient, hidden))?;
            }
            if want_x {
                self.square().add_input_gradient(&mut d, &gradient, weights[slot]);
            }
        }
        Ok(want_x.then_some(d))
    }
}

/// Multiplies `d` by the slopes; returns the sum of its rows.
fn multiply_and_sum<T: Float>(d: &mut [T], slopes: &[T], width: usize) -> Vec<T> {
    /// Rows per partial sum.
    const ROWS: usize = 64;
    let piece = (ROWS * width).max(1);
    let mut shares = vec![T::zero(); d.len().div_ceil(piece) * width];
    for_each_piece(
        d.chunks_mut(piece).zip(slopes.chunks(piece)).zip(shares.chunks_mut(width.max(1))).collect(),
        #[inline(always)]
        |_, ((d, slopes), sums)| {
            for (d, slopes) in d.chunks_exact_mut(width).zip(slopes.chunks_exact(width)) {
                for ((d, &slope), sum) in d.iter_mut().zip(slopes).zip(&mut *sums) {
                    *d *= slope;
                    *sum += *d;
                }
            }
        },
    );
    sum_shares(&shares, width)
}
