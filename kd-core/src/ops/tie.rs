//! Gradients for more tensors than a Candle op has arguments.
//!
//! A custom op takes three tensors; a Transformer layer has seventeen. Its weights are held by the op, and each of
//! them that is trained is *tied* to the graph by an op of its own:
//!
//! ```text
//! token₀ = 0    token_i = tie(token_{i-1}, weight_i)    y = op(x, token_n)      (a token is one number)
//! ```
//!
//! Candle goes backwards from `y`, so the op comes before the ties: it computes the gradients of all weights and leaves
//! them with [`Ties::give`], and each tie hands on its own. No weight is copied, and one that is not trained costs
//! nothing. Inside [`backward`](super::backward()) gradients of variables are handed over at once, and if there are no others, no tie
//! is visited.

use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use candle_core::{CpuStorage, CustomOp2, Layout, Result, Shape, Tensor, bail};

use super::backward::hand_over;

type Slots = Arc<Mutex<Vec<Slot>>>;

/// The gradient of a weight on its way from the op to the tie.
#[derive(Debug, Clone)]
enum Slot {
    NotComputed,
    Given(Tensor),
    HandedOver,
}

/// What an op knows of its tied weights.
#[derive(Debug)]
pub(crate) struct Ties {
    slots: Slots,
    /// The weights, if they are trained.
    trained: Vec<Option<Tensor>>,
}

impl Ties {
    /// Ties `weights`; the token is to be an argument of the op.
    pub(crate) fn new(weights: &[Tensor]) -> Result<(Self, Tensor)> {
        let Some(first) = weights.first() else { bail!("expected at least one weight to tie") };
        let slots = Slots::new(Mutex::new(vec![Slot::NotComputed; weights.len()]));
        let mut token = Tensor::zeros(1, first.dtype(), first.device())?;
        for (idx, weight) in weights.iter().enumerate().filter(|(_, weight)| weight.track_op()) {
            token = token.apply_op2(weight, Tie { slots: slots.clone(), idx })?;
        }
        let trained = weights.iter().map(|weight| weight.track_op().then(|| weight.clone())).collect();
        Ok((Self { slots, trained }, token))
    }

    /// Whether a gradient is wanted for the weight at `idx`.
    pub(crate) fn wants(&self, idx: usize) -> bool {
        self.trained[idx].is_some()
    }

    /// Leaves the gradient of the weight at `idx`, which is only made where it is wanted.
    pub(crate) fn give(&self, idx: usize, gradient: impl FnOnce() -> Result<Tensor>) -> Result<()> {
        let Some(weight) = &self.trained[idx] else { return Ok(()) };
        let slot = match (weight.is_variable(), gradient()?) {
            (true, gradient) => hand_over(weight, gradient).map_or(Slot::HandedOver, Slot::Given),
            (false, gradient) => Slot::Given(gradient),
        };
        lock(&self.slots)[idx] = slot;
        Ok(())
    }

    /// What the op returns for its token: Candle visits the ties only if there is something.
    pub(crate) fn token_gradient(&self, token: &Tensor) -> Result<Option<Tensor>> {
        let is_left = |slot: &Slot| matches!(slot, Slot::Given(_));
        if token.track_op() && lock(&self.slots).iter().any(is_left) { Ok(Some(token.zeros_like()?)) } else { Ok(None) }
    }
}

fn lock(slots: &Slots) -> MutexGuard<'_, Vec<Slot>> {
    slots.lock().unwrap_or_else(PoisonError::into_inner)
}

struct Tie {
    slots: Slots,
    idx: usize,
}

impl CustomOp2 for Tie {
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
        use candle_core::backend::{BackendDevice, BackendStorage};
        // SAFETY: nobody reads a token.
        let token = unsafe { token.device().alloc_uninit(layout.shape(), token.dtype())? };
        Ok((token, layout.shape().clone()))
    }

    fn bwd(
        &self,
        token: &Tensor,
        weight: &Tensor,
        _: &Tensor,
        grad: &Tensor,
    ) -> Result<(Option<Tensor>, Option<Tensor>)> {
        let gradient = match std::mem::replace(&mut lock(&self.slots)[self.idx], Slot::NotComputed) {
            Slot::Given(gradient) => hand_over(weight, gradient),
            Slot::HandedOver => None,
            Slot::NotComputed => {
                bail!("the gradient of weight {} was not computed before it was asked for", self.idx)
            }
        };
        Ok((token.track_op().then(|| grad.clone()), gradient))
    }
}
