//! Texts and pairs of texts for a pretrained encoder.

use candle_core::{Device, Result};
use kd_core::batch::{Rows, Sequence, Tokens, pad};

use super::pieces::{PieceText, WordPieces};
use super::{Encode, pad_segments, pick};

/// Texts, or pairs of texts in one sequence each, in word pieces; one row per example.
///
/// Longer ones than `max_len` are cut at the end; [`EncodedTexts::shortened`] lists them.
#[derive(Debug)]
pub struct EncodedTexts {
    texts: Vec<PieceText>,
    /// Whether batches have segments.
    segments: bool,
    lengths: Vec<usize>,
    rows: Vec<usize>,
    device: Device,
}

impl EncodedTexts {
    /// Encodes texts of at most `max_len` pieces, special tokens included.
    ///
    /// # Errors
    /// If the tokenizer fails, or if `max_len` leaves no room for a piece (below 3 in BERT).
    pub fn new(
        pieces: &WordPieces,
        texts: impl IntoIterator<Item: AsRef<str>>,
        max_len: usize,
        device: &Device,
    ) -> crate::Result<Self> {
        let texts = texts.into_iter().map(|text| pieces.encode_text(text.as_ref(), max_len)).collect();
        Self::of(texts, false, device)
    }

    /// Encodes pairs of texts, each pair one sequence of at most `max_len` pieces with segments.
    ///
    /// # Errors
    /// If the tokenizer fails, or if `max_len` is below 6.
    pub fn pairs<A: AsRef<str>, B: AsRef<str>>(
        pieces: &WordPieces,
        pairs: impl IntoIterator<Item = (A, B)>,
        max_len: usize,
        device: &Device,
    ) -> crate::Result<Self> {
        let encode = |(a, b): (A, B)| pieces.encode_pair(a.as_ref(), b.as_ref(), max_len);
        Self::of(pairs.into_iter().map(encode).collect(), true, device)
    }

    fn of(texts: crate::Result<Vec<PieceText>>, pairs: bool, device: &Device) -> crate::Result<Self> {
        let texts = texts?;
        let lengths = texts.iter().map(|text| text.ids.len()).collect();
        // XLNet's `<cls>` has a segment of its own in single texts too.
        let segments = pairs || texts.iter().any(|text| text.segments.iter().any(|&segment| segment != 0));
        Ok(Self { rows: vec![1; texts.len()], texts, segments, lengths, device: device.clone() })
    }

    /// The examples that were too long, with the number of pieces left out.
    pub fn shortened(&self) -> Vec<(usize, usize)> {
        self.texts.iter().enumerate().filter(|(_, text)| text.cut > 0).map(|(id, text)| (id, text.cut)).collect()
    }
}

impl Encode for EncodedTexts {
    fn collate(&self, examples: &[usize]) -> Result<Tokens> {
        let texts = pick(&self.texts, examples)?;
        let ids: Vec<Vec<u32>> = texts.iter().map(|text| text.ids.clone()).collect();
        let mut first: Sequence = pad(&ids, &self.device)?;
        if self.segments {
            first.segments = Some(pad_segments(texts.iter().map(|text| text.segments.as_slice()), &first.ids)?);
        }
        Ok(Tokens { first, second: None, more: Vec::new(), rows: Rows::Examples })
    }

    fn lengths(&self) -> &[usize] {
        &self.lengths
    }

    fn rows(&self) -> &[usize] {
        &self.rows
    }
}
