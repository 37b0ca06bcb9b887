//! Sentences of words for a pretrained encoder.

use std::collections::HashMap;

use candle_core::{Device, Result, Tensor};
use kd_core::batch::{Rows, Tokens, pad};

use super::pieces::{WordPieces, check_length};
use super::{Encode, pad_segments, pick};
use crate::error::Error;

/// Sentences in word pieces; the row of a word is its first piece.
///
/// A sentence of more than `max_len` pieces becomes several sequences of the batch: it is cut at the borders of words into
/// windows that do not overlap, each as long as possible and with special tokens of its own. Every word has its
/// row, in order, but the words of one window do not see those of another. A single word that does not fit
/// into a window keeps its first pieces; [`EncodedWords::shortened`] lists such words.
#[derive(Debug)]
pub struct EncodedWords {
    /// The windows of each sentence.
    sentences: Vec<Vec<Window>>,
    lengths: Vec<usize>,
    rows: Vec<usize>,
    shortened: Vec<(usize, usize)>,
    device: Device,
}

#[derive(Debug)]
struct Window {
    ids: Vec<u32>,
    segments: Vec<u32>,
    first: Vec<usize>,
}

impl EncodedWords {
    /// Encodes `sentences` in windows of at most `max_len` pieces, special tokens included: at most the number of the
    /// model's positions.
    ///
    /// # Errors
    /// If the tokenizer fails, if a sentence has no words, or if `max_len` leaves no room for a piece (below 3 in BERT).
    pub fn new(
        pieces: &WordPieces,
        sentences: impl IntoIterator<Item: AsRef<[String]>>,
        max_len: usize,
        device: &Device,
    ) -> crate::Result<Self> {
        check_length(max_len, pieces.special_tokens() + 1)?;
        let room = max_len - pieces.special_tokens();
        let mut encoded =
            Self { sentences: vec![], lengths: vec![], rows: vec![], shortened: vec![], device: device.clone() };
        let mut known: HashMap<String, Vec<u32>> = HashMap::new(); // a word has the same pieces everywhere
        for (example, words) in sentences.into_iter().enumerate() {
            let words = words.as_ref();
            if words.is_empty() {
                return Err(Error::argument(format!("sentence {example}"), "at least one word", "none"));
            }
            for (word_idx, word) in words.iter().enumerate() {
                if !known.contains_key(word) {
                    known.insert(word.clone(), pieces.word(word)?);
                }
                if known[word].len() > room {
                    encoded.shortened.push((example, word_idx));
                }
            }
            let (mut windows, mut open, mut used) = (Vec::new(), Vec::new(), 0);
            for word in words {
                let ids = &known[word];
                let ids = &ids[..ids.len().min(room)];
                if used + ids.len() > room {
                    windows.push(std::mem::take(&mut open));
                    used = 0;
                }
                used += ids.len();
                open.push(ids);
            }
            windows.push(open);
            let windows: Vec<Window> = windows
                .into_iter()
                .map(|words| pieces.frame(words))
                .map(|sentence| Window { ids: sentence.ids, segments: sentence.segments, first: sentence.first })
                .collect();
            encoded.lengths.push(windows.iter().map(|window| window.ids.len()).sum());
            encoded.rows.push(words.len());
            encoded.sentences.push(windows);
        }
        Ok(encoded)
    }

    /// The words, as `(sentence, word)`, that have more pieces than fit into a window and keep only the first.
    pub fn shortened(&self) -> &[(usize, usize)] {
        &self.shortened
    }
}

impl Encode for EncodedWords {
    fn collate(&self, examples: &[usize]) -> Result<Tokens> {
        let sentences = pick(&self.sentences, examples)?;
        let windows: Vec<&Window> = sentences.into_iter().flatten().collect();
        let ids: Vec<Vec<u32>> = windows.iter().map(|window| window.ids.clone()).collect();
        let len = ids.iter().map(Vec::len).max().unwrap_or(0);
        let index: Vec<u32> = windows
            .iter()
            .enumerate()
            .flat_map(|(sequence, window)| window.first.iter().map(move |first| (sequence * len + first) as u32))
            .collect();
        let n = index.len();
        let rows = Rows::Words {
            index: Tensor::from_vec(index, n, &self.device)?,
            per_example: examples.iter().map(|&example| self.rows[example]).collect(),
        };
        let mut first = pad(&ids, &self.device)?;
        if windows.iter().any(|window| window.segments.iter().any(|&segment| segment != 0)) {
            first.segments = Some(pad_segments(windows.iter().map(|window| window.segments.as_slice()), &first.ids)?);
        }
        Ok(Tokens { first, second: None, more: Vec::new(), rows })
    }

    fn lengths(&self) -> &[usize] {
        &self.lengths
    }

    fn rows(&self) -> &[usize] {
        &self.rows
    }
}
