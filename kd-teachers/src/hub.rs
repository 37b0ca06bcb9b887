//! A model's files by id and revision: from a folder, from the Hugging Face hub's cache, or from the hub.
//!
//! The cache is the one that the Python libraries keep ([`HubEnvironment`] says where), so what they downloaded is found
//! here and the other way round. Looking there needs no feature of this crate and no network. With the feature `hub`,
//! files that are missing are downloaded unless `HF_HUB_OFFLINE` is set.
//!
//! ```no_run
//! use kd_teachers::hub::{HubEnvironment, ModelFiles};
//! let files = ModelFiles::find("intfloat/e5-small", "main", &HubEnvironment::from_env()?)?;
//! println!("{} at {}", files.id, files.revision);
//! # Ok::<(), kd_teachers::Error>(())
//! ```
//!
//! # What is asked when
//!
//! A revision that the cache knows and whose files it has is used as it is: no server is asked, so a branch stays at the
//! commit that it was when it was fetched, until [`FindOptions::refresh`] asks what it is now. If a file is missing, the hub
//! is asked for the revision and its files are fetched at that one commit; files of two commits are never mixed.
//!
//! # What is checked when
//!
//! The hub names each file by a digest of its contents (SHA-256, or git's SHA-1 of small files), and the cache names its
//! blobs so. A download is compared with it before it gets its name, and every file that is found in the cache is compared
//! with it again each time: that reads the file (a few tenths of a second for 100 MB without SHA instructions), which loading
//! it does anyway. A damaged file is fetched again or, offline, an error. Of a system without symbolic links the digests are
//! not known (the snapshot has copies), and the copies are used as they are.
//!
//! # Where weights may be
//!
//! | weights | |
//! |---|---|
//! | `model.safetensors` | |
//! | `model.safetensors.index.json` and its shards | every tensor must be in the shard that the index names |
//! | `pytorch_model.bin`, or its index and shards | only with [`FindOptions::pickle`] |
//!
//! The tokenizer is `tokenizer.json`, else `vocab.txt`, else `vocab.json` with `merges.txt`; of the latter two
//! `tokenizer_config.json` is a part, if the model has it.

use std::fs::File;
use std::path::{Path, PathBuf};

use sha2::{Digest, Sha256};

use crate::error::{Error, NotFound, Result};

mod cache;
#[cfg(feature = "hub")]
mod client;
mod digest;
#[cfg(feature = "hub")]
mod download;
mod environment;
mod failure;
mod layout;
mod patience;
mod progress;
mod shards;

use cache::Repository;
use layout::{CONFIG, Layout, Missing, Place, TOKENIZER_CONFIG};

pub use environment::{HubEnvironment, Token};
pub use failure::{Damaged, Download, DownloadFailure};
pub use layout::tokenizer_files;
pub use patience::Patience;
pub use progress::{Progress, ShowProgress};

/// What a search for a model may do.
#[derive(Debug, Clone, Copy, Default)]
pub struct FindOptions<'a> {
    /// Whether weights may be pickled (`pytorch_model.bin`) if there are no others. Candle's reader knows only tensors and
    /// runs no code of the file.
    pub pickle: bool,
    /// Whether the hub is asked which commit a branch is now, though the cache knows one.
    pub refresh: bool,
    /// Who sees how far downloads are.
    pub progress: ShowProgress<'a>,
    /// How often a request that failed is sent again.
    pub patience: Patience,
}

/// The files of a model.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ModelFiles {
    /// Its config.json.
    pub config: PathBuf,
    /// Its weights, one file or several shards.
    pub weights: Vec<PathBuf>,
    /// Whether the weights are pickles of PyTorch, which [`FindOptions::pickle`] allowed; else they are safetensors files.
    pub pickle: bool,
    /// Its tokenizer: a `tokenizer.json`, a `vocab.txt`, or a `vocab.json` with `merges.txt` beside it.
    pub tokenizer: PathBuf,
    /// The id it was asked for by: `organisation/name`, or the path of a folder or a file.
    pub id: String,
    /// The commit, 40 hexadecimal digits; of a folder `sha256-` and the digest of its files.
    pub revision: String,
}

impl ModelFiles {
    /// Finds the files of `id` at `revision`: a branch, a tag, a commit, or `refs/pr/1`.
    ///
    /// A folder, or a single file of weights with the rest beside it, works in place of an id; `revision` is not used then.
    ///
    /// # Errors
    /// If a file is missing and cannot be downloaded, or is damaged: the message names id, revision, file and what to do.
    pub fn find(id: &str, revision: &str, environment: &HubEnvironment) -> Result<Self> {
        Self::find_with(id, revision, environment, &FindOptions::default())
    }

