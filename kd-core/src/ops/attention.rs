//! Scaled dot-product attention of several heads in one op.
//!
//! Head `h` of example `b` takes columns `h·d .. (h+1)·d` of `q`, `k` and `v`, with `d = hidden / heads`:
//!
//! ```text
//! S = q kᵀ / √d      P = softmax(S), over the keys that are not padding      y = dropout(P) v
//! ```
//!
//! (Vaswani et al. 2017.) With `P'` the masked and scaled `P`, and `dP` the gradient that comes through the mask,
//! `dv = P'ᵀ dy`, `dS = P ∘ (dP - Σ_keys P ∘ dP)`, `dq = dS k / √d`, `dk = dSᵀ q / √d`.
//!
//! Heads are read and written in place as strides, and each (example, head) is one task. Keys behind the last token of
//! an example are not looked at: padding costs no time but that of its queries. Nothing is kept for the backward: it
//! computes `P` again, which costs about what reading it from memory would.
//!
//! ```
//! use candle_core::{Device, Tensor};
//! use kd_core::{model::Mode, ops::attention};
//! let q = Tensor::zeros((1, 2, 2), candle_core::DType::F32, &Device::Cpu)?;
//! let v = Tensor::new(&[[[1f32, 2.], [3., 6.]]], &Device::Cpu)?;
//! let mask = Tensor::new(&[[1u8, 1]], &Device::Cpu)?;
//! // Equal scores: every position gets the mean of the values.
//! let y = attention(&q, &q, &v, 2, &mask, 0.0, Mode::Eval)?;
//! assert_eq!(y.to_vec3::<f32>()?, [[[2., 4.], [2., 4.]]]);
//! # Ok::<(), candle_core::Error>(())
//! ```

mod kernel;

use candle_core::backend::BackendStorage;
use candle_core::{CpuStorage, CustomOp3, DType, Layout, Result, Shape, Tensor, bail};

use super::backward::hand_over;
use super::cpu::{self, for_float};
use super::dropout::Mask;
use super::softmax::masked_softmax;
use crate::model::Mode;

pub(crate) use kernel::Kernel;

/// Attention of `heads` heads with a mask over the keys, and dropout on the probabilities.
///
/// A key whose mask is 0 gets probability exactly 0 and no gradient. An example without any key gives zeros.
/// Queries on padding are computed as any other; what they give does not matter.
///
/// # Shapes
/// - `q`, `k`, `v`: `(batch, len, hidden)`, where `heads` divides `hidden`; `mask`: `(batch, len)` u8, 0 on padding
/// - `p`: probability in `[0, 1)` that a probability is dropped in training
/// - returns `(batch, len, hidden)`, differentiable in `q`, `k` and `v`
///
/// # Errors
/// If shapes or dtypes do not fit or `p` is out of range.
pub fn attention(
    q: &Tensor,
    k: &Tensor,
    v: &Tensor,
    heads: usize,
    mask: &Tensor,
    p: f64,
    mode: Mode,
) -> Result<Tensor> {
    check(q, k, v, heads, mask)?;
    let dropout = Mask::new(p, mode)?;
    #[cfg(feature = "cuda")]
    if super::cuda::has_kernel(q) && q.dtype() == k.dtype() && q.dtype() == v.dtype() {
        return super::cuda::attention(q, k, v, heads, mask, dropout);
    }
    if !cpu::has_kernel(q) {
        return composed(q, k, v, heads, mask, dropout);
    }
    let op = Attention(Kernel::new(heads, mask, dropout)?);
    q.contiguous()?.apply_op3(&k.contiguous()?, &v.contiguous()?, op)
}

