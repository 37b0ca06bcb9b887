//! Trains a student one of four ways and scores it.

use anyhow::{Result, bail};
use candle_core::{DType, Device, Tensor};
use kd_core::batch::Batch;
use kd_core::metrics::entity_f1;
use kd_core::objective::{CrfTarget, Distillation};
use kd_core::optim::AdamWConfig;
use kd_core::trainer::{Interval, Outcome, Trainer, TrainerConfig};
use kd_core::variables::Variables;
use kd_data::batches::{BatchPlan, DEFAULT_POOL, collate_labels};
use kd_data::glove::Vectors;
use kd_data::tags::Classes;
use kd_data::teacher_outputs::TeacherRows;
use kd_data::vocabulary::Vocabulary;
use kd_students::bundle::{self, Bundle, BundleOptions, Description, StudentConfig};
use kd_students::encoder::{SPECIAL, UNKNOWN, WordEncoderConfig, append_words};
use kd_students::lookup::{Kind, Lookup};
use kd_students::tagger::{Head, Tagger, TaggerConfig};
use serde::{Deserialize, Serialize};

use super::{Draw, Folder, Scores};
use crate::interrupt::Interrupted;
use crate::progress::Progress;

/// What a student learns from.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Way {
    /// The gold labels of the labelled sentences.
    Gold,
    /// The same, and the teacher's distribution over the tags of those sentences.
    Distilled,
    /// The gold labels, and on unlabelled sentences the teacher's most likely tags as if they were gold.
    Pseudo,
    /// Both: labels and the teacher's distribution, on labelled and unlabelled sentences.
    Both,
}

impl Way {
    /// All four, in the order of the table.
    pub const ALL: [Self; 4] = [Self::Gold, Self::Distilled, Self::Pseudo, Self::Both];

    /// Name in tables and folders.
    pub fn name(self) -> &'static str {
        match self {
            Self::Gold => "gold",
            Self::Distilled => "distilled",
            Self::Pseudo => "pseudo",
            Self::Both => "both",
        }
    }

    fn is_distilled(self) -> bool {
        matches!(self, Self::Distilled | Self::Both)
    }

    fn reads_unlabelled(self) -> bool {
        matches!(self, Self::Pseudo | Self::Both)
    }
}

/// How students are made and trained; the same for all four ways, so that the comparison is fair.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct StudentSettings {
    /// Softmax or CRF.
    pub head: Head,
    /// What is distilled into a CRF.
    pub crf_target: CrfTarget,
    /// Learning rate, constant.
    pub lr: f64,
    /// Sentences a step.
    pub batch_size: usize,
    /// Updates.
    pub steps: usize,
    /// Steps between evaluations on the small dev sample; the best one is kept.
    pub evaluate_every: usize,
    /// Evaluations without a better one that end training; `None` makes all steps.
    pub patience: Option<usize>,
    /// Largest norm of the gradient.
    pub clip_norm: f64,
    /// Weight of the labels when the teacher's distribution is used too; the teacher's weight is 1 minus this.
    pub alpha: f64,
    /// Temperature of both sides.
    pub temperature: f64,
    /// Words that the student knows, besides those of its training text, because they stand first in the vectors' file,
    /// which is sorted by frequency.
    pub vector_rows: usize,
    /// Times that a word without a vector must occur in the training text to get a row.
    pub min_count: usize,
}

impl StudentSettings {
    fn objective(&self, way: Way) -> Distillation {
        let (hard, soft) = if way.is_distilled() { (self.alpha, 1.0 - self.alpha) } else { (1.0, 0.0) };
        let (hard, soft, temperature) = (hard.into(), soft.into(), self.temperature.into());
        Distillation { hard, soft, temperature, crf_target: self.crf_target }
    }

    fn trainer(&self, seed: u64, checkpoint_every: usize) -> TrainerConfig {
        let optimizer = AdamWConfig { weight_decay: 0.0, ..AdamWConfig::with_lr(self.lr) };
        TrainerConfig {
            clip_norm: Some(self.clip_norm),
            evaluate_every: Interval::Steps(self.evaluate_every),
            patience: self.patience,
            checkpoint_every,
            seed,
            ..TrainerConfig::new(self.steps, optimizer)
        }
    }
}

