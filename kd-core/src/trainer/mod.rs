//! The training loop: step, evaluate, keep the best, stop early, and lose nothing when killed.
//!
//! The model after step `n` is a function of the configuration, the batches and `n` alone: dropout is drawn from
//! the step's number, batches are asked for by number, and a checkpoint holds weights, moments, averages, the best
//! weights so far, the evaluations and the count of skipped steps. A run that is killed and resumed therefore ends in
//! the same bytes.
//!
//! ```text
//! Batches::batch(step) -> Student::forward -> Objective::loss -> backward -> clip -> Optimizer::step -> Observer
//!   TeacherWeighting::weigh --^                                  TeacherWeighting::feedback --^
//! ```
//!
//! | part                               | does                                                              |
//! |------------------------------------|-------------------------------------------------------------------|
//! | [`Trainer::step`]                  | one update, for loops of one's own                                |
//! | [`Trainer::fit`]                   | the whole run                                                     |
//! | [`TrainerConfig`]                  | what decides the result; the checkpoint refuses another           |
//! | [`Observer`]                       | told of every step: a closure, or a list of observers             |
//! | [`JsonLines`], [`TensorBoard`]     | logs that a resumed run goes on with                              |

mod config;
mod json_lines;
mod liveness;
mod report;
mod state;
mod tensor_board;

use std::collections::{BTreeMap, BTreeSet};
use std::path::{Path, PathBuf};

use candle_core::Tensor;
use candle_core::backprop::GradStore;
use serde_json::Value;

use self::liveness::Liveness;
use crate::batch::{Batch, Batches};
use crate::error::{Error, Result};
use crate::model::{Mode, Output, Student};
use crate::objective::Objective;
use crate::optim::{Accumulator, Ema, Optimizer, clip_scale};
use crate::variables::{Variables, mix};
use crate::weighting::{Feedback, TeacherWeighting};

pub use self::config::{Interval, TrainerConfig};
pub use self::json_lines::JsonLines;
pub use self::report::{Evaluation, Observer, Report};
pub use self::state::Saved;
pub use self::tensor_board::TensorBoard;

/// How [`Trainer::fit`] ended.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Outcome {
    /// All steps were made, or patience ran out; the variables hold the best weights if there were evaluations.
    Finished,
    /// The observer broke off; the checkpoint holds the state.
    Interrupted,
}

/// A model in training.
pub struct Trainer<'a> {
    student: &'a dyn Student,
    variables: Variables,
    objective: &'a dyn Objective,
    weighting: Option<&'a mut dyn TeacherWeighting>,
    optimizer: Box<dyn Optimizer>,
    ema: Option<Ema>,
    liveness: Liveness,
    config: TrainerConfig,
    description: Value,
    /// What the batches of the first `fit` said of themselves.
    batches: Option<Value>,
    step: usize,
    skipped: usize,
    skipped_in_a_row: usize,
    evaluations: Vec<Evaluation>,
    best: Option<(Evaluation, BTreeMap<String, Tensor>)>,
    checkpoint: Option<PathBuf>,
    /// Steps made in the checkpoint that is on the disk.
    saved: Option<usize>,
}

impl std::fmt::Debug for Trainer<'_> {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Trainer").field("config", &self.config).field("step", &self.step).finish_non_exhaustive()
    }
}

impl<'a> Trainer<'a> {
    /// A trainer of all of `variables`, which `student` is made of, but for those that a group freezes.
    ///
    /// # Errors
    /// If a setting is outside its range, or a group has no variable.
    pub fn new(
        student: &'a dyn Student,
        variables: &Variables,
        objective: &'a dyn Objective,
        config: TrainerConfig,
    ) -> Result<Self> {
        config.check()?;
        let optimizer = config.optimizer.build(variables.named(), &config.groups)?;
        let trained = || optimizer.named().map(|(name, var)| (name.to_string(), var.clone())).collect();
        let ema = config.ema.map(|config| Ema::new(trained(), config)).transpose()?;
        Ok(Self {
            student,
            variables: variables.clone(),
            objective,
            weighting: None,
            optimizer,
            ema,
            liveness: Liveness::new(&config.may_be_still),
            config,
            description: Value::Null,
            batches: None,
            step: 0,
            skipped: 0,
            skipped_in_a_row: 0,
            evaluations: Vec::new(),
            best: None,
            checkpoint: None,
            saved: None,
        })
    }

