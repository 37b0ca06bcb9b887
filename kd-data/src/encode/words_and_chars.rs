//! Sentences of words for a small tagger: an id for each word and one for each of its characters.

use candle_core::{Device, Result, Tensor};
use kd_core::batch::{Rows, Tokens, pad};

use super::{Encode, pick};
use crate::error::Error;
use crate::vocabulary::{UNKNOWN, Vocabulary};

/// 20 characters, as in the PyTorch runs this project compares with: longer than 99.9 % of the words of CoNLL-2003.
pub const DEFAULT_MAX_CHARS: usize = 20;

/// The vocabularies of a small tagger. Serialises as JSON, to be kept in the student's folder.
#[derive(Debug, Clone, PartialEq, Eq, serde::Serialize, serde::Deserialize)]
#[serde(deny_unknown_fields)]
pub struct WordsAndChars {
    /// Words, looked up in lower case.
    pub words: Vocabulary,
    /// Characters, in their own case.
    pub characters: Vocabulary,
    /// The first so many characters of a word are seen, those beyond are not.
    pub max_chars: usize,
}

impl WordsAndChars {
    /// Encodes sentences; they are never cut, whatever their length.
    ///
    /// # Errors
    /// If a sentence has no words, or if `max_chars` is 0.
    pub fn encode(
        &self,
        sentences: impl IntoIterator<Item: AsRef<[String]>>,
        device: &Device,
    ) -> crate::Result<EncodedWordsAndChars> {
        if self.max_chars == 0 {
            return Err(Error::argument("max_chars", "at least 1", "0"));
        }
        let mut sentences_of_ids = Vec::new();
        for (example, words) in sentences.into_iter().enumerate() {
            let words = words.as_ref();
            if words.is_empty() {
                return Err(Error::argument(format!("sentence {example}"), "at least one word", "none"));
            }
            sentences_of_ids.push(WordSentence {
                words: words.iter().map(|word| self.words.id(word)).collect(),
                chars: words.iter().map(|word| self.chars(word)).collect(),
            });
        }
        let lengths = sentences_of_ids.iter().map(|sentence| sentence.words.len()).collect();
        Ok(EncodedWordsAndChars { sentences: sentences_of_ids, lengths, device: device.clone() })
    }

    /// The ids of a word's first characters, at least one.
    fn chars(&self, word: &str) -> Vec<u32> {
        let mut buffer = [0u8; 4];
        let id = |c: char| self.characters.id(c.encode_utf8(&mut buffer));
        let ids: Vec<u32> = word.chars().take(self.max_chars).map(id).collect();
        if ids.is_empty() { vec![UNKNOWN] } else { ids }
    }
}

/// Sentences as word and character ids; every word is a row.
#[derive(Debug)]
pub struct EncodedWordsAndChars {
    sentences: Vec<WordSentence>,
    lengths: Vec<usize>,
    device: Device,
}

#[derive(Debug)]
struct WordSentence {
    words: Vec<u32>,
    chars: Vec<Vec<u32>>,
}

impl Encode for EncodedWordsAndChars {
    fn collate(&self, examples: &[usize]) -> Result<Tokens> {
        let sentences = pick(&self.sentences, examples)?;
        let ids: Vec<Vec<u32>> = sentences.iter().map(|sentence| sentence.words.clone()).collect();
        let per_example: Vec<usize> = ids.iter().map(Vec::len).collect();
        let (batch, len) = (ids.len(), per_example.iter().copied().max().unwrap_or(0));
        let longest = sentences.iter().flat_map(|sentence| &sentence.chars).map(Vec::len).max().unwrap_or(0);
        let mut chars = vec![0u32; batch * len * longest];
        let mut index = Vec::new();
        for (row, sentence) in sentences.iter().enumerate() {
            for (word, ids) in sentence.chars.iter().enumerate() {
                let position = row * len + word;
                chars[position * longest..][..ids.len()].copy_from_slice(ids);
                index.push(position as u32);
            }
        }
        let n = index.len();
        let mut first = pad(&ids, &self.device)?;
        first.chars = Some(Tensor::from_vec(chars, (batch, len, longest), &self.device)?);
        let rows = Rows::Words { index: Tensor::from_vec(index, n, &self.device)?, per_example };
        Ok(Tokens { first, second: None, rows })
    }

