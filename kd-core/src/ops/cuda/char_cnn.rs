//! Characters of words: what each symbol adds to each filter is a product, and a kernel adds it up and takes the maximum.

use candle_core::{DType, Result, Tensor};

use super::attach::attach2;
use super::launch::{Geometry, Launch, reduce};
use super::output::{Output, device_of};
use super::{linear, wide, wide_weight};

/// `(words, filters)` of `chars`, `(words, max_chars)` u32, as [`crate::ops::char_cnn`] has it, whose checks of shapes have
/// passed. The characters stay on the device: a word ends at its first 0, and one with a character that is no symbol is NaN.
pub(crate) fn char_cnn(chars: &Tensor, table: &Tensor, weight: &Tensor, bias: &Tensor) -> Result<Tensor> {
    /// Groups of words with a sum of their own, so that the gradient has enough threads.
    const PARTS: usize = 32;
    let (words, max_chars) = chars.dims2()?;
    let (filters, width, kernel) = weight.dims3()?;
    let (symbols, columns) = (table.dim(0)?, kernel * filters);
    let (chars, device) = (chars.contiguous()?, device_of(table)?);
    // (symbols, kernel · filters): what a symbol adds to each filter at each offset.
    let shares = linear(table, &weight.permute((2, 0, 1))?.reshape((columns, width))?, None, None)?;
    let wide_bias = wide_weight(bias, table.dtype())?;
    let mut y = Output::new((words, filters), table.dtype(), device)?;
    // The symbol at each offset of the maximum; 0 beyond the word's ends, and where the maximum is no more than 0.
    let mut symbols_at_peak = Output::new((words, columns), DType::U32, device)?;
    let launch = Launch::new(device, "char_cnn", table.dtype())?.tensor(&chars)?.tensor(&shares)?.tensor(&wide_bias)?;
    let launch = launch.output(&mut y)?.output(&mut symbols_at_peak)?.int(words)?.int(max_chars)?;
    let launch = launch.int(filters)?.int(kernel)?.int(symbols)?;
    launch.run(Geometry { grid: ((words * filters).div_ceil(128) as u32, 1), block: (128, 1) })?;
    let symbols_at_peak = symbols_at_peak.into_tensor();
    attach2("char-cnn", [&shares, bias], y, move |[shares, bias], _, dy| {
        let device = device_of(shares)?;
        let parts = words.clamp(1, PARTS);
        let mut partial = Output::new((parts, symbols * columns), wide(shares.dtype()), device)?;
        let launch = Launch::new(device, "char_cnn_backward", shares.dtype())?.tensor(&symbols_at_peak)?.tensor(dy)?;
        let launch = launch.output(&mut partial)?.int(words)?.int(columns)?.int(filters)?.int(symbols)?;
        let grid = ((symbols * columns).div_ceil(128) as u32, parts as u32);
        launch.run(Geometry { grid, block: (128, 1) })?;
        let d_shares = reduce(device, &mut partial)?.reshape((symbols, columns))?;
        // A maximum above 0 has a symbol in the middle of its window, so the sum over symbols there is that over words.
        let d_bias = d_shares.narrow(1, kernel / 2 * filters, filters)?.sum(0)?.to_dtype(bias.dtype())?;
        Ok([Some(d_shares.to_dtype(shares.dtype())?), Some(d_bias)])
    })
}
