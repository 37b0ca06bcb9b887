//! The labels and one teacher.

use candle_core::{Result, Tensor, bail};
use serde::{Deserialize, Serialize};

use super::{Loss, Objective, in_part};
use crate::batch::Batch;
use crate::losses;
use crate::model::Output;
use crate::ops::crf;
use crate::schedule::ValueSchedule;

/// Which of a CRF student's distributions is drawn to the teacher's.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum CrfTarget {
    /// `softmax(emissions)`: cheap, and blind to the transitions.
    Emissions,
    /// The probability of each tag of each word under the whole CRF (forward–backward).
    Marginals,
}

/// `hard · L_labels + soft · KL(teacher ‖ student)`, both means over rows: the parts `hard` and `soft`.
///
/// `L_labels` is cross-entropy, or for a student with transitions the CRF's negative log-likelihood divided by
/// the number of *rows*, so that the two weights mean the same for both heads. One teacher: the first of the batch.
/// (Izsak et al. 2019, slides: `α · L_task + β · L_distill`.) All three numbers may follow a schedule.
#[derive(Debug, Clone, Copy, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Distillation {
    /// Weight of the labels, ≥ 0; at 0 the batch needs none.
    pub hard: ValueSchedule,
    /// Weight of the teacher, ≥ 0; at 0 the batch needs no teacher.
    pub soft: ValueSchedule,
    /// Temperature of both sides, > 0.
    pub temperature: ValueSchedule,
    /// What is distilled into a CRF; no effect on a softmax head.
    pub crf_target: CrfTarget,
}

impl Distillation {
    /// The labels alone.
    pub const LABELS_ONLY: Self = Self {
        hard: ValueSchedule::Constant(1.0),
        soft: ValueSchedule::Constant(0.0),
        temperature: ValueSchedule::Constant(1.0),
        crf_target: CrfTarget::Emissions,
    };

    fn hard(output: &Output, batch: &Batch) -> Result<Tensor> {
        let (logits, labels) = (output.logits()?, batch.labels()?);
        match &output.transitions {
            Some(transitions) => {
                crf::negative_log_likelihood(logits, transitions, labels, &batch.tokens.rows_per_example()?)
            }
            None => losses::cross_entropy(logits, labels),
        }
    }

    fn soft(&self, output: &Output, batch: &Batch, temperature: f64) -> Result<Tensor> {
        let (logits, teacher) = (output.logits()?, batch.teacher_logits(0)?);
        match &output.transitions {
            Some(transitions) if self.crf_target == CrfTarget::Marginals => {
                let lengths = batch.tokens.rows_per_example()?;
                let student = crf::log_marginals(&(logits / temperature)?, &(transitions / temperature)?, &lengths)?;
                let teacher = crate::ops::log_softmax(&(teacher.detach() / temperature)?)?;
                losses::kl_from_log_probs(&student, &teacher)? * (temperature * temperature)
            }
            _ => losses::kl_divergence(logits, teacher, temperature),
        }
    }
}

