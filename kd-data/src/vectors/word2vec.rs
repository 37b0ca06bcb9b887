//! Vectors in word2vec's binary format.

use std::collections::HashSet;
use std::fs::File;
use std::io::{BufRead, BufReader, Read};
use std::path::Path;

use super::push;
use crate::error::{Error, Result, count};
use crate::glove::Vectors;

/// The vectors of wanted words. A word that is not UTF-8 is nobody's.
pub(super) fn read(path: &Path, mut wanted: impl FnMut(&str) -> bool) -> Result<Vectors> {
    let mut reader = BufReader::with_capacity(1 << 20, File::open(path).map_err(Error::io(path))?);
    let mut header = Vec::new();
    reader.by_ref().take(64).read_until(b'\n', &mut header).map_err(Error::io(path))?;
    let numbers: Vec<usize> = match std::str::from_utf8(&header).ok().filter(|header| header.ends_with('\n')) {
        Some(header) => header.split_whitespace().filter_map(|field| field.parse().ok()).collect(),
        None => Vec::new(),
    };
    let (true, &[n_words, width]) = (numbers.len() == 2 && numbers[1] > 0, &numbers[..]) else {
        let found = String::from_utf8_lossy(&header).trim_end().to_string();
        return Err(Error::line(path, 1, "the number of words and of values", format!("`{found}`")));
    };
    let mut vectors = Vectors { width, words: Vec::new(), values: Vec::new() };
    let (mut seen, mut word, mut values) = (HashSet::new(), Vec::new(), vec![0u8; 4 * width]);
    for read in 0..n_words {
        let short = || Error::file(path, count(n_words, "word"), format!("{read} and the end of the file"));
        word.clear();
        reader.read_until(b' ', &mut word).map_err(Error::io(path))?;
        if word.pop() != Some(b' ') {
            return Err(short());
        }
        reader.read_exact(&mut values).map_err(|error| match error.kind() {
            std::io::ErrorKind::UnexpectedEof => short(),
            _ => Error::io(path)(error),
        })?;
        // Some writers put a line's end between words.
        let Ok(word) = std::str::from_utf8(word.strip_prefix(b"\n").unwrap_or(&word)) else { continue };
        if wanted(word) && seen.insert(word.to_string()) {
            let floats = values.as_chunks().0.iter().map(|bytes| f32::from_le_bytes(*bytes));
            push(path, &mut vectors, word, floats)?;
        }
    }
    Ok(vectors)
}
