//! A folder of results, each under a name made of everything that decides it.
//!
//! ```text
//! OUT/runs/mrpc-3-m-o-1-seed-1-1f3a….json        a result: it is there when it is whole
//! OUT/runs/mrpc-3-m-o-1-seed-1-1f3a….answers     what goes with it
//! OUT/runs/mrpc-3-m-o-1-seed-1-1f3a….checkpoint  a run that is not done
//! OUT/runs/mrpc-3-m-o-1-seed-1-1f3a….claim       whose process has a lock on it works on it
//! ```
//!
//! Any number of processes may work in one folder: each takes what is neither done nor claimed. A claim is a lock of the
//! operating system, which is gone when its process is, however it ended.

use std::fs::{File, OpenOptions, TryLockError};
use std::path::{Path, PathBuf};
use std::time::Duration;

use anyhow::{Context, Result};
use kd_data::digest;
use serde::Serialize;
use serde::de::DeserializeOwned;
use serde_json::Value;

use crate::report;

/// Time between looks at what another process is at.
pub(super) const LOOK_AGAIN: Duration = Duration::from_millis(500);
/// Digits of a digest in a name.
const DIGITS: usize = 12;

/// The folder.
#[derive(Debug, Clone)]
pub struct Results {
    path: PathBuf,
}

/// The right to make one result.
#[derive(Debug)]
struct Claim {
    path: PathBuf,
    /// Open and locked.
    _file: File,
}

/// `readable-` and the start of a digest of what decides the result.
pub fn name_of(readable: &str, decides: &Value) -> String {
    let digest = digest::of_bytes(decides.to_string());
    let is_plain = |c: char| c.is_ascii_alphanumeric() || "-._".contains(c);
    let plain: String = readable.chars().map(|c| if is_plain(c) { c } else { '-' }).collect();
    format!("{plain}-{}", &digest[..DIGITS])
}

impl Results {
    /// The folder at `path`, which is made if it is not there.
    ///
    /// # Errors
    /// If it cannot be made.
    pub fn open(path: PathBuf) -> Result<Self> {
        std::fs::create_dir_all(&path).with_context(|| path.display().to_string())?;
        Ok(Self { path })
    }

    /// The file of a result that ends in `.end`.
    pub fn file(&self, name: &str, end: &str) -> PathBuf {
        self.path.join(format!("{name}.{end}"))
    }

    /// The result of this name, if it is done.
    ///
    /// # Errors
    /// If its file cannot be read or holds something else.
    pub fn done<T: DeserializeOwned>(&self, name: &str) -> Result<Option<T>> {
        let path = self.file(name, "json");
        let text = match std::fs::read_to_string(&path) {
            Err(error) if error.kind() == std::io::ErrorKind::NotFound => return Ok(None),
            text => text.with_context(|| path.display().to_string())?,
        };
        serde_json::from_str(&text).map(Some).with_context(|| path.display().to_string())
    }

    /// Every result in the folder that is one of `T`.
    ///
    /// # Errors
    /// If the folder cannot be read.
    pub fn all<T: DeserializeOwned>(&self) -> Result<Vec<T>> {
        let mut paths: Vec<PathBuf> = std::fs::read_dir(&self.path)
            .with_context(|| self.path.display().to_string())?
            .map(|entry| Ok(entry?.path()))
            .collect::<std::io::Result<_>>()?;
        paths.retain(|path| path.extension().is_some_and(|end| end == "json"));
        paths.sort();
        Ok(paths.iter().filter_map(|path| serde_json::from_slice(&std::fs::read(path).ok()?).ok()).collect())
    }

