//! Who learns: the first layers of a pretrained encoder, or a BiLSTM over words.

use std::cell::RefCell;
use std::collections::{BTreeMap, HashMap, HashSet};
use std::path::Path;

use anyhow::{Result, bail};
use candle_core::{DType, Device, Tensor};
use kd_core::batch::{Rows, Sequence, Tokens};
use kd_core::model::{Mode, Represent, Student};
use kd_core::nn::{HeadPerTeacher, HeadsOf};
use kd_core::ops::packed::Precision;
use kd_core::variables::Variables;
use kd_data::digest;
use kd_data::encode::{Encode, WordPieces};
use kd_data::task::{Examples, Part};
use kd_students::pair::PairEncoder;
use kd_teachers::checkpoint::{Checkpoint, is_head};
use kd_teachers::config::EncoderConfig;
use kd_teachers::distilled;
use kd_teachers::encoder::PackedEncoder;
use kd_teachers::heads::{Pooling, Representation, RepresentationOptions};
use kd_teachers::hub::{FindOptions, HubEnvironment, ModelFiles};
use serde_json::{Value, json};

use super::training::{Settings, answers, of_every_text};
use super::words::Words;
use super::{DataSet, StudentOptions, check_list};
use crate::fine_tune;

/// What a student is made of, whatever its depth, and how it reads.
#[derive(Debug)]
pub struct Source(Kind);

#[derive(Debug)]
enum Kind {
    Encoder(Box<Pretrained>),
    Words(Box<Words>),
}

/// A pretrained encoder.
#[derive(Debug)]
struct Pretrained {
    files: ModelFiles,
    pieces: WordPieces,
    config: EncoderConfig,
    /// A digest of the weights.
    weights: String,
    pooling: Pooling,
    bf16: bool,
    /// What students of so many layers start from, once one was made: the checkpoint's values on their device.
    start: RefCell<HashMap<usize, BTreeMap<String, Tensor>>>,
}

/// A student's shape.
#[derive(Debug, Clone, Copy)]
pub struct Pupil<'a> {
    source: &'a Source,
    /// Of an encoder.
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
    Encoder(Box<Representation>),
    /// Two BiLSTMs over words.
    Words(Box<PairEncoder>),
}

/// The same, only to be asked.
#[derive(Debug)]
enum Asked<'a> {
    Encoder(Box<Representation<PackedEncoder>>),
    Words(Box<PairEncoder>),
    AsItIs(&'a Body),
}

/// The depth of an encoder where none is asked for, the paper's.
const LAYERS: usize = 3;

impl Source {
    /// What the command line asks for; a BiLSTM without vectors knows the words of `texts`.
    ///
    /// # Errors
    /// If a file cannot be found or read.
    pub fn open(options: &StudentOptions, texts: &[&Examples]) -> Result<Self> {
        if options.student == "bilstm" {
            for (flag, is_there) in [("layers", options.layers.is_some()), ("bf16", options.bf16)] {
                if is_there {
                    bail!("--{flag}: expected an encoder as --student, found bilstm");
                }
            }
            let words = Words::open(options.vectors.as_deref(), options.words, options.combination.into(), texts)?;
            return Ok(Self(Kind::Words(Box::new(words))));
        }
        let find = FindOptions { pickle: options.pickle, ..FindOptions::default() };
        let files = ModelFiles::find_with(&options.student, &options.revision, &HubEnvironment::from_env()?, &find)?;
        let pieces = WordPieces::from_file(&files.tokenizer)?;
        let config = EncoderConfig::read(&files.config)?;
        pieces.check_vocabulary(config.vocabulary)?;
        let weights = digest::of_parts(files.weights.iter().map(digest::of_file).collect::<kd_data::Result<Vec<_>>>()?);
        let (pooling, bf16) = (options.pooling.into(), options.bf16);
        Ok(Self(Kind::Encoder(Box::new(Pretrained {
            files,
            pieces,
            config,
            weights,
            pooling,
            bf16,
            start: RefCell::default(),
        }))))
    }

    /// The peak learning rate of the paper (§4.4).
    pub fn default_lr(&self) -> f64 {
        match &self.0 {
            Kind::Encoder(_) => 1e-4,
            Kind::Words(_) => 1e-3,
        }
    }

