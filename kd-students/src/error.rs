//! What can go wrong with configurations and folders.

use std::path::{Path, PathBuf};

/// An error of a configuration or of a student's folder. Pure tensor functions return [`candle_core::Error`].
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum Error {
    /// A tensor operation failed.
    #[error(transparent)]
    Tensor(#[from] candle_core::Error),
    /// A field of a configuration is out of its range.
    #[error("{field}: expected {expected}, found {found}")]
    Config {
        /// Name of the field, with the fields it stands in.
        field: &'static str,
        /// Its range.
        expected: String,
        /// What it was.
        found: String,
    },
    /// A list of words, characters or classes cannot be used.
    #[error("{list}: {message}")]
    Vocabulary {
        /// Which list.
        list: &'static str,
        /// Expected and found.
        message: String,
    },
    /// A file or folder could not be read, written or renamed.
    #[error("{path}: cannot {action}: {cause}", path = .path.display())]
    Io {
        /// The file or folder.
        path: PathBuf,
        /// What was tried: `read`, `write`, ...
        action: &'static str,
        /// What the system said.
        cause: std::io::Error,
    },
    /// A JSON file is not what it should be; the message of `cause` has line and column.
    #[error("{path}: {cause}", path = .path.display())]
    Json {
        /// The file.
        path: PathBuf,
        /// What the parser said.
        cause: serde_json::Error,
    },
    /// A file or folder is something else than a saved student.
    #[error("{path}: expected {expected}, found {found}", path = .path.display())]
    Format {
        /// The file or folder.
        path: PathBuf,
        /// What it should be.
        expected: String,
        /// What it is.
        found: String,
    },
    /// A file of a saved student is readable, and its content does not fit the rest.
    #[error("{path}: {cause}", path = .path.display())]
    In {
        /// The file.
        path: PathBuf,
        /// What is wrong in it.
        cause: Box<Error>,
    },
    /// Tensors are missing, have another shape or type, or belong to nothing.
    #[error("{path}: the tensors do not fit the model: {}", .problems.join("; "), path = .path.display())]
    Tensors {
        /// The file.
        path: PathBuf,
        /// One sentence for each tensor that does not fit.
        problems: Vec<String>,
    },
    /// A network described in JSON cannot be.
    #[error("{path}: {message}")]
    Plan {
        /// The place: `architecture[2].conf.hidden_dim`.
        path: String,
        /// Expected and found.
        message: String,
    },
    /// A student was asked for what another kind of student does.
    #[error("expected a {expected}, the saved student is a {found}")]
    Kind {
        /// The kind that does it.
        expected: &'static str,
        /// The kind at hand.
        found: &'static str,
    },
}

/// A result of this crate.
pub type Result<T> = std::result::Result<T, Error>;

impl Error {
    pub(crate) fn io(path: &Path, action: &'static str) -> impl FnOnce(std::io::Error) -> Self {
        let path = path.to_path_buf();
        move |cause| Self::Io { path, action, cause }
    }

    pub(crate) fn within(self, path: &Path) -> Self {
        Self::In { path: path.to_path_buf(), cause: Box::new(self) }
    }

    pub(crate) fn config(field: &'static str, expected: impl Into<String>, found: impl ToString) -> Self {
        Self::Config { field, expected: expected.into(), found: found.to_string() }
    }
}

/// Checks that `names` has at least one entry and none twice.
pub(crate) fn check_distinct<T: Ord + std::fmt::Display>(list: &'static str, names: &[T]) -> Result<()> {
    let mut sorted: Vec<&T> = names.iter().collect();
    sorted.sort();
    match sorted.windows(2).find(|pair| pair[0] == pair[1]) {
        Some(pair) => {
            let places: Vec<usize> = (0..names.len()).filter(|&idx| names[idx] == *pair[0]).collect();
            let message = format!("expected every entry once, found `{}` at positions {places:?}", pair[0]);
            Err(Error::Vocabulary { list, message })
        }
        None => Ok(()),
    }
}