/// The probabilities of [`attention()`] before dropout, for losses that compare them with a teacher's.
///
/// # Shapes
/// - `q`, `k`: `(batch, len, hidden)`, where `heads` divides `hidden`; `mask`: `(batch, len)` u8, 0 on padding
/// - returns `(batch, heads, len, len)`, queries before keys, differentiable in `q` and `k`; 0 for every masked key
///
/// # Errors
/// If shapes or dtypes do not fit.
pub fn attention_probs(q: &Tensor, k: &Tensor, heads: usize, mask: &Tensor) -> Result<Tensor> {
    let (_, _, hidden) = q.dims3()?;
    check(q, k, k, heads, mask)?;
    let (q, k) = (split_heads(q, heads)?, split_heads(k, heads)?);
    let scores = q.matmul(&k.t()?.contiguous()?)?; // (batch, heads, len, len)
    masked_softmax(&scores, 1.0 / ((hidden / heads) as f64).sqrt(), mask, 0.0, Mode::Eval)
}

/// `(batch, len, hidden)` → `(batch, heads, len, hidden / heads)`.
fn split_heads(x: &Tensor, heads: usize) -> Result<Tensor> {
    let (batch, len, hidden) = x.dims3()?;
    x.contiguous()?.reshape((batch, len, heads, hidden / heads))?.transpose(1, 2)?.contiguous()
}

/// Checks shapes and the mask's dtype.
pub(crate) fn check(q: &Tensor, k: &Tensor, v: &Tensor, heads: usize, mask: &Tensor) -> Result<()> {
    let (batch, len, hidden) = q.dims3()?;
    if k.dims() != q.dims() || v.dims() != q.dims() {
        bail!("attention: expected q, k and v of one shape, found {:?}, {:?} and {:?}", q.dims(), k.dims(), v.dims());
    }
    if heads == 0 || hidden % heads != 0 {
        bail!("attention: expected a number of heads that divides the hidden size {hidden}, found {heads}");
    }
    if mask.dims() != [batch, len] || mask.dtype() != DType::U8 {
        bail!("attention: expected a u8 mask of shape [{batch}, {len}], found {:?} {:?}", mask.dtype(), mask.dims());
    }
    Ok(())
}

/// The same as [`attention()`] from Candle's operations.
fn composed(q: &Tensor, k: &Tensor, v: &Tensor, heads: usize, mask: &Tensor, dropout: Option<Mask>) -> Result<Tensor> {
    let probs = attention_probs(q, k, heads, mask)?;
    let probs = match dropout {
        Some(dropout) => (&probs * dropout.tensor(&probs)?)?,
        None => probs,
    };
    probs.matmul(&split_heads(v, heads)?)?.transpose(1, 2)?.contiguous()?.reshape(q.shape())
}

struct Attention(Kernel);

impl CustomOp3 for Attention {
    fn name(&self) -> &'static str {
        "attention"
    }

    fn cpu_fwd(
        &self,
        s1: &CpuStorage,
        l1: &Layout,
        s2: &CpuStorage,
        l2: &Layout,
        s3: &CpuStorage,
        l3: &Layout,
    ) -> Result<(CpuStorage, Shape)> {
        let (_, _, hidden) = l1.shape().dims3()?;
        for_float!(s1.dtype(), T => {
            let (q, k, v) = (cpu::slice::<T>(s1, l1)?, cpu::slice::<T>(s2, l2)?, cpu::slice::<T>(s3, l3)?);
            Ok((cpu::storage(self.0.forward(q, k, v, hidden)), l1.shape().clone()))
        })
    }

    fn bwd(
        &self,
        q: &Tensor,
        k: &Tensor,
        v: &Tensor,
        _: &Tensor,
        grad: &Tensor,
    ) -> Result<(Option<Tensor>, Option<Tensor>, Option<Tensor>)> {
        let (grad, hidden) = (grad.contiguous()?, q.dim(2)?);
        for_float!(q.dtype(), T => {
            let [dq, dk, dv] =
                self.0.backward::<T>(&cpu::values(q)?, &cpu::values(k)?, &cpu::values(v)?, &cpu::values(&grad)?, hidden);
            Ok((
                hand_over(q, cpu::tensor(dq, q.shape())?),
                hand_over(k, cpu::tensor(dk, q.shape())?),
                hand_over(v, cpu::tensor(dv, q.shape())?),
            ))
        })
    }
}

#[cfg(test)]
mod tests;
