//! A run's folder: what is in it already is not made again, and it belongs to one set of settings.

use std::path::PathBuf;

use anyhow::{Context, Result, bail};
use serde::{Deserialize, Serialize};

/// Where a run's files lie.
#[derive(Debug, Clone)]
pub struct Folder {
    /// The folder.
    pub path: PathBuf,
    /// Steps between checkpoints.
    pub checkpoint_every: usize,
}

impl Folder {
    /// `result` from `name.json` if it is there, else made and kept there.
    pub fn cached<T: Serialize + for<'a> Deserialize<'a>>(
        &self,
        name: &str,
        make: impl FnOnce() -> Result<T>,
    ) -> Result<T> {
        let path = self.path.join(format!("{name}.json"));
        if path.exists() {
            let text = std::fs::read_to_string(&path).with_context(|| path.display().to_string())?;
            return serde_json::from_str(&text).with_context(|| path.display().to_string());
        }
        let made = make()?;
        crate::report::save(&path, &made)?;
        Ok(made)
    }

    /// Makes sure that the folder belongs to a run with these settings.
    ///
    /// # Errors
    /// If it was made with others; the message names them.
    pub fn claim<T: Serialize>(&self, settings: &T) -> Result<()> {
        let found: serde_json::Value = self.cached("settings", || Ok(serde_json::to_value(settings)?))?;
        let differences = kd_core::checkpoint::differences(settings, &found);
        if !differences.is_empty() {
            bail!(
                "{} holds a run with other settings ({}); remove it or choose another folder",
                self.path.display(),
                differences.join("; ")
            );
        }
        Ok(())
    }
}
