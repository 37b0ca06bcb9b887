//! Cross-entropy against one class per row, or against a distribution over the classes.

use candle_core::{D, Result, Tensor, bail};
use serde::{Deserialize, Serialize};

use super::preconditions::{
    class_weights as check_class_weights, labels as read_labels, logits as check_logits, pair, wide,
};
use super::{Temperature, mean};
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
///
/// # Errors
/// As there, but no rows are no error.
pub fn cross_entropy_rows(logits: &Tensor, labels: &Tensor) -> Result<Tensor> {
    check_logits("cross_entropy", "logits", logits)?;
    ops::distillation::cross_entropy_rows(logits, labels)
}

/// How [`hard_cross_entropy`] takes its labels.
///
/// | field             | purpose                                             | range                        | default |
/// |-------------------|-----------------------------------------------------|------------------------------|---------|
/// | `label_smoothing` | share of the target spread evenly over all classes  | `[0, 1)`                     | 0       |
/// | `class_weights`   | factor of each class                                | one per class, finite, ≥ 0   | all 1   |
/// | `divisor`         | what the mean divides by                            |                              | rows    |
///
/// The default is [`cross_entropy`]; 0.1 is the smoothing of Szegedy et al. 2016, §7.
#[derive(Debug, Clone, PartialEq, Default, Serialize, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct HardCrossEntropy {
    /// `ε`: the label gets `1 - ε + ε / classes`, every other class `ε / classes`; in `[0, 1)`.
    pub label_smoothing: f64,
    /// `w`: one factor per class, finite and ≥ 0; none is 1 for all.
    pub class_weights: Option<Vec<f64>>,
    /// What the mean divides by; no effect on [`hard_cross_entropy_rows`].
    pub divisor: Divisor,
}

/// What the mean of a weighted cross-entropy divides by.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Divisor {
    /// The number of rows, as every other loss here: a row of a class of weight 2 counts twice.
    #[default]
    Rows,
    /// The sum of the weights of the rows' labels, as PyTorch's `reduction="mean"`: a batch of one class has the loss it
    /// would have without weights.
    Weights,
}

/// Cross-entropy against class indices, with label smoothing and class weights as in PyTorch.
///
/// With `l = log_softmax(logits)`, smoothing `ε`, weights `w` and label `y` a row is
///
/// ```text
/// -(1 - ε) w_y l_y - ε / classes · Σ_c w_c l_c
/// ```
///
/// which is `torch.nn.functional.cross_entropy(.., weight, reduction="none", label_smoothing)`. The mean divides by the
/// number of rows; PyTorch's divides by `Σ_rows w_y`, which is [`Divisor::Weights`]. Without weights they are the same.
///
/// # Shapes
/// - `logits`: `(rows, classes)` float, `labels`: `(rows,)` u32
/// - returns a scalar of the dtype of `logits`, in nats times weight
///
/// # Errors
/// If shapes differ, there are no rows, a label is not below `classes`, the smoothing is not in `[0, 1)`, there is not one
/// finite weight ≥ 0 per class, or with [`Divisor::Weights`] the weights of all labels are 0.
///
/// ```
/// use candle_core::{Device, Tensor};
/// use kd_core::losses::{HardCrossEntropy, hard_cross_entropy};
/// let logits = Tensor::new(&[[0f64, 3f64.ln()]], &Device::Cpu)?; // probabilities 1/4 and 3/4
/// let config = HardCrossEntropy { label_smoothing: 0.2, class_weights: Some(vec![1., 2.]), ..Default::default() };
/// let loss = hard_cross_entropy(&logits, &Tensor::new(&[1u32], &Device::Cpu)?, &config)?;
/// let by_hand = -0.8 * 2. * 0.75f64.ln() - 0.1 * (0.25f64.ln() + 2. * 0.75f64.ln());
/// assert!((loss.to_scalar::<f64>()? - by_hand).abs() < 1e-12);
/// # Ok::<(), candle_core::Error>(())
/// ```
pub fn hard_cross_entropy(logits: &Tensor, labels: &Tensor, config: &HardCrossEntropy) -> Result<Tensor> {
    let rows = hard_cross_entropy_rows(logits, labels, config)?;
    divided("hard_cross_entropy", &rows, labels, logits, config)
}

