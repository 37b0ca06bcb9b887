//! The op for weights that no longer change.

use candle_core::{DType, Device, Result, Tensor, bail};

use super::kernel::{Filters, Shares};
use super::words::Words;
use crate::ops::cpu::values;

/// Embedding and filters as one table: what each character adds to each filter at each offset of the kernel.
///
/// A word then costs `kernel` additions and a maximum per character and filter, and no product: for a deployed model
/// on the CPU, in f32. The table has `(symbols + 1) · kernel · filters` values, filters rounded up to 16.
///
/// ```
/// use candle_core::{Device, Tensor};
/// use kd_core::ops::char_cnn::CharTable;
/// // One filter of kernel 1, weight 2 and bias 1, on a word of characters with embeddings 3 and 1: max(7, 3).
/// let table = Tensor::new(&[[0f32], [3.], [1.]], &Device::Cpu)?;
/// let (weight, bias) = (Tensor::new(&[[[2f32]]], &Device::Cpu)?, Tensor::new(&[1f32], &Device::Cpu)?);
/// let chars = Tensor::new(&[[[1u32, 2, 0]]], &Device::Cpu)?;
/// assert_eq!(CharTable::new(&table, &weight, &bias)?.forward(&chars)?.to_vec3::<f32>()?, [[[7.]]]);
/// # Ok::<(), candle_core::Error>(())
/// ```
#[derive(Debug)]
pub struct CharTable {
    shares: Shares<f32>,
    symbols: usize,
}

impl CharTable {
    /// From the weights of [`super::char_cnn`], in any float dtype and on any device.
    ///
    /// # Errors
    /// If their shapes do not fit or the kernel is even.
    pub fn new(table: &Tensor, weight: &Tensor, bias: &Tensor) -> Result<Self> {
        let (symbols, _) = table.dims2()?;
        let (filters, width, kernel) = super::check(table, weight, bias)?;
        let [table, weight, bias] = [table, weight, bias]
            .map(|weights| weights.detach().to_device(&Device::Cpu)?.to_dtype(DType::F32)?.contiguous());
        let (table, weight, bias) = (table?, weight?, bias?);
        let (table, weight, bias) = (values::<f32>(&table)?, values::<f32>(&weight)?, values::<f32>(&bias)?);
        let conv = Filters { weight: &weight, bias: &bias, filters, width, kernel };
        Ok(Self { shares: Shares::new(&table, symbols, conv), symbols })
    }

    /// Values per word.
    pub fn filters(&self) -> usize {
        self.shares.filters
    }

    /// As [`super::char_cnn`], `(batch, len, filters)` in f32 on the CPU; not differentiable.
    ///
    /// # Errors
    /// If `chars` is not `(batch, len, chars)` of u32, a character is no symbol, or stands behind padding.
    pub fn forward(&self, chars: &Tensor) -> Result<Tensor> {
        let (batch, len, _) = chars.dims3()?;
        let mut out = vec![0.0; batch * len * self.filters()];
        self.shares.words(&super::read(chars, self.symbols)?, &mut out, &mut []);
        Tensor::from_vec(out, (batch, len, self.filters()), &Device::Cpu)
    }

    /// The same on slices: a row of [`CharTable::filters`] values in `out` for every `max_chars` characters.
    ///
    /// # Errors
    /// If the slices do not fit each other, a character is no symbol, or stands behind padding.
    pub fn write(&self, chars: &[u32], max_chars: usize, out: &mut [f32]) -> Result<()> {
        let words = out.len() / self.filters().max(1);
        if words * self.filters() != out.len() || words * max_chars != chars.len() {
            bail!(
                "expected {max_chars} characters and {} values per word, found {} and {}",
                self.filters(),
                chars.len(),
                out.len()
            );
        }
        self.shares.words(&Words::new(chars, words, max_chars, self.symbols)?, out, &mut []);
        Ok(())
    }
}
