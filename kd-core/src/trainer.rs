//! The training loop: step, evaluate, keep the best, stop early, and lose nothing when killed.
//!
//! The model after step `n` is a function of the configuration, the batches and `n` alone: dropout is drawn from
//! the step's number, batches are asked for by number, and a checkpoint holds weights, moments, the best weights
//! so far and the evaluations. A run that is killed and resumed therefore ends in the same bytes.
//!
//! ```text
//! Batches::batch(step) -> Student::forward -> Objective::loss -> backward -> clip -> AdamW::step -> Observer
//! ```

use std::collections::BTreeMap;
use std::ops::ControlFlow;
use std::path::{Path, PathBuf};

use candle_core::backprop::GradStore;
use candle_core::{DType, Tensor};
use serde::{Deserialize, Serialize};

use crate::batch::{Batch, Batches};
use crate::checkpoint;
use crate::error::{Error, Result};
use crate::model::{Mode, Student};
use crate::objective::Objective;
use crate::optim::{AdamW, AdamWConfig, Optimizer, clip_scale};
use crate::schedule::Schedule;
use crate::variables::{Variables, mix};

/// How a model is trained.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct TrainerConfig {
    /// Updates to make, ≥ 1.
    pub steps: usize,
    /// Settings of the optimiser.
    pub optimizer: AdamWConfig,
    /// Factor on the learning rate by step.
    pub schedule: Schedule,
    /// Largest norm of all gradients together; `None` does not clip.
    pub clip_norm: Option<f64>,
    /// Steps between evaluations, ≥ 1; the last step is always evaluated.
    pub evaluate_every: usize,
    /// Evaluations without a better score after which training stops; `None` makes all `steps`.
    pub patience: Option<usize>,
    /// Steps between checkpoints, ≥ 1.
    pub checkpoint_every: usize,
    /// Seed of dropout.
    pub seed: u64,
}

impl TrainerConfig {
    fn check(&self) -> Result<()> {
        let expected = "at least 1";
        for (field, found) in [
            ("steps", self.steps),
            ("evaluate_every", self.evaluate_every),
            ("checkpoint_every", self.checkpoint_every),
        ] {
            if found == 0 {
                return Err(Error::Config { field, expected, found: "0".to_string() });
            }
        }
        match self.clip_norm {
            Some(norm) if !(norm.is_finite() && norm > 0.0) => {
                Err(Error::Config { field: "clip_norm", expected: "a finite norm above 0", found: norm.to_string() })
            }
            _ => Ok(()),
        }
    }
}

/// One evaluation.
#[derive(Debug, Clone, Copy, PartialEq, Serialize, Deserialize)]
pub struct Evaluation {
    /// Updates made before it.
    pub step: usize,
    /// Its score, higher is better.
    pub score: f64,
}

/// What happened in a step.
#[derive(Debug, Clone, Copy)]
pub struct Report {
    /// Updates made so far, this one included.
    pub step: usize,
    /// Updates planned.
    pub steps: usize,
    /// The loss, in nats.
    pub loss: f64,
    /// The part against the labels, before its weight.
    pub hard: Option<f64>,
    /// The part against the teachers, before its weight.
    pub soft: Option<f64>,
    /// Norm of all gradients before clipping.
    pub gradient_norm: f64,
    /// Score of the evaluation after this step, if there was one.
    pub score: Option<f64>,
}

/// Told of every step. To break ends training with a checkpoint, as Ctrl-C should.
pub trait Observer {
    /// Called after each step and its evaluation.
    fn observe(&mut self, report: &Report) -> ControlFlow<()>;
}

impl<F: FnMut(&Report) -> ControlFlow<()>> Observer for F {
    fn observe(&mut self, report: &Report) -> ControlFlow<()> {
        self(report)
    }
}

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
    optimizer: AdamW,
    config: TrainerConfig,
    step: usize,
    evaluations: Vec<Evaluation>,
    best: Option<(Evaluation, BTreeMap<String, Tensor>)>,
    checkpoint: Option<PathBuf>,
}

