//! Files that are either whole or absent.
//!
//! A checkpoint is one safetensors file: named tensors and, in its metadata, one JSON value. It is written
//! beside its place, flushed to the disk and renamed, so a run that is killed leaves the old one or the new one.

use std::collections::{BTreeMap, BTreeSet, HashMap};
use std::fs::{self, File};
use std::io::{Read, Write};
use std::path::{Path, PathBuf};

use candle_core::{Device, Tensor};
use safetensors::SafeTensors;
use serde::Serialize;
use serde::de::DeserializeOwned;
use serde_json::Value;

use crate::error::{Error, Result};

/// Replaces the file at `path` by what `write` writes, or leaves it as it was.
///
/// # Errors
/// If the folder cannot be made, the disk is full, or `write` fails; the half-written file is removed then.
pub fn replace_file(path: &Path, write: impl FnOnce(&mut File) -> std::io::Result<()>) -> Result<()> {
    let folder = match path.parent() {
        Some(folder) if !folder.as_os_str().is_empty() => folder,
        _ => Path::new("."),
    };
    fs::create_dir_all(folder).map_err(Error::io(folder))?;
    let partial = beside(path);
    let written = File::create(&partial).and_then(|mut file| {
        write(&mut file)?;
        file.sync_all()
    });
    if let Err(source) = written {
        // The first error is the one to report; a partial file that stays is overwritten by the next attempt.
        let _ = fs::remove_file(&partial);
        return Err(Error::io(&partial)(source));
    }
    fs::rename(&partial, path).map_err(Error::io(path))?;
    sync_folder(folder)
}

/// [`replace_file`] with bytes at hand.
pub fn replace_file_with(path: &Path, bytes: &[u8]) -> Result<()> {
    replace_file(path, |file| file.write_all(bytes))
}

/// Flushes a folder, so that a rename in it survives a power cut.
pub fn sync_folder(folder: &Path) -> Result<()> {
    File::open(folder).and_then(|folder| folder.sync_all()).map_err(Error::io(folder))
}

fn beside(path: &Path) -> PathBuf {
    let mut name = path.file_name().unwrap_or_default().to_os_string();
    name.push(".partial");
    path.with_file_name(name)
}

/// Writes `tensors` and `state` as one checkpoint.
pub fn save(path: &Path, tensors: &BTreeMap<String, Tensor>, state: &impl Serialize) -> Result<()> {
    let state = serde_json::to_string(state).map_err(|error| wrong(path, error.to_string()))?;
    let metadata = HashMap::from([("state".to_string(), state)]);
    let bytes = safetensors::serialize(tensors, Some(metadata)).map_err(|error| wrong(path, error.to_string()))?;
    replace_file_with(path, &bytes)
}

/// Reads what [`save`] wrote, onto the CPU.
///
/// # Errors
/// If the file is missing, truncated or no checkpoint, or its state is not a `State`.
pub fn load<State: DeserializeOwned>(path: &Path) -> Result<(BTreeMap<String, Tensor>, State)> {
    let bytes = fs::read(path).map_err(Error::io(path))?;
    let (_, header) = SafeTensors::read_metadata(&bytes).map_err(|error| wrong(path, error.to_string()))?;
    let state = state_of(path, header.metadata().as_ref())?;
    let tensors =
        candle_core::safetensors::load_buffer(&bytes, &Device::Cpu).map_err(|error| wrong(path, error.to_string()))?;
    Ok((tensors.into_iter().collect(), state))
}

/// Reads the state that [`save`] wrote and none of the tensors: of gigabytes the first kilobytes.
///
/// # Errors
/// If the file is missing or begins like no checkpoint, or its state is not a `State`.
pub fn load_state<State: DeserializeOwned>(path: &Path) -> Result<State> {
    #[derive(serde::Deserialize)]
    struct Header {
        #[serde(rename = "__metadata__")]
        metadata: Option<HashMap<String, String>>,
    }
    let mut file = File::open(path).map_err(Error::io(path))?;
    let mut len = [0; 8];
    file.read_exact(&mut len).map_err(Error::io(path))?;
    let mut header = Vec::new();
    let len = u64::from_le_bytes(len);
    file.take(len).read_to_end(&mut header).map_err(Error::io(path))?;
    if (header.len() as u64) < len {
        return Err(wrong(path, format!("expected a header of {len} bytes, found {}", header.len())));
    }
    let header: Header = serde_json::from_slice(&header).map_err(|error| wrong(path, format!("header: {error}")))?;
    state_of(path, header.metadata.as_ref())
}

