//! A trained student as a folder, complete in itself.
//!
//! | file | content |
//! |---|---|
//! | `config.json` | format and version, kind and sizes of the student, names of the classes, the rule of lower case |
//! | `words.json` | the words in the order of their rows, from row 2 (0 is padding, 1 unknown) |
//! | `characters.json` | the characters likewise |
//! | `model.safetensors` | the variables by name, f32; the word table in f16 if [`BundleOptions::half_precision`] |
//!
//! ```json
//! {
//!   "format": "kd-student",
//!   "version": 1,
//!   "student": { "tagger": { "encoder": { "words": 5002, "word_width": 100, "...": 0 }, "head": "crf" } },
//!   "classes": ["O", "B-PER", "I-PER"],
//!   "lower_case": true
//! }
//! ```
//!
//! [`save_pairs`] writes a student of pairs of texts, with its heads, in the same way, and [`PairBundle`] reads it.
//!
//! # Writing
//!
//! [`save`] writes the folder `.NAME.new` beside `NAME`, has the system write it to disk, moves a folder that stands at
//! `NAME` to `.NAME.old`, renames the new one into place and removes the old one. Killed at any moment, it leaves
//! the old student or the new one, and [`Bundle::load`] finds it; the next [`save`] removes what was left over.
//! A folder that holds anything but a saved student is never replaced. Two processes must not save to one place at once.

mod folder;
mod pairs;
mod weights;

pub use self::pairs::{PairBundle, PairDescription, save_pairs};

use std::path::Path;

use candle_core::{DType, Device};
use kd_core::batch::Tokens;
use kd_core::model::{Mode, Output, Student};
use kd_core::ops::packed::Precision;
use kd_core::variables::Variables;
use serde::{Deserialize, Serialize};

use crate::classifier::{Classifier, ClassifierConfig};
use crate::encoder::{SPECIAL, WordEncoderConfig};
use crate::error::{Error, Result, check_distinct};
use crate::lookup::{Kind, Lookup};
use crate::tagger::{Tagger, TaggerConfig};

/// What stands in `format` of every `config.json`.
const FORMAT: &str = "kd-student";
/// The version of the folder's format that is written, and the only one that is read.
const VERSION: u32 = 1;

const CONFIG: &str = "config.json";
const WORDS: &str = "words.json";
const CHARACTERS: &str = "characters.json";
const WEIGHTS: &str = "model.safetensors";

/// The kinds of student that can be saved, with their sizes.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum StudentConfig {
    /// A [`Tagger`].
    Tagger(TaggerConfig),
    /// A [`Classifier`].
    Classifier(ClassifierConfig),
}

impl StudentConfig {
    /// Sizes of the part that reads words.
    pub fn encoder(&self) -> &WordEncoderConfig {
        match self {
            Self::Tagger(config) => &config.encoder,
            Self::Classifier(config) => &config.encoder,
        }
    }

    /// What gets a label.
    pub fn kind(&self) -> Kind {
        match self {
            Self::Tagger(_) => Kind::Words,
            Self::Classifier(_) => Kind::Examples,
        }
    }

    /// `tagger` or `classifier`.
    pub fn name(&self) -> &'static str {
        match self {
            Self::Tagger(_) => "tagger",
            Self::Classifier(_) => "classifier",
        }
    }
}

/// All of a saved student but its variables.
#[derive(Debug, Clone, PartialEq)]
pub struct Description {
    /// Kind and sizes.
    pub student: StudentConfig,
    /// Names of the classes, in the order of the logits' columns.
    pub classes: Vec<String>,
    /// The words in the order of their rows, from row 2; padding and unknown are not among them.
    pub words: Vec<String>,
    /// The characters in the order of their rows, from row 2.
    pub characters: Vec<char>,
    /// Whether words are looked up in lower case.
    pub lower_case: bool,
}

impl Description {
    fn check(&self) -> Result<()> {
        self.student.encoder().check()?;
        check_distinct("classes", &self.classes)?;
        if self.classes.is_empty() {
            return Err(Error::config("classes", "at least 1", 0));
        }
        Ok(())
    }

    /// The lists as a lookup, if they fit the student's tables.
    fn lookup(&self) -> Result<Lookup> {
        self.words_fit()?;
        self.characters_fit()?;
        let max_chars = self.student.encoder().max_chars;
        Lookup::new(self.words.clone(), self.characters.clone(), self.lower_case, max_chars)
    }