    /// `done`; `running`, a process is at it; `begun`, there is a checkpoint and nobody at it; or `to do`.
    ///
    /// # Errors
    /// If a file cannot be opened.
    pub fn state(&self, name: &str) -> Result<&'static str> {
        if self.file(name, "json").exists() {
            return Ok("done");
        }
        if self.file(name, "claim").exists() && self.claim(name)?.is_none() {
            return Ok("running");
        }
        Ok(if self.file(name, "checkpoint").exists() { "begun" } else { "to do" })
    }

    /// The right to make this result; none if another process is at it.
    ///
    /// # Errors
    /// If the claim cannot be written.
    fn claim(&self, name: &str) -> Result<Option<Claim>> {
        let path = self.file(name, "claim");
        let named = || path.display().to_string();
        let file = OpenOptions::new().create(true).truncate(false).write(true).open(&path).with_context(named)?;
        match file.try_lock() {
            Ok(()) => Ok(Some(Claim { path, _file: file })),
            Err(TryLockError::WouldBlock) => Ok(None),
            Err(TryLockError::Error(error)) => Err(error).with_context(named),
        }
    }

    /// The result of this name, made now by `make` if it is not there; none if another process is at it, or `make` says so.
    ///
    /// # Errors
    /// Those of `make`, and if a file cannot be read or written.
    pub fn made<T: Serialize + DeserializeOwned>(
        &self,
        name: &str,
        make: impl FnOnce() -> Result<Option<T>>,
    ) -> Result<Option<T>> {
        if let Some(result) = self.done(name)? {
            // A process that was killed behind its result left its claim, which is the last to go.
            if self.file(name, "claim").exists()
                && let Some(claim) = self.claim(name)?
            {
                self.clear(name, claim)?;
            }
            return Ok(Some(result));
        }
        let Some(claim) = self.claim(name)? else { return Ok(None) };
        // Another process may have come to its end since.
        let result = match self.done(name)? {
            Some(result) => Some(result),
            None => make()?,
        };
        if let Some(result) = &result {
            self.finish(name, result, claim)?;
        }
        Ok(result)
    }

    /// Writes the result and removes what its run needed on its way: after this it is done.
    ///
    /// # Errors
    /// If a file cannot be written or removed.
    fn finish(&self, name: &str, result: &impl Serialize, claim: Claim) -> Result<()> {
        report::save(&self.file(name, "json"), result)?;
        self.clear(name, claim)
    }

    /// Removes what a run needed on its way to a result that is there.
    fn clear(&self, name: &str, claim: Claim) -> Result<()> {
        remove(&self.file(name, "checkpoint"))?;
        // Last: whoever gets hold of the claim from here on finds the result.
        remove(&claim.path)
    }
}

fn remove(path: &Path) -> Result<()> {
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

    fn folder() -> (tempfile::TempDir, Results) {
        let folder = tempfile::tempdir().unwrap();
        let results = Results::open(folder.path().join("runs")).unwrap();
        (folder, results)
    }

    #[test]
    fn a_name_is_readable_and_of_everything_that_decides() {
        let name = name_of("mrpc 3/gold", &json!({"seed": 1}));
        assert!(name.starts_with("mrpc-3-gold-") && name.len() == "mrpc-3-gold-".len() + 12, "{name}");
        assert_ne!(name, name_of("mrpc 3/gold", &json!({"seed": 2})));
        assert_eq!(name, name_of("mrpc 3/gold", &json!({"seed": 1})));
    }

    #[test]
    fn a_result_is_claimed_once_and_then_done() {
        let (_folder, results) = folder();
        assert_eq!(results.state("a").unwrap(), "to do");
        let claim = results.claim("a").unwrap().unwrap();
        assert!(results.claim("a").unwrap().is_none(), "claimed twice");
        assert_eq!(results.state("a").unwrap(), "running");
        assert!(results.claim("b").unwrap().is_some());
        assert_eq!(results.done::<u32>("a").unwrap(), None);
        std::fs::write(results.file("a", "checkpoint"), "half").unwrap();
        results.finish("a", &7, claim).unwrap();
        assert_eq!(results.done::<u32>("a").unwrap(), Some(7));
        assert_eq!(results.state("a").unwrap(), "done");
        assert!(!results.file("a", "checkpoint").exists() && !results.file("a", "claim").exists());
        assert_eq!(results.all::<u32>().unwrap(), [7]);
    }

    #[test]
    fn a_claim_of_a_process_that_is_gone_is_none() {
        let (_folder, results) = folder();
        std::fs::write(results.file("a", "claim"), "").unwrap(); // as a killed process leaves it
        std::fs::write(results.file("a", "checkpoint"), "").unwrap();
        assert_eq!(results.state("a").unwrap(), "begun");
        assert!(results.claim("a").unwrap().is_some());
        drop(results.claim("b").unwrap());
        assert!(results.claim("b").unwrap().is_some());
    }

    #[test]
    fn what_was_left_behind_a_result_is_removed_when_it_is_asked_for() {
        let (_folder, results) = folder();
        let make = || -> Result<Option<u32>> { panic!("it is there") };
        for end in ["claim", "checkpoint"] {
            std::fs::write(results.file("a", end), "").unwrap();
        }
        report::save(&results.file("a", "json"), &7).unwrap(); // and then it was killed
        let claim = results.claim("a").unwrap();
        assert_eq!(results.made("a", make).unwrap(), Some(7));
        assert!(results.file("a", "claim").exists(), "another process is at it");
        drop(claim);
        assert_eq!(results.made("a", make).unwrap(), Some(7));
        assert!(!results.file("a", "checkpoint").exists() && !results.file("a", "claim").exists());
    }

    #[test]
    fn a_broken_result_is_named() {
        let (_folder, results) = folder();
        std::fs::write(results.file("a", "json"), "{").unwrap();
        let message = format!("{:#}", results.done::<u32>("a").unwrap_err());
        assert!(message.contains("a.json: invalid type: map, expected u32"), "{message}");
    }
}
