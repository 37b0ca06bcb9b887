//! From the hub into the cache.
//!
//! A file is written to `blobs/CHECKSUM.incomplete` while the blob's lock is held. When its last byte has come, its size and
//! checksum are compared with what the hub announced, it is flushed and renamed; only then a snapshot links to it. What a
//! killed process leaves there is hashed and continued by the next one (HTTP `Range`), as is a part-file of those versions of
//! the Python library that continue theirs. The branch's entry in `refs` is written last, so that it never names half a model.

use std::fs::File;
use std::io::{Read, Seek, SeekFrom, Write};
use std::path::{Path, PathBuf};

use kd_core::checkpoint::sync_folder;

use super::FindOptions;
use super::cache::{self, Repository};
use super::client::Client;
use super::digest::{CHUNK, Checksum, Hasher, read_all};
use super::environment::HubEnvironment;
use super::failure::{Download, DownloadFailure};
use super::layout::{COMPANIONS, CONFIG, Layout, Missing, Place, TOKENIZER_CONFIG, is_complete};
use super::patience::Trouble;
use super::progress::Shown;
use super::shards;
use crate::error::{Error, Result};

/// Asks the hub which commit `revision` is now, and fetches those of its files that the cache lacks; returns the commit.
pub(super) fn model(
    id: &str,
    revision: &str,
    environment: &HubEnvironment,
    options: &FindOptions<'_>,
) -> Result<String> {
    let client = Client::new(environment, options.patience);
    let repository = Repository::new(&environment.cache, id);
    let failed = |file: &str, failure: DownloadFailure| {
        let (id, revision, file) = (id.to_string(), revision.to_string(), file.to_string());
        Error::Download(Box::new(Download { id, revision, file, failure }))
    };
    const LIST: &str = "its list of files";
    let (commit, names) = client.files(id, revision).map_err(|failure| failed(LIST, failure))?;
    let has = |name: &str| names.iter().any(|other| other == name);
    let at = PathBuf::from(format!("{}/{id}/tree/{commit}", client.endpoint));
    let place = Place { id, revision, folder: &at, advice: "another model or revision may have it" };
    let layout = Layout::choose(&has, options.pickle).map_err(|missing| place.missing(missing))?;
    let fetch = |file: &str| {
        let fetched = Fetch { client: &client, repository: &repository, options }.file(id, &commit, file);
        fetched.map_err(|failure| failed(file, failure))
    };

    let companions = COMPANIONS.into_iter().filter(|file| has(file));
    for file in [CONFIG].into_iter().chain(layout.tokenizer.iter().copied()).chain(companions) {
        fetch(file)?;
    }
    let weights = fetch(layout.weights)?;
    if layout.sharded {
        let shards = shards::names(&weights)?;
        if let Some(shard) = shards.iter().find(|shard| !has(shard)) {
            return Err(place.missing(Missing::shard(shard, &layout)));
        }
        shards.iter().try_for_each(|shard| fetch(shard).map(drop))?;
    }
    if !is_complete(Path::new(layout.tokenizer[0])) && !has(TOKENIZER_CONFIG) {
        let noted = repository.note_absent(&commit, TOKENIZER_CONFIG);
        noted.map_err(|failure| failed(TOKENIZER_CONFIG, failure))?;
    }
    if revision != commit {
        repository.note(revision, &commit).map_err(|failure| failed(LIST, failure))?;
    }
    Ok(commit)
}

struct Fetch<'a> {
    client: &'a Client,
    repository: &'a Repository,
    options: &'a FindOptions<'a>,
}

impl Fetch<'_> {
    /// A file of a commit, from the cache if it is there and undamaged; returns its path.
    fn file(&self, id: &str, commit: &str, file: &str) -> Result<PathBuf, DownloadFailure> {
        let path = self.repository.snapshot(commit).join(file);
        if path.is_file() && is_undamaged(&path, cache::checksum(&path))? {
            return Ok(path);
        }
        let url = self.client.url(id, commit, file);
        let (checksum, size) = self.client.describe(&url)?;
        let blob = self.repository.blob(&checksum);
        self.repository.make_blobs()?;
        let lock = self.repository.lock(&checksum)?;
        if !blob.is_file() || !is_undamaged(&blob, Some(checksum.clone()))? {
            self.blob(&url, file, &checksum, size, &self.repository.part(&checksum, &lock))?;
        }
        self.repository.place(commit, file, &checksum, cache::symlink)?;
        Ok(path)
    }

    fn blob(&self, url: &str, file: &str, checksum: &Checksum, size: u64, path: &Path) -> Result<(), DownloadFailure> {
        let mut part = Part::open(path, checksum, size)?;
        let shown = Shown::new(self.options.progress, file, size);
        shown.at(part.done);
        let mut inherited = part.done > 0;
        let found = loop {
            if part.done < size {
                self.client.patience.run(|attempt| part.fetch(self.client, url, attempt, &shown))?;
            }
            let found = part.found();
            if found == *checksum || !inherited {
                break found;
            }
            // The bytes of an earlier attempt were wrong: blocks that never reached the disk, say.
            inherited = false;
            part.restart()?;
        };
        if found != *checksum {
            cache::remove(path)?;
            return Err(DownloadFailure::Checksum { expected: checksum.to_string(), found: found.to_string() });
        }
        part.file.sync_all().map_err(|source| disk(path, &source))?;
        let blob = self.repository.blob(checksum);
        std::fs::rename(path, &blob).map_err(|source| disk(&blob, &source))?;
        let folder = blob.parent().unwrap_or(Path::new("."));
        sync_folder(folder)
            .map_err(|source| DownloadFailure::Disk { path: folder.to_path_buf(), message: source.to_string() })
    }
}