/// The words and characters of the training text of a draw, labelled or not: what its students learn.
///
/// Dev and test are not looked at. A rare word without a vector gets no row, so that the row of unknown words is trained.
fn lookup(draw: &Draw, vectors: Option<&Vectors>, settings: &StudentSettings) -> Result<Lookup> {
    let texts = || draw.data.examples[..draw.training].iter().map(|sentence| &sentence.words);
    let has_vector: std::collections::HashSet<&str> =
        vectors.iter().flat_map(|vectors| &vectors.words).map(String::as_str).collect();
    let keep = |word: &str, count: usize| count >= settings.min_count || has_vector.contains(word);
    let words = Vocabulary::words_where(texts(), keep);
    let characters = Vocabulary::characters(texts());
    let characters = characters.symbols().iter().flat_map(|symbol| symbol.chars()).collect();
    Ok(Lookup::new(words.symbols().to_vec(), characters, true, WordEncoderConfig::compact(2, 2).max_chars)?)
}

/// A trained student and its scores.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Trained {
    /// F1, steps.
    pub scores: Scores,
    /// Number of values in all variables.
    pub parameters: usize,
    /// Size of the saved folder, in bytes.
    pub bytes: u64,
}

/// The words beyond the training text, for after training.
fn further_words(lookup: &Lookup, vectors: &Vectors, rows: usize) -> Result<(Vec<String>, Tensor)> {
    let (mut words, mut values) = (Vec::new(), Vec::new());
    for (word, vector) in vectors.words.iter().zip(vectors.values.chunks_exact(vectors.width)).take(rows) {
        if lookup.word(word) == UNKNOWN {
            words.push(word.clone());
            values.extend_from_slice(vector);
        }
    }
    let shape = (words.len(), vectors.width);
    Ok((words, Tensor::from_vec(values, shape, &Device::Cpu)?))
}

/// What all students of one draw share.
#[derive(Debug)]
pub struct Classroom<'a> {
    /// The sentences.
    pub draw: &'a Draw,
    /// The tags.
    pub classes: &'a Classes,
    /// The teacher's answers.
    pub outputs: &'a TeacherRows,
    /// Pretrained word vectors.
    pub vectors: Option<&'a Vectors>,
    /// Sizes and training.
    pub settings: &'a StudentSettings,
    /// Seed of the draw; initial weights and the order of examples depend on it alone, not on the way.
    pub seed: u64,
    /// Where to train.
    pub device: &'a Device,
}

