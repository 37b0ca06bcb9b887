//! A copy of what stands on tokens.

use candle_core::backend::BackendStorage;
use candle_core::{CpuStorage, CustomOp1, Layout, Result, Shape, Tensor};
use kd_core::ops::cpu::{self, Float};
use rayon::prelude::*;

use super::{Tokens, for_float};

/// `x`, `(batch, len, ..)`, on the tokens of axes 1 and 2, and 0 elsewhere; no gradient flows to what is not copied.
///
/// # Errors
/// If `x` is not on the CPU in f32 or f64.
pub(in super::super) fn kept(x: &Tensor, tokens: Tokens) -> Result<Tensor> {
    x.contiguous()?.apply_op1(Kept { tokens })
}

struct Kept {
    tokens: Tokens,
}

impl Kept {
    fn copy<T: Float>(&self, x: &[T], dims: &[usize]) -> Vec<T> {
        let width = dims.get(2).copied().unwrap_or(1);
        let channels = dims.iter().skip(3).product::<usize>();
        let row = width * channels;
        let example = (dims[1] * row).max(1);
        let mut y = vec![T::zero(); x.len()];
        let examples = y.par_chunks_mut(example).zip(x.par_chunks(example)).zip(&self.tokens.0);
        examples.for_each(|((y, x), &[rows, columns])| {
            for (y, x) in y.chunks_mut(row.max(1)).zip(x.chunks(row.max(1))).take(rows) {
                y[..columns * channels].copy_from_slice(&x[..columns * channels]);
            }
        });
        y
    }
}

impl CustomOp1 for Kept {
    fn name(&self) -> &'static str {
        "kept"
    }

    fn cpu_fwd(&self, storage: &CpuStorage, layout: &Layout) -> Result<(CpuStorage, Shape)> {
        for_float!(storage.dtype(), T => {
            let y = self.copy(cpu::slice::<T>(storage, layout)?, layout.dims());
            Ok((cpu::storage(y), layout.shape().clone()))
        })
    }

    fn bwd(&self, x: &Tensor, _: &Tensor, grad: &Tensor) -> Result<Option<Tensor>> {
        for_float!(x.dtype(), T => {
            let grad = grad.contiguous()?;
            let values = cpu::values::<T>(&grad)?;
            Ok(Some(cpu::tensor(self.copy(&values, x.dims()), x.shape())?))
        })
    }
}
