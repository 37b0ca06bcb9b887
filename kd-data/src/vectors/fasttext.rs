//! Vectors of a fastText model (`.bin`).
//!
//! The vector of a word is the mean of its own row and of the rows of its subwords: the sequences of `minn` to `maxn`
//! characters of `<word>`, whose rows a hash chooses among `bucket` (Bojanowski et al. 2017, §3.2). The layout is that of
//! fastText's own `saveModel`.

use std::collections::HashSet;
use std::fs::File;
use std::path::Path;

use memmap2::Mmap;

use super::push;
use crate::error::{Error, Result};
use crate::glove::Vectors;

/// What a model begins with.
const MAGIC: i32 = 793_712_314;
/// The model for classes of texts, which in version 11 had no subwords.
const SUPERVISED: i32 = 3;

/// The vectors of wanted words of the model's dictionary.
pub(super) fn read(path: &Path, mut wanted: impl FnMut(&str) -> bool) -> Result<Vectors> {
    let file = File::open(path).map_err(Error::io(path))?;
    // SAFETY: the file is a published model, which nobody changes while it is read; that is documented of the format.
    let map = unsafe { Mmap::map(&file) }.map_err(Error::io(path))?;
    let mut bytes = Bytes { path, rest: &map };
    let (magic, version) = (bytes.i32()?, bytes.i32()?);
    if magic != MAGIC || !(11..=12).contains(&version) {
        let found = format!("the number {magic} and version {version}");
        return Err(Error::file(path, format!("a fastText model: the number {MAGIC} and version 11 or 12"), found));
    }
    let arguments: Vec<i32> = (0..12).map(|_| bytes.i32()).collect::<Result<_>>()?;
    let (dim, model, bucket, min_n) = (arguments[0], arguments[7], arguments[8], arguments[9]);
    let max_n = if version == 11 && model == SUPERVISED { 0 } else { arguments[10] };
    bytes.take(8)?; // the threshold of subsampling
    let (size, n_words) = (bytes.i32()?, bytes.i32()?);
    bytes.take(4 + 8)?; // numbers of labels and of tokens
    let pruned = bytes.i64()?;
    let mut words = Vec::new();
    for entry in 0..size {
        let length = bytes.rest.iter().position(|&byte| byte == 0).ok_or_else(|| bytes.short())?;
        let word = bytes.take(length)?;
        bytes.take(1 + 8)?; // the end of the word, its count
        if entry < n_words && bytes.rest.first() == Some(&0) {
            words.push(word);
        }
        bytes.take(1)?; // whether it is a word or a label
    }
    let quantized = bytes.take(1)?[0] != 0;
    if quantized || pruned > 0 {
        return Err(Error::file(path, "a model that is not quantized", "a quantized or pruned one"));
    }
    let (rows, width) = (bytes.i64()?, bytes.i64()?);
    let (Ok(rows), Ok(width)) = (usize::try_from(rows), usize::try_from(width)) else {
        return Err(Error::file(path, "a table of vectors", format!("one of {rows} rows of {width} values")));
    };
    if rows < words.len() || width == 0 || i64::from(dim) != width as i64 {
        let expected = format!("a row of {dim} values for each of {} words", words.len());
        return Err(Error::file(path, expected, format!("{rows} rows of {width} values")));
    }
    let table = bytes.take(rows.saturating_mul(width).saturating_mul(4))?;
    let row = |row: usize| table[row * width * 4..][..width * 4].as_chunks().0.iter().map(|b| f32::from_le_bytes(*b));

    let mut vectors = Vectors { width, words: Vec::new(), values: Vec::new() };
    let mut seen = HashSet::new();
    for (place, word) in words.iter().enumerate() {
        let Ok(word) = std::str::from_utf8(word) else { continue };
        if !wanted(word) || !seen.insert(word.to_string()) {
            continue;
        }
        let mut of = vec![place];
        // The end of a line is a word without subwords.
        if max_n > 0 && bucket > 0 && word != "</s>" {
            let subwords = subwords(word, min_n.max(0) as usize, max_n as usize);
            of.extend(subwords.map(|hash| words.len() + (hash % bucket as u32) as usize));
        }
        if let Some(&beyond) = of.iter().find(|&&place| place >= rows) {
            return Err(Error::file(path, format!("a row {beyond} for `{word}`"), format!("{rows} rows")));
        }
        let mut sum = vec![0f32; width];
        for &place in &of {
            sum.iter_mut().zip(row(place)).for_each(|(sum, value)| *sum += value);
        }
        push(path, &mut vectors, word, sum.into_iter().map(|sum| sum / of.len() as f32))?;
    }
    Ok(vectors)
}

/// The hashes of the sequences of `min` to `max` characters of `<word>`, but for the two marks alone.
fn subwords(word: &str, min: usize, max: usize) -> impl Iterator<Item = u32> {
    let marked = format!("<{word}>");
    let starts: Vec<usize> = marked.char_indices().map(|(at, _)| at).chain([marked.len()]).collect();
    let n = starts.len() - 1;
    let mut hashes = Vec::new();
    for first in 0..n {
        for length in min.max(1)..=max.min(n - first) {
            if length > 1 || (first > 0 && first + 1 < n) {
                hashes.push(hash(&marked.as_bytes()[starts[first]..starts[first + length]]));
            }
        }
    }
    hashes.into_iter()
}

/// FNV-1a over signed bytes, as fastText computes it.
fn hash(bytes: &[u8]) -> u32 {
    bytes.iter().fold(2_166_136_261, |hash: u32, &byte| (hash ^ (byte as i8) as u32).wrapping_mul(16_777_619))
}

/// What is left of a file.
struct Bytes<'a> {
    path: &'a Path,
    rest: &'a [u8],
}

impl<'a> Bytes<'a> {
    fn short(&self) -> Error {
        Error::file(self.path, "a whole fastText model", "one that is cut short")
    }

    fn take(&mut self, length: usize) -> Result<&'a [u8]> {
        let (taken, rest) = self.rest.split_at_checked(length).ok_or_else(|| self.short())?;
        self.rest = rest;
        Ok(taken)
    }

    fn i32(&mut self) -> Result<i32> {
        let bytes = self.take(4)?.try_into().map_err(|_| self.short())?;
        Ok(i32::from_le_bytes(bytes))
    }

    fn i64(&mut self) -> Result<i64> {
        let bytes = self.take(8)?.try_into().map_err(|_| self.short())?;
        Ok(i64::from_le_bytes(bytes))
    }
}
