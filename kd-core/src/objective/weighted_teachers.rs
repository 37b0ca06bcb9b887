//! The labels and several teachers, who teach one head.

use candle_core::{DType, Result, Tensor, bail};
use serde::{Deserialize, Serialize};

use super::{Loss, Objective, in_part};
use crate::batch::Batch;
use crate::losses;
use crate::model::Output;
use crate::schedule::ValueSchedule;

/// `hard · CE(labels) + soft · Σ_k w_rk · T² KL(teacher_k ‖ student)`, both means over rows: the parts `hard` and `soft`.
///
/// The weights `w` are those of the batch, which a [`TeacherWeighting`](crate::weighting::TeacherWeighting) sets; without
/// them all teachers count alike (U-Ensemble of Yuan et al. 2021). A part whose weight is 0 at a step is not computed and
/// needs neither labels nor teachers.
///
/// ```
/// # use candle_core::{Device, Tensor};
/// # use kd_core::{batch::*, model::Output, objective::*};
/// # let tokens = Tokens { first: pad(&[vec![1]], &Device::Cpu)?, second: None, more: Vec::new(), rows: Rows::Examples };
/// let output = |logits: [f64; 2]| Output::from_logits(Tensor::new(&[logits], &Device::Cpu).unwrap());
/// let teachers = vec![output([0., 0.]), output([0., 3f64.ln()])];
/// let weights = Some(Tensor::new(&[[1f64, 0.]], &Device::Cpu)?); // the one that agrees with the student
/// let batch = Batch { tokens, labels: Some(Tensor::new(&[1u32], &Device::Cpu)?), targets: vec![], teachers, weights, task: 0, examples: vec![0] };
/// let (total, parts) = WeightedTeachers::new(0.5, 0.5, 2.0).loss(&output([0., 0.]), &batch, 0)?.values()?;
/// assert!(parts["soft"].abs() < 1e-12 && (total - 0.5 * 2f64.ln()).abs() < 1e-12);
/// # Ok::<(), candle_core::Error>(())
/// ```
#[derive(Debug, Clone, Copy, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct WeightedTeachers {
    /// Weight of the labels, ≥ 0; at 0 the batch needs none.
    pub hard: ValueSchedule,
    /// Weight of the teachers, ≥ 0; at 0 the batch needs no teacher.
    pub soft: ValueSchedule,
    /// Temperature of both sides, > 0.
    pub temperature: ValueSchedule,
}

impl WeightedTeachers {
    /// Both weights and the temperature, numbers or schedules.
    pub fn new(
        hard: impl Into<ValueSchedule>,
        soft: impl Into<ValueSchedule>,
        temperature: impl Into<ValueSchedule>,
    ) -> Self {
        Self { hard: hard.into(), soft: soft.into(), temperature: temperature.into() }
    }

    fn soft(output: &Output, batch: &Batch, temperature: f64) -> Result<Tensor> {
        let (student, n_teachers) = (output.logits()?, batch.teachers.len());
        let teachers = (0..n_teachers).map(|idx| batch.teacher_logits(idx).cloned()).collect::<Result<Vec<_>>>()?;
        let weights = match &batch.weights {
            Some(weights) => weights.clone(),
            None if n_teachers == 0 => bail!("the batch of examples {:?} has no teachers", batch.examples),
            None => {
                let alike = 1.0 / n_teachers as f64;
                Tensor::full(alike as f32, (student.dim(0)?, n_teachers), student.device())?.to_dtype(DType::F32)?
            }
        };
        losses::weighted_kl_divergence(student, &teachers, &weights, temperature)
    }
}

