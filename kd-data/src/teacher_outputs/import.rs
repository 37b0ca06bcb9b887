//! Outputs of a teacher that is not in Rust: a Python model's, an API's, or numbers that somebody published.
//!
//! | function     | file                                                                             |
//! |--------------|----------------------------------------------------------------------------------|
//! | [`jsonl()`]  | an object a line: text or words, and `logits` or `probs`                         |
//! | [`tsv()`]    | a column a class, or one of the positive class's score, as NeuronBlocks has it   |
//! | `parquet`    | the same columns, or one of lists; with this crate's feature `parquet`           |
//! | [`npy()`]    | NumPy's matrix, `(rows, classes)`, of examples that are at hand                  |
//!
//! Numbers are logits or probabilities. Probabilities are stored as their logarithms, whose softmax they are; each has
//! to be above 0 and at most 1, and those of a row have to sum to 1 (to 0.01: files are rounded). Two classes may be
//! given as one number, the second's: a probability `p` stands for `log(1 − p), log p` and a logit `z` for `0, z`.
//!
//! ```
//! use candle_core::Device;
//! use kd_data::teacher_outputs::{About, TeacherOutputs, import};
//! let folder = tempfile::tempdir().unwrap();
//! let file = folder.path().join("answers.jsonl");
//! std::fs::write(&file, r#"{"text": "a good film", "probs": {"pos": 0.75, "neg": 0.25}}"#).unwrap();
//! let about = About::named("an-api", "2026-11", ["neg", "pos"].map(String::from).to_vec());
//! let mut outputs = TeacherOutputs::in_memory(about)?;
//! assert_eq!(import::jsonl(&file, &mut outputs)?, 1);
//! let logits = outputs.join(["a good film"])?.logits(0)?;
//! assert_eq!(logits.to_vec2::<f32>()?, [[0.25f32.ln(), 0.75f32.ln()]]);
//! # Ok::<(), kd_data::Error>(())
//! ```

mod jsonl;
mod npy;
#[cfg(feature = "parquet")]
mod parquet;
mod tsv;

use std::fs::File;
use std::io::{BufRead, BufReader};
use std::path::Path;

use candle_core::{Device, Tensor};
use serde::{Deserialize, Serialize};

pub use jsonl::jsonl;
pub use npy::npy;
#[cfg(feature = "parquet")]
pub use parquet::parquet;
pub use tsv::tsv;

use super::{Content, TeacherOutputs};
use crate::error::{Error, Result, count};

/// Examples of a block.
const BATCH: usize = 1024;
/// How far the sum of a row's probabilities may be from 1.
const SUM: f64 = 0.01;

/// What the numbers of a file are.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Numbers {
    /// Of any size.
    #[default]
    Logits,
    /// Above 0 and at most 1, the sum of a row 1.
    Probs,
}

impl std::str::FromStr for Numbers {
    type Err = String;

    fn from_str(text: &str) -> std::result::Result<Self, String> {
        match text {
            "logits" => Ok(Self::Logits),
            "probs" => Ok(Self::Probs),
            _ => Err(format!("expected logits or probs, found `{text}`")),
        }
    }
}

/// Which columns of a table are read.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct ScoreColumns {
    /// Whether the first line names the columns; without, a column's name is its number, counted from 1. Parquet always
    /// has names.
    pub header: bool,
    /// The column of the text, or of the first text of a pair.
    pub first: String,
    /// The column of the second text.
    pub second: Option<String>,
    /// A column for each class, in the order of the teacher's classes; or one for the second of two classes; or, in
    /// Parquet, one of lists.
    pub scores: Vec<String>,
    /// What they hold.
    pub numbers: Numbers,
}

/// An example from a file.
#[derive(Debug)]
enum Owned {
    Text(String),
    Pair(String, String),
    Words(Vec<String>),
}

impl Owned {
    fn of_texts(first: String, second: Option<String>) -> Self {
        match second {
            Some(second) => Self::Pair(first, second),
            None => Self::Text(first),
        }
    }

    fn content(&self) -> Content<'_> {
        match self {
            Self::Text(text) => text.into(),
            Self::Pair(first, second) => (first.as_str(), second.as_str()).into(),
            Self::Words(words) => words.into(),
        }
    }
}

