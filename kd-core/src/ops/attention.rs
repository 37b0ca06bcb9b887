//! Scaled dot-product attention of several heads in one op.
//!
//! Head `h` of example `b` takes columns `h·d .. (h+1)·d` of `q`, `k` and `v`, with `d = hidden / heads`:
//!
//! ```text
//! S = q kᵀ / √d      P = softmax(S), over the keys that are not padding      y = dropout(P) v
//! ```
//!
//! (Vaswani et al. 2017.) With `P'` the masked and scaled `P`, and `dP` the gradient that comes through the mask,
//! `dv = P'ᵀ dy`, `dS = P ∘ (dP - Σ_keys P ∘ dP)`, `dq = dS k / √d`, `dk = dSᵀ q / √d`.
//!
//! Heads are read and written in place as strides, and each (example, head) is one task. Keys behind the last token of
//! an example are not looked at: padding costs no time but that of its queries. Only `P` is kept for the backward.
//!
//! ```
//! use candle_core::{Device, Tensor};
//! use kd_core::{model::Mode, ops::attention};
//! let q = Tensor::zeros((1, 2, 2), candle_core::DType::F32, &Device::Cpu)?;
//! let v = Tensor::new(&[[[1f32, 2.], [3., 6.]]], &Device::Cpu)?;
//! let mask = Tensor::new(&[[1u8, 1]], &Device::Cpu)?;
//! // Equal scores: every position gets the mean of the values.
//! let y = attention(&q, &q, &v, 2, &mask, 0.0, Mode::Eval)?;
//! assert_eq!(y.to_vec3::<f32>()?, [[[2., 4.], [2., 4.]]]);
//! # Ok::<(), candle_core::Error>(())
//! ```

use std::sync::{Mutex, PoisonError};

use candle_core::backend::BackendStorage;
use candle_core::{CpuStorage, CustomOp3, DType, Layout, Result, Shape, Tensor, bail};
use rayon::prelude::*;

use super::cpu::{self, Float, Matrix, MatrixMut, Threads, for_float};
use super::dropout::Mask;
use super::softmax::{softmax, softmax_row};
use crate::model::Mode;

/// Attention of `heads` heads with a mask over the keys, and dropout on the probabilities.
///
/// A key whose mask is 0 gets probability exactly 0 and no gradient. An example without any key gives zeros.
/// Queries on padding are computed as any other; what they give does not matter.
///
/// # Shapes
/// - `q`, `k`, `v`: `(batch, len, hidden)`, where `heads` divides `hidden`; `mask`: `(batch, len)` u8, 0 on padding
/// - `p`: probability in `[0, 1)` that a probability is dropped in training
/// - returns `(batch, len, hidden)`, differentiable in `q`, `k` and `v`
///
/// # Errors
/// If shapes or dtypes do not fit or `p` is out of range.
pub fn attention(
    q: &Tensor,
    k: &Tensor,
    v: &Tensor,
    heads: usize,
    mask: &Tensor,
    p: f64,
    mode: Mode,
) -> Result<Tensor> {
    check(q, k, v, heads, mask)?;
    let dropout = Mask::new(p, mode)?;
    if !cpu::has_kernel(q) {
        return composed(q, k, v, heads, mask, dropout);
    }
    let mask = mask.flatten_all()?.to_vec1::<u8>()?;
    let op = Attention {
        heads,
        keys: mask
            .chunks(q.dim(1)?.max(1))
            .map(|row| row.iter().rposition(|&m| m != 0).map_or(0, |last| last + 1))
            .collect(),
        mask,
        dropout,
        kept: Mutex::new(None),
    };
    let (q, k, v) = (q.contiguous()?, k.contiguous()?, v.contiguous()?);
    if q.track_op() || k.track_op() || v.track_op() {
        q.apply_op3(&k, &v, Training(op))
    } else {
        q.apply_op3_no_bwd(&k, &v, &op)
    }
}

