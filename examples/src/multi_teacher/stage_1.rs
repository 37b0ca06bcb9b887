//! The first stage: a student learns what teachers say of texts without labels (Yang et al. 2020, §3.1.1, Eq. 4 alone).
//!
//! It is a result of its own, under a name made of the texts, teachers, student, settings and seed: all tasks, weights and
//! methods that begin with the same share it.

use std::collections::BTreeMap;

use anyhow::Result;
use candle_core::{Device, Tensor};
use kd_core::nn::HeadsOf;
use kd_data::batches::{BatchPlan, DEFAULT_POOL};
use kd_data::encode::Encode;
use serde::{Deserialize, Serialize};
use serde_json::{Value, json};

use super::results::{Results, name_of};
use super::student::{Built, Pupil};
use super::teachers::{TeacherFile, keys};
use super::training::{Course, Lesson, Pace, Settings, train};
use super::{Soft, Targets, checkpoint_of};

/// The texts, what was said of them, and how they are learned.
pub struct StageOne {
    /// The texts as the student reads them.
    pub encoded: Box<dyn Encode>,
    /// A digest of them.
    pub digest: String,
    /// Who was asked about them.
    pub teachers: Vec<TeacherFile>,
    /// What they said: by teacher, example, class.
    pub logits: Vec<Vec<Vec<f32>>>,
    /// How they are learned.
    pub settings: Settings,
    /// The seed of all students; none: each has its own.
    pub seed: Option<u64>,
    /// Where results are kept.
    pub results: Results,
    /// Steps between checkpoints.
    pub checkpoint_every: usize,
    /// Where it is computed.
    pub device: Device,
}

impl std::fmt::Debug for StageOne {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("StageOne").field("digest", &self.digest).finish_non_exhaustive()
    }
}

/// What is kept of a first stage; its weights are in a file beside it.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct StageOneRecord {
    /// Its name.
    pub name: String,
    /// Everything that decides it.
    pub decides: Value,
    /// Updates.
    pub steps: usize,
    /// `cpu` or `cuda`.
    pub device: String,
    /// What it took.
    pub pace: Pace,
}

impl StageOne {
    /// The name of its set of heads.
    pub const SET: &'static str = "stage-1";

    /// The classes of its heads, in the order of their columns: those of the first teacher.
    pub fn classes(&self) -> &[String] {
        self.teachers.first().map_or(&[], TeacherFile::classes)
    }

    /// The teacher of this stage that goes with teacher `best` of `n` in the next: the one in the same place where both have
    /// as many, else the first.
    pub fn place_of(&self, best: usize, n: usize) -> usize {
        if n == self.teachers.len() { best } else { 0 }
    }

    /// Updates.
    pub fn steps(&self) -> usize {
        self.settings.epochs * self.encoded.lengths().len().div_ceil(self.settings.batch_size)
    }

    /// The name of its result, and everything that decides it.
    pub fn name(&self, pupil: &Pupil<'_>, soft: Soft, seed: u64) -> (String, Value) {
        let decides = json!({
            "data": self.digest,
            "student": pupil.describe(),
            "soft": soft.name(),
            "heads": keys(soft, &self.teachers),
            "classes": self.classes(),
            "seed": seed,
            "settings": self.settings,
        });
        (name_of(&format!("stage-1-{}-{}-seed-{seed}", pupil.name(), soft.name()), &decides), decides)
    }

    /// The trained student's variables, trained now if they are not there yet; none if another process is at it.
    ///
    /// # Errors
    /// If a file cannot be read or written, training breaks, or Ctrl-C was pressed.
    pub fn student(&self, pupil: &Pupil<'_>, soft: Soft, seed: u64) -> Result<Option<BTreeMap<String, Tensor>>> {
        let (name, decides) = self.name(pupil, soft, seed);
        let path = self.results.file(&name, "student");
        let record = self.results.made(&name, || {
            let built = self.build(pupil, soft, seed)?;
            let lesson = self.lesson(soft);
            let plan = self.plan(seed)?;
            let course = Course {
                name: &name,
                built: &built,
                batches: &plan.batches(|examples| lesson.batch(0, examples, &self.device)),
                objective: &self.settings.objective(1.0),
                settings: &self.settings,
                steps: self.steps(),
                evaluate_every: self.steps(),
                seed,
                checkpoint: checkpoint_of(&self.results, &name, self.steps(), self.checkpoint_every),
            };
            let trained = train(&course, None, None)?;
            kd_core::checkpoint::save(&path, &built.variables.tensors(), &name)?;
            let device = super::name_of_device(&self.device).to_string();
            let (name, steps, pace) = (name.clone(), trained.steps, trained.pace);
            Ok(Some(StageOneRecord { name, decides, steps, device, pace }))
        })?;
        if record.is_none() {
            return Ok(None);
        }
        let (tensors, _): (BTreeMap<String, Tensor>, String) = kd_core::checkpoint::load(&path)?;
        Ok(Some(tensors))
    }

    fn build(&self, pupil: &Pupil<'_>, soft: Soft, seed: u64) -> Result<Built> {
        let heads = HeadsOf {
            name: Self::SET.to_string(),
            classes: self.classes().len(),
            teachers: soft.heads(self.teachers.len()),
            gold: false,
        };
        pupil.build(vec![heads], &self.settings, seed, &self.device)
    }

    fn lesson(&self, soft: Soft) -> Lesson<'_> {
        Lesson {
            encoded: &*self.encoded,
            labels: None,
            targets: Targets::new(soft, &self.logits, self.classes().len()),
        }
    }

    fn plan(&self, seed: u64) -> Result<BatchPlan> {
        Ok(BatchPlan::new(self.encoded.lengths().to_vec(), self.settings.batch_size, seed, DEFAULT_POOL)?)
    }

    /// Trains for a few steps and forgets it: what a first stage of this kind takes.
    ///
    /// # Errors
    /// As training.
    pub fn probe(&self, pupil: &Pupil<'_>, soft: Soft, seed: u64) -> Result<Pace> {
        let (built, lesson, plan) = (self.build(pupil, soft, seed)?, self.lesson(soft), self.plan(seed)?);
        let batches = plan.batches(|examples| lesson.batch(0, examples, &self.device));
        super::plan::probe(&built, &batches, &self.settings.objective(1.0), None, &self.settings, &[], &self.device)
    }
}
