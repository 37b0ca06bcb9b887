//! What can go wrong outside of pure tensor code.

use std::path::PathBuf;

/// An error of training or of a checkpoint. Pure tensor functions return [`candle_core::Error`] instead.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum Error {
    /// A tensor operation failed.
    #[error(transparent)]
    Tensor(#[from] candle_core::Error),
    /// A file could not be read or written.
    #[error("{path}: {cause}", path = .path.display())]
    Io {
        /// The file or folder.
        path: PathBuf,
        /// What the system said.
        cause: std::io::Error,
    },
    /// A checkpoint is not one, or belongs to another run.
    #[error("{path}: {message}", path = .path.display())]
    Checkpoint {
        /// The checkpoint.
        path: PathBuf,
        /// Expected and found.
        message: String,
    },
    /// The loss or the gradient stopped being a number.
    #[error("step {step}: the {what} is {value}, expected a finite number; the last checkpoint is kept")]
    NonFinite {
        /// Step, counted from 0.
        step: usize,
        /// `loss` or `gradient norm`.
        what: &'static str,
        /// The value found.
        value: f64,
    },
    /// Variables that should be trained take no part in the loss.
    #[error("step {step}: expected a finite, non-zero gradient for every trainable variable, found: {}", .dead.join("; "))]
    DeadVariables {
        /// Step, counted from 0.
        step: usize,
        /// Name and fault of each.
        dead: Vec<String>,
    },
    /// A setting is outside its range.
    #[error("{field}: expected {expected}, found {found}")]
    Config {
        /// Name of the setting.
        field: &'static str,
        /// Its range.
        expected: &'static str,
        /// The value found.
        found: String,
    },
}

impl Error {
    pub(crate) fn io(path: &std::path::Path) -> impl FnOnce(std::io::Error) -> Self {
        let path = path.to_path_buf();
        move |cause| Self::Io { path, cause }
    }
}

/// `Result` with this crate's [`enum@Error`].
pub type Result<T> = std::result::Result<T, Error>;
