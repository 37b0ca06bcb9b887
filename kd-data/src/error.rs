//! What can be wrong with files and texts.

use std::path::{Path, PathBuf};

/// The result of everything here that reads text or files.
pub type Result<T> = std::result::Result<T, Error>;

/// What can be wrong with files and texts; every message names the place, what was expected and what was found.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum Error {
    /// A file could not be read or written.
    #[error("{}: {cause}", path.display())]
    Io {
        /// The file or folder.
        path: PathBuf,
        /// What the system said.
        cause: std::io::Error,
    },
    /// A file is not UTF-8.
    #[error("{}:{line}: expected utf-8, found an invalid sequence at byte {byte} of the file", path.display())]
    Utf8 {
        /// The file.
        path: PathBuf,
        /// Its line, counted from 1.
        line: usize,
        /// Offset of the first wrong byte in the file, counted from 0.
        byte: u64,
    },
    /// A line is not as it should be.
    #[error("{}:{line}: expected {expected}, found {found}", path.display())]
    Line {
        /// The file.
        path: PathBuf,
        /// Its line, counted from 1.
        line: usize,
        /// What should stand there.
        expected: String,
        /// What stands there.
        found: String,
    },
    /// A file as a whole is not as it should be.
    #[error("{}: expected {expected}, found {found}", path.display())]
    File {
        /// The file.
        path: PathBuf,
        /// What it should hold.
        expected: String,
        /// What it holds.
        found: String,
    },
    /// Stored teacher outputs were made from other weights, another tokenizer or other texts: a cache miss.
    #[error("{}: expected outputs made under the key {expected}, found {found}", path.display())]
    Stale {
        /// The file.
        path: PathBuf,
        /// The key that was asked for.
        expected: String,
        /// The key that the file carries.
        found: String,
    },
    /// An argument that is no file is not as it should be.
    #[error("{what}: expected {expected}, found {found}")]
    Argument {
        /// Which argument.
        what: String,
        /// What it should be.
        expected: String,
        /// What it is.
        found: String,
    },
    /// A tensor operation failed.
    #[error(transparent)]
    Tensor(#[from] candle_core::Error),
    /// A stored file could not be read or written whole.
    #[error(transparent)]
    Core(#[from] kd_core::Error),
}

impl Error {
    pub(crate) fn io(path: &Path) -> impl FnOnce(std::io::Error) -> Self + '_ {
        move |cause| Self::Io { path: path.to_path_buf(), cause }
    }

    pub(crate) fn line(path: &Path, line: usize, expected: impl Into<String>, found: impl Into<String>) -> Self {
        Self::Line { path: path.to_path_buf(), line, expected: expected.into(), found: found.into() }
    }

    pub(crate) fn file(path: &Path, expected: impl Into<String>, found: impl Into<String>) -> Self {
        Self::File { path: path.to_path_buf(), expected: expected.into(), found: found.into() }
    }

    pub(crate) fn argument(what: impl Into<String>, expected: impl Into<String>, found: impl Into<String>) -> Self {
        Self::Argument { what: what.into(), expected: expected.into(), found: found.into() }
    }
}

/// So that `?` works where batches are made inside a tensor program.
impl From<Error> for candle_core::Error {
    fn from(error: Error) -> Self {
        match error {
            Error::Tensor(error) => error,
            error => candle_core::Error::wrap(error),
        }
    }
}

/// The text of a file without its byte order mark.
pub(crate) fn read_text(path: &Path) -> Result<String> {
    let bytes = std::fs::read(path).map_err(Error::io(path))?;
    let text = String::from_utf8(bytes).map_err(|error| {
        let valid = error.utf8_error().valid_up_to();
        let line = 1 + error.as_bytes()[..valid].iter().filter(|&&byte| byte == b'\n').count();
        Error::Utf8 { path: path.to_path_buf(), line, byte: valid as u64 }
    })?;
    Ok(match text.strip_prefix('\u{feff}') {
        Some(rest) => rest.to_string(),
        None => text,
    })
}

/// `1 word`, `2 words`.
pub(crate) fn count(n: usize, noun: &str) -> String {
    if n == 1 { format!("1 {noun}") } else { format!("{n} {noun}s") }
}
