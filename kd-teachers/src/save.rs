//! Files and folders that are there whole or not at all.

use std::fs::{self, File};
use std::io::Write;
use std::path::{Path, PathBuf};

use crate::error::{Error, Result};

/// Writes a file beside its place, waits for the disk, and renames it.
pub(crate) fn write_file(path: &Path, bytes: &[u8]) -> Result<()> {
    let partial = beside(path, "partial");
    create(&partial, bytes)?;
    fs::rename(&partial, path).map_err(|source| Error::io(path, &source))?;
    sync_parent(path)
}

/// Writes a folder of files beside its place, waits for the disk, and renames it.
///
/// What was there before is moved to `FOLDER.previous` first and removed last, so that at every moment one of the two
/// is whole.
pub(crate) fn write_folder(folder: &Path, files: &[(&str, Vec<u8>)]) -> Result<()> {
    let (partial, previous) = (beside(folder, "partial"), beside(folder, "previous"));
    let failed = |path: &Path| {
        let path = path.to_path_buf();
        move |source: std::io::Error| Error::io(&path, &source)
    };
    if let Some(parent) = folder.parent() {
        fs::create_dir_all(parent).map_err(failed(parent))?;
    }
    remove(&partial)?;
    fs::create_dir(&partial).map_err(failed(&partial))?;
    for (name, bytes) in files {
        create(&partial.join(name), bytes)?;
    }
    if folder.exists() {
        remove(&previous)?;
        fs::rename(folder, &previous).map_err(failed(folder))?;
    }
    fs::rename(&partial, folder).map_err(failed(folder))?;
    sync_parent(folder)?;
    remove(&previous)
}

/// `path` with `.suffix` after its name.
pub(crate) fn beside(path: &Path, suffix: &str) -> PathBuf {
    let mut name = path.as_os_str().to_os_string();
    name.push(".");
    name.push(suffix);
    name.into()
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

/// A rename is on the disk when its folder is; only Unix can open a folder to wait for it.
fn sync_parent(path: &Path) -> Result<()> {
    if cfg!(unix) {
        let parent = match path.parent() {
            Some(parent) if !parent.as_os_str().is_empty() => parent,
            _ => Path::new("."),
        };
        File::open(parent).and_then(|folder| folder.sync_all()).map_err(|source| Error::io(parent, &source))?;
    }
    Ok(())
}
