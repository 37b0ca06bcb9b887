//! What is told of a step, and to whom.

use std::collections::BTreeMap;
use std::ops::ControlFlow;

use serde::{Deserialize, Serialize};

use crate::error::Result;

/// One evaluation.
#[derive(Debug, Clone, Copy, PartialEq, Serialize, Deserialize)]
pub struct Evaluation {
    /// Steps made before it.
    pub step: usize,
    /// Its score, higher is better.
    #[serde(with = "super::state::any_number")]
    pub score: f64,
}

/// What happened in a step.
#[derive(Debug, Clone, PartialEq, Serialize)]
pub struct Report {
    /// Steps made so far, this one included.
    pub step: usize,
    /// Steps planned.
    pub steps: usize,
    /// The loss, in nats; over several batches the mean over their rows.
    pub loss: f64,
    /// The parts of the loss by name, before their weights.
    pub parts: BTreeMap<String, f64>,
    /// Norm of all gradients before clipping; NaN where the loss was not finite and there were none.
    pub gradient_norm: f64,
    /// The schedule's factor on the learning rate.
    pub lr_factor: f64,
    /// Whether loss or gradient were not finite, so that nothing was changed.
    pub is_skipped: bool,
    /// Steps skipped so far, this one included.
    pub skipped: usize,
    /// Score of the evaluation after this step, if there was one.
    pub score: Option<f64>,
}

impl Report {
    /// The part of the loss called `name`, if it was computed.
    pub fn part(&self, name: &str) -> Option<f64> {
        self.parts.get(name).copied()
    }
}

/// Told of every step. To break ends training with a checkpoint, as Ctrl-C should.
///
/// Closures of `&Report` are observers, and so is a list:
///
/// ```
/// use kd_core::trainer::{JsonLines, Observer, Report};
/// # let folder = tempfile::tempdir()?;
/// # let path = folder.path().join("steps.jsonl");
/// let mut log = JsonLines::new(&path);
/// let mut print = |report: &Report| {
///     println!("step {}: {}", report.step, report.loss);
///     std::ops::ControlFlow::Continue(())
/// };
/// let observers: Vec<&mut dyn Observer> = vec![&mut log, &mut print];
/// # assert_eq!(observers.len(), 2);
/// # Ok::<(), std::io::Error>(())
/// ```
pub trait Observer {
    /// Called after each step and its evaluation.
    ///
    /// # Errors
    /// What an observer cannot do ends training.
    fn observe(&mut self, report: &Report) -> Result<ControlFlow<()>>;

    /// Called once before training goes on from `step` steps made, 0 in a new run. The next report is that of step
    /// `step + 1`; what was kept of later ones belongs to a run that was killed and is repeated.
    fn begin(&mut self, step: usize) -> Result<()> {
        let _ = step;
        Ok(())
    }

    /// Called before a checkpoint is written and at the end: what was observed must not be lost any more.
    fn flush(&mut self) -> Result<()> {
        Ok(())
    }
}

impl<F: FnMut(&Report) -> ControlFlow<()>> Observer for F {
    fn observe(&mut self, report: &Report) -> Result<ControlFlow<()>> {
        Ok(self(report))
    }
}

/// All of them are told, in order; if one breaks, training ends after the last was told.
impl Observer for Vec<&mut dyn Observer> {
    fn observe(&mut self, report: &Report) -> Result<ControlFlow<()>> {
        let mut flow = ControlFlow::Continue(());
        for observer in self {
            if observer.observe(report)?.is_break() {
                flow = ControlFlow::Break(());
            }
        }
        Ok(flow)
    }

    fn begin(&mut self, step: usize) -> Result<()> {
        self.iter_mut().try_for_each(|observer| observer.begin(step))
    }

    fn flush(&mut self) -> Result<()> {
        self.iter_mut().try_for_each(|observer| observer.flush())
    }
}