    fn words_fit(&self) -> Result<()> {
        check_distinct("words", &self.words)?;
        fits("words", self.words.len(), self.student.encoder().words)
    }

    fn characters_fit(&self) -> Result<()> {
        check_distinct("characters", &self.characters)?;
        fits("characters", self.characters.len(), self.student.encoder().characters)
    }
}

fn fits(list: &'static str, found: usize, rows: usize) -> Result<()> {
    if found + SPECIAL == rows {
        return Ok(());
    }
    let message =
        format!("expected {} entries for {rows} rows with padding and unknown, found {found}", rows - SPECIAL);
    Err(Error::Vocabulary { list, message })
}

/// How a student is written.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct BundleOptions {
    /// Write the word table, most of a small student's bytes, in f16: half the size, a relative error of at most
    /// 2⁻¹¹ of each value. It is f32 again once loaded.
    pub half_precision: bool,
}

#[derive(Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
struct ConfigFile {
    format: String,
    version: u32,
    student: StudentConfig,
    classes: Vec<String>,
    lower_case: bool,
}

/// Writes a trained student to the folder `dir`, replacing a saved student that stands there, and returns the size of
/// the folder's files in bytes.
///
/// # Errors
/// If the description contradicts itself or the variables, if something that is no saved student stands at `dir`, or
/// if writing fails; what stood at `dir` stays then.
pub fn save(dir: &Path, description: &Description, variables: &Variables, options: BundleOptions) -> Result<u64> {
    description.check()?;
    description.lookup()?;
    let tensors = variables.tensors();
    // A student that could not be loaded is not written.
    let own = tensors.clone().into_iter().collect();
    weights::build(own, &Device::Cpu, &dir.join(WEIGHTS), |vb| student(description, Precision::F32, vb))?;

    let config = ConfigFile {
        format: FORMAT.to_string(),
        version: VERSION,
        student: description.student.clone(),
        classes: description.classes.clone(),
        lower_case: description.lower_case,
    };
    folder::replace(dir, |new| {
        folder::write_json(&new.join(CONFIG), &config)?;
        folder::write_json(&new.join(WORDS), &description.words)?;
        folder::write_json(&new.join(CHARACTERS), &description.characters)?;
        weights::write(&new.join(WEIGHTS), &tensors, options)
    })?;
    bytes(dir)
}

/// Copies a saved student to the folder `to`, replacing one that stands there, as [`save`] would.
///
/// # Errors
/// If `from` lacks a file, something that is no saved student stands at `to`, or writing fails.
pub fn copy(from: &Path, to: &Path) -> Result<()> {
    let from = folder::current(from);
    folder::replace(to, |new| {
        for name in [CONFIG, WORDS, CHARACTERS, WEIGHTS] {
            std::fs::copy(from.join(name), new.join(name)).map_err(Error::io(&from.join(name), "copy"))?;
            folder::sync(&new.join(name))?;
        }
        Ok(())
    })
}

/// Size of the files of a folder, in bytes, as a copy of it would need; without what the file system adds.
///
/// # Errors
/// If the folder cannot be read.
pub fn bytes(dir: &Path) -> Result<u64> {
    let mut sum = 0;
    for entry in std::fs::read_dir(dir).map_err(Error::io(dir, "read"))? {
        let entry = entry.map_err(Error::io(dir, "read"))?;
        let metadata = entry.metadata().map_err(Error::io(&entry.path(), "read"))?;
        sum += if metadata.is_dir() { bytes(&entry.path())? } else { metadata.len() };
    }
    Ok(sum)
}

/// A student read from its folder: it turns words into tags or classes (see [`crate::predict`]) and, as a
/// [`Student`], tokens into logits. Its variables are constants: no graph is kept, and it cannot be trained further.
pub struct Bundle {
    description: Description,
    lookup: Lookup,
    student: Box<dyn Student + Send + Sync>,
    parameters: usize,
    device: Device,
}

impl std::fmt::Debug for Bundle {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        let student = &self.description.student;
        f.debug_struct("Bundle").field("student", student).field("classes", &self.description.classes).finish()
    }
}

