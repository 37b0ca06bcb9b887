//! Who learns: the first layers of a pretrained encoder, or a BiLSTM over words.

use anyhow::{Result, bail};
use candle_core::{DType, Device, Tensor};
use kd_core::batch::{Rows, Sequence, Tokens};
use kd_core::model::{Mode, Represent, Student};
use kd_core::nn::{HeadPerTeacher, HeadsOf};
use kd_core::ops::packed::Precision;
use kd_core::variables::Variables;
use kd_data::digest;
use kd_data::encode::{Encode, WordPieces};
use kd_data::task::Examples;
use kd_teachers::config::EncoderConfig;
use kd_teachers::encoder::PackedEncoder;
use kd_teachers::heads::{Pooling, Representation, RepresentationOptions};
use kd_teachers::hub::{FindOptions, HubEnvironment, ModelFiles};
use serde_json::{Value, json};

use super::training::{Settings, answers};
use super::{DataSet, StudentOptions};
use crate::fine_tune;

/// What a student is made of, whatever its depth, and how it reads.
#[derive(Debug)]
pub struct Source {
    files: ModelFiles,
    pieces: WordPieces,
    config: EncoderConfig,
    /// A digest of the weights.
    weights: String,
    pooling: Pooling,
    bf16: bool,
}

/// A student's shape.
#[derive(Debug, Clone, Copy)]
pub struct Pupil<'a> {
    source: &'a Source,
    layers: usize,
}

/// A student and its variables.
#[derive(Debug)]
pub struct Built {
    /// The student.
    pub student: HeadPerTeacher<Body>,
    /// What is trained of it.
    pub variables: Variables,
}

/// A student without its heads.
#[derive(Debug)]
pub enum Body {
    /// The first layers of an encoder.
    Encoder(Representation),
}

/// The same, only to be asked.
#[derive(Debug)]
enum Asked<'a> {
    Packed(Representation<PackedEncoder>),
    AsItIs(&'a Body),
}

impl Source {
    /// What the command line asks for.
    ///
    /// # Errors
    /// If a file cannot be found or read.
    pub fn open(options: &StudentOptions) -> Result<Self> {
        let find = FindOptions { pickle: options.pickle, ..FindOptions::default() };
        let files = ModelFiles::find_with(&options.student, &options.revision, &HubEnvironment::from_env()?, &find)?;
        let pieces = WordPieces::from_file(&files.tokenizer)?;
        let config = EncoderConfig::read(&files.config)?;
        pieces.check_vocabulary(config.vocabulary)?;
        let weights = digest::of_parts(files.weights.iter().map(digest::of_file).collect::<kd_data::Result<Vec<_>>>()?);
        Ok(Self { files, pieces, config, weights, pooling: options.pooling.into(), bf16: options.bf16 })
    }

    /// The peak learning rate of the paper (§4.4).
    pub fn default_lr(&self) -> f64 {
        1e-4
    }

    /// The layers of the checkpoint.
    pub fn all_layers(&self) -> usize {
        self.config.layers
    }

    /// A student of so many layers.
    ///
    /// # Errors
    /// If the checkpoint has fewer.
    pub fn pupil(&self, layers: usize) -> Result<Pupil<'_>> {
        if !(1..=self.config.layers).contains(&layers) {
            bail!("--layers: expected 1 to {}, the layers of {}, found {layers}", self.config.layers, self.files.id);
        }
        Ok(Pupil { source: self, layers })
    }

    /// The texts as all students of this source read them; how many are cut is said on standard error.
    ///
    /// # Errors
    /// If `max_len` is more than it can read, or the tokenizer fails.
    pub fn encode(
        &self,
        name: &str,
        examples: &Examples,
        max_len: usize,
        device: &Device,
    ) -> Result<Box<dyn Encode>> {
        let longest = self.config.max_positions;
        if max_len > longest {
            bail!("--max-len: expected at most {longest}, the positions of {}, found {max_len}", self.files.id);
        }
        fine_tune::encode(name, examples, &self.pieces, max_len, device)
    }
}