    /// Anything else that decides the result and that a checkpoint should be refused for: the model's sizes, a digest
    /// of the data. What the objective and the batches [describe](Objective::describe) is kept without it.
    ///
    /// Call it before [`with_checkpoint`](Self::with_checkpoint).
    #[must_use]
    pub fn with_description(mut self, description: Value) -> Self {
        self.description = description;
        self
    }

    /// `weighting` sets [`Batch::weights`] before each batch and is told what came of it after the step. What it has learnt
    /// is a part of the checkpoint.
    ///
    /// Call it before [`with_checkpoint`](Self::with_checkpoint).
    #[must_use]
    pub fn with_weighting(mut self, weighting: &'a mut dyn TeacherWeighting) -> Self {
        self.weighting = Some(weighting);
        self
    }

    /// Checkpoints go to `path`, and if one is there, training goes on from it.
    ///
    /// # Errors
    /// If the file there is broken, or belongs to a run with another configuration, objective, description or other
    /// variables: the message names what differs. Other batches are found by [`fit`](Self::fit).
    pub fn with_checkpoint(mut self, path: &Path) -> Result<Self> {
        if path.exists() {
            self.restore(path)?;
        }
        self.checkpoint = Some(path.to_path_buf());
        Ok(self)
    }

    /// Steps made so far, skipped ones included.
    pub fn step_count(&self) -> usize {
        self.step
    }

    /// Steps that were skipped so far.
    pub fn skipped(&self) -> usize {
        self.skipped
    }

    /// All evaluations so far.
    pub fn evaluations(&self) -> &[Evaluation] {
        &self.evaluations
    }

    /// The best evaluation so far.
    pub fn best(&self) -> Option<Evaluation> {
        self.best.as_ref().map(|(best, _)| *best)
    }

    /// One update on `batch`.
    ///
    /// # Errors
    /// If more than `max_skipped` steps in a row had a loss or a gradient that is not finite (the weights are not
    /// changed then), or if a trained variable takes no part in the loss: one without a gradient at the first update, or
    /// with one that is all zero in each of the first ten. See `may_be_still` of [`TrainerConfig`].
    pub fn step(&mut self, batch: &Batch) -> Result<Report> {
        self.step_on(&mut std::iter::once(Ok(batch.clone())))
    }

    /// One update on all of `batches` together; their gradients weigh as much as they have rows.
    ///
    /// # Errors
    /// Those of [`step`](Self::step) and of `batches`, and if there is no batch.
    pub fn step_on(&mut self, batches: &mut dyn Iterator<Item = candle_core::Result<Batch>>) -> Result<Report> {
        let (mut losses, mut sum, mut weighted) = (Vec::new(), Sum::default(), Vec::new());
        for (idx, batch) in batches.enumerate() {
            let mut batch = batch?;
            let number = self.step * self.config.accumulate + idx;
            if let Some(weighting) = &mut self.weighting {
                batch.weights = Some(weighting.weigh(&batch, number)?);
            }
            let seed = mix(self.config.seed, number as u64);
            let output = self.student.forward_batch(&batch, Mode::Train { seed })?;
            let loss = self.objective.loss(&output, &batch, self.step)?;
            // First the backward pass, so that a GPU has work while the numbers are waited for.
            let gradients = crate::ops::backward(&loss.total)?;
            let ((value, parts), rows) = (loss.values()?, batch.rows()?);
            losses.push((rows, value, parts));
            if !value.is_finite() {
                return self.skip("loss", f64::NAN, &losses);
            }
            sum.add(gradients, rows, self.optimizer.as_ref())?;
            if self.weighting.is_some() {
                weighted.push((number, batch, output.detach()));
            }
        }
        let Some(gradients) = sum.finish()? else {
            return Err(Error::Config { field: "batches", expected: "at least one", found: "none".to_string() });
        };
        let gradient_norm = self.optimizer.gradient_norm(&gradients, &[])?;
        if !gradient_norm.is_finite() {
            return self.skip("gradient norm", gradient_norm, &losses);
        }
        self.liveness.check(self.step, &gradients, self.optimizer.as_ref())?;
        let scale = self.config.clip_norm.map_or(1.0, |max_norm| clip_scale(gradient_norm, max_norm));
        self.optimizer.step(&gradients, self.config.schedule.factor(self.step), scale)?;
        if let Some(ema) = &mut self.ema {
            ema.update()?;
        }
        self.feed_back(&weighted)?;
        self.skipped_in_a_row = 0;
        Ok(self.report(gradient_norm, &losses, false))
    }

