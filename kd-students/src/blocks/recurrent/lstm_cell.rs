//! One step of an LSTM in one direction, made of Candle's operations, where a fused layer does not fit: a decoder's next
//! input depends on its last output.

use candle_core::{Result, Tensor};
use candle_nn::ops::sigmoid;
use candle_nn::{Init, VarBuilder};
use kd_core::ops;

/// PyTorch's LSTM of one direction, gates in the order i, f, g, o.
///
/// Variables `weight_ih_lN` `(4 · hidden, input)`, `weight_hh_lN` `(4 · hidden, hidden)`, `bias_ih_lN`, `bias_hh_lN`
/// `(4 · hidden,)`, `N` the layer; uniform in `±1/√hidden`.
#[derive(Debug)]
pub(crate) struct LstmCell {
    weight_ih: Tensor,
    weight_hh: Tensor,
    bias_ih: Tensor,
    bias_hh: Tensor,
    hidden: usize,
}

impl LstmCell {
    pub(crate) fn new(input: usize, hidden: usize, layer: usize, vb: VarBuilder<'_>) -> Result<Self> {
        let bound = 1.0 / (hidden as f64).sqrt();
        let init = Init::Uniform { lo: -bound, up: bound };
        Ok(Self {
            weight_ih: vb.get_with_hints((4 * hidden, input), &format!("weight_ih_l{layer}"), init)?,
            weight_hh: vb.get_with_hints((4 * hidden, hidden), &format!("weight_hh_l{layer}"), init)?,
            bias_ih: vb.get_with_hints(4 * hidden, &format!("bias_ih_l{layer}"), init)?,
            bias_hh: vb.get_with_hints(4 * hidden, &format!("bias_hh_l{layer}"), init)?,
            hidden,
        })
    }

    /// State and cell of 0, `(batch, hidden)` each.
    pub(crate) fn zeros(&self, batch: usize) -> Result<(Tensor, Tensor)> {
        let zeros = Tensor::zeros((batch, self.hidden), self.weight_hh.dtype(), self.weight_hh.device())?;
        Ok((zeros.clone(), zeros))
    }

    /// State and cell after `x`, `(batch, input)`.
    pub(crate) fn step(&self, x: &Tensor, (state, cell): &(Tensor, Tensor)) -> Result<(Tensor, Tensor)> {
        self.gates(&ops::linear(x, &self.weight_ih, Some(&self.bias_ih))?, state, cell)
    }

    fn gates(&self, projected: &Tensor, state: &Tensor, cell: &Tensor) -> Result<(Tensor, Tensor)> {
        let gates = (projected + ops::linear(state, &self.weight_hh, Some(&self.bias_hh))?)?;
        let gate = |idx: usize| gates.narrow(1, idx * self.hidden, self.hidden)?.contiguous();
        let (i, f, o) = (sigmoid(&gate(0)?)?, sigmoid(&gate(1)?)?, sigmoid(&gate(3)?)?);
        let cell = ((f * cell)? + (i * gate(2)?.tanh()?)?)?;
        Ok(((o * cell.tanh()?)?, cell))
    }

    /// The state at each sequence's last token, `(batch, len, input)` and a mask `(batch, len)` u8 → `(batch, hidden)`;
    /// zeros for one without tokens.
    pub(crate) fn last_state(&self, xs: &Tensor, mask: &Tensor) -> Result<Tensor> {
        let (batch, len, _) = xs.dims3()?;
        let projected = ops::linear(xs, &self.weight_ih, Some(&self.bias_ih))?.transpose(0, 1)?.contiguous()?;
        let (mut state, mut cell) = self.zeros(batch)?;
        for step in 0..len {
            let (next, next_cell) = self.gates(&projected.get(step)?, &state, &cell)?;
            let is_token = mask.narrow(1, step, 1)?.broadcast_as(next.shape())?.contiguous()?;
            state = is_token.where_cond(&next, &state)?;
            cell = is_token.where_cond(&next_cell, &cell)?;
        }
        Ok(state)
    }
}
