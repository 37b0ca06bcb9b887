//! Words to ids.
//!
//! A word's id is its place in the list of words plus 2, looked up in lower case (Unicode's mapping) if so asked; 1 if
//! it is not there. A character's id is its place in the list of characters plus 2, of the word as written; 1 if it
//! is not there. Id 0 is padding, at the end of sentences and of words. Of each word the first `max_chars`
//! characters are read; of a sentence, every word.

use std::collections::HashMap;

use candle_core::{Device, Result, Tensor, bail};
use kd_core::batch::{Rows, Tokens, pad};

use crate::encoder::{SPECIAL, UNKNOWN};
use crate::error::check_distinct;

/// What gets a label.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Kind {
    /// Every word: tagging.
    Words,
    /// Every text: classification.
    Examples,
}

/// The words and characters that a student knows.
#[derive(Debug, Clone)]
pub struct Lookup {
    words: Vec<String>,
    characters: Vec<char>,
    lower_case: bool,
    max_chars: usize,
    word_ids: HashMap<String, u32>,
    character_ids: HashMap<char, u32>,
}

impl Lookup {
    /// A lookup over `words` and `characters` in the order of their rows: the first has id 2.
    ///
    /// # Errors
    /// If an entry is there twice; the message names it and its positions.
    pub fn new(words: Vec<String>, characters: Vec<char>, lower_case: bool, max_chars: usize) -> crate::Result<Self> {
        check_distinct("words", &words)?;
        check_distinct("characters", &characters)?;
        let id = |place: usize| (place + SPECIAL) as u32;
        let word_ids = words.iter().enumerate().map(|(place, word)| (word.clone(), id(place))).collect();
        let character_ids = characters.iter().enumerate().map(|(place, &character)| (character, id(place))).collect();
        Ok(Self { words, characters, lower_case, max_chars, word_ids, character_ids })
    }

    /// The words, in the order of their rows.
    pub fn words(&self) -> &[String] {
        &self.words
    }

    /// The characters, in the order of their rows.
    pub fn characters(&self) -> &[char] {
        &self.characters
    }

    /// Rows of a table for these words, padding and unknown included.
    pub fn word_rows(&self) -> usize {
        self.words.len() + SPECIAL
    }

    /// Rows of a table for these characters, padding and unknown included.
    pub fn character_rows(&self) -> usize {
        self.characters.len() + SPECIAL
    }

    /// The id of a word.
    pub fn word(&self, word: &str) -> u32 {
        let id = if self.lower_case { self.word_ids.get(&word.to_lowercase()) } else { self.word_ids.get(word) };
        id.copied().unwrap_or(UNKNOWN)
    }

    /// The ids of a word's first `max_chars` characters.
    pub fn word_characters(&self, word: &str) -> Vec<u32> {
        let id = |character| self.character_ids.get(&character).copied().unwrap_or(UNKNOWN);
        word.chars().take(self.max_chars).map(id).collect()
    }

    /// A padded batch of sentences.
    ///
    /// # Errors
    /// If there are no sentences, or one has no words; the message names it by its place.
    pub fn tokens(&self, sentences: &[Vec<String>], kind: Kind, device: &Device) -> Result<Tokens> {
        if sentences.is_empty() {
            bail!("a batch needs at least one sentence, found none");
        }
        if let Some(place) = sentences.iter().position(Vec::is_empty) {
            bail!("sentence {place} of the batch has no words");
        }
        let ids: Vec<Vec<u32>> = sentences.iter().map(|words| words.iter().map(|w| self.word(w)).collect()).collect();
        let mut first = pad(&ids, device)?;
        let (batch, len) = first.ids.dims2()?;

        let spelled: Vec<Vec<Vec<u32>>> =
            sentences.iter().map(|words| words.iter().map(|w| self.word_characters(w)).collect()).collect();
        let longest = spelled.iter().flatten().map(Vec::len).max().unwrap_or(0).max(1);
        let mut chars = vec![0u32; batch * len * longest];
        for (sentence, words) in spelled.iter().enumerate() {
            for (word, ids) in words.iter().enumerate() {
                let start = (sentence * len + word) * longest;
                chars[start..start + ids.len()].copy_from_slice(ids);
            }
        }
        first.chars = Some(Tensor::from_vec(chars, (batch, len, longest), device)?);

        let rows = match kind {
            Kind::Examples => Rows::Examples,
            Kind::Words => {
                let per_example: Vec<usize> = sentences.iter().map(Vec::len).collect();
                let places = |(sentence, &words): (usize, &usize)| {
                    let start = sentence * len;
                    (start..start + words).map(|place| place as u32).collect::<Vec<_>>()
                };
                let index: Vec<u32> = per_example.iter().enumerate().flat_map(places).collect();
                Rows::Words { index: Tensor::new(index, device)?, per_example }
            }
        };
        Ok(Tokens { first, second: None, more: Vec::new(), rows })
    }

