//! A model's files by id and revision: from a folder, from the Hugging Face hub's cache, or from the hub.
//!
//! The cache is the one that the Python libraries keep, so what they downloaded is found here and the other way round:
//!
//! ```text
//! <cache>/models--ORGANISATION--NAME/refs/REVISION            a commit, as text
//! <cache>/models--ORGANISATION--NAME/snapshots/COMMIT/...     the files (links into ../../blobs)
//! ```
//!
//! `<cache>` is `$HF_HUB_CACHE`, else `$HF_HOME/hub`, else `$XDG_CACHE_HOME/huggingface/hub`, else
//! `~/.cache/huggingface/hub`. Looking there needs no feature of this crate and no network. With the feature `hub`,
//! files that are missing are downloaded (with [hf-hub](https://docs.rs/hf-hub) and `ureq`) unless `HF_HUB_OFFLINE`
//! is set.
//!
//! ```no_run
//! use kd_teachers::hub::{HubEnvironment, ModelFiles};
//! let files = ModelFiles::find("intfloat/e5-small", "main", &HubEnvironment::from_env()?)?;
//! println!("{} at {}", files.id, files.revision);
//! # Ok::<(), kd_teachers::Error>(())
//! ```

use std::ffi::OsString;
use std::path::{Path, PathBuf};

use sha2::{Digest, Sha256};

use crate::error::{Error, NotFound, Result};

const CONFIG: &str = "config.json";
const TOKENIZER: &str = "tokenizer.json";
const WEIGHTS: &str = "model.safetensors";
const INDEX: &str = "model.safetensors.index.json";

/// Where models are looked for and whether missing files may be downloaded.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct HubEnvironment {
    /// The hub's cache folder, the one with the `models--*` folders in it.
    pub cache: PathBuf,
    /// Whether downloads are forbidden.
    pub offline: bool,
    /// Another server than `https://huggingface.co`.
    pub endpoint: Option<String>,
}

impl HubEnvironment {
    /// What the process environment says: `HF_HUB_CACHE`, `HF_HOME`, `XDG_CACHE_HOME`, `HOME`, `HF_HUB_OFFLINE`, `HF_ENDPOINT`.
    ///
    /// # Errors
    /// If none of the variables that could name the cache is set.
    pub fn from_env() -> Result<Self> {
        Self::from_variables(|name| std::env::var_os(name))
    }

    /// The same with `get` in place of the process environment; an empty value counts as not set.
    ///
    /// # Errors
    /// If none of the variables that could name the cache is set.
    pub fn from_variables(get: impl Fn(&str) -> Option<OsString>) -> Result<Self> {
        let get = |name: &str| get(name).filter(|value| !value.is_empty());
        let path = |name: &str| get(name).map(PathBuf::from);
        let cache = path("HF_HUB_CACHE")
            .or_else(|| path("HF_HOME").map(|home| home.join("hub")))
            .or_else(|| path("XDG_CACHE_HOME").map(|cache| cache.join("huggingface/hub")))
            .or_else(|| path("HOME").or_else(|| path("USERPROFILE")).map(|home| home.join(".cache/huggingface/hub")))
            .ok_or_else(|| {
                Error::Argument("cannot find the hub's cache: none of HF_HUB_CACHE, HF_HOME and HOME is set".into())
            })?;
        // The values that the Python library takes for true.
        let offline = get("HF_HUB_OFFLINE").is_some_and(|value| {
            matches!(value.to_string_lossy().to_uppercase().as_str(), "1" | "ON" | "YES" | "TRUE")
        });
        let endpoint = get("HF_ENDPOINT").map(|value| value.to_string_lossy().trim_end_matches('/').to_string());
        Ok(Self { cache, offline, endpoint })
    }

    fn repository(&self, id: &str) -> PathBuf {
        self.cache.join(format!("models--{}", id.replace('/', "--")))
    }

    /// The snapshot folder of a revision, if the cache knows it.
    fn snapshot(&self, id: &str, revision: &str) -> Option<(PathBuf, String)> {
        let repository = self.repository(id);
        let commit = if is_commit(revision) {
            revision.to_string()
        } else {
            std::fs::read_to_string(repository.join("refs").join(revision)).ok()?.trim().to_string()
        };
        let folder = repository.join("snapshots").join(&commit);
        folder.is_dir().then_some((folder, commit))
    }
}