/// Collects rows into blocks.
struct Import<'a> {
    outputs: &'a mut TeacherOutputs,
    examples: Vec<Owned>,
    rows: Vec<usize>,
    logits: Vec<f32>,
    read: usize,
}

impl<'a> Import<'a> {
    fn new(outputs: &'a mut TeacherOutputs) -> Self {
        Self { outputs, examples: Vec::new(), rows: Vec::new(), logits: Vec::new(), read: 0 }
    }

    fn classes(&self) -> usize {
        self.outputs.classes().len()
    }

    /// Adds an example with the logits of its rows, `(rows, classes)`.
    fn push(&mut self, example: Owned, logits: &[f32]) -> Result<()> {
        self.rows.push(logits.len() / self.classes());
        self.examples.push(example);
        self.logits.extend_from_slice(logits);
        if self.examples.len() >= BATCH { self.write() } else { Ok(()) }
    }

    fn write(&mut self) -> Result<()> {
        let contents: Vec<Content<'_>> = self.examples.iter().map(Owned::content).collect();
        let shape = (self.rows.iter().sum::<usize>(), self.outputs.classes().len());
        let logits = Tensor::from_slice(&self.logits, shape, &Device::Cpu)?;
        self.outputs.append(&contents, &self.rows, &logits)?;
        self.read += self.examples.len();
        (self.examples, self.rows, self.logits) = Default::default();
        Ok(())
    }

    /// Number of examples.
    fn finish(mut self) -> Result<usize> {
        self.write()?;
        self.outputs.flush()?;
        Ok(self.read)
    }
}

/// The logits of one row of a file's numbers, or what was expected and what was found.
fn logits_of(numbers: Numbers, classes: &[String], row: &[f64]) -> std::result::Result<Vec<f32>, (String, String)> {
    let one = classes.len() == 2 && row.len() == 1;
    if row.len() != classes.len() && !one {
        let or_one = if classes.len() == 2 { " or 1" } else { "" };
        let expected = format!("{}{or_one} of the classes {}", count(classes.len(), "number"), classes.join(", "));
        return Err((expected, row.len().to_string()));
    }
    let name = |class: usize| if one { &classes[1] } else { &classes[class] };
    let wrong = |value: &dyn Fn(f64) -> bool, expected: &str| match row.iter().position(|&number| !value(number)) {
        Some(class) => Err((format!("{expected} of class `{}`", name(class)), row[class].to_string())),
        None => Ok(()),
    };
    let logits: Vec<f64> = match numbers {
        Numbers::Logits => {
            wrong(&|logit| (logit as f32).is_finite(), "a finite logit")?;
            if one { vec![0.0, row[0]] } else { row.to_vec() }
        }
        Numbers::Probs if one => {
            wrong(&|p| p > 0.0 && p < 1.0, "a probability above 0 and below 1")?;
            vec![(-row[0]).ln_1p(), row[0].ln()]
        }
        Numbers::Probs => {
            wrong(&|p| p > 0.0 && p <= 1.0, "a probability above 0 and at most 1")?;
            let sum: f64 = row.iter().sum();
            if (sum - 1.0).abs() > SUM {
                return Err(("probabilities whose sum is 1".to_string(), sum.to_string()));
            }
            row.iter().map(|p| p.ln()).collect()
        }
    };
    Ok(logits.into_iter().map(|logit| logit as f32).collect())
}

/// Calls `line` with the number of every line, counted from 1, and its text without its end.
fn for_lines(path: &Path, mut line: impl FnMut(usize, &str) -> Result<()>) -> Result<()> {
    let mut file = BufReader::new(File::open(path).map_err(Error::io(path))?);
    let (mut bytes, mut number, mut start) = (Vec::new(), 0, 0);
    while file.read_until(b'\n', &mut bytes).map_err(Error::io(path))? > 0 {
        number += 1;
        let mut text = std::str::from_utf8(&bytes).map_err(|error| {
            let byte = start + error.valid_up_to() as u64;
            Error::Utf8 { path: path.to_path_buf(), line: number, byte }
        })?;
        if number == 1 {
            text = text.strip_prefix('\u{feff}').unwrap_or(text);
        }
        let text = text.strip_suffix('\n').unwrap_or(text);
        line(number, text.strip_suffix('\r').unwrap_or(text))?;
        start += bytes.len() as u64;
        bytes.clear();
    }
    Ok(())
}

#[cfg(test)]
mod tests;
