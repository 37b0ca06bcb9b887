//! A pretrained encoder's tokenizer.

use std::path::{Path, PathBuf};

use tokenizers::Tokenizer;

use crate::digest;
use crate::error::{Error, Result, count};

/// A tokenizer with word pieces or the like, read from a `tokenizer.json`.
///
/// The file's truncation and padding are switched off (some published files cut at 128 pieces, silently). Text that looks
/// like a special token, `[SEP]` for example, stays text.
#[derive(Debug)]
pub struct WordPieces {
    tokenizer: Tokenizer,
    path: PathBuf,
    digest: String,
    start: u32,
    end: u32,
    unknown: u32,
    /// `</s></s>` between the texts of a pair and one segment for both, as RoBERTa has it.
    double_end: bool,
    largest_id: u32,
}

/// A sentence in word pieces.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct PieceSentence {
    /// Ids, with the start and the end token.
    pub ids: Vec<u32>,
    /// For every word, the position of its first piece in `ids`.
    pub first: Vec<usize>,
    /// For every piece the word it is of; none for the start and the end token.
    pub word_of_piece: Vec<Option<usize>>,
}

/// A text, or a pair of texts in one sequence, in word pieces.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct PieceText {
    /// Ids, with start and end tokens.
    pub ids: Vec<u32>,
    /// 1 for the pieces of the second text and its end token, 0 for the others, as BERT has it.
    pub segments: Vec<u32>,
    /// Number of pieces left out because the sequence would have been too long.
    pub cut: usize,
}

impl WordPieces {
    /// Reads a `tokenizer.json`.
    ///
    /// # Errors
    /// If the file cannot be read, is no tokenizer, or lacks `[CLS]`, `[SEP]` and `[UNK]` (or `<s>`, `</s>` and `<unk>`).
    pub fn from_file(path: impl AsRef<Path>) -> Result<Self> {
        let path = path.as_ref();
        Self::from_bytes(&std::fs::read(path).map_err(Error::io(path))?, path)
    }

    /// A tokenizer from the bytes of a `tokenizer.json`; `path` is what errors call it.
    ///
    /// # Errors
    /// As [`WordPieces::from_file`], but for reading.
    pub fn from_bytes(bytes: &[u8], path: impl AsRef<Path>) -> Result<Self> {
        let path = path.as_ref();
        let wrong = |cause: tokenizers::Error| Error::file(path, "a `tokenizer.json`", cause.to_string());
        let mut tokenizer = Tokenizer::from_bytes(bytes).map_err(wrong)?;
        tokenizer.with_truncation(None).map_err(wrong)?;
        tokenizer.with_padding(None);
        tokenizer.set_encode_special_tokens(true);
        let special = |names: [&str; 2]| {
            let found = names.into_iter().find_map(|name| tokenizer.token_to_id(name));
            found.ok_or_else(|| Error::file(path, format!("a token `{}` or `{}`", names[0], names[1]), "neither"))
        };
        let (start, end) = (special(["[CLS]", "<s>"])?, special(["[SEP]", "</s>"])?);
        let unknown = special(["[UNK]", "<unk>"])?;
        let double_end = tokenizer.token_to_id("[SEP]").is_none();
        let largest_id = tokenizer.get_vocab(true).into_values().max().unwrap_or(0);
        let digest = digest::of_bytes(bytes);
        Ok(Self { tokenizer, path: path.to_path_buf(), digest, start, end, unknown, double_end, largest_id })
    }

    /// SHA-256 of the tokenizer's file, for the key of stored outputs.
    pub fn digest(&self) -> &str {
        &self.digest
    }

    /// Checks that every id has a row in an embedding table of `rows` rows.
    ///
    /// # Errors
    /// If the tokenizer has an id that the table lacks; the message names the file and both sizes.
    pub fn check_vocabulary(&self, rows: usize) -> Result<()> {
        if (self.largest_id as usize) < rows {
            return Ok(());
        }
        let expected = format!("ids below {rows}, the rows of the model's embedding table");
        let found = format!("{}, the largest {}", count(self.tokenizer.get_vocab_size(true), "token"), self.largest_id);
        Err(Error::file(&self.path, expected, found))
    }

