//! Losses between a student's logits and what it should have said.
//!
//! Every loss is a plain function of tensors and comes in two forms: `*_rows` gives one value per row,
//! the short name is its mean over rows. There are no masks: callers pass only rows that count.
//! All values are in nats unless said otherwise.
//!
//! | function               | target               | source                  |
//! |------------------------|----------------------|-------------------------|
//! | [`cross_entropy`]      | class index          |                         |
//! | [`soft_cross_entropy`] | distribution         | Hinton et al. 2015, §2  |
//! | [`kl_divergence`]      | teacher logits       | Hinton et al. 2015, §2  |
//! | [`logit_mse`]          | teacher logits       | Ba & Caruana 2014       |
//! | [`kl_from_log_probs`]  | log of a distribution| e.g. a CRF's marginals  |
//!
//! Between representations of student and teacher:
//!
//! | function                   | compares                           | row     | source                     |
//! |----------------------------|------------------------------------|---------|----------------------------|
//! | [`hidden_mse`]             | states, with a [`Projection`]      | row     | Romero et al. 2015         |
//! | [`hidden_cosine`]          | directions of states               | row     | Sanh et al. 2019           |
//! | [`normalised_distance`]    | normalised states                  | row     | Sun et al. 2019, eq. 7     |
//! | [`first_token_distance`]   | the same over mapped layers        | example | Sun et al. 2019, eq. 7     |
//! | [`attention_mse`]          | attention scores or probabilities  | example | Jiao et al. 2020, eq. 7    |
//! | [`attention_kl`]           | attention probabilities            | example | Sun et al. 2020            |
//! | [`relation_kl`]            | a relation between positions       | example | Wang et al. 2020           |
//! | [`self_relations_kl`]      | those of queries, keys and values  | example | Wang et al. 2021           |
//! | [`flow_mse`]               | change from layer to layer         | example | Yim et al. 2017            |
//! | [`neuron_selectivity`]     | what the neurons respond to        | example | Huang and Wang 2017        |
//! | [`relational_distance`], [`relational_angle`] | the shape of a batch | none | Park et al. 2019          |
//! | [`similarity_preserving`]  | the similarities in a batch        | none    | Tung and Mori 2019         |
//! | [`noise_contrast`], [`Contrastive`] | examples with a [`MemoryBank`] | row | Tian et al. 2020          |
//! | [`LayerByLayer`]           | embeddings, layers, attention, logits | none | Jiao et al. 2020          |
//!
//! A [`LayerMap`] says which layers. Losses between positions take a mask, as the only ones: see [`attention_mse`].
//!
//! Gradients flow into the student's argument only: what the teacher said is detached here.

mod attention;
mod contrastive;
mod flow;
mod geometry;
mod hidden;
mod layer_by_layer;
mod layer_map;
mod neuron_selectivity;
mod relations;
mod token_mask;
mod vectors;

pub use attention::{attention_kl, attention_kl_rows, attention_mse, attention_mse_rows};
pub use contrastive::{Contrastive, ContrastiveConfig, MemoryBank, noise_contrast, noise_contrast_rows};
pub use flow::{flow_mse, flow_mse_rows};
pub use geometry::{relational_angle, relational_distance, similarity_preserving};
pub use hidden::{
    Projection, first_token_distance, first_token_distance_rows, hidden_cosine, hidden_cosine_rows, hidden_mse,
    hidden_mse_rows, normalised_distance, normalised_distance_rows,
};
pub use layer_by_layer::{LayerByLayer, LayerLosses};
pub use layer_map::LayerMap;
pub use neuron_selectivity::{SelectivityKernel, neuron_selectivity, neuron_selectivity_rows};
pub use relations::{relation_kl, relation_kl_rows, self_relations_kl, self_relations_kl_rows};

use candle_core::{D, DType, Result, Tensor, bail};

use crate::ops;