/// The files of a model.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ModelFiles {
    /// Its config.json.
    pub config: PathBuf,
    /// Its safetensors files, one or several shards.
    pub weights: Vec<PathBuf>,
    /// Its tokenizer.json.
    pub tokenizer: PathBuf,
    /// The id it was asked for by: `organisation/name`, or the path of a folder.
    pub id: String,
    /// The commit, 40 hexadecimal digits; of a folder `sha256-` and the digest of its files.
    pub revision: String,
}

impl ModelFiles {
    /// Finds the files of `id` at `revision` (a branch, a tag or a commit).
    ///
    /// A folder that exists works in place of an id; `revision` is not used then.
    ///
    /// # Errors
    /// If a file is missing and cannot be downloaded: the message names id, revision, folder and what to do.
    pub fn find(id: &str, revision: &str, environment: &HubEnvironment) -> Result<Self> {
        if Path::new(id).is_dir() {
            return Self::in_folder(Path::new(id));
        }
        if !is_id(id) {
            return Err(Error::Argument(format!(
                "model `{id}`: there is no such folder, and it is no id of the hub either (`name` or `organisation/name`)"
            )));
        }
        if !is_revision(revision) {
            return Err(Error::Argument(format!("model `{id}`: `{revision}` is not a branch, a tag or a commit")));
        }
        let missing = match Self::in_cache(id, revision, environment) {
            Err(missing @ Error::NotFound(_)) => missing,
            done => return done,
        };
        if environment.offline {
            return Err(missing);
        }
        #[cfg(feature = "hub")]
        {
            download::model(id, revision, environment)?;
            Self::in_cache(id, revision, environment)
        }
        #[cfg(not(feature = "hub"))]
        Err(missing)
    }

    /// The files of a model in a folder of its own; its revision is a digest of their contents.
    ///
    /// # Errors
    /// If a file is missing or cannot be read.
    pub fn in_folder(folder: &Path) -> Result<Self> {
        let id = folder.display().to_string();
        let mut files = Self::of(folder, &id, "", "a model's folder has these files")?;
        let mut digest = Sha256::new();
        for path in [&files.config, &files.tokenizer].into_iter().chain(&files.weights) {
            let bytes = std::fs::read(path).map_err(|source| Error::io(path, &source))?;
            digest.update((bytes.len() as u64).to_le_bytes());
            digest.update(bytes);
        }
        files.revision = digest.finalize().iter().fold("sha256-".to_string(), |hex, byte| format!("{hex}{byte:02x}"));
        Ok(files)
    }

    fn in_cache(id: &str, revision: &str, environment: &HubEnvironment) -> Result<Self> {
        let fetch = format!("fetch it on a machine with network (`hf download {id} --revision {revision}`)");
        let advice = if environment.offline {
            format!("unset HF_HUB_OFFLINE, or {fetch}, or set HF_HOME or HF_HUB_CACHE to a cache that has it")
        } else {
            format!(
                "build kd-teachers with its feature `hub`, or {fetch}, or set HF_HOME or HF_HUB_CACHE to a cache that has it"
            )
        };
        match environment.snapshot(id, revision) {
            Some((folder, commit)) => {
                let files = Self::of(&folder, id, revision, &advice)?;
                Ok(Self { revision: commit, ..files })
            }
            None => Err(Error::NotFound(Box::new(NotFound {
                id: id.to_string(),
                revision: revision.to_string(),
                file: "snapshot of that revision".to_string(),
                folder: environment.repository(id),
                advice,
            }))),
        }
    }