/// [`hard_cross_entropy`] of each row, `(rows,)`, weighted and undivided.
///
/// # Errors
/// As there, but no rows are no error.
pub fn hard_cross_entropy_rows(logits: &Tensor, labels: &Tensor, config: &HardCrossEntropy) -> Result<Tensor> {
    let shape = check_logits("hard_cross_entropy", "logits", logits)?;
    check_config("hard_cross_entropy", config, shape.1)?;
    if config.label_smoothing == 0.0 && config.class_weights.is_none() {
        return cross_entropy_rows(logits, labels);
    }
    read_labels("hard_cross_entropy", labels, shape)?;
    of_log_probs(&ops::log_softmax(&wide(logits)?)?, labels, config)?.to_dtype(logits.dtype())
}

/// [`hard_cross_entropy`] of a model that says logarithms of probabilities itself: `-log_probs[label]`.
///
/// The values are taken as they are, `torch.nn.functional.nll_loss`; of logits this is no likelihood, and nothing tells.
///
/// # Shapes
/// - `log_probs`: `(rows, classes)` float, `labels`: `(rows,)` u32
/// - returns a scalar of the dtype of `log_probs`, in nats times weight
///
/// # Errors
/// As [`hard_cross_entropy`].
///
/// ```
/// use candle_core::{Device, Tensor};
/// use kd_core::losses::{HardCrossEntropy, negative_log_likelihood};
/// let log_probs = Tensor::new(&[[0.25f64, 0.75]], &Device::Cpu)?.log()?;
/// let label = Tensor::new(&[1u32], &Device::Cpu)?;
/// let loss = negative_log_likelihood(&log_probs, &label, &HardCrossEntropy::default())?;
/// assert!((loss.to_scalar::<f64>()? + 0.75f64.ln()).abs() < 1e-12);
/// # Ok::<(), candle_core::Error>(())
/// ```
pub fn negative_log_likelihood(log_probs: &Tensor, labels: &Tensor, config: &HardCrossEntropy) -> Result<Tensor> {
    let rows = negative_log_likelihood_rows(log_probs, labels, config)?;
    divided("negative_log_likelihood", &rows, labels, log_probs, config)
}

/// [`negative_log_likelihood`] of each row, `(rows,)`, weighted and undivided.
///
/// # Errors
/// As there, but no rows are no error.
pub fn negative_log_likelihood_rows(log_probs: &Tensor, labels: &Tensor, config: &HardCrossEntropy) -> Result<Tensor> {
    let shape = check_logits("negative_log_likelihood", "log_probs", log_probs)?;
    check_config("negative_log_likelihood", config, shape.1)?;
    read_labels("negative_log_likelihood", labels, shape)?;
    of_log_probs(&wide(log_probs)?, labels, config)?.to_dtype(log_probs.dtype())
}

fn check_config(loss: &str, config: &HardCrossEntropy, classes: usize) -> Result<()> {
    let HardCrossEntropy { label_smoothing: smoothing, class_weights, divisor: _ } = config;
    if !(0.0..1.0).contains(smoothing) {
        bail!("{loss}: label smoothing {smoothing}, expected at least 0 and less than 1");
    }
    class_weights.as_ref().map_or(Ok(()), |weights| check_class_weights(loss, weights, classes))
}

/// Each row's weighted value of labels that are smoothed, from logarithms of probabilities that are not in half precision.
fn of_log_probs(log_probs: &Tensor, labels: &Tensor, config: &HardCrossEntropy) -> Result<Tensor> {
    let (_, classes) = log_probs.dims2()?;
    let labels = labels.to_device(log_probs.device())?;
    let mut terms = log_probs.neg()?;
    if let Some(weights) = &config.class_weights {
        let weights = Tensor::new(weights.as_slice(), log_probs.device())?.to_dtype(terms.dtype())?;
        terms = terms.broadcast_mul(&weights)?;
    }
    let hard = terms.gather(&labels.unsqueeze(1)?, 1)?.squeeze(1)?;
    if config.label_smoothing == 0.0 {
        return Ok(hard);
    }
    let even = terms.sum(D::Minus1)?;
    (hard * (1.0 - config.label_smoothing))? + (even * (config.label_smoothing / classes as f64))?
}

/// The mean of `rows` by the config's divisor; `logits` `(rows, classes)`.
fn divided(loss: &str, rows: &Tensor, labels: &Tensor, logits: &Tensor, config: &HardCrossEntropy) -> Result<Tensor> {
    let (Divisor::Weights, Some(weights)) = (config.divisor, &config.class_weights) else { return mean(rows) };
    let labels = read_labels(loss, labels, logits.dims2()?)?;
    let total: f64 = labels.into_iter().map(|label| weights[label as usize]).sum();
    if total == 0.0 {
        bail!("{loss}: the weights of all labels are 0, and their sum divides the mean");
    }
    rows.sum_all()?.affine(1.0 / total, 0.0)
}

