//! The encoder with the head that a task needs.

use std::path::Path;
use std::str::FromStr;

use anyhow::{Result, bail};
use candle_core::{DType, Device};
use kd_core::model::Student;
use kd_core::ops::packed::Precision;
use kd_core::optim::Group;
use kd_core::variables::Variables;
use kd_data::task::TaskKind;
use kd_teachers::config::{EncoderConfig, ProblemType};
use kd_teachers::heads::{HeadOptions, Pooling, SequenceClassifier, TokenTagger};
use kd_teachers::hub::ModelFiles;
use serde::{Deserialize, Serialize};

use super::Settings;

/// What stays as it is in fine-tuning.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Freeze {
    /// The embeddings.
    Embeddings,
    /// The embeddings and so many layers above them.
    Layers(usize),
}

impl FromStr for Freeze {
    type Err = String;

    fn from_str(text: &str) -> std::result::Result<Self, String> {
        match text {
            "embeddings" => Ok(Self::Embeddings),
            _ => text
                .parse()
                .map(Self::Layers)
                .map_err(|_| format!("expected embeddings or a number of layers, found `{text}`")),
        }
    }
}

/// An encoder under a new head.
#[derive(Debug)]
pub struct Model {
    head: Head,
    variables: Variables,
    files: ModelFiles,
    on_cpu: bool,
}

#[derive(Debug)]
enum Head {
    Classifier(Box<SequenceClassifier>),
    Tagger(Box<TokenTagger>),
}

impl Head {
    /// A copy to be asked: on the CPU with packed layers, which keep no graph.
    fn asked(&self, on_cpu: bool) -> candle_core::Result<Box<dyn Student>> {
        Ok(match self {
            Head::Classifier(classifier) if on_cpu => Box::new(classifier.pack(Precision::F32)?),
            Head::Tagger(tagger) if on_cpu => Box::new(tagger.pack(Precision::F32)?),
            Head::Classifier(classifier) => Box::new((**classifier).clone()),
            Head::Tagger(tagger) => Box::new((**tagger).clone()),
        })
    }
}

/// A fine-tuned model from its folder, to be asked.
pub fn load(kind: TaskKind, folder: &Path, device: &Device) -> Result<Box<dyn Student>> {
    let head = match kind {
        TaskKind::Tagging => Head::Tagger(Box::new(TokenTagger::load(folder, device)?.0)),
        _ => Head::Classifier(Box::new(SequenceClassifier::load(folder, device)?.0)),
    };
    Ok(head.asked(device.is_cpu())?)
}

impl Model {
    /// The encoder of `files` under a new head for `classes`.
    pub fn new(
        kind: TaskKind,
        classes: &[String],
        files: &ModelFiles,
        settings: &Settings,
        device: &Device,
    ) -> Result<Self> {
        let options = HeadOptions {
            layers: settings.layers,
            pooling: Pooling::Family, // transformers' head, so that it loads what is saved
            problem_type: match kind {
                TaskKind::Regression => Some(ProblemType::Regression),
                TaskKind::MultiLabel => Some(ProblemType::MultiLabel),
                TaskKind::Classification | TaskKind::Tagging => Some(ProblemType::SingleLabel),
            },
            compute: settings.bf16.then_some(DType::BF16),
            ..HeadOptions::default()
        };
        let (head, variables) = match kind {
            TaskKind::Tagging => {
                let (tagger, variables) = TokenTagger::from_files(files, classes, settings.seed, device, &options)?;
                (Head::Tagger(Box::new(tagger)), variables)
            }
            _ => {
                let (classifier, variables) =
                    SequenceClassifier::from_files(files, classes, settings.seed, device, &options)?;
                (Head::Classifier(Box::new(classifier)), variables)
            }
        };
        let model = Self { head, variables, files: files.clone(), on_cpu: device.is_cpu() };
        let longest = model.config().max_positions;
        if settings.max_len > longest {
            bail!("--max-len: expected at most {longest}, the positions of {}, found {}", files.id, settings.max_len);
        }
        Ok(model)
    }

    /// What is trained.
    pub fn student(&self) -> &dyn Student {
        match &self.head {
            Head::Classifier(classifier) => &**classifier,
            Head::Tagger(tagger) => &**tagger,
        }
    }

    /// Its variables.
    pub fn variables(&self) -> &Variables {
        &self.variables
    }

    /// The encoder's sizes.
    pub fn config(&self) -> &EncoderConfig {
        match &self.head {
            Head::Classifier(classifier) => classifier.encoder().config(),
            Head::Tagger(tagger) => tagger.encoder().config(),
        }
    }

    /// The model as it is now, to be asked.
    pub fn asked(&self) -> candle_core::Result<Box<dyn Student>> {
        self.head.asked(self.on_cpu)
    }

    /// Writes a folder that can be loaded again, here and with transformers.
    pub fn save(&self, folder: &Path) -> Result<()> {
        match &self.head {
            Head::Classifier(classifier) => classifier.save(&self.variables, &self.files.tokenizer, folder)?,
            Head::Tagger(tagger) => tagger.save(&self.variables, &self.files.tokenizer, folder)?,
        }
        Ok(())
    }

    /// The groups of what stays as it is; a trainer refuses one that is no variable's, of a layer that is not there.
    pub fn frozen_groups(&self, freeze: Option<&Freeze>) -> Vec<Group> {
        let prefixes = match freeze {
            None => Vec::new(),
            Some(Freeze::Embeddings) => vec!["*embedding".to_string()],
            Some(Freeze::Layers(n)) => {
                let layers = self.config().family.layers();
                let frozen = (0..*n).map(|layer| format!("{layers}.{layer}."));
                std::iter::once("*embedding".to_string()).chain(frozen).collect()
            }
        };
        prefixes.iter().map(|prefix| Group::frozen(format!("{prefix}*"))).collect()
    }
}