    fn of(folder: &Path, id: &str, revision: &str, advice: &str) -> Result<Self> {
        let file = |name: &str| {
            let path = folder.join(name);
            if path.is_file() {
                return Ok(path);
            }
            let other = ["pytorch_model.bin", "tf_model.h5"].iter().find(|other| folder.join(other).is_file());
            let advice = match other {
                Some(other) if name == WEIGHTS => format!("there is a {other}, convert it to safetensors"),
                _ => advice.to_string(),
            };
            Err(Error::NotFound(Box::new(NotFound {
                id: id.to_string(),
                revision: revision.to_string(),
                file: name.to_string(),
                folder: folder.to_path_buf(),
                advice,
            })))
        };
        let config = file(CONFIG)?;
        let weights = if folder.join(WEIGHTS).is_file() || !folder.join(INDEX).is_file() {
            vec![file(WEIGHTS)?]
        } else {
            shards(&folder.join(INDEX))?.iter().map(|name| file(name)).collect::<Result<_>>()?
        };
        Ok(Self { config, weights, tokenizer: file(TOKENIZER)?, id: id.to_string(), revision: revision.to_string() })
    }
}

/// The names of the shards that an index file lists, sorted.
fn shards(index: &Path) -> Result<Vec<String>> {
    let text = std::fs::read_to_string(index).map_err(|source| Error::io(index, &source))?;
    let value: serde_json::Value =
        serde_json::from_str(&text).map_err(|source| Error::config(index, source.to_string()))?;
    let map = value.get("weight_map").and_then(|map| map.as_object()).ok_or_else(|| {
        Error::config(index, "expected `weight_map`, an object of tensor names and file names, found none")
    })?;
    let mut names = Vec::new();
    for (tensor, name) in map {
        match name.as_str() {
            Some(name) if !name.contains(['/', '\\']) && name.ends_with(".safetensors") => names.push(name.to_string()),
            _ => {
                return Err(Error::config(
                    index,
                    format!("tensor `{tensor}`: expected the name of a safetensors file beside this one, found {name}"),
                ));
            }
        }
    }
    names.sort();
    names.dedup();
    Ok(names)
}

fn is_commit(revision: &str) -> bool {
    revision.len() == 40 && revision.bytes().all(|byte| byte.is_ascii_hexdigit())
}

/// Whether a text can be the hub's id of a model; what it says becomes part of a path.
fn is_id(id: &str) -> bool {
    let part = |part: &str| {
        !part.is_empty()
            && !part.starts_with('.')
            && part.bytes().all(|byte| byte.is_ascii_alphanumeric() || b"-_.".contains(&byte))
    };
    id.split('/').count() <= 2 && id.split('/').all(part)
}

/// Whether a text can be a revision (`refs/pr/1` is one); what it says becomes part of a path.
fn is_revision(revision: &str) -> bool {
    revision.split('/').all(|part| !part.is_empty() && part != "." && part != ".." && !part.contains('\\'))
}

#[cfg(feature = "hub")]
mod download {
    use std::io::IsTerminal;

    use hf_hub::api::sync::{ApiBuilder, ApiRepo};
    use hf_hub::{Cache, Repo, RepoType};

    use super::{CONFIG, HubEnvironment, INDEX, TOKENIZER, WEIGHTS, shards};
    use crate::error::{Error, Result};

    /// Downloads what is missing into the cache.
    pub(super) fn model(id: &str, revision: &str, environment: &HubEnvironment) -> Result<()> {
        let failed = |file: &str, message: String| Error::Download {
            id: id.to_string(),
            revision: revision.to_string(),
            file: file.to_string(),
            message,
        };
        let mut builder = ApiBuilder::from_cache(Cache::new(environment.cache.clone()))
            .with_progress(std::io::stderr().is_terminal());
        if let Some(endpoint) = &environment.endpoint {
            builder = builder.with_endpoint(endpoint.clone());
        }
        let api = builder.build().map_err(|source| failed("anything", source.to_string()))?;
        let repository: ApiRepo = api.repo(Repo::with_revision(id.to_string(), RepoType::Model, revision.to_string()));
        let get = |file: &str| repository.get(file).map_err(|source| failed(file, source.to_string()));
        get(CONFIG)?;
        get(TOKENIZER)?;
        let Err(single) = get(WEIGHTS) else { return Ok(()) };
        // No single file: there may be shards. If there is no index either, the first error says more.
        let Ok(index) = get(INDEX) else { return Err(single) };
        for shard in shards(&index)? {
            get(&shard)?;
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests;
