//! Losses of two or three outputs that shall lie near, apart or in order.

use candle_core::{D, Result, Tensor};
use serde::{Deserialize, Serialize};

use super::mean;
use super::preconditions::{number, pair, positive, signs as read_signs, wide};
use super::unit::unit;
use super::vectors::lengths;

/// `max(0, margin - y (x₁ - x₂))` of signs `y`, mean over rows and columns: where the sign is 1 the first shall be larger by
/// `margin`, where it is -1 the second.
///
/// # Shapes
/// - `first`, `second`: `(rows, columns)` float; `signs`: `(rows,)` of their dtype, 1 or -1; detached
/// - returns a scalar of their dtype, differentiable in both
///
/// # Errors
/// If shapes or dtypes do not fit, there are no rows, or the margin is not finite.
///
/// ```
/// use candle_core::{Device, Tensor};
/// let (first, second) = (Tensor::new(&[[1f64], [1.]], &Device::Cpu)?, Tensor::new(&[[3f64], [0.]], &Device::Cpu)?);
/// let signs = Tensor::new(&[1f64, 1.], &Device::Cpu)?;
/// let loss = kd_core::losses::margin_ranking(&first, &second, &signs, 0.5)?;
/// assert_eq!(loss.to_scalar::<f64>()?, 1.25); // (2.5 + 0) / 2
/// # Ok::<(), candle_core::Error>(())
/// ```
pub fn margin_ranking(first: &Tensor, second: &Tensor, signs: &Tensor, margin: f64) -> Result<Tensor> {
    mean(&margin_ranking_rows(first, second, signs, margin)?)
}

/// [`margin_ranking`] of each row: the mean over its columns, `(rows,)`.
///
/// # Errors
/// As there, but no rows are no error.
pub fn margin_ranking_rows(first: &Tensor, second: &Tensor, signs: &Tensor, margin: f64) -> Result<Tensor> {
    pair("margin_ranking", first, second)?;
    number("margin_ranking", "margin", margin, "a finite value", true)?;
    let signs = read_signs("margin_ranking", signs, first)?.unsqueeze(1)?;
    let ahead = (wide(first)? - wide(second)?)?.broadcast_mul(&signs)?;
    positive(&ahead.affine(-1.0, margin)?)?.mean(D::Minus1)?.to_dtype(first.dtype())
}

/// `1 - cos(x₁, x₂)` where the sign is 1, `max(0, cos(x₁, x₂) - margin)` where it is -1, mean over rows.
///
/// A row of zeros has no direction: its cosine is 0 and its gradient 0.
///
/// # Shapes
/// - `first`, `second`: `(rows, width)` float; `signs`: `(rows,)` of their dtype, 1 or -1; detached
/// - returns a scalar of their dtype, differentiable in both
///
/// # Errors
/// If shapes or dtypes do not fit, there are no rows, or the margin is not in `[-1, 1]`.
///
/// ```
/// use candle_core::{Device, Tensor};
/// let first = Tensor::new(&[[1f64, 0.], [1., 0.]], &Device::Cpu)?;
/// let second = Tensor::new(&[[3f64, 4.], [3., 4.]], &Device::Cpu)?; // cosines 0.6
/// let signs = Tensor::new(&[1f64, -1.], &Device::Cpu)?;
/// let loss = kd_core::losses::cosine_embedding(&first, &second, &signs, 0.)?.to_scalar::<f64>()?;
/// assert!((loss - (0.4 + 0.6) / 2.).abs() < 1e-12);
/// # Ok::<(), candle_core::Error>(())
/// ```
pub fn cosine_embedding(first: &Tensor, second: &Tensor, signs: &Tensor, margin: f64) -> Result<Tensor> {
    mean(&cosine_embedding_rows(first, second, signs, margin)?)
}

/// [`cosine_embedding`] of each row, `(rows,)`.
///
/// # Errors
/// As there, but no rows are no error.
pub fn cosine_embedding_rows(first: &Tensor, second: &Tensor, signs: &Tensor, margin: f64) -> Result<Tensor> {
    pair("cosine_embedding", first, second)?;
    number("cosine_embedding", "margin", margin, "a value from -1 to 1", (-1.0..=1.0).contains(&margin))?;
    let together = read_signs("cosine_embedding", signs, first)?.gt(0f64)?;
    let cosines = (unit(&wide(first)?)? * unit(&wide(second)?)?)?.sum(D::Minus1)?;
    let apart = positive(&(&cosines - margin)?)?;
    together.where_cond(&cosines.affine(-1.0, 1.0)?, &apart)?.to_dtype(first.dtype())
}

