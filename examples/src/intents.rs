//! Intents of short utterances: a pretrained encoder fine-tuned on few of them, and small students.

use std::path::Path;

use anyhow::{Result, bail};
use candle_core::{DType, Device, Tensor};
use kd_core::batch::{Batch, Batches, Tokens};
use kd_core::metrics::accuracy;
use kd_core::model::{Mode, Output, Student};
use kd_core::objective::Distillation;
use kd_core::ops::packed::Precision;
use kd_core::optim::AdamWConfig;
use kd_core::schedule::Schedule;
use kd_core::trainer::{Evaluation, Interval, Outcome, Trainer, TrainerConfig};
use kd_core::variables::Variables;
use kd_data::batches::{BatchPlan, collate_labels, sequential};
use kd_data::encode::{Encode, EncodedTexts, WordPieces};
use kd_data::example::Utterance;
use kd_data::sample::draw_per_class;
use kd_data::snips::read_snips;
use kd_data::tags::Classes;
use kd_data::teacher_outputs::{About, Content, TeacherOutputs, TeacherRows};
use kd_data::vocabulary::Vocabulary;
use kd_students::bundle::{self, BundleOptions, Description, StudentConfig};
use kd_students::classifier::{Classifier, ClassifierConfig};
use kd_students::encoder::WordEncoderConfig;
use kd_students::lookup::{Kind, Lookup};
use kd_teachers::encoder::PackedEncoder;
use kd_teachers::heads::{HeadOptions, SequenceClassifier};
use kd_teachers::hub::ModelFiles;

use crate::interrupt::{self, Interrupted};
use crate::progress::Progress;

/// Utterances of a teacher's step.
const TEACHER_BATCH: usize = 8;
/// Utterances of a student's step; in the distilled student's, `GOLD_IN_BATCH` of them are labelled by hand.
const BATCH: usize = 16;
const GOLD_IN_BATCH: usize = 4;
/// Longest utterance in word pieces; SNIPS has none as long.
const MAX_PIECES: usize = 128;

/// Sizes and updates of one experiment.
#[derive(Debug, Clone, Copy)]
pub struct Settings {
    /// Labelled utterances of each intent, and as many of dev to choose the best step on.
    pub per_class: usize,
    /// Unlabelled utterances.
    pub unlabelled: usize,
    /// Updates of the teacher.
    pub teacher_steps: usize,
    /// Updates of each student.
    pub steps: usize,
}

/// Three parts of SNIPS and their intents.
#[derive(Debug)]
pub struct Data {
    /// To draw from.
    pub train: Vec<Utterance>,
    /// To choose on.
    pub dev: Vec<Utterance>,
    /// To report.
    pub test: Vec<Utterance>,
    /// The intents.
    pub classes: Classes,
}

impl Data {
    /// Reads the folders `train`, `valid` and `test`.
    pub fn read(folder: &Path) -> Result<Self> {
        let read = |part: &str| Ok::<_, kd_data::Error>(read_snips(folder.join(part))?.examples);
        let train = read("train")?;
        let classes = Classes::from_names(train.iter().map(|utterance| utterance.intent.as_str()))?;
        Ok(Self { dev: read("valid")?, test: read("test")?, train, classes })
    }

    fn labels(&self, utterances: &[Utterance]) -> Result<Vec<u32>> {
        let label = |utterance: &Utterance| match self.classes.index(&utterance.intent) {
            Some(label) => Ok(label),
            None => bail!("expected one of the intents {:?}, found `{}`", self.classes.names(), utterance.intent),
        };
        utterances.iter().map(label).collect()
    }
}

/// One draw: labelled utterances first, then unlabelled ones, and a dev sample as large as the labelled part.
#[derive(Debug)]
pub struct Draw {
    /// Labelled and unlabelled; the labels of the latter are not used.
    pub utterances: Vec<Utterance>,
    labelled: usize,
    dev: Vec<Utterance>,
}

impl Draw {
    /// Draws by `seed`.
    pub fn new(data: &Data, settings: Settings, seed: u64) -> Result<Self> {
        let (labelled, rest) = draw_per_class(&data.labels(&data.train)?, settings.per_class, seed)?;
        let (dev, _) = draw_per_class(&data.labels(&data.dev)?, settings.per_class, seed)?;
        let chosen = labelled.iter().chain(rest.iter().take(settings.unlabelled));
        Ok(Self {
            utterances: chosen.map(|&id| data.train[id].clone()).collect(),
            labelled: labelled.len(),
            dev: dev.into_iter().map(|id| data.dev[id].clone()).collect(),
        })
    }
}

/// The fine-tuned encoder.
#[derive(Debug)]
pub struct Teacher {
    classifier: SequenceClassifier<PackedEncoder>,
    /// Its values.
    pub variables: Variables,
    pieces: WordPieces,
    device: Device,
}