impl std::fmt::Debug for Trainer<'_> {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Trainer").field("config", &self.config).field("step", &self.step).finish_non_exhaustive()
    }
}

#[derive(Serialize, Deserialize)]
struct State {
    config: TrainerConfig,
    step: usize,
    updates: usize,
    evaluations: Vec<Evaluation>,
    best: Option<Evaluation>,
}

impl<'a> Trainer<'a> {
    /// A trainer of all of `variables`, which `student` is made of.
    ///
    /// # Errors
    /// If a setting is outside its range.
    pub fn new(
        student: &'a dyn Student,
        variables: &Variables,
        objective: &'a dyn Objective,
        config: TrainerConfig,
    ) -> Result<Self> {
        config.check()?;
        let optimizer = AdamW::new(variables.named(), config.optimizer)?;
        Ok(Self {
            student,
            variables: variables.clone(),
            objective,
            optimizer,
            config,
            step: 0,
            evaluations: Vec::new(),
            best: None,
            checkpoint: None,
        })
    }

    /// Checkpoints go to `path`, and if one is there, training goes on from it.
    ///
    /// # Errors
    /// If the file there is broken, or belongs to a run with another configuration or other variables: the message
    /// names what differs.
    pub fn with_checkpoint(mut self, path: &Path) -> Result<Self> {
        if path.exists() {
            self.restore(path)?;
        }
        self.checkpoint = Some(path.to_path_buf());
        Ok(self)
    }

