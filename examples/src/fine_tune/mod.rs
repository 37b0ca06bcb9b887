//! A pretrained encoder is fine-tuned on a task that has a name, once for each learning rate.
//!
//! ```text
//! Task --read--> train, dev, test --encode--> Trainer (an evaluation each epoch) --> OUT/lr-2e-5/, OUT/lr-2e-5.json
//! ```
//!
//! The recipe is that of BERT's authors (Devlin et al. 2019, A.3): AdamW without decay of biases and norms, a linear rise and
//! fall of the learning rate, gradients clipped at norm 1, a few epochs.

mod data;
mod model;
mod record;

use anyhow::{Context, Result, bail};
use candle_core::Tensor;
use kd_core::batch::Batch;
use kd_core::losses;
use kd_core::model::Output;
use kd_core::objective::{Distillation, Loss, Objective};
use kd_core::optim::AdamWConfig;
use kd_core::schedule::Schedule;
use kd_core::trainer::{Interval, JsonLines, Observer, Outcome, Trainer, TrainerConfig};
use kd_data::batches::{BatchPlan, DEFAULT_POOL};
use kd_data::digest;
use kd_data::task::TaskKind;
use serde::{Deserialize, Serialize};

pub use self::data::{Data, Encoded, encode};
pub use self::model::{Freeze, Model, load};
pub use self::record::{Epoch, Run, table};
use self::record::{Record, Shared};
use crate::folder::Folder;
use crate::interrupt::Interrupted;
use crate::progress::Progress;

/// What decides the result, besides data, model and learning rate.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Settings {
    /// Passes over the training part.
    pub epochs: usize,
    /// Examples a step.
    pub batch_size: usize,
    /// Longest sequence in word pieces, start and end tokens included.
    pub max_len: usize,
    /// Share of the steps over which the learning rate rises, in `0..=1`.
    pub warmup: f64,
    /// Decay per step and unit of learning rate.
    pub weight_decay: f64,
    /// Seed of the head, of the batches and of dropout.
    pub seed: u64,
    /// Use only that many of the encoder's layers, the first.
    pub layers: Option<usize>,
    /// What stays as it is.
    pub freeze: Option<Freeze>,
    /// Whether layers compute in bf16.
    pub bf16: bool,
    /// Whether products of f32 are made in TF32.
    #[serde(default, skip_serializing_if = "std::ops::Not::not")]
    pub tf32: bool,
    /// Which epoch's weights are kept.
    pub keep: Keep,
}

impl Settings {
    /// Checks the ranges.
    ///
    /// # Errors
    /// If one is outside; the message names it as the command line does.
    pub fn check(&self) -> Result<()> {
        for (name, value) in [("epochs", self.epochs), ("batch-size", self.batch_size)] {
            if value == 0 {
                bail!("--{name}: expected at least 1, found 0");
            }
        }
        if !(0.0..=1.0).contains(&self.warmup) {
            bail!("--warmup: expected a share from 0 to 1, found {}", self.warmup);
        }
        Ok(())
    }
}

/// Which epoch's weights are kept.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize, clap::ValueEnum)]
#[serde(rename_all = "lowercase")]
pub enum Keep {
    /// Those that are best on dev by the task's first metric: dev is then used for selection.
    Best,
    /// The last.
    Last,
}