impl Objective for WeightedTeachers {
    fn loss(&self, output: &Output, batch: &Batch, step: usize) -> Result<Loss> {
        let weight = |name: &str, schedule: ValueSchedule| match schedule.value(step) {
            weight if weight.is_finite() && weight >= 0.0 => Ok(weight),
            weight => {
                bail!("loss part `{name}`: expected a finite weight of at least 0, found {weight} at step {step}")
            }
        };
        let (hard, soft) = (weight("hard", self.hard)?, weight("soft", self.soft)?);
        let hard_part = || losses::cross_entropy(output.logits()?, batch.labels()?);
        let soft_part = || Self::soft(output, batch, self.temperature.value(step));
        let mut loss: Option<Loss> = None;
        let mut add = |name: &str, weight: f64, part: &dyn Fn() -> Result<Tensor>| {
            if weight == 0.0 {
                return Ok(());
            }
            let value = in_part(name, part())?;
            let weighted = (&value * weight)?;
            let sum = match loss.take() {
                Some(Loss { total, parts }) => Loss { total: (total + weighted)?, parts },
                None => Loss::of(weighted),
            };
            loss = Some(sum.with_part(name, value));
            Ok::<(), candle_core::Error>(())
        };
        add("hard", hard, &hard_part)?;
        add("soft", soft, &soft_part)?;
        loss.ok_or_else(|| {
            candle_core::Error::msg(format!("at step {step} the weights of all parts of the loss are 0"))
        })
    }

    fn describe(&self) -> serde_json::Value {
        serde_json::json!({ "weighted_teachers": self })
    }
}

#[cfg(test)]
mod tests {
    use candle_core::Device;

    use super::*;
    use crate::batch::{Rows, Tokens, pad};

    fn logits(values: [f64; 2]) -> Output {
        Output::from_logits(Tensor::new(&[values], &Device::Cpu).unwrap())
    }

    fn batch(weights: Option<[f64; 2]>) -> Batch {
        let tokens = Tokens {
            first: pad(&[vec![1]], &Device::Cpu).unwrap(),
            second: None,
            more: Vec::new(),
            rows: Rows::Examples,
        };
        let weights = weights.map(|weights| Tensor::new(&[weights], &Device::Cpu).unwrap());
        let teachers = vec![logits([0., 0.]), logits([0., 3f64.ln()])];
        Batch {
            tokens,
            labels: Some(Tensor::new(&[1u32], &Device::Cpu).unwrap()),
            targets: vec![],
            teachers,
            weights,
            task: 0,
            examples: vec![7],
        }
    }

    #[test]
    fn without_weights_all_teachers_count_alike() {
        let soft = |weights| {
            let (total, parts) = WeightedTeachers::new(0.0, 2.0, 1.0)
                .loss(&logits([0., 0.]), &batch(weights), 0)
                .unwrap()
                .values()
                .unwrap();
            assert_eq!(parts.keys().collect::<Vec<_>>(), ["soft"]);
            total
        };
        let apart = 0.25 * 0.5f64.ln() + 0.75 * 1.5f64.ln(); // KL from (1/4, 3/4) to (1/2, 1/2)
        assert!((soft(None) - apart).abs() < 1e-12); // 2 · (0 + apart) / 2
        assert_eq!(soft(None), soft(Some([0.5, 0.5])));
        assert!((soft(Some([0.0, 1.0])) - 2.0 * apart).abs() < 1e-12);
    }

    #[test]
    fn what_is_missing_is_named_only_where_it_counts() {
        let mut bare = batch(None);
        bare.teachers.clear();
        let loss = |objective: WeightedTeachers, step| objective.loss(&logits([0., 0.]), &bare, step);
        assert!(loss(WeightedTeachers::new(1.0, 0.0, 1.0), 0).is_ok());
        let error = loss(WeightedTeachers::new(1.0, 1.0, 1.0), 0).unwrap_err().to_string();
        assert!(error.starts_with("loss part `soft`: the batch of examples [7] has no teachers"), "{error}");
        let error = loss(WeightedTeachers::new(0.0, 0.0, 1.0), 3).unwrap_err().to_string();
        assert!(error.starts_with("at step 3 the weights of all parts"), "{error}");
        let error = loss(WeightedTeachers::new(-1.0, 1.0, 1.0), 3).unwrap_err().to_string();
        assert!(error.contains("loss part `hard`: expected a finite weight of at least 0, found -1"), "{error}");
    }
}