fn is_undamaged(path: &Path, checksum: Option<Checksum>) -> Result<bool, DownloadFailure> {
    let Some(checksum) = checksum else { return Ok(true) };
    checksum.mismatch(path).map(|found| found.is_none()).map_err(|source| disk(path, &source))
}

/// The first bytes of a blob.
struct Part<'a> {
    path: &'a Path,
    file: File,
    checksum: &'a Checksum,
    size: u64,
    hasher: Hasher,
    done: u64,
    /// The most that ever was there: an attempt that does not come further made no progress.
    most: u64,
}

impl<'a> Part<'a> {
    /// The part that an earlier attempt left, or an empty one.
    fn open(path: &'a Path, checksum: &'a Checksum, size: u64) -> Result<Self, DownloadFailure> {
        let open = File::options().create(true).truncate(false).read(true).write(true).open(path);
        let file = open.map_err(|source| disk(path, &source))?;
        let mut part = Self { path, file, checksum, size, hasher: checksum.hasher(size), done: 0, most: 0 };
        let len = part.file.metadata().map_err(|source| disk(path, &source))?.len();
        if len > size {
            part.restart()?;
        } else {
            let (file, hasher) = (&part.file, &mut part.hasher);
            let read = read_all(&mut file.take(len), &mut |bytes| hasher.update(bytes));
            read.map_err(|source| disk(path, &source))?;
            (part.done, part.most) = (len, len);
        }
        Ok(part)
    }

    fn restart(&mut self) -> Result<(), DownloadFailure> {
        let emptied = self.file.set_len(0).and_then(|()| self.file.seek(SeekFrom::Start(0)));
        emptied.map_err(|source| disk(self.path, &source))?;
        (self.done, self.hasher) = (0, self.checksum.hasher(self.size));
        Ok(())
    }

    fn found(&mut self) -> Checksum {
        std::mem::replace(&mut self.hasher, self.checksum.hasher(self.size)).finish()
    }

    /// Asks for what is missing and appends it.
    fn fetch(&mut self, client: &Client, url: &str, attempt: u32, shown: &Shown<'_>) -> Result<(), Trouble> {
        let mut response = client.get(url, self.done, attempt)?;
        let from = match response.status().as_u16() {
            206 => response.headers().get("content-range").and_then(|range| first_byte(range.to_str().ok()?)),
            416 => None,
            // The server does not know ranges and sends everything.
            _ => Some(0),
        };
        if from != Some(self.done) {
            self.restart()?;
        }
        if from != Some(self.done) {
            let message = "expected the bytes that were asked for, found a range of others".to_string();
            return Err(Trouble::passing(DownloadFailure::NotAHub { url: url.to_string(), message }));
        }
        let mut body = response.body_mut().as_reader();
        let mut buffer = vec![0; CHUNK];
        loop {
            let ended = |message: String, part: &mut Self| {
                let (received, expected, attempts) = (part.done, part.size, attempt);
                let failure = DownloadFailure::Truncated { received, expected, attempts, message };
                let progress = part.done > part.most;
                part.most = part.most.max(part.done);
                Err(Trouble { progress, ..Trouble::passing(failure) })
            };
            match body.read(&mut buffer) {
                Ok(0) if self.done == self.size => return Ok(()),
                Ok(0) => return ended("end of file".into(), self),
                Ok(read) if self.done + read as u64 > self.size => {
                    cache::remove(self.path)?;
                    let expected = format!("{} bytes", self.size);
                    return Err(DownloadFailure::Checksum { expected, found: "more".into() }.into());
                }
                Ok(read) => {
                    self.file.write_all(&buffer[..read]).map_err(|source| disk(self.path, &source))?;
                    self.hasher.update(&buffer[..read]);
                    self.done += read as u64;
                    shown.at(self.done);
                }
                Err(source) if source.kind() == std::io::ErrorKind::Interrupted => {}
                Err(source) => return ended(source.to_string(), self),
            }
        }
    }
}

/// The first position in `bytes FIRST-LAST/SIZE`.
fn first_byte(range: &str) -> Option<u64> {
    range.strip_prefix("bytes ")?.split('-').next()?.parse().ok()
}

fn disk(path: &Path, source: &std::io::Error) -> DownloadFailure {
    DownloadFailure::Disk { path: path.to_path_buf(), message: source.to_string() }
}