/// Fine-tunes `model` with the peak learning rate `lr`, saves it as the folder `name` of `folder`, and says how it went.
///
/// Started again after a kill it goes on from its checkpoint and ends in the same bytes.
pub fn fine_tune(data: &Encoded<'_>, model: &Model, settings: &Settings, lr: f64, folder: &Folder) -> Result<Run> {
    let name = name_of(lr);
    let beside = |end: &str| folder.path.join(format!("{name}.{end}"));
    let plan = BatchPlan::new(data.train.lengths().to_vec(), settings.batch_size, settings.seed, DEFAULT_POOL)?;
    let batches = plan.batches(|examples| {
        Ok(Batch {
            tokens: data.train.collate(&examples)?,
            labels: Some(data.labels(&examples)?),
            targets: vec![],
            teachers: Vec::new(),
            weights: None,
            task: 0,
            examples,
        })
    });
    let steps = settings.epochs * plan.steps_per_epoch();
    let config = TrainerConfig {
        groups: model.frozen_groups(settings.freeze.as_ref()),
        schedule: Schedule::WarmupLinear { warmup: (settings.warmup * steps as f64).ceil() as usize, total: steps },
        clip_norm: Some(1.0),
        evaluate_every: Interval::Epochs(1),
        checkpoint_every: folder.checkpoint_every,
        seed: settings.seed,
        ..TrainerConfig::new(steps, AdamWConfig { weight_decay: settings.weight_decay, ..AdamWConfig::with_lr(lr) })
    };
    let objective = objective(data.data.task.kind);
    let checkpoint = beside("checkpoint");
    let record = Record::new(&beside("epochs"));
    let mut evaluate = || -> kd_core::Result<f64> {
        record.borrow_mut().stop();
        let scores = data.evaluate(&*model.asked()?).map_err(|error| candle_core::Error::msg(format!("{error:#}")))?;
        let epoch = record.borrow_mut().evaluated(plan.steps_per_epoch(), &scores);
        Ok(match settings.keep {
            Keep::Best => scores[0].1.first(),
            Keep::Last => epoch as f64, // the trainer keeps the highest
        })
    };
    let mut trainer = Trainer::new(model.student(), model.variables(), &*objective, config)?
        .with_description(serde_json::to_value(settings)?)
        .with_checkpoint(&checkpoint)?;
    let mut progress = Progress::new(&name, steps, trainer.step_count(), "steps");
    let (mut log, mut shared) = (JsonLines::new(&beside("steps.jsonl")), Shared(&record));
    let mut observers: Vec<&mut dyn Observer> = vec![&mut log, &mut shared, &mut progress];
    if trainer.fit(&batches, Some(&mut evaluate), &mut observers)? == Outcome::Interrupted {
        bail!(Interrupted);
    }
    let kept_step = trainer.best().context("no epoch was evaluated")?.step;
    drop(trainer);
    let saved = folder.path.join(&name);
    model.save(&saved)?;
    let record = record.into_inner();
    Ok(Run {
        lr,
        weights: digest::of_file(saved.join("model.safetensors"))?,
        steps,
        kept_epoch: kept_step / plan.steps_per_epoch(),
        training_seconds: record.seconds,
        epochs: record.epochs,
    })
}

/// The name of a learning rate's folder: `lr-2e-5`.
pub fn name_of(lr: f64) -> String {
    format!("lr-{lr:e}")
}

/// Removes what a finished run needs no more.
pub fn clean_up(lr: f64, folder: &Folder) -> Result<()> {
    for end in ["checkpoint", "epochs"] {
        let path = folder.path.join(format!("{}.{end}", name_of(lr)));
        match std::fs::remove_file(&path) {
            Err(error) if error.kind() != std::io::ErrorKind::NotFound => bail!("{}: {error}", path.display()),
            _ => {}
        }
    }
    Ok(())
}

/// Cross-entropy of classes, squared differences of numbers, binary cross-entropy of several labels.
fn objective(kind: TaskKind) -> Box<dyn Objective> {
    let of = |loss: fn(&Tensor, &Tensor) -> candle_core::Result<Tensor>| {
        Box::new(move |output: &Output, batch: &Batch, _step: usize| {
            Ok(Loss::of(loss(output.logits()?, batch.labels()?)?))
        })
    };
    match kind {
        TaskKind::Classification | TaskKind::Tagging => Box::new(Distillation::LABELS_ONLY),
        TaskKind::Regression => of(losses::logit_mse),
        TaskKind::MultiLabel => of(losses::binary_cross_entropy),
    }
}
