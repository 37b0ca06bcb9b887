//! What the CPU kernels share: slices of storage, work in fixed pieces, arithmetic that vectorises, products.
//!
//! A kernel is a Candle custom op whose forward and backward are written once for [`Float`] (`f32` and `f64`).
//! Three rules make its bytes independent of the number of threads: the work is cut into pieces of a fixed size
//! ([`par_rows`]), each piece writes its own part of the output, and partial sums are added in the order of
//! their pieces.
//!
//! ```
//! use candle_core::{Device, Tensor};
//! use kd_core::ops::cpu;
//! let x = Tensor::new(&[[1f32, 2.], [3., 4.]], &Device::Cpu)?;
//! let values = cpu::values::<f32>(&x)?;
//! let mut doubled = vec![0f32; values.len()];
//! cpu::par_rows(&mut doubled, 2, |first_row, rows| {
//!     for (y, x) in rows.iter_mut().zip(&values[first_row * 2..]) {
//!         *y = 2.0 * x;
//!     }
//! });
//! assert_eq!(doubled, [2., 4., 6., 8.]);
//! # Ok::<(), candle_core::Error>(())
//! ```

use std::marker::PhantomData;
use std::ops::{Deref, Range};

use candle_core::{CpuStorage, DType, Device, Layout, Result, Shape, Storage, Tensor, bail};
use rayon::prelude::*;

mod float;
mod matrix;
mod product;
mod vectorized;

pub use float::{Float, dot, max, sum, sum_map, sum_map2};
pub use matrix::{Matrix, MatrixMut, Packed, Start, Threads, matmul, matmul_add, matmul_bias, matmul_packed};
pub use vectorized::vectorized;

/// Values that one task works on; a kernel with less than this runs on the calling thread.
pub const CHUNK: usize = 16 * 1024;

/// Whether the kernels of this crate run on `tensor`: on the CPU, in `f32` or `f64`.
pub fn has_kernel(tensor: &Tensor) -> bool {
    tensor.device().is_cpu() && matches!(tensor.dtype(), DType::F32 | DType::F64)
}

/// Runs `$body` with `$T` as the Rust type of `$dtype`, or fails for a dtype without kernels.
macro_rules! for_float {
    ($dtype:expr, $T:ident => $body:expr) => {
        match $dtype {
            candle_core::DType::F32 => {
                type $T = f32;
                $body
            }
            candle_core::DType::F64 => {
                type $T = f64;
                $body
            }
            other => candle_core::bail!("expected f32 or f64, found {other:?}"),
        }
    };
}
pub(crate) use for_float;

/// The values of a contiguous layout.
///
/// # Errors
/// If the layout is not contiguous or the dtype is not `T`.
pub fn slice<'a, T: Float>(storage: &'a CpuStorage, layout: &Layout) -> Result<&'a [T]> {
    Ok(&T::cpu_storage_as_slice(storage)?[contiguous_range(layout)?])
}

/// Read access to the values of a contiguous CPU tensor.
///
/// # Errors
/// If it is not contiguous, not on the CPU, or its dtype is not `T`.
pub fn values<T: Float>(tensor: &Tensor) -> Result<impl Deref<Target = [T]> + '_> {
    let (storage, layout) = tensor.storage_and_layout();
    match &*storage {
        Storage::Cpu(values) => T::cpu_storage_as_slice(values)?,
        _ => bail!("expected a tensor on the cpu, found one on {:?}", tensor.device().location()),
    };
    Ok(Values { range: contiguous_range(layout)?, storage, dtype: PhantomData })
}

struct Values<S, T> {
    storage: S,
    range: Range<usize>,
    dtype: PhantomData<T>,
}

impl<S: Deref<Target = Storage>, T: Float> Deref for Values<S, T> {
    type Target = [T];

    fn deref(&self) -> &[T] {
        match &*self.storage {
            Storage::Cpu(storage) => match T::cpu_storage_as_slice(storage) {
                Ok(values) => &values[self.range.clone()],
                Err(_) => &[], // `values` has checked the dtype
            },
            _ => &[], // `values` has checked the device
        }
    }
}

fn contiguous_range(layout: &Layout) -> Result<Range<usize>> {
    match layout.contiguous_offsets() {
        Some((start, end)) => Ok(start..end),
        None => {
            bail!("expected a contiguous tensor, found shape {:?} with strides {:?}", layout.dims(), layout.stride())
        }
    }
}

/// A CPU tensor of `values`, without a copy.
pub fn tensor<T: Float>(values: Vec<T>, shape: impl Into<Shape>) -> Result<Tensor> {
    Tensor::from_vec(values, shape.into(), &Device::Cpu)
}

/// CPU storage of `values`, without a copy.
pub fn storage<T: Float>(values: Vec<T>) -> CpuStorage {
    T::to_cpu_storage_owned(values)
}

