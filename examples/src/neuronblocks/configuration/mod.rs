//! A configuration in NeuronBlocks' format (Gong et al. 2019), read strictly.
//!
//! | section           | is read by                                                           |
//! |-------------------|----------------------------------------------------------------------|
//! | `inputs`          | [`Inputs`]                                                           |
//! | `outputs`         | [`Outputs`]                                                          |
//! | `training_params` | [`Training`]                                                         |
//! | `architecture`    | the network's plan, `kd_students::plan`                              |
//! | `loss`            | the network's losses, `kd_students::plan::loss`                      |
//! | `metrics`         | names; the first chooses the best model                              |
//! | `distillation`    | [`Distillation`]: what teachers say, beside the targets; not in the original |
//!
//! An unknown key, a value of another type and a value out of range are errors that name the place; a key that the
//! original allowed and never read is a warning. `license` and `model_description` say nothing to the program.

mod distillation;
mod inputs;
mod optimizer;
mod outputs;
pub mod section;
mod training;

use std::path::{Path, PathBuf};

use anyhow::{Context, Result, bail};
use serde::Serialize;
use serde_json::{Value, json};

pub use self::distillation::{Distillation, Source, TeacherConfig};
pub use self::inputs::{DataPaths, Inputs, Problem, Scheme, VectorCoding, VectorType};
pub use self::outputs::{Field, Outputs};
use self::section::Section;
pub use self::training::{Preprocessing, Training, Validation, VocabularyLimits};

/// Versions of the format that are read: `1.1.x`.
const VERSION: &str = "1.1";

/// The language of the texts.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize)]
pub enum Language {
    /// The default.
    English,
    /// Words are found by jieba.
    Chinese,
}

/// A configuration.
#[derive(Debug, Clone)]
pub struct Configuration {
    /// Its file.
    pub path: PathBuf,
    /// All of it, as it was read.
    pub value: Value,
    /// Default English.
    pub language: Language,
    /// `inputs`.
    pub inputs: Inputs,
    /// `outputs`.
    pub outputs: Outputs,
    /// `training_params`.
    pub training: Training,
    /// `metrics`; the first chooses the best model.
    pub metrics: Vec<String>,
    /// `distillation`.
    pub distillation: Option<Distillation>,
    /// What has no effect, by its path.
    pub warnings: Vec<String>,
    /// Folder of the saved model that it is of; none before there is one. Pretrained encoders are read from there.
    pub model_folder: Option<PathBuf>,
}

impl Configuration {
    /// Reads the file at `path`.
    ///
    /// # Errors
    /// If it cannot be read, is no JSON, or is wrong: the message names the place.
    pub fn read(path: &Path) -> Result<Self> {
        let named = || path.display().to_string();
        let text = std::fs::read_to_string(path).with_context(named)?;
        let value = serde_json::from_str(text.trim_start_matches('\u{feff}')).with_context(named)?;
        Self::parse(path, value).with_context(named)
    }

    /// The configuration that `value` is; `path` is only kept.
    ///
    /// # Errors
    /// If something is missing, unknown or out of range: the message names the place.
    pub fn parse(path: &Path, value: Value) -> Result<Self> {
        let mut warnings = Vec::new();
        let root = Section::new("", &value)?;
        for text in ["license", "model_description"] {
            root.optional::<String>(text)?;
        }
        version(&root)?;
        let language = language(&root)?;
        let inputs = Inputs::parse(root.required_section("inputs")?, &mut warnings)?;
        let outputs = Outputs::parse(root.required_section("outputs")?, inputs.problem)?;
        let training = Training::parse(root.required_section("training_params")?, &inputs, &mut warnings)?;
        let distillation = root.section("distillation")?.map(|it| Distillation::parse(it, &inputs)).transpose()?;
        let metrics: Vec<String> = root.required("metrics")?;
        if metrics.is_empty() {
            bail!("metrics: expected at least one, found none");
        }
        for key in ["architecture", "loss"] {
            if root.value(key).is_none() {
                bail!("{key}: expected a value, found none");
            }
        }
        root.finish()?;
        let path = path.to_path_buf();
        Ok(Self {
            path,
            value,
            language,
            inputs,
            outputs,
            training,
            metrics,
            distillation,
            warnings,
            model_folder: None,
        })
    }

    /// `architecture` as it was read.
    pub fn architecture(&self) -> &Value {
        &self.value["architecture"]
    }

    /// What decides which network it is and what the network reads; a saved model is asked with the same.
    pub fn network(&self) -> Value {
        let (inputs, training) = (&self.inputs, &self.training);
        json!({
            "language": self.language,
            "inputs": {
                "dataset_type": inputs.problem, "model_inputs": inputs.model_inputs, "target": inputs.target,
                "add_start_end_for_seq": inputs.add_start_end_for_seq,
            },
            "training_params": {
                "text_preprocessing": training.text_preprocessing, "tokenizer": training.tokenizer,
                "max_lengths": training.max_lengths, "fixed_lengths": training.fixed_lengths,
                "legacy_padding": training.legacy_padding,
            },
            "architecture": self.architecture(),
        })
    }

    /// `loss` as it was read.
    pub fn loss(&self) -> &Value {
        &self.value["loss"]
    }
}

fn version(root: &Section<'_>) -> Result<()> {
    let found: String = root.required("tool_version")?;
    let mut parts = found.rsplitn(2, '.').skip(1);
    match parts.next() {
        Some(VERSION) => Ok(()),
        _ => Err(root.wrong("tool_version", "1.1.x", format!("`{found}`"))),
    }
}

fn language(root: &Section<'_>) -> Result<Language> {
    let found: String = root.or("language", "english".to_string())?;
    match found.to_lowercase().as_str() {
        "english" => Ok(Language::English),
        "chinese" => Ok(Language::Chinese),
        _ => Err(root.wrong("language", "english or chinese", format!("`{found}`"))),
    }
}

#[cfg(test)]
mod tests;
