//! Numbers for words and characters.
//!
//! Index 0 is padding and 1 is everything unknown; both are nobody's text, so a word `<unk>` in a file is a word like
//! others. A vocabulary is built from training text alone, labelled and unlabelled; development and test text may add
//! nothing but words that have a pretrained vector ([`Vocabulary::extend_with`]).

use std::collections::{BTreeSet, HashMap};

/// The index of padding.
pub const PADDING: u32 = 0;
/// The index of everything that is not in the vocabulary.
pub const UNKNOWN: u32 = 1;

/// Symbols (words or characters) and their indices, from 2 on. Serialises as
/// `{"lower_case": true, "symbols": ["the", …]}`, the first symbol being index 2.
#[derive(Debug, Clone, PartialEq, Eq, serde::Serialize, serde::Deserialize)]
#[serde(try_from = "Stored", into = "Stored")]
pub struct Vocabulary {
    lower_case: bool,
    symbols: Vec<String>,
    index: HashMap<String, u32>,
}

impl Vocabulary {
    /// The lower-cased words of `sentences`, the most frequent first, equally frequent ones in the order of their text.
    ///
    /// ```
    /// use kd_data::vocabulary::{UNKNOWN, Vocabulary};
    /// let words = Vocabulary::words([["The", "cat", "the", "dog"].map(String::from)]);
    /// assert_eq!(["the", "THE", "cat", "dog", "cow"].map(|word| words.id(word)), [2, 2, 3, 4, UNKNOWN]);
    /// assert_eq!(words.len(), 5);
    /// ```
    pub fn words(sentences: impl IntoIterator<Item: AsRef<[String]>>) -> Self {
        Self::words_where(sentences, |_, _| true)
    }

    /// As [`Vocabulary::words`], but only those for which `keep`, given the word in lower case and how often it occurs, is
    /// true. A vocabulary of all training words leaves the unknown word nothing to be trained on.
    pub fn words_where(
        sentences: impl IntoIterator<Item: AsRef<[String]>>,
        mut keep: impl FnMut(&str, usize) -> bool,
    ) -> Self {
        let mut counts: HashMap<String, usize> = HashMap::new();
        for sentence in sentences {
            for word in sentence.as_ref() {
                *counts.entry(word.to_lowercase()).or_default() += 1;
            }
        }
        let mut words: Vec<(String, usize)> = counts.into_iter().filter(|(word, n)| keep(word, *n)).collect();
        words.sort_unstable_by(|(a, n_a), (b, n_b)| n_b.cmp(n_a).then_with(|| a.cmp(b)));
        let mut vocabulary = Self { lower_case: true, symbols: Vec::new(), index: HashMap::new() };
        vocabulary.extend_with(words.into_iter().map(|(word, _)| word));
        vocabulary
    }

    /// Printable ASCII (U+0020 to U+007E), then the other characters of `sentences` in the order of their code points.
    /// Case is kept.
    pub fn characters(sentences: impl IntoIterator<Item: AsRef<[String]>>) -> Self {
        let mut characters: BTreeSet<char> = (' '..='~').collect();
        for sentence in sentences {
            characters.extend(sentence.as_ref().iter().flat_map(|word| word.chars()));
        }
        let mut vocabulary = Self { lower_case: false, symbols: Vec::new(), index: HashMap::new() };
        let ascii = |c: &char| (' '..='~').contains(c);
        let (printable, others): (Vec<char>, Vec<char>) = characters.into_iter().partition(ascii);
        vocabulary.extend_with(printable.into_iter().chain(others).map(String::from));
        vocabulary
    }

    /// Appends symbols in the given order, those that are not there yet: words with pretrained vectors, for example.
    pub fn extend_with(&mut self, symbols: impl IntoIterator<Item: AsRef<str>>) {
        for symbol in symbols {
            let symbol = self.fold(symbol.as_ref());
            if !self.index.contains_key(&symbol) {
                self.index.insert(symbol.clone(), self.len() as u32);
                self.symbols.push(symbol);
            }
        }
    }

    /// Number of indices, with padding and unknown: the rows of an embedding table.
    pub fn len(&self) -> usize {
        2 + self.symbols.len()
    }

    /// Whether there is nothing but padding and unknown.
    pub fn is_empty(&self) -> bool {
        self.symbols.is_empty()
    }

