//! The largest value, or the mean, of windows of a map.

use candle_core::backend::BackendStorage;
use candle_core::{CpuStorage, CustomOp1, Layout, Result, Shape, Tensor};
use kd_core::ops::cpu::{self, Float};
use rayon::prelude::*;

use super::super::pool::PoolType;
use super::super::windows::Windows;
use super::{Tokens, for_float};

/// `(batch, height, width, channels)` → `(batch, outputs, outputs, channels)` by windows on axes 1 and 2.
///
/// A mean divides by the size of the window. Windows of no tokens give 0.
///
/// # Errors
/// If `x` has another rank, or is not on the CPU in f32 or f64.
pub(in super::super) fn pooling(
    x: &Tensor,
    windows: [Windows; 2],
    pool_type: PoolType,
    tokens: Tokens,
) -> Result<Tensor> {
    x.contiguous()?.apply_op1(Pooling { windows, pool_type, tokens })
}

struct Pooling {
    windows: [Windows; 2],
    pool_type: PoolType,
    tokens: Tokens,
}

impl Pooling {
    fn outputs(&self, (_, height, width, _): (usize, usize, usize, usize)) -> [usize; 2] {
        [self.windows[0].outputs(height), self.windows[1].outputs(width)]
    }

    /// Where the channels of each position of a window start in an example, column by column.
    fn positions(
        &self,
        [row, column]: [usize; 2],
        [rows, columns]: [usize; 2],
        width: usize,
        channels: usize,
    ) -> impl Iterator<Item = usize> {
        let [down, across] = self.windows;
        across
            .inside(column, columns)
            .flat_map(move |column| down.inside(row, rows).map(move |row| (row * width + column) * channels))
    }

    fn mean_factor<T: Float>(&self) -> T {
        T::from_f64(1.0 / (self.windows[0].size * self.windows[1].size) as f64)
    }

    fn forward<T: Float>(&self, x: &[T], dims: (usize, usize, usize, usize)) -> Vec<T> {
        let (batch, height, width, channels) = dims;
        let [out_height, out_width] = self.outputs(dims);
        let mut y = vec![T::zero(); batch * out_height * out_width * channels];
        let factor = self.mean_factor::<T>();
        let work = |(idx, y): (usize, &mut [T])| {
            let (example, row) = (idx / out_height, idx % out_height);
            let tokens = self.tokens.0[example];
            let x = &x[example * height * width * channels..];
            if row >= self.windows[0].valid(tokens[0]) {
                return;
            }
            for (column, y) in y.chunks_exact_mut(channels).enumerate().take(self.windows[1].valid(tokens[1])) {
                for (place, at) in self.positions([row, column], tokens, width, channels).enumerate() {
                    let x = &x[at..at + channels];
                    match self.pool_type {
                        _ if place == 0 => y.copy_from_slice(x),
                        PoolType::Max => {
                            y.iter_mut().zip(x).for_each(|(y, &x)| *y = if is_larger(x, *y) { x } else { *y })
                        }
                        PoolType::Mean => y.iter_mut().zip(x).for_each(|(y, &x)| *y += x),
                    }
                }
                if self.pool_type == PoolType::Mean {
                    y.iter_mut().for_each(|y| *y *= factor);
                }
            }
        };
        if channels > 0 {
            y.par_chunks_mut(out_width * channels).enumerate().for_each(work);
        }
        y
    }

    fn backward<T: Float>(&self, x: &[T], dy: &[T], dims: (usize, usize, usize, usize)) -> Vec<T> {
        let (_, height, width, channels) = dims;
        let [out_height, out_width] = self.outputs(dims);
        let mut dx = vec![T::zero(); x.len()];
        let factor = self.mean_factor::<T>();
        let work = |(example, dx): (usize, &mut [T])| {
            let x = &x[example * height * width * channels..];
            let dy = &dy[example * out_height * out_width * channels..];
            let tokens = self.tokens.0[example];
            let (mut largest, mut places) = (vec![T::zero(); channels], vec![0; channels]);
            for row in 0..self.windows[0].valid(tokens[0]) {
                for column in 0..self.windows[1].valid(tokens[1]) {
                    let dy = &dy[(row * out_width + column) * channels..][..channels];
                    let positions = || self.positions([row, column], tokens, width, channels);
                    if self.pool_type == PoolType::Mean {
                        for at in positions() {
                            dx[at..at + channels].iter_mut().zip(dy).for_each(|(dx, &dy)| *dx += dy * factor);
                        }
                        continue;
                    }
                    for (place, at) in positions().enumerate() {
                        let x = &x[at..at + channels];
                        if place == 0 {
                            largest.copy_from_slice(x);
                            places.fill(at);
                            continue;
                        }
                        for ((largest, place), &x) in largest.iter_mut().zip(&mut places).zip(x) {
                            let is_larger = is_larger(x, *largest);
                            *largest = if is_larger { x } else { *largest };
                            *place = if is_larger { at } else { *place };
                        }
                    }
                    for (channel, (&place, &dy)) in places.iter().zip(dy).enumerate() {
                        dx[place + channel] += dy;
                    }
                }
            }
        };
        dx.par_chunks_mut((height * width * channels).max(1)).enumerate().for_each(work);
        dx
    }
}

/// Whether `x` takes the place of `largest`: a value that is no number does, so that it is seen.
fn is_larger<T: Float>(x: T, largest: T) -> bool {
    x > largest || x.partial_cmp(&x).is_none()
}

impl CustomOp1 for Pooling {
    fn name(&self) -> &'static str {
        "pooling"
    }

    fn cpu_fwd(&self, storage: &CpuStorage, layout: &Layout) -> Result<(CpuStorage, Shape)> {
        let dims = layout.shape().dims4()?;
        let [height, width] = self.outputs(dims);
        for_float!(storage.dtype(), T => {
            let y = self.forward(cpu::slice::<T>(storage, layout)?, dims);
            Ok((cpu::storage(y), (dims.0, height, width, dims.3).into()))
        })
    }

    fn bwd(&self, x: &Tensor, _: &Tensor, grad: &Tensor) -> Result<Option<Tensor>> {
        for_float!(x.dtype(), T => {
            let grad = grad.contiguous()?;
            let dx = self.backward::<T>(&cpu::values(x)?, &cpu::values(&grad)?, x.dims4()?);
            Ok(Some(cpu::tensor(dx, x.shape())?))
        })
    }
}
