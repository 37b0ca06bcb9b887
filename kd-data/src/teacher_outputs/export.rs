//! The outputs for one data set as one file, to keep or to send.

use std::fs::File;
use std::io::{Read, Write};
use std::path::Path;

use super::about::{About, FloatType, Stored};
use super::block::{self, Entry, Found, block};
use super::content::Content;
use super::outputs::TeacherOutputs;
use super::payload::{push_logits, values};
use super::shard::head;
use crate::error::{Error, Result};

/// Examples of a block of an exported file.
const BLOCK: usize = 1024;

impl TeacherOutputs {
    /// Writes the logits of `examples` to one file, whole or not at all, each example once.
    ///
    /// The file is a shard: [`TeacherOutputs::open_file`] reads it, and copied into a teacher's folder it belongs to
    /// that store if that keeps the same. It holds digests of the examples and no text. Hidden states and attentions
    /// are left out; `logits` says how numbers are kept.
    ///
    /// # Errors
    /// If an example is not there, a number is too large for f16, or the file cannot be written.
    pub fn export<'a>(
        &self,
        path: impl AsRef<Path>,
        examples: impl IntoIterator<Item: Into<Content<'a>>>,
        logits: FloatType,
    ) -> Result<()> {
        let path = path.as_ref();
        let stored = Stored { logits, top_k: self.about().stored.top_k, ..Stored::default() };
        let about = About { stored, ..self.about().clone() };
        let mut seen = std::collections::HashSet::new();
        let mut examples: Vec<Content<'a>> = examples.into_iter().map(Into::into).collect();
        examples.retain(|example| seen.insert(example.digest()));
        let rows = self.join(examples.iter().copied())?;
        let mut blocks = vec![head(&about)?];
        let ids: Vec<usize> = (0..examples.len()).collect();
        for ids in ids.chunks(BLOCK) {
            let (mut entries, mut payload) = (Vec::new(), Vec::new());
            for &id in ids {
                let logits = rows.logits(id)?;
                let digest = examples[id].digest();
                entries.push(Entry { digest, rows: logits.dim(0)? as u32, tokens: 0 });
                push_logits(&about, &values(&logits)?, &mut payload).map_err(|value| {
                    let what = format!("teacher's logits of `{}`", examples[id].start());
                    let expected = format!("numbers that are finite in {}", about.stored.logits.name());
                    Error::argument(what, expected, value.to_string())
                })?;
            }
            blocks.push(block(&entries, &payload));
        }
        let write = |file: &mut File| blocks.iter().try_for_each(|block| file.write_all(block));
        Ok(kd_core::checkpoint::replace_file(path, write)?)
    }
}

/// The description in the head of a shard.
pub(super) fn about(path: &Path) -> Result<About> {
    let read = || {
        let (file, mut bytes) = (File::open(path)?, Vec::new());
        (&file).take(block::HEAD_LENGTH as u64).read_to_end(&mut bytes)?;
        (&file).take(block::rest_of_head(&bytes)).read_to_end(&mut bytes)?;
        Ok(bytes)
    };
    let bytes = read().map_err(Error::io(path))?;
    match block::read_head(&bytes) {
        Found::Whole((json, _)) => About::from_json(json, path),
        Found::Unfinished => Err(Error::file(path, "a shard of teacher outputs", "the start of one")),
        Found::Damaged(found) => Err(Error::file(path, "a shard of teacher outputs", found)),
    }
}
