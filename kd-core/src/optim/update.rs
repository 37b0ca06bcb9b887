//! The update of f32 weights on the CPU: weights, gradient and moments are read once, all but the gradient written
//! once.

use std::sync::{Mutex, PoisonError};

use candle_core::{CpuStorage, InplaceOp2, Layout, Result, Tensor, bail};
use rayon::prelude::*;

use super::CHUNK;
use crate::ops::cpu::vectorized;

/// What one step of an optimiser does to a weight that has `N` moments.
pub(super) trait Rule<const N: usize>: Copy + Send + Sync {
    /// In errors.
    const NAME: &'static str;

    /// In place, f32 on the CPU. All slices are of one length; to be marked `#[inline(always)]`.
    fn apply(self, weights: &mut [f32], gradient: &[f32], moments: [&mut [f32]; N]);

    /// The new weights and moments out of Candle's operations, on any device. All tensors are of one shape and of the
    /// dtype of the moments.
    fn composed(self, weights: &Tensor, gradient: &Tensor, moments: [&Tensor; N]) -> Result<(Tensor, [Tensor; N])>;
}

/// The moments of a variable, each as long as the variable.
pub(super) type Slices<'a, const N: usize> = Mutex<[&'a mut [f32]; N]>;

/// A task's part of weights, gradient and moments.
type Part<'a, G, const N: usize> = (&'a mut [f32], G, [&'a mut [f32]; N]);

/// `weights` and `moments` in parts of `size` values, with what `gradients` has for each.
fn parts<'a, G, const N: usize>(
    weights: &'a mut [f32],
    gradients: impl Iterator<Item = G>,
    moments: &'a mut [&mut [f32]; N],
    size: usize,
) -> Vec<Part<'a, G, N>> {
    let mut moments = moments.each_mut().map(|moment| moment.chunks_mut(size));
    let next = |(weights, gradient)| {
        let moments = moments.each_mut().map(|parts| parts.next().expect("a moment is as long as its variable"));
        (weights, gradient, moments)
    };
    weights.chunks_mut(size).zip(gradients).map(next).collect()
}

/// Every value of a variable.
pub(super) struct All<'a, R, const N: usize> {
    pub(super) moments: Slices<'a, N>,
    pub(super) rule: R,
}

impl<R: Rule<N>, const N: usize> InplaceOp2 for All<'_, R, N> {
    fn name(&self) -> &'static str {
        R::NAME
    }

    fn cpu_fwd(&self, weights: &mut CpuStorage, layout: &Layout, gradient: &CpuStorage, at: &Layout) -> Result<()> {
        let (weights, gradient) = slices(R::NAME, weights, layout, gradient, at)?;
        let mut moments = self.moments.lock().unwrap_or_else(PoisonError::into_inner);
        let parts = parts(weights, gradient.chunks(CHUNK), &mut moments, CHUNK);
        parts.into_par_iter().for_each(|(weights, gradient, moments)| {
            vectorized(
                #[inline(always)]
                || self.rule.apply(weights, gradient, moments),
            );
        });
        Ok(())
    }
}

/// The rows `ids` of a `(rows, width)` variable, ascending; the gradient has these rows only.
pub(super) struct Rows<'a, R, const N: usize> {
    pub(super) moments: Slices<'a, N>,
    pub(super) rule: R,
    pub(super) ids: &'a [u32],
    pub(super) width: usize,
}

impl<R: Rule<N>, const N: usize> InplaceOp2 for Rows<'_, R, N> {
    fn name(&self) -> &'static str {
        R::NAME
    }

    fn cpu_fwd(&self, weights: &mut CpuStorage, layout: &Layout, gradient: &CpuStorage, at: &Layout) -> Result<()> {
        let (weights, gradient) = slices(R::NAME, weights, layout, gradient, at)?;
        let mut moments = self.moments.lock().unwrap_or_else(PoisonError::into_inner);
        // Tasks are ranges of the table; a gradient of few rows of a large table is small work for each of them.
        let width = self.width.max(1);
        let rows = (CHUNK / width).max(1);
        let parts = parts(weights, 0.., &mut moments, rows * width);
        parts.into_par_iter().for_each(|(weights, task, mut moments): Part<'_, usize, N>| {
            let place = |row: usize| self.ids.partition_point(|&id| (id as usize) < row);
            for idx in place(task * rows)..place((task + 1) * rows) {
                let row = self.ids[idx] as usize - task * rows;
                let at = row * width..(row + 1) * width;
                let gradient = &gradient[idx * width..(idx + 1) * width];
                let (weights, moments) =
                    (&mut weights[at.clone()], moments.each_mut().map(|moment| &mut moment[at.clone()]));
                vectorized(
                    #[inline(always)]
                    || self.rule.apply(weights, gradient, moments),
                );
            }
        });
        Ok(())
    }
}

fn slices<'a>(
    name: &str,
    weights: &'a mut CpuStorage,
    layout: &Layout,
    gradient: &'a CpuStorage,
    at: &Layout,
) -> Result<(&'a mut [f32], &'a [f32])> {
    let (CpuStorage::F32(weights), CpuStorage::F32(gradient)) = (weights, gradient) else {
        bail!("{name}: expected an f32 gradient for an f32 variable")
    };
    let (Some((start, end)), Some((from, to))) = (layout.contiguous_offsets(), at.contiguous_offsets()) else {
        bail!("{name}: expected contiguous tensors")
    };
    Ok((&mut weights[start..end], &gradient[from..to]))
}