    /// A student of each depth, of three layers without any.
    ///
    /// # Errors
    /// If the checkpoint has fewer layers.
    pub fn pupils(&self, layers: Option<&[usize]>) -> Result<Vec<Pupil<'_>>> {
        let Kind::Encoder(pretrained) = &self.0 else { return Ok(vec![Pupil { source: self, layers: 0 }]) };
        let (most, id) = (pretrained.config.layers, &pretrained.files.id);
        let pupil = |&layers: &usize| match layers {
            layers if (1..=most).contains(&layers) => Ok(Pupil { source: self, layers }),
            _ => bail!("--layers: expected 1 to {most}, the layers of {id}, found {layers}"),
        };
        let layers = layers.unwrap_or(&[LAYERS]);
        check_list("layers", layers)?;
        layers.iter().map(pupil).collect()
    }

    /// A student of all layers.
    pub fn whole(&self) -> Pupil<'_> {
        match &self.0 {
            Kind::Encoder(pretrained) => Pupil { source: self, layers: pretrained.config.layers },
            Kind::Words(_) => Pupil { source: self, layers: 0 },
        }
    }

    /// The texts as all students of this source read them; how many are cut is said on standard error.
    ///
    /// # Errors
    /// If `max_len` is more than it can read, or the tokenizer fails.
    pub fn encode(&self, name: &str, examples: &Examples, max_len: usize, device: &Device) -> Result<Box<dyn Encode>> {
        match &self.0 {
            Kind::Words(words) => Ok(Box::new(words.encode(name, examples, max_len, device)?)),
            Kind::Encoder(pretrained) => {
                let longest = pretrained.config.max_positions;
                if max_len > longest {
                    let id = &pretrained.files.id;
                    bail!("--max-len: expected at most {longest}, the positions of {id}, found {max_len}");
                }
                fine_tune::encode(name, examples, &pretrained.pieces, max_len, device)
            }
        }
    }
}

impl Pretrained {
    /// The first so many layers and their variables. The files are read and checked once, then copied.
    fn build(&self, layers: usize, seed: u64, device: &Device) -> Result<(Representation, Variables)> {
        let options = RepresentationOptions {
            layers: Some(layers),
            pooling: self.pooling,
            compute: self.bf16.then_some(DType::BF16),
            ..RepresentationOptions::default()
        };
        if let Some(start) = self.start.borrow().get(&layers) {
            let variables = Variables::from_tensors(start.clone(), DType::F32, device)?.with_seed(seed);
            let body = Representation::new(&self.config, &options, variables.builder())?;
            return Ok((body, variables));
        }
        let (body, variables) = Representation::from_files(&self.files, seed, device, &options)?;
        // What the checkpoint lacks is drawn from each student's own seed, and so is what was an old head's.
        let checkpoint = Checkpoint::of(&self.files, self.config.family)?;
        let names: HashSet<&str> = checkpoint.tensors().map(|(name, _)| name).filter(|name| !is_head(name)).collect();
        let loaded = variables.tensors().into_iter().filter(|(name, _)| names.contains(name.as_str()));
        let copies = loaded.map(|(name, tensor)| Ok((name, tensor.detach().copy()?))).collect::<Result<_>>()?;
        self.start.borrow_mut().insert(layers, copies);
        Ok((body, variables))
    }
}