impl Pupil<'_> {
    /// Everything that decides how it starts and what it reads.
    pub fn describe(&self) -> Value {
        let Source { pieces, weights, pooling, bf16, .. } = self.source;
        json!({
            "weights": weights,
            "tokenizer": pieces.digest(),
            "layers": self.layers,
            "pooling": format!("{pooling:?}").to_lowercase(),
            "bf16": bf16,
        })
    }

    /// Its name in the names of runs.
    pub fn name(&self) -> String {
        format!("{}-layers", self.layers)
    }

    /// Its depth.
    pub fn layers(&self) -> usize {
        self.layers
    }

    /// Tokens of the longest pair that it reads.
    pub fn longest(&self) -> usize {
        self.source.config.max_positions
    }

    /// A batch of pairs of `len` tokens together, of no meaning: to be timed.
    ///
    /// # Errors
    /// If the device fails.
    pub fn some_tokens(&self, batch: usize, len: usize, device: &Device) -> Result<Tokens> {
        let vocabulary = self.source.config.vocabulary;
        let id = |place: usize| ((place * 7919 + 1) % vocabulary) as u32;
        let ids: Vec<u32> = (0..batch * len).map(id).collect();
        let first = Sequence {
            ids: Tensor::from_vec(ids, (batch, len), device)?,
            mask: Tensor::ones((batch, len), DType::U8, device)?,
            segments: None,
            chars: None,
        };
        Ok(Tokens { first, second: None, rows: Rows::Examples })
    }

    /// A student with these sets of heads, new ones drawn from `seed`.
    ///
    /// # Errors
    /// If the files do not fit.
    pub fn build(&self, sets: Vec<HeadsOf>, settings: &Settings, seed: u64, device: &Device) -> Result<Built> {
        let options = RepresentationOptions {
            layers: Some(self.layers),
            pooling: self.source.pooling,
            compute: self.source.bf16.then_some(DType::BF16),
            ..RepresentationOptions::default()
        };
        let (body, variables) = Representation::from_files(&self.source.files, seed, device, &options)?;
        let body = Body::Encoder(body);
        let student = HeadPerTeacher::new(body, sets, settings.bias, settings.dropout, variables.builder())?;
        Ok(Built { student, variables })
    }
}

impl Built {
    /// The student as it is now, to be asked: on the CPU with packed layers, which keep no graph.
    fn asked(&self, device: &Device) -> Result<HeadPerTeacher<Asked<'_>>> {
        let body = match self.student.body() {
            Body::Encoder(body) if device.is_cpu() => Asked::Packed(body.pack(Precision::F32)?),
            body => Asked::AsItIs(body),
        };
        Ok(self.student.copy_onto(body)?)
    }

    /// Asks the student about the same texts again and again.
    ///
    /// # Errors
    /// If its layers cannot be packed.
    pub fn asking<'a>(
        &'a self,
        tokens: &'a Tokens,
        device: &Device,
    ) -> Result<impl Fn() -> candle_core::Result<Tensor> + 'a> {
        let student = self.asked(device)?;
        Ok(move || student.probabilities(&student.for_set(0).forward(tokens, Mode::Eval)?.detach()))
    }

    /// What the student says of the texts of each part of data set `set`: the mean of its heads' probabilities,
    /// `(examples, classes)` on the CPU.
    ///
    /// # Errors
    /// If it cannot read them, or Ctrl-C was pressed.
    pub fn answers(&self, set: usize, parts: &[&dyn Encode], device: &Device) -> Result<Vec<Tensor>> {
        let student = self.asked(device)?;
        parts.iter().map(|part| answers(&student.for_set(set), *part, device)).collect()
    }
}

impl Represent for Body {
    fn width(&self) -> usize {
        match self {
            Body::Encoder(body) => body.width(),
        }
    }

    fn represent(&self, tokens: &Tokens, mode: Mode) -> candle_core::Result<Tensor> {
        match self {
            Body::Encoder(body) => body.represent(tokens, mode),
        }
    }
}

impl Represent for Asked<'_> {
    fn width(&self) -> usize {
        match self {
            Asked::Packed(body) => body.width(),
            Asked::AsItIs(body) => body.width(),
        }
    }

    fn represent(&self, tokens: &Tokens, mode: Mode) -> candle_core::Result<Tensor> {
        match self {
            Asked::Packed(body) => body.represent(tokens, mode),
            Asked::AsItIs(body) => body.represent(tokens, mode),
        }
    }
}

/// A data set as students read it, encoded once for all of them.
pub struct EncodedSet {
    /// To learn from.
    pub learn: Box<dyn Encode>,
    /// To choose on.
    pub choose: Option<Box<dyn Encode>>,
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
        let of = |name: &str, examples: &Examples| {
            source.encode(&format!("{} {name}", set.name), examples, max_len, device)
        };
        Ok(Self {
            learn: of("training", &set.learn)?,
            choose: set.choose.as_ref().map(|(name, examples)| of(name, examples)).transpose()?,
            report: set.report.iter().map(|(part, examples)| of(part.name(), examples)).collect::<Result<_>>()?,
        })
    }
}
