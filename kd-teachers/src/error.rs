//! What can go wrong between a model's name and its first forward pass.

use std::path::{Path, PathBuf};

use crate::config::Family;

/// An error of this crate; its message names the file or the setting, what was expected and what was found.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum Error {
    /// A file or folder could not be read or written.
    #[error("{}: {message}", path.display())]
    Io {
        /// The file or folder.
        path: PathBuf,
        /// What the system said.
        message: String,
    },
    /// A JSON file does not say what it should.
    #[error("{}: {message}", path.display())]
    Config {
        /// The file.
        path: PathBuf,
        /// The key, what was expected and what was found.
        message: String,
    },
    /// A model of a kind that is not implemented.
    #[error("{}: unsupported model_type `{found}`, expected one of {}", path.display(), model_types())]
    UnsupportedModel {
        /// The config.json.
        path: PathBuf,
        /// Its `model_type`.
        found: String,
    },
    /// An option of an implemented model that is not implemented.
    #[error("{}: unsupported `{option}`: expected {expected}, found {found}", path.display())]
    UnsupportedOption {
        /// The config.json.
        path: PathBuf,
        /// The key.
        option: &'static str,
        /// What is implemented.
        expected: String,
        /// What the file says.
        found: String,
    },
    /// A model's file is neither in the cache nor may be downloaded.
    #[error("{0}")]
    NotFound(Box<NotFound>),
    /// The only weights of a model are pickled, and pickles are not allowed.
    #[error(
        "{found}: convert them to safetensors (save_pretrained of transformers does), or allow them with `FindOptions {{ \
         pickle: true, .. }}`"
    )]
    Pickled {
        /// The model and its weights.
        found: String,
    },
    /// A model's file could not be downloaded.
    #[error("{0}")]
    Download(Box<crate::hub::Download>),
    /// A model's file in the cache is not what it was.
    #[error("{0}")]
    Damaged(Box<crate::hub::Damaged>),
    /// A checkpoint does not fit the model.
    #[error("{files}: {message}")]
    Checkpoint {
        /// The file or files.
        files: String,
        /// Each tensor that does not fit, with what was expected and what was found.
        message: String,
    },
    /// An argument is out of its range.
    #[error("{0}")]
    Argument(String),
    /// A file could not be replaced.
    #[error(transparent)]
    Core(#[from] kd_core::Error),
    /// A tensor operation failed.
    #[error(transparent)]
    Candle(#[from] candle_core::Error),
}

/// A file of a model that is not where it was looked for.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("model `{id}`, revision `{revision}`: no {file} in {}; {advice}", folder.display())]
pub struct NotFound {
    /// The model's id, or the path of its folder.
    pub id: String,
    /// The revision that was asked for.
    pub revision: String,
    /// The file that is missing.
    pub file: String,
    /// Where it was looked for.
    pub folder: PathBuf,
    /// What to do.
    pub advice: String,
}

/// A result of this crate.
pub type Result<T, E = Error> = std::result::Result<T, E>;

impl Error {
    pub(crate) fn io(path: &Path, source: &std::io::Error) -> Self {
        Self::Io { path: path.to_path_buf(), message: source.to_string() }
    }

    pub(crate) fn config(path: &Path, message: impl Into<String>) -> Self {
        Self::Config { path: path.to_path_buf(), message: message.into() }
    }
}

fn model_types() -> String {
    Family::ALL.map(|family| format!("`{}`", family.model_type())).join(", ")
}