    /// The index of a symbol; words are looked up in lower case.
    pub fn get(&self, symbol: &str) -> Option<u32> {
        if self.lower_case { self.index.get(&symbol.to_lowercase()) } else { self.index.get(symbol) }.copied()
    }

    /// The index of a symbol, or [`UNKNOWN`].
    pub fn id(&self, symbol: &str) -> u32 {
        self.get(symbol).unwrap_or(UNKNOWN)
    }

    /// The symbols from index 2 on.
    pub fn symbols(&self) -> &[String] {
        &self.symbols
    }

    fn fold(&self, symbol: &str) -> String {
        if self.lower_case { symbol.to_lowercase() } else { symbol.to_string() }
    }
}

#[derive(serde::Serialize, serde::Deserialize)]
#[serde(deny_unknown_fields)]
struct Stored {
    lower_case: bool,
    symbols: Vec<String>,
}

impl TryFrom<Stored> for Vocabulary {
    type Error = String;

    fn try_from(stored: Stored) -> Result<Self, String> {
        let mut vocabulary = Self { lower_case: stored.lower_case, symbols: Vec::new(), index: HashMap::new() };
        for symbol in stored.symbols {
            let before = vocabulary.len();
            vocabulary.extend_with([&symbol]);
            if vocabulary.len() == before || vocabulary.symbols.last() != Some(&symbol) {
                return Err(format!("symbol {before}: expected a new folded symbol, found `{symbol}`"));
            }
        }
        Ok(vocabulary)
    }
}

impl From<Vocabulary> for Stored {
    fn from(vocabulary: Vocabulary) -> Self {
        Self { lower_case: vocabulary.lower_case, symbols: vocabulary.symbols }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn sentences() -> [Vec<String>; 2] {
        [["b", "A", "É", "a"].map(String::from).to_vec(), ["c", "<unk>", "c", "a"].map(String::from).to_vec()]
    }

    #[test]
    fn words_stand_by_frequency_then_text() {
        let words = Vocabulary::words(sentences());
        assert_eq!(words.symbols(), ["a", "c", "<unk>", "b", "é"]);
        assert_eq!((words.id("é"), words.id("É"), words.id("x")), (6, 6, UNKNOWN));
        // Text that looks like a special symbol is text.
        assert_eq!(words.id("<UNK>"), 4);
        assert_eq!(words.get("<pad>"), None);
        assert_eq!(words.len(), 7);
    }

    #[test]
    fn characters_keep_their_case() {
        let characters = Vocabulary::characters(sentences());
        // 95 printable characters of ASCII, and É.
        assert_eq!(characters.len(), 2 + 95 + 1);
        assert_eq!((characters.id(" "), characters.id("~"), characters.id("É")), (2, 96, 97));
        assert_ne!(characters.id("a"), characters.id("A"));
        assert_eq!((characters.id("é"), characters.id("\t")), (UNKNOWN, UNKNOWN));
    }

    #[test]
    fn extending_keeps_what_is_there() {
        let mut words = Vocabulary::words(sentences());
        words.extend_with(["zebra", "A", "Zebra", "yak"]);
        assert_eq!(words.symbols()[5..], ["zebra", "yak"]);
        assert_eq!(words.id("a"), 2);
    }

    #[test]
    fn json_gives_the_same_vocabulary_back() {
        for vocabulary in [Vocabulary::words(sentences()), Vocabulary::characters(sentences())] {
            let json = serde_json::to_string(&vocabulary).unwrap();
            assert_eq!(serde_json::from_str::<Vocabulary>(&json).unwrap(), vocabulary);
        }
        let words = Vocabulary::words([["The".to_string()]]);
        assert_eq!(serde_json::to_string(&words).unwrap(), r#"{"lower_case":true,"symbols":["the"]}"#);
    }

    #[test]
    fn json_that_would_shift_indices_is_an_error() {
        let message = |json: &str| serde_json::from_str::<Vocabulary>(json).unwrap_err().to_string();
        let twice = message(r#"{"lower_case":true,"symbols":["a","b","a"]}"#);
        assert!(twice.contains("symbol 4: expected a new folded symbol, found `a`"), "{twice}");
        assert!(message(r#"{"lower_case":true,"symbols":["A"]}"#).contains("found `A`"));
        assert!(message(r#"{"lower_case":true,"symbols":[],"size":3}"#).contains("unknown field `size`"));
    }
}
