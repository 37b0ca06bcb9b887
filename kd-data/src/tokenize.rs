//! Texts to words, for models of whole words.

#[cfg(feature = "chinese")]
mod chinese;
mod english;
mod sentence_ends;

use std::ops::Range;

use serde::{Deserialize, Serialize};

pub use english::{spans as english_spans, words as english_words};

use crate::error::{Error, Result};

/// What cuts a text into words.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Tokenizer {
    /// English: sentences, then the rules of the Penn Treebank, as NLTK's `word_tokenize`.
    English,
    /// Chinese: the most probable words, as `jieba`. Needs the feature `chinese`.
    Chinese,
    /// Words are parted by blanks already.
    Blanks,
}

impl Tokenizer {
    /// The tokenizer that a configuration names `nltk` or `jieba`.
    ///
    /// # Errors
    /// If it has another name.
    pub fn named(name: &str) -> Result<Self> {
        match name {
            "nltk" => Ok(Self::English),
            "jieba" => Ok(Self::Chinese),
            _ => Err(Error::argument("tokenizer", "`nltk` or `jieba`", format!("`{name}`"))),
        }
    }

    /// The words of a text. English quotation marks become `` `` `` and `''`; everything else is as in the text.
    ///
    /// # Errors
    /// If this crate is built without the tokenizer.
    pub fn words(self, text: &str) -> Result<Vec<String>> {
        match self {
            Self::English => Ok(english_words(text)),
            _ => Ok(self.spans(text)?.into_iter().map(|bytes| text[bytes].to_string()).collect()),
        }
    }

    /// The bytes of each word.
    ///
    /// # Errors
    /// If this crate is built without the tokenizer.
    pub fn spans(self, text: &str) -> Result<Vec<Range<usize>>> {
        match self {
            Self::English => Ok(english_spans(text)),
            #[cfg(feature = "chinese")]
            Self::Chinese => Ok(chinese::spans(text)),
            #[cfg(not(feature = "chinese"))]
            Self::Chinese => {
                Err(Error::argument("tokenizer", "one that is built in", "`jieba`, which needs the feature `chinese`"))
            }
            Self::Blanks => {
                let start = |word: &str| word.as_ptr() as usize - text.as_ptr() as usize;
                let words = text.split(' ').filter(|word| !word.is_empty());
                Ok(words.map(|word| start(word)..start(word) + word.len()).collect())
            }
        }
    }
}

#[cfg(test)]
mod tests;
