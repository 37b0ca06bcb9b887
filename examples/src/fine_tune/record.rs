//! The epochs of a run, kept beside its checkpoint.

use std::cell::RefCell;
use std::ops::ControlFlow;
use std::path::{Path, PathBuf};
use std::time::Instant;

use kd_core::trainer::{Observer, Report};
use kd_data::task::{Part, Scores, Task};
use serde::{Deserialize, Serialize};

/// The scores after an epoch.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Epoch {
    /// Its number, from 1.
    pub epoch: usize,
    /// Updates made.
    pub step: usize,
    /// Metrics by name for each part that has labels.
    pub scores: serde_json::Map<String, serde_json::Value>,
}

/// How the fine-tuning with one learning rate went.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Run {
    /// The peak learning rate.
    pub lr: f64,
    /// SHA-256 of the saved `model.safetensors`.
    pub weights: String,
    /// Updates made.
    pub steps: usize,
    /// The epoch whose weights were kept.
    pub kept_epoch: usize,
    /// Time of all training steps, without evaluations, in seconds; what a kill lost is not in it.
    pub training_seconds: f64,
    /// Every epoch.
    pub epochs: Vec<Epoch>,
}

/// What is known of a run so far; written before every checkpoint.
#[derive(Debug, Serialize, Deserialize)]
pub(super) struct Record {
    #[serde(skip)]
    path: PathBuf,
    #[serde(skip)]
    running_since: Option<Instant>,
    pub(super) seconds: f64,
    pub(super) epochs: Vec<Epoch>,
}

impl Record {
    pub(super) fn new(path: &Path) -> RefCell<Self> {
        RefCell::new(Self { path: path.to_path_buf(), running_since: None, seconds: 0.0, epochs: Vec::new() })
    }

    /// Stops the clock.
    pub(super) fn stop(&mut self) {
        self.seconds += self.running_since.take().map_or(0.0, |since| since.elapsed().as_secs_f64());
    }

    /// Adds an epoch's scores and gives its number.
    pub(super) fn evaluated(&mut self, steps_per_epoch: usize, scores: &[(Part, Scores)]) -> usize {
        let epoch = self.epochs.len() + 1;
        let value = |scores: &Scores| serde_json::to_value(scores).unwrap_or_default();
        let scores = scores.iter().map(|(part, scores)| (part.name().to_string(), value(scores))).collect();
        self.epochs.push(Epoch { epoch, step: epoch * steps_per_epoch, scores });
        epoch
    }
}

/// The observer that keeps a [`Record`].
pub(super) struct Shared<'a>(pub(super) &'a RefCell<Record>);

impl Observer for Shared<'_> {
    fn begin(&mut self, step: usize) -> kd_core::Result<()> {
        let mut record = self.0.borrow_mut();
        if step > 0 {
            let wrong = |message: String| kd_core::Error::Checkpoint { path: record.path.clone(), message };
            let bytes = std::fs::read(&record.path).map_err(|error| wrong(error.to_string()))?;
            let found: Record = serde_json::from_slice(&bytes).map_err(|error| wrong(error.to_string()))?;
            record.seconds = found.seconds;
            // An epoch after the checkpoint is evaluated again.
            record.epochs = found.epochs.into_iter().filter(|epoch| epoch.step <= step).collect();
        }
        record.running_since = Some(Instant::now());
        Ok(())
    }

    fn observe(&mut self, _report: &Report) -> kd_core::Result<ControlFlow<()>> {
        let mut record = self.0.borrow_mut();
        record.running_since.get_or_insert_with(Instant::now); // after an evaluation
        Ok(ControlFlow::Continue(()))
    }

    fn flush(&mut self) -> kd_core::Result<()> {
        let mut record = self.0.borrow_mut();
        record.stop();
        let bytes = serde_json::to_vec(&*record).map_err(candle_core::Error::wrap)?;
        kd_core::checkpoint::replace_file_with(&record.path, &bytes)?;
        record.running_since = Some(Instant::now());
        Ok(())
    }
}

/// A row for each learning rate: the kept epoch and its scores in percent; none if there are no runs.
pub fn table(task: &Task, runs: &[Run]) -> Option<String> {
    let kept = |run: &Run| run.epochs.iter().find(|epoch| epoch.epoch == run.kept_epoch).cloned();
    let parts: Vec<String> = kept(runs.first()?)?.scores.keys().cloned().collect();
    let columns = || parts.iter().flat_map(|part| task.metrics.iter().map(move |metric| (part, metric.name())));
    let mut header = vec!["learning rate".to_string(), "epoch".to_string()];
    header.extend(columns().map(|(part, metric)| format!("{part} {metric}")));
    let row = |run: &Run| {
        let scores = kept(run).map(|epoch| epoch.scores).unwrap_or_default();
        let cell = |(part, metric): (&String, &str)| {
            let value = scores.get(part).and_then(|scores| scores[metric].as_f64());
            value.map_or("undefined".to_string(), |value| format!("{:.1}", 100.0 * value))
        };
        let mut cells = vec![format!("{:e}", run.lr), run.kept_epoch.to_string()];
        cells.extend(columns().map(cell));
        cells
    };
    let header: Vec<&str> = header.iter().map(String::as_str).collect();
    Some(crate::report::table(&header, &runs.iter().map(row).collect::<Vec<_>>()))
}