impl Objective for Distillation {
    fn loss(&self, output: &Output, batch: &Batch, step: usize) -> Result<Loss> {
        let weight = |name: &str, schedule: ValueSchedule| match schedule.value(step) {
            weight if weight.is_finite() && weight >= 0.0 => Ok(weight),
            weight => {
                bail!("loss part `{name}`: expected a finite weight of at least 0, found {weight} at step {step}")
            }
        };
        let (hard_weight, soft_weight) = (weight("hard", self.hard)?, weight("soft", self.soft)?);
        let temperature = self.temperature.value(step);
        let (hard, soft) = match (hard_weight != 0.0, soft_weight != 0.0) {
            // Both from one pass over the logits.
            (true, true) if output.transitions.is_none() => {
                let (teacher, labels) = (in_part("soft", batch.teacher_logits(0))?, in_part("hard", batch.labels())?);
                let (hard, soft) = losses::distillation(output.logits()?, teacher, labels, temperature)?;
                (Some(hard), Some(soft))
            }
            (has_hard, has_soft) => {
                let hard = has_hard.then(|| in_part("hard", Self::hard(output, batch))).transpose()?;
                let soft = has_soft.then(|| in_part("soft", self.soft(output, batch, temperature))).transpose()?;
                (hard, soft)
            }
        };
        let weighted = |part: &Option<Tensor>, weight| part.as_ref().map(|part| part * weight).transpose();
        let total = match (weighted(&hard, hard_weight)?, weighted(&soft, soft_weight)?) {
            (Some(hard), Some(soft)) => (hard + soft)?,
            (Some(only), None) | (None, Some(only)) => only,
            (None, None) => bail!("at step {step} the weights of all parts of the loss are 0"),
        };
        let parts = [("hard", hard), ("soft", soft)];
        let parts = parts.into_iter().filter_map(|(name, part)| Some((name.to_string(), part?))).collect();
        Ok(Loss { total, parts })
    }

    fn describe(&self) -> serde_json::Value {
        serde_json::json!({ "distillation": self })
    }
}

#[cfg(test)]
mod tests {
    use candle_core::Device;

    use super::*;
    use crate::batch::{Rows, Tokens, pad};

    #[test]
    fn numbers_still_read_and_weights_may_follow_schedules() {
        let text = r#"{"hard":0.5,"soft":0.5,"temperature":2.0,"crf_target":"emissions"}"#;
        let mut objective: Distillation = serde_json::from_str(text).unwrap();
        assert_eq!(serde_json::to_string(&objective).unwrap(), text);

        let logits = |values: [f64; 2]| Output::from_logits(Tensor::new(&[values], &Device::Cpu).unwrap());
        let tokens = Tokens {
            first: pad(&[vec![1]], &Device::Cpu).unwrap(),
            second: None,
            more: Vec::new(),
            rows: Rows::Examples,
        };
        let labels = Some(Tensor::new(&[1u32], &Device::Cpu).unwrap());
        let mut batch = Batch {
            tokens,
            labels,
            targets: vec![],
            teachers: vec![logits([0.0, 0.0])],
            weights: None,
            task: 0,
            examples: vec![0],
        };
        // Student (1/4, 3/4), teacher (1/2, 1/2) at T = 1: hard = ln 4/3, soft = ½ ln(½ / ¼) + ½ ln(½ / ¾) = ½ ln 4/3.
        let student = logits([0.0, 3f64.ln()]);
        objective.temperature = 1.0.into();
        objective.soft = ValueSchedule::linear(1.0, 0.0, 4);
        let hard = (4f64 / 3.0).ln();
        for (step, weight) in [(0, 1.0), (2, 0.5)] {
            let loss = objective.loss(&student, &batch, step).unwrap();
            let (total, parts) = loss.values().unwrap();
            for (found, expected) in
                [(total, 0.5 * hard + weight * 0.5 * hard), (parts["hard"], hard), (parts["soft"], 0.5 * hard)]
            {
                assert!((found - expected).abs() < 1e-12, "step {step}: {found} {expected}");
            }
        }
        // From step 4 on no teacher is needed, before it is.
        batch.teachers.clear();
        assert_eq!(objective.loss(&student, &batch, 4).unwrap().parts.keys().collect::<Vec<_>>(), ["hard"]);
        let error = objective.loss(&student, &batch, 3).unwrap_err().to_string();
        assert!(
            error.starts_with("loss part `soft`: the batch of examples [0] has the outputs of 0 teachers"),
            "{error}"
        );
        objective.hard = (-1.0).into();
        let error = objective.loss(&student, &batch, 3).unwrap_err().to_string();
        assert!(
            error.starts_with("loss part `hard`: expected a finite weight of at least 0, found -1 at step 3"),
            "{error}"
        );
    }
}
