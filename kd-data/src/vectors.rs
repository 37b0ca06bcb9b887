//! Pretrained word vectors in the formats that they are published in.
//!
//! | format     | text                              | binary                                                        | source                 |
//! |------------|-----------------------------------|---------------------------------------------------------------|------------------------|
//! | `glove`    | `word v1 … vn`                    | –                                                             | Pennington et al. 2014 |
//! | `word2vec` | the same below a line `words n`   | `words n`, then for each word its bytes, a blank and n floats | Mikolov et al. 2013    |
//! | `fasttext` | as word2vec's                     | a model (`.bin`, versions 11 and 12, not quantized)           | Bojanowski et al. 2017 |
//!
//! A file is read from front to back and only wanted words are kept; the table of a fastText model is read where it is. Where a
//! width is expected, the last so many fields of a line are the values, so that words may have blanks in them, as some of
//! `glove.840B` have.

mod fasttext;
mod word2vec;

use std::path::Path;

use serde::{Deserialize, Serialize};

pub use crate::glove::Vectors;

use crate::error::{Error, Result, count};
use crate::glove;

/// Who wrote the vectors.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Format {
    /// GloVe.
    #[default]
    Glove,
    /// word2vec.
    Word2vec,
    /// fastText.
    Fasttext,
}

/// How they are written.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Storage {
    /// A line of text for each word.
    #[default]
    Text,
    /// Bytes.
    Binary,
}

/// The vectors of the words for which `wanted` is true, in the file's order; of a word that stands there twice, the first.
///
/// fastText makes vectors for words that its model has not seen; those are not read.
///
/// # Errors
/// If the file cannot be read, is none of its format, or its vectors have not `width` values; if a wanted word has a value
/// that is not finite; if a format has no such storage.
pub fn read(
    path: impl AsRef<Path>,
    format: Format,
    storage: Storage,
    width: usize,
    wanted: impl FnMut(&str) -> bool,
) -> Result<Vectors> {
    let path = path.as_ref();
    let vectors = match (format, storage) {
        (_, Storage::Text) => glove::read_vectors_of_width(path, width, wanted)?,
        (Format::Word2vec, Storage::Binary) => word2vec::read(path, wanted)?,
        (Format::Fasttext, Storage::Binary) => fasttext::read(path, wanted)?,
        (Format::Glove, Storage::Binary) => {
            return Err(Error::argument("vectors", "glove as text, or word2vec or fasttext", "glove as binary"));
        }
    };
    if vectors.width != width {
        return Err(Error::file(path, format!("vectors of {}", count(width, "value")), vectors.width.to_string()));
    }
    Ok(vectors)
}

/// Adds a word's vector.
fn push(path: &Path, vectors: &mut Vectors, word: &str, values: impl Iterator<Item = f32>) -> Result<()> {
    for value in values {
        if !value.is_finite() {
            return Err(Error::file(path, format!("finite numbers for `{word}`"), value.to_string()));
        }
        vectors.values.push(value);
    }
    vectors.words.push(word.to_string());
    Ok(())
}

#[cfg(test)]
mod tests;
