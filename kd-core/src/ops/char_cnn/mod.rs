//! Convolution over the characters of words, and the maximum over each word.
//!
//! A word of `n` characters with embeddings `x_1 … x_n`, between zeros, gives filter `f` the value
//!
//! ```text
//! y_f = max_t relu(b_f + Σ_k W_f[:, k] · x_{t + k - (kernel - 1) / 2})        t = 1 … n
//! ```
//!
//! (Ma and Hovy 2016, §2.1, and Chiu and Nichols 2016, §2.2, with a ReLU). The maximum is over the word's own characters
//! only, so padding of words and of batches changes nothing; a word without characters gives 0.
//!
//! An embedding followed by a convolution is linear in the embedding, so on the CPU in f32 and f64 the fused op
//! multiplies each *distinct* character of the batch with the filters once and adds up rows of that table: no
//! window is ever unfolded. It keeps, for the backward pass, where each maximum was; of equal values the
//! first gets the gradient. On a CUDA device the table is a product and the rest a kernel; elsewhere the same is composed of
//! Candle's ops, which is slower.
//! When the weights no longer change, [`CharTable`] keeps that table for all characters, and no product is left.

mod composed;
mod kernel;
mod table;
#[cfg(test)]
mod tests;
mod words;

use std::sync::{Mutex, PoisonError};

use candle_core::backend::BackendStorage;
use candle_core::{CpuStorage, CustomOp3, DType, Layout, Result, Shape, Tensor, WithDType, bail};

pub use self::table::CharTable;

use self::kernel::Filters;
use self::words::Words;
use super::backward::hand_over;
use super::cpu::{Float, for_float, has_kernel, slice, tensor, values};

/// One vector per word, `(batch, len, filters)`, at least 0; words without characters give 0.
///
/// # Shapes
/// - `chars`: `(batch, len, chars)` u32, less than `symbols`; 0 is padding and stands at the end of a word only
/// - `table`: `(symbols, width)` float, the embeddings; row 0 is not read, it counts as zeros and its gradient is 0
/// - `weight`: `(filters, width, kernel)` as in PyTorch's `Conv1d`, `kernel` odd; `bias`: `(filters,)`
/// - differentiable in `table`, `weight` and `bias`
///
/// # Errors
/// If shapes do not fit, `kernel` is even, a character is no symbol, or stands behind padding. A CUDA device is not read back:
/// there a word with a character that is no symbol is NaN, and what stands behind padding is padding.
pub fn char_cnn(chars: &Tensor, table: &Tensor, weight: &Tensor, bias: &Tensor) -> Result<Tensor> {
    let (batch, len, _) = chars.dims3()?;
    let (symbols, _) = table.dims2()?;
    let (filters, width, kernel) = check(table, weight, bias)?;
    #[cfg(feature = "cuda")]
    if super::cuda::has_linear(table, weight, Some(bias)) && chars.elem_count() > 0 {
        if chars.dtype() != DType::U32 {
            bail!("expected characters in u32, found {:?}", chars.dtype());
        }
        let words = chars.to_device(table.device())?.flatten(0, 1)?;
        return super::cuda::char_cnn(&words, table, weight, bias)?.reshape((batch, len, filters));
    }
    let mut words = read(chars, symbols)?;
    let out = if has_kernel(table) {
        let op = CharCnn { symbols: words.rename(symbols), words, kernel, width, filters, peaks: Mutex::default() };
        table.contiguous()?.apply_op3(&weight.contiguous()?, &bias.contiguous()?, op)?
    } else {
        composed::char_cnn(chars, table, weight, bias)?
    };
    out.reshape((batch, len, filters))
}

/// Checks that the weights fit; filters, width and kernel.
fn check(table: &Tensor, weight: &Tensor, bias: &Tensor) -> Result<(usize, usize, usize)> {
    let (_, width) = table.dims2()?;
    let (filters, weight_width, kernel) = weight.dims3()?;
    if weight_width != width || bias.dims() != [filters] {
        bail!(
            "expected a weight of shape {:?} and a bias of shape {:?}, found {:?} and {:?}",
            [filters, width, kernel],
            [filters],
            weight.dims(),
            bias.dims()
        );
    }
    if kernel.is_multiple_of(2) {
        bail!("expected an odd kernel, found {kernel}");
    }
    Ok((filters, width, kernel))
}

/// The words of `chars`, `(batch, len, chars)`.
fn read(chars: &Tensor, symbols: usize) -> Result<Words> {
    let (batch, len, max_chars) = chars.dims3()?;
    if chars.dtype() != DType::U32 {
        bail!("expected characters in u32, found {:?}", chars.dtype());
    }
    Words::new(&chars.flatten_all()?.to_vec1::<u32>()?, batch * len, max_chars, symbols)
}

/// `(table, weight, bias)` → `(words, filters)`.
struct CharCnn {
    /// Words whose letters stand for `symbols`.
    words: Words,
    symbols: Vec<usize>,
    kernel: usize,
    width: usize,
    filters: usize,
    /// At which character each value of the output is.
    peaks: Mutex<Vec<u32>>,
}

impl CharCnn {
    fn filters<'a, T>(&self, weight: &'a [T], bias: &'a [T]) -> Filters<'a, T> {
        Filters { weight, bias, filters: self.filters, width: self.width, kernel: self.kernel }
    }

    fn backward<T: Float>(
        &self,
        table: &Tensor,
        weight: &Tensor,
        bias: &Tensor,
        result: &Tensor,
        gradient: &Tensor,
    ) -> Result<[Tensor; 3]> {
        let gradient = gradient.contiguous()?;
        let peaks = self.peaks.lock().unwrap_or_else(PoisonError::into_inner);
        let [d_table, d_weight, d_bias] = {
            let (t, w, b) = (values::<T>(table)?, values::<T>(weight)?, values::<T>(bias)?);
            let (out, d) = (values::<T>(result)?, values::<T>(&gradient)?);
            kernel::backward((&self.words, &self.symbols), &t, self.filters(&w, &b), &peaks, &out, &d)
        };
        Ok([tensor(d_table, table.shape())?, tensor(d_weight, weight.shape())?, tensor(d_bias, bias.shape())?])
    }
}

impl CustomOp3 for CharCnn {
    fn name(&self) -> &'static str {
        "char-cnn"
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
        for_float!(s1.dtype(), T => {
            let filters = self.filters::<T>(slice(s2, l2)?, slice(s3, l3)?);
            let (out, peaks) = kernel::forward(&self.words, &self.symbols, slice(s1, l1)?, filters);
            *self.peaks.lock().unwrap_or_else(PoisonError::into_inner) = peaks;
            Ok((T::to_cpu_storage_owned(out), Shape::from((self.words.count(), self.filters))))
        })
    }

    fn bwd(
        &self,
        table: &Tensor,
        weight: &Tensor,
        bias: &Tensor,
        result: &Tensor,
        gradient: &Tensor,
    ) -> Result<(Option<Tensor>, Option<Tensor>, Option<Tensor>)> {
        let [d_table, d_weight, d_bias] =
            for_float!(table.dtype(), T => self.backward::<T>(table, weight, bias, result, gradient)?);
        Ok((hand_over(table, d_table), hand_over(weight, d_weight), hand_over(bias, d_bias)))
    }
}
