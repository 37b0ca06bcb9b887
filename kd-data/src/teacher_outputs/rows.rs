//! A teacher's outputs, joined to the examples of a data set.

use std::sync::Arc;

use candle_core::{Device, Result, Tensor, bail};
use kd_core::model::{Output, match_classes};

use super::about::About;
use super::block::Entry;
use super::payload::{Layout, pull, pull_logits};
use super::shard::Shard;
use crate::error::{Error, count};

/// Where an example is stored.
#[derive(Debug, Clone, Copy)]
pub(super) struct Place {
    pub(super) shard: u32,
    pub(super) block: u32,
    pub(super) slot: u32,
}

/// A teacher's outputs for the examples of a data set, by position: what [`super::TeacherOutputs::join`] returns.
///
/// The numbers stay on the disk until a batch asks for them. Rows stand in the order of the examples of a batch and,
/// within one, of its words, whatever tokenizer the teacher had.
///
/// # Wide heads
/// Where only the `k` largest logits were kept, these come back as they were, and the others share what probability the
/// teacher gave to all of them together, evenly: each is `log(Σ_rest exp z) − log(classes − k)`. The softmax of such a
/// row gives the `k` classes exactly the teacher's probabilities; at another temperature than 1 that is true of the `k`
/// among themselves.
#[derive(Debug, Clone)]
pub struct TeacherRows {
    about: Arc<About>,
    shards: Vec<Arc<Shard>>,
    places: Vec<Place>,
}

impl TeacherRows {
    pub(super) fn new(about: Arc<About>, shards: Vec<Arc<Shard>>, places: Vec<Place>) -> Self {
        Self { about, shards, places }
    }

    /// Whose outputs they are.
    pub fn about(&self) -> &About {
        &self.about
    }

    /// Names of the columns, as the teacher has them.
    pub fn classes(&self) -> &[String] {
        &self.about.classes
    }

    /// Number of examples.
    pub fn len(&self) -> usize {
        self.places.len()
    }

    /// Whether there are none.
    pub fn is_empty(&self) -> bool {
        self.places.is_empty()
    }

    /// Checks that the examples have that many rows each ([`crate::encode::Encode::rows`]).
    ///
    /// # Errors
    /// If their number differs or one has another number of rows; the message names the first.
    pub fn check_rows(&self, rows: &[usize]) -> crate::Result<()> {
        if rows.len() != self.len() {
            return Err(Error::argument("teacher outputs", count(rows.len(), "example"), self.len().to_string()));
        }
        for (example, (&expected, place)) in rows.iter().zip(&self.places).enumerate() {
            let found = self.shards[place.shard as usize].entry(place.block as usize, place.slot as usize)?.rows;
            if found as usize != expected {
                let what = format!("teacher outputs of example {example}");
                return Err(Error::argument(what, count(expected, "row"), found.to_string()));
            }
        }
        Ok(())
    }

    /// The logits of one example on the CPU, `(rows, classes)` f32, columns as the teacher has them.
    ///
    /// # Errors
    /// If there is no such example or its file is damaged.
    pub fn logits(&self, example: usize) -> Result<Tensor> {
        let mut values = Vec::new();
        let (entry, bytes) = self.example(example)?;
        pull_logits(&self.about, self.part(entry, bytes).0, &mut values);
        Tensor::from_vec(values, (entry.rows as usize, self.classes().len()), &Device::Cpu)
    }

