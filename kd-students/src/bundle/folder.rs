//! A folder that is replaced as a whole, and the JSON files in it.

use std::fs::{self, File};
use std::io::Write;
use std::path::{Path, PathBuf};

use serde::Serialize;
use serde::de::DeserializeOwned;

use super::{CHARACTERS, CONFIG, FORMAT, WEIGHTS, WORDS};
use crate::error::{Error, Result};

/// `.NAME.new` or `.NAME.old` beside `dir`.
fn sibling(dir: &Path, ending: &str) -> Option<PathBuf> {
    let name = dir.file_name()?.to_string_lossy().into_owned();
    Some(dir.with_file_name(format!(".{name}.{ending}")))
}

/// Where the student of `dir` stands: elsewhere only if a process was killed between moving the old folder away and
/// renaming the complete new one into place.
pub(super) fn current(dir: &Path) -> PathBuf {
    if dir.exists() {
        return dir.to_path_buf();
    }
    match (sibling(dir, "new"), sibling(dir, "old")) {
        // The old folder is moved away only once the new one is complete.
        (Some(new), Some(old)) if old.exists() => {
            if new.exists() {
                new
            } else {
                old
            }
        }
        _ => dir.to_path_buf(),
    }
}

/// Lets `write` fill a new folder and puts it in the place of `dir`.
pub(super) fn replace(dir: &Path, write: impl FnOnce(&Path) -> Result<()>) -> Result<()> {
    let (Some(new), Some(old)) = (sibling(dir, "new"), sibling(dir, "old")) else {
        let expected = "a folder with a name".to_string();
        return Err(Error::Format { path: dir.to_path_buf(), expected, found: "none".to_string() });
    };
    check_replaceable(dir)?;
    let parent = match dir.parent() {
        Some(parent) if parent != Path::new("") => parent.to_path_buf(),
        _ => PathBuf::from("."),
    };
    fs::create_dir_all(&parent).map_err(Error::io(&parent, "create"))?;

    // What a killed process left: first bring its student back, then remove the rest.
    let found = current(dir);
    if found != dir {
        fs::rename(&found, dir).map_err(Error::io(&found, "rename"))?;
    }
    for left_over in [&new, &old] {
        remove(left_over)?;
    }

    fs::create_dir(&new).map_err(Error::io(&new, "create"))?;
    let written = write(&new).and_then(|()| sync_folder(&new));
    if let Err(error) = written {
        // The folder is of no use; that it cannot be removed either is less important than why it failed.
        let _ = remove(&new);
        return Err(error);
    }
    if dir.exists() {
        fs::rename(dir, &old).map_err(Error::io(dir, "rename"))?;
    }
    fs::rename(&new, dir).map_err(Error::io(&new, "rename"))?;
    sync_folder(&parent)?;
    remove(&old)
}

/// Whether `dir` is nothing, an empty folder or a saved student with nothing else in it.
fn check_replaceable(dir: &Path) -> Result<()> {
    let not = |found: String| {
        let expected = "nothing, an empty folder or a saved student to replace".to_string();
        Err(Error::Format { path: dir.to_path_buf(), expected, found })
    };
    if !dir.exists() {
        return Ok(());
    }
    if !dir.is_dir() {
        return not("a file".to_string());
    }
    let mut names = Vec::new();
    for entry in fs::read_dir(dir).map_err(Error::io(dir, "read"))? {
        let entry = entry.map_err(Error::io(dir, "read"))?;
        names.push(entry.file_name().to_string_lossy().into_owned());
    }
    names.sort();
    if let Some(other) = names.iter().find(|name| ![CONFIG, WORDS, CHARACTERS, WEIGHTS].contains(&name.as_str())) {
        return not(format!("a folder with `{other}` in it"));
    }
    if names.is_empty() {
        return Ok(());
    }
    let config: Option<serde_json::Value> =
        fs::read_to_string(dir.join(CONFIG)).ok().and_then(|text| serde_json::from_str(&text).ok());
    match config.as_ref().and_then(|config| config.get("format")) {
        Some(format) if format == FORMAT => Ok(()),
        _ => not(format!("a folder with `{}` and no `{CONFIG}` of a student", names[0])),
    }
}

fn remove(dir: &Path) -> Result<()> {
    if dir.exists() { fs::remove_dir_all(dir).map_err(Error::io(dir, "remove")) } else { Ok(()) }
}

/// Has the system write a file to disk.
pub(super) fn sync(path: &Path) -> Result<()> {
    // Windows syncs only files that are open for writing.
    let file = File::options().read(true).write(true).open(path).map_err(Error::io(path, "open"))?;
    file.sync_all().map_err(Error::io(path, "write"))
}

/// Has the system write a folder's list of files to disk.
fn sync_folder(dir: &Path) -> Result<()> {
    if cfg!(unix) {
        File::open(dir).and_then(|folder| folder.sync_all()).map_err(Error::io(dir, "write"))?;
    }
    Ok(())
}

pub(super) fn write_json(path: &Path, value: &impl Serialize) -> Result<()> {
    let mut text =
        serde_json::to_string_pretty(value).map_err(|cause| Error::Json { path: path.to_path_buf(), cause })?;
    text.push('\n');
    let mut file = File::create(path).map_err(Error::io(path, "create"))?;
    file.write_all(text.as_bytes()).and_then(|()| file.sync_all()).map_err(Error::io(path, "write"))
}

pub(super) fn read(path: &Path) -> Result<String> {
    fs::read_to_string(path).map_err(Error::io(path, "read"))
}

pub(super) fn read_json<T: DeserializeOwned>(path: &Path) -> Result<T> {
    serde_json::from_str(&read(path)?).map_err(|cause| Error::Json { path: path.to_path_buf(), cause })
}