impl Bundle {
    /// Reads the student that [`save`] wrote to `dir`.
    ///
    /// # Errors
    /// If a file is missing, is not what it should be or does not fit the others; the message names the file and what
    /// in it was expected and found.
    pub fn load(dir: &Path, device: &Device) -> Result<Self> {
        Self::load_in(dir, device, Precision::F32)
    }

    /// As [`Bundle::load`], with the LSTM's weights rounded to `precision` where it runs on the CPU.
    ///
    /// # Errors
    /// As [`Bundle::load`].
    pub fn load_in(dir: &Path, device: &Device, precision: Precision) -> Result<Self> {
        let dir = folder::current(dir);
        let path = dir.join(CONFIG);
        let text = folder::read(&path)?;
        check_format(&path, &text)?;
        let config: ConfigFile =
            serde_json::from_str(&text).map_err(|cause| Error::Json { path: path.clone(), cause })?;
        let description = Description {
            student: config.student,
            classes: config.classes,
            words: folder::read_json(&dir.join(WORDS))?,
            characters: folder::read_json(&dir.join(CHARACTERS))?,
            lower_case: config.lower_case,
        };
        description.check().map_err(|error| error.within(&path))?;
        description.words_fit().map_err(|error| error.within(&dir.join(WORDS)))?;
        description.characters_fit().map_err(|error| error.within(&dir.join(CHARACTERS)))?;
        let lookup = description.lookup()?;

        let path = dir.join(WEIGHTS);
        let tensors = weights::read(&path, device)?;
        let parameters = tensors.values().map(|tensor| tensor.elem_count()).sum();
        let student = weights::build(tensors, device, &path, |vb| student(&description, precision, vb))?;
        Ok(Self { description, lookup, student, parameters, device: device.clone() })
    }

    /// All but the variables.
    pub fn description(&self) -> &Description {
        &self.description
    }

    /// Names of the classes, in the order of the logits' columns.
    pub fn classes(&self) -> &[String] {
        &self.description.classes
    }

    /// How words become ids.
    pub fn lookup(&self) -> &Lookup {
        &self.lookup
    }

    /// Number of values in all variables.
    pub fn parameter_count(&self) -> usize {
        self.parameters
    }

    /// The device of the variables.
    pub fn device(&self) -> &Device {
        &self.device
    }

    /// A padded batch of sentences with this student's kind of rows, on its device.
    ///
    /// # Errors
    /// If there are no sentences, or one has no words.
    pub fn tokens(&self, sentences: &[Vec<String>]) -> candle_core::Result<Tokens> {
        self.lookup.tokens(sentences, self.description.student.kind(), &self.device)
    }
}

impl Student for Bundle {
    fn forward(&self, tokens: &Tokens, mode: Mode) -> candle_core::Result<Output> {
        self.student.forward(tokens, mode)
    }
}

/// Looks at format and version before anything else, so that another version's fields are not reported as faults.
fn check_format(path: &Path, text: &str) -> Result<()> {
    let value: serde_json::Value =
        serde_json::from_str(text).map_err(|cause| Error::Json { path: path.to_path_buf(), cause })?;
    for (field, expected) in [("format", serde_json::json!(FORMAT)), ("version", serde_json::json!(VERSION))] {
        let found = value.get(field).unwrap_or(&serde_json::Value::Null);
        if *found != expected {
            let (expected, found) = (format!("`{field}` {expected}"), found.to_string());
            return Err(Error::Format { path: path.to_path_buf(), expected, found });
        }
    }
    Ok(())
}

/// Builds the student from the variables that `vb` gives, which are constants.
fn student(
    description: &Description,
    precision: Precision,
    vb: candle_nn::VarBuilder,
) -> Result<Box<dyn Student + Send + Sync>> {
    let classes = description.classes.len();
    Ok(match &description.student {
        StudentConfig::Tagger(config) => {
            let mut tagger = Tagger::new(config, classes, vb)?;
            tagger.freeze(precision)?;
            Box::new(tagger)
        }
        StudentConfig::Classifier(config) => {
            let mut classifier = Classifier::new(config, classes, vb)?;
            classifier.freeze(precision)?;
            Box::new(classifier)
        }
    })
}

/// The dtype of a loaded student's variables.
const DTYPE: DType = DType::F32;
