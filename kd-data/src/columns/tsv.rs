//! Tab-separated tables without quoting.

use std::path::Path;

use super::{Columns, Value, example};
use crate::error::{Error, Result, read_text};
use crate::example::TextExample;
use crate::separated::{Header, lines};

pub(super) fn read(path: &Path, columns: &Columns) -> Result<Vec<TextExample>> {
    let text = read_text(path)?;
    let mut rows = lines(&text);
    let Some((line, names)) = rows.next() else {
        return Err(Error::file(path, "a header", "an empty file"));
    };
    let header = Header::new(path, line, names);
    rows.map(|(line, values)| {
        header.check(line, values.len())?;
        example(path, line, columns, &mut |column| Ok(Value::Text(values[header.column(column)?].to_string())))
    })
    .collect()
}
