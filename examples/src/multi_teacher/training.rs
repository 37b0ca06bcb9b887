//! One student learns, and answers.

use std::collections::BTreeMap;
use std::ops::ControlFlow;
use std::path::PathBuf;
use std::time::Instant;

use anyhow::{Result, bail};
use candle_core::{Device, Tensor};
use kd_core::batch::{Batch, Batches, Tokens};
use kd_core::model::{Mode, Output, Student};
use kd_core::objective::{Objective, PerHead, SoftLoss};
use kd_core::optim::AdamWConfig;
use kd_core::schedule::{Schedule, ValueSchedule};
use kd_core::trainer::{Evaluation, Interval, Observer, Outcome, Report, Trainer, TrainerConfig};
use kd_core::weighting::TeacherWeighting;
use kd_data::batches::{restore, sequential};
use kd_data::encode::Encode;
use serde::{Deserialize, Serialize};

use super::Targets;
use super::student::Built;
use crate::interrupt::Interrupted;
use crate::progress::Progress;

/// Tokens of a batch that is only asked, padding included: what keeps the caches of a CPU, and a GPU busy.
const ASKED_ON_CPU: usize = 4096;
const ASKED_ON_GPU: usize = 1 << 15;
/// Steps of a process that are not timed: buffers are allocated and kernels compiled in them.
const WARM_UP: usize = 3;

/// What decides how a student learns, besides data, teachers, heads and seed.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Settings {
    /// Peak learning rate.
    pub lr: f64,
    /// Passes over what is learned.
    pub epochs: usize,
    /// Examples a step.
    pub batch_size: usize,
    /// Longest sequence in word pieces.
    pub max_len: usize,
    /// Share of the steps over which the learning rate rises; it then falls to 0 in a line.
    pub warmup: f64,
    /// Decay per step and unit of learning rate; biases and norms have none.
    pub weight_decay: f64,
    /// Largest norm of the gradient.
    pub clip_norm: f64,
    /// Dropout in front of the heads.
    pub dropout: f64,
    /// Whether heads have a bias.
    pub bias: bool,
    /// What draws a head to its teacher.
    pub soft: SoftLoss,
    /// Whether teachers' logits are centred first.
    pub centre: bool,
    /// Whether products of f32 are made in TF32.
    #[serde(default, skip_serializing_if = "std::ops::Not::not")]
    pub tf32: bool,
}

impl Settings {
    /// Checks the ranges that nothing else checks.
    ///
    /// # Errors
    /// If one is outside; the message names it as the command line does.
    pub fn check(&self) -> Result<()> {
        for (name, value) in [("epochs", self.epochs), ("batch-size", self.batch_size)] {
            if value == 0 {
                bail!("--{name}: expected at least 1, found 0");
            }
        }
        if !(self.lr.is_finite() && self.lr > 0.0) {
            bail!("--lr: expected a number above 0, found {}", self.lr);
        }
        if !(0.0..=1.0).contains(&self.warmup) {
            bail!("--warmup: expected a share from 0 to 1, found {}", self.warmup);
        }
        if !(0.0..1.0).contains(&self.dropout) {
            bail!("--dropout: expected a number from 0 to below 1, found {}", self.dropout);
        }
        Ok(())
    }

    /// The objective of a student whose teachers weigh `alpha`: its heads are the teachers' alone at 1, and the gold one
    /// alone at 0.
    pub fn objective(&self, alpha: f64) -> PerHead {
        PerHead { alpha: ValueSchedule::Constant(alpha), soft: self.soft, centre: self.centre, gold: alpha < 1.0 }
    }

    /// The trainer of `steps` steps.
    fn trainer(&self, steps: usize, evaluate_every: usize, seed: u64) -> TrainerConfig {
        TrainerConfig {
            schedule: Schedule::WarmupLinear { warmup: (self.warmup * steps as f64).ceil() as usize, total: steps },
            clip_norm: Some(self.clip_norm),
            evaluate_every: Interval::Steps(evaluate_every),
            seed,
            ..TrainerConfig::new(
                steps,
                AdamWConfig { weight_decay: self.weight_decay, ..AdamWConfig::with_lr(self.lr) },
            )
        }
    }
}

/// What is learned of one data set.
pub struct Lesson<'a> {
    /// The texts.
    pub encoded: &'a dyn Encode,
    /// Their classes, if anything is learned from those.
    pub labels: Option<&'a [u32]>,
    /// What the teachers' heads learn.
    pub targets: Targets,
}

