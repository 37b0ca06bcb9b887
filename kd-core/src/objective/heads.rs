//! A head for the labels and one for each teacher.

use candle_core::{Result, Tensor, bail};
use serde::{Deserialize, Serialize};

use super::{Loss, Objective, in_part};
use crate::batch::Batch;
use crate::losses;
use crate::model::Output;
use crate::schedule::ValueSchedule;

/// How far a head's logits are from its teacher's, mean over rows.
#[derive(Debug, Clone, Copy, PartialEq, Default, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum SoftLoss {
    /// [`losses::logit_mse`], mean over rows and classes (Yang et al. 2020, Eq. 4).
    #[default]
    LogitMse,
    /// [`losses::probability_mse`] at temperature 1.
    ProbMse,
    /// [`losses::kl_divergence`].
    Kl {
        /// Temperature of both sides, > 0.
        temperature: f64,
    },
    /// [`losses::reverse_kl_divergence`].
    ReverseKl {
        /// Temperature of both sides, > 0.
        temperature: f64,
    },
    /// [`losses::jensen_shannon_divergence`].
    JensenShannon {
        /// Temperature of both sides, > 0.
        temperature: f64,
    },
}

impl SoftLoss {
    /// Mean over rows, of logits `(rows, classes)` of both; the teacher's are detached.
    ///
    /// # Errors
    /// If the shapes differ, or a temperature is not above 0.
    pub fn of(self, student: &Tensor, teacher: &Tensor) -> Result<Tensor> {
        match self {
            Self::LogitMse => losses::logit_mse(student, teacher),
            Self::ProbMse => losses::probability_mse(student, teacher, 1.0),
            Self::Kl { temperature } => losses::kl_divergence(student, teacher, temperature),
            Self::ReverseKl { temperature } => losses::reverse_kl_divergence(student, teacher, temperature),
            Self::JensenShannon { temperature } => losses::jensen_shannon_divergence(student, teacher, temperature),
        }
    }
}

/// `(1 - α) · CE(gold head, labels) + α · mean_i soft(head_i, teacher_i)`: the parts `hard` and `soft`, means over rows
/// (Yang et al. 2020, Eq. 2, 4 and 5), for the heads of a [`HeadPerTeacher`](crate::nn::HeadPerTeacher).
///
/// The soft part is a mean over teachers, rows and (squared errors) classes, so α means the same for any number of them. A
/// part whose weight is 0 at a step is not computed and needs neither labels nor teachers.
///
/// | training                     | `alpha` | `gold` | heads                       |
/// |------------------------------|---------|--------|-----------------------------|
/// | labels alone                 | 0       | yes    | gold                        |
/// | one teacher                  | 0.9     | yes    | gold and one                |
/// | a head for each (stage 2)    | 0.9     | yes    | gold and one per teacher    |
/// | teachers alone (stage 1)     | 1       | no     | one per teacher             |
///
/// ```
/// use candle_core::{Device, Tensor};
/// # use kd_core::{batch::*, model::Output, objective::*};
/// # let tokens = Tokens { first: pad(&[vec![1]], &Device::Cpu)?, second: None, more: Vec::new(), rows: Rows::Examples };
/// # let labels = Some(Tensor::new(&[1u32], &Device::Cpu)?);
/// let logits = |values: [f64; 2]| Tensor::new(&[values], &Device::Cpu);
/// let teachers = vec![Output::from_logits(logits([2., 2.])?), Output::from_logits(logits([1., 1.])?)];
/// let batch = Batch { tokens, labels, targets: vec![], teachers, weights: None, task: 0, examples: vec![0] };
/// let heads = vec![logits([0., 0.])?, logits([0., 1.])?, logits([1., 3.])?]; // gold, teacher 0, teacher 1
/// let (total, parts) = PerHead::default().loss(&Output { heads, ..Output::default() }, &batch, 0)?.values()?;
/// assert_eq!(parts["soft"], 2.25); // ((4 + 1) / 2 + (0 + 4) / 2) / 2
/// assert!((total - (0.1 * 2f64.ln() + 0.9 * 2.25)).abs() < 1e-12);
/// # Ok::<(), candle_core::Error>(())
/// ```
#[derive(Debug, Clone, Copy, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct PerHead {
    /// Weight of the teachers, in `[0, 1]`; that of the labels is `1 - alpha`.
    pub alpha: ValueSchedule,
    /// What draws a head to its teacher.
    pub soft: SoftLoss,
    /// Take the mean of each row from a teacher's logits before they are compared. Squared errors see a constant that is
    /// added to all logits of a row, though no probability does; the other losses do not see it, and this changes nothing.
    pub centre: bool,
    /// Whether the first head is the gold one. Without it `alpha` is 1 throughout, and with it it is not.
    pub gold: bool,
}