    /// Tells the weighting what came of the batches of this step.
    fn feed_back(&mut self, weighted: &[(usize, Batch, Output)]) -> Result<()> {
        let Some(weighting) = &mut self.weighting else { return Ok(()) };
        for (number, batch, output) in weighted {
            weighting.feedback(&Feedback { number: *number, batch, output, student: self.student })?;
        }
        Ok(())
    }

    /// A step that changes nothing but the step's number, or the end of training if there were too many.
    fn skip(&mut self, what: &'static str, gradient_norm: f64, losses: &[BatchLoss]) -> Result<Report> {
        if self.skipped_in_a_row == self.config.max_skipped {
            let value = if what == "loss" { mean_of(losses).0 } else { gradient_norm };
            let saved = self.checkpoint.clone().zip(self.saved);
            return Err(Error::NonFinite { step: self.step, what, value, skipped: self.skipped_in_a_row, saved });
        }
        self.skipped_in_a_row += 1;
        self.skipped += 1;
        Ok(self.report(gradient_norm, losses, true))
    }

    /// The report of the step that was just made, which it counts.
    fn report(&mut self, gradient_norm: f64, losses: &[BatchLoss], is_skipped: bool) -> Report {
        let lr_factor = self.config.schedule.factor(self.step);
        self.step += 1;
        let (loss, parts) = mean_of(losses);
        let (step, steps, skipped) = (self.step, self.config.steps, self.skipped);
        Report { step, steps, loss, parts, gradient_norm, lr_factor, is_skipped, skipped, score: None }
    }

    /// Steps, evaluates and checkpoints until the end; then sets the variables to the best weights.
    ///
    /// `evaluate` gives a score, higher is better; `None` keeps no best and ends with the last weights, or with their
    /// average if there is one. After a first evaluation of NaN a later number counts as better.
    ///
    /// # Errors
    /// Those of [`step`](Self::step), of `batches`, `evaluate` and `observer`, and if the checkpoint that training goes
    /// on from was made with batches that described themselves otherwise.
    pub fn fit(
        &mut self,
        batches: &dyn Batches,
        mut evaluate: Option<&mut dyn FnMut() -> Result<f64>>,
        observer: &mut dyn Observer,
    ) -> Result<Outcome> {
        self.know(batches)?;
        observer.begin(self.step)?;
        while self.step < self.config.steps && !self.is_out_of_patience() {
            let first = self.step * self.config.accumulate;
            let mut report =
                self.step_on(&mut (first..first + self.config.accumulate).map(|idx| batches.batch(idx)))?;
            let is_last = self.step == self.config.steps;
            if let Some(evaluate) = &mut evaluate
                && self.config.is_evaluated(self.step, batches.steps_per_epoch())?
            {
                let score = self.evaluate(evaluate)?;
                report.score = Some(score);
            }
            let is_interrupted = observer.observe(&report)?.is_break();
            if is_last || is_interrupted || self.step.is_multiple_of(self.config.checkpoint_every) {
                observer.flush()?;
                self.save()?;
            }
            if is_interrupted && !is_last {
                return Ok(Outcome::Interrupted);
            }
        }
        observer.flush()?;
        match (&self.best, &self.ema) {
            (Some((_, best)), _) => self.variables.set(&best.clone().into_iter().collect())?,
            (None, Some(ema)) => {
                let averages = ema.with_averages(|| copies(&self.variables))??;
                self.variables.set(&averages.into_iter().collect())?;
            }
            (None, None) => {}
        }
        Ok(Outcome::Finished)
    }

