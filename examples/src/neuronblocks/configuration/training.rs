//! `training_params`: how the network is trained, and how texts become tokens.

use anyhow::Result;
use kd_core::optim::OptimizerConfig;
use kd_core::schedule::Schedule;
use serde::{Deserialize, Serialize};

use super::inputs::Inputs;
use super::inputs::Problem;
use super::optimizer;
use super::section::Section;

/// What is done to a text before it is tokens.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub enum Preprocessing {
    /// Full-width characters become their half-width forms.
    DBC2SBC,
    /// Broken encodings are mended.
    #[serde(rename = "unicode_fix")]
    UnicodeFix,
    /// Stop words are left out.
    #[serde(rename = "remove_stopwords")]
    RemoveStopwords,
}

/// When the network is scored on the validation set.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Validation {
    /// After every so many steps.
    Steps(usize),
    /// So often in each epoch.
    TimesPerEpoch(usize),
}

/// Which words get a row of their own.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct VocabularyLimits {
    /// Texts that a word must be in; default 3.
    pub min_word_frequency: usize,
    /// Most words; default 800,000.
    pub max_vocabulary: usize,
    /// Lines that are read for them; default 1,000,000.
    pub max_building_lines: usize,
}

/// `training_params`.
#[derive(Debug, Clone, PartialEq)]
pub struct Training {
    /// `vocabulary`.
    pub vocabulary: VocabularyLimits,
    /// `optimizer`.
    pub optimizer: OptimizerConfig,
    /// Largest norm of all gradients; −1, the default, does not clip.
    pub clip_norm: Option<f64>,
    /// Factor on the learning rate after each epoch from `epoch_start_lr_decay` on; default 1.
    pub lr_decay: f64,
    /// Smallest learning rate; default 0.
    pub minimum_lr: f64,
    /// Default 1.
    pub epoch_start_lr_decay: usize,
    /// Whether a GPU is used where there is one; default true.
    pub use_gpu: bool,
    /// Examples a step; default 1.
    pub batch_size: usize,
    /// Steps between lines of the log; default 10.
    pub batch_num_to_show_results: usize,
    /// Passes over the training set.
    pub max_epoch: Option<usize>,
    /// Default: every 10 steps.
    pub validation: Validation,
    /// In any order: encodings are mended first, then characters become half-width, and words are left out last.
    pub text_preprocessing: Vec<Preprocessing>,
    /// Longest sequence of branches, in tokens.
    pub max_lengths: Vec<(String, usize)>,
    /// Length of every sequence of branches, cut or padded; wins over `max_lengths`.
    pub fixed_lengths: Vec<(String, usize)>,
    /// Name of the tokenizer; none is that of the language.
    pub tokenizer: Option<String>,
    /// Whether padding leaks as in the original, to compare with it; default false.
    pub legacy_padding: bool,
    /// Seed of the weights, of the order of examples and of dropout; default 1.
    pub seed: u64,
}

impl Training {
    pub(super) fn parse(section: Section<'_>, inputs: &Inputs, warnings: &mut Vec<String>) -> Result<Self> {
        section.without_effect("chunk_size", "files are read as a whole", warnings);
        section.without_effect("cpu_num_workers", "the number of threads is RAYON_NUM_THREADS", warnings);
        let clip_norm: f64 = section.or("clip_grad_norm_max_norm", -1.0)?;
        let training = Self {
            vocabulary: vocabulary(&section)?,
            optimizer: optimizer::parse(section.required_section("optimizer")?)?,
            clip_norm: (clip_norm != -1.0).then_some(clip_norm),
            lr_decay: section.or("lr_decay", 1.0)?,
            minimum_lr: section.or("minimum_lr", 0.0)?,
            epoch_start_lr_decay: section.or("epoch_start_lr_decay", 1)?,
            use_gpu: section.or("use_gpu", true)?,
            batch_size: section.or("batch_size", 1)?,
            batch_num_to_show_results: section.or("batch_num_to_show_results", 10)?,
            max_epoch: section.optional("max_epoch")?,
            validation: validation(&section, warnings)?,
            text_preprocessing: section.or("text_preprocessing", Vec::new())?,
            max_lengths: lengths(&section, "max_lengths", inputs, warnings)?,
            fixed_lengths: lengths(&section, "fixed_lengths", inputs, warnings)?,
            tokenizer: section.optional("tokenizer")?,
            legacy_padding: section.or("legacy_padding", false)?,
            seed: section.or("seed", 1)?,
        };
        training.check(&section)?;
        section.finish()?;
        Ok(training)
    }