    /// The outputs of a batch, all f32: logits `(rows, classes)`, example by example, columns in the order of
    /// `classes`, by name; if they are stored, hidden states `(batch, len, width)` and attentions
    /// `(batch, heads, len, len)` of the stored layers, where `len` is the longest of the batch in the teacher's tokens
    /// and padding is 0.
    ///
    /// # Errors
    /// If there is no such example, `classes` are not the teacher's, or a file is damaged.
    pub fn collate(&self, examples: &[usize], classes: &[String], device: &Device) -> Result<Output> {
        let parts = examples
            .iter()
            .map(|&example| {
                let (entry, bytes) = self.example(example)?;
                Ok((entry, self.part(entry, bytes)))
            })
            .collect::<Result<Vec<_>>>()?;
        let mut logits = Vec::new();
        for (_, (bytes, _, _)) in &parts {
            pull_logits(&self.about, bytes, &mut logits);
        }
        let rows = logits.len() / self.classes().len();
        if classes != self.classes() {
            let columns = match_classes(self.classes(), classes)?;
            let row = |row: &[f32]| columns.iter().map(|&column| row[column]).collect::<Vec<_>>();
            logits = logits.chunks_exact(columns.len()).flat_map(row).collect();
        }
        let logits = Tensor::from_vec(logits, (rows, classes.len()), device)?;
        let mut output = Output::from_logits(logits);

        let (batch, mut values) = (parts.len(), Vec::new());
        let len = parts.iter().map(|(entry, _)| entry.tokens as usize).max().unwrap_or(0);
        if let Some(hidden) = &self.about.stored.hidden {
            for layer in 0..hidden.layers.len() {
                let mut padded = vec![0f32; batch * len * hidden.width];
                for (idx, (entry, (_, bytes, _))) in parts.iter().enumerate() {
                    let size = entry.tokens as usize * hidden.width;
                    let bytes = &bytes[layer * size * hidden.dtype.bytes()..][..size * hidden.dtype.bytes()];
                    values.clear();
                    pull(hidden.dtype, bytes, &mut values);
                    padded[idx * len * hidden.width..][..size].copy_from_slice(&values);
                }
                output.hidden.push(Tensor::from_vec(padded, (batch, len, hidden.width), device)?);
            }
        }
        if let Some(attention) = &self.about.stored.attention {
            let heads = attention.heads;
            for layer in 0..attention.layers.len() {
                let mut padded = vec![0f32; batch * heads * len * len];
                for (idx, (entry, (_, _, bytes))) in parts.iter().enumerate() {
                    let tokens = entry.tokens as usize;
                    let size = heads * tokens * tokens * attention.dtype.bytes();
                    values.clear();
                    pull(attention.dtype, &bytes[layer * size..][..size], &mut values);
                    for (row, values) in values.chunks_exact(tokens.max(1)).enumerate() {
                        let start = ((idx * heads + row / tokens) * len + row % tokens) * len;
                        padded[start..start + tokens].copy_from_slice(values);
                    }
                }
                output.attention.push(Tensor::from_vec(padded, (batch, heads, len, len), device)?);
            }
        }
        Ok(output)
    }

    /// The most likely class of every row of an example, as an index into `classes`; of equal ones the first.
    ///
    /// # Errors
    /// As [`TeacherRows::collate`].
    pub fn labels(&self, example: usize, classes: &[String]) -> Result<Vec<u32>> {
        let output = self.collate(&[example], classes, &Device::Cpu)?;
        let best = |row: &Vec<f32>| {
            let pick = |best: (u32, f32), (class, &value): (usize, &f32)| {
                if value > best.1 { (class as u32, value) } else { best }
            };
            row.iter().enumerate().fold((0, f32::NEG_INFINITY), pick).0
        };
        Ok(output.logits()?.to_vec2()?.iter().map(best).collect())
    }

    fn example(&self, example: usize) -> Result<(Entry, &[u8])> {
        let Some(place) = self.places.get(example) else {
            bail!("teacher outputs: expected example ids below {}, found {example}", self.len());
        };
        Ok(self.shards[place.shard as usize].example(&self.about, place.block as usize, place.slot as usize)?)
    }

    /// Logits, hidden states, attentions.
    fn part<'a>(&self, entry: Entry, bytes: &'a [u8]) -> (&'a [u8], &'a [u8], &'a [u8]) {
        let layout = Layout::new(&self.about, entry.rows, entry.tokens);
        let (logits, rest) = bytes.split_at(layout.logits as usize);
        let (hidden, attention) = rest.split_at(layout.hidden as usize);
        (logits, hidden, attention)
    }
}
