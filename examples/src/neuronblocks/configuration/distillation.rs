//! `distillation`: teachers beside the targets, which the original format lacks.
//!
//! ```json
//! "distillation": {
//!   "alpha": 0.9, "loss": "kl", "temperature": 2.0,
//!   "teachers": [
//!     {"scores": {"0": "bad", "1": "good"}, "numbers": "probs"},
//!     {"file": "bert.teacher", "output": "head_of_bert"},
//!     {"model": "me/bert-qqp", "revision": "main", "store": "teachers/", "max_len": 64, "output": "head_of_mine"}
//!   ]
//! }
//! ```
//!
//! The loss is `(1 − alpha) · loss + alpha · mean_i soft(output_i, teacher_i)`. A teacher is columns of the training file
//! (a number for each class, or one of the positive class or of a regression), a file of outputs that was exported, or a
//! fine-tuned model by its hub id or folder, which is asked once and whose answers are kept in `store`. Teachers may share
//! an output layer or have one each.

use std::path::PathBuf;

use anyhow::Result;
use kd_core::objective::SoftLoss;
use kd_data::teacher_outputs::import::Numbers;
use serde::{Deserialize, Serialize};
use serde_json::Value;

use super::inputs::{Inputs, Problem};
use super::section::Section;

/// Where a teacher's outputs come from.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub enum Source {
    /// Columns of the training file, by class; one without a class is the positive class's, or a regression's number.
    Scores {
        /// Class, if there are several columns, and column.
        columns: Vec<(Option<String>, String)>,
        /// What they hold.
        numbers: Numbers,
    },
    /// A file of outputs, as `kd-label --export` writes it.
    File(PathBuf),
    /// A fine-tuned model, which is asked.
    Model {
        /// Hub id or folder.
        id: String,
        /// Revision of the id.
        revision: String,
        /// Folder of the store of its answers.
        store: PathBuf,
        /// Longest sequence in its tokens.
        max_len: Option<usize>,
    },
}

/// A teacher.
#[derive(Debug, Clone, PartialEq)]
pub struct TeacherConfig {
    /// What it says.
    pub source: Source,
    /// Layer that learns from it; default the one that answers, see [`Pairing`](crate::neuronblocks::pairing::Pairing).
    pub output: Option<String>,
}

/// `distillation`.
#[derive(Debug, Clone, PartialEq)]
pub struct Distillation {
    /// Weight of the teachers, in `[0, 1]`; the configured losses weigh 1 minus this. Default 0.5.
    pub alpha: f64,
    /// How far an output is from its teacher's: `kl` (the default), `reverse_kl`, `jensen_shannon`, `logit_mse`, `prob_mse`.
    pub loss: SoftLoss,
    /// Whether the network's answer is the mean of all layers that learn from teachers; default the output's alone whose
    /// loss reads the target.
    pub average: bool,
    /// At least one.
    pub teachers: Vec<TeacherConfig>,
}

impl Distillation {
    /// Columns of the training file that hold scores, each once.
    pub fn score_columns(&self) -> Vec<String> {
        let mut all: Vec<String> = Vec::new();
        for teacher in &self.teachers {
            if let Source::Scores { columns, .. } = &teacher.source {
                for (_, column) in columns {
                    if !all.contains(column) {
                        all.push(column.clone());
                    }
                }
            }
        }
        all
    }

    pub(super) fn parse(section: Section<'_>, inputs: &Inputs) -> Result<Self> {
        if inputs.problem == Problem::Mrc {
            return Err(section.wrong("teachers", "no distillation of mrc", "one"));
        }
        let alpha = section.or("alpha", 0.5)?;
        if !(0.0..=1.0).contains(&alpha) {
            return Err(section.wrong("alpha", "a weight in [0, 1]", alpha));
        }
        let loss = loss(&section, inputs.problem)?;
        let list: Vec<Value> = section.required("teachers")?;
        if list.is_empty() {
            return Err(section.wrong("teachers", "at least one", "none"));
        }
        let teacher = |(idx, value): (usize, &Value)| {
            teacher(Section::new(section.path_of(&format!("teachers[{idx}]")), value)?, inputs)
        };
        let teachers = list.iter().enumerate().map(teacher).collect::<Result<_>>()?;
        let average = section.or("average", false)?;
        section.finish()?;
        Ok(Self { alpha, loss, average, teachers })
    }
}