    fn check(&self, section: &Section<'_>) -> Result<()> {
        for (key, value) in [
            ("batch_size", self.batch_size),
            ("batch_num_to_show_results", self.batch_num_to_show_results),
            ("epoch_start_lr_decay", self.epoch_start_lr_decay),
            ("max_epoch", self.max_epoch.unwrap_or(1)),
        ] {
            if value == 0 {
                return Err(section.wrong(key, "at least 1", 0));
            }
        }
        if !(self.lr_decay > 0.0 && self.lr_decay <= 1.0) {
            return Err(section.wrong("lr_decay", "a factor in (0, 1]", self.lr_decay));
        }
        if !(self.minimum_lr >= 0.0 && self.minimum_lr.is_finite()) {
            return Err(section.wrong("minimum_lr", "a rate of at least 0", self.minimum_lr));
        }
        if let Some(norm) = self.clip_norm.filter(|&norm| !(norm.is_finite() && norm > 0.0)) {
            return Err(section.wrong("clip_grad_norm_max_norm", "a norm above 0, or -1 for none", norm));
        }
        Ok(())
    }

    /// The factor on the learning rate: after each epoch of `steps_per_epoch` from `epoch_start_lr_decay` on,
    /// `lr ← max(lr · lr_decay, minimum_lr)`. A rate that starts below the minimum stays.
    pub fn schedule(&self, steps_per_epoch: usize) -> Schedule {
        let rate = self.optimizer.lr();
        if self.lr_decay == 1.0 || rate <= self.minimum_lr {
            return Schedule::Constant;
        }
        Schedule::StepDecay {
            start: self.epoch_start_lr_decay * steps_per_epoch,
            every: steps_per_epoch,
            rate: self.lr_decay,
            minimum: self.minimum_lr / rate,
        }
    }

    /// Sets the learning rate before any decay.
    pub fn set_rate(&mut self, rate: f64) {
        self.optimizer = self.optimizer.with_lr(rate);
    }

    /// Steps between evaluations where an epoch has `steps_per_epoch`: of so many evaluations an epoch the whole steps between
    /// them, at least 1, as in the original.
    pub fn steps_per_validation(&self, steps_per_epoch: usize) -> usize {
        match self.validation {
            Validation::Steps(steps) => steps,
            Validation::TimesPerEpoch(times) => (steps_per_epoch / times).max(1),
        }
    }
}

fn vocabulary(section: &Section<'_>) -> Result<VocabularyLimits> {
    let defaults = VocabularyLimits { min_word_frequency: 3, max_vocabulary: 800_000, max_building_lines: 1_000_000 };
    let Some(section) = section.section("vocabulary")? else { return Ok(defaults) };
    let limits = VocabularyLimits {
        min_word_frequency: section.or("min_word_frequency", defaults.min_word_frequency)?,
        max_vocabulary: section.or("max_vocabulary", defaults.max_vocabulary)?,
        max_building_lines: section.or("max_building_lines", defaults.max_building_lines)?,
    };
    section.finish()?;
    Ok(limits)
}

fn validation(section: &Section<'_>, warnings: &mut Vec<String>) -> Result<Validation> {
    let times: Option<usize> = section.optional("valid_times_per_epoch")?;
    let steps: Option<usize> = section.optional("steps_per_validation")?;
    if times.is_some() {
        let what = if steps.is_some() { "has no effect beside" } else { "is an old name of" };
        warnings.push(format!("{}: {what} `steps_per_validation`", section.path_of("valid_times_per_epoch")));
    }
    let (key, value) = match (steps, times) {
        (None, Some(times)) => ("valid_times_per_epoch", Validation::TimesPerEpoch(times)),
        (steps, _) => ("steps_per_validation", Validation::Steps(steps.unwrap_or(10))),
    };
    match value {
        Validation::Steps(0) | Validation::TimesPerEpoch(0) => Err(section.wrong(key, "at least 1", 0)),
        value => Ok(value),
    }
}

/// Lengths of branches. Published files name columns here too, which the original never read.
fn lengths(
    section: &Section<'_>,
    key: &'static str,
    inputs: &Inputs,
    warnings: &mut Vec<String>,
) -> Result<Vec<(String, usize)>> {
    let Some(all) = section.section(key)? else { return Ok(Vec::new()) };
    let named: serde_json::Map<String, serde_json::Value> = section.required(key)?;
    let mut lengths = Vec::new();
    for (name, length) in named {
        let path = all.path_of(&name);
        let is_branch = inputs.model_inputs.iter().any(|(branch, _)| *branch == name);
        let is_column = inputs.file_header.iter().any(|(column, _)| *column == name)
            || inputs.model_inputs.iter().any(|(_, columns)| columns.contains(&name));
        let length = length.as_u64().filter(|&length| length > 0).map(|length| length as usize);
        let length = length.ok_or_else(|| all.wrong(&name, "a length of at least 1 token", "another value"))?;
        if is_branch && inputs.problem != Problem::SequenceTagging {
            lengths.push((name, length));
        } else if is_branch {
            warnings.push(format!("{path}: has no effect, sentences that are tagged keep their length"));
        } else if is_column {
            warnings.push(format!("{path}: has no effect, this is a column; lengths are those of branches"));
        } else {
            let branches = inputs.model_inputs.iter().map(|(branch, _)| branch.as_str()).collect::<Vec<_>>().join(", ");
            warnings.push(format!("{path}: has no effect, there is no branch of this name (but {branches})"));
        }
    }
    Ok(lengths)
}
