//! Comma-separated tables, quoted as in RFC 4180.

use std::io::{Error as IoError, Read};
use std::path::Path;

use csv::{ErrorKind, ReaderBuilder, StringRecord};

use super::{Columns, Examples, Value, example};
use crate::error::{Error, Result};
use crate::separated::Header;
use crate::text_lines::TextLines;

pub(super) fn examples(path: &Path, columns: &Columns) -> Result<Examples> {
    let bytes = LineBytes { lines: TextLines::open(path)?, line: Vec::new(), given: 0, begun: 0 };
    let reader = ReaderBuilder::new().has_headers(false).flexible(true).from_reader(bytes);
    let mut records = Records { path: path.to_path_buf(), reader };
    let Some((line, names)) = records.next().transpose()? else {
        return Err(Error::file(path, "a header", "an empty file"));
    };
    let header = Header::new(path, line, names.iter().collect());
    let (path, columns) = (path.to_path_buf(), columns.clone());
    Ok(Box::new(records.map(move |record| {
        let (line, record) = record?;
        header.check(line, record.len())?;
        example(&path, line, &columns, &mut |column| Ok(Value::Text(record[header.column(column)?].to_string())))
    })))
}

/// The records and the lines that they begin on, counted from 1.
struct Records {
    path: std::path::PathBuf,
    reader: csv::Reader<LineBytes>,
}

impl Iterator for Records {
    type Item = Result<(usize, StringRecord)>;

    fn next(&mut self) -> Option<Self::Item> {
        let mut record = StringRecord::new();
        match self.reader.read_record(&mut record) {
            Ok(true) => {
                // It ends in the line begun last, and an end of a line within it stands in a quoted value.
                let inside = record.as_slice().bytes().filter(|&byte| byte == b'\n').count();
                Some(Ok((self.reader.get_ref().begun - inside, record)))
            }
            Ok(false) => None,
            // Rows may have any length, so nothing but the reading itself can fail.
            Err(error) => Some(Err(match error.into_kind() {
                ErrorKind::Io(error) => error.downcast::<Error>().unwrap_or_else(Error::io(&self.path)),
                other => Error::file(&self.path, "a table of comma-separated values", format!("{other:?}")),
            })),
        }
    }
}

/// A file's bytes, of which at most one line is given at a time.
struct LineBytes {
    lines: TextLines,
    line: Vec<u8>,
    /// Bytes of `line` that were given.
    given: usize,
    /// Lines begun: those given, and an empty one behind the last `\n` of a file that was read to its end.
    begun: usize,
}

impl Read for LineBytes {
    fn read(&mut self, buffer: &mut [u8]) -> std::io::Result<usize> {
        if self.given == self.line.len() {
            let ended = self.line.ends_with(b"\n");
            match self.lines.next_line().map_err(IoError::other)? {
                Some((number, line)) => (self.line, self.begun) = (line.into_bytes(), number),
                None => (self.line, self.begun) = (Vec::new(), self.begun + usize::from(ended)),
            }
            self.given = 0;
        }
        let n = buffer.len().min(self.line.len() - self.given);
        buffer[..n].copy_from_slice(&self.line[self.given..self.given + n]);
        self.given += n;
        Ok(n)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn records_name_the_line_that_they_begin_on() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("a.csv");
        let long = "x".repeat(20_000); // more than a reader's buffer
        for (text, expected) in [
            ("a,b\nc,d\n", vec![1, 2]),
            ("a,b\r\nc,d\r\n\r\n\r\ne,f\r\n", vec![1, 2, 5]),
            ("\n\na\n\n\nb", vec![3, 6]),
            ("a\n\"one\n\ntwo\"\n\"\nb\"\nc\n", vec![1, 2, 5, 7]),
            ("a\r\n\"one\r\ntwo\"\r\nb\r\n", vec![1, 2, 4]),
            ("a\rb\rc\nd", vec![1, 1, 1, 2]), // a `\r` ends a record, but no line
            ("a\n\"b\n", vec![1, 2]),         // a quote that is never closed
            ("a\n\"b\nc", vec![1, 2]),
            (&format!("a\n{long}\n\"{long}\n{long}\"\nb\n"), vec![1, 2, 3, 5]),
            ("", vec![]),
        ] {
            std::fs::write(&path, text).unwrap();
            let bytes = LineBytes { lines: TextLines::open(&path).unwrap(), line: Vec::new(), given: 0, begun: 0 };
            let reader = ReaderBuilder::new().has_headers(false).flexible(true).from_reader(bytes);
            let records = Records { path: path.clone(), reader };
            let lines: Vec<usize> = records.map(|record| record.unwrap().0).collect();
            assert_eq!(lines, expected, "{text:.40?}");
        }
    }
}
