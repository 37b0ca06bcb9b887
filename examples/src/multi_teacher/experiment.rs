//! A data set, its teachers, and the students that learn from both: every run by name, once.

use std::collections::BTreeMap;
use std::path::Path;

use anyhow::{Context, Result};
use candle_core::{Device, Tensor};
use kd_core::nn::HeadsOf;
use kd_core::trainer::Evaluation;
use kd_data::batches::{BatchPlan, DEFAULT_POOL};
use kd_data::task::Scores;
use serde::{Deserialize, Serialize};
use serde_json::{Value, json};

use super::results::{Results, name_of};
use super::student::{Built, Pupil};
use super::teachers::{identities, keys};
use super::training::{Answers, Course, Pace, Settings, Trained, train};
use super::{DataSet, Needed, Soft, StageOne, TaughtSet, checkpoint_of};

/// A student to be trained.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct Run {
    /// Its heads and its stages.
    pub needed: Needed,
    /// Weight of the teachers; 0 without any.
    pub alpha: f64,
    /// Seed of heads, batches and dropout.
    pub seed: u64,
}

/// What is kept of a student; its answers are in a file beside it.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Record {
    /// Its name.
    pub name: String,
    /// Everything that decides it.
    pub decides: Value,
    /// Updates.
    pub steps: usize,
    /// The update after which the weights were kept.
    pub kept_step: usize,
    /// The scores that chose it.
    pub evaluations: Vec<Evaluation>,
    /// Metrics by part.
    pub scores: serde_json::Map<String, Value>,
    /// Number of values in all variables.
    pub parameters: usize,
    /// What of the first stage went into it; empty without one.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub heads_of_stage_1: Vec<String>,
    /// `cpu` or `cuda`.
    pub device: String,
    /// What it took.
    pub pace: Pace,
}

/// One data set, its teachers and a student's shape.
pub struct Experiment<'a> {
    /// The data set and its teachers.
    pub taught: &'a TaughtSet,
    /// Who learns.
    pub pupil: Pupil<'a>,
    /// How.
    pub settings: &'a Settings,
    /// The unlabelled stage.
    pub stage_1: Option<&'a StageOne>,
    /// Updates of every student; none: as many as the epochs have.
    pub steps: Option<usize>,
    /// Where results are kept.
    pub results: &'a Results,
    /// Where students are kept, each as a folder of its name; none: they are not.
    pub students: Option<&'a Path>,
    /// Steps between checkpoints.
    pub checkpoint_every: usize,
    /// Where it is computed.
    pub device: &'a Device,
}

impl std::fmt::Debug for Experiment<'_> {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Experiment").field("set", &self.taught.set.name).finish_non_exhaustive()
    }
}

