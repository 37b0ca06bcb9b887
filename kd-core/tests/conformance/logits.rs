//! Which function computes each file of a loss on logits.

use candle_core::{Result, Tensor};
use kd_core::losses;

use super::reader::{Given, Loss};

/// A loss of the inputs named.
macro_rules! of {
    ($mean:ident, $rows:ident, $student:literal, $teacher:literal) => {
        Loss {
            name: stringify!($mean),
            rows: Some(|x| losses::$rows(x.tensor($student)?, x.tensor($teacher)?)),
            mean: |x| losses::$mean(x.tensor($student)?, x.tensor($teacher)?),
        }
    };
}

/// A loss of the inputs named at the case's temperature.
macro_rules! softened {
    ($mean:ident, $rows:ident) => {
        softened!($mean, $rows, "teacher_logits")
    };
    ($mean:ident, $rows:ident, $teacher:literal) => {
        Loss {
            name: stringify!($mean),
            rows: Some(|x| losses::$rows(x.tensor("student_logits")?, x.tensor($teacher)?, temperature(x)?)),
            mean: |x| losses::$mean(x.tensor("student_logits")?, x.tensor($teacher)?, temperature(x)?),
        }
    };
}

fn temperature(given: &Given<'_>) -> Result<losses::Temperature> {
    given.parameter("temperature")
}

fn pair<'a>(given: &'a Given<'_>) -> Result<[&'a Tensor; 2]> {
    Ok([given.tensor("student_logits")?, given.tensor("teacher_logits")?])
}

/// Both teachers and their weights.
fn two_teachers(given: &Given<'_>) -> Result<([Tensor; 2], Tensor)> {
    let teachers = [given.tensor("teacher_logits")?.clone(), given.tensor("second_teacher_logits")?.clone()];
    let first = given.tensor("first_weights")?;
    Ok((teachers, Tensor::cat(&[first, &first.affine(-1.0, 1.0)?], 1)?))
}

pub(crate) const LOSSES: &[Loss] = &[
    of!(cross_entropy, cross_entropy_rows, "student_logits", "labels"),
    Loss {
        name: "hard_cross_entropy",
        rows: Some(|x| losses::hard_cross_entropy_rows(x.tensor("student_logits")?, x.tensor("labels")?, &x.config()?)),
        mean: |x| losses::hard_cross_entropy(x.tensor("student_logits")?, x.tensor("labels")?, &x.config()?),
    },
    Loss {
        name: "hard_cross_entropy_by_weights",
        rows: None,
        mean: |x| losses::hard_cross_entropy(x.tensor("student_logits")?, x.tensor("labels")?, &x.config()?),
    },
    softened!(soft_cross_entropy, soft_cross_entropy_rows, "teacher_probs"),
    softened!(soft_cross_entropy_from_logits, soft_cross_entropy_from_logits_rows),
    of!(binary_cross_entropy, binary_cross_entropy_rows, "student_logits", "targets"),
    softened!(binary_cross_entropy_from_logits, binary_cross_entropy_from_logits_rows),
    softened!(kl_divergence, kl_divergence_rows),
    softened!(reverse_kl_divergence, reverse_kl_divergence_rows),
    softened!(jensen_shannon_divergence, jensen_shannon_divergence_rows),
    Loss {
        name: "weighted_kl_divergence",
        rows: Some(|x| {
            let (teachers, weights) = two_teachers(x)?;
            losses::weighted_kl_divergence_rows(x.tensor("student_logits")?, &teachers, &weights, temperature(x)?)
        }),
        mean: |x| {
            let (teachers, weights) = two_teachers(x)?;
            losses::weighted_kl_divergence(x.tensor("student_logits")?, &teachers, &weights, temperature(x)?)
        },
    },
    of!(kl_from_log_probs, kl_from_log_probs_rows, "student_log_probs", "teacher_log_probs"),
    of!(logit_mse, logit_mse_rows, "student_logits", "teacher_logits"),
    of!(centred_logit_mse, centred_logit_mse_rows, "student_logits", "teacher_logits"),
    softened!(probability_mse, probability_mse_rows),
    of!(cosine_distance, cosine_distance_rows, "student_logits", "teacher_logits"),
    Loss {
        name: "decoupled_divergence",
        rows: Some(|x| {
            let [student, teacher] = pair(x)?;
            losses::decoupled_divergence_rows(student, teacher, x.tensor("labels")?, &x.config()?)
        }),
        mean: |x| {
            let [student, teacher] = pair(x)?;
            losses::decoupled_divergence(student, teacher, x.tensor("labels")?, &x.config()?)
        },
    },
    softened!(row_correlation, row_correlation_rows),
    Loss {
        name: "column_correlation",
        rows: None,
        mean: |x| {
            let [student, teacher] = pair(x)?;
            losses::column_correlation(student, teacher, temperature(x)?)
        },
    },
    Loss {
        name: "correlation",
        rows: None,
        mean: |x| {
            let [student, teacher] = pair(x)?;
            losses::correlation(student, teacher, &x.config()?)
        },
    },
    Loss {
        name: "standardised_kl_divergence",
        rows: Some(|x| {
            let [student, teacher] = pair(x)?;
            let (student, teacher) = (losses::standardise(student)?, losses::standardise(teacher)?);
            losses::kl_divergence_rows(&student, &teacher, temperature(x)?)
        }),
        mean: |x| {
            let [student, teacher] = pair(x)?;
            let (student, teacher) = (losses::standardise(student)?, losses::standardise(teacher)?);
            losses::kl_divergence(&student, &teacher, temperature(x)?)
        },
    },
];
