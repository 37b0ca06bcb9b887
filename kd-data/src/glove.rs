//! Pretrained word vectors in GloVe's text format: `word v1 v2 … vn`, parted by single blanks, one word a line.
//!
//! The file is streamed; only wanted words are kept, so a file of a gigabyte costs no more memory than its useful part.
//! The first line sets the width. A first line `words width`, as word2vec and fastText write it, is accepted and checked.
//! Words with blanks in them (a few lines of `glove.840B`) are errors, as every line of another width is, unless the width is
//! known beforehand ([`read_vectors_of_width`]).
//! (Pennington, Socher and Manning 2014.)

use std::collections::HashSet;
use std::fs::File;
use std::io::{BufRead, BufReader};
use std::path::Path;

use crate::error::{Error, Result, count};

/// Word vectors.
#[derive(Debug, Clone, PartialEq)]
pub struct Vectors {
    /// Number of values of each vector.
    pub width: usize,
    /// The words in the file's order, each once.
    pub words: Vec<String>,
    /// Their vectors one after the other, `words.len() · width` values.
    pub values: Vec<f32>,
}

/// The vectors of the words for which `wanted` is true; of a word that stands there twice, the first.
///
/// # Errors
/// If the file cannot be read or is empty, if a line is not UTF-8 or of another width, or if a wanted word's value is not a
/// finite number; the message names the line.
pub fn read_vectors(path: impl AsRef<Path>, wanted: impl FnMut(&str) -> bool) -> Result<Vectors> {
    read(path.as_ref(), None, wanted)
}

/// As [`read_vectors`], of vectors of `width` values: what stands before the last `width` fields of a line is the word, with
/// its blanks.
///
/// # Errors
/// As there; and if a line has fewer fields, or a first line `words width` says another width.
pub fn read_vectors_of_width(
    path: impl AsRef<Path>,
    width: usize,
    wanted: impl FnMut(&str) -> bool,
) -> Result<Vectors> {
    if width == 0 {
        return Err(Error::argument("width of vectors", "at least 1", "0"));
    }
    read(path.as_ref(), Some(width), wanted)
}