    fn know(&mut self, batches: &dyn Batches) -> Result<()> {
        let described = batches.describe();
        match (&self.batches, &self.checkpoint) {
            (Some(before), Some(path)) => state::same(path, "series of batches", &described, before),
            _ => {
                self.batches = Some(described);
                Ok(())
            }
        }
    }

    fn is_out_of_patience(&self) -> bool {
        let since_best = match &self.best {
            Some((best, _)) => self.evaluations.iter().filter(|evaluation| evaluation.step > best.step).count(),
            None => 0,
        };
        self.config.patience.is_some_and(|patience| since_best >= patience)
    }

    /// The score of the weights, or of their averages if there are some, which then are the best ones if it is the
    /// best.
    fn evaluate(&mut self, evaluate: &mut dyn FnMut() -> Result<f64>) -> Result<f64> {
        let (variables, best) = (&self.variables, self.best());
        let mut score_and_copy = || {
            let score = evaluate()?;
            let is_best = best.is_none_or(|best| score > best.score || (best.score.is_nan() && !score.is_nan()));
            Ok::<_, Error>((score, if is_best { Some(copies(variables)?) } else { None }))
        };
        let (score, weights) = match &self.ema {
            Some(ema) => ema.with_averages(score_and_copy)??,
            None => score_and_copy()?,
        };
        let evaluation = Evaluation { step: self.step, score };
        self.evaluations.push(evaluation);
        if let Some(weights) = weights {
            self.best = Some((evaluation, weights));
        }
        Ok(score)
    }
}

fn copies(variables: &Variables) -> Result<BTreeMap<String, Tensor>> {
    variables.tensors().into_iter().map(|(name, tensor)| Ok((name, tensor.copy()?))).collect()
}

/// The gradients of a step's batches. Those of a single one are left as they are, neither copied nor rounded.
#[derive(Default)]
struct Sum {
    first: Option<(GradStore, usize)>,
    all: Option<Accumulator>,
}

impl Sum {
    fn add(&mut self, gradients: GradStore, rows: usize, optimizer: &dyn Optimizer) -> Result<()> {
        match (&mut self.all, self.first.take()) {
            (Some(all), _) => all.add(&gradients, &[], rows)?,
            (None, None) => self.first = Some((gradients, rows)),
            (None, Some((first, rows_of_first))) => {
                let mut all = Accumulator::new(optimizer.named());
                all.add(&first, &[], rows_of_first)?;
                all.add(&gradients, &[], rows)?;
                self.all = Some(all);
            }
        }
        Ok(())
    }

    fn finish(self) -> Result<Option<GradStore>> {
        match (self.all, self.first) {
            (Some(mut all), _) => Ok(Some(all.finish()?.dense)),
            (None, first) => Ok(first.map(|(gradients, _)| gradients)),
        }
    }
}

/// A batch's rows, loss and parts.
type BatchLoss = (usize, f64, BTreeMap<String, f64>);

/// The mean of several batches' losses over their rows, and of each part over those that had it; a single batch's
/// are left as they are, not rounded by a multiplication and a division.
fn mean_of(batches: &[BatchLoss]) -> (f64, BTreeMap<String, f64>) {
    let mean = |values: Vec<(usize, f64)>| match values[..] {
        [(_, only)] => only,
        _ => {
            let rows: usize = values.iter().map(|(rows, _)| rows).sum();
            values.iter().map(|&(rows, value)| rows as f64 * value).sum::<f64>() / rows as f64
        }
    };
    let loss = mean(batches.iter().map(|&(rows, loss, _)| (rows, loss)).collect());
    let names: BTreeSet<&String> = batches.iter().flat_map(|(_, _, parts)| parts.keys()).collect();
    let part = |name: &String| {
        let values = batches.iter().filter_map(|(rows, _, parts)| Some((*rows, *parts.get(name)?)));
        (name.clone(), mean(values.collect()))
    };
    (loss, names.into_iter().map(part).collect())
}