/// The probabilities of [`attention()`] before dropout, for losses that compare them with a teacher's.
///
/// # Shapes
/// - `q`, `k`: `(batch, len, hidden)`, where `heads` divides `hidden`; `mask`: `(batch, len)` u8, 0 on padding
/// - returns `(batch, heads, len, len)`, queries before keys, differentiable in `q` and `k`; 0 for every masked key
///
/// # Errors
/// If shapes or dtypes do not fit.
pub fn attention_probs(q: &Tensor, k: &Tensor, heads: usize, mask: &Tensor) -> Result<Tensor> {
    let (batch, len, hidden) = q.dims3()?;
    check(q, k, k, heads, mask)?;
    let (q, k) = (split_heads(q, heads)?, split_heads(k, heads)?);
    let scores = (q.matmul(&k.t()?.contiguous()?)? / ((hidden / heads) as f64).sqrt())?;
    let mask = mask.reshape((batch, 1, 1, len))?.broadcast_as(scores.shape())?.contiguous()?;
    let lowest = match q.dtype() {
        DType::F16 => -6e4f32, // the range ends at -65504
        _ => -1e30,
    };
    let lowest = Tensor::new(lowest, q.device())?.to_dtype(q.dtype())?.broadcast_as(scores.shape())?.contiguous()?;
    // The product makes rows without any key zero instead of even.
    softmax(&mask.where_cond(&scores, &lowest)?)? * mask.to_dtype(q.dtype())?
}

/// `(batch, len, hidden)` → `(batch, heads, len, hidden / heads)`.
fn split_heads(x: &Tensor, heads: usize) -> Result<Tensor> {
    let (batch, len, hidden) = x.dims3()?;
    x.contiguous()?.reshape((batch, len, heads, hidden / heads))?.transpose(1, 2)?.contiguous()
}

fn check(q: &Tensor, k: &Tensor, v: &Tensor, heads: usize, mask: &Tensor) -> Result<()> {
    let (batch, len, hidden) = q.dims3()?;
    if k.dims() != q.dims() || v.dims() != q.dims() {
        bail!("attention: expected q, k and v of one shape, found {:?}, {:?} and {:?}", q.dims(), k.dims(), v.dims());
    }
    if heads == 0 || hidden % heads != 0 {
        bail!("attention: expected a number of heads that divides the hidden size {hidden}, found {heads}");
    }
    if mask.dims() != [batch, len] || mask.dtype() != DType::U8 {
        bail!("attention: expected a u8 mask of shape [{batch}, {len}], found {:?} {:?}", mask.dtype(), mask.dims());
    }
    Ok(())
}

/// The same as [`attention()`] from Candle's operations.
fn composed(q: &Tensor, k: &Tensor, v: &Tensor, heads: usize, mask: &Tensor, dropout: Option<Mask>) -> Result<Tensor> {
    let probs = attention_probs(q, k, heads, mask)?;
    let probs = match dropout {
        Some(dropout) => (&probs * dropout.tensor(&probs)?)?,
        None => probs,
    };
    probs.matmul(&split_heads(v, heads)?)?.transpose(1, 2)?.contiguous()?.reshape(q.shape())
}

struct Attention {
    heads: usize,
    /// For each example the position behind its last key.
    keys: Vec<usize>,
    /// `(batch · len)`, 0 on padding.
    mask: Vec<u8>,
    dropout: Option<Mask>,
    /// Probabilities before dropout, head by head `(len, keys)`, of the forward pass.
    kept: Mutex<Option<CpuStorage>>,
}

/// The op when there will be a backward.
struct Training(Attention);

#[derive(Clone, Copy)]
struct Sizes {
    len: usize,
    hidden: usize,
    width: usize,
}

/// A pointer that tasks share because each of them writes elsewhere.
#[derive(Clone, Copy)]
struct Shared<T>(*mut T);

