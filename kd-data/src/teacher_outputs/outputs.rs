//! All that is stored of one teacher.

use std::collections::hash_map::RandomState;
use std::collections::{HashMap, HashSet};
use std::ffi::OsStr;
use std::fs::{File, OpenOptions, TryLockError};
use std::hash::{BuildHasher, Hasher};
use std::io::Write;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::{Duration, Instant, SystemTime};

use candle_core::Tensor;
use kd_core::batch::Tokens;
use kd_core::model::Output;

use super::about::About;
use super::batch::Batch;
use super::block::{Entry, block};
use super::content::{ByFirstBits, Content, ExampleDigest};
use super::rows::{Place, TeacherRows};
use super::shard::{Damage, Shard, head};
use crate::error::{Error, Result, count};

/// Extension of shards.
pub(super) const EXTENSION: &str = "shard";
/// Most time between flushes to the disk: what a power cut (not a killed process) may cost.
const FLUSH_EVERY: Duration = Duration::from_secs(5);

/// What is stored of one teacher: a folder of shards, and an index of the examples in them.
///
/// Opening maps the shards and reads the heads of their blocks, not the numbers; those stay on disk until they are
/// joined. Several processes may append at once, each to a shard of its own; what others appended is seen after
/// [`TeacherOutputs::refresh`].
#[derive(Debug)]
pub struct TeacherOutputs {
    about: Arc<About>,
    home: Home,
    shards: Vec<Arc<Shard>>,
    index: HashMap<ExampleDigest, Place, ByFirstBits>,
    /// Blocks whose numbers are damaged, found by [`TeacherOutputs::verify`].
    damaged: Vec<Damage>,
    own: Option<Own>,
}

/// Where outputs are.
#[derive(Debug)]
enum Home {
    Memory,
    /// Of shards.
    Folder(PathBuf),
    /// One shard.
    File(PathBuf),
}

/// The shard this process appends to.
#[derive(Debug)]
struct Own {
    file: File,
    shard: usize,
    flushed: Instant,
}

impl TeacherOutputs {
    /// An empty store that is gone when it is dropped.
    ///
    /// # Errors
    /// As [`About::check`].
    pub fn in_memory(about: About) -> Result<Self> {
        about.check()?;
        let shards = vec![Arc::new(Shard::in_memory(&about)?)];
        Ok(Self { shards, ..Self::empty(about, Home::Memory) })
    }

    /// The shards in `folder`.
    pub(super) fn open(about: About, folder: &Path) -> Result<Self> {
        let mut outputs = Self::empty(about, Home::Folder(folder.to_path_buf()));
        outputs.refresh()?;
        Ok(outputs)
    }

    /// One shard by itself, as [`TeacherOutputs::export`] makes it; not to be appended to.
    ///
    /// # Errors
    /// If the file cannot be read, is no shard, or is damaged or cut off.
    pub fn open_file(path: impl AsRef<Path>) -> Result<Self> {
        let path = path.as_ref();
        let about = super::export::about(path)?;
        let shard = Shard::open(path, &about)?;
        let length = std::fs::metadata(path).map_err(Error::io(path))?.len();
        if shard.end() != length {
            let found = match shard.damage() {
                Some(damage) => format!("at byte {}: {}", damage.offset, damage.found),
                None => format!("an unfinished block at byte {}", shard.end()),
            };
            return Err(Error::file(path, format!("{length} bytes of whole blocks"), found));
        }
        let mut outputs = Self::empty(about, Home::File(path.to_path_buf()));
        outputs.shards.push(Arc::new(shard));
        outputs.index_blocks(0, 0);
        Ok(outputs)
    }

    fn empty(about: About, home: Home) -> Self {
        let about = Arc::new(about);
        Self { about, home, shards: vec![], index: HashMap::default(), damaged: vec![], own: None }
    }

    /// Whose outputs they are.
    pub fn about(&self) -> &About {
        &self.about
    }

    /// Names of the columns.
    pub fn classes(&self) -> &[String] {
        &self.about.classes
    }

    /// Number of examples.
    pub fn len(&self) -> usize {
        self.index.len()
    }

    /// Whether there are none.
    pub fn is_empty(&self) -> bool {
        self.index.is_empty()
    }