/// Cross-entropy against class indices, mean over rows: `-mean_rows log_softmax(logits)[label]`.
///
/// # Shapes
/// - `logits`: `(rows, classes)` float, `labels`: `(rows,)` u32
/// - returns a scalar of the dtype of `logits`
///
/// # Errors
/// If the shapes differ, there are no rows, or a label is not below `classes`.
///
/// ```
/// use candle_core::{Device, Tensor};
/// let logits = Tensor::new(&[[0f64, 0.], [0., 3f64.ln()]], &Device::Cpu)?;
/// let loss = kd_core::losses::cross_entropy(&logits, &Tensor::new(&[0u32, 1], &Device::Cpu)?)?;
/// let by_hand = (2f64.ln() + (4f64 / 3.).ln()) / 2.; // probabilities 1/2 and 3/4
/// assert!((loss.to_scalar::<f64>()? - by_hand).abs() < 1e-12);
/// # Ok::<(), candle_core::Error>(())
/// ```
pub fn cross_entropy(logits: &Tensor, labels: &Tensor) -> Result<Tensor> {
    mean(&cross_entropy_rows(logits, labels)?)
}

/// [`cross_entropy`] of each row, `(rows,)`.
pub fn cross_entropy_rows(logits: &Tensor, labels: &Tensor) -> Result<Tensor> {
    ops::distillation::cross_entropy_rows(logits, labels)
}

/// Cross-entropy against a softened teacher distribution, mean over rows.
///
/// `loss = -T² · mean_rows Σ_c p_c · log_softmax(z / T)_c`. The factor `T²` keeps the gradient's size
/// roughly independent of `T` (Hinton et al. 2015, §2); without it a higher temperature is also a lower weight.
///
/// # Shapes
/// - `logits`: `(rows, classes)` float, `probs`: the same shape, each row sums to 1, already softened by `T`
/// - returns a scalar of the dtype of `logits`; `probs` is detached
///
/// # Errors
/// If shapes differ, if there are no rows, or if `temperature` is not finite and positive.
pub fn soft_cross_entropy(logits: &Tensor, probs: &Tensor, temperature: f64) -> Result<Tensor> {
    mean(&soft_cross_entropy_rows(logits, probs, temperature)?)
}

/// [`soft_cross_entropy`] of each row, `(rows,)`.
pub fn soft_cross_entropy_rows(logits: &Tensor, probs: &Tensor, temperature: f64) -> Result<Tensor> {
    same_shape("soft_cross_entropy", logits, probs)?;
    check_temperature("soft_cross_entropy", temperature)?;
    let log_probs = ops::log_softmax(&(logits / temperature)?)?;
    probs.detach().mul(&log_probs)?.sum(D::Minus1)? * -(temperature * temperature)
}

/// `T² · mean_rows KL(softmax(teacher / T) ‖ softmax(student / T))`.
///
/// The teacher's distribution is the first argument of the divergence: the student is drawn to cover all that
/// the teacher holds possible. Both logarithms come from logits, so a probability that underflows gives no NaN.
///
/// # Shapes
/// - `student_logits`, `teacher_logits`: `(rows, classes)` float
/// - returns a scalar; differentiable in `student_logits` only
///
/// # Errors
/// If shapes differ, if there are no rows, or if `temperature` is not finite and positive.
///
/// ```
/// use candle_core::{Device, Tensor};
/// let student = Tensor::new(&[[0f64, 0.]], &Device::Cpu)?;
/// let teacher = Tensor::new(&[[0f64, 3f64.ln()]], &Device::Cpu)?; // probabilities 1/4 and 3/4
/// let loss = kd_core::losses::kl_divergence(&student, &teacher, 1.)?.to_scalar::<f64>()?;
/// assert!((loss - (0.25 * 0.5f64.ln() + 0.75 * 1.5f64.ln())).abs() < 1e-12);
/// # Ok::<(), candle_core::Error>(())
/// ```
pub fn kl_divergence(student_logits: &Tensor, teacher_logits: &Tensor, temperature: f64) -> Result<Tensor> {
    mean(&kl_divergence_rows(student_logits, teacher_logits, temperature)?)
}

/// [`kl_divergence`] of each row, `(rows,)`.
pub fn kl_divergence_rows(student_logits: &Tensor, teacher_logits: &Tensor, temperature: f64) -> Result<Tensor> {
    same_shape("kl_divergence", student_logits, teacher_logits)?;
    check_temperature("kl_divergence", temperature)?;
    ops::distillation::kl_divergence_rows(student_logits, teacher_logits, temperature)
}

