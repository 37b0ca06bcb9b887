//! The bytes of a shard.
//!
//! ```text
//! shard   head block block block ...
//! head    "kd-teach" | length u32 | about (JSON) | crc32 of all before
//! block   "kd-block" | examples u32 | payload bytes u64 | payload crc32 | entries crc32 | crc32 of all before
//!         entries: (digest [16], rows u32, tokens u32) each
//!         payload: each example's numbers, in the order of the entries
//! ```
//!
//! Everything is little-endian. A block is a batch and is written at once; what ends before its block does was cut off
//! while it was written. The first three sums are looked at when a file is opened, a payload's when it is first read.

use super::about::About;
use super::content::ExampleDigest;
use super::payload::Layout;

const HEAD: &[u8; 8] = b"kd-teach";
const BLOCK: &[u8; 8] = b"kd-block";
/// Bytes of a shard that say how long its head is.
pub(super) const HEAD_LENGTH: usize = HEAD.len() + 4;
/// Bytes of a block before its entries.
const PREFIX: usize = 8 + 4 + 8 + 4 + 4 + 4;
/// Bytes of an entry.
const ENTRY: usize = ExampleDigest::BYTES + 4 + 4;

/// An example of a block.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Entry {
    pub(super) digest: ExampleDigest,
    pub(super) rows: u32,
    /// 0 where nothing is kept that has a length in tokens.
    pub(super) tokens: u32,
}

/// What stands at a place of a shard.
#[derive(Debug, PartialEq, Eq)]
pub(super) enum Found<T> {
    Whole(T),
    /// The file ends before it does.
    Unfinished,
    /// What is wrong.
    Damaged(&'static str),
}

/// Where the parts of a block lie in its shard.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct BlockPlace {
    pub(super) start: usize,
    pub(super) examples: usize,
    pub(super) payload: usize,
    pub(super) end: usize,
    pub(super) payload_crc: u32,
}

/// The head of a shard with this description.
pub(super) fn head(about: &[u8]) -> Vec<u8> {
    let mut bytes = HEAD.to_vec();
    bytes.extend((about.len() as u32).to_le_bytes());
    bytes.extend(about);
    bytes.extend(crc32fast::hash(&bytes).to_le_bytes());
    bytes
}

/// Bytes of the head after its first [`HEAD_LENGTH`].
pub(super) fn rest_of_head(bytes: &[u8]) -> u64 {
    u32_at(bytes, HEAD.len()).map_or(0, |length| u64::from(length) + 4)
}

/// The description in a shard's head, and where its blocks start.
pub(super) fn read_head(bytes: &[u8]) -> Found<(&[u8], usize)> {
    let seen = bytes.len().min(HEAD.len());
    if bytes[..seen] != HEAD[..seen] {
        return Found::Damaged("not a shard of teacher outputs");
    }
    let Some(length) = u32_at(bytes, HEAD.len()) else { return Found::Unfinished };
    let (start, end) = (HEAD.len() + 4, HEAD.len() + 4 + length as usize);
    let Some(crc) = u32_at(bytes, end) else { return Found::Unfinished };
    if crc32fast::hash(&bytes[..end]) != crc {
        return Found::Damaged("the checksum of the head differs");
    }
    Found::Whole((&bytes[start..end], end + 4))
}

/// A block of these examples.
pub(super) fn block(entries: &[Entry], payload: &[u8]) -> Vec<u8> {
    let table: Vec<u8> = entries
        .iter()
        .flat_map(|entry| entry.digest.0.into_iter().chain(entry.rows.to_le_bytes()).chain(entry.tokens.to_le_bytes()))
        .collect();
    let mut bytes = Vec::with_capacity(PREFIX + table.len() + payload.len());
    bytes.extend(BLOCK);
    bytes.extend((entries.len() as u32).to_le_bytes());
    bytes.extend((payload.len() as u64).to_le_bytes());
    bytes.extend(crc32fast::hash(payload).to_le_bytes());
    bytes.extend(crc32fast::hash(&table).to_le_bytes());
    bytes.extend(crc32fast::hash(&bytes).to_le_bytes());
    bytes.extend(table);
    bytes.extend(payload);
    bytes
}

/// The block at `start`; its entries are checked, its payload is not.
pub(super) fn read_block(bytes: &[u8], start: usize, about: &About) -> Found<BlockPlace> {
    let Some(prefix) = bytes.get(start..).and_then(|rest| rest.first_chunk::<PREFIX>()) else {
        return Found::Unfinished;
    };
    let number = |at: usize| u32_at(prefix, at).unwrap_or_default();
    if prefix[..8] != BLOCK[..] || crc32fast::hash(&prefix[..PREFIX - 4]) != number(PREFIX - 4) {
        return Found::Damaged("the checksum of a block's head differs");
    }
    let examples = number(8) as usize;
    let length = u64::from(number(12)) | u64::from(number(16)) << 32;
    let place = || {
        let payload = start.checked_add(PREFIX)?.checked_add(examples.checked_mul(ENTRY)?)?;
        let end = payload.checked_add(usize::try_from(length).ok()?)?;
        (end <= bytes.len()).then_some(BlockPlace { start, examples, payload, end, payload_crc: number(20) })
    };
    let Some(place) = place() else { return Found::Unfinished };
    if crc32fast::hash(&bytes[start + PREFIX..place.payload]) != number(24) {
        return Found::Damaged("the checksum of a block's entries differs");
    }
    let sizes = entries(bytes, place).map(|entry| Layout::new(about, entry.rows, entry.tokens).bytes());
    if sizes.fold(0, u64::saturating_add) != length {
        return Found::Damaged("a block's length is not the sum of its examples'");
    }
    Found::Whole(place)
}

/// The entries of a block that was read from `bytes`.
pub(super) fn entries(bytes: &[u8], place: BlockPlace) -> impl Iterator<Item = Entry> + '_ {
    bytes[place.start + PREFIX..place.payload].as_chunks::<ENTRY>().0.iter().map(|entry| {
        let mut digest = [0; ExampleDigest::BYTES];
        digest.copy_from_slice(&entry[..ExampleDigest::BYTES]);
        let number = |at: usize| u32_at(entry, at).unwrap_or_default();
        let (rows, tokens) = (number(ExampleDigest::BYTES), number(ExampleDigest::BYTES + 4));
        Entry { digest: ExampleDigest(digest), rows, tokens }
    })
}

fn u32_at(bytes: &[u8], start: usize) -> Option<u32> {
    Some(u32::from_le_bytes(*bytes.get(start..)?.first_chunk()?))
}