    /// Whether the outputs for this example are there.
    pub fn contains<'a>(&self, example: impl Into<Content<'a>>) -> bool {
        self.index.contains_key(&example.into().digest())
    }

    /// Reads what other processes appended since, and shards that were copied into the folder.
    ///
    /// # Errors
    /// If a file cannot be read, or is a shard of another teacher.
    pub fn refresh(&mut self) -> Result<()> {
        let Home::Folder(folder) = &self.home else { return Ok(()) };
        let mut paths = Vec::new();
        for entry in std::fs::read_dir(folder).map_err(Error::io(folder))? {
            let path = entry.map_err(Error::io(folder))?.path();
            if path.extension() == Some(OsStr::new(EXTENSION)) {
                paths.push(path);
            }
        }
        paths.sort(); // of an example that was stored twice always the same is read
        let known: HashMap<PathBuf, usize> =
            self.shards.iter().enumerate().map(|(idx, shard)| (shard.path.clone(), idx)).collect();
        for path in paths {
            let (idx, first) = match known.get(&path) {
                Some(&idx) => {
                    let first = self.shards[idx].blocks();
                    Arc::make_mut(&mut self.shards[idx]).refresh(&self.about)?;
                    (idx, first)
                }
                None => {
                    self.shards.push(Arc::new(Shard::open(&path, &self.about)?));
                    (self.shards.len() - 1, 0)
                }
            };
            self.index_blocks(idx, first);
        }
        Ok(())
    }

    /// Adds the outputs of a batch: `per_example[i]` rows of `logits`, `(rows, classes)`, are those of `examples[i]`.
    ///
    /// An example that is there already stays as it is. The batch is one block on the disk: after a kill it is there
    /// whole or not at all.
    ///
    /// # Errors
    /// If the shapes do not fit, a logit is not finite (the message names the example), hidden states or attentions are
    /// to be stored as well, or the disk is full. Nothing is added then and nothing lost that was there.
    pub fn append(&mut self, examples: &[Content<'_>], per_example: &[usize], logits: &Tensor) -> Result<()> {
        if self.about.stored.has_tokens() {
            let expected = "logits alone to be stored, or `append_output`";
            return Err(Error::argument("teacher outputs", expected, "hidden states or attentions to be stored"));
        }
        let output = Output::from_logits(logits.clone());
        self.add(examples, per_example, &vec![0; examples.len()], &output)
    }

    /// As [`TeacherOutputs::append`], with hidden states and attentions if they are to be stored; `output` is what the
    /// teacher said of `tokens`.
    ///
    /// # Errors
    /// As [`TeacherOutputs::append`], and if `output` lacks a layer, or an example was encoded in several sequences and
    /// its hidden states are to be stored.
    pub fn append_output(&mut self, examples: &[Content<'_>], tokens: &Tokens, output: &Output) -> Result<()> {
        let lengths = if self.about.stored.has_tokens() {
            let lengths = tokens.first.lengths()?;
            if lengths.len() != examples.len() {
                let found = format!("{} for {}", count(lengths.len(), "sequence"), count(examples.len(), "example"));
                return Err(Error::argument("teacher's hidden states", "one sequence an example", found));
            }
            lengths
        } else {
            vec![0; examples.len()]
        };
        self.add(examples, &tokens.rows_per_example()?, &lengths, output)
    }

    fn add(
        &mut self,
        examples: &[Content<'_>],
        per_example: &[usize],
        lengths: &[usize],
        output: &Output,
    ) -> Result<()> {
        let digests: Vec<ExampleDigest> = examples.iter().map(Content::digest).collect();
        let mut seen = HashSet::new();
        let wanted = digests.iter().map(|digest| !self.index.contains_key(digest) && seen.insert(*digest)).collect();
        let batch = Batch { examples, digests, wanted, per_example, lengths, output };
        let (entries, payload) = batch.encode(&self.about)?;
        if entries.is_empty() { Ok(()) } else { self.write(&entries, &payload) }
    }

    /// Writes a block and reads its head back.
    pub(super) fn write(&mut self, entries: &[Entry], payload: &[u8]) -> Result<()> {
        let block = block(entries, payload);
        let shard = match &self.home {
            Home::Memory => 0,
            Home::File(path) => {
                return Err(Error::file(path, "a folder, which outputs can be added to", "one file"));
            }
            Home::Folder(folder) => {
                let mut own = match self.own.take() {
                    Some(own) => own,
                    None => {
                        let (path, file) = create(folder, &self.about, self.newest())?;
                        self.shards.push(Arc::new(Shard::open(&path, &self.about)?));
                        Own { file, shard: self.shards.len() - 1, flushed: Instant::now() }
                    }
                };
                let path = &self.shards[own.shard].path;
                // After an error the file may end in a part of a block: `own` is not put back, and the next batch begins
                // another file.
                own.file.write_all(&block).map_err(Error::io(path))?;
                if own.flushed.elapsed() >= FLUSH_EVERY {
                    own.file.sync_data().map_err(Error::io(path))?;
                    own.flushed = Instant::now();
                }
                self.own.insert(own).shard
            }
        };
        let first = self.shards[shard].blocks();
        let target = Arc::make_mut(&mut self.shards[shard]);
        match self.home {
            Home::Memory => target.push(&block, &self.about)?,
            _ => target.refresh(&self.about)?,
        }
        self.index_blocks(shard, first);
        Ok(())
    }

    /// Flushes what was appended to the disk, so that a power cut does not lose it; appending does so every few seconds.
    ///
    /// # Errors
    /// If the disk fails.
    pub fn flush(&mut self) -> Result<()> {
        if let Some(own) = &mut self.own {
            own.file.sync_data().map_err(Error::io(&self.shards[own.shard].path))?;
            own.flushed = Instant::now();
        }
        Ok(())
    }

    /// Compares everything with its checksums, which otherwise happens block by block when it is first read.
    ///
    /// Examples in damaged blocks are then no longer there ([`TeacherOutputs::contains`]), unless they are stored in
    /// another block too, and can be appended anew.
    ///
    /// Returns the damaged blocks.
    pub fn verify(&mut self) -> &[Damage] {
        self.damaged.clear();
        self.index.clear();
        for idx in 0..self.shards.len() {
            let shard = self.shards[idx].clone();
            for block in 0..shard.blocks() {
                match shard.check(block) {
                    Ok(_) => self.index_block(idx, block),
                    Err(damage) => self.damaged.push(damage),
                }
            }
        }
        &self.damaged
    }

    /// Shards that could not be read to their end because bytes in them changed; a shard that ends in a part of a
    /// block, as a killed process leaves it, is not damaged.
    pub fn damage(&self) -> impl Iterator<Item = &Damage> {
        self.shards.iter().filter_map(|shard| shard.damage()).chain(&self.damaged)
    }

    /// The outputs of these examples, whose ids are their positions from here on.
    ///
    /// # Errors
    /// If one is not there; the message names the first by its position and the start of its text.
    pub fn join<'a>(&self, examples: impl IntoIterator<Item: Into<Content<'a>>>) -> Result<TeacherRows> {
        let (mut places, mut missing, mut first) = (Vec::new(), 0, None);
        for (example, content) in examples.into_iter().enumerate() {
            let content = content.into();
            match self.index.get(&content.digest()) {
                Some(&place) => places.push(place),
                None => {
                    missing += 1;
                    first = first.or_else(|| Some((example, content.start())));
                }
            }
        }
        let Some((example, start)) = first else {
            return Ok(TeacherRows::new(self.about.clone(), self.shards.clone(), places));
        };
        let expected = format!("them in {}, by {}", self.place(), self.about.model);
        let damage: Vec<String> = self.damage().map(|damage| format!("; damaged: {damage}")).collect();
        let wanted = places.len() + missing;
        let found =
            format!("{}, and not those of {missing} of {wanted}{}", count(self.len(), "other"), damage.concat());
        Err(Error::argument(format!("teacher outputs of example {example} `{start}`"), expected, found))
    }

    /// The latest time in the names of the shards that were read.
    fn newest(&self) -> u64 {
        let time = |path: &Path| u64::from_str_radix(path.file_name()?.to_str()?.split_once('-')?.0, 16).ok();
        self.shards.iter().filter_map(|shard| time(&shard.path)).max().unwrap_or(0)
    }

    fn place(&self) -> String {
        match &self.home {
            Home::Memory => "memory".to_string(),
            Home::Folder(path) | Home::File(path) => path.display().to_string(),
        }
    }

    /// Enters the blocks of a shard from `first` on.
    fn index_blocks(&mut self, shard: usize, first: usize) {
        let last = self.shards[shard].blocks();
        let examples = (first..last).map(|block| self.shards[shard].examples(block)).sum();
        self.index.reserve(examples);
        (first..last).for_each(|block| self.index_block(shard, block));
    }

    fn index_block(&mut self, shard: usize, block: usize) {
        for (slot, entry) in self.shards[shard].entries(block).enumerate() {
            let place = Place { shard: shard as u32, block: block as u32, slot: slot as u32 };
            self.index.insert(entry.digest, place); // the last counts: what was damaged may have been stored anew
        }
    }
}

impl Drop for Own {
    fn drop(&mut self) {
        // Whoever wants to know whether the disk took it calls `flush`.
        let _ = self.file.sync_data();
    }
}

/// A new shard with its head, locked for as long as it is open.
///
/// Names begin with the time in nanoseconds, or what follows `newest` where a clock is behind, so that a shard sorts after
/// those its writer knew, and go on with random digits: shards of many machines meet in one folder. The lock tells
/// whoever tidies the folder that the shard is still written.
fn create(folder: &Path, about: &About, newest: u64) -> Result<(PathBuf, File)> {
    let now = SystemTime::UNIX_EPOCH.elapsed().unwrap_or_default().as_nanos() as u64;
    let time = now.max(newest.saturating_add(1));
    let path = folder.join(format!("{time:016x}-{:016x}.{EXTENSION}", random()));
    let head = head(about)?;
    let open = || {
        let mut file = OpenOptions::new().append(true).create_new(true).open(&path)?;
        match file.try_lock() {
            Err(TryLockError::Error(error)) if error.kind() != std::io::ErrorKind::Unsupported => return Err(error),
            _ => {} // some network file systems have no locks
        }
        file.write_all(&head)?;
        Ok(file)
    };
    let file = open().map_err(Error::io(&path))?;
    kd_core::checkpoint::sync_folder(folder)?;
    Ok((path, file))
}

/// A number that no other process has. Names of files are made of it, and nothing else.
pub(super) fn random() -> u64 {
    RandomState::new().build_hasher().finish() // the standard library seeds it from the system
}

#[cfg(test)]
impl TeacherOutputs {
    /// Sends what is appended next elsewhere.
    pub(super) fn break_file(&mut self, file: File) {
        if let Some(own) = &mut self.own {
            own.file = file;
        }
    }
}
