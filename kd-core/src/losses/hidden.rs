//! Hidden states of a student against those of its teacher, row by row.
//!
//! | function                | value of a row        | source                                  |
//! |-------------------------|-----------------------|-----------------------------------------|
//! | [`hidden_mse`]          | `1/d · \|s - t\|²`    | Romero et al. 2015, §2.2; TinyBERT, eq. 8 |
//! | [`hidden_cosine`]       | `1 - cos(s, t)`       | Sanh et al. 2019, §2                    |
//! | [`normalised_distance`] | `\|s/\|s\| - t/\|t\|\|²` | Sun et al. 2019, eq. 7               |
//! | [`first_token_distance`]| the same, summed over mapped layers | Sun et al. 2019, eq. 7    |
//!
//! States are `(rows, width)`. Of a padded batch, `(batch, len, width)`, the rows that count are selected first:
//! [`Sequence::token_rows`](crate::batch::Sequence::token_rows) finds them once per batch, and
//! [`Rows::select`](crate::batch::Rows::select) takes them out of any layer. Where the widths differ, a [`Projection`]
//! brings the student's to the teacher's; it is trained with the student and not needed afterwards.
//!
//! ```
//! use candle_core::{DType, Device};
//! use kd_core::{batch, losses, testing::random, variables::Variables};
//! let sequence = batch::pad(&[vec![5, 6, 7], vec![8]], &Device::Cpu)?;
//! let (student, teacher) = (random(1, (2, 3, 4))?, random(2, (2, 3, 6))?);
//! let projection = losses::Projection::new(4, 6, Variables::new(7, DType::F64, &Device::Cpu).builder())?;
//! let rows = sequence.token_rows()?; // four tokens, two positions of padding
//! let student = projection.forward(&rows.select(&student)?)?;
//! assert_eq!(losses::hidden_mse_rows(&student, &rows.select(&teacher)?)?.dims(), [4]);
//! # Ok::<(), candle_core::Error>(())
//! ```

use candle_core::{D, Result, Tensor, bail};
use candle_nn::VarBuilder;

use super::mean;
use super::unit::unit;
use super::vectors::{check, wide_pair};
use crate::model::Output;
use crate::nn::Linear;

/// `s W`: a learned map from the student's width to the teacher's, without a bias (Jiao et al. 2020, eq. 8).
///
/// | variable | shape | start |
/// |---|---|---|
/// | `weight` | `(teacher width, student width)` | as [`Linear::without_bias`] |
#[derive(Debug, Clone)]
pub struct Projection {
    linear: Linear,
}

impl Projection {
    /// A projection whose variable comes from `vb`; it has to be among the variables that are trained.
    ///
    /// # Errors
    /// If `vb` has a variable of another shape.
    pub fn new(student_width: usize, teacher_width: usize, vb: VarBuilder<'_>) -> Result<Self> {
        Ok(Self { linear: Linear::without_bias(student_width, teacher_width, vb)? })
    }

    /// `(.., student width)` → `(.., teacher width)`.
    ///
    /// # Errors
    /// If the last dimension is not the student's width.
    pub fn forward(&self, student: &Tensor) -> Result<Tensor> {
        self.linear.forward(student)
    }
}

/// Squared difference of hidden states, mean over rows and width (units of the states, squared).
///
/// # Shapes
/// - both: `(rows, width)` float; the teacher is detached
/// - returns a scalar of the student's dtype; half precision is computed in `f32`
///
/// # Errors
/// If the shapes differ or there are no rows.
///
/// ```
/// use candle_core::{Device, Tensor};
/// let student = Tensor::new(&[[1f64, 2.], [0., 0.]], &Device::Cpu)?;
/// let teacher = Tensor::new(&[[1f64, 4.], [0., 2.]], &Device::Cpu)?;
/// let loss = kd_core::losses::hidden_mse(&student, &teacher)?.to_scalar::<f64>()?;
/// assert_eq!(loss, (0. + 4. + 0. + 4.) / 4.);
/// # Ok::<(), candle_core::Error>(())
/// ```
pub fn hidden_mse(student: &Tensor, teacher: &Tensor) -> Result<Tensor> {
    mean(&hidden_mse_rows(student, teacher)?)
}

/// [`hidden_mse`] of each row: the mean over its width, `(rows,)`.
pub fn hidden_mse_rows(student: &Tensor, teacher: &Tensor) -> Result<Tensor> {
    let (s, t) = states("hidden_mse", student, teacher)?;
    (s - t)?.sqr()?.mean(D::Minus1)?.to_dtype(student.dtype())
}

/// `1 - cos(student, teacher)`, mean over rows; in `[0, 2]`.
///
/// Neither side's length matters. A zero vector has no direction: its row is 1 and gets no gradient.
///
/// # Shapes
/// - both: `(rows, width)` float; the teacher is detached
/// - returns a scalar of the student's dtype; half precision is computed in `f32`
///
/// # Errors
/// If the shapes differ or there are no rows.
///
/// ```
/// use candle_core::{Device, Tensor};
/// let student = Tensor::new(&[[2f64, 0.], [3., 4.]], &Device::Cpu)?;
/// let teacher = Tensor::new(&[[0f64, 1.], [1., 0.]], &Device::Cpu)?; // cosines 0 and 3/5
/// let loss = kd_core::losses::hidden_cosine(&student, &teacher)?.to_scalar::<f64>()?;
/// assert!((loss - (1. + 0.4) / 2.).abs() < 1e-12);
/// # Ok::<(), candle_core::Error>(())
/// ```
pub fn hidden_cosine(student: &Tensor, teacher: &Tensor) -> Result<Tensor> {
    mean(&hidden_cosine_rows(student, teacher)?)
}

