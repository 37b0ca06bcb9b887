//! Gradients for more tensors than a Candle op has arguments.
//!
//! A custom op takes three tensors; a Transformer layer has seventeen. Its weights are held by the op, and each of
//! them that is trained is *tied* to the graph by an op, two of them at a time:
//!
//! ```text
//! token₀ = 0    token_i = tie(token_{i-1}, weight_{2i-1}, weight_{2i})    y = op(x, token_n)      (a token is one number)
//! ```
//!
//! Candle goes backwards from `y`, so the op comes before the ties: it computes the gradients of all weights and leaves
//! them with [`Ties::give`], and each tie hands on its own. No weight is copied, and one that is not trained costs
//! nothing.

use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use candle_core::{CpuStorage, CustomOp2, CustomOp3, Layout, Result, Shape, Tensor, bail};

use super::backward::hand_over;

type Slots = Arc<Mutex<Vec<Option<Tensor>>>>;

/// What an op knows of its tied weights.
#[derive(Debug)]
pub(crate) struct Ties {
    slots: Slots,
    trained: Vec<bool>,
}

impl Ties {
    /// Ties `weights`; the token is to be an argument of the op.
    pub(crate) fn new(weights: &[Tensor]) -> Result<(Self, Tensor)> {
        let Some(first) = weights.first() else { bail!("expected at least one weight to tie") };
        let slots = Slots::new(Mutex::new(vec![None; weights.len()]));
        let mut token = Tensor::zeros(1, first.dtype(), first.device())?;
        let trained: Vec<usize> = (0..weights.len()).filter(|&idx| weights[idx].track_op()).collect();
        for pair in trained.chunks(2) {
            token = match *pair {
                [first, second] => {
                    let tie = Tie { slots: slots.clone(), places: [first, second] };
                    token.apply_op3(&weights[first], &weights[second], tie)?
                }
                _ => token.apply_op2(&weights[pair[0]], Tie { slots: slots.clone(), places: [pair[0]] })?,
            };
        }
        Ok((Self { slots, trained: weights.iter().map(Tensor::track_op).collect() }, token))
    }

    /// Whether a gradient is wanted for the weight at `idx`.
    pub(crate) fn wants(&self, idx: usize) -> bool {
        self.trained[idx]
    }

    /// Leaves the gradient of the weight at `idx`, which is only made where it is wanted.
    pub(crate) fn give(&self, idx: usize, gradient: impl FnOnce() -> Result<Tensor>) -> Result<()> {
        if self.wants(idx) {
            let gradient = gradient()?;
            lock(&self.slots)[idx] = Some(gradient);
        }
        Ok(())
    }

    /// What the op returns for its token: Candle visits the ties only if there is something.
    pub(crate) fn token_gradient(&self, token: &Tensor) -> Result<Option<Tensor>> {
        if token.track_op() { Ok(Some(token.zeros_like()?)) } else { Ok(None) }
    }
}

fn lock(slots: &Slots) -> MutexGuard<'_, Vec<Option<Tensor>>> {
    slots.lock().unwrap_or_else(PoisonError::into_inner)
}

/// A tie of as many weights as it has places.
struct Tie<const N: usize> {
    slots: Slots,
    places: [usize; N],
}

impl<const N: usize> Tie<N> {
    fn hand_on(&self, weights: [&Tensor; N]) -> Result<[Option<Tensor>; N]> {
        let mut slots = lock(&self.slots);
        let mut gradients = [const { None }; N];
        for ((gradient, weight), place) in gradients.iter_mut().zip(weights).zip(self.places) {
            let Some(given) = slots[place].take() else {
                bail!("the gradient of weight {place} was not computed before it was asked for")
            };
            *gradient = hand_over(weight, given);
        }
        Ok(gradients)
    }
}

/// A token like the one before.
#[cfg(feature = "cuda")]
fn on_cuda(token: &candle_core::CudaStorage, layout: &Layout) -> Result<(candle_core::CudaStorage, Shape)> {
    use candle_core::backend::{BackendDevice, BackendStorage};
    // SAFETY: nobody reads a token.
    let token = unsafe { token.device().alloc_uninit(layout.shape(), token.dtype())? };
    Ok((token, layout.shape().clone()))
}

impl CustomOp2 for Tie<1> {
    fn name(&self) -> &'static str {
        "tie"
    }

    fn cpu_fwd(&self, token: &CpuStorage, layout: &Layout, _: &CpuStorage, _: &Layout) -> Result<(CpuStorage, Shape)> {
        Ok((token.clone(), layout.shape().clone()))
    }

    #[cfg(feature = "cuda")]
    fn cuda_fwd(
        &self,
        token: &candle_core::CudaStorage,
        layout: &Layout,
        _: &candle_core::CudaStorage,
        _: &Layout,
    ) -> Result<(candle_core::CudaStorage, Shape)> {
        on_cuda(token, layout)
    }

    fn bwd(
        &self,
        token: &Tensor,
        weight: &Tensor,
        _: &Tensor,
        grad: &Tensor,
    ) -> Result<(Option<Tensor>, Option<Tensor>)> {
        let [gradient] = self.hand_on([weight])?;
        Ok((token.track_op().then(|| grad.clone()), gradient))
    }
}

impl CustomOp3 for Tie<2> {
    fn name(&self) -> &'static str {
        "tie"
    }

    fn cpu_fwd(
        &self,
        token: &CpuStorage,
        layout: &Layout,
        _: &CpuStorage,
        _: &Layout,
        _: &CpuStorage,
        _: &Layout,
    ) -> Result<(CpuStorage, Shape)> {
        Ok((token.clone(), layout.shape().clone()))
    }

    #[cfg(feature = "cuda")]
    fn cuda_fwd(
        &self,
        token: &candle_core::CudaStorage,
        layout: &Layout,
        _: &candle_core::CudaStorage,
        _: &Layout,
        _: &candle_core::CudaStorage,
        _: &Layout,
    ) -> Result<(candle_core::CudaStorage, Shape)> {
        on_cuda(token, layout)
    }

    fn bwd(
        &self,
        token: &Tensor,
        first: &Tensor,
        second: &Tensor,
        _: &Tensor,
        grad: &Tensor,
    ) -> Result<(Option<Tensor>, Option<Tensor>, Option<Tensor>)> {
        let [first, second] = self.hand_on([first, second])?;
        Ok((token.track_op().then(|| grad.clone()), first, second))
    }
}
