//! A pretrained encoder's tokenizer.

use std::path::{Path, PathBuf};

use tokenizers::models::ModelWrapper;
use tokenizers::pre_tokenizers::PreTokenizerWrapper;
use tokenizers::{Model, Tokenizer};

use super::frame::Frame;
use super::vocabulary_files::tokenizer_json;
use crate::digest;
use crate::error::{Error, Result, count};

/// A tokenizer with word pieces or the like, read from a `tokenizer.json` or from vocabulary files.
///
/// The file's truncation and padding are switched off (some published files cut at 128 pieces, silently). Text that looks
/// like a special token, `[SEP]` for example, stays text. Which special tokens stand around texts, and which segments the
/// tokens have, is read from the file's post-processor: `[CLS] a [SEP] b [SEP]` in BERT, `<s> a </s></s> b </s>` in RoBERTa
/// and MPNet, `a <sep> b <sep> <cls>` in XLNet. A file without one is framed as BERT's or RoBERTa's by the names of its
/// tokens, if they tell.
///
/// # Words
/// [`WordPieces::word`] tokenises a word by itself, as transformers does with `is_split_into_words=True`. A tokenizer that
/// marks the beginning of a word marks it: SentencePiece's `▁` by the file's own rule, and in a byte-level BPE, whose mark is
/// the blank before a word, every word gets that blank, the first of a sentence too, whatever the file's
/// `add_prefix_space` says (transformers refuses split words unless RoBERTa's tokenizer is made with `add_prefix_space=True`).
#[derive(Debug)]
pub struct WordPieces {
    tokenizer: Tokenizer,
    path: PathBuf,
    digest: String,
    frame: Frame,
    unknown: u32,
    /// A byte-level BPE: a word begins with a blank.
    blank_before_words: bool,
    largest_id: u32,
}

/// A sentence in word pieces.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct PieceSentence {
    /// Ids, with special tokens.
    pub ids: Vec<u32>,
    /// The segment of every id: all 0, but 2 for XLNet's `<cls>`.
    pub segments: Vec<u32>,
    /// For every word, the position of its first piece in `ids`.
    pub first: Vec<usize>,
    /// For every piece the word it is of; none for special tokens.
    pub word_of_piece: Vec<Option<usize>>,
}

/// A text, or a pair of texts in one sequence, in word pieces.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct PieceText {
    /// Ids, with special tokens.
    pub ids: Vec<u32>,
    /// The segment of every id. BERT: 1 for the pieces of the second text and its `[SEP]`, 0 for the others; RoBERTa: all 0;
    /// XLNet: as BERT, and 2 for `<cls>`.
    pub segments: Vec<u32>,
    /// Number of pieces left out because the sequence would have been too long.
    pub cut: usize,
}

impl WordPieces {
    /// Reads a tokenizer, by the name of its file: `vocab.txt` (BERT's word pieces), `vocab.json` and `merges.txt` beside it
    /// (RoBERTa's BPE), or else a `tokenizer.json`.
    ///
    /// The first two obey a `tokenizer_config.json` beside them: `do_lower_case`, `strip_accents`, `tokenize_chinese_chars`,
    /// `add_prefix_space`, `tokenizer_class`, and the names of the special tokens.
    ///
    /// # Errors
    /// If a file cannot be read, is no tokenizer, or tells no frame; and for a SentencePiece `.model`, with what to do.
    pub fn from_file(path: impl AsRef<Path>) -> Result<Self> {
        let path = path.as_ref();
        Self::from_bytes(&tokenizer_json(path)?, path)
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
        let frame = Frame::of(&tokenizer, path)?;
        let unknown = unknown(&tokenizer)
            .ok_or_else(|| Error::file(path, "a token `[UNK]` or `<unk>` for what the vocabulary lacks", "neither"))?;
        let blank_before_words = tokenizer.get_pre_tokenizer().is_some_and(is_byte_level);
        let largest_id = tokenizer.get_vocab(true).into_values().max().unwrap_or(0).max(frame.largest_id());
        let digest = digest::of_bytes(bytes);
        Ok(Self { tokenizer, path: path.to_path_buf(), digest, frame, unknown, blank_before_words, largest_id })
    }

    /// SHA-256 of the `tokenizer.json`, or of what vocabulary files come to as one, for the key of stored outputs.
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

    /// The number of special tokens around one text.
    pub fn special_tokens(&self) -> usize {
        self.frame.single.added()
    }

    /// The pieces of one word by itself, at least one: a word without any (control characters, for example) is unknown.
    ///
    /// # Errors
    /// If the tokenizer fails.
    pub fn word(&self, word: &str) -> Result<Vec<u32>> {
        let ids = if self.blank_before_words && !word.starts_with(' ') {
            self.ids(&format!(" {word}"))?
        } else {
            self.ids(word)?
        };
        Ok(if ids.is_empty() { vec![self.unknown] } else { ids })
    }

