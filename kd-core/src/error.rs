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
    /// The loss or the gradient stopped being a number, and too many steps were skipped for it.
    #[error("step {step}: the {what} is {value}, expected a finite number, {}; {}", after(*.skipped), kept(.saved))]
    NonFinite {
        /// Step, counted from 0.
        step: usize,
        /// `loss` or `gradient norm`.
        what: &'static str,
        /// The value found.
        value: f64,
        /// Steps right before it that were skipped for the same reason.
        skipped: usize,
        /// The last checkpoint and the number of its steps.
        saved: Option<(PathBuf, usize)>,
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

fn after(skipped: usize) -> String {
    match skipped {
        0 => "and no step may be skipped".to_string(),
        1 => "after 1 step that was skipped for the same".to_string(),
        _ => format!("after {skipped} steps in a row that were skipped for the same"),
    }
}

fn kept(saved: &Option<(PathBuf, usize)>) -> String {
    match saved {
        Some((path, step)) => format!("{} holds the state after {step} steps", path.display()),
        None => "no checkpoint was written".to_string(),
    }
}
