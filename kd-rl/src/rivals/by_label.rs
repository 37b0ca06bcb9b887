//! Weights of a row by how well each teacher knows its label.

use candle_core::{DType, Result, Tensor, bail};
use kd_core::losses::cross_entropy_rows;
use kd_core::ops;
use kd_core::weighting::TeacherWeighting;
use serde_json::json;

use super::Rule;
use crate::reinforced::teacher_logits;

/// [`best_single_weights`] of every batch.
pub fn best_single() -> impl TeacherWeighting {
    Rule::new(json!("best_single"), |batch, _| best_single_weights(&teacher_logits(batch)?, batch.labels()?))
}

/// [`confidence_weights`] of every batch.
pub fn confidence() -> impl TeacherWeighting {
    Rule::new(json!("confidence"), |batch, _| confidence_weights(&teacher_logits(batch)?, batch.labels()?))
}

/// [`inverse_cross_entropy_weights`] of every batch.
pub fn inverse_cross_entropy() -> impl TeacherWeighting {
    Rule::new(json!("inverse_cross_entropy"), |batch, _| {
        inverse_cross_entropy_weights(&teacher_logits(batch)?, batch.labels()?)
    })
}

/// All weight to the teacher with the least cross-entropy on the row, the first of several (Best-Single-Ensemble of Yuan et
/// al. 2021).
///
/// # Shapes
/// - `teacher_logits`: `(rows, classes)` float for each teacher; `labels`: `(rows,)` u32
/// - returns `(rows, teachers)`, rows sum to 1
///
/// # Errors
/// If there are no teachers, shapes differ, or a label is no class.
///
/// ```
/// use candle_core::{Device, Tensor};
/// let teachers = [[3f32, 0.], [0., 3.]].map(|row| Tensor::new(&[row], &Device::Cpu).unwrap());
/// let weights = kd_rl::rivals::best_single_weights(&teachers, &Tensor::new(&[1u32], &Device::Cpu)?)?;
/// assert_eq!(weights.to_vec2::<f32>()?, [[0., 1.]]);
/// # Ok::<(), candle_core::Error>(())
/// ```
pub fn best_single_weights(teacher_logits: &[Tensor], labels: &Tensor) -> Result<Tensor> {
    let cross_entropies = cross_entropies(teacher_logits, labels)?;
    let best = cross_entropies.argmin_keepdim(1)?; // the first of several
    let teachers = Tensor::arange(0u32, teacher_logits.len() as u32, cross_entropies.device())?.unsqueeze(0)?;
    best.broadcast_eq(&teachers)?.to_dtype(cross_entropies.dtype())
}

/// `w_k = (1 - softmax(CE)_k) / (K - 1)`: the less a teacher knows the label, the less it counts (CA-MKD, Zhang et al.
/// 2022). Its largest weight is `1/(K - 1)`; one teacher alone has the weight 1.
///
/// # Shapes
/// As [`best_single_weights`].
///
/// # Errors
/// As there.
///
/// ```
/// use candle_core::{Device, Tensor};
/// // Cross-entropies ln 2 and ln 4: softmax (2/6, 4/6), weights (2/3, 1/3).
/// let teachers = [[0f64, 0.], [3f64.ln(), 0.]].map(|row| Tensor::new(&[row], &Device::Cpu).unwrap());
/// let weights = kd_rl::rivals::confidence_weights(&teachers, &Tensor::new(&[1u32], &Device::Cpu)?)?.to_vec2::<f64>()?;
/// assert!((weights[0][0] - 2. / 3.).abs() < 1e-12 && (weights[0][1] - 1. / 3.).abs() < 1e-12);
/// # Ok::<(), candle_core::Error>(())
/// ```
pub fn confidence_weights(teacher_logits: &[Tensor], labels: &Tensor) -> Result<Tensor> {
    let cross_entropies = cross_entropies(teacher_logits, labels)?;
    match teacher_logits.len() {
        1 => cross_entropies.ones_like(),
        teachers => {
            let others = (teachers - 1) as f64;
            ops::softmax(&cross_entropies)?.affine(-1.0 / others, 1.0 / others)
        }
    }
}

/// `w_k ∝ 1 / (1 + CE_k)` (MT-BERT, Wu et al. 2021). They do not make the weights sum to 1; here they do, so that the share
/// of the teachers in the loss is the same on every row.
///
/// # Shapes
/// As [`best_single_weights`].
///
/// # Errors
/// As there.
///
/// ```
/// use candle_core::{Device, Tensor};
/// let teachers = [[0f64, 40.], [0., 0.]].map(|row| Tensor::new(&[row], &Device::Cpu).unwrap()); // CE 0 and ln 2
/// let weights = kd_rl::rivals::inverse_cross_entropy_weights(&teachers, &Tensor::new(&[1u32], &Device::Cpu)?)?;
/// let other = 1. / (1. + 2f64.ln());
/// assert!((weights.to_vec2::<f64>()?[0][0] - 1. / (1. + other)).abs() < 1e-12);
/// # Ok::<(), candle_core::Error>(())
/// ```
pub fn inverse_cross_entropy_weights(teacher_logits: &[Tensor], labels: &Tensor) -> Result<Tensor> {
    let weights = cross_entropies(teacher_logits, labels)?.affine(1.0, 1.0)?.recip()?;
    weights.broadcast_div(&weights.sum_keepdim(1)?)
}

/// Cross-entropy of each teacher against the label of each row, `(rows, teachers)`, f64 where the logits are and else f32.
pub(super) fn cross_entropies(teacher_logits: &[Tensor], labels: &Tensor) -> Result<Tensor> {
    if teacher_logits.is_empty() {
        bail!("expected teachers to weigh, found none");
    }
    let of_teacher = |(idx, logits): (usize, &Tensor)| {
        let dtype = if logits.dtype() == DType::F64 { DType::F64 } else { DType::F32 };
        let rows = cross_entropy_rows(&logits.detach().to_dtype(dtype)?, labels);
        rows.map_err(|error| candle_core::Error::msg(format!("teacher {idx}: {error}")))
    };
    Tensor::stack(&teacher_logits.iter().enumerate().map(of_teacher).collect::<Result<Vec<_>>>()?, 1)
}