    /// A sentence of words with special tokens, each word tokenised by itself. Of any length.
    ///
    /// # Errors
    /// If the tokenizer fails.
    pub fn encode_words(&self, words: &[String]) -> Result<PieceSentence> {
        let pieces = words.iter().map(|word| self.word(word)).collect::<Result<Vec<_>>>()?;
        Ok(self.frame(pieces.iter().map(Vec::as_slice)))
    }

    /// A text with special tokens, at most `max_len` pieces with them; the pieces cut off its end are counted.
    ///
    /// # Errors
    /// If the tokenizer fails, or if `max_len` leaves no room for a piece (below 3 in BERT).
    pub fn encode_text(&self, text: &str, max_len: usize) -> Result<PieceText> {
        let template = &self.frame.single;
        check_length(max_len, template.added() + 1)?;
        let mut ids = self.ids(text)?;
        let room = max_len - template.added();
        let cut = ids.len().saturating_sub(room);
        ids.truncate(room);
        let framed = template.put_around(&ids, &[]);
        Ok(PieceText { ids: framed.ids, segments: framed.segments, cut })
    }

    /// Two texts in one sequence of at most `max_len` pieces, special tokens included; the pieces cut off are counted.
    ///
    /// Pieces are cut off the end of the longer text, of both when they are equally long, and the text that was the longer
    /// one keeps the odd piece: the `longest_first` of transformers.
    ///
    /// # Errors
    /// If the tokenizer fails or has no frame for pairs, or if `max_len` is below 6.
    pub fn encode_pair(&self, first: &str, second: &str, max_len: usize) -> Result<PieceText> {
        let template = &self.frame.pair;
        if template.added() == 0 {
            return Err(Error::file(&self.path, "special tokens around a pair of texts in the post-processor", "none"));
        }
        check_length(max_len, (template.added() + 2).max(6))?;
        let (mut a, mut b) = (self.ids(first)?, self.ids(second)?);
        let room = max_len - template.added();
        let cut = (a.len() + b.len()).saturating_sub(room);
        if cut > 0 {
            let (shorter, longer) = longest_first(a.len().min(b.len()), room);
            let (to_a, to_b) = if a.len() > b.len() { (longer, shorter) } else { (shorter, longer) };
            a.truncate(to_a);
            b.truncate(to_b);
        }
        let framed = template.put_around(&a, &b);
        Ok(PieceText { ids: framed.ids, segments: framed.segments, cut })
    }

    /// The pieces of the words with special tokens.
    pub(super) fn frame<'a>(&self, words: impl IntoIterator<Item = &'a [u32]>) -> PieceSentence {
        let template = &self.frame.single;
        let before = template.added_before();
        let (mut pieces, mut first, mut word_of_piece) = (Vec::new(), Vec::new(), vec![None; before]);
        for (word, ids) in words.into_iter().enumerate() {
            first.push(before + pieces.len());
            pieces.extend_from_slice(ids);
            word_of_piece.resize(before + pieces.len(), Some(word));
        }
        let framed = template.put_around(&pieces, &[]);
        word_of_piece.resize(framed.ids.len(), None);
        PieceSentence { ids: framed.ids, segments: framed.segments, first, word_of_piece }
    }

    fn ids(&self, text: &str) -> Result<Vec<u32>> {
        match self.tokenizer.encode_fast(text, false) {
            Ok(encoding) => Ok(encoding.get_ids().to_vec()),
            Err(cause) => Err(Error::file(&self.path, format!("pieces of {text:?}"), cause.to_string())),
        }
    }
}

/// What is left of two texts of together more than `room` pieces: of the shorter and of the longer one.
fn longest_first(shorter: usize, room: usize) -> (usize, usize) {
    if 2 * shorter <= room { (shorter, room - shorter) } else { (room / 2, room - room / 2) }
}

/// The id of what the vocabulary lacks.
fn unknown(tokenizer: &Tokenizer) -> Option<u32> {
    let named = match tokenizer.get_model() {
        ModelWrapper::WordPiece(model) => model.token_to_id(&model.unk_token),
        ModelWrapper::WordLevel(model) => model.token_to_id(&model.unk_token),
        ModelWrapper::BPE(model) => model.unk_token.as_deref().and_then(|name| model.token_to_id(name)),
        ModelWrapper::Unigram(_) => None,
    };
    named.or_else(|| tokenizer.token_to_id("<unk>")).or_else(|| tokenizer.token_to_id("[UNK]"))
}

fn is_byte_level(pre_tokenizer: &PreTokenizerWrapper) -> bool {
    match pre_tokenizer {
        PreTokenizerWrapper::ByteLevel(_) => true,
        PreTokenizerWrapper::Sequence(parts) => parts.as_ref().iter().any(is_byte_level),
        _ => false,
    }
}

pub(super) fn check_length(max_len: usize, least: usize) -> Result<()> {
    if max_len < least {
        return Err(Error::argument("max_len", format!("at least {least}"), max_len.to_string()));
    }
    Ok(())
}
