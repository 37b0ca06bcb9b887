//! Attention from scores, composed of ops: for the encoders whose scores are more than products of queries and keys.

use candle_core::{Result, Tensor};
use kd_core::model::Mode;
use kd_core::ops;

/// What attention gives.
#[derive(Debug)]
pub(super) struct Attended {
    /// `(batch, len, hidden)`, the heads side by side.
    pub(super) mixed: Tensor,
    /// The probabilities before dropout, `(batch, heads, len, len)`.
    pub(super) probs: Tensor,
}

/// `dropout(softmax(scores, over the keys that are not padding)) v`.
///
/// `scores` `(batch, heads, len, len)`, queries before keys; `values` `(batch, heads, len, hidden / heads)`;
/// `mask` `(batch, len)`; `p` the dropout probability of the probabilities.
pub(super) fn attend(scores: &Tensor, values: &Tensor, mask: &Tensor, p: f64, mode: Mode) -> Result<Attended> {
    let probs = ops::masked_softmax(&scores.contiguous()?, 1.0, mask, 0.0, Mode::Eval)?;
    let mixed = ops::dropout(&probs, p, mode)?.matmul(values)?; // (batch, heads, len, width)
    let (batch, heads, len, width) = mixed.dims4()?;
    Ok(Attended { mixed: mixed.transpose(1, 2)?.contiguous()?.reshape((batch, len, heads * width))?, probs })
}

/// `(batch, len, hidden)` → `(batch, heads, len, hidden / heads)`.
pub(super) fn split_heads(xs: &Tensor, heads: usize) -> Result<Tensor> {
    let (batch, len, hidden) = xs.dims3()?;
    xs.reshape((batch, len, heads, hidden / heads))?.transpose(1, 2)?.contiguous()
}
