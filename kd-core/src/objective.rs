//! What a step minimises.

use candle_core::{Result, Tensor, bail};
use serde::{Deserialize, Serialize};

use crate::batch::Batch;
use crate::losses;
use crate::model::Output;
use crate::ops::crf;

/// A step's loss and its parts, all scalars, before their weights except `total`.
#[derive(Debug, Clone)]
pub struct Loss {
    /// What is minimised.
    pub total: Tensor,
    /// Against the labels.
    pub hard: Option<Tensor>,
    /// Against the teachers' distributions.
    pub soft: Option<Tensor>,
}

/// From a model's output and a batch to a loss.
pub trait Objective {
    /// The loss of `output` on `batch`; its `total` has a graph behind it.
    fn loss(&self, output: &Output, batch: &Batch) -> Result<Loss>;
}

impl<F: Fn(&Output, &Batch) -> Result<Loss>> Objective for F {
    fn loss(&self, output: &Output, batch: &Batch) -> Result<Loss> {
        self(output, batch)
    }
}

/// Which of a CRF student's distributions is drawn to the teacher's.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum CrfTarget {
    /// `softmax(emissions)`: cheap, and blind to the transitions.
    Emissions,
    /// The probability of each tag of each word under the whole CRF (forward–backward).
    Marginals,
}

/// `hard · L_labels + soft · KL(teacher ‖ student)`, both means over rows.
///
/// `L_labels` is cross-entropy, or for a student with transitions the CRF's negative log-likelihood divided by
/// the number of *rows*, so that the two weights mean the same for both heads. One teacher: the first of the batch.
/// (Izsak et al. 2019, slides: `α · L_task + β · L_distill`.)
#[derive(Debug, Clone, Copy, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Distillation {
    /// Weight of the labels, ≥ 0.
    pub hard: f64,
    /// Weight of the teacher, ≥ 0; at 0 the batch needs no teacher.
    pub soft: f64,
    /// Temperature of both sides, > 0.
    pub temperature: f64,
    /// What is distilled into a CRF; no effect on a softmax head.
    pub crf_target: CrfTarget,
}

impl Distillation {
    /// The labels alone.
    pub const LABELS_ONLY: Self = Self { hard: 1.0, soft: 0.0, temperature: 1.0, crf_target: CrfTarget::Emissions };

    fn soft(&self, output: &Output, teacher: &Tensor, lengths: &[usize]) -> Result<Tensor> {
        let logits = output.logits()?;
        match &output.transitions {
            Some(transitions) if self.crf_target == CrfTarget::Marginals => {
                let temperature = self.temperature;
                let student = crf::log_marginals(&(logits / temperature)?, &(transitions / temperature)?, lengths)?;
                let teacher = crate::ops::log_softmax(&(teacher.detach() / temperature)?)?;
                losses::kl_from_log_probs(&student, &teacher)? * (temperature * temperature)
            }
            _ => losses::kl_divergence(logits, teacher, self.temperature),
        }
    }
}

impl Objective for Distillation {
    fn loss(&self, output: &Output, batch: &Batch) -> Result<Loss> {
        let logits = output.logits()?;
        let lengths = batch.tokens.rows_per_example()?;
        let (hard, soft) = if output.transitions.is_none() && self.hard != 0.0 && self.soft != 0.0 {
            let (hard, soft) =
                losses::distillation(logits, batch.teacher_logits(0)?, batch.labels()?, self.temperature)?;
            (Some(hard), Some(soft))
        } else {
            let hard = match (&output.transitions, self.hard != 0.0) {
                (_, false) => None,
                (Some(transitions), _) => {
                    Some(crf::negative_log_likelihood(logits, transitions, batch.labels()?, &lengths)?)
                }
                (None, _) => Some(losses::cross_entropy(logits, batch.labels()?)?),
            };
            let soft =
                if self.soft == 0.0 { None } else { Some(self.soft(output, batch.teacher_logits(0)?, &lengths)?) };
            (hard, soft)
        };
        let total = match (&hard, &soft) {
            (Some(hard), Some(soft)) => ((hard * self.hard)? + (soft * self.soft)?)?,
            (Some(hard), None) => (hard * self.hard)?,
            (None, Some(soft)) => (soft * self.soft)?,
            (None, None) => bail!("an objective whose weights are all 0 has no loss"),
        };
        Ok(Loss { total, hard, soft })
    }
}