impl std::fmt::Debug for Lesson<'_> {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Lesson").field("examples", &self.encoded.lengths().len()).finish_non_exhaustive()
    }
}

impl Lesson<'_> {
    /// The batch of these examples for the set of heads `task`. One copy takes what all teachers said to the device.
    ///
    /// # Errors
    /// If there is no example of an id.
    pub fn batch(&self, task: usize, examples: Vec<usize>, device: &Device) -> candle_core::Result<Batch> {
        let tokens = self.encoded.collate(&examples)?;
        let rows = examples.len();
        let of_labels =
            |labels: &[u32]| Tensor::from_vec(examples.iter().map(|&id| labels[id]).collect(), rows, device);
        let labels = self.labels.map(of_labels).transpose()?;
        let heads = self.targets.heads.len();
        let mut teachers = Vec::with_capacity(heads);
        if heads > 0 {
            let logits = Tensor::from_vec(self.targets.rows(&examples), (heads, rows, self.targets.classes), device)?;
            for head in 0..heads {
                teachers.push(Output::from_logits(logits.get(head)?));
            }
        }
        Ok(Batch { tokens, labels, targets: vec![], teachers, weights: None, task, examples })
    }
}

/// A student and how it is to learn.
pub struct Course<'a> {
    /// What progress is called.
    pub name: &'a str,
    /// Who learns.
    pub built: &'a Built,
    /// What.
    pub batches: &'a dyn Batches,
    /// With which loss.
    pub objective: &'a dyn Objective,
    /// How.
    pub settings: &'a Settings,
    /// Updates.
    pub steps: usize,
    /// Updates between evaluations.
    pub evaluate_every: usize,
    /// Seed of dropout.
    pub seed: u64,
    /// Where a checkpoint is kept and after how many steps; none for a run that is so short that it is rather begun anew.
    pub checkpoint: Option<(PathBuf, usize)>,
}

impl std::fmt::Debug for Course<'_> {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Course").field("name", &self.name).finish_non_exhaustive()
    }
}

impl<'a> Course<'a> {
    /// The trainer of this course, at its beginning and without a checkpoint.
    ///
    /// # Errors
    /// If a setting is out of its range.
    pub fn trainer(&self) -> kd_core::Result<Trainer<'a>> {
        let Course { built, objective, settings, steps, evaluate_every, seed, checkpoint, .. } = self;
        let config = TrainerConfig {
            checkpoint_every: checkpoint.as_ref().map_or(*steps, |(_, every)| *every),
            may_be_still: built.student.may_be_still(),
            groups: built.frozen.clone(),
            ..settings.trainer(*steps, *evaluate_every, *seed)
        };
        Trainer::new(&built.student, &built.variables, *objective, config)
    }
}

/// How a training went.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Trained {
    /// Updates made.
    pub steps: usize,
    /// The update after which the weights were kept.
    pub kept_step: usize,
    /// The scores that chose it.
    pub evaluations: Vec<Evaluation>,
    /// What it took, on the clock.
    pub pace: Pace,
}

/// Seconds, of the process that came to the end; not those of one that was killed before.
#[derive(Debug, Clone, Copy, PartialEq, Default, Serialize, Deserialize)]
pub struct Pace {
    /// Of a step, without evaluations; the mean of all but the first three. None if fewer were made.
    pub per_step: Option<f64>,
    /// Of an evaluation.
    pub per_evaluation: Option<f64>,
}

impl Pace {
    /// Seconds of a run of so many steps and evaluations.
    pub fn of(&self, steps: usize, evaluations: usize) -> Option<f64> {
        Some(self.per_step? * steps as f64 + self.per_evaluation.unwrap_or(0.0) * evaluations as f64)
    }
}

/// Times steps and evaluations.
#[derive(Debug)]
struct Clock {
    steps: usize,
    evaluations: usize,
    last: Instant,
    training: f64,
    evaluating: f64,
}

impl Clock {
    fn new() -> Self {
        Self { steps: 0, evaluations: 0, last: Instant::now(), training: 0.0, evaluating: 0.0 }
    }

    fn pace(&self) -> Pace {
        let mean = |seconds: f64, n: usize| (n > 0).then(|| seconds / n as f64);
        let timed = self.steps.saturating_sub(WARM_UP);
        Pace { per_step: mean(self.training, timed), per_evaluation: mean(self.evaluating, self.evaluations) }
    }
}

/// The clock of a training, told of every step.
struct Timed<'a>(&'a std::cell::RefCell<Clock>);

