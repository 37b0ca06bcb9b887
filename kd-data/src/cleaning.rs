//! What is done to a text before it is cut into words, and to the words after.

mod mojibake;

use std::borrow::Cow;
use std::collections::HashSet;
use std::sync::LazyLock;

use crate::tokenize::Tokenizer;

/// What is done to texts; nothing by default.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, serde::Serialize, serde::Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct Cleaning {
    /// Full-width forms of ASCII become ASCII ([`half_width`]); NeuronBlocks calls it `DBC2SBC`.
    pub half_width: bool,
    /// Text that was decoded wrongly is repaired ([`fix_unicode`]); NeuronBlocks calls it `unicode_fix`.
    pub fix_unicode: bool,
    /// Words that say little are left out ([`is_stop_word`]); NeuronBlocks calls it `remove_stopwords`.
    pub remove_stop_words: bool,
}

impl Cleaning {
    /// The text as it is read.
    pub fn clean<'a>(&self, text: &'a str) -> Cow<'a, str> {
        let mut text = Cow::Borrowed(text);
        if self.fix_unicode {
            text = Cow::Owned(fix_unicode(&text));
        }
        if self.half_width {
            text = Cow::Owned(half_width(&text));
        }
        text
    }

    /// Whether a word is left out.
    pub fn removes(&self, word: &str, tokenizer: Tokenizer) -> bool {
        self.remove_stop_words && is_stop_word(word, tokenizer)
    }
}

pub use mojibake::fix_unicode;

/// The full-width forms U+FF01 to U+FF5E as the ASCII characters that they are forms of.
///
/// ```
/// assert_eq!(kd_data::cleaning::half_width("ＡＢＣ１，好　吗"), "ABC1,好　吗");
/// ```
pub fn half_width(text: &str) -> String {
    let narrow = |c: char| match c {
        '\u{ff01}'..='\u{ff5e}' => char::from_u32(c as u32 - 0xfee0).unwrap_or(c),
        _ => c,
    };
    text.chars().map(narrow).collect()
}

/// Whether a word stands in NLTK's list of stop words of the tokenizer's language, as it is written: `the` does, `The` does
/// not. Without a language, none does.
pub fn is_stop_word(word: &str, tokenizer: Tokenizer) -> bool {
    static ENGLISH: LazyLock<HashSet<&str>> = LazyLock::new(|| of("en"));
    static CHINESE: LazyLock<HashSet<&str>> = LazyLock::new(|| of("zh"));
    fn of(language: &str) -> HashSet<&'static str> {
        stop_words::get(language).iter().copied().collect()
    }
    match tokenizer {
        Tokenizer::English => ENGLISH.contains(word),
        Tokenizer::Chinese => CHINESE.contains(word),
        Tokenizer::Blanks => false,
    }
}

#[cfg(test)]
mod tests;