fn state_of<State: DeserializeOwned>(path: &Path, metadata: Option<&HashMap<String, String>>) -> Result<State> {
    let state = metadata
        .and_then(|metadata| metadata.get("state"))
        .ok_or_else(|| wrong(path, "expected a `state` in the metadata, found none".to_string()))?;
    serde_json::from_str(state).map_err(|error| wrong(path, format!("state: {error}")))
}

/// Where two settings differ, as ``` `a.b`: expected 1, found 2 ```, by their JSON.
///
/// ```
/// use serde_json::json;
/// let differences = kd_core::checkpoint::differences(&json!({"a": {"b": 1}, "c": 3}), &json!({"a": {"b": 2}, "c": 3}));
/// assert_eq!(differences, ["`a.b`: expected 1, found 2"]);
/// ```
pub fn differences(expected: &impl Serialize, found: &impl Serialize) -> Vec<String> {
    let value = |result: serde_json::Result<Value>| result.unwrap_or(Value::Null);
    let mut list = Vec::new();
    compare("", &value(serde_json::to_value(expected)), &value(serde_json::to_value(found)), &mut list);
    list
}

fn compare(path: &str, expected: &Value, found: &Value, list: &mut Vec<String>) {
    match (expected, found) {
        (Value::Object(expected), Value::Object(found)) => {
            let keys: BTreeSet<_> = expected.keys().chain(found.keys()).collect();
            for key in keys {
                let path = if path.is_empty() { key.clone() } else { format!("{path}.{key}") };
                let of = |object: &serde_json::Map<String, Value>| object.get(key).cloned().unwrap_or(Value::Null);
                compare(&path, &of(expected), &of(found), list);
            }
        }
        _ if expected != found => list.push(format!("`{path}`: expected {expected}, found {found}")),
        _ => {}
    }
}

fn wrong(path: &Path, message: String) -> Error {
    Error::Checkpoint { path: path.to_path_buf(), message }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_was_saved_comes_back() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("a/b.safetensors");
        let tensors = BTreeMap::from([("x".to_string(), Tensor::new(&[1f32, 2.], &Device::Cpu).unwrap())]);
        save(&path, &tensors, &3).unwrap();
        let (read, state): (_, i32) = load(&path).unwrap();
        assert_eq!(state, 3);
        assert_eq!(read["x"].to_vec1::<f32>().unwrap(), [1., 2.]);
        assert_eq!(load_state::<i32>(&path).unwrap(), 3);
        assert!(!beside(&path).exists());
    }

    #[test]
    fn a_failed_write_leaves_the_old_file() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("x");
        replace_file_with(&path, b"old").unwrap();
        let full = |file: &mut File| {
            file.write_all(b"ne")?;
            Err(std::io::Error::new(std::io::ErrorKind::StorageFull, "no space left on device"))
        };
        let error = replace_file(&path, full).unwrap_err().to_string();
        assert!(error.contains("x.partial: no space left on device"), "{error}");
        assert_eq!(fs::read(&path).unwrap(), b"old");
        assert!(!beside(&path).exists());
    }

    #[test]
    fn a_truncated_checkpoint_is_named() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("x");
        let tensors = BTreeMap::from([("x".to_string(), Tensor::new(&[1f32, 2.], &Device::Cpu).unwrap())]);
        save(&path, &tensors, &()).unwrap();
        let bytes = fs::read(&path).unwrap();
        fs::write(&path, &bytes[..bytes.len() - 1]).unwrap();
        let error = load::<()>(&path).unwrap_err().to_string();
        assert!(error.starts_with(&path.display().to_string()), "{error}");
        // The state stands in front of what is missing.
        load_state::<()>(&path).unwrap();
        fs::write(&path, &bytes[..20]).unwrap();
        let error = load_state::<()>(&path).unwrap_err().to_string();
        assert!(error.contains("expected a header of") && error.ends_with("bytes, found 12"), "{error}");
        fs::write(&path, [2, 0, 0, 0, 0, 0, 0, 0, b'{', b'}']).unwrap();
        let error = load_state::<()>(&path).unwrap_err().to_string();
        assert!(error.ends_with("expected a `state` in the metadata, found none"), "{error}");
    }
}
