//! Weights in several files: `model.safetensors.index.json` says which tensor is in which.
//!
//! ```json
//! {"metadata": {"total_size": 96}, "weight_map": {"embeddings.word_embeddings.weight": "model-00001-of-00002.safetensors"}}
//! ```

use std::collections::{BTreeMap, BTreeSet};
use std::fs::File;
use std::io::Read;
use std::path::Path;

use candle_core::pickle;

use crate::error::{Error, Result};

/// The names of the shards that an index file lists, sorted.
pub(super) fn names(index: &Path) -> Result<Vec<String>> {
    Ok(tensors(index)?.into_keys().collect())
}

/// Checks that every tensor is in the shard that the index file beside them names.
///
/// # Errors
/// If a shard cannot be read, or lacks a tensor.
pub(super) fn check(index: &Path, is_pickle: bool) -> Result<()> {
    for (shard, expected) in tensors(index)? {
        let path = index.with_file_name(&shard);
        let found = if is_pickle { pickled(&path)? } else { stored(&path)? };
        let missing: Vec<&String> = expected.iter().filter(|tensor| !found.contains(*tensor)).collect();
        if let Some(first) = missing.first() {
            let more = if missing.len() == 1 { String::new() } else { format!(" and {} more", missing.len() - 1) };
            let message = format!("expected tensor `{first}`{more}, as {} says, found no such tensor", index.display());
            return Err(Error::Checkpoint { files: path.display().to_string(), message });
        }
    }
    Ok(())
}

/// The tensors of every shard.
fn tensors(index: &Path) -> Result<BTreeMap<String, BTreeSet<String>>> {
    let text = std::fs::read_to_string(index).map_err(|source| Error::io(index, &source))?;
    let value: serde_json::Value =
        serde_json::from_str(&text).map_err(|source| Error::config(index, source.to_string()))?;
    let map = value.get("weight_map").and_then(|map| map.as_object()).ok_or_else(|| {
        Error::config(index, "expected `weight_map`, an object of tensor names and file names, found none")
    })?;
    let is_pickle = index.file_name().is_some_and(|name| name.to_string_lossy().contains(".bin."));
    let ending = if is_pickle { ".bin" } else { ".safetensors" };
    let mut shards: BTreeMap<String, BTreeSet<String>> = BTreeMap::new();
    for (tensor, name) in map {
        match name.as_str() {
            // It becomes part of a path.
            Some(name) if !name.contains(['/', '\\']) && name.ends_with(ending) => {
                shards.entry(name.to_string()).or_default().insert(tensor.clone());
            }
            _ => {
                let message =
                    format!("tensor `{tensor}`: expected the name of a *{ending} file beside this one, found {name}");
                return Err(Error::config(index, message));
            }
        }
    }
    if shards.is_empty() {
        return Err(Error::config(index, "expected the names of tensors in `weight_map`, found none"));
    }
    Ok(shards)
}

/// The names in a safetensors file, of which only the header is read: its length as 8 bytes, then a JSON object.
fn stored(path: &Path) -> Result<BTreeSet<String>> {
    let io = |source: std::io::Error| Error::io(path, &source);
    let mut file = File::open(path).map_err(io)?;
    let mut len = [0; 8];
    file.read_exact(&mut len).map_err(io)?;
    let mut header = Vec::new();
    file.take(u64::from_le_bytes(len)).read_to_end(&mut header).map_err(io)?;
    let object: serde_json::Map<String, serde_json::Value> =
        serde_json::from_slice(&header).map_err(|source| Error::Checkpoint {
            files: path.display().to_string(),
            message: format!("expected a safetensors file, found a header that is no JSON: {source}"),
        })?;
    Ok(object.into_iter().map(|(name, _)| name).filter(|name| name != "__metadata__").collect())
}

fn pickled(path: &Path) -> Result<BTreeSet<String>> {
    let infos = pickle::read_pth_tensor_info(path, false, None).map_err(|source| Error::Checkpoint {
        files: path.display().to_string(),
        message: format!("expected a file of torch.save: {source}"),
    })?;
    Ok(infos.into_iter().map(|info| info.name).collect())
}
