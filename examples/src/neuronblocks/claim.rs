//! A folder belongs to one run: to settings, which stand in its `settings.json`.

use std::path::{Path, PathBuf};

use anyhow::{Context, Result, bail};
use kd_core::checkpoint::differences;
use serde_json::Value;

use crate::report;

/// File of what decides a run.
const SETTINGS: &str = "settings.json";
/// File that is written last.
pub const REPORT: &str = "report.json";

/// A run in its folder.
#[derive(Debug)]
pub struct Claim<'a> {
    /// The folder.
    pub folder: &'a Path,
    /// What decides the run.
    pub settings: &'a Value,
    /// Files of a run besides its settings and its report, which a forced run does without.
    pub files: &'a [PathBuf],
    /// Whether what is there is replaced.
    pub force: bool,
}

impl Claim<'_> {
    /// Whether this very run is done. Nothing is written.
    ///
    /// # Errors
    /// If the folder holds a run of other settings; the message names them.
    pub fn is_done(&self) -> Result<bool> {
        let path = self.folder.join(SETTINGS);
        if self.force || !path.exists() {
            return Ok(false);
        }
        let named = || path.display().to_string();
        let text = std::fs::read_to_string(&path).with_context(named)?;
        let found: Value = serde_json::from_str(&text).with_context(named)?;
        let differences = differences(self.settings, &found);
        if !differences.is_empty() {
            bail!(
                "{} holds a run with other settings ({}), which --force replaces",
                self.folder.display(),
                differences.join("; ")
            );
        }
        Ok(self.folder.join(REPORT).exists())
    }

    /// Makes the folder this run's, without what is there if it is forced.
    ///
    /// # Errors
    /// As [`Claim::is_done`], and if a file cannot be removed or written.
    pub fn take(&self) -> Result<()> {
        if self.force {
            for path in [self.folder.join(SETTINGS), self.folder.join(REPORT)].iter().chain(self.files) {
                remove(path)?;
            }
        }
        self.is_done()?;
        report::save(&self.folder.join(SETTINGS), self.settings)
    }
}

/// Removes a file that may be there.
///
/// # Errors
/// If it is there and cannot be removed.
pub fn remove(path: &Path) -> Result<()> {
    match std::fs::remove_file(path) {
        Err(error) if error.kind() != std::io::ErrorKind::NotFound => {
            Err(error).with_context(|| path.display().to_string())
        }
        _ => Ok(()),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    #[test]
    fn a_folder_is_one_runs_until_it_is_forced_and_then_empty() {
        let folder = tempfile::tempdir().unwrap();
        let (mine, others) = (json!({"seed": 1}), json!({"seed": 2}));
        let checkpoint = folder.path().join("model.checkpoint");
        let files = [checkpoint.clone()];
        let claim = |settings, force| Claim { folder: folder.path(), settings, files: &files, force };
        assert!(!claim(&mine, false).is_done().unwrap());
        assert!(std::fs::read_dir(folder.path()).unwrap().next().is_none(), "asking writes nothing");
        claim(&mine, false).take().unwrap();
        std::fs::write(&checkpoint, "half").unwrap();
        claim(&mine, false).take().unwrap();
        assert!(checkpoint.exists(), "the same run goes on");
        let message = claim(&others, false).take().unwrap_err().to_string();
        assert!(message.contains("seed") && message.ends_with("which --force replaces"), "{message}");
        std::fs::write(folder.path().join(REPORT), "{}").unwrap();
        assert!(claim(&mine, false).is_done().unwrap());
        // Forced, the same run begins anew too.
        claim(&mine, true).take().unwrap();
        assert!(!checkpoint.exists() && !claim(&mine, false).is_done().unwrap());
    }
}
