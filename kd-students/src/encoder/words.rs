//! The table of word vectors.

use candle_core::{DType, Result, Tensor, bail};
use candle_nn::{Init, VarBuilder};

use super::{PADDING, SPECIAL};

/// Name of the table below what reads it.
pub(crate) const WORD_TABLE: &str = "words.weight";

/// A table of `rows` words, `(rows, width)`: one that `vb` has as it is, a new one with padding and unknown at zero.
pub(crate) fn table(rows: usize, width: usize, init: Init, vb: &VarBuilder) -> Result<Tensor> {
    let is_new = !vb.contains_tensor(WORD_TABLE);
    let words = vb.get_with_hints((rows, width), WORD_TABLE, init)?;
    if is_new {
        words.slice_set(&Tensor::zeros((SPECIAL, width), words.dtype(), words.device())?, 0, 0)?;
    }
    Ok(words)
}

/// Puts `vectors` into the given rows of the table, in place; the other rows stay.
///
/// # Errors
/// If a row does not exist or is the padding row, a vector has another width than the table, or holds a value that is
/// not finite. Nothing is changed then.
pub(crate) fn set_vectors(words: &Tensor, vectors: &[(usize, Vec<f32>)]) -> Result<()> {
    let (rows, width) = words.dims2()?;
    let mut table = words.to_dtype(DType::F32)?.flatten_all()?.to_vec1::<f32>()?;
    for (row, vector) in vectors {
        if *row == PADDING as usize || *row >= rows {
            bail!("word vector of row {row}: expected a row in 1..{rows}, row 0 being padding");
        }
        if vector.len() != width {
            bail!("word vector of row {row}: expected {width} values, found {}", vector.len());
        }
        if let Some(bad) = vector.iter().find(|value| !value.is_finite()) {
            bail!("word vector of row {row}: expected finite values, found {bad}");
        }
        table[row * width..(row + 1) * width].copy_from_slice(vector);
    }
    let table = Tensor::from_vec(table, (rows, width), words.device())?.to_dtype(words.dtype())?;
    words.slice_set(&table, 0, 0)
}