    /// A padded batch of pairs of texts that are encoded apart, for a [`crate::pair::PairEncoder`]: a row per pair, words
    /// without their characters.
    ///
    /// # Errors
    /// If there are no pairs, or a text has no words; the message names it by its pair's place.
    pub fn pairs(&self, pairs: &[(Vec<String>, Vec<String>)], device: &Device) -> Result<Tokens> {
        if pairs.is_empty() {
            bail!("a batch needs at least one pair, found none");
        }
        let (firsts, seconds): (Vec<&[String]>, Vec<&[String]>) =
            pairs.iter().map(|(first, second)| (first.as_slice(), second.as_slice())).unzip();
        let text = |name: &str, texts: &[&[String]]| {
            if let Some(place) = texts.iter().position(|words| words.is_empty()) {
                bail!("the {name} text of pair {place} of the batch has no words");
            }
            let ids: Vec<Vec<u32>> =
                texts.iter().map(|words| words.iter().map(|word| self.word(word)).collect()).collect();
            pad(&ids, device)
        };
        let (first, second) = (text("first", &firsts)?, text("second", &seconds)?);
        Ok(Tokens { first, second: Some(second), more: Vec::new(), rows: Rows::Examples })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn lookup() -> Lookup {
        let words = ["to", "ada", "é"].map(String::from).to_vec();
        Lookup::new(words, vec!['A', 'a', 'd', 'o'], true, 3).unwrap()
    }

    fn sentence(words: &[&str]) -> Vec<String> {
        words.iter().map(|word| word.to_string()).collect()
    }

    #[test]
    fn words_are_found_in_lower_case_and_characters_as_written() {
        let lookup = lookup();
        assert_eq!(["ADA", "É", "Eve", ""].map(|word| lookup.word(word)), [3, 4, 1, 1]);
        // A, d, and a that is cut; an emoji is unknown.
        assert_eq!(lookup.word_characters("Adda"), [2, 4, 4]);
        assert_eq!(lookup.word_characters("o🎉"), [5, 1]);
        let cased = Lookup::new(sentence(&["Ada"]), vec![], false, 3).unwrap();
        assert_eq!(["Ada", "ada"].map(|word| cased.word(word)), [2, 1]);
    }

    #[test]
    fn a_batch_is_padded_and_its_rows_are_the_words() {
        let sentences = [sentence(&["Ada"]), sentence(&["to", "do"])];
        let tokens = lookup().tokens(&sentences, Kind::Words, &Device::Cpu).unwrap();
        assert_eq!(tokens.first.ids.to_vec2::<u32>().unwrap(), [[3, 0], [2, 1]]);
        assert_eq!(tokens.first.mask.to_vec2::<u8>().unwrap(), [[1, 0], [1, 1]]);
        let chars = tokens.first.chars.unwrap().to_vec3::<u32>().unwrap();
        assert_eq!(chars, [[[2, 4, 3], [0, 0, 0]], [[1, 5, 0], [4, 5, 0]]]);
        let Rows::Words { index, per_example } = tokens.rows else { panic!("expected words") };
        assert_eq!((index.to_vec1::<u32>().unwrap(), per_example), (vec![0, 2, 3], vec![1, 2]));
    }

    #[test]
    fn a_pair_is_two_sequences_without_characters() {
        let pairs = [(sentence(&["Ada"]), sentence(&["to", "to"])), (sentence(&["to", "Ada", "x"]), sentence(&["é"]))];
        let tokens = lookup().pairs(&pairs, &Device::Cpu).unwrap();
        let second = tokens.second.unwrap();
        assert_eq!(tokens.first.ids.to_vec2::<u32>().unwrap(), [[3, 0, 0], [2, 3, 1]]);
        assert_eq!(second.ids.to_vec2::<u32>().unwrap(), [[2, 2], [4, 0]]);
        assert_eq!(second.mask.to_vec2::<u8>().unwrap(), [[1, 1], [1, 0]]);
        assert!(tokens.first.chars.is_none() && matches!(tokens.rows, Rows::Examples));
        let message = lookup().pairs(&[(sentence(&["to"]), vec![])], &Device::Cpu).unwrap_err().to_string();
        assert!(message.contains("the second text of pair 0 of the batch has no words"), "{message}");
        assert!(lookup().pairs(&[], &Device::Cpu).unwrap_err().to_string().contains("at least one pair"));
    }

    #[test]
    fn what_cannot_be_a_batch_or_a_list_is_named() {
        let message = |sentences: &[Vec<String>]| {
            lookup().tokens(sentences, Kind::Examples, &Device::Cpu).unwrap_err().to_string()
        };
        assert!(message(&[]).contains("at least one sentence"));
        assert!(message(&[sentence(&["to"]), vec![]]).contains("sentence 1 of the batch has no words"));
        let twice = Lookup::new(sentence(&["to", "a", "to"]), vec![], true, 3).unwrap_err().to_string();
        assert_eq!(twice, "words: expected every entry once, found `to` at positions [0, 2]");
        let twice = Lookup::new(vec![], vec!['x', 'x'], true, 3).unwrap_err().to_string();
        assert_eq!(twice, "characters: expected every entry once, found `x` at positions [0, 1]");
    }
}
