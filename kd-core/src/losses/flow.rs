//! How features change from one layer to a later one.
//!
//! `G = 1/tokens · Σ_token f_token g_tokenᵀ` is the Gram matrix between two layers' features, "the flow of the solution
//! procedure"; the student's should be the teacher's (Yim et al. 2017, eq. 1 and 2). With one layer as both, it is the
//! Gram matrix of that layer. Positions of a picture are tokens of a sequence here.
//!
//! For the mask and why the row is an example see [`losses`](super#representations).

use candle_core::{Result, Tensor};

use super::mean;
use super::token_mask::TokenMask;
use super::vectors::{check, wide_pair};

/// Squared difference of the flow matrices `1/tokens · Σ_token early_token late_tokenᵀ`, mean over their cells, then over
/// examples (Yim et al. 2017, eq. 1 and 2).
///
/// The paper sums over cells and has a weight; here the mean keeps the value's size independent of the widths.
///
/// # Shapes
/// - `student`, `teacher`: features of an earlier and a later layer of each, `(batch, len, width)` float; the widths of
///   the two layers may differ, those of student and teacher may not; the teacher is detached
/// - `mask`: `(batch, len)` u8, 0 on padding
/// - returns a scalar of the dtype of the student's earlier layer; half precision is computed in `f32`
///
/// # Errors
/// If shapes do not fit.
///
/// ```
/// use candle_core::{Device, Tensor};
/// let early = Tensor::new(&[[[1f64], [2.]]], &Device::Cpu)?;
/// let (late, later) = (Tensor::new(&[[[3f64], [4.]]], &Device::Cpu)?, Tensor::new(&[[[3f64], [5.]]], &Device::Cpu)?);
/// let mask = Tensor::new(&[[1u8, 1]], &Device::Cpu)?;
/// let loss = kd_core::losses::flow_mse((&early, &late), (&early, &later), &mask)?.to_scalar::<f64>()?;
/// assert_eq!(loss, ((3. + 8.) / 2. - (3. + 10.) / 2f64).powi(2));
/// # Ok::<(), candle_core::Error>(())
/// ```
pub fn flow_mse(student: (&Tensor, &Tensor), teacher: (&Tensor, &Tensor), mask: &Tensor) -> Result<Tensor> {
    mean(&flow_mse_rows(student, teacher, mask)?)
}

/// [`flow_mse`] of each example, `(batch,)`.
pub fn flow_mse_rows(student: (&Tensor, &Tensor), teacher: (&Tensor, &Tensor), mask: &Tensor) -> Result<Tensor> {
    const LOSS: &str = "flow_mse";
    check(LOSS, "(batch, len, width)", 3, true, student.0, student.1)?;
    check(LOSS, "(batch, len, width)", 3, false, student.0, teacher.0)?;
    check(LOSS, "(batch, len, width)", 3, false, student.1, teacher.1)?;
    let (batch, len, _) = student.0.dims3()?;
    let (student_early, teacher_early) = wide_pair(LOSS, student.0, teacher.0)?;
    let (student_late, teacher_late) = wide_pair(LOSS, student.1, teacher.1)?;
    let tokens = TokenMask::new(LOSS, mask, batch, len, student_early.dtype())?;
    let counts = tokens.counts()?.reshape((batch, 1, 1))?;
    let flow = |early: &Tensor, late: &Tensor| {
        let early = tokens.keep_rows(early)?.transpose(1, 2)?.contiguous()?;
        early.matmul(&tokens.keep_rows(late)?)?.broadcast_div(&counts) // (batch, early width, late width)
    };
    let difference = (flow(&student_early, &student_late)? - flow(&teacher_early, &teacher_late)?)?;
    difference.sqr()?.flatten_from(1)?.mean(1)?.to_dtype(student.0.dtype())
}
