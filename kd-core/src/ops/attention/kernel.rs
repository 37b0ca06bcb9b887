//! Attention on slices: what [`attention()`](super::attention()) and a whole encoder layer share.

use candle_core::{Result, Tensor};
use rayon::prelude::*;

use crate::ops::cpu::{self, Float, Matrix, MatrixMut, Threads};
use crate::ops::dropout::Mask;
use crate::ops::softmax::masked::{backward_row, masked_row};
use crate::ops::softmax::softmax_row;

/// Heads, padding and dropout of one call; the same for forward and backward.
#[derive(Debug)]
pub(crate) struct Kernel {
    heads: usize,
    /// Rows of `(batch, len, hidden)`: positions of an example, padding included.
    len: usize,
    /// For each example the position behind its last key.
    keys: Vec<usize>,
    /// `(batch · len)`, 0 on padding.
    mask: Vec<u8>,
    dropout: Option<Mask>,
}

/// What one task needs between its products, kept from task to task.
#[derive(Default)]
struct Scratch<T> {
    probs: Vec<T>,
    gradients: Vec<T>,
    factors: Vec<T>,
}

/// A pointer that tasks share because each of them writes elsewhere.
#[derive(Clone, Copy)]
struct Shared<T>(*mut T);

// SAFETY: only `Kernel::columns` and `Kernel::clear` dereference it, for values that one task owns.
unsafe impl<T> Send for Shared<T> {}
// SAFETY: as above.
unsafe impl<T> Sync for Shared<T> {}

impl Kernel {
    /// `mask` is `(batch, len)` u8, 0 on padding.
    pub(crate) fn new(heads: usize, mask: &Tensor, dropout: Option<Mask>) -> Result<Self> {
        let (_, len) = mask.dims2()?;
        let mask = mask.flatten_all()?.to_vec1::<u8>()?;
        let behind_last = |row: &[u8]| row.iter().rposition(|&m| m != 0).map_or(0, |last| last + 1);
        Ok(Self { heads, len, keys: mask.chunks(len.max(1)).map(behind_last).collect(), mask, dropout })
    }

    fn scale<T: Float>(&self, hidden: usize) -> T {
        T::one() / T::from_f64((hidden / self.heads) as f64).sqrt()
    }

