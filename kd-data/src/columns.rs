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

use std::path::{Path, PathBuf};

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
    Ok(Dataset { path: path.to_path_buf(), examples: Rows::open(path, columns)?.collect::<Result<_>>()? })
}

/// The examples of a table one after the other, as [`read_columns`] has them: for tables that are larger than memory.
///
/// Of the file no more than a row is in memory, of Parquet a group of rows. Errors are those of [`read_columns`], each when its row
/// is asked for, and the last thing that is said.
///
/// ```
/// use kd_data::columns::{Columns, Rows};
/// # let folder = tempfile::tempdir().unwrap();
/// # let path = folder.path().join("tweets.tsv");
/// std::fs::write(&path, "text\na\nb\nc\nd\n").unwrap();
/// // Every second row, the errors of the others with them.
/// let odd = Rows::open(&path, &Columns::text("text"))?.enumerate().filter(|(idx, row)| idx % 2 == 1 || row.is_err());
/// let odd = odd.map(|(_, row)| Ok(row?.first)).collect::<kd_data::Result<Vec<String>>>()?;
/// assert_eq!(odd, ["b", "d"]);
/// # Ok::<(), kd_data::Error>(())
/// ```
pub struct Rows {
    path: PathBuf,
    examples: Examples,
    is_first: bool,
    has_failed: bool,
}

/// Of what format ever.
type Examples = Box<dyn Iterator<Item = Result<TextExample>>>;

impl Rows {
    /// The rows of the table at `path`, none of them read yet.
    ///
    /// # Errors
    /// If the file cannot be read, has an end of no known format, or no header.
    pub fn open(path: impl AsRef<Path>, columns: &Columns) -> Result<Self> {
        let path = path.as_ref();
        let examples = match path.extension().and_then(|extension| extension.to_str()) {
            Some("tsv" | "txt") => tsv::examples(path, columns),
            Some("csv") => csv::examples(path, columns),
            Some("jsonl") => jsonl::examples(path, columns),
            #[cfg(feature = "parquet")]
            Some("parquet") => parquet::examples(path, columns),
            #[cfg(not(feature = "parquet"))]
            Some("parquet") => Err(Error::file(path, "a build with the feature `parquet` of kd-data", "one without")),
            found => {
                let found = found.map_or("none".to_string(), |found| format!("`.{found}`"));
                Err(Error::file(path, "a name that ends in .tsv, .txt, .csv, .jsonl or .parquet", found))
            }
        }?;
        Ok(Self { path: path.to_path_buf(), examples, is_first: true, has_failed: false })
    }
}

impl std::fmt::Debug for Rows {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Rows").field("path", &self.path).finish_non_exhaustive()
    }
}

impl Iterator for Rows {
    type Item = Result<TextExample>;

    fn next(&mut self) -> Option<Self::Item> {
        if self.has_failed {
            return None;
        }
        let is_first = std::mem::take(&mut self.is_first);
        let row = match self.examples.next() {
            None if is_first => Some(Err(Error::file(&self.path, "at least one row", "none"))),
            row => row,
        };
        self.has_failed = matches!(row, Some(Err(_)));
        row
    }
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
