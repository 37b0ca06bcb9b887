//! Features on disk, under a name made of all that they depend on.
//!
//! ```text
//! kdfeat01 · SHA-256 of the rest · length of the header · header (JSON: key, names, symbols, texts) · numbers
//! ```
//!
//! The key is a digest of the file's bytes, of the [`Reading`] and of [`FORMAT`]. Nothing in a file depends on a vocabulary, so
//! there is none in the key. Numbers are little-endian, each list with its length before it.

use std::path::{Path, PathBuf};

use kd_core::checkpoint::replace_file_with;
use serde::{Deserialize, Serialize};
use sha2::{Digest, Sha256};

use super::{Column, Features, Labels, Passage, Reading, Sequences, Symbols, Values};
use crate::digest;
use crate::error::{Error, Result};
use crate::table::Skipped;

/// Changes whenever the files, or what is made of a text, become others.
const FORMAT: &[u8; 8] = b"kdfeat01";

/// Where features came from.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Origin {
    /// Made, and not kept: there is no folder to keep them in.
    Made,
    /// Made, and kept in this file.
    Kept(PathBuf),
    /// Read from this file.
    Found(PathBuf),
    /// Made and kept in this file, which was there but damaged.
    Repaired {
        /// The file.
        path: PathBuf,
        /// What was wrong with it.
        damage: String,
    },
}

/// The features of a file as [`Features::read`] makes them, from `folder` if they were kept there.
///
/// A kept file is checked against its digest; one that is damaged is made anew, and [`Origin`] says so. It is written beside
/// its place, flushed and renamed, so that several programs may share a folder.
///
/// # Errors
/// As [`Features::read`]; and if the folder cannot be written.
pub fn read_cached(path: impl AsRef<Path>, reading: &Reading, folder: Option<&Path>) -> Result<(Features, Origin)> {
    let path = path.as_ref();
    let Some(folder) = folder else { return Ok((Features::read(path, reading)?, Origin::Made)) };
    let described = serde_json::to_string(reading)
        .map_err(|error| Error::argument("reading", "what can be written as json", error.to_string()))?;
    let format = String::from_utf8_lossy(FORMAT);
    let key = digest::of_parts([&*format, &described, &digest::of_file(path)?]);
    let kept = folder.join(format!("features-{}.bin", &key[..32]));

    let damage = match std::fs::read(&kept) {
        Ok(bytes) => match decode(&bytes, &key, path) {
            Ok(features) => return Ok((features, Origin::Found(kept))),
            Err(damage) => Some(damage),
        },
        Err(error) if error.kind() == std::io::ErrorKind::NotFound => None,
        Err(error) => return Err(Error::io(&kept)(error)),
    };
    let features = Features::read(path, reading)?;
    replace_file_with(&kept, &encode(&features, &key)?)?;
    let origin = match damage {
        Some(damage) => Origin::Repaired { path: kept, damage },
        None => Origin::Kept(kept),
    };
    Ok((features, origin))
}

#[derive(Serialize, Deserialize)]
struct Header {
    key: String,
    skipped: Vec<Skipped>,
    columns: Vec<ColumnHeader>,
    targets: Vec<TargetHeader>,
    passages: Option<Vec<String>>,
}

#[derive(Serialize, Deserialize)]
struct ColumnHeader {
    branch: String,
    name: String,
    cluster: String,
    /// The symbols of its sequences, or whose words it spells.
    symbols: std::result::Result<Vec<String>, usize>,
}

#[derive(Serialize, Deserialize)]
struct TargetHeader {
    column: String,
    kind: ValuesHeader,
}

#[derive(Serialize, Deserialize)]
enum ValuesHeader {
    Names(Vec<String>),
    Numbers,
    Places,
    Texts(Vec<String>),
}

fn encode(features: &Features, key: &str) -> Result<Vec<u8>> {
    let mut numbers = Vec::new();
    put(&mut numbers, features.lines.iter().map(|&line| (line as u64).to_le_bytes()));
    let sequences = |numbers: &mut Vec<u8>, sequences: &Sequences| {
        put(numbers, sequences.ids.iter().map(|id| id.to_le_bytes()));
        put(numbers, sequences.ends.iter().map(|end| end.to_le_bytes()));
        sequences.symbols.clone()
    };
    let mut columns = Vec::new();
    for column in &features.columns {
        columns.push(ColumnHeader {
            branch: column.branch.clone(),
            name: column.name.clone(),
            cluster: column.cluster.clone(),
            symbols: match &column.symbols {
                Symbols::Own(own) => Ok(sequences(&mut numbers, own)),
                Symbols::Spelling(words) => Err(*words),
            },
        });
    }
    let mut targets = Vec::new();
    for labels in &features.targets {
        let kind = match &labels.values {
            Values::Names(names) => ValuesHeader::Names(sequences(&mut numbers, names)),
            Values::Numbers(values) => {
                put(&mut numbers, values.iter().map(|value| value.to_le_bytes()));
                ValuesHeader::Numbers
            }
            Values::Places(places) => {
                put(&mut numbers, places.iter().map(|place| place.to_le_bytes()));
                ValuesHeader::Places
            }
            Values::Texts(texts) => ValuesHeader::Texts(texts.clone()),
        };
        targets.push(TargetHeader { column: labels.column.clone(), kind });
    }
    if let Some(passage) = &features.passage {
        for spans in &passage.spans {
            put(&mut numbers, spans.iter().flat_map(|span| [span.start.to_le_bytes(), span.end.to_le_bytes()]));
        }
    }
    let passages = features.passage.as_ref().map(|passage| passage.texts.clone());
    let header = Header { key: key.to_string(), skipped: features.skipped.clone(), columns, targets, passages };
    let header = serde_json::to_vec(&header)
        .map_err(|error| Error::argument("features", "what can be written as json", error.to_string()))?;

    let mut rest = (header.len() as u64).to_le_bytes().to_vec();
    rest.extend(header);
    rest.extend(numbers);
    let mut bytes = FORMAT.to_vec();
    bytes.extend(Sha256::digest(&rest));
    bytes.extend(rest);
    Ok(bytes)
}