    fn lengths(&self) -> &[usize] {
        &self.lengths
    }

    fn rows(&self) -> &[usize] {
        &self.lengths
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn sentence(text: &str) -> Vec<String> {
        text.split_whitespace().map(str::to_string).collect()
    }

    fn encoder(max_chars: usize) -> WordsAndChars {
        let training = [sentence("the Cat the")];
        WordsAndChars { words: Vocabulary::words(&training), characters: Vocabulary::characters(&training), max_chars }
    }

    #[test]
    fn words_and_characters_are_padded_and_rows_are_words() {
        let encoded = encoder(4).encode([sentence("The zebra"), sentence("cat"), sentence("the é cat")], &Device::Cpu);
        let encoded = encoded.unwrap();
        assert_eq!((encoded.lengths(), encoded.rows()), (&[2, 1, 3][..], &[2, 1, 3][..]));
        let tokens = encoded.collate(&[2, 0, 1]).unwrap();
        // the = 2, cat = 3, unknown = 1, padding = 0.
        let ids: Vec<Vec<u32>> = tokens.first.ids.to_vec2().unwrap();
        assert_eq!(ids, [[2, 1, 3], [2, 1, 0], [3, 0, 0]]);
        let mask: Vec<Vec<u8>> = tokens.first.mask.to_vec2().unwrap();
        assert_eq!(mask, [[1, 1, 1], [1, 1, 0], [1, 0, 0]]);
        // A printable character of ASCII has its code point less 30: t = 86, h = 74, e = 71.
        let chars: Vec<Vec<Vec<u32>>> = tokens.first.chars.unwrap().to_vec3().unwrap();
        let code = |text: &str| text.bytes().map(|byte| u32::from(byte) - 30).collect::<Vec<_>>();
        assert_eq!(chars[0], [[&code("the")[..], &[0]].concat(), vec![1, 0, 0, 0], [&code("cat")[..], &[0]].concat()]);
        assert_eq!(chars[1], [[&code("The")[..], &[0]].concat(), code("zebr"), vec![0; 4]]); // `a` is beyond four
        let Rows::Words { index, per_example } = tokens.rows else { panic!("rows of words") };
        assert_eq!(index.to_vec1::<u32>().unwrap(), [0, 1, 2, 3, 4, 6]);
        assert_eq!(per_example, [3, 2, 1]);
    }

    #[test]
    fn padding_goes_with_the_batch() {
        let encoded = encoder(20).encode([sentence("the"), sentence("the extraordinary cat")], &Device::Cpu).unwrap();
        let shape = |examples: &[usize]| encoded.collate(examples).unwrap().first.chars.unwrap().dims().to_vec();
        assert_eq!((shape(&[0]), shape(&[0, 1])), (vec![1, 1, 3], vec![2, 3, 13]));
    }

    #[test]
    fn wrong_input_is_an_error() {
        let message = |result: crate::Result<EncodedWordsAndChars>| result.unwrap_err().to_string();
        let empty = encoder(4).encode([sentence("a"), vec![]], &Device::Cpu);
        assert_eq!(message(empty), "sentence 1: expected at least one word, found none");
        assert_eq!(
            message(encoder(0).encode([sentence("a")], &Device::Cpu)),
            "max_chars: expected at least 1, found 0"
        );
        let encoded = encoder(4).encode([sentence("a")], &Device::Cpu).unwrap();
        let message = |examples: &[usize]| encoded.collate(examples).unwrap_err().to_string();
        assert!(message(&[0, 1]).starts_with("collate: expected example ids below 1, found 1"));
        assert!(message(&[]).starts_with("collate: expected at least one example, found none"));
    }

    #[test]
    fn an_empty_word_is_unknown() {
        let encoded = encoder(4).encode([vec![String::new()]], &Device::Cpu).unwrap();
        let tokens = encoded.collate(&[0]).unwrap();
        assert_eq!(tokens.first.chars.unwrap().flatten_all().unwrap().to_vec1::<u32>().unwrap(), [UNKNOWN]);
    }

    #[test]
    fn json_gives_the_same_encoder_back() {
        let json = serde_json::to_string(&encoder(7)).unwrap();
        assert_eq!(serde_json::from_str::<WordsAndChars>(&json).unwrap(), encoder(7));
    }
}
