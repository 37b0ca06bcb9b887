//! The layer made of Candle's ops, for devices and dtypes without a kernel.

use candle_core::{Result, Tensor};

use super::LstmWeights;

/// As [`super::bidirectional`], whose checks have passed; a loop over time steps with masks.
pub(super) fn bidirectional(xs: &Tensor, lengths: &[usize], directions: [&LstmWeights; 2]) -> Result<Tensor> {
    let (batch, len, input) = xs.dims3()?;
    let hidden = directions[0].weight_hh.dim(1)?;
    if batch * len == 0 {
        return Tensor::zeros((batch, len, 2 * hidden), xs.dtype(), xs.device());
    }
    let mask: Vec<u8> = lengths.iter().flat_map(|&length| (0..len).map(move |t| u8::from(t < length))).collect();
    let mask = Tensor::from_vec(mask, (batch, len, 1), xs.device())?;
    // Chosen by the mask, not multiplied with it: what stands at padding may be anything, and 0 · NaN is NaN.
    let xs = mask.broadcast_as(xs.shape())?.where_cond(xs, &xs.zeros_like()?)?.reshape((batch * len, input))?;
    let zeros = Tensor::zeros((batch, hidden), xs.dtype(), xs.device())?;
    let mut outputs = Vec::with_capacity(2);
    for (direction, weights) in directions.into_iter().enumerate() {
        let bias = (&weights.bias_ih + &weights.bias_hh)?;
        let projected = xs.matmul(&weights.weight_ih.t()?)?.broadcast_add(&bias)?.reshape((batch, len, 4 * hidden))?;
        let hh = weights.weight_hh.t()?;
        let (mut state, mut cell) = (zeros.clone(), zeros.clone());
        let mut states = Vec::with_capacity(len);
        for step in 0..len {
            let t = if direction == 0 { step } else { len - 1 - step };
            let gates = (projected.narrow(1, t, 1)?.squeeze(1)? + state.matmul(&hh)?)?;
            let gate = |idx: usize| gates.narrow(1, idx * hidden, hidden)?.contiguous();
            let (i, f) = (candle_nn::ops::sigmoid(&gate(0)?)?, candle_nn::ops::sigmoid(&gate(1)?)?);
            let (g, o) = (gate(2)?.tanh()?, candle_nn::ops::sigmoid(&gate(3)?)?);
            let alive = mask.narrow(1, t, 1)?.squeeze(1)?.broadcast_as((batch, hidden))?;
            // States stay 0 before a reversed sequence's last token.
            cell = alive.where_cond(&((f * &cell)? + (i * g)?)?, &zeros)?;
            state = alive.where_cond(&(o * cell.tanh()?)?, &zeros)?;
            states.push(state.clone());
        }
        if direction == 1 {
            states.reverse();
        }
        outputs.push(Tensor::stack(&states, 1)?);
    }
    Tensor::cat(&outputs, 2)
}
