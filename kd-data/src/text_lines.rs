//! A file's lines, one after the other: of the file no more than a line is in memory.

use std::fs::File;
use std::io::{BufRead, BufReader};
use std::path::{Path, PathBuf};

use crate::error::{Error, Result};

/// The lines of a file without its byte order mark.
#[derive(Debug)]
pub(crate) struct TextLines {
    path: PathBuf,
    reader: BufReader<File>,
    /// Lines and bytes that were read.
    lines: usize,
    bytes: u64,
}

impl TextLines {
    /// The lines of the file at `path`.
    ///
    /// # Errors
    /// If it cannot be opened.
    pub(crate) fn open(path: &Path) -> Result<Self> {
        let file = File::open(path).map_err(Error::io(path))?;
        Ok(Self { path: path.to_path_buf(), reader: BufReader::new(file), lines: 0, bytes: 0 })
    }

    /// The next line with its end, a `\n` that only the last may lack, and its number, counted from 1.
    ///
    /// # Errors
    /// If the file cannot be read or the line is not UTF-8.
    pub(crate) fn next_line(&mut self) -> Result<Option<(usize, String)>> {
        let mut bytes = Vec::new();
        if self.reader.read_until(b'\n', &mut bytes).map_err(Error::io(&self.path))? == 0 {
            return Ok(None);
        }
        let before = self.bytes;
        self.lines += 1;
        self.bytes += bytes.len() as u64;
        let mut line = String::from_utf8(bytes).map_err(|error| {
            let byte = before + error.utf8_error().valid_up_to() as u64;
            Error::Utf8 { path: self.path.clone(), line: self.lines, byte }
        })?;
        if self.lines == 1 && line.starts_with('\u{feff}') {
            line.remove(0);
        }
        Ok(Some((self.lines, line)))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn read(bytes: &[u8]) -> Result<Vec<(usize, String)>> {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("a");
        std::fs::write(&path, bytes).unwrap();
        let mut lines = TextLines::open(&path)?;
        std::iter::from_fn(|| lines.next_line().transpose()).collect()
    }

    #[test]
    fn lines_keep_their_ends_and_numbers() {
        let lines = read("\u{feff}a\r\n\n\u{feff}é".as_bytes()).unwrap();
        assert_eq!(lines, [(1, "a\r\n".to_string()), (2, "\n".to_string()), (3, "\u{feff}é".to_string())]);
        assert_eq!(read(b"").unwrap(), []);
        // A mark alone is a line of nothing.
        assert_eq!(read("\u{feff}".as_bytes()).unwrap(), [(1, String::new())]);
    }

    #[test]
    fn what_is_no_text_is_named_with_its_line_and_byte() {
        // A byte order mark, `a`, an end; `b`; then the first byte of two, cut off by the end: 3 + 1 + 1 + 1 = byte 6.
        let message = read(b"\xef\xbb\xbfa\nb\xc3\n").unwrap_err().to_string();
        assert!(
            message.ends_with("/a:2: expected utf-8, found an invalid sequence at byte 6 of the file"),
            "{message}"
        );
        let whole = crate::error::read_text(Path::new("/nowhere/a")).unwrap_err().to_string();
        assert_eq!(TextLines::open(Path::new("/nowhere/a")).unwrap_err().to_string(), whole);
    }
}
