//! The words of a padded batch without their padding.

use std::ops::Range;

use candle_core::{Result, bail};

#[derive(Debug)]
pub(super) struct Words {
    /// The characters of all words one after another.
    pub(super) letters: Vec<usize>,
    /// End of each word in `letters`; a word of padding has no letters.
    ends: Vec<usize>,
}

impl Words {
    /// From `(count, max_chars)` character ids where 0 is padding.
    pub(super) fn new(ids: &[u32], count: usize, max_chars: usize, symbols: usize) -> Result<Self> {
        let (mut letters, mut ends) = (Vec::with_capacity(ids.len()), Vec::with_capacity(count));
        for (place, word) in ids.chunks_exact(max_chars.max(1)).enumerate() {
            let len = word.iter().position(|&id| id == 0).unwrap_or(max_chars);
            if let Some(idx) = word[len..].iter().position(|&id| id != 0) {
                bail!("word {place} has character {} behind padding, at {}", word[len + idx], len + idx);
            }
            if let Some(idx) = word.iter().position(|&id| id as usize >= symbols) {
                bail!("word {place} has character {} at {idx}, expected less than {symbols}", word[idx]);
            }
            letters.extend(word[..len].iter().map(|&id| id as usize));
            ends.push(letters.len());
        }
        ends.resize(count, 0); // with no characters at all, the words are not in `ids`
        Ok(Self { letters, ends })
    }

    /// Renames the letters to their places among the distinct ones, which are returned, ascending.
    pub(super) fn rename(&mut self, symbols: usize) -> Vec<usize> {
        let mut places = vec![None; symbols];
        self.letters.iter().for_each(|&letter| places[letter] = Some(0));
        let mut distinct = Vec::new();
        for (symbol, place) in places.iter_mut().enumerate().filter(|(_, place)| place.is_some()) {
            *place = Some(distinct.len());
            distinct.push(symbol);
        }
        for letter in &mut self.letters {
            *letter = places[*letter].expect("every letter was given a place above");
        }
        distinct
    }

    pub(super) fn count(&self) -> usize {
        self.ends.len()
    }

    /// The letters of word `idx`.
    pub(super) fn word(&self, idx: usize) -> &[usize] {
        let range: Range<usize> = if idx == 0 { 0..self.ends[0] } else { self.ends[idx - 1]..self.ends[idx] };
        &self.letters[range]
    }
}