fn read(path: &Path, known: Option<usize>, mut wanted: impl FnMut(&str) -> bool) -> Result<Vectors> {
    let mut reader = BufReader::with_capacity(1 << 20, File::open(path).map_err(Error::io(path))?);
    let mut vectors = Vectors { width: 0, words: Vec::new(), values: Vec::new() };
    let (mut seen, mut header, mut bytes) = (HashSet::new(), None, Vec::new());
    let (mut line, mut offset, mut n_words) = (0, 0u64, 0);
    loop {
        bytes.clear();
        let read = reader.read_until(b'\n', &mut bytes).map_err(Error::io(path))?;
        if read == 0 {
            break;
        }
        line += 1;
        let text = std::str::from_utf8(&bytes).map_err(|error| {
            let byte = offset + error.valid_up_to() as u64;
            Error::Utf8 { path: path.to_path_buf(), line, byte }
        })?;
        offset += read as u64;
        let text = text.trim_end_matches(['\n', '\r', ' ']);
        let text = if line == 1 { text.strip_prefix('\u{feff}').unwrap_or(text) } else { text };
        let width = text.bytes().filter(|&byte| byte == b' ').count();
        if line == 1 && width == 1 && known != Some(1) && text.split(' ').all(|field| field.parse::<usize>().is_ok()) {
            header = text.split(' ').nth(1).and_then(|width| width.parse().ok());
            if let (Some(known), Some(found)) = (known, header.filter(|width| known != Some(*width))) {
                return Err(Error::line(path, line, count(known, "value"), found.to_string()));
            }
            continue;
        }
        if vectors.width == 0 {
            vectors.width = known.or(header).unwrap_or(width);
        }
        let found = || format!("{} after the word", count(width, "value"));
        if vectors.width == 0 {
            return Err(Error::line(path, line, "a word and its values", found()));
        }
        if width < vectors.width || (width > vectors.width && known.is_none()) {
            return Err(Error::line(path, line, count(vectors.width, "value"), found()));
        }
        n_words += 1;
        let Some((gap, _)) = text.rmatch_indices(' ').nth(vectors.width - 1) else { continue };
        let (word, values) = (&text[..gap], &text[gap + 1..]);
        if !wanted(word) || !seen.insert(word.to_string()) {
            continue;
        }
        for value in values.split(' ') {
            match value.parse::<f32>() {
                Ok(value) if value.is_finite() => vectors.values.push(value),
                _ => return Err(Error::line(path, line, "finite numbers", format!("`{value}`"))),
            }
        }
        vectors.words.push(word.to_string());
    }
    if n_words == 0 {
        return Err(Error::file(path, "at least one word with its vector", "none"));
    }
    Ok(vectors)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn read(text: &[u8], wanted: &[&str]) -> Result<Vectors> {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("v.txt");
        std::fs::write(&path, text).unwrap();
        read_vectors(&path, |word| wanted.contains(&word))
    }

    fn message(text: &[u8]) -> String {
        let message = read(text, &["a"]).unwrap_err().to_string();
        message[message.find("v.txt").unwrap()..].to_string()
    }

    #[test]
    fn only_wanted_words_are_kept() {
        let vectors = read(b"the 1 2\na -1.5 2e-1\nb 5 6\na 7 8\n", &["b", "a", "c"]).unwrap();
        let expected = Vectors { width: 2, words: vec!["a".into(), "b".into()], values: vec![-1.5, 0.2, 5.0, 6.0] };
        assert_eq!(vectors, expected);
    }

    #[test]
    fn headers_and_line_ends_of_other_writers_are_read() {
        let expected = Vectors { width: 2, words: vec!["a".into()], values: vec![1.0, 2.0] };
        assert_eq!(read(b"1 2\na 1 2 \r\n", &["a"]).unwrap(), expected);
        assert_eq!(read("\u{feff}a 1 2".as_bytes(), &["a"]).unwrap(), expected);
        // U+00A0 is part of a word.
        assert_eq!(read("x\u{a0}y 1 2\na 1 2\n".as_bytes(), &["a"]).unwrap(), expected);
    }

    #[test]
    fn words_with_blanks_are_read_where_the_width_is_known() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("v.txt");
        std::fs::write(&path, ". . . 1 2\na 3 4\nat x@y.z 5 6\n").unwrap();
        let vectors = read_vectors_of_width(&path, 2, |word| word != "a").unwrap();
        assert_eq!((vectors.words, vectors.values), (vec![". . .".into(), "at x@y.z".into()], vec![1., 2., 5., 6.]));
        let message = read_vectors_of_width(&path, 5, |_| true).unwrap_err().to_string();
        assert!(message.ends_with("v.txt:1: expected 5 values, found 4 values after the word"), "{message}");
        std::fs::write(&path, "1 3\na 1 2 3\n").unwrap();
        let message = read_vectors_of_width(&path, 2, |_| true).unwrap_err().to_string();
        assert!(message.ends_with("v.txt:1: expected 2 values, found 3"), "{message}");
        assert_eq!(read_vectors_of_width(&path, 3, |_| true).unwrap().words, ["a"]);
        // Of one value, such a line is a word and its value.
        std::fs::write(&path, "1 3\n2 4\n").unwrap();
        assert_eq!(read_vectors_of_width(&path, 1, |_| true).unwrap().values, [3.0, 4.0]);
    }

    #[test]
    fn wrong_lines_are_named() {
        assert_eq!(message(b"the 1 2\nof 1\n"), "v.txt:2: expected 2 values, found 1 value after the word");
        assert_eq!(message(b"the 1 2\n. . 1 2\n"), "v.txt:2: expected 2 values, found 3 values after the word");
        assert_eq!(message(b"the 1 2\n\n"), "v.txt:2: expected 2 values, found 0 values after the word");
        assert_eq!(message(b"1 3\nthe 1 2\n"), "v.txt:2: expected 3 values, found 2 values after the word");
        assert_eq!(message(b"the\n"), "v.txt:1: expected a word and its values, found 0 values after the word");
        assert_eq!(message(b"b 1 2\na 1 x\n"), "v.txt:2: expected finite numbers, found `x`");
        assert_eq!(message(b"a 1 NaN\n"), "v.txt:1: expected finite numbers, found `NaN`");
        let expected = "v.txt:2: expected utf-8, found an invalid sequence at byte 7 of the file";
        assert_eq!(message(b"b 1 2\nx\xff 1 2\n"), expected);
        assert_eq!(message(b""), "v.txt: expected at least one word with its vector, found none");
        assert_eq!(message(b"0 50\n"), "v.txt: expected at least one word with its vector, found none");
    }
}
