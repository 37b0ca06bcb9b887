//! A data set as its students read it.

use anyhow::Result;
use candle_core::Device;
use kd_data::encode::Encode;
use kd_data::task::{Examples, Part};

use super::DataSet;
use super::student::Source;

/// A data set as students read it, encoded once for all of them.
pub struct EncodedSet {
    /// To learn from.
    pub learn: Box<dyn Encode>,
    /// What is held out to choose on.
    held_out: Option<Box<dyn Encode>>,
    /// Whether dev chooses instead, the first of those to report.
    dev_chooses: bool,
    /// To report.
    pub report: Vec<Box<dyn Encode>>,
}

impl std::fmt::Debug for EncodedSet {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("EncodedSet").field("learn", &self.learn.lengths().len()).finish_non_exhaustive()
    }
}

impl EncodedSet {
    /// All roles of `set` in sequences of at most `max_len` pieces.
    ///
    /// # Errors
    /// As [`Source::encode`].
    pub fn new(set: &DataSet, source: &Source, max_len: usize, device: &Device) -> Result<Self> {
        let of =
            |name: &str, examples: &Examples| source.encode(&format!("{} {name}", set.name), examples, max_len, device);
        let dev_chooses = set.choose.as_ref().is_some_and(|(name, _)| *name == Part::Dev.name());
        let held_out = set.choose.as_ref().filter(|_| !dev_chooses);
        Ok(Self {
            learn: of("training", &set.learn)?,
            held_out: held_out.map(|(name, examples)| of(name, examples)).transpose()?,
            dev_chooses,
            report: set.report.iter().map(|(part, examples)| of(part.name(), examples)).collect::<Result<_>>()?,
        })
    }

    /// What chooses; none where the last epoch is kept.
    pub fn choose(&self) -> Option<&dyn Encode> {
        let dev = if self.dev_chooses { self.report.first() } else { None };
        self.held_out.as_ref().or(dev).map(|part| &**part)
    }
}