impl Pupil<'_> {
    /// Everything that decides how it starts and what it reads.
    pub fn describe(&self) -> Value {
        match &self.source.0 {
            Kind::Words(words) => words.describe(),
            Kind::Encoder(pretrained) => json!({
                "weights": pretrained.weights,
                "tokenizer": pretrained.pieces.digest(),
                "layers": self.layers,
                "pooling": format!("{:?}", pretrained.pooling).to_lowercase(),
                "bf16": pretrained.bf16,
            }),
        }
    }

    /// Its name in tables and in the names of runs.
    pub fn name(&self) -> String {
        match (&self.source.0, self.layers) {
            (Kind::Words(_), _) => "bilstm".to_string(),
            (Kind::Encoder(_), 1) => "1-layer".to_string(),
            (Kind::Encoder(_), layers) => format!("{layers}-layers"),
        }
    }

    /// The vector of every text as the checkpoint makes it, without heads and without training: `(examples, width)` f32 on
    /// the CPU.
    ///
    /// # Errors
    /// If it is no encoder, or cannot read the texts.
    pub fn vectors(&self, encoded: &dyn Encode, device: &Device) -> Result<Tensor> {
        let Kind::Encoder(pretrained) = &self.source.0 else {
            bail!("expected a pretrained encoder to make vectors of texts, found {}", self.name());
        };
        let (body, _) = pretrained.build(self.layers, 0, device)?;
        let body: Box<dyn Represent> =
            if device.is_cpu() { Box::new(body.pack(Precision::F32)?) } else { Box::new(body) };
        of_every_text(encoded, device, &|tokens| body.represent(tokens, Mode::Eval))
    }

    /// A batch of pairs of `len` tokens together, or as many as it can read, of no meaning: to be timed.
    ///
    /// # Errors
    /// If the device fails.
    pub fn some_tokens(&self, batch: usize, len: usize, device: &Device) -> Result<Tokens> {
        let pretrained = match &self.source.0 {
            Kind::Words(words) => return Ok(words.some_tokens(batch, len, device)?),
            Kind::Encoder(pretrained) => pretrained,
        };
        let (len, vocabulary) = (len.min(pretrained.config.max_positions), pretrained.config.vocabulary);
        let ids: Vec<u32> = (0..batch * len).map(|place| ((place * 7919 + 1) % vocabulary) as u32).collect();
        let first = Sequence {
            ids: Tensor::from_vec(ids, (batch, len), device)?,
            mask: Tensor::ones((batch, len), DType::U8, device)?,
            segments: None,
            chars: None,
            features: Vec::new(),
        };
        Ok(Tokens { first, second: None, more: Vec::new(), rows: Rows::Examples })
    }

    /// A student with these sets of heads, new ones drawn from `seed`.
    ///
    /// # Errors
    /// If the files do not fit.
    pub fn build(&self, sets: Vec<HeadsOf>, settings: &Settings, seed: u64, device: &Device) -> Result<Built> {
        let (body, variables) = match &self.source.0 {
            Kind::Words(words) => {
                let (body, variables) = words.build(seed, device)?;
                (Body::Words(Box::new(body)), variables)
            }
            Kind::Encoder(pretrained) => {
                let (body, variables) = pretrained.build(self.layers, seed, device)?;
                (Body::Encoder(Box::new(body)), variables)
            }
        };
        let student = HeadPerTeacher::new(body, sets, settings.bias, settings.dropout, variables.builder())?;
        Ok(Built { student, variables })
    }
}

impl Built {
    /// Writes the student into `folder`, with the names of the classes of each of its data sets: as [`kd_teachers::distilled`]
    /// or [`kd_students::bundle::PairBundle`] reads it.
    ///
    /// # Errors
    /// If a file cannot be written, or `pupil` is another's.
    pub fn save(&self, pupil: &Pupil<'_>, classes: &[Vec<String>], folder: &Path) -> Result<()> {
        match (self.student.body(), &pupil.source.0) {
            (Body::Encoder(body), Kind::Encoder(pretrained)) => {
                let student = self.student.copy_onto((**body).clone())?;
                distilled::save(&student, classes, &self.variables, &pretrained.files.tokenizer, folder)?;
            }
            (Body::Words(_), Kind::Words(words)) => words.save(&self.student, classes, &self.variables, folder)?,
            _ => bail!("{}: expected the pupil that was built, found {}", folder.display(), pupil.name()),
        }
        Ok(())
    }

    /// The student as it is now, to be asked: on the CPU with packed layers, which keep no graph.
    fn asked(&self, device: &Device) -> Result<HeadPerTeacher<Asked<'_>>> {
        let body = match self.student.body() {
            Body::Encoder(body) if device.is_cpu() => Asked::Encoder(Box::new(body.pack(Precision::F32)?)),
            Body::Words(body) if device.is_cpu() => Asked::Words(Box::new(body.pack(Precision::F32)?)),
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
    /// If it cannot read them.
    pub fn answers(&self, set: usize, parts: &[&dyn Encode], device: &Device) -> Result<Vec<Tensor>> {
        let student = self.asked(device)?;
        parts.iter().map(|part| answers(&student.for_set(set), *part, device)).collect()
    }
}

impl Represent for Body {
    fn width(&self) -> usize {
        match self {
            Body::Encoder(body) => body.width(),
            Body::Words(body) => body.width(),
        }
    }