    /// [`ModelFiles::find`] with options.
    ///
    /// ```no_run
    /// # use kd_teachers::hub::{FindOptions, HubEnvironment, ModelFiles, Progress, ShowProgress};
    /// let show = |at: Progress<'_>| println!("{}: {} of {} bytes", at.file, at.done, at.total);
    /// let options = FindOptions { refresh: true, progress: ShowProgress::Call(&show), ..Default::default() };
    /// let files = ModelFiles::find_with("intfloat/e5-small", "main", &HubEnvironment::from_env()?, &options)?;
    /// # Ok::<(), kd_teachers::Error>(())
    /// ```
    ///
    /// # Errors
    /// As [`ModelFiles::find`], and if `refresh` is asked for where downloads are forbidden.
    pub fn find_with(
        id: &str,
        revision: &str,
        environment: &HubEnvironment,
        options: &FindOptions<'_>,
    ) -> Result<Self> {
        let path = Path::new(id);
        if path.is_dir() {
            return Self::in_folder_with(path, options);
        }
        if path.is_file() {
            return Self::of_weights(path, None, None, options);
        }
        if !is_id(id) {
            return Err(Error::Argument(format!(
                "model `{id}`: there is no such folder or file, and it is no id of the hub either (`name` or \
                 `organisation/name`)"
            )));
        }
        if !is_revision(revision) {
            return Err(Error::Argument(format!("model `{id}`: `{revision}` is not a branch, a tag or a commit")));
        }
        if options.refresh && (environment.offline || cfg!(not(feature = "hub"))) {
            let why = if environment.offline { "HF_HUB_OFFLINE is set" } else { "the feature `hub` is off" };
            return Err(Error::Argument(format!("model `{id}`: cannot ask the hub for news of `{revision}`: {why}")));
        }
        if !options.refresh {
            let found = Self::in_cache(id, revision, environment, options);
            let incomplete = matches!(found, Err(Error::NotFound(_) | Error::Pickled { .. } | Error::Damaged(_)));
            if !incomplete || environment.offline || cfg!(not(feature = "hub")) {
                return found;
            }
        }
        Self::fetch(id, revision, environment, options)
    }

    #[cfg(feature = "hub")]
    fn fetch(id: &str, revision: &str, environment: &HubEnvironment, options: &FindOptions<'_>) -> Result<Self> {
        let commit = download::model(id, revision, environment, options)?;
        Self::in_cache(id, &commit, environment, options)
    }

    #[cfg(not(feature = "hub"))]
    fn fetch(id: &str, revision: &str, environment: &HubEnvironment, options: &FindOptions<'_>) -> Result<Self> {
        Self::in_cache(id, revision, environment, options)
    }

    /// The files of a model in a folder of its own; its revision is a digest of their contents.
    ///
    /// # Errors
    /// If a file is missing or cannot be read.
    pub fn in_folder(folder: &Path) -> Result<Self> {
        Self::in_folder_with(folder, &FindOptions::default())
    }

    /// [`ModelFiles::in_folder`] with options, of which only `pickle` matters here.
    ///
    /// # Errors
    /// As [`ModelFiles::in_folder`].
    pub fn in_folder_with(folder: &Path, options: &FindOptions<'_>) -> Result<Self> {
        let id = folder.display().to_string();
        let place = Place { id: &id, revision: "", folder, advice: "a model's folder has these files" };
        Self::at(&place, "", options.pickle, &|_| Ok(()))?.with_digest()
    }

    /// The files of a model whose weights are one file, `config` and `tokenizer` beside it unless they are given; its
    /// revision is a digest of the files' contents.
    ///
    /// # Errors
    /// If a file is missing or cannot be read, or if the weights are no `*.safetensors` (nor, where `options` allow pickles,
    /// a `*.bin`, `*.pt` or `*.pth`).
    pub fn of_weights(
        weights: &Path,
        config: Option<&Path>,
        tokenizer: Option<&Path>,
        options: &FindOptions<'_>,
    ) -> Result<Self> {
        let id = weights.display().to_string();
        let folder = weights.parent().unwrap_or(Path::new(""));
        let ending = weights.extension().unwrap_or_default().to_string_lossy();
        let pickle = match (ending.as_ref(), options.pickle) {
            ("safetensors", _) => false,
            ("bin" | "pt" | "pth", true) => true,
            ("bin" | "pt" | "pth", false) => {
                return Err(Error::Pickled { found: format!("{id}: weights are pickled") });
            }
            _ => return Err(Error::Argument(format!("{id}: expected a *.safetensors file"))),
        };
        let place =
            Place { id: &id, revision: "", folder, advice: "it lies beside the weights, or is given explicitly" };
        let given = |path: &Path| match path.is_file() {
            true => Ok(path.to_path_buf()),
            false => Err(place.missing(Missing::file(path.display().to_string()))),
        };
        given(weights)?;
        let has = |name: &str| match name {
            CONFIG if config.is_some() => true,
            layout::SAFETENSORS => true,
            layout::TOKENIZER if tokenizer.is_some() => true,
            _ => folder.join(name).is_file(),
        };
        let layout = Layout::choose(&has, false).map_err(|missing| place.missing(missing))?;
        let or_beside = |path: Option<&Path>, name: &str| path.map_or_else(|| Ok(folder.join(name)), given);
        let files = Self {
            config: or_beside(config, CONFIG)?,
            weights: vec![weights.to_path_buf()],
            pickle,
            tokenizer: or_beside(tokenizer, layout.tokenizer[0])?,
            id: id.clone(),
            revision: String::new(),
        };
        files.with_digest()
    }