    /// The first `rows` rows of one head of a `(batch, len, hidden)` input.
    fn head<'a, T>(&self, x: &'a [T], hidden: usize, (example, head): (usize, usize), rows: usize) -> Matrix<'a, T> {
        let width = hidden / self.heads;
        Matrix::new(&x[example * self.len * hidden + head * width..], rows, width, hidden)
    }

    /// The same of an output.
    ///
    /// # Safety
    /// The buffer must be `(batch, len, hidden)` and alive for `'a`, and only one task may ask for this head.
    unsafe fn columns<'a, T: Float>(
        &self,
        out: Shared<T>,
        hidden: usize,
        (example, head): (usize, usize),
        rows: usize,
    ) -> MatrixMut<'a, T> {
        let width = hidden / self.heads;
        // SAFETY: the first value of the head is inside the buffer; the rest is the caller's promise.
        unsafe { MatrixMut::from_raw(out.0.add(example * self.len * hidden + head * width), rows, width, hidden) }
    }

    /// Clears one head from row `first` on.
    ///
    /// # Safety
    /// As [`Kernel::columns`].
    unsafe fn clear<T: Float>(&self, out: Shared<T>, hidden: usize, (example, head): (usize, usize), first: usize) {
        let width = hidden / self.heads;
        for row in first..self.len {
            // SAFETY: the row is inside the buffer; zero bytes are the number 0.
            unsafe { out.0.add((example * self.len + row) * hidden + head * width).write_bytes(0, width) };
        }
    }

    /// Calls `work` for every example and head, in parallel if there is enough to do.
    fn for_each_head<T: Float>(&self, values: usize, work: impl Fn((usize, usize), &mut Scratch<T>) + Sync + Send) {
        let place = |task: usize| (task / self.heads, task % self.heads);
        let tasks = self.keys.len() * self.heads;
        if values <= cpu::CHUNK / 4 || cpu::single_thread() {
            let mut scratch = Scratch::default();
            (0..tasks).for_each(|task| work(place(task), &mut scratch));
        } else {
            let init = Scratch::default;
            (0..tasks).into_par_iter().for_each_init(init, |scratch, task| work(place(task), scratch));
        }
    }

    /// Softmax of the scaled scores of one head, `(len, keys)` with 0 for masked keys, before dropout.
    fn probs<T: Float>(&self, probs: &mut Vec<T>, q: Matrix<'_, T>, k: Matrix<'_, T>, example: usize, scale: T) {
        let keys = self.keys[example];
        probs.resize(self.len * keys, T::zero());
        cpu::matmul(MatrixMut::new(probs, self.len, keys, keys), scale, q, k.t(), Threads::One);
        let mask = &self.mask[example * self.len..][..keys];
        let holes = mask.contains(&0);
        cpu::vectorized(
            #[inline(always)]
            || {
                for row in probs.chunks_exact_mut(keys.max(1)) {
                    if holes { masked_row(row, mask) } else { softmax_row(row) }
                }
            },
        );
    }

    /// Index of the first element of one head's `(len, len)` probabilities, as dropout counts them.
    fn first_index(&self, (example, head): (usize, usize)) -> u64 {
        ((example * self.heads + head) * self.len * self.len) as u64
    }

    /// `q`, `k` and `v` are `(batch, len, hidden)`, and so is the result.
    pub(crate) fn forward<T: Float>(&self, q: &[T], k: &[T], v: &[T], hidden: usize) -> Vec<T> {
        // SAFETY: every task writes its columns.
        let mut y = unsafe { cpu::uninit::<T>(q.len()) };
        let (out, scale) = (Shared(y.as_mut_ptr()), self.scale(hidden));
        self.for_each_head(q.len(), |place, Scratch { probs, .. }| {
            let keys = self.keys[place.0];
            let q = self.head(q, hidden, place, self.len);
            let (k, v) = (self.head(k, hidden, place, keys), self.head(v, hidden, place, keys));
            self.probs(probs, q, k, place.0, scale);
            if let Some(dropout) = &self.dropout {
                let first = self.first_index(place);
                cpu::vectorized(
                    #[inline(always)]
                    || {
                        for (row_idx, row) in probs.chunks_exact_mut(keys.max(1)).enumerate() {
                            dropout.apply(first + (row_idx * self.len) as u64, row);
                        }
                    },
                );
            }
            // SAFETY: the output is as large as q, outlives the tasks, and each (example, head) is one task.
            let out = unsafe { self.columns(out, hidden, place, self.len) };
            cpu::matmul(out, T::one(), Matrix::new(probs, self.len, keys, keys), v, Threads::One);
        });
        y
    }

    /// Gradients of `q`, `k` and `v`.
    pub(crate) fn backward<T: Float>(&self, q: &[T], k: &[T], v: &[T], dy: &[T], hidden: usize) -> [Vec<T>; 3] {
        // SAFETY: every task writes its columns of all three, `dk` and `dv` up to the last key, and clears the rest.
        let mut gradients: [Vec<T>; 3] = std::array::from_fn(|_| unsafe { cpu::uninit(q.len()) });
        let [dq, dk, dv] = gradients.each_mut().map(|gradient| Shared(gradient.as_mut_ptr()));
        let (len, scale) = (self.len, self.scale(hidden));
        self.for_each_head(q.len(), |place, Scratch { probs, gradients, factors }| {
            let keys = self.keys[place.0];
            let (q, dy) = (self.head(q, hidden, place, len), self.head(dy, hidden, place, len));
            let (k, v) = (self.head(k, hidden, place, keys), self.head(v, hidden, place, keys));
            // SAFETY: the gradients are as large as q, outlive the tasks, and each (example, head) is one task.
            let (dq, dk, dv) = unsafe {
                self.clear(dk, hidden, place, keys);
                self.clear(dv, hidden, place, keys);
                (
                    self.columns(dq, hidden, place, len),
                    self.columns(dk, hidden, place, keys),
                    self.columns(dv, hidden, place, keys),
                )
            };
            self.probs(probs, q, k, place.0, scale);
            gradients.resize(len * keys, T::zero());
            cpu::matmul(MatrixMut::new(gradients, len, keys, keys), T::one(), dy, v.t(), Threads::One);
            factors.resize(keys, T::zero());
            cpu::vectorized(
                #[inline(always)]
                || {
                    let rows = probs.chunks_exact_mut(keys.max(1)).zip(gradients.chunks_exact_mut(keys.max(1)));
                    for (row_idx, (probs, gradients)) in rows.enumerate() {
                        let factors = self.dropout.as_ref().map(|dropout| {
                            dropout.factors(self.first_index(place) + (row_idx * len) as u64, factors);
                            factors.as_slice()
                        });
                        backward_row(probs, gradients, factors);
                    }
                },
            );
            let (probs, gradients) = (Matrix::new(probs, len, keys, keys), Matrix::new(gradients, len, keys, keys));
            cpu::matmul(dv, T::one(), probs.t(), dy, Threads::One);
            cpu::matmul(dq, scale, gradients, k, Threads::One);
            cpu::matmul(dk, scale, gradients.t(), q, Threads::One);
        });
        gradients
    }
}
