//! `inputs`: what is read.

use std::path::PathBuf;

use anyhow::Result;
pub use kd_data::scores::Problem;
use serde::{Deserialize, Serialize};
use serde_json::Value;

use super::section::Section;

/// Files, all of them optional: the command line may name them too. Relative paths are relative to the working directory.
#[derive(Debug, Clone, Default, PartialEq)]
pub struct DataPaths {
    /// To learn from.
    pub train: Option<PathBuf>,
    /// To choose the best model on.
    pub valid: Option<PathBuf>,
    /// To report.
    pub test: Option<PathBuf>,
    /// To predict.
    pub predict: Option<PathBuf>,
    /// Vectors of words.
    pub pre_trained_emb: Option<PathBuf>,
    /// A model whose weights are the start.
    pub pretrained_model: Option<PathBuf>,
}

/// What kind of file the vectors of words are.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize, clap::ValueEnum)]
#[serde(rename_all = "lowercase")]
pub enum VectorType {
    /// GloVe.
    Glove,
    /// word2vec.
    #[value(name = "word2vec")]
    #[serde(rename = "word2vec")]
    Word2vec,
    /// fastText.
    #[value(name = "fasttext")]
    Fasttext,
}

/// How the vectors of words are written.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize, clap::ValueEnum)]
#[serde(rename_all = "lowercase")]
pub enum VectorCoding {
    /// A line a word.
    Text,
    /// The tools' own bytes.
    Binary,
}

/// Scheme of the tags.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub enum Scheme {
    /// Begin, inside, outside.
    BIO,
    /// The same, with end and single.
    BIOES,
}

/// `inputs`.
#[derive(Debug, Clone, PartialEq)]
pub struct Inputs {
    /// Whether encoded data is kept; default true.
    pub use_cache: bool,
    /// `dataset_type`.
    pub problem: Problem,
    /// `tagging_scheme`; there for tagging.
    pub scheme: Option<Scheme>,
    /// `data_paths`.
    pub paths: DataPaths,
    /// Whether the first line of files names the columns; default false.
    pub file_with_col_header: bool,
    /// Default glove.
    pub vector_type: VectorType,
    /// Default text.
    pub vector_coding: VectorCoding,
    /// Whether the vocabulary has every word of the vectors; default: those of the data.
    pub involve_all_words_in_pretrained_emb: bool,
    /// Whether sequences get a start and an end token; default false.
    pub add_start_end_for_seq: bool,
    /// Place of each column in training and test files, from 0.
    pub file_header: Vec<(String, usize)>,
    /// Place of each column in files to predict; default `file_header`.
    pub predict_file_header: Option<Vec<(String, usize)>>,
    /// Columns of each branch.
    pub model_inputs: Vec<(String, Vec<String>)>,
    /// Columns that say what is right.
    pub target: Vec<String>,
    /// The class that `auc` and `f1` of two classes are of.
    pub positive_label: Option<String>,
}

impl Inputs {
    pub(super) fn parse(section: Section<'_>, warnings: &mut Vec<String>) -> Result<Self> {
        let problem = problem(&section)?;
        let scheme: Option<Scheme> = section.optional("tagging_scheme")?;
        if problem == Problem::SequenceTagging && scheme.is_none() {
            return Err(section.wrong("tagging_scheme", "BIO or BIOES, which sequence_tagging needs", "none"));
        }
        let file_header = header(&section, "file_header")?;
        let mut inputs = Self {
            use_cache: section.or("use_cache", true)?,
            problem,
            scheme,
            paths: paths(&section)?,
            file_with_col_header: section.or("file_with_col_header", false)?,
            vector_type: section.or("pretrained_emb_type", VectorType::Glove)?,
            vector_coding: section.or("pretrained_emb_binary_or_text", VectorCoding::Text)?,
            involve_all_words_in_pretrained_emb: section.or("involve_all_words_in_pretrained_emb", false)?,
            add_start_end_for_seq: section.or("add_start_end_for_seq", false)?,
            file_header: file_header.ok_or_else(|| section.wrong("file_header", "places of columns", "none"))?,
            predict_file_header: header(&section, "predict_file_header")?,
            model_inputs: branches(&section)?,
            target: section.required("target")?,
            positive_label: positive_label(&section)?,
        };
        if let Some(missing) = inputs.target.iter().find(|target| !has(&inputs.file_header, target)) {
            let columns = inputs.file_header.iter().map(|(name, _)| name.as_str()).collect::<Vec<_>>().join(", ");
            return Err(section.wrong(
                "target",
                &format!("columns of file_header ({columns})"),
                format!("`{missing}`"),
            ));
        }
        if inputs.target.is_empty() {
            return Err(section.wrong("target", "at least one column", "none"));
        }
        if problem == Problem::Mrc && inputs.add_start_end_for_seq {
            // The original looked at it in no such file.
            let path = section.path_of("add_start_end_for_seq");
            warnings.push(format!("{path}: has no effect in mrc, answers are places in the passage"));
            inputs.add_start_end_for_seq = false;
        }
        if scheme.is_some() && problem != Problem::SequenceTagging {
            warnings.push(format!("{}: has no effect but in sequence_tagging", section.path_of("tagging_scheme")));
        }
        section.finish()?;
        Ok(inputs)
    }
}

