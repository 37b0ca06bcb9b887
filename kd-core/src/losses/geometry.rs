//! The shape that a batch of representations makes: distances of pairs, angles of triples.
//!
//! | function                  | compares                             | source                  |
//! |---------------------------|--------------------------------------|-------------------------|
//! | [`relational_distance`]   | `\|x_i - x_j\| / μ`, `μ` the mean distance | Park et al. 2019, §3.2.1 |
//! | [`relational_angle`]      | `cos ∠(x_i, x_j, x_k)` at `x_j`      | Park et al. 2019, §3.2.2 |
//! | [`similarity_preserving`] | rows of `Q Qᵀ`, normalised           | Tung and Mori 2019, §3 |
//!
//! These are relations between the rows of a batch and no sums over rows: a value depends on which rows stand together,
//! so there is no `*_rows` form. Student and teacher may have different widths. No rotation of either changes a value;
//! a scale changes none of the first two, and of the third none that is common to all rows.
//!
//! Rows that coincide have distance 0, an angle there has cosine 0, and both get no gradient instead of a NaN.

use candle_core::{D, Result, Tensor, bail};

use super::unit::unit;
use super::vectors::{check, lengths, wide_pair};
use crate::ops;

/// The Huber loss (δ = 1) between the student's and the teacher's pairwise distances, each divided by its own mean;
/// mean over the `n(n - 1)` ordered pairs (Park et al. 2019, §3.2.1).
///
/// A relation between the rows of the batch, without a value per row. Rotations and scales of either side change nothing.
///
/// # Shapes
/// - `student`, `teacher`: `(rows, width)` float, at least 2 rows, each with its own width; the teacher is detached
/// - returns a scalar of the student's dtype; half precision is computed in `f32`
/// - memory: `rows² · width` values, because differences of nearly equal rows would drown in `|x|² + |y|² - 2xᵀy`
///
/// # Errors
/// If the numbers of rows differ or are below 2.
///
/// ```
/// use candle_core::{Device, Tensor};
/// let student = Tensor::new(&[[0f64], [1.], [2.]], &Device::Cpu)?; // distances 1, 1, 2 and their mean 4/3
/// let teacher = Tensor::new(&[[0f64], [2.], [0.]], &Device::Cpu)?; // 2, 2, 0 and again 4/3
/// let loss = kd_core::losses::relational_distance(&student, &teacher)?.to_scalar::<f64>()?;
/// let by_hand = (2. * 0.5 * 0.75f64.powi(2) + (1.5 - 0.5)) / 3.; // differences 3/4, 3/4 and 3/2
/// assert!((loss - by_hand).abs() < 1e-12);
/// # Ok::<(), candle_core::Error>(())
/// ```
pub fn relational_distance(student: &Tensor, teacher: &Tensor) -> Result<Tensor> {
    let (s, t) = examples("relational_distance", 2, student, teacher)?;
    let rows = s.dim(0)?;
    let pairs = rows * (rows - 1);
    let relative = |x: &Tensor| {
        let distances = lengths(&differences(x)?)?.squeeze(D::Minus1)?; // (rows, rows)
        let mean = (distances.sum_all()? / pairs as f64)?;
        // If all rows coincide, their relative distances are 0 too.
        distances.broadcast_div(&(&mean + mean.eq(0f64)?.to_dtype(mean.dtype())?)?)
    };
    (huber(&(relative(&s)? - relative(&t)?)?)?.sum_all()? / pairs as f64)?.to_dtype(student.dtype())
}

