//! From a teacher's output on a batch to the bytes that are kept.

use kd_core::model::Output;

use super::about::{About, FloatType};
use super::block::Entry;
use super::content::{Content, ExampleDigest};
use super::payload::{Layout, push, push_logits, values};
use crate::error::{Error, Result, count};

/// A batch and what is to be kept of it.
pub(super) struct Batch<'a> {
    pub(super) examples: &'a [Content<'a>],
    pub(super) digests: Vec<ExampleDigest>,
    /// Which examples are to be kept.
    pub(super) wanted: Vec<bool>,
    /// Rows of each.
    pub(super) per_example: &'a [usize],
    /// Tokens of each; 0 if nothing with tokens is kept.
    pub(super) lengths: &'a [usize],
    pub(super) output: &'a Output,
}

/// The values of a layer and how they are cut up.
struct Layer {
    values: Vec<f32>,
    dtype: FloatType,
    /// Sequences of equal size in an example: 1, or the heads.
    parts: usize,
    /// Padded length.
    len: usize,
    /// Values of a token; 0: as many as the sequence has tokens.
    width: usize,
}

impl Batch<'_> {
    /// Entries and payload of the block.
    pub(super) fn encode(&self, about: &About) -> Result<(Vec<Entry>, Vec<u8>)> {
        let logits = self.output.logits()?;
        let (rows, classes) = logits.dims2()?;
        if classes != about.classes.len() {
            let expected = format!("{}, one a class", count(about.classes.len(), "column"));
            return Err(Error::argument("teacher logits", expected, classes.to_string()));
        }
        if self.examples.len() != self.per_example.len() || self.per_example.iter().sum::<usize>() != rows {
            let of = count(self.examples.len(), "example");
            let found = format!("{rows} rows for {of} with {:?} rows", self.per_example);
            return Err(Error::argument("teacher logits", "the rows of all examples", found));
        }
        let logits = values(logits)?;
        let layers = self.layers(about)?;
        let (mut entries, mut payload, mut first) = (Vec::new(), Vec::new(), 0);
        for (idx, content) in self.examples.iter().enumerate() {
            let rows = self.per_example[idx];
            let of_example = &logits[first * classes..(first + rows) * classes];
            first += rows;
            if !self.wanted[idx] {
                continue;
            }
            let not_finite = |what: &str, dtype: FloatType, value: f32| {
                let what = format!("teacher's {what} of `{}`", content.start());
                Error::argument(what, format!("numbers that are finite in {}", dtype.name()), value.to_string())
            };
            push_logits(about, of_example, &mut payload)
                .map_err(|value| not_finite("logits", about.stored.logits, value))?;
            let tokens = self.lengths[idx];
            for layer in &layers {
                layer.push(idx, tokens, &mut payload).map_err(|value| {
                    not_finite(if layer.width == 0 { "attentions" } else { "hidden states" }, layer.dtype, value)
                })?;
            }
            let small = |n: usize| {
                u32::try_from(n).map_err(|_| Error::argument("teacher outputs", "fewer than 2^32 rows", n.to_string()))
            };
            entries.push(Entry { digest: self.digests[idx], rows: small(rows)?, tokens: small(tokens)? });
        }
        debug_assert_eq!(
            entries.iter().map(|entry| Layout::new(about, entry.rows, entry.tokens).bytes()).sum::<u64>(),
            payload.len() as u64
        );
        Ok((entries, payload))
    }

    /// The layers that are kept, hidden states first.
    fn layers(&self, about: &About) -> Result<Vec<Layer>> {
        let mut kept = Vec::new();
        let missing = |what: &str, layer: usize, found: usize| {
            Error::argument(format!("teacher's {what}"), format!("layer {layer}"), format!("{found} of them"))
        };
        let wrong = |what: &str, expected: [usize; 2], found: &[usize]| {
            let expected = format!("{} sequences of {}", expected[0], expected[1]);
            Error::argument(format!("teacher's {what}"), expected, format!("the shape {found:?}"))
        };
        if let Some(hidden) = &about.stored.hidden {
            for &layer in &hidden.layers {
                let found = &self.output.hidden;
                let state = found.get(layer).ok_or_else(|| missing("hidden states", layer, found.len()))?;
                let (batch, len, width) = state.dims3()?;
                if (batch, width) != (self.examples.len(), hidden.width) {
                    return Err(wrong("hidden states", [self.examples.len(), hidden.width], state.dims()));
                }
                kept.push(Layer { values: values(state)?, dtype: hidden.dtype, parts: 1, len, width });
            }
        }
        if let Some(attention) = &about.stored.attention {
            for &layer in &attention.layers {
                let found = &self.output.attention;
                let probs = found.get(layer).ok_or_else(|| missing("attentions", layer, found.len()))?;
                let (batch, heads, len, _) = probs.dims4()?;
                if (batch, heads) != (self.examples.len(), attention.heads) {
                    return Err(wrong("attentions", [self.examples.len(), attention.heads], probs.dims()));
                }
                kept.push(Layer { values: values(probs)?, dtype: attention.dtype, parts: heads, len, width: 0 });
            }
        }
        Ok(kept)
    }
}

impl Layer {
    /// The part of example `idx` that is not padding.
    fn push(&self, idx: usize, tokens: usize, bytes: &mut Vec<u8>) -> std::result::Result<(), f32> {
        let (stride, used) = if self.width == 0 { (self.len, tokens) } else { (self.width, self.width) };
        for part in idx * self.parts..(idx + 1) * self.parts {
            for token in 0..tokens {
                let start = (part * self.len + token) * stride;
                push(self.dtype, &self.values[start..start + used], bytes)?;
            }
        }
        Ok(())
    }
}