impl Teacher {
    /// Fine-tunes the encoder of `files` on the labelled utterances of `draw`.
    pub fn fine_tune(
        data: &Data,
        draw: &Draw,
        files: &ModelFiles,
        settings: Settings,
        seed: u64,
        device: &Device,
    ) -> Result<Self> {
        let options = HeadOptions::default();
        let (classifier, variables) =
            SequenceClassifier::from_files(files, data.classes.names(), seed, device, &options)?;
        let pieces = WordPieces::from_file(&files.tokenizer)?;
        pieces.check_vocabulary(classifier.encoder().config().vocabulary)?;
        let labelled = &draw.utterances[..draw.labelled];
        let labels = one_row_each(&data.labels(labelled)?);
        let encoded = EncodedTexts::new(&pieces, labelled.iter().map(Utterance::text), MAX_PIECES, device)?;
        let plan = BatchPlan::new(encoded.lengths().to_vec(), TEACHER_BATCH, seed, 1)?;
        let batches = |step: usize| {
            let examples = plan.indices(step);
            let labels = collate_labels(&labels, &examples, device)?;
            Ok(batch(encoded.collate(&examples)?, labels, vec![], examples))
        };
        let config = TrainerConfig {
            schedule: Schedule::WarmupLinear { warmup: settings.teacher_steps / 10, total: settings.teacher_steps },
            clip_norm: Some(1.0),
            seed,
            ..TrainerConfig::new(settings.teacher_steps, AdamWConfig::with_lr(2e-4))
        };
        let mut trainer = Trainer::new(&classifier, &variables, &Distillation::LABELS_ONLY, config)?;
        fit(&mut trainer, "teacher", settings.teacher_steps, &batches, None)?;
        let classifier = classifier.pack(Precision::F32)?; // from here on it is only asked
        Ok(Self { classifier, variables, pieces, device: device.clone() })
    }

    /// Its logits for every utterance.
    pub fn ask(&self, utterances: &[Utterance]) -> Result<TeacherRows> {
        let texts: Vec<String> = utterances.iter().map(Utterance::text).collect();
        let encoded = EncodedTexts::new(&self.pieces, &texts, MAX_PIECES, &self.device)?;
        let about = About::named("teacher", "in memory", self.classifier.classes().to_vec());
        let mut outputs = TeacherOutputs::in_memory(about)?;
        let mut progress = Progress::new("teacher's outputs", utterances.len(), 0, "utterances");
        for examples in sequential(encoded.lengths(), 1024) {
            interrupt::check()?;
            let output = self.classifier.forward(&encoded.collate(&examples)?, Mode::Eval)?.detach();
            let contents: Vec<Content> = examples.iter().map(|&id| (&texts[id]).into()).collect();
            outputs.append(&contents, &vec![1; examples.len()], output.logits()?)?;
            progress.set(outputs.len(), "");
        }
        Ok(outputs.join(&texts)?)
    }

    /// Accuracy on test.
    pub fn accuracy(&self, data: &Data) -> Result<f64> {
        let outputs = self.ask(&data.test)?;
        let predicted = (0..data.test.len()).map(|id| Ok(outputs.labels(id, data.classes.names())?[0]));
        Ok(accuracy(&predicted.collect::<Result<Vec<_>>>()?, &data.labels(&data.test)?))
    }

    /// From texts to logits, for timing.
    pub fn logits(&self, utterances: &[Utterance]) -> candle_core::Result<Vec<Vec<f32>>> {
        let texts = utterances.iter().map(Utterance::text);
        let encoded =
            EncodedTexts::new(&self.pieces, texts, MAX_PIECES, &self.device).map_err(candle_core::Error::wrap)?;
        let tokens = encoded.collate(&(0..utterances.len()).collect::<Vec<_>>())?;
        self.classifier.forward(&tokens, Mode::Eval)?.logits()?.to_vec2()
    }
}

/// A student in training: words and characters, BiLSTM, maximum and mean.
#[derive(Debug)]
pub struct Pupil {
    classifier: Classifier,
    config: ClassifierConfig,
    /// Its values.
    pub variables: Variables,
    lookup: Lookup,
    /// Accuracies on the dev sample by step.
    pub evaluations: Vec<Evaluation>,
    device: Device,
}

/// The words and characters of the training text, labelled or not.
fn lookup(draw: &Draw) -> Result<Lookup> {
    let words = Vocabulary::words(&draw.utterances);
    let characters = Vocabulary::characters(&draw.utterances);
    let characters = characters.symbols().iter().flat_map(|symbol| symbol.chars()).collect();
    Ok(Lookup::new(words.symbols().to_vec(), characters, true, WordEncoderConfig::compact(2, 2).max_chars)?)
}