/// The Huber loss (δ = 1) between the cosines of the student's and the teacher's angles; mean over the
/// `n(n - 1)(n - 2)` ordered triples (Park et al. 2019, §3.2.2).
///
/// A relation between the rows of the batch, without a value per row. Rotations and scales of either side change nothing.
/// At rows that coincide the cosine is 0.
///
/// # Shapes
/// - `student`, `teacher`: `(rows, width)` float, at least 3 rows, each with its own width; the teacher is detached
/// - returns a scalar of the student's dtype; half precision is computed in `f32`
/// - memory: `rows² · (width + rows)` values
///
/// # Errors
/// If the numbers of rows differ or are below 3.
///
/// ```
/// use candle_core::{Device, Tensor};
/// let student = Tensor::new(&[[0f64, 0.], [1., 0.], [0., 1.]], &Device::Cpu)?; // 90°, 45°, 45°
/// let teacher = Tensor::new(&[[0f64, 0.], [1., 0.], [2., 0.]], &Device::Cpu)?; // 0°, 180°, 0°
/// let loss = kd_core::losses::relational_angle(&student, &teacher)?.to_scalar::<f64>()?;
/// let root = 0.5f64.sqrt();
/// assert!((loss - (0.5 + (1. + root - 0.5) + 0.5 * (1. - root).powi(2)) / 3.).abs() < 1e-12);
/// # Ok::<(), candle_core::Error>(())
/// ```
pub fn relational_angle(student: &Tensor, teacher: &Tensor) -> Result<Tensor> {
    let (s, t) = examples("relational_angle", 3, student, teacher)?;
    let rows = s.dim(0)?;
    let cosines = |x: &Tensor| {
        let directions = unit(&differences(x)?)?; // (vertex, other, width)
        directions.matmul(&directions.t()?) // (vertex, other, other)
    };
    // i = k is an angle of a pair with itself; i = j or k = j is a zero vector on both sides.
    let distinct = Tensor::eye(rows, s.dtype(), s.device())?.affine(-1.0, 1.0)?.unsqueeze(0)?;
    let difference = (cosines(&s)? - cosines(&t)?)?.broadcast_mul(&distinct)?;
    let triples = rows * (rows - 1) * (rows - 2);
    (huber(&difference)?.sum_all()? / triples as f64)?.to_dtype(student.dtype())
}

/// Squared difference of the batch's similarity matrices, mean over their `rows²` cells.
///
/// The similarity matrix is `Q Qᵀ` with each row divided by its length (Tung and Mori 2019, §3): a relation between
/// the rows of the batch, without a value per row. Rotations and scales of either side change nothing.
///
/// # Shapes
/// - `student`, `teacher`: `(rows, width)` float, at least 2 rows, each with its own width; the teacher is detached
/// - returns a scalar of the student's dtype; half precision is computed in `f32`
///
/// # Errors
/// If the numbers of rows differ or are below 2: one row is similar to itself, whatever it is.
///
/// ```
/// use candle_core::{Device, Tensor};
/// let student = Tensor::new(&[[1f64, 0.], [0., 5.]], &Device::Cpu)?; // rows (1, 0) and (0, 1)
/// let teacher = Tensor::new(&[[3f64], [4.]], &Device::Cpu)?; // rows (9, 12) / 15 and (12, 16) / 20
/// let loss = kd_core::losses::similarity_preserving(&student, &teacher)?.to_scalar::<f64>()?;
/// assert!((loss - (0.4f64.powi(2) + 0.8f64.powi(2) + 0.6f64.powi(2) + 0.2f64.powi(2)) / 4.).abs() < 1e-12);
/// # Ok::<(), candle_core::Error>(())
/// ```
pub fn similarity_preserving(student: &Tensor, teacher: &Tensor) -> Result<Tensor> {
    let (s, t) = examples("similarity_preserving", 2, student, teacher)?;
    let similarity = |x: &Tensor| unit(&ops::linear(x, x, None)?);
    (similarity(&s)? - similarity(&t)?)?.sqr()?.mean_all()?.to_dtype(student.dtype())
}

/// `x_j - x_i` at `[i, j]`, `(rows, rows, width)`.
fn differences(x: &Tensor) -> Result<Tensor> {
    x.unsqueeze(0)?.broadcast_sub(&x.unsqueeze(1)?)
}

/// `x² / 2` up to 1 and `|x| - 1/2` above.
fn huber(x: &Tensor) -> Result<Tensor> {
    let size = x.abs()?;
    let inner = size.minimum(1.0)?;
    (inner.sqr()? * 0.5)? + (size - inner)?
}

fn examples(loss: &str, least: usize, student: &Tensor, teacher: &Tensor) -> Result<(Tensor, Tensor)> {
    check(loss, "(rows, width)", 2, true, student, teacher)?;
    let rows = student.dim(0)?;
    if rows < least {
        bail!("{loss}: expected at least {least} rows, found {rows}");
    }
    wide_pair(loss, student, teacher)
}