    fn represent(&self, tokens: &Tokens, mode: Mode) -> candle_core::Result<Tensor> {
        match self {
            Body::Encoder(body) => body.represent(tokens, mode),
            Body::Words(body) => body.represent(tokens, mode),
        }
    }
}

impl Represent for Asked<'_> {
    fn width(&self) -> usize {
        match self {
            Asked::Encoder(body) => body.width(),
            Asked::Words(body) => body.width(),
            Asked::AsItIs(body) => body.width(),
        }
    }

    fn represent(&self, tokens: &Tokens, mode: Mode) -> candle_core::Result<Tensor> {
        match self {
            Asked::Encoder(body) => body.represent(tokens, mode),
            Asked::Words(body) => body.represent(tokens, mode),
            Asked::AsItIs(body) => body.represent(tokens, mode),
        }
    }
}

/// A data set as students read it, encoded once for all of them.
pub struct EncodedSet {
    /// To learn from.
    pub learn: Box<dyn Encode>,
    /// What is held out to choose on.
    held_out: Option<Box<dyn Encode>>,
    /// Whether dev chooses instead, the first of those to report.
    dev_chooses: bool,
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
        let of =
            |name: &str, examples: &Examples| source.encode(&format!("{} {name}", set.name), examples, max_len, device);
        let dev_chooses = set.choose.as_ref().is_some_and(|(name, _)| *name == Part::Dev.name());
        let held_out = set.choose.as_ref().filter(|_| !dev_chooses);
        Ok(Self {
            learn: of("training", &set.learn)?,
            held_out: held_out.map(|(name, examples)| of(name, examples)).transpose()?,
            dev_chooses,
            report: set.report.iter().map(|(part, examples)| of(part.name(), examples)).collect::<Result<_>>()?,
        })
    }

    /// What chooses; none where the last epoch is kept.
    pub fn choose(&self) -> Option<&dyn Encode> {
        let dev = if self.dev_chooses { self.report.first() } else { None };
        self.held_out.as_ref().or(dev).map(|part| &**part)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn source(name: &str) -> Source {
        let folder = Path::new(env!("CARGO_MANIFEST_DIR")).join("../kd-teachers/tests/reference").join(name);
        let options = StudentOptions {
            student: folder.display().to_string(),
            revision: "main".to_string(),
            pickle: false,
            layers: None,
            pooling: crate::multi_teacher::PoolingChoice::Family,
            combination: crate::multi_teacher::CombinationChoice::Concat,
            vectors: None,
            words: 0,
            bf16: false,
        };
        Source::open(&options, &[]).unwrap()
    }

    fn settings() -> Settings {
        serde_json::from_value(json!({
            "lr": 1e-4, "epochs": 1, "batch_size": 1, "max_len": 8, "warmup": 0.1, "weight_decay": 0.01, "clip_norm": 1.0,
            "dropout": 0.1, "bias": true, "soft": "logit_mse", "centre": false,
        }))
        .unwrap()
    }

    #[test]
    fn a_student_starts_alike_whoever_was_made_before() {
        let build = |source: &Source, seed| {
            let heads = HeadsOf { name: "set".to_string(), classes: 2, teachers: 1, gold: true };
            source.pupils(Some(&[1])).unwrap()[0].build(vec![heads], &settings(), seed, &Device::Cpu).unwrap().variables
        };
        let all = |variables: &Variables| {
            let values =
                |(name, tensor): (String, Tensor)| (name, tensor.flatten_all().unwrap().to_vec1::<f32>().unwrap());
            variables.tensors().into_iter().map(values).collect::<BTreeMap<_, _>>()
        };
        for (name, drawn) in [("bert", "pooler.dense.weight"), ("distilbert-classifier", "pre_classifier.weight")] {
            let source = source(name);
            let first = build(&source, 1);
            let before = all(&first);
            first.named().iter().for_each(|(_, var)| var.set(&var.zeros_like().unwrap()).unwrap()); // trained
            let (second, alone) = (all(&build(&source, 2)), all(&build(&super::tests::source(name), 2)));
            assert_eq!(second, alone, "{name}");
            assert_ne!(second["heads.set.gold.weight"], before["heads.set.gold.weight"]);
            assert_ne!(second[drawn], before[drawn], "{name}: {drawn} is not of the checkpoint");
        }
    }
}