fn loss(section: &Section<'_>, problem: Problem) -> Result<SoftLoss> {
    let is_regression = problem == Problem::Regression;
    let name: String = section.or("loss", if is_regression { "logit_mse" } else { "kl" }.to_string())?;
    let temperature: f64 = section.or("temperature", 1.0)?;
    if !(temperature.is_finite() && temperature > 0.0) {
        return Err(section.wrong("temperature", "a finite value above 0", temperature));
    }
    let has_temperature = !matches!(name.as_str(), "logit_mse" | "prob_mse");
    if !has_temperature && temperature != 1.0 {
        return Err(section.wrong("temperature", &format!("1, `{name}` has none"), temperature));
    }
    if is_regression && name != "logit_mse" {
        return Err(section.wrong("loss", "logit_mse, the squared difference of numbers", format!("`{name}`")));
    }
    Ok(match name.as_str() {
        "kl" => SoftLoss::Kl { temperature },
        "reverse_kl" => SoftLoss::ReverseKl { temperature },
        "jensen_shannon" => SoftLoss::JensenShannon { temperature },
        "logit_mse" => SoftLoss::LogitMse,
        "prob_mse" => SoftLoss::ProbMse,
        _ => {
            let expected = "kl, reverse_kl, jensen_shannon, logit_mse or prob_mse";
            return Err(section.wrong("loss", expected, format!("`{name}`")));
        }
    })
}

fn teacher(section: Section<'_>, inputs: &Inputs) -> Result<TeacherConfig> {
    let output = section.optional("output")?;
    let source = match (section.value("scores"), section.optional("file")?, section.optional("model")?) {
        (Some(scores), None, None) => {
            Source::Scores { columns: columns(&section, scores, inputs)?, numbers: numbers(&section, inputs.problem)? }
        }
        (None, Some(path), None) => Source::File(path),
        (None, None, Some(id)) => Source::Model {
            id,
            revision: section.or("revision", "main".to_string())?,
            store: section.required("store")?,
            max_len: section.optional("max_len")?,
        },
        (scores, file, model) => {
            let found = usize::from(scores.is_some()) + usize::from(file.is_some()) + usize::from(model.is_some());
            return Err(section.wrong("model", "one of `scores`, `file` and `model`", format!("{found} of them")));
        }
    };
    section.finish()?;
    Ok(TeacherConfig { source, output })
}

fn numbers(section: &Section<'_>, problem: Problem) -> Result<Numbers> {
    let numbers = section.or("numbers", Numbers::Logits)?;
    if problem == Problem::Regression && numbers != Numbers::Logits {
        return Err(section.wrong("numbers", "logits, for a regression's numbers are taken as they are", "probs"));
    }
    Ok(numbers)
}

fn columns(section: &Section<'_>, scores: &Value, inputs: &Inputs) -> Result<Vec<(Option<String>, String)>> {
    let columns = match scores {
        Value::String(column) => vec![(None, column.clone())],
        Value::Object(classes) => {
            let column = |(class, column): (&String, &Value)| match column {
                Value::String(column) => Ok((Some(class.clone()), column.clone())),
                other => Err(section.wrong(&format!("scores.{class}"), "the name of a column", other)),
            };
            classes.iter().map(column).collect::<Result<_>>()?
        }
        other => return Err(section.wrong("scores", "a column, or a column for each class", other)),
    };
    if inputs.problem == Problem::SequenceTagging {
        return Err(section.wrong("scores", "`file` or `model` for tags", "columns of numbers"));
    }
    if inputs.problem == Problem::Regression && !matches!(columns[..], [(None, _)]) {
        return Err(section.wrong("scores", "the one column of a regression", scores));
    }
    for (_, column) in &columns {
        if !inputs.file_header.iter().any(|(name, _)| name == column) {
            return Err(section.wrong("scores", "columns of inputs.file_header", format!("`{column}`")));
        }
    }
    Ok(columns)
}
