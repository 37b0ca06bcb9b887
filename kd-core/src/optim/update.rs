//! The update of f32 weights on the CPU: weights, gradient and both moments are read once, all but the gradient written once.

use std::sync::{Mutex, PoisonError};

use candle_core::{CpuStorage, InplaceOp2, Layout, Result, bail};
use rayon::prelude::*;

use super::CHUNK;
use crate::ops::cpu::vectorized;

/// Numbers of one step. In f32 `1 - 0.999` would be off by 1e-5 of its value, so `take` comes from outside.
#[derive(Debug, Clone, Copy)]
pub(super) struct Rule {
    pub(super) gradient_scale: f32,
    /// `[β₁, β₂]`
    pub(super) keep: [f32; 2],
    /// `[1 - β₁, 1 - β₂]`
    pub(super) take: [f32; 2],
    /// `lr / (1 - β₁ᵗ)`
    pub(super) step: f32,
    /// `1 / √(1 - β₂ᵗ)`
    pub(super) root: f32,
    pub(super) eps: f32,
    /// `1 - lr · λ`
    pub(super) decay: f32,
}

impl Rule {
    #[inline(always)]
    fn apply(self, weights: &mut [f32], gradient: &[f32], m: &mut [f32], v: &mut [f32]) {
        let Self { gradient_scale, keep, take, step, root, eps, decay } = self;
        for (((weight, &gradient), m), v) in weights.iter_mut().zip(gradient).zip(m).zip(v) {
            let gradient = gradient * gradient_scale;
            *m = keep[0] * *m + take[0] * gradient;
            *v = keep[1] * *v + take[1] * gradient * gradient;
            *weight = *weight * decay - step * *m / (v.sqrt() * root + eps);
        }
    }
}

/// Both moments of a variable.
pub(super) type Pair<'a> = Mutex<(&'a mut [f32], &'a mut [f32])>;

/// Every value of a variable.
pub(super) struct All<'a> {
    pub(super) moments: Pair<'a>,
    pub(super) rule: Rule,
}

impl InplaceOp2 for All<'_> {
    fn name(&self) -> &'static str {
        "adamw"
    }

    fn cpu_fwd(&self, weights: &mut CpuStorage, layout: &Layout, gradient: &CpuStorage, at: &Layout) -> Result<()> {
        let (weights, gradient) = slices(weights, layout, gradient, at)?;
        let mut moments = self.moments.lock().unwrap_or_else(PoisonError::into_inner);
        let (m, v) = &mut *moments;
        let chunks = weights.par_chunks_mut(CHUNK).zip(gradient.par_chunks(CHUNK));
        let chunks = chunks.zip(m.par_chunks_mut(CHUNK).zip(v.par_chunks_mut(CHUNK)));
        chunks.for_each(|((weights, gradient), (m, v))| {
            vectorized(
                #[inline(always)]
                || self.rule.apply(weights, gradient, m, v),
            );
        });
        Ok(())
    }
}

/// The rows `ids` of a `(rows, width)` variable, ascending; the gradient has these rows only.
pub(super) struct Rows<'a> {
    pub(super) moments: Pair<'a>,
    pub(super) rule: Rule,
    pub(super) ids: &'a [u32],
    pub(super) width: usize,
}

impl InplaceOp2 for Rows<'_> {
    fn name(&self) -> &'static str {
        "adamw-rows"
    }

    fn cpu_fwd(&self, weights: &mut CpuStorage, layout: &Layout, gradient: &CpuStorage, at: &Layout) -> Result<()> {
        let (weights, gradient) = slices(weights, layout, gradient, at)?;
        let mut moments = self.moments.lock().unwrap_or_else(PoisonError::into_inner);
        let (m, v) = &mut *moments;
        // Tasks are ranges of the table; a gradient of few rows of a large table is small work for each of them.
        let width = self.width.max(1);
        let rows = (CHUNK / width).max(1);
        let tables = weights.par_chunks_mut(rows * width);
        let tables = tables.zip(m.par_chunks_mut(rows * width).zip(v.par_chunks_mut(rows * width)));
        tables.enumerate().for_each(|(task, (weights, (m, v)))| {
            let place = |row: usize| self.ids.partition_point(|&id| (id as usize) < row);
            for idx in place(task * rows)..place((task + 1) * rows) {
                let row = self.ids[idx] as usize - task * rows;
                let at = row * width..(row + 1) * width;
                let gradient = &gradient[idx * width..(idx + 1) * width];
                let (weights, m, v) = (&mut weights[at.clone()], &mut m[at.clone()], &mut v[at]);
                vectorized(
                    #[inline(always)]
                    || self.rule.apply(weights, gradient, m, v),
                );
            }
        });
        Ok(())
    }
}

fn slices<'a>(
    weights: &'a mut CpuStorage,
    layout: &Layout,
    gradient: &'a CpuStorage,
    at: &Layout,
) -> Result<(&'a mut [f32], &'a [f32])> {
    let (CpuStorage::F32(weights), CpuStorage::F32(gradient)) = (weights, gradient) else {
        bail!("adamw: expected an f32 gradient for an f32 variable")
    };
    let (Some((start, end)), Some((from, to))) = (layout.contiguous_offsets(), at.contiguous_offsets()) else {
        bail!("adamw: expected contiguous tensors")
    };
    Ok((&mut weights[start..end], &gradient[from..to]))
}
