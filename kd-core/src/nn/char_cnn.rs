//! Words as vectors, from their characters.

use std::sync::Arc;

use candle_core::{DType, Result, Tensor, bail};
use candle_nn::VarBuilder;
use candle_nn::init::Init;

use crate::ops::char_cnn::{CharTable, char_cnn};

/// Character embeddings, a convolution, ReLU and the maximum over each word ([`char_cnn`]).
///
/// Variables start as in PyTorch: `embedding.weight` `(symbols, width)` normal with row 0 zero,
/// `conv.weight` `(filters, width, kernel)` and `conv.bias` uniform within `±1 / √(width · kernel)`.
/// Row 0 is padding: its gradient is 0, and it counts as zeros whatever stands there.
///
/// ```
/// use candle_core::{DType, Device, Tensor};
/// use kd_core::nn::CharCnn;
/// use kd_core::variables::Variables;
/// let variables = Variables::new(0, DType::F32, &Device::Cpu);
/// let cnn = CharCnn::new(27, 4, 6, 3, variables.builder())?;
/// let chars = Tensor::new(&[[[2u32, 1, 4], [1, 0, 0], [0, 0, 0]]], &Device::Cpu)?; // "bad", "a", padding
/// let words = cnn.forward(&chars)?;
/// assert_eq!(words.dims(), [1, 3, 6]);
/// assert_eq!(words.get(0)?.get(2)?.to_vec1::<f32>()?, [0.0; 6]);
/// # Ok::<(), candle_core::Error>(())
/// ```
#[derive(Debug, Clone)]
pub struct CharCnn {
    table: Tensor,
    weight: Tensor,
    bias: Tensor,
    /// The same weights as one table, once [`CharCnn::freeze`] was called.
    frozen: Option<Arc<CharTable>>,
}

impl CharCnn {
    /// `symbols` counts padding, symbol 0. `kernel` characters wide, an odd number.
    ///
    /// # Errors
    /// If a size is 0, `kernel` is even, or `vb` has no such variables.
    pub fn new(symbols: usize, width: usize, filters: usize, kernel: usize, vb: VarBuilder<'_>) -> Result<Self> {
        if symbols == 0 || width == 0 || filters == 0 {
            bail!("a char-cnn needs sizes above 0, found symbols {symbols}, width {width}, filters {filters}");
        }
        if kernel.is_multiple_of(2) {
            bail!("expected an odd kernel, found {kernel}");
        }
        let table = Init::Randn { mean: 0.0, stdev: 1.0 };
        let table = vb.get_with_hints((symbols, width), "embedding.weight", table)?;
        // Nothing here reads row 0, but whoever loads the variables elsewhere may.
        table.slice_set(&Tensor::zeros((1, width), table.dtype(), table.device())?, 0, 0)?;
        let bound = 1.0 / ((width * kernel) as f64).sqrt();
        let init = Init::Uniform { lo: -bound, up: bound };
        let weight = vb.get_with_hints((filters, width, kernel), "conv.weight", init)?;
        let bias = vb.get_with_hints(filters, "conv.bias", init)?;
        Ok(Self { table, weight, bias, frozen: None })
    }

    /// Size of the output's last dimension.
    pub fn output(&self) -> usize {
        self.bias.elem_count()
    }

    /// One vector per word, `(batch, len, chars)` u32 → `(batch, len, filters)`; exactly 0 for words without characters.
    ///
    /// # Errors
    /// If a character is not below `symbols`, or stands behind padding (0).
    pub fn forward(&self, chars: &Tensor) -> Result<Tensor> {
        match &self.frozen {
            Some(table) => table.forward(chars),
            None => char_cnn(chars, &self.table, &self.weight, &self.bias),
        }
    }

    /// Turns embedding and filters into one table for inference on the CPU ([`CharTable`]): forward passes are faster, keep
    /// no graph, and do not see later changes of the variables. On other devices and in other dtypes nothing changes.
    ///
    /// # Errors
    /// If a weight cannot be read.
    pub fn freeze(&mut self) -> Result<()> {
        if self.table.device().is_cpu() && self.table.dtype() == DType::F32 {
            self.frozen = Some(Arc::new(CharTable::new(&self.table, &self.weight, &self.bias)?));
        }
        Ok(())
    }
}