    /// The pieces of one word by itself, at least one: a word without any (control characters, for example) is unknown.
    ///
    /// # Errors
    /// If the tokenizer fails.
    pub fn word(&self, word: &str) -> Result<Vec<u32>> {
        let ids = self.ids(word)?;
        Ok(if ids.is_empty() { vec![self.unknown] } else { ids })
    }

    /// A sentence of words between the start and the end token, each word tokenised by itself. Of any length.
    ///
    /// # Errors
    /// If the tokenizer fails.
    pub fn encode_words(&self, words: &[String]) -> Result<PieceSentence> {
        let pieces = words.iter().map(|word| self.word(word)).collect::<Result<Vec<_>>>()?;
        Ok(self.frame(pieces.iter().map(Vec::as_slice)))
    }

    /// A text between the start and the end token, at most `max_len` pieces; the pieces cut off its end are counted.
    ///
    /// # Errors
    /// If the tokenizer fails, or if `max_len` is below 3.
    pub fn encode_text(&self, text: &str, max_len: usize) -> Result<PieceText> {
        check_length(max_len, 3)?;
        let mut ids = self.ids(text)?;
        let cut = ids.len().saturating_sub(max_len - 2);
        ids.truncate(max_len - 2);
        ids.insert(0, self.start);
        ids.push(self.end);
        Ok(PieceText { segments: vec![0; ids.len()], ids, cut })
    }

    /// Two texts in one sequence of at most `max_len` pieces; pieces are cut off the end of the longer text and counted.
    ///
    /// BERT's `[CLS] a [SEP] b [SEP]` with segments, or RoBERTa's `<s> a </s></s> b </s>` with one segment, by the
    /// names of the tokens.
    ///
    /// # Errors
    /// If the tokenizer fails, or if `max_len` is below 6.
    pub fn encode_pair(&self, first: &str, second: &str, max_len: usize) -> Result<PieceText> {
        check_length(max_len, 6)?;
        let (mut a, mut b) = (self.ids(first)?, self.ids(second)?);
        let room = max_len - if self.double_end { 4 } else { 3 };
        let cut = (a.len() + b.len()).saturating_sub(room);
        for _ in 0..cut {
            if a.len() > b.len() {
                a.pop()
            } else {
                b.pop()
            };
        }
        let mut ids = vec![self.start];
        ids.extend(a);
        ids.push(self.end);
        let border = ids.len();
        if self.double_end {
            ids.push(self.end);
        }
        ids.extend(b);
        ids.push(self.end);
        let second = u32::from(!self.double_end);
        let segments = (0..ids.len()).map(|position| if position < border { 0 } else { second }).collect();
        Ok(PieceText { ids, segments, cut })
    }

    /// Start token, the pieces of the words, end token.
    pub(super) fn frame<'a>(&self, words: impl IntoIterator<Item = &'a [u32]>) -> PieceSentence {
        let mut sentence = PieceSentence { ids: vec![self.start], first: Vec::new(), word_of_piece: vec![None] };
        for (word, pieces) in words.into_iter().enumerate() {
            sentence.first.push(sentence.ids.len());
            sentence.ids.extend_from_slice(pieces);
            sentence.word_of_piece.resize(sentence.ids.len(), Some(word));
        }
        sentence.ids.push(self.end);
        sentence.word_of_piece.push(None);
        sentence
    }

    fn ids(&self, text: &str) -> Result<Vec<u32>> {
        match self.tokenizer.encode_fast(text, false) {
            Ok(encoding) => Ok(encoding.get_ids().to_vec()),
            Err(cause) => Err(Error::file(&self.path, format!("pieces of {text:?}"), cause.to_string())),
        }
    }
}

pub(super) fn check_length(max_len: usize, least: usize) -> Result<()> {
    if max_len < least {
        return Err(Error::argument("max_len", format!("at least {least}"), max_len.to_string()));
    }
    Ok(())
}