impl Experiment<'_> {
    /// Updates of every student.
    pub fn steps(&self) -> usize {
        let of_epochs = self.settings.epochs * self.set().learn.len().div_ceil(self.settings.batch_size);
        self.steps.unwrap_or(of_epochs)
    }

    /// Updates between evaluations: an epoch's.
    fn evaluate_every(&self) -> usize {
        self.steps().div_ceil(self.settings.epochs)
    }

    fn set(&self) -> &DataSet {
        &self.taught.set
    }

    /// The evaluations of a run.
    pub fn evaluations(&self) -> usize {
        if self.set().choose.is_some() { self.steps().div_ceil(self.evaluate_every()) } else { 0 }
    }

    /// Everything that decides a run.
    fn decides(&self, run: &Run) -> Value {
        let stage_1 = self.stage_1_of(run).map(|(stage, soft, seed)| stage.name(&self.pupil, soft, seed).0);
        json!({
            "set": self.set().name,
            "data": self.set().digest,
            "student": self.pupil.describe(),
            "soft": run.needed.soft.name(),
            "heads": keys(run.needed.soft, &self.taught.teachers),
            "alpha": run.alpha,
            "seed": run.seed,
            "stage_1": stage_1,
            "settings": self.settings,
            "steps": self.steps(),
        })
    }

    /// The name of a run's result, and everything that decides it.
    pub fn name(&self, run: &Run) -> (String, Value) {
        let decides = self.decides(run);
        let stage = if run.needed.stage_1 { "stage-1-" } else { "" };
        let alpha = if run.needed.soft == Soft::None { String::new() } else { format!("-alpha-{}", run.alpha) };
        let (set, pupil, soft, seed) = (&self.set().name, self.pupil.name(), run.needed.soft.name(), run.seed);
        (name_of(&format!("{set}-{pupil}-{stage}{soft}{alpha}-seed-{seed}"), &decides), decides)
    }

    /// The first stage of a run: its heads and its seed.
    pub fn stage_1_of(&self, run: &Run) -> Option<(&StageOne, Soft, u64)> {
        let stage = self.stage_1.filter(|_| run.needed.stage_1)?;
        let soft = match run.needed.soft {
            Soft::One(best) => Soft::One(stage.place_of(best, self.taught.teachers.len())),
            soft => soft,
        };
        Some((stage, soft, stage.seed.unwrap_or(run.seed)))
    }

    /// The result of a run, made now if it is not there yet; none if another process is at it, or at its first stage.
    ///
    /// # Errors
    /// If a file cannot be read or written, training breaks, or Ctrl-C was pressed.
    pub fn result(&self, run: &Run) -> Result<Option<Record>> {
        let (name, decides) = self.name(run);
        let result = self.results.made(&name, || {
            let Some((stage, soft, seed)) = self.stage_1_of(run) else {
                return self.train(run, name.clone(), decides, None).map(Some);
            };
            let Some(tensors) = stage.student(&self.pupil, soft, seed)? else { return Ok(None) };
            self.train(run, name.clone(), decides, Some((stage, soft, tensors))).map(Some)
        })?;
        if result.is_some() {
            check_saved(self.students, &name);
        }
        Ok(result)
    }

    fn train(
        &self,
        run: &Run,
        name: String,
        decides: Value,
        first: Option<(&StageOne, Soft, BTreeMap<String, Tensor>)>,
    ) -> Result<Record> {
        let built = self.build(run)?;
        let mut heads_of_stage_1 = Vec::new();
        if let Some((stage, soft, tensors)) = first {
            // A head is one teacher's: its logits' scale and its columns.
            let is_same = stage.classes() == self.set().classes
                && identities(soft, &stage.teachers) == identities(run.needed.soft, &self.taught.teachers);
            let pair = [(StageOne::SET, self.set().name.as_str())];
            let keep = if is_same { &pair[..] } else { &[] };
            let transfer = built.student.start_from(&built.variables, &tensors, keep)?;
            heads_of_stage_1 = transfer.kept.into_iter().map(|(head, _)| head).collect();
        }
        let trained = self.teach(run, &built, &name)?;
        let answers = self.answers(&built)?;
        kd_core::checkpoint::save(&self.results.file(&name, "answers"), &answers, &name)?;
        if let Some(students) = self.students {
            built.save(&self.pupil, std::slice::from_ref(&self.set().classes), &students.join(&name))?;
        }
        let Trained { steps, kept_step, evaluations, pace } = trained;
        Ok(Record {
            name,
            decides,
            steps,
            kept_step,
            evaluations,
            scores: self.scores(&answers)?,
            parameters: built.variables.parameter_count(),
            heads_of_stage_1,
            device: super::name_of_device(self.device).to_string(),
            pace,
        })
    }

    /// The student of a run as its seed draws it.
    fn build(&self, run: &Run) -> Result<Built> {
        let heads = HeadsOf {
            name: self.set().name.clone(),
            classes: self.set().classes.len(),
            teachers: run.needed.soft.heads(self.taught.teachers.len()),
            gold: run.alpha < 1.0,
        };
        self.pupil.build(vec![heads], self.settings, run.seed, self.device)
    }

    /// Teaches a student.
    fn teach(&self, run: &Run, built: &Built, name: &str) -> Result<Trained> {
        let lesson = self.taught.lesson(run.needed.soft, run.alpha);
        let plan = BatchPlan::new(
            self.taught.encoded.learn.lengths().to_vec(),
            self.settings.batch_size,
            run.seed,
            DEFAULT_POOL,
        )?;
        let course = Course {
            name,
            built,
            batches: &plan.batches(|examples| lesson.batch(0, examples, self.device)),
            objective: &self.settings.objective(run.alpha),
            settings: self.settings,
            steps: self.steps(),
            evaluate_every: self.evaluate_every(),
            seed: run.seed,
            checkpoint: checkpoint_of(self.results, name, self.steps(), self.checkpoint_every),
        };
        let choose = self.set().choose.as_ref().zip(self.taught.encoded.choose());
        let evaluate = choose.map(|((_, examples), encoded)| {
            move || -> Result<f64> {
                let probs = built.answers(0, &[encoded], self.device)?.pop().context("no answers")?;
                Ok(scores_of(self.set(), examples, &probs)?.first())
            }
        });
        train(&course, None, evaluate.as_ref().map(|evaluate| evaluate as &dyn Fn() -> Result<f64>))
    }

    /// What a student says of every part that is reported.
    fn answers(&self, built: &Built) -> Result<Answers> {
        let encoded: Vec<&dyn kd_data::encode::Encode> =
            self.taught.encoded.report.iter().map(|part| &**part).collect();
        let probs = built.answers(0, &encoded, self.device)?;
        Ok(self.set().report.iter().map(|(part, _)| part.name().to_string()).zip(probs).collect())
    }

    /// The answers that were kept of a run.
    ///
    /// # Errors
    /// If they cannot be read.
    pub fn kept_answers(&self, name: &str) -> Result<Answers> {
        let (answers, _): (Answers, String) = kd_core::checkpoint::load(&self.results.file(name, "answers"))?;
        Ok(answers)
    }

    /// The metrics of answers, by part.
    ///
    /// # Errors
    /// If a part has no answers, or others than it has examples.
    pub fn scores(&self, answers: &Answers) -> Result<serde_json::Map<String, Value>> {
        let mut scores = serde_json::Map::new();
        for (part, examples) in &self.set().report {
            let probs =
                answers.get(part.name()).with_context(|| format!("there are no answers for {}", part.name()))?;
            let value = serde_json::to_value(scores_of(self.set(), examples, probs)?)?;
            scores.insert(part.name().to_string(), value);
        }
        Ok(scores)
    }

    /// Trains for a few steps and forgets it: what a run of this kind takes.
    ///
    /// # Errors
    /// As training.
    pub fn probe(&self, run: &Run) -> Result<Pace> {
        let built = self.build(run)?;
        let lesson = self.taught.lesson(run.needed.soft, run.alpha);
        let lengths = self.taught.encoded.learn.lengths();
        let plan = BatchPlan::new(lengths.to_vec(), self.settings.batch_size, run.seed, DEFAULT_POOL)?;
        let batches = plan.batches(|examples| lesson.batch(0, examples, self.device));
        let objective = self.settings.objective(run.alpha);
        let choose: Vec<&dyn kd_data::encode::Encode> = self.taught.encoded.choose().into_iter().collect();
        super::plan::probe(&built, &batches, &objective, None, self.settings, &choose, self.device)
    }
}

/// Says so if a student that is to be kept was made when it was not.
pub(crate) fn check_saved(students: Option<&Path>, name: &str) {
    if students.is_some_and(|students| !students.join(name).exists()) {
        eprintln!("note: {name} was made without --save; where its .json is removed it is made again");
    }
}

/// The metrics of probabilities.
///
/// # Errors
/// If there are not as many as examples.
pub fn scores_of(set: &DataSet, examples: &kd_data::task::Examples, probs: &Tensor) -> Result<Scores> {
    // Rankings are by the difference of the classes' logits; that of the log-probabilities is the same, and does not round
    // probabilities close to 1 to one number.
    // Not by `max`, which makes a number of NaN.
    let log = |p: f32| if p < f32::MIN_POSITIVE { f32::MIN_POSITIVE.ln() } else { p.ln() };
    let rows = probs.to_vec2::<f32>()?;
    let logits: Vec<Vec<Vec<f32>>> = rows.into_iter().map(|row| vec![row.into_iter().map(log).collect()]).collect();
    Ok(set.task.scores(examples, &set.classes, &logits)?)
}
