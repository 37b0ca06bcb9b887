//! The words of a padded batch that have characters, and the characters that occur.

use std::collections::BTreeMap;
use std::ops::Range;

use candle_core::{Result, bail};

#[derive(Debug)]
pub(super) struct Words {
    /// Number of words, with padding.
    pub(super) padded: usize,
    /// Place among all words of each word that has characters.
    pub(super) places: Vec<usize>,
    /// The distinct characters, ascending.
    pub(super) symbols: Vec<u32>,
    /// The characters of all words one after another, as indices into `symbols`.
    pub(super) letters: Vec<usize>,
    /// End of each word in `letters`.
    ends: Vec<usize>,
}

impl Words {
    /// From `(padded, max_chars)` character ids where 0 is padding.
    pub(super) fn new(ids: &[u32], padded: usize, max_chars: usize, symbols: usize) -> Result<Self> {
        let (mut places, mut letters, mut ends) = (Vec::new(), Vec::new(), Vec::new());
        for (place, word) in ids.chunks_exact(max_chars.max(1)).enumerate() {
            let len = word.iter().position(|&id| id == 0).unwrap_or(max_chars);
            if let Some(idx) = word[len..].iter().position(|&id| id != 0) {
                bail!("word {place} has character {} behind padding, at {}", word[len + idx], len + idx);
            }
            if let Some(idx) = word.iter().position(|&id| id as usize >= symbols) {
                bail!("word {place} has character {} at {idx}, expected less than {symbols}", word[idx]);
            }
            if len > 0 {
                places.push(place);
                letters.extend(word[..len].iter().map(|&id| id as usize));
                ends.push(letters.len());
            }
        }
        let mut index: BTreeMap<usize, usize> = letters.iter().map(|&letter| (letter, 0)).collect();
        index.values_mut().enumerate().for_each(|(idx, value)| *value = idx);
        letters.iter_mut().for_each(|letter| *letter = index[letter]);
        let symbols = index.into_keys().map(|letter| letter as u32).collect();
        Ok(Self { padded, places, symbols, letters, ends })
    }

    pub(super) fn count(&self) -> usize {
        self.places.len()
    }

    /// Where word `word_idx` stands in `letters`.
    pub(super) fn range(&self, word_idx: usize) -> Range<usize> {
        let start = if word_idx == 0 { 0 } else { self.ends[word_idx - 1] };
        start..self.ends[word_idx]
    }
}
