//! Which function computes each file of a loss on logits.

use kd_core::losses;

use super::reader::Loss;

pub(crate) const LOSSES: &[Loss] = &[
    Loss {
        name: "cross_entropy",
        rows: Some(|x| losses::cross_entropy_rows(x.tensor("student_logits")?, x.tensor("labels")?)),
        mean: |x| losses::cross_entropy(x.tensor("student_logits")?, x.tensor("labels")?),
    },
    Loss {
        name: "kl_divergence",
        rows: Some(|x| {
            let temperature = x.parameter("temperature")?;
            losses::kl_divergence_rows(x.tensor("student_logits")?, x.tensor("teacher_logits")?, temperature)
        }),
        mean: |x| {
            let temperature = x.parameter("temperature")?;
            losses::kl_divergence(x.tensor("student_logits")?, x.tensor("teacher_logits")?, temperature)
        },
    },
    Loss {
        name: "soft_cross_entropy",
        rows: Some(|x| {
            let temperature = x.parameter("temperature")?;
            losses::soft_cross_entropy_rows(x.tensor("student_logits")?, x.tensor("teacher_probs")?, temperature)
        }),
        mean: |x| {
            let temperature = x.parameter("temperature")?;
            losses::soft_cross_entropy(x.tensor("student_logits")?, x.tensor("teacher_probs")?, temperature)
        },
    },
    Loss {
        name: "logit_mse",
        rows: Some(|x| losses::logit_mse_rows(x.tensor("student_logits")?, x.tensor("teacher_logits")?)),
        mean: |x| losses::logit_mse(x.tensor("student_logits")?, x.tensor("teacher_logits")?),
    },
    Loss {
        name: "kl_from_log_probs",
        rows: Some(|x| losses::kl_from_log_probs_rows(x.tensor("student_log_probs")?, x.tensor("teacher_log_probs")?)),
        mean: |x| losses::kl_from_log_probs(x.tensor("student_log_probs")?, x.tensor("teacher_log_probs")?),
    },
];