/// Appends a list of numbers with its length before it.
fn put<const N: usize>(bytes: &mut Vec<u8>, numbers: impl Iterator<Item = [u8; N]>) {
    let at = bytes.len();
    bytes.extend(0u64.to_le_bytes());
    let mut length = 0u64;
    for number in numbers {
        bytes.extend(number);
        length += 1;
    }
    bytes[at..at + 8].copy_from_slice(&length.to_le_bytes());
}

/// The features of a kept file, or what is wrong with it.
fn decode(bytes: &[u8], key: &str, path: &Path) -> std::result::Result<Features, String> {
    let rest = bytes.strip_prefix(FORMAT).ok_or("it does not begin as such a file does")?;
    let (checksum, rest) = rest.split_at_checked(32).ok_or("it is cut short")?;
    if checksum != Sha256::digest(rest).as_slice() {
        return Err("its contents do not have its checksum".to_string());
    }
    let mut numbers = Numbers(rest);
    let length = numbers.take(8)?.try_into().map(u64::from_le_bytes).map_err(|_| "it is cut short")?;
    let header: Header = serde_json::from_slice(numbers.take(length as usize)?).map_err(|error| error.to_string())?;
    if header.key != key {
        return Err(format!("it was kept under the key {}", header.key));
    }
    let lines = numbers.list(u64::from_le_bytes)?.into_iter().map(|line| line as usize).collect::<Vec<_>>();
    let mut columns = Vec::new();
    for column in header.columns {
        let symbols = match column.symbols {
            Ok(symbols) => Symbols::Own(numbers.sequences(symbols)?),
            Err(words) => Symbols::Spelling(words),
        };
        columns.push(Column { branch: column.branch, name: column.name, cluster: column.cluster, symbols });
    }
    let mut targets = Vec::new();
    for target in header.targets {
        let values = match target.kind {
            ValuesHeader::Names(names) => Values::Names(numbers.sequences(names)?),
            ValuesHeader::Numbers => Values::Numbers(numbers.list(f64::from_le_bytes)?),
            ValuesHeader::Places => Values::Places(numbers.list(u32::from_le_bytes)?),
            ValuesHeader::Texts(texts) => Values::Texts(texts),
        };
        targets.push(Labels { column: target.column, values });
    }
    let passage = match header.passages {
        None => None,
        Some(texts) => {
            let mut spans = Vec::new();
            for _ in &texts {
                let ends = numbers.list(u32::from_le_bytes)?;
                spans.push(ends.chunks_exact(2).map(|span| span[0]..span[1]).collect());
            }
            Some(Passage { texts, spans })
        }
    };
    Ok(Features { path: path.to_path_buf(), lines, skipped: header.skipped, columns, targets, passage })
}

/// What is left of a kept file.
struct Numbers<'a>(&'a [u8]);

impl<'a> Numbers<'a> {
    fn take(&mut self, length: usize) -> std::result::Result<&'a [u8], String> {
        let (taken, rest) = self.0.split_at_checked(length).ok_or("it is cut short")?;
        self.0 = rest;
        Ok(taken)
    }

    fn list<T, const N: usize>(&mut self, number: fn([u8; N]) -> T) -> std::result::Result<Vec<T>, String> {
        let (length, _) = self.take(8)?.split_first_chunk().ok_or("it is cut short")?;
        let bytes = self.take((u64::from_le_bytes(*length) as usize).saturating_mul(N))?;
        Ok(bytes.chunks_exact(N).filter_map(|bytes| bytes.try_into().ok()).map(number).collect())
    }

    fn sequences(&mut self, symbols: Vec<String>) -> std::result::Result<Sequences, String> {
        Ok(Sequences { symbols, ids: self.list(u32::from_le_bytes)?, ends: self.list(u64::from_le_bytes)? })
    }
}