impl Default for PerHead {
    /// α = 0.9, the paper's best (Fig. 3), squared errors of logits, not centred, with a gold head.
    fn default() -> Self {
        Self { alpha: ValueSchedule::Constant(0.9), soft: SoftLoss::LogitMse, centre: false, gold: true }
    }
}

impl PerHead {
    /// The teachers alone, without a gold head: stage 1 (Yang et al. 2020, §3.1.1).
    pub const TEACHERS_ONLY: Self =
        Self { alpha: ValueSchedule::Constant(1.0), soft: SoftLoss::LogitMse, centre: false, gold: false };
    /// The labels alone, on a gold head without others.
    pub const LABELS_ONLY: Self =
        Self { alpha: ValueSchedule::Constant(0.0), soft: SoftLoss::LogitMse, centre: false, gold: true };

    /// The weight of the teachers at `step`.
    fn alpha_at(&self, step: usize) -> Result<f64> {
        let range = self.alpha.range();
        if !self.gold && range != [1.0, 1.0] {
            bail!("expected alpha 1 without a gold head, found {} to {}", range[0], range[1]);
        }
        if self.gold && range == [1.0, 1.0] {
            bail!("expected alpha below 1 with a gold head, found 1: the head would not be trained");
        }
        match self.alpha.value(step) {
            alpha if (0.0..=1.0).contains(&alpha) => Ok(alpha),
            alpha => bail!("expected alpha from 0 to 1, found {alpha} at step {step}"),
        }
    }

    /// The loss of all heads in one: a mean over the rows of all of them, since each has as many.
    fn soft(&self, heads: &[Tensor], batch: &Batch) -> Result<Tensor> {
        let (n_heads, n_teachers, examples) = (heads.len(), batch.teachers.len(), &batch.examples);
        if n_heads != n_teachers || n_heads == 0 {
            bail!(
                "the output has {n_heads} heads of teachers, the batch of examples {examples:?} the outputs of {n_teachers} \
                 teachers, expected one head for each"
            );
        }
        let mut teachers = Vec::with_capacity(n_teachers);
        for (idx, head) in heads.iter().enumerate() {
            let teacher = batch.teacher_logits(idx)?;
            if head.dims() != teacher.dims() {
                bail!(
                    "the head of teacher {idx} has (rows, classes) {:?}, the teacher's logits of examples {examples:?} have {:?}",
                    head.dims(),
                    teacher.dims()
                );
            }
            teachers.push(teacher.detach());
        }
        let mut teachers = Tensor::cat(&teachers, 0)?;
        if self.centre {
            teachers = teachers.broadcast_sub(&teachers.mean_keepdim(1)?)?;
        }
        self.soft.of(&Tensor::cat(heads, 0)?, &teachers)
    }
}

impl Objective for PerHead {
    fn loss(&self, output: &Output, batch: &Batch, step: usize) -> Result<Loss> {
        let alpha = self.alpha_at(step)?;
        let of_teachers = output.heads.get(usize::from(self.gold)..).unwrap_or_default();
        let hard = (alpha < 1.0)
            .then(|| in_part("hard", output.logits().and_then(|gold| losses::cross_entropy(gold, batch.labels()?))));
        let soft = (alpha > 0.0).then(|| in_part("soft", self.soft(of_teachers, batch)));
        let (hard, soft) = (hard.transpose()?, soft.transpose()?);
        let total = match (&hard, &soft) {
            (Some(hard), Some(soft)) => ((hard * (1.0 - alpha))? + (soft * alpha)?)?,
            (Some(only), None) | (None, Some(only)) => only.clone(),
            (None, None) => bail!("alpha {alpha} leaves no part of the loss"),
        };
        let parts = [("hard", hard), ("soft", soft)];
        let parts = parts.into_iter().filter_map(|(name, part)| Some((name.to_string(), part?))).collect();
        Ok(Loss { total, parts })
    }

    fn describe(&self) -> serde_json::Value {
        serde_json::json!({ "per_head": self })
    }
}
