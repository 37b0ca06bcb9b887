//! Attention: products of all heads at once, with one kernel between them.

use candle_core::{CudaDevice, Result, Tensor};

use super::attach::attach3;
use super::launch::{Geometry, Launch};
use super::output::{Output, aligned, device_of};
use super::product::{Factor, Target, product};
use super::softmax::Masking;
use crate::ops::dropout::Mask;

/// [`crate::ops::attention()`].
pub(crate) fn attention(
    q: &Tensor,
    k: &Tensor,
    v: &Tensor,
    heads: usize,
    mask: &Tensor,
    dropout: Option<Mask>,
) -> Result<Tensor> {
    let (q, k, v) = (q.contiguous()?, k.contiguous()?, v.contiguous()?);
    let (batch, len, hidden) = q.dims3()?;
    let heads = Heads::new(batch, len, heads, hidden, mask, dropout)?;
    let [q_heads, k_heads, v_heads] = [&q, &k, &v].map(|x| heads.split(x));
    let parts = [q_heads?, k_heads?, v_heads?];
    let y = heads.join(&heads.forward(&parts)?, q.dims())?;
    attach3("attention", [&q, &k, &v], y, move |_, y, dy| {
        let gradients = heads.backward(&parts, &heads.split(dy)?)?;
        let [dq, dk, dv] = gradients.map(|gradient| heads.join(&gradient, y.dims()));
        Ok([Some(dq?.into_tensor()), Some(dk?.into_tensor()), Some(dv?.into_tensor())])
    })
}

/// Sizes and mask of an attention; `heads` of `width` values.
#[derive(Debug)]
pub(super) struct Heads {
    pub(super) batch: usize,
    pub(super) len: usize,
    pub(super) heads: usize,
    pub(super) width: usize,
    masking: Masking,
}

impl Heads {
    pub(super) fn new(
        batch: usize,
        len: usize,
        heads: usize,
        hidden: usize,
        mask: &Tensor,
        dropout: Option<Mask>,
    ) -> Result<Self> {
        let width = hidden / heads;
        let masking = Masking { scale: 1.0 / (width as f64).sqrt(), mask: mask.contiguous()?, dropout };
        Ok(Self { batch, len, heads, width, masking })
    }

    fn swap(&self, x: &Tensor, y: &mut Output, first: usize, second: usize) -> Result<()> {
        let x = &aligned(x)?;
        let launch = Launch::new(device_of(x)?, "swap_middle", x.dtype())?.tensor(x)?.output(y)?;
        let launch = launch.long(x.elem_count()).int(first)?.int(second)?.int(self.width)?;
        launch.run(Geometry::of_values(x.elem_count()))
    }

    /// `(batch, len, heads · width)` to `(batch · heads, len, width)`.
    pub(super) fn split(&self, x: &Tensor) -> Result<Tensor> {
        let mut y = Output::new((self.batch * self.heads, self.len, self.width), x.dtype(), device_of(x)?)?;
        self.swap(x, &mut y, self.len, self.heads)?;
        Ok(y.into_tensor())
    }

    /// The way back, in a shape of as many values.
    pub(super) fn join(&self, x: &Tensor, shape: &[usize]) -> Result<Output> {
        let mut y = Output::new(shape, x.dtype(), device_of(x)?)?;
        self.swap(x, &mut y, self.heads, self.len)?;
        Ok(y)
    }

    fn rows(&self, x: &Tensor) -> Result<Factor> {
        Factor::new(x, self.len, self.width)
    }

    fn square(&self, x: &Tensor) -> Result<Factor> {
        Factor::new(x, self.len, self.len)
    }

    fn multiply(&self, like: &Tensor, columns: usize, left: Factor, right: Factor) -> Result<Output> {
        let device: &CudaDevice = device_of(like)?;
        let shape = (self.batch, self.heads, self.len, columns);
        let mut out = Output::new(shape, like.dtype(), device)?;
        product(device, &mut out, Target::Replace, left, right, self.batch * self.heads)?;
        Ok(out)
    }

    fn scores(&self, q: &Tensor, k: &Tensor) -> Result<Tensor> {
        Ok(self.multiply(q, self.len, self.rows(q)?, self.rows(k)?.t())?.into_tensor())
    }

    /// What the heads give for split queries, keys and values.
    pub(super) fn forward(&self, [q, k, v]: &[Tensor; 3]) -> Result<Tensor> {
        let scores = self.scores(q, k)?;
        let mut probs = Output::like(&scores)?;
        self.masking.forward(&scores, &mut probs)?;
        let probs = probs.into_tensor();
        Ok(self.multiply(q, self.width, self.square(&probs)?, self.rows(v)?)?.into_tensor())
    }

    /// The split gradients of queries, keys and values. The probabilities are computed again.
    pub(super) fn backward(&self, [q, k, v]: &[Tensor; 3], dy: &Tensor) -> Result<[Tensor; 3]> {
        let scores = self.scores(q, k)?;
        let d_probs = self.multiply(q, self.len, self.rows(dy)?, self.rows(v)?.t())?.into_tensor();
        let (mut d_scores, mut probs) = (Output::like(&scores)?, Output::like(&scores)?);
        self.masking.backward(&scores, &d_probs, &mut d_scores, Some(&mut probs))?;
        drop((scores, d_probs));
        let (d_scores, probs) = (d_scores.into_tensor(), probs.into_tensor());
        let dq = self.multiply(q, self.width, self.square(&d_scores)?, self.rows(k)?)?;
        let dk = self.multiply(q, self.width, self.square(&d_scores)?.t(), self.rows(q)?)?;
        let dv = self.multiply(q, self.width, self.square(&probs)?.t(), self.rows(dy)?)?;
        Ok([dq.into_tensor(), dk.into_tensor(), dv.into_tensor()])
    }
}
