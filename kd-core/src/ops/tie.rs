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
//! nothing.

use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use candle_core::{CpuStorage, CustomOp2, Layout, Result, Shape, Tensor, bail};

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
        for (idx, weight) in weights.iter().enumerate().filter(|(_, weight)| weight.track_op()) {
            token = token.apply_op2(weight, Tie { slots: slots.clone(), idx })?;
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

    fn bwd(
        &self,
        token: &Tensor,
        weight: &Tensor,
        _: &Tensor,
        grad: &Tensor,
    ) -> Result<(Option<Tensor>, Option<Tensor>)> {
        let Some(gradient) = lock(&self.slots)[self.idx].take() else {
            bail!("the gradient of weight {} was not computed before it was asked for", self.idx)
        };
        Ok((token.track_op().then(|| grad.clone()), hand_over(weight, gradient)))
    }
}