impl Classroom<'_> {
    /// A student trained `way`, saved as `folder/NAME`, from the folder if it was trained before.
    pub fn train(&self, way: Way, folder: &Folder) -> Result<Trained> {
        folder.cached(way.name(), || self.train_anew(way, folder))
    }

    fn train_anew(&self, way: Way, folder: &Folder) -> Result<Trained> {
        let Self { draw, classes, settings, seed, device, .. } = *self;
        let lookup = lookup(draw, self.vectors, settings)?;
        let sizes = WordEncoderConfig::compact(lookup.word_rows(), lookup.character_rows());
        let config = TaggerConfig { encoder: sizes, head: settings.head };
        let variables = Variables::new(seed, DType::F32, device);
        let tagger = Tagger::new(&config, classes.len(), variables.builder())?;
        let (mut description, mut further) = (description(&config, classes, &lookup), None);
        if let Some(vectors) = self.vectors {
            let pairs = vectors.words.iter().zip(vectors.values.chunks_exact(vectors.width));
            let rows = pairs.filter_map(|(word, vector)| match lookup.word(word) {
                UNKNOWN => None,
                row => Some((row as usize, vector.to_vec())),
            });
            tagger.set_word_vectors(&rows.collect::<Vec<_>>())?;
            let (words, rows) = further_words(&lookup, vectors, settings.vector_rows)?;
            description.words.extend(words);
            let sizes = WordEncoderConfig { words: description.words.len() + SPECIAL, ..config.encoder.clone() };
            description.student = StudentConfig::Tagger(TaggerConfig { encoder: sizes, ..config });
            further = Some(rows);
        }
        let path = folder.path.join(way.name());
        // What is scored is what is saved: with the further words, and as precise as the file.
        let saved = || -> Result<Bundle> {
            let variables = match &further {
                Some(rows) => append_words(&variables, rows)?,
                None => variables.clone(),
            };
            bundle::save(&path, &description, &variables, BundleOptions { half_precision: true })?;
            Ok(Bundle::load(&path, device)?)
        };

        let trained_on = if way.reads_unlabelled() { draw.training } else { draw.labelled };
        let mut labels = classes.encode(&draw.data.select(&(0..draw.labelled).collect::<Vec<_>>()))?;
        for example in draw.labelled..trained_on {
            labels.push(self.outputs.labels(example, classes.names())?);
        }
        let lengths = draw.data.examples[..trained_on].iter().map(|sentence| sentence.words.len()).collect();
        let plan = BatchPlan::new(lengths, settings.batch_size, seed, DEFAULT_POOL)?;
        let batches = plan.batches(|examples| {
            Ok(Batch {
                tokens: lookup.tokens(&self.words(&examples), Kind::Words, device)?,
                labels: Some(collate_labels(&labels, &examples, device)?),
                targets: vec![],
                teachers: vec![self.outputs.collate(&examples, classes.names(), device)?],
                weights: None,
                task: 0,
                examples,
            })
        });
        let small_dev = || self.f1(&saved()?, &draw.small_dev);
        let mut evaluate = || small_dev().map_err(|error| candle_core::Error::msg(error).into());

        let objective = settings.objective(way);
        let checkpoint = folder.path.join(format!("{}.checkpoint", way.name()));
        let config = settings.trainer(seed, folder.checkpoint_every);
        let mut trainer = Trainer::new(&tagger, &variables, &objective, config)?.with_checkpoint(&checkpoint)?;
        let mut progress = Progress::new(way.name(), settings.steps, trainer.step_count(), "steps");
        if trainer.fit(&batches, Some(&mut evaluate), &mut progress)? == Outcome::Interrupted {
            bail!(Interrupted);
        }
        drop(progress);

        let (bundle, best) = (saved()?, trainer.best());
        let scores = Scores {
            small_dev_f1: best.map(|best| best.score),
            dev_f1: self.f1(&bundle, &draw.dev())?,
            test_f1: self.f1(&bundle, &draw.test())?,
            steps: trainer.step_count(),
            best_step: best.map_or(trainer.step_count(), |best| best.step),
        };
        if checkpoint.exists() {
            std::fs::remove_file(&checkpoint)?;
        }
        Ok(Trained { scores, parameters: bundle.parameter_count(), bytes: bundle::bytes(&path)? })
    }

    fn words(&self, examples: &[usize]) -> Vec<Vec<String>> {
        examples.iter().map(|&id| self.draw.data.examples[id].words.clone()).collect()
    }

    /// Entity F1 of a saved student on these sentences.
    fn f1(&self, bundle: &Bundle, ids: &[usize]) -> Result<f64> {
        let tagged = bundle.tag(&self.words(ids))?;
        let tags: Vec<Vec<&str>> =
            tagged.iter().map(|words| words.iter().map(|word| word.tag.as_str()).collect()).collect();
        let gold = ids.iter().map(|&id| self.draw.data.examples[id].tags.as_slice());
        Ok(entity_f1(gold.zip(tags.iter().map(Vec::as_slice)))?.f1())
    }
}

fn description(config: &TaggerConfig, classes: &Classes, lookup: &Lookup) -> Description {
    Description {
        student: StudentConfig::Tagger(config.clone()),
        classes: classes.names().to_vec(),
        words: lookup.words().to_vec(),
        characters: lookup.characters().to_vec(),
        lower_case: true,
    }
}