fn problem(section: &Section<'_>) -> Result<Problem> {
    let name: String = section.required("dataset_type")?;
    let all = [Problem::Classification, Problem::Regression, Problem::SequenceTagging, Problem::Mrc];
    let known = all.into_iter().find(|problem| problem.name() == name.to_lowercase());
    known.ok_or_else(|| {
        section.wrong("dataset_type", "classification, regression, sequence_tagging or mrc", format!("`{name}`"))
    })
}

fn paths(section: &Section<'_>) -> Result<DataPaths> {
    let Some(section) = section.section("data_paths")? else { return Ok(DataPaths::default()) };
    // An empty text is no path.
    let path = |key: &'static str| -> Result<Option<PathBuf>> {
        Ok(section.optional::<PathBuf>(key)?.filter(|path| !path.as_os_str().is_empty()))
    };
    let paths = DataPaths {
        train: path("train_data_path")?,
        valid: path("valid_data_path")?,
        test: path("test_data_path")?,
        predict: path("predict_data_path")?,
        pre_trained_emb: path("pre_trained_emb")?,
        pretrained_model: path("pretrained_model_path")?,
    };
    section.finish()?;
    Ok(paths)
}

/// Columns and their places, in the order of the file.
fn header(section: &Section<'_>, key: &'static str) -> Result<Option<Vec<(String, usize)>>> {
    let Some(columns) = section.optional::<serde_json::Map<String, Value>>(key)? else { return Ok(None) };
    let mut header: Vec<(String, usize)> = Vec::new();
    for (name, place) in columns {
        let path = format!("{key}.{name}");
        let place = place.as_u64().ok_or_else(|| section.wrong(&path, "the place of a column, from 0", &place))?;
        let place = place as usize;
        if let Some((other, _)) = header.iter().find(|(_, taken)| *taken == place) {
            return Err(section.wrong(&path, &format!("a place of its own, `{other}` has this one"), place));
        }
        header.push((name, place));
    }
    if header.is_empty() {
        return Err(section.wrong(key, "at least one column", "none"));
    }
    Ok(Some(header))
}

fn branches(section: &Section<'_>) -> Result<Vec<(String, Vec<String>)>> {
    let branches: serde_json::Map<String, Value> = section.required("model_inputs")?;
    let columns = |(name, columns): (String, Value)| {
        let path = format!("model_inputs.{name}");
        let list: Option<Vec<String>> = serde_json::from_value(columns.clone()).ok();
        match list.filter(|list| !list.is_empty()) {
            Some(list) => Ok((name, list)),
            None => Err(section.wrong(&path, "a list of columns", columns)),
        }
    };
    let branches = branches.into_iter().map(columns).collect::<Result<Vec<_>>>()?;
    if branches.is_empty() {
        return Err(section.wrong("model_inputs", "at least one branch", "none"));
    }
    Ok(branches)
}

fn positive_label(section: &Section<'_>) -> Result<Option<String>> {
    Ok(match section.value("positive_label") {
        None | Some(Value::Null) => None,
        Some(Value::String(label)) => Some(label.clone()),
        Some(Value::Number(label)) => Some(label.to_string()),
        Some(other) => return Err(section.wrong("positive_label", "a class", other)),
    })
}

fn has(header: &[(String, usize)], column: &str) -> bool {
    header.iter().any(|(name, _)| name == column)
}
