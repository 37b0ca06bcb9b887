//! Plain tables with named columns: one example a row, in TSV, CSV, JSON lines or Parquet.
//!
//! | file's end           | format                                                                                     |
//! |----------------------|--------------------------------------------------------------------------------------------|
//! | `.tsv`, `.txt`       | tab-separated, header, **no quoting**: a `"` is text                                       |
//! | `.csv`               | comma-separated, header, quoted as in RFC 4180; a quoted value may hold line ends          |
//! | `.jsonl`             | an object a line                                                                           |
//! | `.parquet`           | Apache Parquet, uncompressed or Snappy; with this crate's feature `parquet`                |
//!
//! [`Columns`] says which columns hold the texts, the label and the group, and what kind of label it is. In JSON and
//! Parquet a class may be a whole number or a boolean, which becomes its digits or `true` and `false`, and several
//! classes are a list of texts; elsewhere they stand in one value, parted by a character. A missing value (JSON's
//! `null`, Parquet's null) is an error. A table without labels is read by a [`Columns`] without a label, and so is one whose
//! labels shall not be seen; other columns than those named may be there.

mod csv;
mod jsonl;
#[cfg(feature = "parquet")]
mod parquet;
mod tsv;
mod write;

use std::path::Path;

use serde::{Deserialize, Serialize};

use crate::error::{Error, Result};
use crate::example::{Dataset, Label, TextExample};
use crate::separated::{FINITE, number};

pub use write::write_tsv;

/// Which columns of a table are read, and as what.
///
/// ```
/// use kd_data::columns::{Columns, LabelKind};
/// let columns = Columns { label: Some("stars".into()), kind: LabelKind::Score, ..Columns::text("review") };
/// assert_eq!(columns.second, None);
/// ```
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Columns {
    /// The column of the text, or of the first text of a pair.
    pub first: String,
    /// The column of the second text.
    pub second: Option<String>,
    /// The column of the label; none: the table is read without labels.
    pub label: Option<String>,
    /// What kind of label that is.
    pub kind: LabelKind,
    /// The column that says which examples belong together, a question's id.
    pub group: Option<String>,
}

impl Columns {
    /// A column of texts, without labels.
    pub fn text(column: impl Into<String>) -> Self {
        Self { first: column.into(), second: None, label: None, kind: LabelKind::Class, group: None }
    }
}

/// What kind of label a column holds.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum LabelKind {
    /// The name of a class.
    Class,
    /// A finite number.
    Score,
    /// Names of classes, parted by a character or in a list; an empty value is none.
    Classes {
        /// What parts them where they stand in one value.
        separator: char,
    },
}

/// The examples of a table; its name's end says which format it has.
///
/// # Errors
/// If the file cannot be read, has an end of no known format or no rows, if a column is missing, a row does not fit the
/// header, or a value is missing or not of the kind that was asked for. Messages name the line, in Parquet the row,
/// counted from 1.
pub fn read_columns(path: impl AsRef<Path>, columns: &Columns) -> Result<Dataset<TextExample>> {
    let path = path.as_ref();
    let examples = match path.extension().and_then(|extension| extension.to_str()) {
        Some("tsv" | "txt") => tsv::read(path, columns),
        Some("csv") => csv::read(path, columns),
        Some("jsonl") => jsonl::read(path, columns),
        #[cfg(feature = "parquet")]
        Some("parquet") => parquet::read(path, columns),
        #[cfg(not(feature = "parquet"))]
        Some("parquet") => Err(Error::file(path, "a build with the feature `parquet` of kd-data", "one without")),
        found => {
            let found = found.map_or("none".to_string(), |found| format!("`.{found}`"));
            Err(Error::file(path, "a name that ends in .tsv, .txt, .csv, .jsonl or .parquet", found))
        }
    }?;
    if examples.is_empty() {
        return Err(Error::file(path, "at least one row", "none"));
    }
    Ok(Dataset { path: path.to_path_buf(), examples })
}

/// A value of a row.
#[derive(Debug, Clone, PartialEq)]
enum Value {
    /// A text, or the digits of a number.
    Text(String),
    /// A number that is not whole, or one that is: as text it is what it was.
    Number(f64),
    /// A list of texts.
    List(Vec<String>),
    /// Something else, in words.
    Other(String),
}

impl Value {
    fn shown(&self) -> String {
        match self {
            Self::Text(text) => format!("`{text}`"),
            Self::Number(number) => number.to_string(),
            Self::List(items) => format!("a list of {}", crate::error::count(items.len(), "text")),
            Self::Other(found) => found.clone(),
        }
    }
}

/// The example of a row; `value` gives that of a column, which is there.
fn example(
    path: &Path,
    line: usize,
    columns: &Columns,
    value: &mut dyn FnMut(&str) -> Result<Value>,
) -> Result<TextExample> {
    let wrong = |column: &str, expected: &str, found: &Value| {
        Error::line(path, line, format!("{expected} in column `{column}`"), found.shown())
    };
    let mut text = |column: &String| match value(column)? {
        Value::Text(text) => Ok(text),
        found => Err(wrong(column, "a text", &found)),
    };
    let first = text(&columns.first)?;
    let second = columns.second.as_ref().map(&mut text).transpose()?;
    let group = columns.group.as_ref().map(&mut text).transpose()?;
    let label = match &columns.label {
        None => Label::None,
        Some(column) => match (columns.kind, value(column)?) {
            (LabelKind::Class, Value::Text(name)) if !name.is_empty() => Label::Class(name),
            (LabelKind::Class, found) => return Err(wrong(column, "the name of a class", &found)),
            (LabelKind::Score, Value::Number(score)) if score.is_finite() => Label::Score(score),
            (LabelKind::Score, Value::Text(text)) => Label::Score(number(path, line, &text, FINITE)?),
            (LabelKind::Score, found) => return Err(wrong(column, "a finite number", &found)),
            (LabelKind::Classes { .. }, Value::List(names)) => Label::Classes(names),
            (LabelKind::Classes { .. }, Value::Text(text)) if text.is_empty() => Label::Classes(Vec::new()),
            (LabelKind::Classes { separator }, Value::Text(text)) => {
                Label::Classes(text.split(separator).map(|name| name.trim().to_string()).collect())
            }
            (LabelKind::Classes { .. }, found) => return Err(wrong(column, "names of classes", &found)),
        },
    };
    Ok(TextExample { first, second, label, line, group })
}

#[cfg(test)]
mod tests;