/// How [`triplet_margin`] measures; the defaults are those of `torch.nn.TripletMarginLoss`.
#[derive(Debug, Clone, Copy, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct TripletMargin {
    /// How much further the negative shall be, > 0; in the unit of the vectors.
    pub margin: f64,
    /// Degree of the distance's norm, ≥ 1: 2 is Euclid's.
    pub p: f64,
    /// Added to each difference before the norm, ≥ 0.
    pub eps: f64,
    /// Let the negative be as far from the positive as from the anchor, whichever is less (Balntas et al. 2016, §3.3).
    pub swap: bool,
}

impl Default for TripletMargin {
    fn default() -> Self {
        Self { margin: 1.0, p: 2.0, eps: 1e-6, swap: false }
    }
}

/// `max(0, d(anchor, positive) - d(anchor, negative) + margin)`, mean over rows (Balntas et al. 2016, §3.1).
///
/// # Shapes
/// - all: `(rows, width)` float
/// - returns a scalar of their dtype, differentiable in all three
///
/// # Errors
/// If shapes or dtypes differ, there are no rows, or a number of the config is out of its range.
///
/// ```
/// use candle_core::{Device, Tensor};
/// use kd_core::losses::{TripletMargin, triplet_margin};
/// let at = |x: f64, y: f64| Tensor::new(&[[x, y]], &Device::Cpu);
/// let config = TripletMargin { eps: 0., ..Default::default() };
/// let loss = triplet_margin(&at(0., 0.)?, &at(3., 4.)?, &at(0., 2.)?, &config)?.to_scalar::<f64>()?;
/// assert!((loss - (5. - 2. + 1.)).abs() < 1e-12);
/// # Ok::<(), candle_core::Error>(())
/// ```
pub fn triplet_margin(anchor: &Tensor, positive: &Tensor, negative: &Tensor, config: &TripletMargin) -> Result<Tensor> {
    mean(&triplet_margin_rows(anchor, positive, negative, config)?)
}

/// [`triplet_margin`] of each row, `(rows,)`.
///
/// # Errors
/// As there, but no rows are no error.
pub fn triplet_margin_rows(
    anchor: &Tensor,
    positive: &Tensor,
    negative: &Tensor,
    config: &TripletMargin,
) -> Result<Tensor> {
    let TripletMargin { margin, p, eps, swap } = *config;
    pair("triplet_margin", anchor, positive)?;
    pair("triplet_margin", anchor, negative)?;
    number("triplet_margin", "margin", margin, "a finite value above 0", margin > 0.0)?;
    number("triplet_margin", "p", p, "a finite value of at least 1", p >= 1.0)?;
    number("triplet_margin", "eps", eps, "a finite value of at least 0", eps >= 0.0)?;
    let [a, b, c] = [anchor, positive, negative].map(wide);
    let (a, b, c) = (a?, b?, c?);
    let distance = |x: &Tensor, y: &Tensor| norm(&((x - y)? + eps)?, p);
    let far = match swap {
        true => distance(&a, &c)?.minimum(&distance(&b, &c)?)?,
        false => distance(&a, &c)?,
    };
    self::positive(&((distance(&a, &b)? - far)? + margin)?)?.to_dtype(anchor.dtype())
}

/// `(Σ |x|^p)^(1/p)` over the last dimension, which is dropped; no gradient where `x` is 0.
fn norm(x: &Tensor, p: f64) -> Result<Tensor> {
    if p == 2.0 {
        return lengths(x)?.squeeze(D::Minus1);
    }
    let zero = x.eq(0f64)?.to_dtype(x.dtype())?;
    let absolute = ((x.abs()? + &zero)?.powf(p)? * zero.affine(-1.0, 1.0)?)?.sum(D::Minus1)?;
    let none = absolute.eq(0f64)?.to_dtype(x.dtype())?;
    (absolute + &none)?.powf(1.0 / p)? * none.affine(-1.0, 1.0)?
}