// SAFETY: only `head_of` dereferences it, for columns that one task owns.
unsafe impl<T> Send for Shared<T> {}
// SAFETY: as above.
unsafe impl<T> Sync for Shared<T> {}

impl<T: Float> Shared<T> {
    /// The `(rows, width)` matrix of one head in a `(batch, len, hidden)` buffer.
    ///
    /// # Safety
    /// The buffer must be that large and alive for `'a`, and only one task may ask for this head.
    unsafe fn head_of<'a>(self, sizes: Sizes, example: usize, head: usize, rows: usize) -> MatrixMut<'a, T> {
        let Sizes { len, hidden, width } = sizes;
        // SAFETY: the first value of the head is inside the buffer; the rest is the caller's promise.
        unsafe { MatrixMut::from_raw(self.0.add(example * len * hidden + head * width), rows, width, hidden) }
    }
}

impl Attention {
    fn sizes(&self, layout: &Layout) -> Result<Sizes> {
        let (_, len, hidden) = layout.shape().dims3()?;
        Ok(Sizes { len, hidden, width: hidden / self.heads })
    }

    /// The first `rows` rows of one head of a `(batch, len, hidden)` input.
    fn head<'a, T>(x: &'a [T], sizes: Sizes, example: usize, head: usize, rows: usize) -> Matrix<'a, T> {
        let Sizes { len, hidden, width } = sizes;
        Matrix::new(&x[example * len * hidden + head * width..], rows, width, hidden)
    }

    /// Index of the first element of one head's `(len, len)` probabilities, as dropout counts them.
    fn first_index(&self, sizes: Sizes, example: usize, head: usize) -> u64 {
        ((example * self.heads + head) * sizes.len * sizes.len) as u64
    }

    fn drop<T: Float>(&self, sizes: Sizes, example: usize, head: usize, probs: &mut [T]) {
        if let Some(dropout) = &self.dropout {
            let first = self.first_index(sizes, example, head);
            for (row_idx, row) in probs.chunks_exact_mut(self.keys[example]).enumerate() {
                dropout.apply(first + (row_idx * sizes.len) as u64, row);
            }
        }
    }

    /// Splits a buffer of all heads' `(len, keys)` matrices; every task gets its own.
    fn split<'a, T>(&self, len: usize, mut probs: &'a mut [T]) -> Vec<(usize, usize, &'a mut [T])> {
        let mut tasks = Vec::with_capacity(self.keys.len() * self.heads);
        for (example, keys) in self.keys.iter().enumerate() {
            for head in 0..self.heads {
                let (own, rest) = probs.split_at_mut(len * keys);
                tasks.push((example, head, own));
                probs = rest;
            }
        }
        tasks
    }

    fn count(&self, len: usize) -> usize {
        self.keys.iter().map(|keys| keys * len * self.heads).sum()
    }

    fn forward<T: Float>(&self, q: &[T], k: &[T], v: &[T], sizes: Sizes, keep: bool) -> CpuStorage {
        let len = sizes.len;
        // SAFETY: every task writes all of its probabilities and its columns of the output.
        let (mut probs, mut y) = unsafe { (cpu::uninit::<T>(self.count(len)), cpu::uninit::<T>(q.len())) };
        let target = Shared(y.as_mut_ptr());
        let scale = T::one() / T::from_f64(sizes.width as f64).sqrt();
        let work = |(example, head, probs): (usize, usize, &mut [T]), dropped: &mut Vec<T>| {
            let keys = self.keys[example];
            let (q, k, v) = (
                Self::head(q, sizes, example, head, len),
                Self::head(k, sizes, example, head, keys),
                Self::head(v, sizes, example, head, keys),
            );
            // SAFETY: the output is as large as q, outlives the tasks, and each (example, head) is one task.
            let out = unsafe { target.head_of(sizes, example, head, len) };
            cpu::matmul(MatrixMut::new(probs, len, keys, keys), scale, q, k.t(), Threads::One);
            let mask = &self.mask[example * len..][..keys];
            let holes = mask.contains(&0);
            for row in probs.chunks_exact_mut(keys.max(1)) {
                if holes {
                    for (score, _) in row.iter_mut().zip(mask).filter(|(_, mask)| **mask == 0) {
                        *score = T::NEG_INFINITY;
                    }
                }
                softmax_row(row);
            }
            if self.dropout.is_some() && keys > 0 {
                let probs: &[T] = if keep {
                    dropped.clear();
                    dropped.extend_from_slice(probs);
                    self.drop(sizes, example, head, dropped);
                    dropped
                } else {
                    self.drop(sizes, example, head, probs);
                    probs
                };
                cpu::matmul(out, T::one(), Matrix::new(probs, len, keys, keys), v, Threads::One);
            } else {
                cpu::matmul(out, T::one(), Matrix::new(probs, len, keys, keys), v, Threads::One);
            }
        };
        let tasks = self.split(len, &mut probs);
        if q.len() <= cpu::CHUNK / 4 {
            let mut dropped = Vec::new();
            tasks.into_iter().for_each(|task| work(task, &mut dropped));
        } else {
            tasks.into_par_iter().for_each_init(Vec::new, |dropped, task| work(task, dropped));
        }
        if keep {
            *self.kept.lock().unwrap_or_else(PoisonError::into_inner) = Some(cpu::storage(probs));
        }
        cpu::storage(y)
    }

    /// Gradients of `q`, `k` and `v`.
    fn backward<T: Float>(&self, q: &[T], k: &[T], v: &[T], dy: &[T], sizes: Sizes) -> Result<[Vec<T>; 3]> {
        let len = sizes.len;
        let kept = self.kept.lock().unwrap_or_else(PoisonError::into_inner);
        let probs = match &*kept {
            Some(kept) => T::cpu_storage_as_slice(kept)?,
            None => bail!("attention: the backward came before the forward"),
        };
        // SAFETY: every task writes its columns of all three, `dk` and `dv` up to the last key, and clears the rest.
        let mut gradients: [Vec<T>; 3] = std::array::from_fn(|_| unsafe { cpu::uninit(q.len()) });
        let [dq, dk, dv] = &mut gradients;
        let (dq, dk, dv) = (Shared(dq.as_mut_ptr()), Shared(dk.as_mut_ptr()), Shared(dv.as_mut_ptr()));
        let scale = T::one() / T::from_f64(sizes.width as f64).sqrt();
        let starts: Vec<usize> = self
            .keys
            .iter()
            .scan(0, |start, keys| {
                let first = *start;
                *start += self.heads * len * keys;
                Some(first)
            })
            .collect();
        let work = |task: usize, (scratch, dropped): &mut (Vec<T>, Vec<T>)| {
            let (example, head) = (task / self.heads, task % self.heads);
            let keys = self.keys[example];
            let probs = &probs[starts[example] + head * len * keys..][..len * keys];
            let (q, k, v, dy) = (
                Self::head(q, sizes, example, head, len),
                Self::head(k, sizes, example, head, keys),
                Self::head(v, sizes, example, head, keys),
                Self::head(dy, sizes, example, head, len),
            );
            // SAFETY: the gradients are as large as q, outlive the tasks, and each (example, head) is one task.
            // Rows from `keys` on are cleared through the same pointers.
            let (dq, dk, dv) = unsafe {
                for row in keys..len {
                    let offset = (example * len + row) * sizes.hidden + head * sizes.width;
                    dk.0.add(offset).write_bytes(0, sizes.width);
                    dv.0.add(offset).write_bytes(0, sizes.width);
                }
                (
                    dq.head_of(sizes, example, head, len),
                    dk.head_of(sizes, example, head, keys),
                    dv.head_of(sizes, example, head, keys),
                )
            };
            scratch.resize(probs.len(), T::zero());
            let scores = &mut scratch[..probs.len()];
            let applied: &[T] = if self.dropout.is_some() && keys > 0 {
                dropped.clear();
                dropped.extend_from_slice(probs);
                self.drop(sizes, example, head, dropped);
                dropped
            } else {
                probs
            };
            cpu::matmul(dv, T::one(), Matrix::new(applied, len, keys, keys).t(), dy, Threads::One);
            cpu::matmul(MatrixMut::new(scores, len, keys, keys), T::one(), dy, v.t(), Threads::One);
            if keys > 0 {
                self.drop(sizes, example, head, scores);
                for (row, probs) in scores.chunks_exact_mut(keys).zip(probs.chunks_exact(keys)) {
                    let mean = cpu::dot(row, probs);
                    for (g, &p) in row.iter_mut().zip(probs) {
                        *g = p * (*g - mean);
                    }
                }
            }
            let scores = Matrix::new(scores, len, keys, keys);
            cpu::matmul(dq, scale, scores, k, Threads::One);
            cpu::matmul(dk, scale, scores.t(), q, Threads::One);
        };
        let tasks = self.keys.len() * self.heads;
        if q.len() <= cpu::CHUNK / 4 {
            let mut scratch = Default::default();
            (0..tasks).for_each(|task| work(task, &mut scratch));
        } else {
            (0..tasks).into_par_iter().for_each_init(Default::default, |scratch, task| work(task, scratch));
        }
        Ok(gradients)
    }

    fn run(&self, inputs: [(&CpuStorage, &Layout); 3], keep: bool) -> Result<(CpuStorage, Shape)> {
        let [(s1, l1), (s2, l2), (s3, l3)] = inputs;
        let sizes = self.sizes(l1)?;
        for_float!(s1.dtype(), T => {
            let (q, k, v) = (cpu::slice::<T>(s1, l1)?, cpu::slice::<T>(s2, l2)?, cpu::slice::<T>(s3, l3)?);
            Ok((self.forward(q, k, v, sizes, keep), l1.shape().clone()))
        })
    }
}

