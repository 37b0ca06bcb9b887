//! One student of several data sets: a shared body, a set of heads each, batches of the sets in turn (MKDM of Yang et al. 2019
//! with more than one data set).
//!
//! It makes as many updates on each data set as a student of that set alone, so that the two can be compared.

use std::path::Path;

use anyhow::{Context, Result, bail};
use candle_core::Device;
use kd_core::batch::{Batches, Described};
use kd_core::nn::HeadsOf;
use kd_data::batches::{BatchPlan, DEFAULT_POOL, Mixture, Order, temperature_shares};
use kd_data::encode::Encode;
use serde_json::{Value, json};

use super::experiment::{Experiment, Record, check_saved};
use super::results::{Results, name_of};
use super::student::{Built, Pupil};
use super::teachers::keys;
use super::training::{Answers, Course, Pace, Settings, train};
use super::{Needed, Run, Soft, TaughtSet, checkpoint_of, scores_of};

/// Several data sets, their teachers and a student's shape.
pub struct Joint<'a> {
    /// The data sets and their teachers.
    pub taught: &'a [TaughtSet],
    /// Who learns.
    pub pupil: Pupil<'a>,
    /// How.
    pub settings: &'a Settings,
    /// Weight of the teachers.
    pub alpha: f64,
    /// What draws the shares of the sets together: 1 gives each as many epochs, infinity as many updates.
    pub temperature: f64,
    /// Whether the set of a step is drawn; otherwise sets follow each other evenly.
    pub drawn: bool,
    /// Where results are kept.
    pub results: &'a Results,
    /// Where students are kept, each as a folder of its name; none: they are not.
    pub students: Option<&'a Path>,
    /// Steps between checkpoints.
    pub checkpoint_every: usize,
    /// Where it is computed.
    pub device: &'a Device,
}

impl std::fmt::Debug for Joint<'_> {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Joint").field("sets", &self.taught.len()).finish_non_exhaustive()
    }
}

impl<'a> Joint<'a> {
    /// Checks what is asked for.
    ///
    /// # Errors
    /// If there are no data sets, two of one name, or one without a teacher.
    pub fn check(&self) -> Result<()> {
        for (idx, taught) in self.taught.iter().enumerate() {
            let name = &taught.set.name;
            if self.taught[..idx].iter().any(|other| other.set.name == *name) {
                bail!("--set: expected data sets of different names, found `{name}` twice");
            }
            if taught.teachers.is_empty() {
                bail!("--set {name}: expected at least one teacher, found none");
            }
        }
        if self.taught.is_empty() {
            bail!("--set: expected at least one data set, found none");
        }
        Ok(())
    }

    /// Batches of each set's epoch.
    fn sizes(&self) -> Vec<usize> {
        self.taught.iter().map(|taught| taught.set.learn.len().div_ceil(self.settings.batch_size)).collect()
    }

    /// Updates of the student: the epochs of all sets together.
    pub fn steps(&self) -> usize {
        self.settings.epochs * self.sizes().iter().sum::<usize>()
    }

    fn evaluate_every(&self) -> usize {
        self.sizes().iter().sum()
    }

    fn mixture(&self, seed: u64) -> Result<Mixture> {
        let order = if self.drawn { Order::Drawn { seed } } else { Order::Even };
        Ok(Mixture::new(temperature_shares(&self.sizes(), self.temperature)?, order)?)
    }

    /// Updates on each set.
    ///
    /// # Errors
    /// If the temperature is out of its range.
    pub fn steps_of_sets(&self, seed: u64) -> Result<Vec<usize>> {
        let mixture = self.mixture(seed)?;
        let mut steps = vec![0; self.taught.len()];
        (0..self.steps()).for_each(|step| steps[mixture.turn(step).set] += 1);
        Ok(steps)
    }

    /// A student of set `idx` alone, with as many updates on it.
    ///
    /// # Errors
    /// If a set has no turn.
    pub fn alone(&self, idx: usize, seed: u64) -> Result<(Experiment<'a>, Run)> {
        let steps = self.steps_of_sets(seed)?[idx];
        if steps == 0 {
            bail!("{}: expected at least one update, found none in {} steps", self.taught[idx].set.name, self.steps());
        }
        let experiment = Experiment {
            taught: &self.taught[idx],
            pupil: self.pupil,
            settings: self.settings,
            stage_1: None,
            steps: Some(steps),
            results: self.results,
            students: self.students,
            checkpoint_every: self.checkpoint_every,
            device: self.device,
        };
        Ok((experiment, Run { needed: Needed { soft: Soft::Each, stage_1: false }, alpha: self.alpha, seed }))
    }

    /// The name of a seed's result, and everything that decides it.
    pub fn name(&self, seed: u64) -> (String, Value) {
        let of_set = |taught: &TaughtSet| {
            json!({
                "set": taught.set.name,
                "data": taught.set.digest,
                "heads": keys(Soft::Each, &taught.teachers),
            })
        };
        let decides = json!({
            "sets": self.taught.iter().map(of_set).collect::<Vec<_>>(),
            "data": self.taught.iter().map(|taught| taught.set.digest.as_str()).collect::<Vec<_>>(),
            "student": self.pupil.describe(),
            "alpha": self.alpha,
            "temperature": self.temperature.to_string(), // JSON has no infinity
            "drawn": self.drawn,
            "seed": seed,
            "settings": self.settings,
        });
        let sets: Vec<&str> = self.taught.iter().map(|taught| taught.set.name.as_str()).collect();
        let readable = format!("{}-{}-alpha-{}-seed-{seed}", sets.join("+"), self.pupil.name(), self.alpha);
        (name_of(&readable, &decides), decides)
    }