/// Cross-entropy against a distribution, mean over rows.
///
/// `loss = -T² · mean_rows Σ_c p_c · log_softmax(z / T)_c`. The factor `T²` keeps the gradient's size
/// roughly independent of `T` (Hinton et al. 2015, §2); [`Temperature::unscaled`] leaves it out. The distribution is
/// taken as it is: a teacher's has been softened by `temperature.teacher` before, and
/// [`soft_cross_entropy_from_logits`] does that.
///
/// # Shapes
/// - `logits`: `(rows, classes)` float, `probs`: the same shape, each row sums to 1; detached
/// - returns a scalar of the dtype of `logits`
///
/// # Errors
/// If shapes or dtypes differ, if there are no rows, or if a temperature is not finite and positive.
///
/// ```
/// use candle_core::{Device, Tensor};
/// let logits = Tensor::new(&[[0f64, 3f64.ln()]], &Device::Cpu)?; // probabilities 1/4 and 3/4
/// let probs = Tensor::new(&[[0.5f64, 0.5]], &Device::Cpu)?;
/// let loss = kd_core::losses::soft_cross_entropy(&logits, &probs, 1.)?.to_scalar::<f64>()?;
/// assert!((loss + 0.5 * 0.25f64.ln() + 0.5 * 0.75f64.ln()).abs() < 1e-12);
/// # Ok::<(), candle_core::Error>(())
/// ```
pub fn soft_cross_entropy(logits: &Tensor, probs: &Tensor, temperature: impl Into<Temperature>) -> Result<Tensor> {
    mean(&soft_cross_entropy_rows(logits, probs, temperature)?)
}

/// [`soft_cross_entropy`] of each row, `(rows,)`.
///
/// # Errors
/// As there, but no rows are no error.
pub fn soft_cross_entropy_rows(logits: &Tensor, probs: &Tensor, temperature: impl Into<Temperature>) -> Result<Tensor> {
    pair("soft_cross_entropy", logits, probs)?;
    let temperature = temperature.into().check("soft_cross_entropy")?;
    let log_probs = ops::log_softmax(&(wide(logits)? / temperature.student)?)?;
    let rows = (wide(&probs.detach())? * log_probs)?.sum(D::Minus1)?;
    (rows * -temperature.factor())?.to_dtype(logits.dtype())
}

/// [`soft_cross_entropy`] against `softmax(teacher / T)`, mean over rows.
///
/// It is [`kl_divergence`](super::kl_divergence) plus `T²` times the entropy of the teacher, so its gradient is the same;
/// its value is not 0 where the two agree.
///
/// # Shapes
/// - both: `(rows, classes)` float; the teacher is detached
///
/// # Errors
/// As [`soft_cross_entropy`].
///
/// ```
/// use candle_core::{Device, Tensor};
/// let logits = Tensor::new(&[[0f64, 3f64.ln()]], &Device::Cpu)?; // probabilities 1/4 and 3/4
/// let loss = kd_core::losses::soft_cross_entropy_from_logits(&logits, &logits, 1.)?.to_scalar::<f64>()?;
/// assert!((loss + 0.25 * 0.25f64.ln() + 0.75 * 0.75f64.ln()).abs() < 1e-12); // the entropy
/// # Ok::<(), candle_core::Error>(())
/// ```
pub fn soft_cross_entropy_from_logits(
    student_logits: &Tensor,
    teacher_logits: &Tensor,
    temperature: impl Into<Temperature>,
) -> Result<Tensor> {
    mean(&soft_cross_entropy_from_logits_rows(student_logits, teacher_logits, temperature)?)
}

/// [`soft_cross_entropy_from_logits`] of each row, `(rows,)`.
///
/// # Errors
/// As there, but no rows are no error.
pub fn soft_cross_entropy_from_logits_rows(
    student_logits: &Tensor,
    teacher_logits: &Tensor,
    temperature: impl Into<Temperature>,
) -> Result<Tensor> {
    pair("soft_cross_entropy_from_logits", student_logits, teacher_logits)?;
    let temperature = temperature.into().check("soft_cross_entropy_from_logits")?;
    let probs = ops::softmax(&(wide(&teacher_logits.detach())? / temperature.teacher)?)?;
    let rows = soft_cross_entropy_rows(&wide(student_logits)?, &probs, temperature)?;
    rows.to_dtype(student_logits.dtype())
}
