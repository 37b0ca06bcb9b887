//! A shard: one file of blocks, mapped into memory, or the same bytes in memory.

use std::fs::File;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};

use memmap2::Mmap;

use super::about::About;
use super::block::{self, BlockPlace, Entry, Found};
use super::payload::Layout;
use crate::error::{Error, Result};

/// Where a shard's bytes are.
#[derive(Debug, Clone)]
enum Bytes {
    Mapped(Arc<Mmap>),
    Memory(Vec<u8>),
}

/// A part of a shard that is not what was written.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Damage {
    /// The shard.
    pub path: PathBuf,
    /// First byte of the damaged block; nothing from here on is read.
    pub offset: u64,
    /// What is wrong.
    pub found: String,
}

impl std::fmt::Display for Damage {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "{} at byte {}: {}", self.path.display(), self.offset, self.found)
    }
}

/// A block and whether its payload was checked.
#[derive(Debug)]
struct Block {
    place: BlockPlace,
    checked: AtomicBool,
}

impl Clone for Block {
    fn clone(&self) -> Self {
        Self { place: self.place, checked: AtomicBool::new(self.checked.load(Ordering::Relaxed)) }
    }
}

/// See the module.
#[derive(Debug, Clone)]
pub(super) struct Shard {
    pub(super) path: PathBuf,
    bytes: Bytes,
    blocks: Vec<Block>,
    /// Where the next block is looked for; 0 before the head was read.
    end: usize,
    damage: Option<Damage>,
}

impl Shard {
    /// Maps a file and reads its blocks' heads.
    pub(super) fn open(path: &Path, about: &About) -> Result<Self> {
        let bytes = Bytes::Memory(Vec::new());
        let mut shard = Self { path: path.to_path_buf(), bytes, blocks: Vec::new(), end: 0, damage: None };
        shard.refresh(about)?;
        Ok(shard)
    }

    /// An empty one in memory.
    pub(super) fn in_memory(about: &About) -> Result<Self> {
        let path = PathBuf::from("memory");
        let mut shard = Self { path, bytes: Bytes::Memory(head(about)?), blocks: Vec::new(), end: 0, damage: None };
        shard.read(about)?;
        Ok(shard)
    }

    /// Reads what was appended to the file since.
    pub(super) fn refresh(&mut self, about: &About) -> Result<()> {
        let file = File::open(&self.path).map_err(Error::io(&self.path))?;
        let length = file.metadata().map_err(Error::io(&self.path))?.len();
        if length > self.bytes().len() as u64 {
            // SAFETY: shards are only ever appended to, by this project as a rule that their documentation states, so that the
            // mapped part of the file neither changes nor goes away.
            let map = unsafe { Mmap::map(&file) }.map_err(Error::io(&self.path))?;
            self.bytes = Bytes::Mapped(Arc::new(map));
        }
        self.read(about)
    }

    /// Appends a block to a shard in memory.
    pub(super) fn push(&mut self, block: &[u8], about: &About) -> Result<()> {
        if let Bytes::Memory(bytes) = &mut self.bytes {
            bytes.extend_from_slice(block);
        }
        self.read(about)
    }

    /// Reads heads from `end` on.
    fn read(&mut self, about: &About) -> Result<()> {
        self.damage = None;
        loop {
            let found = match self.end {
                0 => match block::read_head(self.bytes()) {
                    Found::Whole((json, end)) => {
                        let found = About::from_json(json, &self.path)?.key();
                        if found != about.key() {
                            let (path, expected) = (self.path.clone(), about.key());
                            return Err(Error::Stale { path, expected, found });
                        }
                        self.end = end;
                        continue;
                    }
                    Found::Unfinished => return Ok(()),
                    Found::Damaged(found) => found,
                },
                end => match block::read_block(self.bytes(), end, about) {
                    Found::Whole(place) => {
                        self.end = place.end;
                        self.blocks.push(Block { place, checked: AtomicBool::new(false) });
                        continue;
                    }
                    Found::Unfinished => return Ok(()),
                    Found::Damaged(found) => found,
                },
            };
            let (path, offset) = (self.path.clone(), self.end as u64);
            self.damage = Some(Damage { path, offset, found: found.to_string() });
            return Ok(());
        }
    }

    /// Number of blocks.
    pub(super) fn blocks(&self) -> usize {
        self.blocks.len()
    }

    /// Where whole blocks end.
    pub(super) fn end(&self) -> u64 {
        self.end as u64
    }

    /// What stopped the reading of heads.
    pub(super) fn damage(&self) -> Option<&Damage> {
        self.damage.as_ref()
    }

    /// The examples of a block.
    pub(super) fn entries(&self, block: usize) -> impl Iterator<Item = Entry> + '_ {
        block::entries(self.bytes(), self.blocks[block].place)
    }

    /// An example of a block.
    pub(super) fn entry(&self, block: usize, slot: usize) -> Result<Entry> {
        let entry = self.entries(block).nth(slot);
        entry.ok_or_else(|| Error::file(&self.path, format!("an example {slot} in block {block}"), "fewer"))
    }

    /// Number of examples of a block.
    pub(super) fn examples(&self, block: usize) -> usize {
        self.blocks[block].place.examples
    }

    /// Compares a block with its checksum, once.
    pub(super) fn check(&self, block: usize) -> std::result::Result<&[u8], Damage> {
        let Block { place, checked } = &self.blocks[block];
        let payload = &self.bytes()[place.payload..place.end];
        if !checked.load(Ordering::Relaxed) {
            if crc32fast::hash(payload) != place.payload_crc {
                let found = "the checksum of a block's numbers differs".to_string();
                return Err(Damage { path: self.path.clone(), offset: place.start as u64, found });
            }
            checked.store(true, Ordering::Relaxed);
        }
        Ok(payload)
    }

    /// Entry and bytes of an example.
    pub(super) fn example(&self, about: &About, block: usize, slot: usize) -> Result<(Entry, &[u8])> {
        let payload = self.check(block).map_err(|damage| {
            let at = format!("what was written in the block at byte {}", damage.offset);
            Error::file(&self.path, at, damage.found)
        })?;
        let bytes = |entry: Entry| Layout::new(about, entry.rows, entry.tokens).bytes() as usize;
        let start: usize = self.entries(block).take(slot).map(bytes).sum();
        let entry = self.entry(block, slot)?;
        Ok((entry, &payload[start..start + bytes(entry)]))
    }

    fn bytes(&self) -> &[u8] {
        match &self.bytes {
            Bytes::Mapped(map) => map,
            Bytes::Memory(bytes) => bytes,
        }
    }
}

/// The head of a shard of this teacher.
pub(super) fn head(about: &About) -> Result<Vec<u8>> {
    Ok(block::head(about.to_json()?.to_string().as_bytes()))
}
