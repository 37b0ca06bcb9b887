//! Comma-separated tables, quoted as in RFC 4180.

use std::path::Path;

use super::{Columns, Value, example};
use crate::error::{Error, Result, read_text};
use crate::example::TextExample;
use crate::separated::Header;

pub(super) fn read(path: &Path, columns: &Columns) -> Result<Vec<TextExample>> {
    let text = read_text(path)?;
    let mut reader = csv::ReaderBuilder::new().has_headers(false).flexible(true).from_reader(text.as_bytes());
    let (mut rows, mut line, mut counted) = (Vec::new(), 1, 0);
    for row in reader.records() {
        // The text is UTF-8 and rows may have any length, so nothing is left that could be wrong.
        let row = row.map_err(|error| Error::file(path, "a table of comma-separated values", error.to_string()))?;
        // A row's position may lie before the line end of the row before it.
        let start = row.position().map_or(0, |position| position.byte() as usize);
        let start = start + text[start..].bytes().take_while(|byte| matches!(byte, b'\r' | b'\n')).count();
        line += text[counted..start].bytes().filter(|&byte| byte == b'\n').count();
        counted = start;
        rows.push((line, row));
    }
    let Some((line, names)) = rows.first() else {
        return Err(Error::file(path, "a header", "an empty file"));
    };
    let header = Header::new(path, *line, names.iter().collect());
    let of_row = |(line, row): &(usize, csv::StringRecord)| {
        header.check(*line, row.len())?;
        example(path, *line, columns, &mut |column| Ok(Value::Text(row[header.column(column)?].to_string())))
    };
    rows[1..].iter().map(of_row).collect()
}