impl Pupil {
    /// Trains a student on the gold labels alone, or also on what `teacher` says of every utterance of `draw`.
    pub fn train(
        data: &Data,
        draw: &Draw,
        teacher: Option<&TeacherRows>,
        settings: Settings,
        seed: u64,
        device: &Device,
    ) -> Result<Self> {
        let lookup = lookup(draw)?;
        let sizes = WordEncoderConfig::compact(lookup.word_rows(), lookup.character_rows());
        let config =
            ClassifierConfig { encoder: WordEncoderConfig { word_width: 64, filters: 32, layers: 1, ..sizes } };
        let variables = Variables::new(seed, DType::F32, device);
        let classifier = Classifier::new(&config, data.classes.len(), variables.builder())?;
        let pupil = Self { classifier, config, variables, lookup, evaluations: Vec::new(), device: device.clone() };

        // Gold labels, then the teacher's most likely class.
        let mut labels = one_row_each(&data.labels(&draw.utterances[..draw.labelled])?);
        if let Some(outputs) = teacher {
            for id in draw.labelled..draw.utterances.len() {
                labels.push(outputs.labels(id, data.classes.names())?);
            }
        }
        let lengths: Vec<usize> = draw.utterances.iter().map(|utterance| utterance.sentence.words.len()).collect();
        let (gold, rest) = lengths.split_at(draw.labelled);
        let gold_in_batch = if teacher.is_some() { GOLD_IN_BATCH } else { BATCH };
        let gold = BatchPlan::new(gold.to_vec(), gold_in_batch, seed, 1)?;
        let rest = BatchPlan::new(rest.to_vec(), BATCH - GOLD_IN_BATCH, seed, 1)?;
        let batches = |step: usize| {
            let (mut examples, mut teachers) = (gold.indices(step), Vec::new());
            if let Some(outputs) = teacher {
                examples.extend(rest.indices(step).iter().map(|id| draw.labelled + id));
                teachers.push(outputs.collate(&examples, data.classes.names(), device)?);
            }
            let utterances: Vec<&Utterance> = examples.iter().map(|&id| &draw.utterances[id]).collect();
            let labels = collate_labels(&labels, &examples, device)?;
            Ok(batch(pupil.tokens(&utterances)?, labels, teachers, examples))
        };
        let objective = match teacher {
            Some(_) => Distillation { hard: 0.5.into(), soft: 0.5.into(), ..Distillation::LABELS_ONLY },
            None => Distillation::LABELS_ONLY,
        };
        let optimizer = AdamWConfig { weight_decay: 0.0, ..AdamWConfig::with_lr(1e-3) };
        let config = TrainerConfig {
            clip_norm: Some(5.0),
            evaluate_every: Interval::Steps((settings.steps / 8).max(1)),
            seed,
            ..TrainerConfig::new(settings.steps, optimizer)
        };
        let mut trainer = Trainer::new(&pupil.classifier, &pupil.variables, &objective, config)?;
        let mut evaluate = || pupil.accuracy(data, &draw.dev).map_err(|error| candle_core::Error::msg(error).into());
        let name = if teacher.is_some() { "distilled student" } else { "gold-only student" };
        fit(&mut trainer, name, settings.steps, &batches, Some(&mut evaluate))?;
        let evaluations = trainer.evaluations().to_vec();
        Ok(Self { evaluations, ..pupil })
    }

    fn tokens(&self, utterances: &[&Utterance]) -> candle_core::Result<Tokens> {
        let words: Vec<Vec<String>> = utterances.iter().map(|utterance| utterance.sentence.words.clone()).collect();
        self.lookup.tokens(&words, Kind::Examples, &self.device)
    }

    /// Accuracy on `utterances`.
    pub fn accuracy(&self, data: &Data, utterances: &[Utterance]) -> Result<f64> {
        let mut predicted = Vec::new();
        for part in utterances.chunks(64) {
            let output = self.classifier.forward(&self.tokens(&part.iter().collect::<Vec<_>>())?, Mode::Eval)?;
            predicted.extend(output.logits()?.argmax(1)?.to_vec1::<u32>()?);
        }
        Ok(accuracy(&predicted, &data.labels(utterances)?))
    }

    /// Saves the student to a folder.
    pub fn save(&self, data: &Data, folder: &Path) -> Result<()> {
        let description = Description {
            student: StudentConfig::Classifier(self.config.clone()),
            classes: data.classes.names().to_vec(),
            words: self.lookup.words().to_vec(),
            characters: self.lookup.characters().to_vec(),
            lower_case: true,
        };
        bundle::save(folder, &description, &self.variables, BundleOptions::default())?;
        Ok(())
    }
}

fn one_row_each(labels: &[u32]) -> Vec<Vec<u32>> {
    labels.iter().map(|&label| vec![label]).collect()
}

fn batch(tokens: Tokens, labels: Tensor, teachers: Vec<Output>, examples: Vec<usize>) -> Batch {
    Batch { tokens, labels: Some(labels), targets: vec![], teachers, weights: None, task: 0, examples }
}

fn fit(
    trainer: &mut Trainer<'_>,
    name: &str,
    steps: usize,
    batches: &dyn Batches,
    evaluate: Option<&mut dyn FnMut() -> kd_core::Result<f64>>,
) -> Result<()> {
    let mut progress = Progress::new(name, steps, 0, "steps");
    match trainer.fit(batches, evaluate, &mut progress)? {
        Outcome::Finished => Ok(()),
        Outcome::Interrupted => bail!(Interrupted),
    }
}
