//! Who learns: the first layers of a pretrained encoder, a BiLSTM over words, or the network of a file.

use std::path::Path;

use anyhow::{Result, bail};
use candle_core::{DType, Device, Tensor};
use kd_core::batch::{Rows, Sequence, Tokens};
use kd_core::model::{Mode, Represent, Student};
use kd_core::nn::{HeadPerTeacher, HeadsOf};
use kd_core::ops::packed::Precision;
use kd_core::optim::Group;
use kd_core::variables::Variables;
use kd_data::encode::Encode;
use kd_data::task::Examples;
use kd_students::pair::PairEncoder;
use kd_students::plan::Network;
use kd_teachers::distilled;
use kd_teachers::encoder::PackedEncoder;
use kd_teachers::heads::Representation;
use serde_json::{Value, json};

use super::from_file::FromFile;
use super::options::WORDS;
use super::pretrained::Pretrained;
use super::training::{Settings, answers, of_every_text};
use super::words::Words;
use super::{CombinationChoice, StudentOptions, check_list};
use crate::fine_tune;

/// What a student is made of, whatever its depth, and how it reads.
#[derive(Debug)]
pub struct Source(Kind);

#[derive(Debug)]
enum Kind {
    Encoder(Box<Pretrained>),
    Words(Box<Words>),
    File(Box<FromFile>),
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
    /// Of the variables, those that stay as they are.
    pub frozen: Vec<Group>,
}

/// A student without its heads.
#[derive(Debug)]
pub enum Body {
    /// The first layers of an encoder.
    Encoder(Box<Representation>),
    /// One or two BiLSTMs over words.
    Words(Box<PairEncoder>),
    /// The network of a file, without its outputs.
    Network(Box<Network>),
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
    /// What the command line asks for; a BiLSTM or a file's network without vectors knows the words of `texts`.
    ///
    /// # Errors
    /// If an option is not one of such a student, or a file cannot be found or read.
    pub fn open(options: &StudentOptions, texts: &[&Examples]) -> Result<Self> {
        if options.is_bilstm() {
            options.refuse(&["layers", "pooling", "bf16"], "an encoder")?;
            let combination = options.combination.unwrap_or(CombinationChoice::Concat).into();
            let n = options.words.unwrap_or(WORDS);
            let words = Words::open(options.vectors.as_deref(), n, combination, texts)?;
            return Ok(Self(Kind::Words(Box::new(words))));
        }
        if let Some(path) = options.file() {
            options.refuse(&["layers", "pooling", "bf16"], "an encoder")?;
            options.refuse(&["combination"], "bilstm")?;
            let file = FromFile::open(path, options.vectors.as_deref(), options.words, texts)?;
            return Ok(Self(Kind::File(Box::new(file))));
        }
        options.refuse(&["vectors", "words"], "bilstm or FILE.json")?;
        options.refuse(&["combination"], "bilstm")?;
        Ok(Self(Kind::Encoder(Box::new(Pretrained::open(options)?))))
    }

    /// The peak learning rate of the paper (§4.4): of what is pretrained, and of what is not.
    pub fn default_lr(&self) -> f64 {
        let is_pretrained = match &self.0 {
            Kind::Encoder(_) => true,
            Kind::Words(_) => false,
            Kind::File(file) => file.is_pretrained(),
        };
        if is_pretrained { 1e-4 } else { 1e-3 }
    }

    /// The file of its network, which says how long a text may be.
    pub fn file(&self) -> Option<&Path> {
        match &self.0 {
            Kind::File(file) => Some(file.path()),
            Kind::Encoder(_) | Kind::Words(_) => None,
        }
    }

    /// Checks that a student of these settings can be kept as a folder.
    ///
    /// # Errors
    /// If it cannot; the message says why.
    pub fn check_saved(&self, settings: &Settings, sets: usize) -> Result<()> {
        match &self.0 {
            Kind::File(file) => file.check_saved(settings.dropout, sets),
            Kind::Encoder(_) | Kind::Words(_) => Ok(()),
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
            Kind::Words(_) | Kind::File(_) => Pupil { source: self, layers: 0 },
        }
    }

    /// The texts as all students of this source read them; how many are cut is said on standard error.
    ///
    /// # Errors
    /// If `max_len` is more than it can read, or the tokenizer fails.
    pub fn encode(&self, name: &str, examples: &Examples, max_len: usize, device: &Device) -> Result<Box<dyn Encode>> {
        match &self.0 {
            Kind::Words(words) => Ok(Box::new(words.encode(name, examples, max_len, device)?)),
            Kind::File(file) => Ok(Box::new(file.encode(examples, device)?)),
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

impl Pupil<'_> {
    /// Everything that decides how it starts and what it reads.
    pub fn describe(&self) -> Value {
        match &self.source.0 {
            Kind::Words(words) => words.describe(),
            Kind::File(file) => file.describe(),
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
            (Kind::File(file), _) => file.name(),
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
            Kind::File(file) => return Ok(file.some_tokens(batch, len, device)?),
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
        let mut frozen = Vec::new();
        let (body, variables) = match &self.source.0 {
            Kind::Words(words) => {
                let (body, variables) = words.build(seed, device)?;
                (Body::Words(Box::new(body)), variables)
            }
            Kind::File(file) => {
                let (body, variables) = file.build(seed, device)?;
                frozen = file.frozen();
                (Body::Network(Box::new(body)), variables)
            }
            Kind::Encoder(pretrained) => {
                let (body, variables) = pretrained.build(self.layers, seed, device)?;
                (Body::Encoder(Box::new(body)), variables)
            }
        };
        let student = HeadPerTeacher::new(body, sets, settings.bias, settings.dropout, variables.builder())?;
        Ok(Built { student, variables, frozen })
    }
}

impl Built {
    /// Writes the student into `folder`, with the names of the classes of each of its data sets: as [`kd_teachers::distilled`]
    /// or [`kd_students::bundle::PairBundle`] reads it, or the program `neuronblocks`.
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
            (Body::Network(_), Kind::File(file)) => file.save(&self.student, classes, &self.variables, folder)?,
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
            Body::Network(body) => body.width(),
        }
    }

    fn represent(&self, tokens: &Tokens, mode: Mode) -> candle_core::Result<Tensor> {
        match self {
            Body::Encoder(body) => body.represent(tokens, mode),
            Body::Words(body) => body.represent(tokens, mode),
            Body::Network(body) => body.represent(tokens, mode),
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

#[cfg(test)]
mod tests {
    use std::collections::BTreeMap;

    use super::*;

    fn source(name: &str) -> Source {
        let folder = Path::new(env!("CARGO_MANIFEST_DIR")).join("../kd-teachers/tests/reference").join(name);
        let options = StudentOptions {
            student: folder.display().to_string(),
            revision: "main".to_string(),
            pickle: false,
            layers: None,
            pooling: None,
            combination: None,
            vectors: None,
            words: None,
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
