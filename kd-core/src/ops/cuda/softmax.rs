//! Softmax, its logarithm, and softmax of masked scores.

use candle_core::{D, Result, Tensor};

use super::attach::attach1;
use super::launch::{Geometry, Launch};
use super::output::{Output, device_of};
use crate::ops::dropout::Mask;

/// Of rows up to this width a warp takes one.
const WARP_WIDTH: usize = 1024;

fn geometry(rows: usize, width: usize) -> Geometry {
    Geometry::of_rows(rows, width, WARP_WIDTH, 512)
}

/// [`crate::ops::softmax()`] and [`crate::ops::log_softmax`].
pub(crate) fn softmax(x: &Tensor, log: bool) -> Result<Tensor> {
    let x = x.contiguous()?;
    let width = x.dim(D::Minus1)?;
    let rows = x.elem_count() / width;
    let mut y = Output::like(&x)?;
    let launch = Launch::new(device_of(&x)?, "softmax", x.dtype())?.tensor(&x)?.output(&mut y)?;
    launch.long(rows).int(width)?.int(log.into())?.run(geometry(rows, width))?;
    let name = if log { "log-softmax" } else { "softmax" };
    attach1(name, &x, y, move |_, y, dy| {
        let mut dx = Output::like(y)?;
        let launch = Launch::new(device_of(y)?, "softmax_backward", y.dtype())?.tensor(y)?.tensor(dy)?;
        let launch = launch.output(&mut dx)?.long(rows).int(width)?.int(log.into())?;
        launch.run(geometry(rows, width))?;
        Ok(Some(dx.into_tensor()))
    })
}

/// [`crate::ops::masked_softmax`].
pub(crate) fn masked_softmax(scores: &Tensor, scale: f64, mask: &Tensor, dropout: Option<Mask>) -> Result<Tensor> {
    let (scores, mask) = (scores.contiguous()?, mask.contiguous()?);
    let masking = Masking { scale, mask, dropout };
    let mut y = Output::like(&scores)?;
    masking.forward(&scores, &mut y)?;
    attach1("masked-softmax", &scores, y, move |scores, _, dy| {
        let mut dx = Output::like(scores)?;
        masking.backward(scores, dy, &mut dx, None)?;
        Ok(Some(dx.into_tensor()))
    })
}

/// What turns scores into probabilities.
#[derive(Debug, Clone)]
pub(super) struct Masking {
    pub(super) scale: f64,
    /// `(batch, keys)` u8, contiguous.
    pub(super) mask: Tensor,
    pub(super) dropout: Option<Mask>,
}

impl Masking {
    fn sizes(&self, count: usize) -> Result<(usize, usize, usize)> {
        let (batch, keys) = self.mask.dims2()?;
        let rows = count / keys;
        Ok((rows, keys, rows / batch))
    }

    /// Dropped probabilities of scores `(batch, .., keys)`.
    pub(super) fn forward(&self, scores: &Tensor, y: &mut Output) -> Result<()> {
        let (rows, keys, rows_per_example) = self.sizes(scores.elem_count())?;
        let launch = Launch::new(device_of(scores)?, "masked_softmax", scores.dtype())?.tensor(scores)?;
        let launch = launch.tensor(&self.mask)?.output(y)?.long(rows).int(keys)?.long(rows_per_example);
        launch.double(self.scale).dropout(self.dropout).run(geometry(rows, keys))
    }

    /// The gradient of the scores from that of the dropped probabilities, and these probabilities if they are wanted.
    pub(super) fn backward(
        &self,
        scores: &Tensor,
        dy: &Tensor,
        dx: &mut Output,
        probs: Option<&mut Output>,
    ) -> Result<()> {
        let (rows, keys, rows_per_example) = self.sizes(scores.elem_count())?;
        let launch = Launch::new(device_of(scores)?, "masked_softmax_backward", scores.dtype())?.tensor(scores)?;
        let launch = launch.tensor(&self.mask)?.tensor(dy)?.output(dx)?.maybe_output(probs)?;
        let launch = launch.long(rows).int(keys)?.long(rows_per_example).double(self.scale).dropout(self.dropout);
        launch.run(geometry(rows, keys))
    }
}