    /// The result of a seed, made now if it is not there yet; none if another process is at it. Its scores are by set, part
    /// and metric.
    ///
    /// # Errors
    /// If a file cannot be read or written, training breaks, or Ctrl-C was pressed.
    pub fn result(&self, seed: u64) -> Result<Option<Record>> {
        let (name, decides) = self.name(seed);
        let result = self.results.made(&name, || {
            let built = self.build(seed)?;
            let course_name = name.as_str();
            let trained = self.with_batches(seed, |batches| {
                let course = Course {
                    name: course_name,
                    built: &built,
                    batches,
                    objective: &self.settings.objective(self.alpha),
                    settings: self.settings,
                    steps: self.steps(),
                    evaluate_every: self.evaluate_every(),
                    seed,
                    checkpoint: checkpoint_of(self.results, course_name, self.steps(), self.checkpoint_every),
                };
                let evaluate = || self.evaluate(&built);
                let chooses = self.taught.iter().any(|taught| taught.set.choose.is_some());
                train(&course, None, chooses.then_some(&evaluate as &dyn Fn() -> Result<f64>))
            })?;
            let mut scores = serde_json::Map::new();
            let mut answers = Answers::new();
            for (idx, taught) in self.taught.iter().enumerate() {
                let encoded: Vec<&dyn Encode> = taught.encoded.report.iter().map(|part| &**part).collect();
                let mut of_set = serde_json::Map::new();
                for ((part, examples), probs) in
                    taught.set.report.iter().zip(built.answers(idx, &encoded, self.device)?)
                {
                    let metrics = scores_of(&taught.set, examples, &probs)?;
                    of_set.insert(part.name().to_string(), serde_json::to_value(metrics)?);
                    answers.insert(format!("{}/{}", taught.set.name, part.name()), probs);
                }
                scores.insert(taught.set.name.clone(), of_set.into());
            }
            kd_core::checkpoint::save(&self.results.file(&name, "answers"), &answers, &name)?;
            if let Some(students) = self.students {
                let classes: Vec<Vec<String>> = self.taught.iter().map(|taught| taught.set.classes.clone()).collect();
                built.save(&self.pupil, &classes, &students.join(&name))?;
            }
            Ok(Some(Record {
                name: name.clone(),
                decides,
                steps: trained.steps,
                kept_step: trained.kept_step,
                evaluations: trained.evaluations,
                scores,
                parameters: built.variables.parameter_count(),
                heads_of_stage_1: Vec::new(),
                device: super::name_of_device(self.device).to_string(),
                pace: trained.pace,
            }))
        })?;
        if result.is_some() {
            check_saved(self.students, &name);
        }
        Ok(result)
    }

    fn build(&self, seed: u64) -> Result<Built> {
        let heads = |taught: &TaughtSet| HeadsOf {
            name: taught.set.name.clone(),
            classes: taught.set.classes.len(),
            teachers: taught.teachers.len(),
            gold: self.alpha < 1.0,
        };
        self.pupil.build(self.taught.iter().map(heads).collect(), self.settings, seed, self.device)
    }

    /// Calls `use_them` with the batches of all sets in turn.
    fn with_batches<T>(&self, seed: u64, use_them: impl FnOnce(&dyn Batches) -> Result<T>) -> Result<T> {
        let plan = |taught: &TaughtSet| {
            let lengths = taught.encoded.learn.lengths().to_vec();
            BatchPlan::new(lengths, self.settings.batch_size, seed, DEFAULT_POOL)
        };
        let plans = self.taught.iter().map(plan).collect::<kd_data::Result<Vec<_>>>()?;
        let lessons: Vec<_> = self.taught.iter().map(|taught| taught.lesson(Soft::Each, self.alpha)).collect();
        let with_lessons = plans.iter().zip(&lessons).enumerate();
        let batches: Vec<_> = with_lessons
            .map(|(task, (plan, lesson))| Described {
                batch: move |step| lesson.batch(task, plan.indices(step), self.device),
                steps_per_epoch: Some(plan.steps_per_epoch()),
                description: plan.describe(),
            })
            .collect();
        let mixture = self.mixture(seed)?;
        use_them(&mixture.batches(batches.iter().map(|of_set| of_set as &dyn Batches).collect())?)
    }

    /// The mean of the sets' first metrics on what chooses.
    fn evaluate(&self, built: &Built) -> Result<f64> {
        let mut sum = 0.0;
        for (idx, taught) in self.taught.iter().enumerate() {
            let choose = taught.set.choose.as_ref().zip(taught.encoded.choose());
            let ((_, examples), encoded) =
                choose.with_context(|| format!("{}: there is nothing to choose on", taught.set.name))?;
            let probs = built.answers(idx, &[encoded], self.device)?.pop().context("no answers")?;
            sum += scores_of(&taught.set, examples, &probs)?.first();
        }
        Ok(sum / self.taught.len() as f64)
    }

    /// Trains for a few steps and forgets it: what a run takes.
    ///
    /// # Errors
    /// As training.
    pub fn probe(&self, seed: u64) -> Result<Pace> {
        let built = self.build(seed)?;
        let choose: Option<Vec<&dyn Encode>> = self.taught.iter().map(|taught| taught.encoded.choose()).collect();
        self.with_batches(seed, |batches| {
            let (objective, choose) = (self.settings.objective(self.alpha), choose.unwrap_or_default());
            super::plan::probe(&built, batches, &objective, None, self.settings, &choose, self.device)
        })
    }

    /// Evaluations of a run.
    pub fn evaluations(&self) -> usize {
        if self.taught.iter().any(|taught| taught.set.choose.is_some()) { self.settings.epochs } else { 0 }
    }
}