impl Observer for Timed<'_> {
    fn begin(&mut self, _step: usize) -> kd_core::Result<()> {
        self.0.borrow_mut().last = Instant::now();
        Ok(())
    }

    fn observe(&mut self, _report: &Report) -> kd_core::Result<ControlFlow<()>> {
        let mut clock = self.0.borrow_mut();
        let seconds = clock.last.elapsed().as_secs_f64();
        clock.last = Instant::now();
        clock.steps += 1;
        if clock.steps > WARM_UP {
            clock.training += seconds;
        }
        Ok(ControlFlow::Continue(()))
    }
}

/// Trains the student, its teachers weighed by `weighting` if there is one; the weights of the best evaluation, or the last where nothing is evaluated, are its weights then.
///
/// # Errors
/// If the checkpoint is another run's, TF32 is asked for on the CPU, a loss is no number again and again, or Ctrl-C was pressed.
pub fn train(
    course: &Course<'_>,
    weighting: Option<&mut dyn TeacherWeighting>,
    evaluate: Option<&dyn Fn() -> Result<f64>>,
) -> Result<Trained> {
    let Course { name, steps, checkpoint, built, settings, .. } = course;
    // Here, so that what was trained on a GPU can be put into tables without one.
    if settings.tf32 && built.variables.all().iter().any(|(_, variable)| !variable.device().is_cuda()) {
        bail!("--tf32: expected a CUDA device to train {name}, found the CPU");
    }
    let mut trainer = course.trainer()?;
    if let Some(weighting) = weighting {
        trainer = trainer.with_weighting(weighting);
    }
    if let Some((path, _)) = checkpoint {
        trainer = trainer.with_checkpoint(path)?;
    }
    let clock = std::cell::RefCell::new(Clock::new());
    let mut scored = || -> kd_core::Result<f64> {
        let Some(evaluate) = evaluate else { return Ok(0.0) };
        let began = Instant::now();
        let score = evaluate().map_err(|error| candle_core::Error::msg(format!("{error:#}")))?;
        let mut clock = clock.borrow_mut();
        let now = Instant::now();
        clock.evaluating += (now - began).as_secs_f64();
        clock.evaluations += 1;
        clock.last += now - began; // the time of the step goes on where it was
        Ok(score)
    };
    let score: Option<&mut dyn FnMut() -> kd_core::Result<f64>> =
        if evaluate.is_some() { Some(&mut scored) } else { None };
    let mut progress = Progress::new(name, *steps, trainer.step_count(), "steps");
    let mut timed = Timed(&clock);
    let mut observers: Vec<&mut dyn Observer> = vec![&mut timed, &mut progress];
    if trainer.fit(course.batches, score, &mut observers)? == Outcome::Interrupted {
        bail!(Interrupted);
    }
    let kept_step = trainer.best().map_or(trainer.step_count(), |best| best.step);
    let (steps, evaluations) = (trainer.step_count(), trainer.evaluations().to_vec());
    let pace = clock.borrow().pace();
    Ok(Trained { steps, kept_step, evaluations, pace })
}

/// What a student says of every text: the mean of its heads' probabilities, `(examples, classes)` f32 on the CPU.
///
/// # Errors
/// If the student cannot read the texts.
pub fn answers(student: &dyn Student, encoded: &dyn Encode, device: &Device) -> Result<Tensor> {
    of_every_text(encoded, device, &|tokens| {
        kd_core::model::mean_probabilities(&student.forward(tokens, Mode::Eval)?.detach().heads)
    })
}

/// What `ask` gives for every text, a row each: `(examples, width)` f32 on the CPU.
///
/// # Errors
/// Those of `ask`.
pub(super) fn of_every_text(
    encoded: &dyn Encode,
    device: &Device,
    ask: &dyn Fn(&Tokens) -> candle_core::Result<Tensor>,
) -> Result<Tensor> {
    let tokens = if device.is_cpu() { ASKED_ON_CPU } else { ASKED_ON_GPU };
    let batches = sequential(encoded.lengths(), tokens);
    let mut said = Vec::with_capacity(batches.len());
    for examples in &batches {
        said.push(ask(&encoded.collate(examples)?)?.detach());
    }
    // Read from the device once.
    let said = Tensor::cat(&said, 0)?.to_device(&Device::Cpu)?;
    let (examples, width) = said.dims2()?;
    let rows = restore(&[batches.concat()], [said.to_vec2::<f32>()?]);
    Ok(Tensor::from_vec(rows.concat(), (examples, width), &Device::Cpu)?)
}

/// Answers by the name of the part.
pub type Answers = BTreeMap<String, Tensor>;