/// [`hidden_cosine`] of each row, `(rows,)`.
pub fn hidden_cosine_rows(student: &Tensor, teacher: &Tensor) -> Result<Tensor> {
    let (s, t) = states("hidden_cosine", student, teacher)?;
    let cosine = (unit(&s)? * unit(&t)?)?.sum(D::Minus1)?;
    cosine.affine(-1.0, 1.0)?.to_dtype(student.dtype())
}

/// Squared distance of the normalised states, `|s/|s| - t/|t||²`, mean over rows; in `[0, 4]`.
///
/// The square is summed over the width, as in Sun et al. 2019, eq. 7; for vectors that are not zero it is twice
/// [`hidden_cosine`]. A zero vector stays zero and gets no gradient.
///
/// # Shapes
/// - both: `(rows, width)` float; the teacher is detached
/// - returns a scalar of the student's dtype; half precision is computed in `f32`
///
/// # Errors
/// If the shapes differ or there are no rows.
///
/// ```
/// use candle_core::{Device, Tensor};
/// let student = Tensor::new(&[[2f64, 0.]], &Device::Cpu)?;
/// let teacher = Tensor::new(&[[0f64, 3.]], &Device::Cpu)?;
/// let loss = kd_core::losses::normalised_distance(&student, &teacher)?.to_scalar::<f64>()?;
/// assert_eq!(loss, 2.); // from (1, 0) to (0, 1)
/// # Ok::<(), candle_core::Error>(())
/// ```
pub fn normalised_distance(student: &Tensor, teacher: &Tensor) -> Result<Tensor> {
    mean(&normalised_distance_rows(student, teacher)?)
}

/// [`normalised_distance`] of each row, `(rows,)`.
pub fn normalised_distance_rows(student: &Tensor, teacher: &Tensor) -> Result<Tensor> {
    let (s, t) = states("normalised_distance", student, teacher)?;
    (unit(&s)? - unit(&t)?)?.sqr()?.sum(D::Minus1)?.to_dtype(student.dtype())
}

/// [`normalised_distance`] of the first tokens' states (`[CLS]`), summed over mapped layers, mean over examples.
///
/// The intermediate-layer loss of patient distillation (Sun et al. 2019, eq. 7). The paper leaves the last layer out,
/// because the logits come from it: its `skip` for 6 layers of 12 is the list `[1, 2], [2, 4], .. [5, 10]`.
///
/// # Shapes
/// - `student.hidden`, `teacher.hidden`: `(batch, len, width)` each, the embeddings first; the teacher is detached
/// - `pairs`: (student, teacher) indices into them, from [`LayerMap::pairs`](super::LayerMap::pairs)
/// - returns a scalar of the student's dtype
///
/// # Errors
/// If there are no pairs, a layer is missing or shapes differ.
///
/// ```
/// use candle_core::{Device, Tensor};
/// use kd_core::{losses, model::Output};
/// let output = |x: [f64; 2]| -> Result<Output, candle_core::Error> {
///     Ok(Output { hidden: vec![Tensor::new(&[[x, [7., 7.]]], &Device::Cpu)?], ..Output::default() })
/// };
/// let loss = losses::first_token_distance(&output([2., 0.])?, &output([0., 3.])?, &[(0, 0)])?;
/// assert_eq!(loss.to_scalar::<f64>()?, 2.);
/// # Ok::<(), candle_core::Error>(())
/// ```
pub fn first_token_distance(student: &Output, teacher: &Output, pairs: &[(usize, usize)]) -> Result<Tensor> {
    mean(&first_token_distance_rows(student, teacher, pairs)?)
}

/// [`first_token_distance`] of each example, `(batch,)`.
pub fn first_token_distance_rows(student: &Output, teacher: &Output, pairs: &[(usize, usize)]) -> Result<Tensor> {
    let mut sum: Option<Tensor> = None;
    for &(student_idx, teacher_idx) in pairs {
        let student = layer("first_token_distance", "student", "hidden state", &student.hidden, student_idx)?;
        let teacher = layer("first_token_distance", "teacher", "hidden state", &teacher.hidden, teacher_idx)?;
        let first = |hidden: &Tensor| crate::batch::Rows::Examples.select(hidden);
        let rows = normalised_distance_rows(&first(student)?, &first(teacher)?)?;
        sum = Some(match sum {
            Some(sum) => (sum + rows)?,
            None => rows,
        });
    }
    match sum {
        Some(sum) => Ok(sum),
        None => bail!("first_token_distance: expected pairs of layers, found none"),
    }
}

/// The tensor of one layer, or an error that says whose is missing.
pub(super) fn layer<'a>(loss: &str, owner: &str, what: &str, layers: &'a [Tensor], idx: usize) -> Result<&'a Tensor> {
    match layers.get(idx) {
        Some(layer) => Ok(layer),
        None => bail!("{loss}: the {owner} has {} {what}s, number {idx} (from 0) was asked for", layers.len()),
    }
}

fn states(loss: &str, student: &Tensor, teacher: &Tensor) -> Result<(Tensor, Tensor)> {
    check(loss, "(rows, width)", 2, false, student, teacher)?;
    wide_pair(loss, student, teacher)
}
