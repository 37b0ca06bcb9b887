//! `outputs`: what is written, and where.

use std::path::PathBuf;

use anyhow::Result;

use super::inputs::Problem;
use super::section::Section;

/// A column of a prediction file.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Field {
    /// Class, number, tags or answer.
    Prediction,
    /// Probability of the predicted class.
    Confidence,
    /// Probability of a class.
    ConfidenceOf(String),
}

impl std::fmt::Display for Field {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        match self {
            Self::Prediction => f.write_str("prediction"),
            Self::Confidence => f.write_str("confidence"),
            Self::ConfidenceOf(class) => write!(f, "confidence@{class}"),
        }
    }
}

impl Field {
    fn parse(text: &str) -> Option<Self> {
        match text.split_once('@') {
            Some(("confidence", label)) if !label.is_empty() => Some(Self::ConfidenceOf(label.to_string())),
            None if text == "prediction" => Some(Self::Prediction),
            None if text == "confidence" => Some(Self::Confidence),
            _ => None,
        }
    }
}

/// `outputs`.
#[derive(Debug, Clone, PartialEq)]
pub struct Outputs {
    /// Folder of the model, its logs and its predictions.
    pub save_base_dir: Option<PathBuf>,
    /// Name of the model's folder in it.
    pub model_name: String,
    /// Name of the log of a training; default `train.log`.
    pub train_log_name: String,
    /// Name of the log of a test; default `test.log`.
    pub test_log_name: String,
    /// Name of the log of a prediction; default `predict.log`.
    pub predict_log_name: String,
    /// Output layers whose mean is the answer, to class or number; default the one whose loss reads the first target of the
    /// problem's kind, or those that learn from teachers where `distillation.average` says so. Not in the original.
    pub answer: Option<Vec<String>>,
    /// Columns that a prediction file adds; default prediction and, of classes, confidence.
    pub predict_fields: Vec<Field>,
    /// Name of the prediction file; default `predict.tsv`.
    pub predict_output_name: String,
    /// Folder of encoded data; default `cache` in `save_base_dir`.
    pub cache_dir: Option<PathBuf>,
}

impl Outputs {
    pub(super) fn parse(section: Section<'_>, problem: Problem) -> Result<Self> {
        let name = |key, default: &str| section.or(key, default.to_string());
        let outputs = Self {
            save_base_dir: section.optional("save_base_dir")?,
            model_name: section.required("model_name")?,
            train_log_name: name("train_log_name", "train.log")?,
            test_log_name: name("test_log_name", "test.log")?,
            predict_log_name: name("predict_log_name", "predict.log")?,
            answer: answer(&section, problem)?,
            predict_fields: fields(&section, problem)?,
            predict_output_name: name("predict_output_name", "predict.tsv")?,
            cache_dir: section.optional("cache_dir")?,
        };
        section.finish()?;
        Ok(outputs)
    }
}

fn answer(section: &Section<'_>, problem: Problem) -> Result<Option<Vec<String>>> {
    let Some(answer) = section.optional::<Vec<String>>("answer")? else { return Ok(None) };
    if !matches!(problem, Problem::Classification | Problem::Regression) {
        return Err(section.wrong("answer", "none but of classification and regression", answer.join(", ")));
    }
    if answer.is_empty() {
        return Err(section.wrong("answer", "at least one output layer", "none"));
    }
    Ok(Some(answer))
}

fn fields(section: &Section<'_>, problem: Problem) -> Result<Vec<Field>> {
    let has_confidence = problem == Problem::Classification;
    let Some(names) = section.optional::<Vec<String>>("predict_fields")? else {
        let default = [Field::Prediction, Field::Confidence];
        return Ok(default[..if has_confidence { 2 } else { 1 }].to_vec());
    };
    let mut fields = Vec::new();
    for (idx, name) in names.iter().enumerate() {
        let path = format!("predict_fields[{idx}]");
        let expected = if has_confidence { "prediction, confidence or confidence@CLASS" } else { "prediction" };
        match Field::parse(name) {
            Some(field) if field == Field::Prediction || has_confidence => fields.push(field),
            _ => return Err(section.wrong(&path, expected, format!("`{name}`"))),
        }
    }
    Ok(fields)
}
