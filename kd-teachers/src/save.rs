//! Folders that are there whole or not at all.

use std::fs::{self, File};
use std::io::Write;
use std::path::{Path, PathBuf};

use kd_core::checkpoint::sync_folder;

use crate::error::{Error, Result};

/// Writes a folder of files beside its place, waits for the disk, and renames it.
///
/// What was there before is moved to `FOLDER.previous` first and removed last, so that at every moment one of the two
/// is whole.
pub(crate) fn write_folder(folder: &Path, files: &[(&str, Vec<u8>)]) -> Result<()> {
    let name = folder.file_name().ok_or_else(|| {
        Error::Argument(format!("cannot save a model as {}: expected the name of a folder", folder.display()))
    })?;
    let beside = |suffix: &str| -> PathBuf {
        let mut name = name.to_os_string();
        name.push(suffix);
        folder.with_file_name(name)
    };
    let (partial, previous) = (beside(".partial"), beside(".previous"));
    let parent = match folder.parent() {
        Some(parent) if !parent.as_os_str().is_empty() => parent,
        _ => Path::new("."),
    };
    fs::create_dir_all(parent).map_err(|source| Error::io(parent, &source))?;
    remove(&partial)?;
    fs::create_dir(&partial).map_err(|source| Error::io(&partial, &source))?;
    for (name, bytes) in files {
        create(&partial.join(name), bytes)?;
    }
    sync_folder(&partial)?;
    if folder.exists() {
        remove(&previous)?;
        fs::rename(folder, &previous).map_err(|source| Error::io(folder, &source))?;
    }
    fs::rename(&partial, folder).map_err(|source| Error::io(folder, &source))?;
    sync_folder(parent)?;
    remove(&previous)
}

fn create(path: &Path, bytes: &[u8]) -> Result<()> {
    let write = || {
        let mut file = File::create(path)?;
        file.write_all(bytes)?;
        file.sync_all()
    };
    write().map_err(|source| Error::io(path, &source))
}

fn remove(folder: &Path) -> Result<()> {
    match fs::remove_dir_all(folder) {
        Err(source) if source.kind() != std::io::ErrorKind::NotFound => Err(Error::io(folder, &source)),
        _ => Ok(()),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn names(folder: &Path) -> Vec<String> {
        let entries = fs::read_dir(folder).unwrap();
        let mut names: Vec<_> = entries.map(|entry| entry.unwrap().file_name().into_string().unwrap()).collect();
        names.sort();
        names
    }

    #[test]
    fn a_folder_replaces_the_one_before_and_what_a_killed_save_left() {
        let root = tempfile::tempdir().unwrap();
        let folder = root.path().join("new/model");
        for left_over in ["new/model.partial", "new/model.previous"] {
            fs::create_dir_all(root.path().join(left_over)).unwrap();
            fs::write(root.path().join(left_over).join("old"), "old").unwrap();
        }
        write_folder(&folder, &[("a", b"1".to_vec()), ("b", b"2".to_vec())]).unwrap();
        // A slash at the end names the same folder.
        write_folder(&folder.join(""), &[("a", b"3".to_vec())]).unwrap();
        assert_eq!(names(&root.path().join("new")), ["model"]);
        assert_eq!(names(&folder), ["a"]);
        assert_eq!(fs::read(folder.join("a")).unwrap(), b"3");
    }

    #[test]
    fn a_save_that_fails_leaves_the_folder_as_it_was() {
        let root = tempfile::tempdir().unwrap();
        let folder = root.path().join("model");
        write_folder(&folder, &[("a", b"1".to_vec())]).unwrap();
        let message =
            write_folder(&folder, &[("a", b"2".to_vec()), ("no/such", b"3".to_vec())]).unwrap_err().to_string();
        assert!(message.contains("model.partial") && message.contains("no/such"), "{message}");
        assert_eq!(fs::read(folder.join("a")).unwrap(), b"1");
        assert!(write_folder(Path::new("/"), &[]).unwrap_err().to_string().contains("expected the name of a folder"));
    }
}
