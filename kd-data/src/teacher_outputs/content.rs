//! What an example is called in a store: a digest of its text.

use std::hash::{BuildHasher, Hasher};

use sha2::{Digest, Sha256};

use crate::example::{Sentence, TextExample};

/// The text of an example, as it was read: before any tokenizer, casing or cutting.
///
/// A teacher and a student with tokenizers of their own therefore mean the same example.
///
/// ```
/// use kd_data::teacher_outputs::Content;
/// let words = ["a".to_string(), "b".to_string()];
/// assert_ne!(Content::from("a b").digest(), Content::from(&words[..]).digest());
/// assert_ne!(Content::from(("a", "b")).digest(), Content::from(("a b", "")).digest());
/// ```
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Content<'a> {
    /// One text: one row.
    Text(&'a str),
    /// Two texts: one row.
    Pair(&'a str, &'a str),
    /// The words of a sentence: a row a word.
    Words(&'a [String]),
}

impl Content<'_> {
    /// The name of this content.
    pub fn digest(&self) -> ExampleDigest {
        let mut hasher = Sha256::new();
        let mut add = |text: &str| {
            // The length stands before the text, so that no two lists of texts look alike.
            hasher.update((text.len() as u64).to_le_bytes());
            hasher.update(text.as_bytes());
        };
        match self {
            Self::Text(text) => {
                add("text");
                add(text);
            }
            Self::Pair(first, second) => {
                add("pair");
                add(first);
                add(second);
            }
            Self::Words(words) => {
                add("words");
                words.iter().for_each(|word| add(word));
            }
        }
        let mut digest = [0; ExampleDigest::BYTES];
        digest.copy_from_slice(&hasher.finalize()[..ExampleDigest::BYTES]);
        ExampleDigest(digest)
    }

    /// Number of rows that a teacher says something of: 1, or the number of words.
    pub fn rows(&self) -> usize {
        match self {
            Self::Text(_) | Self::Pair(..) => 1,
            Self::Words(words) => words.len(),
        }
    }

    /// The first 40 characters, for messages.
    pub fn start(&self) -> String {
        const MOST: usize = 40;
        let text = match self {
            Self::Text(text) => text.to_string(),
            Self::Pair(first, second) => format!("{first} | {second}"),
            Self::Words(words) => words.iter().take(MOST).map(String::as_str).collect::<Vec<_>>().join(" "),
        };
        match text.char_indices().nth(MOST) {
            Some((end, _)) => format!("{}…", &text[..end]),
            None => text,
        }
    }
}

impl<'a> From<&'a str> for Content<'a> {
    fn from(text: &'a str) -> Self {
        Self::Text(text)
    }
}

impl<'a> From<&'a String> for Content<'a> {
    fn from(text: &'a String) -> Self {
        Self::Text(text)
    }
}

impl<'a> From<(&'a str, &'a str)> for Content<'a> {
    fn from((first, second): (&'a str, &'a str)) -> Self {
        Self::Pair(first, second)
    }
}

impl<'a> From<&'a [String]> for Content<'a> {
    fn from(words: &'a [String]) -> Self {
        Self::Words(words)
    }
}

impl<'a> From<&'a Vec<String>> for Content<'a> {
    fn from(words: &'a Vec<String>) -> Self {
        Self::Words(words)
    }
}

impl<'a> From<&'a Sentence> for Content<'a> {
    fn from(sentence: &'a Sentence) -> Self {
        Self::Words(&sentence.words)
    }
}

impl<'a> From<&'a TextExample> for Content<'a> {
    fn from(example: &'a TextExample) -> Self {
        match &example.second {
            Some(second) => Self::Pair(&example.first, second),
            None => Self::Text(&example.first),
        }
    }
}

/// The first 128 bits of a SHA-256 of an example's [`Content`].
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct ExampleDigest(pub(super) [u8; Self::BYTES]);

impl ExampleDigest {
    /// Length of a digest.
    pub(super) const BYTES: usize = 16;
}

/// Hashes digests by their first bits, which are as good as random already.
#[derive(Debug, Clone, Copy, Default)]
pub(super) struct ByFirstBits;

impl BuildHasher for ByFirstBits {
    type Hasher = FirstBits;

    fn build_hasher(&self) -> FirstBits {
        FirstBits(0)
    }
}

/// See [`ByFirstBits`].
#[derive(Debug)]
pub(super) struct FirstBits(u64);

impl Hasher for FirstBits {
    fn write(&mut self, bytes: &[u8]) {
        if let Some((first, _)) = bytes.split_first_chunk::<8>() {
            self.0 ^= u64::from_le_bytes(*first);
        }
    }

    fn write_usize(&mut self, _length: usize) {} // every digest has the same

    fn finish(&self) -> u64 {
        self.0
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn kinds_and_borders_count() {
        let words = |text: &str| text.split_whitespace().map(str::to_string).collect::<Vec<_>>();
        let (ab, a_b, none) = (words("ab"), words("a b"), words(""));
        let contents = [
            Content::Text(""),
            Content::Text("ab"),
            Content::Text("a b"),
            Content::Pair("a", "b"),
            Content::Pair("ab", ""),
            Content::Pair("", "ab"),
            Content::Words(&ab),
            Content::Words(&a_b),
            Content::Words(&none),
        ];
        let digests: std::collections::HashSet<_> = contents.iter().map(Content::digest).collect();
        assert_eq!(digests.len(), contents.len());
    }

    /// The digest is part of the files' format: `printf '\4\0\0\0\0\0\0\0text\3\0\0\0\0\0\0\0abc' | sha256sum`.
    #[test]
    fn digests_do_not_change_between_versions() {
        let digest = Content::from("abc").digest().0;
        let hex: String = digest.iter().map(|byte| format!("{byte:02x}")).collect();
        assert_eq!(hex, "93bb7cfe0130d4082bdf289bdc8c31d6");
    }

    #[test]
    fn messages_show_the_start() {
        assert_eq!(Content::from("short").start(), "short");
        assert_eq!(Content::from(("a", "b")).start(), "a | b");
        let long = "é".repeat(41);
        assert_eq!(Content::from(&long).start(), "é".repeat(40) + "…");
    }
}