    /// Updates made so far.
    pub fn step_count(&self) -> usize {
        self.step
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
    /// If the loss or the gradient is not finite (the weights are not changed then), or, at the first step, a
    /// variable got no gradient.
    pub fn step(&mut self, batch: &Batch) -> Result<Report> {
        let mode = Mode::Train { seed: mix(self.config.seed, self.step as u64) };
        let output = self.student.forward(&batch.tokens, mode)?;
        let loss = self.objective.loss(&output, batch)?;
        let value = |tensor: &Tensor| tensor.to_dtype(DType::F64)?.to_scalar::<f64>();
        let part = |tensor: &Option<Tensor>| tensor.as_ref().map(value).transpose();
        let (total, hard, soft) = (value(&loss.total)?, part(&loss.hard)?, part(&loss.soft)?);
        if !total.is_finite() {
            return Err(Error::NonFinite { step: self.step, what: "loss", value: total });
        }
        let gradients = crate::ops::backward(&loss.total)?;
        if self.step == 0 {
            self.check_all_learn(&gradients)?;
        }
        let gradient_norm = self.optimizer.gradient_norm(&gradients, &[])?;
        if !gradient_norm.is_finite() {
            return Err(Error::NonFinite { step: self.step, what: "gradient norm", value: gradient_norm });
        }
        let scale = self.config.clip_norm.map_or(1.0, |max_norm| clip_scale(gradient_norm, max_norm));
        self.optimizer.step(&gradients, self.config.schedule.factor(self.step), scale)?;
        self.step += 1;
        Ok(Report { step: self.step, steps: self.config.steps, loss: total, hard, soft, gradient_norm, score: None })
    }

    /// Steps, evaluates and checkpoints until the end; then sets the variables to the best weights.
    ///
    /// `evaluate` gives a score, higher is better; `None` keeps no best and ends with the last weights.
    /// After a first evaluation of NaN a later number counts as better.
    pub fn fit(
        &mut self,
        batches: &dyn Batches,
        mut evaluate: Option<&mut dyn FnMut() -> Result<f64>>,
        observer: &mut dyn Observer,
    ) -> Result<Outcome> {
        while self.step < self.config.steps && !self.is_out_of_patience() {
            let batch = batches.batch(self.step)?;
            let mut report = self.step(&batch)?;
            let is_last = self.step == self.config.steps;
            if let Some(evaluate) = &mut evaluate
                && (is_last || self.step.is_multiple_of(self.config.evaluate_every))
            {
                let score = evaluate()?;
                report.score = Some(score);
                self.keep_if_best(score)?;
            }
            let is_interrupted = observer.observe(&report).is_break();
            if is_last || is_interrupted || self.step.is_multiple_of(self.config.checkpoint_every) {
                self.save()?;
            }
            if is_interrupted && !is_last {
                return Ok(Outcome::Interrupted);
            }
        }
        if let Some((_, best)) = &self.best {
            self.variables.set(&best.clone().into_iter().collect())?;
        }
        Ok(Outcome::Finished)
    }

    fn is_out_of_patience(&self) -> bool {
        let since_best = match &self.best {
            Some((best, _)) => self.evaluations.iter().filter(|evaluation| evaluation.step > best.step).count(),
            None => 0,
        };
        self.config.patience.is_some_and(|patience| since_best >= patience)
    }

    fn keep_if_best(&mut self, score: f64) -> Result<()> {
        let evaluation = Evaluation { step: self.step, score };
        self.evaluations.push(evaluation);
        let is_best = match &self.best {
            Some((best, _)) => score > best.score || (best.score.is_nan() && !score.is_nan()),
            None => true,
        };
        if is_best {
            let copies = self.variables.tensors().into_iter().map(|(name, tensor)| Ok((name, tensor.copy()?)));
            self.best = Some((evaluation, copies.collect::<Result<_>>()?));
        }
        Ok(())
    }

    fn check_all_learn(&self, gradients: &GradStore) -> Result<()> {
        let mut dead = Vec::new();
        for (name, var) in self.optimizer.named() {
            match gradients.get(var.as_tensor()) {
                None => dead.push(format!("`{name}` has no gradient")),
                Some(gradient) => match crate::optim::sum_of_squares(gradient)? {
                    0.0 => dead.push(format!("the gradient of `{name}` is all zero")),
                    sum if !sum.is_finite() => dead.push(format!("the gradient of `{name}` is not finite")),
                    _ => {}
                },
            }
        }
        if dead.is_empty() { Ok(()) } else { Err(Error::DeadVariables { step: self.step, dead }) }
    }

    fn save(&self) -> Result<()> {
        let Some(path) = &self.checkpoint else { return Ok(()) };
        let mut tensors = BTreeMap::new();
        let mut put = |kind: &str, named: BTreeMap<String, Tensor>| {
            tensors.extend(named.into_iter().map(|(name, tensor)| (format!("{kind}/{name}"), tensor)));
        };
        put("model", self.variables.tensors());
        put("adamw", self.optimizer.state()?);
        if let Some((_, best)) = &self.best {
            put("best", best.clone());
        }
        let state = State {
            config: self.config.clone(),
            step: self.step,
            updates: self.optimizer.updates(),
            evaluations: self.evaluations.clone(),
            best: self.best.as_ref().map(|(evaluation, _)| *evaluation),
        };
        checkpoint::save(path, &tensors, &state)
    }

    fn restore(&mut self, path: &Path) -> Result<()> {
        let (mut tensors, state): (_, State) = checkpoint::load(path)?;
        let wrong = |message: String| Error::Checkpoint { path: path.to_path_buf(), message };
        if state.config != self.config {
            let differences = checkpoint::differences(&self.config, &state.config);
            return Err(wrong(format!("made with another configuration: {}", differences.join("; "))));
        }
        let mut take = |kind: &str| -> BTreeMap<String, Tensor> {
            let prefix = format!("{kind}/");
            let names: Vec<_> = tensors.keys().filter(|name| name.starts_with(&prefix)).cloned().collect();
            names
                .into_iter()
                .filter_map(|name| Some((name[prefix.len()..].to_string(), tensors.remove(&name)?)))
                .collect()
        };
        let (model, moments, best) = (take("model"), take("adamw"), take("best"));
        self.optimizer.restore(&moments, state.updates).map_err(|error| wrong(error.to_string()))?;
        self.variables.set(&model.into_iter().collect()).map_err(|error| wrong(error.to_string()))?;
        self.step = state.step;
        self.evaluations = state.evaluations;
        self.best = state.best.map(|evaluation| (evaluation, best));
        Ok(())
    }
}
