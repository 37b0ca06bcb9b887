//! The op made of Candle's ops, for devices and dtypes without a kernel.

use candle_core::{Result, Tensor};

/// As [`super::char_cnn`], whose checks have passed; `(words, filters)`.
pub(super) fn char_cnn(chars: &Tensor, table: &Tensor, weight: &Tensor, bias: &Tensor) -> Result<Tensor> {
    let (batch, len, max_chars) = chars.dims3()?;
    let (filters, width, kernel) = weight.dims3()?;
    let (words, half) = (batch * len, kernel / 2);
    if words * max_chars == 0 {
        return Tensor::zeros((words, filters), table.dtype(), table.device());
    }
    let chars = chars.to_device(table.device())?;
    let real = chars.reshape((words, max_chars, 1))?.ne(0u32)?;
    let embedded = crate::ops::embedding(table, &chars.reshape((words, max_chars))?)?;
    let embedded = real.broadcast_as(embedded.shape())?.where_cond(&embedded, &embedded.zeros_like()?)?;
    let embedded = embedded.pad_with_zeros(1, half, half)?;
    // Candle's conv1d has a wrong kernel gradient, so: windows, and one product.
    let windows = (0..kernel).map(|offset| embedded.narrow(1, offset, max_chars)).collect::<Result<Vec<_>>>()?;
    let windows = Tensor::cat(&windows, 2)?.reshape((words * max_chars, kernel * width))?;
    let weight = weight.permute((2, 1, 0))?.contiguous()?.reshape((kernel * width, filters))?;
    let sums = windows.matmul(&weight)?.broadcast_add(bias)?.reshape((words, max_chars, filters))?;
    let lowest = Tensor::full(f32::MIN, sums.shape(), sums.device())?.to_dtype(sums.dtype())?;
    let sums = real.broadcast_as(sums.shape())?.where_cond(&sums, &lowest)?;
    // Candle's max gives every one of equal values the whole gradient; gathering at one of them does not.
    let peaks = sums.detach().argmax_keepdim(1)?;
    sums.gather(&peaks, 1)?.squeeze(1)?.relu()
}
