//! From words to the tensors of a model.
//!
//! | encoder                          | for                               | rows                          |
//! |----------------------------------|-----------------------------------|-------------------------------|
//! | [`WordPieces`] → [`EncodedWords`]| pretrained encoders, tagging      | the first piece of every word |
//! | [`WordPieces`] → [`EncodedTexts`]| pretrained encoders, classes      | one per text or pair          |
//!
//! A data set is encoded once; [`Encode::collate`] then makes batches of it. The rows of a batch stand in the order of
//! the examples and, within one, of its words, whatever the encoder: outputs of a word-piece teacher and
//! of a student that reads whole words fit row by row. Nothing is cut silently: each encoder says what it does with long input.

mod frame;
mod pieces;
mod texts;
mod vocabulary_files;
mod words;

use candle_core::{Result, Tensor, bail};
use kd_core::batch::Tokens;

pub use pieces::{PieceSentence, PieceText, WordPieces};
pub use texts::EncodedTexts;
pub use words::EncodedWords;

/// An encoded data set. An example's id is its position.
///
/// Implementors keep the rows of [`Encode::collate`] in the order of `examples`, [`Encode::rows`] of each.
pub trait Encode {
    /// The model's input for these examples, padded, on the device of the encoded set.
    ///
    /// # Errors
    /// If there is no example of an id, or none is asked for.
    fn collate(&self, examples: &[usize]) -> Result<Tokens>;

    /// Number of tokens of each example, for batches of similar lengths ([`crate::batches`]).
    fn lengths(&self) -> &[usize];

    /// Number of rows of each example.
    fn rows(&self) -> &[usize];
}

/// The items of these ids, or an error that names the id there is none of.
fn pick<'a, T>(items: &'a [T], examples: &[usize]) -> Result<Vec<&'a T>> {
    if examples.is_empty() {
        bail!("collate: expected at least one example, found none");
    }
    let item = |&example: &usize| match items.get(example) {
        Some(item) => Ok(item),
        None => bail!("collate: expected example ids below {}, found {example}", items.len()),
    };
    examples.iter().map(item).collect()
}

/// Segments as wide as the padded `ids`, 0 on padding.
fn pad_segments<'a>(segments: impl Iterator<Item = &'a [u32]>, ids: &Tensor) -> Result<Tensor> {
    let (rows, len) = ids.dims2()?;
    let mut padded = Vec::with_capacity(rows * len);
    for (row, segments) in segments.enumerate() {
        padded.extend_from_slice(segments);
        padded.resize((row + 1) * len, 0);
    }
    Tensor::from_vec(padded, (rows, len), ids.device())
}