impl CustomOp3 for Attention {
    fn name(&self) -> &'static str {
        "attention"
    }

    fn cpu_fwd(
        &self,
        s1: &CpuStorage,
        l1: &Layout,
        s2: &CpuStorage,
        l2: &Layout,
        s3: &CpuStorage,
        l3: &Layout,
    ) -> Result<(CpuStorage, Shape)> {
        self.run([(s1, l1), (s2, l2), (s3, l3)], false)
    }
}

impl CustomOp3 for Training {
    fn name(&self) -> &'static str {
        "attention"
    }

    fn cpu_fwd(
        &self,
        s1: &CpuStorage,
        l1: &Layout,
        s2: &CpuStorage,
        l2: &Layout,
        s3: &CpuStorage,
        l3: &Layout,
    ) -> Result<(CpuStorage, Shape)> {
        self.0.run([(s1, l1), (s2, l2), (s3, l3)], true)
    }

    fn bwd(
        &self,
        q: &Tensor,
        k: &Tensor,
        v: &Tensor,
        _: &Tensor,
        grad: &Tensor,
    ) -> Result<(Option<Tensor>, Option<Tensor>, Option<Tensor>)> {
        let grad = grad.contiguous()?;
        let sizes = self.0.sizes(q.layout())?;
        for_float!(q.dtype(), T => {
            let [dq, dk, dv] =
                self.0.backward::<T>(&cpu::values(q)?, &cpu::values(k)?, &cpu::values(v)?, &cpu::values(&grad)?, sizes)?;
            Ok((
                Some(cpu::tensor(dq, q.shape())?),
                Some(cpu::tensor(dk, q.shape())?),
                Some(cpu::tensor(dv, q.shape())?),
            ))
        })
    }
}

#[cfg(test)]
mod tests;
