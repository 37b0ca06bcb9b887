//! Relations between the positions of a sequence: how much each looks like each other.
//!
//! Of two projections `a` and `b` (queries, keys or values of one layer) with relation heads of width `d`,
//!
//! ```text
//! R_h = softmax(a_h b_hᵀ / √d) over the tokens      loss = 1/(heads · tokens) Σ_h Σ_query KL(R_teacher ‖ R_student)
//! ```
//!
//! (Wang et al. 2020, MiniLM, §3.1 and §3.2; 2021, MiniLMv2, §3.1.) A relation is between positions, so widths need not
//! agree, nor the models' numbers of attention heads: both sides are split anew into the same number of relation
//! heads. For the mask and why the row is an example see [`losses`](super#representations).

use candle_core::{D, Result, Tensor, bail};

use super::mean;
use super::token_mask::TokenMask;
use super::vectors::{check, wide_pair};
use crate::ops;

/// A score that takes a key of padding out of any softmax, and twice of which is still finite in `f32`.
const LOWEST: f64 = -1e30;

/// `KL(teacher's relation ‖ student's relation)` between `a` and `b`, mean over relation heads and the queries that are
/// tokens, then over examples; in nats.
///
/// A relation is `softmax(a_h b_hᵀ / √d)` over the tokens, of each relation head `h` of width `d`: both sides are split anew
/// into the same number of heads, whatever the models' attention heads. With `a` the queries and `b` the keys this is MiniLM's attention transfer, with both the values its value relation.
///
/// # Shapes
/// - `student`, `teacher`: the two projections `(a, b)` of each, `(batch, len, width)` float; the teacher is detached
///   and may have another width; `heads` divides both widths
/// - `mask`: `(batch, len)` u8, 0 on padding
/// - returns a scalar of the dtype of the student's `a`; half precision is computed in `f32`
///
/// # Errors
/// If shapes do not fit or `heads` does not divide a width.
///
/// ```
/// use candle_core::{Device, Tensor};
/// let at = |x: f64| Tensor::new(&[[[x], [0.]]], &Device::Cpu);
/// let (student, teacher) = (at(0.)?, at(3f64.ln().sqrt())?); // relations (1/2, 1/2) and, of the first, (3/4, 1/4)
/// let mask = Tensor::new(&[[1u8, 1]], &Device::Cpu)?;
/// let loss = kd_core::losses::relation_kl((&student, &student), (&teacher, &teacher), 1, &mask)?.to_scalar::<f64>()?;
/// assert!((loss - (0.75 * 1.5f64.ln() + 0.25 * 0.5f64.ln()) / 2.).abs() < 1e-12);
/// # Ok::<(), candle_core::Error>(())
/// ```
pub fn relation_kl(
    student: (&Tensor, &Tensor),
    teacher: (&Tensor, &Tensor),
    heads: usize,
    mask: &Tensor,
) -> Result<Tensor> {
    mean(&relation_kl_rows(student, teacher, heads, mask)?)
}

/// [`relation_kl`] of each example: the mean over relation heads and its queries, `(batch,)`.
pub fn relation_kl_rows(
    student: (&Tensor, &Tensor),
    teacher: (&Tensor, &Tensor),
    heads: usize,
    mask: &Tensor,
) -> Result<Tensor> {
    const LOSS: &str = "relation_kl";
    for (a, b) in [student, teacher] {
        check(LOSS, "(batch, len, width)", 3, false, a, b)?;
    }
    check(LOSS, "(batch, len, width)", 3, true, student.0, teacher.0)?;
    let (batch, len, _) = student.0.dims3()?;
    let (student_a, teacher_a) = wide_pair(LOSS, student.0, teacher.0)?;
    let (student_b, teacher_b) = wide_pair(LOSS, student.1, teacher.1)?;
    let tokens = TokenMask::new(LOSS, mask, batch, len, student_a.dtype())?;
    let s = log_relation("student", &student_a, &student_b, heads, &tokens)?;
    let t = log_relation("teacher", &teacher_a, &teacher_b, heads, &tokens)?;
    let divergence = (t.exp()? * (&t - s)?)?.sum_keepdim(D::Minus1)?; // (batch, heads, len, 1)
    let sum = tokens.keep_queries(&divergence, 0.0)?.flatten_from(1)?.sum(1)?;
    (sum / (tokens.counts()? * heads as f64)?)?.to_dtype(student.0.dtype())
}

/// Mean of [`relation_kl`] over the query-query, key-key and value-value relations.
///
/// MiniLMv2's loss with its weights of 1/3 (Wang et al. 2021). The paper matches one layer only: the student's last with
/// the last of base-size teachers or an upper middle one of large teachers, and takes 48 to 64 relation heads.
///
/// # Shapes
/// - `student`, `teacher`: queries, keys and values of one layer each, before they are split into heads,
///   `(batch, len, width)` float; the teacher is detached and may have another width
/// - as [`relation_kl`] otherwise
///
/// # Errors
/// As [`relation_kl`].
///
/// ```
/// use candle_core::{Device, Tensor};
/// use kd_core::losses;
/// let at = |x: f64| Tensor::new(&[[[x], [0.]]], &Device::Cpu);
/// let (zero, far) = (at(0.)?, at(3.)?);
/// let mask = Tensor::new(&[[1u8, 1]], &Device::Cpu)?;
/// let one = losses::relation_kl((&zero, &zero), (&far, &far), 1, &mask)?.to_scalar::<f64>()?;
/// let three = losses::self_relations_kl([&zero; 3], [&zero, &zero, &far], 1, &mask)?.to_scalar::<f64>()?;
/// assert!((three - one / 3.).abs() < 1e-12);
/// # Ok::<(), candle_core::Error>(())
/// ```
pub fn self_relations_kl(student: [&Tensor; 3], teacher: [&Tensor; 3], heads: usize, mask: &Tensor) -> Result<Tensor> {
    mean(&self_relations_kl_rows(student, teacher, heads, mask)?)
}

/// [`self_relations_kl`] of each example, `(batch,)`.
pub fn self_relations_kl_rows(
    student: [&Tensor; 3],
    teacher: [&Tensor; 3],
    heads: usize,
    mask: &Tensor,
) -> Result<Tensor> {
    let [queries, keys, values] =
        [0, 1, 2].map(|idx| relation_kl_rows((student[idx], student[idx]), (teacher[idx], teacher[idx]), heads, mask));
    ((queries? + keys?)? + values?)? * (1.0 / 3.0)
}

/// `log softmax(a bᵀ / √d)` of each relation head over the keys that are tokens, `(batch, heads, len, len)`.
fn log_relation(owner: &str, a: &Tensor, b: &Tensor, heads: usize, tokens: &TokenMask) -> Result<Tensor> {
    let (batch, len, width) = a.dims3()?;
    if heads == 0 || !width.is_multiple_of(heads) {
        bail!("relation_kl: expected a number of heads that divides the {owner}'s width {width}, found {heads}");
    }
    let head_width = width / heads;
    let split = |x: &Tensor| {
        x.reshape((batch, len, heads, head_width))?.transpose(1, 2)?.contiguous()?.reshape((
            batch * heads,
            len,
            head_width,
        ))
    };
    let scores = (split(&tokens.keep_rows(a)?)?.matmul(&split(&tokens.keep_rows(b)?)?.t()?)?
        * (1.0 / (head_width as f64).sqrt()))?; // (batch · heads, len, len)
    ops::log_softmax(&tokens.keep_keys(&scores.reshape((batch, heads, len, len))?, LOWEST)?)
}