/// A buffer whose values are not set: clearing large outputs before they are written costs as much as a cheap kernel.
///
/// # Safety
/// Every value must be written before it is read.
pub unsafe fn uninit<T: Float>(len: usize) -> Vec<T> {
    let mut values = Vec::with_capacity(len);
    // SAFETY: the capacity is `len`, `T` is f32 or f64 and has no destructor; the caller writes before reading.
    #[allow(clippy::uninit_vec)]
    unsafe {
        values.set_len(len);
    }
    values
}

/// Rows of `width` values that one task works on.
pub fn rows_per_task(width: usize) -> usize {
    (CHUNK / width.max(1)).max(1)
}

/// Calls `work(first_row, rows)` for pieces of `out`, in parallel, where `out` is rows of `width` values.
/// The pieces depend on `width` only, not on the number of threads.
///
/// `work` runs inside [`vectorized`]; write it as `#[inline(always)] |first_row, rows| ...`, so that it is compiled there.
pub fn par_rows<T: Send>(out: &mut [T], width: usize, work: impl Fn(usize, &mut [T]) + Sync + Send) {
    let rows = rows_per_task(width);
    let piece = |(idx, piece): (usize, &mut [T])| {
        vectorized(
            #[inline(always)]
            || work(idx * rows, piece),
        )
    };
    if width == 0 {
        return;
    }
    if out.len() <= rows * width || single_thread() {
        return out.chunks_mut(rows * width).enumerate().for_each(piece);
    }
    out.par_chunks_mut(rows * width).enumerate().for_each(piece);
}

/// Whether the current Rayon pool has one thread, so that handing work to it would only cost the way there and back.
pub fn single_thread() -> bool {
    rayon::current_num_threads() == 1
}

/// Runs both tasks, on two threads if the current Rayon pool has them.
pub fn join<A: Send, B: Send>(first: impl FnOnce() -> A + Send, second: impl FnOnce() -> B + Send) -> (A, B) {
    if single_thread() { (first(), second()) } else { rayon::join(first, second) }
}

/// Calls `work(start, piece)` for pieces of `out`, in parallel; [`par_rows`] with rows of one value.
#[inline(always)]
pub fn par_elements<T: Send>(out: &mut [T], work: impl Fn(usize, &mut [T]) + Sync + Send) {
    par_rows(out, 1, work);
}

/// Sum of the rows of `xs`, which has rows of `width` values.
///
/// Rows are added in blocks of 64 and the blocks in order, on strips of columns in parallel.
pub fn column_sums<T: Float>(xs: &[T], width: usize) -> Vec<T> {
    const STRIP: usize = 128;
    const BLOCK: usize = 64;
    let mut sums = vec![T::zero(); width];
    let strip = |strip_idx: usize, sums: &mut [T]| {
        let (start, len) = (strip_idx * STRIP, sums.len());
        for block in xs.chunks(BLOCK * width) {
            let mut partial = [T::zero(); STRIP];
            for row in block.chunks_exact(width) {
                for (sum, &x) in partial[..len].iter_mut().zip(&row[start..start + len]) {
                    *sum += x;
                }
            }
            for (sum, &x) in sums.iter_mut().zip(&partial[..len]) {
                *sum += x;
            }
        }
    };
    if xs.len() <= CHUNK {
        sums.chunks_mut(STRIP).enumerate().for_each(|(idx, sums)| strip(idx, sums));
    } else {
        sums.par_chunks_mut(STRIP).enumerate().for_each(|(idx, sums)| strip(idx, sums));
    }
    sums
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn column_sums_add_every_row_once() {
        // Row r is r in every column, so each sum is 0 + 1 + ... + 199 = 19900.
        let width = 300;
        let xs: Vec<f64> = (0..200).flat_map(|row| vec![f64::from(row); width]).collect();
        assert_eq!(column_sums(&xs, width), vec![19900.0; width]);
        assert_eq!(column_sums::<f32>(&[], 2), [0.0, 0.0]);
    }

    #[test]
    fn every_row_is_visited_once_with_its_index() {
        for (rows, width) in [(0, 3), (1, 3), (20_000, 3), (3, 20_000)] {
            let mut out = vec![0usize; rows * width];
            par_rows(&mut out, width, |first_row, piece| {
                for (idx, row) in piece.chunks_exact_mut(width).enumerate() {
                    row.iter_mut().for_each(|x| *x += first_row + idx + 1);
                }
            });
            assert!(out.iter().enumerate().all(|(idx, &x)| x == idx / width + 1), "{rows} x {width}");
        }
    }

    #[test]
    fn values_refuse_another_dtype_and_strides() {
        let x = Tensor::new(&[[1f32, 2.], [3., 4.]], &Device::Cpu).unwrap();
        assert_eq!(&*values::<f32>(&x.narrow(0, 1, 1).unwrap()).unwrap(), [3.0, 4.0]);
        assert!(values::<f64>(&x).is_err());
        let Err(error) = values::<f32>(&x.t().unwrap()) else { panic!("strides were accepted") };
        assert!(error.to_string().contains("contiguous"), "{error}");
    }
}