/// [`cross_entropy`] against `labels` and [`kl_divergence`] from the teacher, in one visit to the logits.
///
/// # Errors
/// As those of the two.
pub fn distillation(
    student_logits: &Tensor,
    teacher_logits: &Tensor,
    labels: &Tensor,
    temperature: f64,
) -> Result<(Tensor, Tensor)> {
    same_shape("distillation", student_logits, teacher_logits)?;
    let (hard, soft) = ops::distillation::distillation_rows(student_logits, teacher_logits, labels, temperature)?;
    Ok((mean(&hard)?, mean(&soft)?))
}

/// `mean_rows KL(teacher ‖ student)` of distributions given by their logarithms, such as a CRF's token marginals.
///
/// # Shapes
/// - both: `(rows, classes)` float, each row's exponentials sum to 1; the teacher is detached
pub fn kl_from_log_probs(student_log_probs: &Tensor, teacher_log_probs: &Tensor) -> Result<Tensor> {
    mean(&kl_from_log_probs_rows(student_log_probs, teacher_log_probs)?)
}

/// [`kl_from_log_probs`] of each row, `(rows,)`.
pub fn kl_from_log_probs_rows(student_log_probs: &Tensor, teacher_log_probs: &Tensor) -> Result<Tensor> {
    same_shape("kl_from_log_probs", student_log_probs, teacher_log_probs)?;
    let teacher = teacher_log_probs.detach();
    (teacher.exp()? * (&teacher - student_log_probs)?)?.sum(D::Minus1)
}

/// Squared difference of logits, mean over rows and classes (logit units squared).
///
/// # Shapes
/// - both: `(rows, classes)` float; the teacher is detached
pub fn logit_mse(student_logits: &Tensor, teacher_logits: &Tensor) -> Result<Tensor> {
    mean(&logit_mse_rows(student_logits, teacher_logits)?)
}

/// [`logit_mse`] of each row: the mean over its classes, `(rows,)`.
pub fn logit_mse_rows(student_logits: &Tensor, teacher_logits: &Tensor) -> Result<Tensor> {
    same_shape("logit_mse", student_logits, teacher_logits)?;
    (student_logits - teacher_logits.detach())?.sqr()?.mean(D::Minus1)
}

fn mean(rows: &Tensor) -> Result<Tensor> {
    if rows.elem_count() == 0 {
        bail!("a mean over no rows");
    }
    rows.mean_all()
}

fn same_shape(loss: &str, student: &Tensor, teacher: &Tensor) -> Result<()> {
    if student.rank() != 2 || student.dims() != teacher.dims() {
        bail!(
            "{loss}: expected two tensors of one shape (rows, classes), found {:?} and {:?}",
            student.dims(),
            teacher.dims()
        );
    }
    for (tensor, name) in [(student, "student"), (teacher, "teacher")] {
        if !matches!(tensor.dtype(), DType::F16 | DType::BF16 | DType::F32 | DType::F64) {
            bail!("{loss}: the {name} has dtype {:?}, expected a float", tensor.dtype());
        }
    }
    Ok(())
}

fn check_temperature(loss: &str, temperature: f64) -> Result<()> {
    if !(temperature.is_finite() && temperature > 0.0) {
        bail!("{loss}: temperature {temperature}, expected a finite value above 0");
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;
    use candle_core::Device;

    #[test]
    fn what_does_not_fit_is_an_error() {
        let two = Tensor::zeros((2, 2), DType::F64, &Device::Cpu).unwrap();
        let three = Tensor::zeros((3, 2), DType::F64, &Device::Cpu).unwrap();
        let none = Tensor::zeros((0, 2), DType::F64, &Device::Cpu).unwrap();
        let message = |result: Result<Tensor>| result.unwrap_err().to_string();
        assert!(message(kl_divergence(&two, &three, 1.)).contains("[2, 2] and [3, 2]"));
        assert!(message(kl_divergence(&two, &two, 0.)).contains("temperature 0"));
        assert!(message(kl_divergence(&none, &none, 1.)).contains("no rows"));
        let labels = Tensor::new(&[0u32, 2], &Device::Cpu).unwrap();
        assert!(message(cross_entropy(&two, &labels)).contains("label 2 with 2 classes"));
    }
}