    /// The files of a revision in the cache, each compared with its checksum.
    fn in_cache(id: &str, revision: &str, environment: &HubEnvironment, options: &FindOptions<'_>) -> Result<Self> {
        let repository = Repository::new(&environment.cache, id);
        let fetch = format!("fetch it on a machine with network (`hf download {id} --revision {revision}`)");
        let advice = if environment.offline {
            format!("unset HF_HUB_OFFLINE, or {fetch}, or set HF_HOME or HF_HUB_CACHE to a cache that has it")
        } else {
            format!(
                "build kd-teachers with its feature `hub`, or {fetch}, or set HF_HOME or HF_HUB_CACHE to a cache that has it"
            )
        };
        let known = repository.commit(revision).map(|commit| (repository.snapshot(&commit), commit));
        let Some((folder, commit)) = known.filter(|(folder, _)| folder.is_dir()) else {
            return Err(Error::NotFound(Box::new(NotFound {
                id: id.to_string(),
                revision: revision.to_string(),
                file: "snapshot of that revision".to_string(),
                folder: repository.folder().to_path_buf(),
                advice,
            })));
        };
        let place = Place { id, revision, folder: &folder, advice: &advice };
        let undamaged = |path: &Path| -> Result<()> {
            let Some(expected) = cache::checksum(path) else { return Ok(()) };
            let found = expected.mismatch(path).map_err(|source| Error::io(path, &source))?;
            let Some(found) = found else { return Ok(()) };
            Err(Error::Damaged(Box::new(Damaged {
                id: id.to_string(),
                revision: revision.to_string(),
                file: path.file_name().unwrap_or_default().to_string_lossy().into_owned(),
                path: std::fs::canonicalize(path).map_err(|source| Error::io(path, &source))?,
                expected: expected.to_string(),
                found: found.to_string(),
                advice: format!("delete it, then {advice}"),
            })))
        };
        let files = Self::at(&place, &commit, options.pickle, &undamaged)?;
        // Whether the model has the rest of such a tokenizer may not be known yet, and can be asked.
        let unknown = !folder.join(TOKENIZER_CONFIG).is_file() && !repository.is_absent(&commit, TOKENIZER_CONFIG);
        if unknown && !layout::is_complete(&files.tokenizer) && !environment.offline && cfg!(feature = "hub") {
            return Err(place.missing(Missing::file(TOKENIZER_CONFIG)));
        }
        Ok(files)
    }

    /// The files in a folder, each of which `check` has accepted before it is used.
    fn at(place: &Place<'_>, commit: &str, pickle: bool, check: &dyn Fn(&Path) -> Result<()>) -> Result<Self> {
        let has = |name: &str| place.folder.join(name).is_file();
        let layout = Layout::choose(&has, pickle).map_err(|missing| place.missing(missing))?;
        let weights = place.folder.join(layout.weights);
        let mut files = Self {
            config: place.folder.join(CONFIG),
            weights: vec![weights.clone()],
            pickle: layout.pickle,
            tokenizer: place.folder.join(layout.tokenizer[0]),
            id: place.id.to_string(),
            revision: commit.to_string(),
        };
        files.all().iter().try_for_each(|path| check(path))?;
        if layout.sharded {
            let names = shards::names(&weights)?;
            if let Some(shard) = names.iter().find(|name| !has(name)) {
                return Err(place.missing(Missing::shard(shard, &layout)));
            }
            files.weights = names.iter().map(|name| place.folder.join(name)).collect();
            files.weights.iter().try_for_each(|path| check(path))?;
            shards::check(&weights, layout.pickle)?;
        }
        Ok(files)
    }

    /// Every file that says how the model computes.
    fn all(&self) -> Vec<PathBuf> {
        let tokenizer = if layout::is_complete(&self.tokenizer) {
            vec![self.tokenizer.clone()]
        } else {
            tokenizer_files(&self.tokenizer)
        };
        [vec![self.config.clone()], tokenizer, self.weights.clone()].concat()
    }

    /// The same files with a digest of their contents as the revision.
    fn with_digest(self) -> Result<Self> {
        let mut digest = Sha256::new();
        for path in self.all() {
            let mut read = || -> std::io::Result<()> {
                let mut file = File::open(&path)?;
                digest.update(file.metadata()?.len().to_le_bytes());
                digest::read_all(&mut file, &mut |bytes| digest.update(bytes))
            };
            read().map_err(|source| Error::io(&path, &source))?;
        }
        Ok(Self { revision: format!("sha256-{}", digest::hex(&digest.finalize())), ..self })
    }
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

#[cfg(test)]
mod tests;
