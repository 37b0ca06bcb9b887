//! Lines of columns parted by single tabs, without quoting: what GLUE, SNLI and WikiQA are written in.
//!
//! A `"` is text like any other: a CSV reader that takes it for a quote loses or joins rows. `\r\n` is accepted and so
//! are empty lines at the end.

use std::path::{Path, PathBuf};

use crate::error::{Error, Result, count};

/// The lines of `text`, counted from 1, in columns.
pub(crate) fn lines(text: &str) -> impl Iterator<Item = (usize, Vec<&str>)> {
    let lines = text.trim_end_matches(['\n', '\r']).split('\n').enumerate();
    let some = if text.trim_end_matches(['\n', '\r']).is_empty() { 0 } else { usize::MAX };
    lines.take(some).map(|(idx, line)| (idx + 1, line.strip_suffix('\r').unwrap_or(line).split('\t').collect()))
}

/// The names of a file's columns.
#[derive(Debug)]
pub(crate) struct Header {
    path: PathBuf,
    line: usize,
    names: Vec<String>,
}

impl Header {
    /// The names that stand on line `line` of `path`.
    pub(crate) fn new(path: &Path, line: usize, names: Vec<&str>) -> Self {
        Self { path: path.to_path_buf(), line, names: names.into_iter().map(str::to_string).collect() }
    }

    /// The place of the column `name`, if there is one.
    ///
    /// # Errors
    /// If there are two.
    pub(crate) fn find(&self, name: &str) -> Result<Option<usize>> {
        let mut places = self.names.iter().enumerate().filter(|&(_, other)| *other == name).map(|(place, _)| place);
        match (places.next(), places.next()) {
            (Some(_), Some(_)) => Err(Error::line(&self.path, self.line, format!("one column `{name}`"), self.shown())),
            (place, _) => Ok(place),
        }
    }

    /// The place of the column `name`.
    ///
    /// # Errors
    /// If there is none, or two.
    pub(crate) fn column(&self, name: &str) -> Result<usize> {
        self.find(name)?.ok_or_else(|| Error::line(&self.path, self.line, format!("a column `{name}`"), self.shown()))
    }

    /// Refuses a line of another number of columns.
    pub(crate) fn check(&self, line: usize, columns: usize) -> Result<()> {
        if columns == self.names.len() {
            return Ok(());
        }
        let expected = format!("{} as on line {}", count(self.names.len(), "column"), self.line);
        Err(Error::line(&self.path, line, expected, count(columns, "column")))
    }

    /// How many columns there are.
    pub(crate) fn len(&self) -> usize {
        self.names.len()
    }

    fn shown(&self) -> String {
        let noun = if self.names.len() == 1 { "the column" } else { "the columns" };
        format!("{noun} `{}`", self.names.join("`, `"))
    }
}

/// A number of `range`, both ends included.
pub(crate) fn number(path: &Path, line: usize, text: &str, range: std::ops::RangeInclusive<f64>) -> Result<f64> {
    match text.trim().parse::<f64>() {
        Ok(number) if range.contains(&number) => Ok(number),
        _ => {
            let expected = match range == FINITE {
                true => "a finite number".to_string(),
                false => format!("a number from {} to {}", range.start(), range.end()),
            };
            Err(Error::line(path, line, expected, format!("`{text}`")))
        }
    }
}

/// Every finite number.
pub(crate) const FINITE: std::ops::RangeInclusive<f64> = f64::MIN..=f64::MAX;
