//! Linear-chain conditional random field over ragged rows.
//!
//! The words of all sequences stand one after another, `emissions: (rows, classes)`, and `lengths` says how
//! many rows each sequence has, so there is no padding and no mask. With transitions `A` the score of a
//! label path `y` of a sequence of `n` words is
//!
//! ```text
//! s(y) = A[start, y_1] + Σ_t e_t[y_t] + Σ_{t>1} A[y_{t-1}, y_t] + A[y_n, end]        p(y) = exp(s(y)) / Z
//! ```
//!
//! `transitions: (classes + 2, classes)` holds in row `i < classes` the scores from class `i` to each class, in
//! row `classes` those from the start and in row `classes + 1` those from each class to the end.
//!
//! | function                       | result                       |
//! |--------------------------------|------------------------------|
//! | [`log_partition`]              | `log Z` of each sequence     |
//! | [`path_scores`]                | `s(y)` of given labels       |
//! | [`negative_log_likelihood`]    | `log Z - s(y)`, mean per row |
//! | [`log_marginals`]              | `log p(y_t = c)` of each row |
//! | [`viterbi`]                    | the best path                |
//! | [`k_best`]                     | the `k` best paths           |
//!
//! All but the last two are differentiable in emissions and transitions. The recursions (Lafferty, McCallum and
//! Pereira 2001; Rabiner 1989 for forward and backward) run in f64 in log space whatever the dtype of the
//! input, so emissions of ±10⁴ cost no digits; results are rounded once. A step multiplies a vector with a matrix of
//! exponentials and takes exponentials and logarithms of eight classes together.
//!
//! On a CUDA device the first three have kernels for up to 64 classes. The rest runs on the CPU: for [`log_marginals`],
//! [`viterbi`], more classes and other devices the emissions are copied there and the result back.
//!
//! ```
//! use candle_core::{Device, Tensor};
//! use kd_core::ops::crf;
//! // Two sequences, of two words and of one; all transitions 0, so every word stands alone.
//! let emissions = Tensor::new(&[[1f64, 0.], [0., 2.], [3., 3.]], &Device::Cpu)?;
//! let transitions = Tensor::zeros((4, 2), emissions.dtype(), &Device::Cpu)?;
//! assert_eq!(crf::viterbi(&emissions, &transitions, &[2, 1])?, [0, 1, 0]);
//! let log_partition = crf::log_partition(&emissions, &transitions, &[2, 1])?.to_vec1::<f64>()?;
//! assert!((log_partition[1] - (3. + 2f64.ln())).abs() < 1e-12); // log(e³ + e³)
//! # Ok::<(), candle_core::Error>(())
//! ```

mod chain;
mod decode;
mod double;
mod k_best;
mod marginals;
mod scores;
mod step;

pub use decode::{FORBIDDEN, constrain, viterbi};
pub use k_best::{Path, k_best};
pub use marginals::log_marginals;
pub(crate) use scores::weighted_negative_log_likelihood;
pub use scores::{log_partition, negative_log_likelihood, negative_log_likelihood_sequences, path_scores};

use candle_core::backend::BackendStorage;
use candle_core::{CpuStorage, DType, Device, Layout, Result, Storage, Tensor, bail};

use self::chain::pad;
use super::backward::hand_over;
use super::cpu::slice;

/// Sequences that one task works on; fixed, so that partial sums never depend on the number of threads.
const CHUNK: usize = 4;

/// Checks what every function here takes and returns the number of classes.
fn check(emissions: &Tensor, transitions: &Tensor, lengths: &[usize]) -> Result<usize> {
    let (rows, classes) = emissions.dims2()?;
    if classes == 0 {
        bail!("a crf needs at least one class");
    }
    if transitions.dims() != [classes + 2, classes] {
        bail!("expected transitions of shape {:?}, found {:?}", [classes + 2, classes], transitions.dims());
    }
    let total: usize = lengths.iter().sum();
    if total != rows {
        bail!("the lengths sum to {total}, expected the {rows} rows of the emissions");
    }
    Ok(classes)
}

/// The same tensor, contiguous, on the CPU, in f64 if it was and in f32 otherwise; differentiable.
fn to_cpu(tensor: &Tensor) -> Result<Tensor> {
    let dtype = if tensor.dtype() == DType::F64 { DType::F64 } else { DType::F32 };
    tensor.to_device(&Device::Cpu)?.to_dtype(dtype)?.contiguous()
}

/// `result` on the device and in the dtype of `like`; differentiable.
fn back(result: Tensor, like: &Tensor) -> Result<Tensor> {
    result.to_device(like.device())?.to_dtype(like.dtype())
}

/// The rows of sequences, a task's share of them at a time: first sequence and first row of each share.
fn chunks(lengths: &[usize]) -> Vec<(usize, usize)> {
    let mut row = 0;
    let mut starts = Vec::with_capacity(lengths.len().div_ceil(CHUNK));
    for (chunk_idx, chunk) in lengths.chunks(CHUNK).enumerate() {
        starts.push((chunk_idx * CHUNK, row));
        row += chunk.iter().sum::<usize>();
    }
    starts
}

fn read(storage: &CpuStorage, layout: &Layout) -> Result<Vec<f64>> {
    match storage.dtype() {
        DType::F32 => Ok(slice::<f32>(storage, layout)?.iter().map(|&x| f64::from(x)).collect()),
        _ => Ok(slice::<f64>(storage, layout)?.to_vec()),
    }
}

/// As [`read`], of `(rows, classes)` to `(rows, lanes)`.
fn read_rows(storage: &CpuStorage, layout: &Layout) -> Result<Vec<f64>> {
    let (rows, classes) = layout.shape().dims2()?;
    match storage.dtype() {
        DType::F32 => Ok(pad(slice::<f32>(storage, layout)?, rows, classes, f64::NEG_INFINITY)),
        _ => Ok(pad(slice::<f64>(storage, layout)?, rows, classes, f64::NEG_INFINITY)),
    }
}

fn read_tensor(tensor: &Tensor, read: impl Fn(&CpuStorage, &Layout) -> Result<Vec<f64>>) -> Result<Vec<f64>> {
    let tensor = tensor.contiguous()?;
    let (storage, layout) = tensor.storage_and_layout();
    match &*storage {
        Storage::Cpu(storage) => read(storage, layout),
        _ => bail!("expected a tensor on the cpu, found one on {:?}", tensor.device().location()),
    }
}

fn write(values: Vec<f64>, dtype: DType) -> CpuStorage {
    match dtype {
        DType::F64 => CpuStorage::F64(values),
        _ => CpuStorage::F32(values.into_iter().map(|x| x as f32).collect()),
    }
}

/// The gradient of `arg` from its values, if it is not handed over.
fn gradient_of(arg: &Tensor, values: Vec<f64>) -> Result<Option<Tensor>> {
    let gradient = match arg.dtype() {
        DType::F64 => Tensor::from_vec(values, arg.shape(), &Device::Cpu)?,
        _ => Tensor::from_vec(values.into_iter().map(|x| x as f32).collect(), arg.shape(), &Device::Cpu)?,
    };
    Ok(hand_over(arg, gradient))
}
