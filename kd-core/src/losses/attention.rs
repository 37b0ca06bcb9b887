//! Attention of a student against that of its teacher.
//!
//! | function           | compares              | source                                |
//! |--------------------|-----------------------|---------------------------------------|
//! | [`attention_mse`]  | scores or probabilities | Jiao et al. 2020 (TinyBERT), eq. 7  |
//! | [`attention_kl`]   | probabilities         | Sun et al. 2020 (MobileBERT), §3.4    |
//!
//! For the mask and why the row is an example see [`losses`](super#representations).
//!
//! Teacher and student need the same number of heads; where they differ, [`relation_kl`](super::relation_kl) splits
//! both anew.

use candle_core::{D, DType, Result, Tensor};

use super::mean;
use super::token_mask::TokenMask;
use super::vectors::{check, wide_pair};

/// Squared difference of attention, mean over heads and the cells between tokens, then over examples.
///
/// TinyBERT compares the scores `q kᵀ / √d` before the softmax and found that better than probabilities; this takes
/// either. What stands on padding, be it `-inf` or NaN, does not matter. Both sides need the same number of heads;
/// [`relation_kl`](super::relation_kl) does not.
///
/// # Shapes
/// - both: `(batch, heads, len, len)` float, queries before keys; the teacher is detached
/// - `mask`: `(batch, len)` u8, 0 on padding
/// - returns a scalar of the student's dtype; half precision is computed in `f32`
///
/// # Errors
/// If shapes differ or the mask does not fit.
///
/// ```
/// use candle_core::{Device, Tensor};
/// let student = Tensor::new(&[[[[1f64, 3., 9.], [2., 2., 9.], [9., 9., 9.]]]], &Device::Cpu)?;
/// let teacher = Tensor::new(&[[[[1f64, 1., 0.], [2., 4., 0.], [0., 0., 0.]]]], &Device::Cpu)?;
/// let mask = Tensor::new(&[[1u8, 1, 0]], &Device::Cpu)?;
/// let loss = kd_core::losses::attention_mse(&student, &teacher, &mask)?.to_scalar::<f64>()?;
/// assert_eq!(loss, (0. + 4. + 0. + 4.) / 4.);
/// # Ok::<(), candle_core::Error>(())
/// ```
pub fn attention_mse(student: &Tensor, teacher: &Tensor, mask: &Tensor) -> Result<Tensor> {
    mean(&attention_mse_rows(student, teacher, mask)?)
}

/// [`attention_mse`] of each example: the mean over its heads, queries and keys, `(batch,)`.
pub fn attention_mse_rows(student: &Tensor, teacher: &Tensor, mask: &Tensor) -> Result<Tensor> {
    let (s, t, tokens, heads) = maps("attention_mse", student, teacher, mask)?;
    let difference = tokens.keep_queries(&tokens.keep_keys(&(s - t)?, 0.0)?, 0.0)?;
    let sum = difference.sqr()?.flatten_from(1)?.sum(1)?; // (batch,)
    (sum / (tokens.counts()?.sqr()? * heads as f64)?)?.to_dtype(student.dtype())
}

/// `KL(teacher ‖ student)` of attention probabilities, mean over heads and the queries that are tokens, then over
/// examples; in nats.
///
/// Keys of padding are left out: their probability is 0 on both sides. A probability below the smallest normal number
/// of its dtype counts as that number, so the divergence is finite.
///
/// # Shapes
/// - both: `(batch, heads, len, len)` float, queries before keys, sums of 1 over the keys that are tokens, as
///   [`ops::attention_probs`](crate::ops::attention_probs) and [`Output::attention`](crate::model::Output) have them;
///   the teacher is detached
/// - `mask`: `(batch, len)` u8, 0 on padding
/// - returns a scalar of the student's dtype; half precision is computed in `f32`
///
/// # Errors
/// If shapes differ or the mask does not fit.
///
/// ```
/// use candle_core::{Device, Tensor};
/// let student = Tensor::new(&[[[[0.5f64, 0.5], [0.5, 0.5]]]], &Device::Cpu)?;
/// let teacher = Tensor::new(&[[[[1f64, 0.], [0.5, 0.5]]]], &Device::Cpu)?;
/// let mask = Tensor::new(&[[1u8, 1]], &Device::Cpu)?;
/// let loss = kd_core::losses::attention_kl(&student, &teacher, &mask)?.to_scalar::<f64>()?;
/// assert!((loss - (2f64.ln() + 0.) / 2.).abs() < 1e-12); // two queries
/// # Ok::<(), candle_core::Error>(())
/// ```
pub fn attention_kl(student_probs: &Tensor, teacher_probs: &Tensor, mask: &Tensor) -> Result<Tensor> {
    mean(&attention_kl_rows(student_probs, teacher_probs, mask)?)
}

/// [`attention_kl`] of each example: the mean over its heads and queries, `(batch,)`.
pub fn attention_kl_rows(student_probs: &Tensor, teacher_probs: &Tensor, mask: &Tensor) -> Result<Tensor> {
    let (s, t, tokens, heads) = maps("attention_kl", student_probs, teacher_probs, mask)?;
    let smallest = match s.dtype() {
        DType::F64 => f64::MIN_POSITIVE,
        _ => f64::from(f32::MIN_POSITIVE),
    };
    // What stands on padding is replaced before the logarithm, because no gradient survives a NaN behind it.
    let cells = |probs: &Tensor| tokens.keep_queries(&tokens.keep_keys(probs, 1.0)?, 1.0);
    let (s, t) = (cells(&s)?, cells(&t)?);
    let logs = |probs: &Tensor| probs.maximum(smallest)?.log();
    let divergence = (&t * (logs(&t)? - logs(&s)?)?)?; // 1 · (ln 1 - ln 1) = 0 on padding
    let sum = divergence.sum(D::Minus1)?.flatten_from(1)?.sum(1)?; // (batch,)
    (sum / (tokens.counts()? * heads as f64)?)?.to_dtype(student_probs.dtype())
}

fn maps(loss: &str, student: &Tensor, teacher: &Tensor, mask: &Tensor) -> Result<(Tensor, Tensor, TokenMask, usize)> {
    check(loss, "(batch, heads, len, len)", 4, false, student, teacher)?;
    let (batch, heads, len, keys) = student.dims4()?;
    if len != keys {
        candle_core::bail!("{loss}: expected as many queries as keys, found {:?}", student.dims());
    }
    let (student, teacher) = wide_pair(loss, student, teacher)?;
    let tokens = TokenMask::new(loss, mask, batch, len, student.dtype())?;
    Ok((student, teacher, tokens, heads))
}
