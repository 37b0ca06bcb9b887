//! Trains a student one of four ways and scores it.

use std::path::Path;

use anyhow::{Result, bail};
use candle_core::Device;
use kd_core::batch::{Batch, Tokens};
use kd_core::metrics::entity_f1;
use kd_core::model::Student;
use kd_core::objective::{CrfTarget, Distillation};
use kd_core::optim::{AdamWConfig, Group};
use kd_core::trainer::{Interval, Outcome, Trainer, TrainerConfig};
use kd_core::variables::Variables;
use kd_data::batches::{BatchPlan, DEFAULT_POOL, collate_labels};
use kd_data::glove::Vectors;
use kd_data::tags::Classes;
use kd_data::teacher_outputs::TeacherRows;
use kd_students::bundle;
use kd_students::tagger::Head;
use serde::{Deserialize, Serialize};

use super::built_in::BuiltIn;
use super::from_file::FromFile;
use super::{Draw, Folder, Scores};
use crate::interrupt::Interrupted;
use crate::neuronblocks::design::Design;
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

/// A student while it learns.
pub(super) trait Pupil {
    /// What learns.
    fn student(&self) -> &dyn Student;

    /// Its variables.
    fn variables(&self) -> &Variables;

    /// Those that stay as they are.
    fn frozen(&self) -> Vec<Group> {
        Vec::new()
    }

    /// These sentences of the draw's training text, as it reads them.
    fn tokens(&self, examples: &[usize]) -> candle_core::Result<Tokens>;

    /// Saves it as it is now, and reads it again.
    fn save(&self, folder: &Path) -> Result<Box<dyn Tag>>;
}

/// A student that was saved.
pub trait Tag: std::fmt::Debug {
    /// The tag of every word of every sentence.
    ///
    /// # Errors
    /// If it cannot read one.
    fn tags(&self, sentences: &[Vec<String>]) -> Result<Vec<Vec<String>>>;

    /// Number of values in all of its variables.
    fn parameter_count(&self) -> usize;
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
    /// The student's network, if it is from a file.
    pub design: Option<&'a Design>,
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
        let pupil: Box<dyn Pupil> = match self.design {
            Some(design) => Box::new(FromFile::new(self, design)?),
            None => Box::new(BuiltIn::new(self)?),
        };
        let path = folder.path.join(way.name());
        // What is scored is what is saved.
        let saved = || pupil.save(&path);

        let trained_on = if way.reads_unlabelled() { draw.training } else { draw.labelled };
        let mut labels = classes.encode(&draw.data.select(&(0..draw.labelled).collect::<Vec<_>>()))?;
        for example in draw.labelled..trained_on {
            labels.push(self.outputs.labels(example, classes.names())?);
        }
        let lengths = draw.data.examples[..trained_on].iter().map(|sentence| sentence.words.len()).collect();
        let plan = BatchPlan::new(lengths, settings.batch_size, seed, DEFAULT_POOL)?;
        let batches = plan.batches(|examples| {
            Ok(Batch {
                tokens: pupil.tokens(&examples)?,
                labels: Some(collate_labels(&labels, &examples, device)?),
                targets: vec![],
                teachers: vec![self.outputs.collate(&examples, classes.names(), device)?],
                weights: None,
                task: 0,
                examples,
            })
        });
        let small_dev = || self.f1(&*saved()?, &draw.small_dev);
        let mut evaluate = || small_dev().map_err(|error| candle_core::Error::msg(error).into());

        let objective = settings.objective(way);
        let checkpoint = folder.path.join(format!("{}.checkpoint", way.name()));
        let config = TrainerConfig { groups: pupil.frozen(), ..settings.trainer(seed, folder.checkpoint_every) };
        let trainer = Trainer::new(pupil.student(), pupil.variables(), &objective, config)?;
        let mut trainer = trainer.with_checkpoint(&checkpoint)?;
        let mut progress = Progress::new(way.name(), settings.steps, trainer.step_count(), "steps");
        if trainer.fit(&batches, Some(&mut evaluate), &mut progress)? == Outcome::Interrupted {
            bail!(Interrupted);
        }
        drop(progress);

        let (tagger, best) = (saved()?, trainer.best());
        let scores = Scores {
            small_dev_f1: best.map(|best| best.score),
            dev_f1: self.f1(&*tagger, &draw.dev())?,
            test_f1: self.f1(&*tagger, &draw.test())?,
            steps: trainer.step_count(),
            best_step: best.map_or(trainer.step_count(), |best| best.step),
        };
        if checkpoint.exists() {
            std::fs::remove_file(&checkpoint)?;
        }
        Ok(Trained { scores, parameters: tagger.parameter_count(), bytes: bundle::bytes(&path)? })
    }

    pub(super) fn words(&self, examples: &[usize]) -> Vec<Vec<String>> {
        examples.iter().map(|&id| self.draw.data.examples[id].words.clone()).collect()
    }

    /// Entity F1 of a saved student on these sentences.
    fn f1(&self, tagger: &dyn Tag, ids: &[usize]) -> Result<f64> {
        let tags = tagger.tags(&self.words(ids))?;
        let gold = ids.iter().map(|&id| self.draw.data.examples[id].tags.as_slice());
        Ok(entity_f1(gold.zip(tags.iter().map(Vec::as_slice)))?.f1())
    }
}
