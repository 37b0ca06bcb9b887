//! A trained student of pairs as a folder.

use std::path::Path;

use candle_core::{DType, Device};
use kd_core::model::{Mode, Student};
use kd_core::nn::{HeadPerTeacher, HeadsOf};
use kd_core::ops::packed::Precision;
use kd_core::variables::Variables;
use serde::{Deserialize, Serialize};

use super::{BundleOptions, CHARACTERS, CONFIG, FORMAT, VERSION, WEIGHTS, WORDS, check_format, fits, folder, weights};
use crate::error::{Error, Result, check_distinct};
use crate::lookup::Lookup;
use crate::pair::{PairEncoder, PairEncoderConfig};
use crate::predict::BATCH_SENTENCES;

/// All of a saved student of pairs but its variables.
#[derive(Debug, Clone, PartialEq)]
pub struct PairDescription {
    /// Sizes of what reads the pairs.
    pub encoder: PairEncoderConfig,
    /// The heads of each data set.
    pub sets: Vec<HeadsOf>,
    /// Whether the heads have a bias.
    pub bias: bool,
    /// Dropout probability in front of the heads.
    pub dropout: f64,
    /// Names of the classes of each data set, in the order of its logits' columns.
    pub classes: Vec<Vec<String>>,
    /// The words in the order of their rows, from row 2; padding and unknown are not among them.
    pub words: Vec<String>,
    /// Whether words are looked up in lower case.
    pub lower_case: bool,
}

impl PairDescription {
    fn check(&self) -> Result<()> {
        self.encoder.check()?;
        if self.classes.len() != self.sets.len() {
            return Err(Error::config(
                "classes",
                format!("those of {} data sets", self.sets.len()),
                self.classes.len(),
            ));
        }
        for (set, classes) in self.sets.iter().zip(&self.classes) {
            check_distinct("classes", classes)?;
            if classes.len() != set.classes {
                let expected = format!("{} names for data set `{}`", set.classes, set.name);
                return Err(Error::config("classes", expected, format!("{classes:?}")));
            }
        }
        Ok(())
    }

    fn lookup(&self) -> Result<Lookup> {
        fits("words", self.words.len(), self.encoder.words)?;
        Lookup::new(self.words.clone(), Vec::new(), self.lower_case, 0)
    }

    /// The student of the variables that `vb` gives.
    fn student(&self, vb: candle_nn::VarBuilder) -> Result<HeadPerTeacher<PairEncoder>> {
        let encoder = PairEncoder::new(&self.encoder, vb.clone())?;
        Ok(HeadPerTeacher::new(encoder, self.sets.clone(), self.bias, self.dropout, vb)?)
    }
}

#[derive(Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
struct ConfigFile {
    format: String,
    version: u32,
    student: Kind,
    classes: Vec<Vec<String>>,
    lower_case: bool,
}

#[derive(Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
enum Kind {
    Pair(Sizes),
}

#[derive(Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
struct Sizes {
    encoder: PairEncoderConfig,
    sets: Vec<HeadsOf>,
    bias: bool,
    dropout: f64,
}

/// Writes a trained student of pairs, a [`PairEncoder`] under a [`HeadPerTeacher`] in the same `variables`, to the folder `dir`
/// as [`save`](super::save) does, and returns the size of the folder's files in bytes. Its `characters.json` is empty.
///
/// # Errors
/// As there.
pub fn save_pairs(
    dir: &Path,
    description: &PairDescription,
    variables: &Variables,
    options: BundleOptions,
) -> Result<u64> {
    description.check()?;
    description.lookup()?;
    let tensors = variables.tensors();
    // A student that could not be loaded is not written.
    weights::build(tensors.clone().into_iter().collect(), &Device::Cpu, &dir.join(WEIGHTS), |vb| {
        description.student(vb)
    })?;
    let PairDescription { encoder, sets, bias, dropout, classes, words, lower_case } = description.clone();
    let config = ConfigFile {
        format: FORMAT.to_string(),
        version: VERSION,
        student: Kind::Pair(Sizes { encoder, sets, bias, dropout }),
        classes,
        lower_case,
    };
    folder::replace(dir, |new| {
        folder::write_json(&new.join(CONFIG), &config)?;
        folder::write_json(&new.join(WORDS), &words)?;
        folder::write_json(&new.join(CHARACTERS), &Vec::<char>::new())?;
        weights::write(&new.join(WEIGHTS), &tensors, options)
    })?;
    super::bytes(dir)
}

/// A student of pairs read from its folder. Its variables are constants: it cannot be trained further.
#[derive(Debug)]
pub struct PairBundle {
    description: PairDescription,
    lookup: Lookup,
    student: HeadPerTeacher<PairEncoder>,
    device: Device,
}

impl PairBundle {
    /// Reads the student that [`save_pairs`] wrote to `dir`, with the LSTMs' weights rounded to `precision` where it runs on
    /// the CPU.
    ///
    /// # Errors
    /// If a file is missing, is not what it should be or does not fit the others; the message names the file and what
    /// in it was expected and found.
    pub fn load(dir: &Path, device: &Device, precision: Precision) -> Result<Self> {
        let dir = folder::current(dir);
        let path = dir.join(CONFIG);
        let text = folder::read(&path)?;
        check_format(&path, &text)?;
        let config: ConfigFile =
            serde_json::from_str(&text).map_err(|cause| Error::Json { path: path.clone(), cause })?;
        let Kind::Pair(Sizes { encoder, sets, bias, dropout }) = config.student;
        let words = folder::read_json(&dir.join(WORDS))?;
        let ConfigFile { classes, lower_case, .. } = config;
        let description = PairDescription { encoder, sets, bias, dropout, classes, words, lower_case };
        description.check().map_err(|error| error.within(&path))?;
        let lookup = description.lookup().map_err(|error| error.within(&dir.join(WORDS)))?;

        let path = dir.join(WEIGHTS);
        let student = weights::build(weights::read(&path, device)?, device, &path, |vb| description.student(vb))?;
        let student = student.copy_onto(student.body().pack(precision)?)?;
        Ok(Self { description, lookup, student, device: device.clone() })
    }

    /// All but the variables.
    pub fn description(&self) -> &PairDescription {
        &self.description
    }

    /// How words become ids.
    pub fn lookup(&self) -> &Lookup {
        &self.lookup
    }

    /// The student.
    pub fn student(&self) -> &HeadPerTeacher<PairEncoder> {
        &self.student
    }

    /// The mean of the heads' probabilities of every pair of texts, given as their words: a probability for each class of data
    /// set `set`.
    ///
    /// # Errors
    /// If there is no such data set, or a text has no words.
    pub fn probabilities(&self, set: usize, pairs: &[(Vec<String>, Vec<String>)]) -> Result<Vec<Vec<f64>>> {
        let student = self.student.for_set(set);
        let mut probs = Vec::with_capacity(pairs.len());
        for pairs in pairs.chunks(BATCH_SENTENCES) {
            let output = student.forward(&self.lookup.pairs(pairs, &self.device)?, Mode::Eval)?;
            probs.extend(self.student.probabilities(&output)?.to_dtype(DType::F64)?.to_vec2::<f64>()?);
        }
        Ok(probs)
    }
}
