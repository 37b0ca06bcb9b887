//! A bidirectional LSTM layer: one product for all inputs, then a product and a kernel for each time step of both
//! directions, backwards the same, and one product for each weight's gradient at the end.

use candle_core::{CudaDevice, DType, Result, Tensor, bail};

use super::attach::attach2;
use super::columns::{Map, Rows};
use super::launch::{Geometry, Launch};
use super::output::{Output, device_of};
use super::product::{Factor, Target, product};
use super::{wide, wide_weight};
use crate::ops::tie::Ties;

/// Gates of a cell.
const GATES: usize = 4;

/// As [`crate::ops::lstm::bidirectional`]; `weights` are ih, hh and both biases of the first direction, then of the second.
pub(crate) fn bidirectional(xs: &Tensor, lengths: &[usize], weights: &[Tensor; 8]) -> Result<Tensor> {
    let xs = xs.contiguous()?;
    let (ties, token) = Ties::new(weights)?;
    let layer = Layer::new(&xs, lengths, weights)?;
    let (y, kept) = layer.forward(&xs)?;
    let dtypes = weights.each_ref().map(Tensor::dtype);
    attach2("bidirectional-lstm", [&xs, &token], y, move |[xs, token], _, dy| {
        let dx = layer.backward(xs, dy, &kept, &ties, dtypes)?;
        Ok([dx, ties.token_gradient(token)?])
    })
}

struct Layer {
    batch: usize,
    len: usize,
    input: usize,
    hidden: usize,
    /// `(batch,)` u32
    lengths: Tensor,
    /// `(batch, len, 1)` u8, 1 where a word stands; none if nothing is padding.
    words: Option<Tensor>,
    /// Both directions one below the other, `(8 · hidden, input)`.
    ih: Tensor,
    /// `(2, 4 · hidden, hidden)`
    hh: Tensor,
    /// Both biases' sum, `(8 · hidden,)`.
    bias: Tensor,
}

/// What the forward leaves for the backward; the layouts stand in `kernels/lstm.cu`.
struct Kept {
    states: Tensor,
    cells: Tensor,
    gates: Tensor,
}

impl Layer {
    fn new(xs: &Tensor, lengths: &[usize], weights: &[Tensor; 8]) -> Result<Self> {
        let (batch, len, input) = xs.dims3()?;
        let [ih, hh, bias_ih, bias_hh] = [0, 1, 2, 3]
            .map(|kind| Tensor::cat(&[weights[kind].detach(), weights[4 + kind].detach()], 0)?.contiguous());
        let hh = hh?;
        let words = if lengths.iter().all(|&length| length == len) {
            None
        } else {
            let words = lengths.iter().flat_map(|&length| (0..len).map(move |at| u8::from(at < length)));
            Some(Tensor::from_vec(words.collect::<Vec<u8>>(), (batch, len, 1), xs.device())?)
        };
        let lengths: Vec<u32> = lengths.iter().map(|&length| length as u32).collect();
        Ok(Self {
            batch,
            len,
            input,
            hidden: hh.dim(1)?,
            lengths: Tensor::from_vec(lengths, batch, xs.device())?,
            words,
            ih: ih?,
            hh,
            bias: (wide_weight(&bias_ih?, xs.dtype())? + wide_weight(&bias_hh?, xs.dtype())?)?,
        })
    }

    fn geometry(&self) -> Geometry {
        Geometry { grid: ((2 * self.batch * self.hidden).div_ceil(128) as u32, 1), block: (128, 1) }
    }

    fn projection(&self) -> Map {
        Map { rows: self.batch * self.len, width: self.input, out: 2 * GATES * self.hidden }
    }

    /// `xs` with zeros at padding: of what stands there the gradient is 0, and 0 times NaN would be NaN.
    fn without_padding(&self, xs: &Tensor) -> Result<Tensor> {
        let xs = xs.detach();
        match &self.words {
            Some(words) => words.broadcast_as(xs.shape())?.where_cond(&xs, &xs.zeros_like()?),
            None => Ok(xs),
        }
    }

    fn finish<'a>(&self, launch: Launch<'a>, step: usize) -> Result<()> {
        launch.int(step)?.int(self.batch)?.int(self.len)?.int(self.hidden)?.run(self.geometry())
    }

    fn forward(&self, xs: &Tensor) -> Result<(Output, Kept)> {
        let &Self { batch, len, hidden, .. } = self;
        let (device, dtype): (&CudaDevice, DType) = (device_of(xs)?, xs.dtype());
        let projected = self.projection().forward(xs, &self.ih)?;
        // The first step of each direction starts from states and cells of 0.
        let mut states = Output::zeros((2, len + 1, batch, hidden), dtype, device)?;
        let mut cells = Output::zeros((2, len + 1, batch, hidden), dtype, device)?;
        let mut gates = Output::new((2, len, batch, GATES * hidden), dtype, device)?;
        let mut y = Output::new((batch, len, 2 * hidden), dtype, device)?;
        let mut recurrent = Output::new((2, batch, GATES * hidden), dtype, device)?;
        let hh = Factor::new(&self.hh, GATES * hidden, hidden)?.t();
        for step in 0..len {
            if step > 0 {
                let past = Factor::of_output(&states, batch, hidden)?.from(step * batch * hidden, dtype);
                let past = past.every((len + 1) * batch * hidden);
                product(device, &mut recurrent, Target::Replace, past, hh, 2)?;
            }
            let launch = Launch::new(device, "lstm_step", dtype)?.tensor(&projected)?;
            let launch = launch.maybe_output((step > 0).then_some(&mut recurrent))?.tensor(&self.bias)?;
            let launch = launch.tensor(&self.lengths)?.output(&mut states)?.output(&mut cells)?.output(&mut gates)?;
            self.finish(launch.output(&mut y)?, step)?;
        }
        let kept = Kept { states: states.into_tensor(), cells: cells.into_tensor(), gates: gates.into_tensor() };
        Ok((y, kept))
    }

    fn backward(
        &self,
        xs: &Tensor,
        dy: &Tensor,
        kept: &Kept,
        ties: &Ties,
        dtypes: [DType; 8],
    ) -> Result<Option<Tensor>> {
        let &Self { batch, len, hidden, .. } = self;
        let (device, dtype): (&CudaDevice, DType) = (device_of(xs)?, xs.dtype());
        let mut d_gates = Output::new((2, len, batch, GATES * hidden), dtype, device)?;
        let mut d_projected = Output::new((batch * len, 2 * GATES * hidden), dtype, device)?;
        let mut d_state = Output::new((2, batch, hidden), dtype, device)?;
        let mut d_cell = Output::new((2, batch, hidden), wide(dtype), device)?;
        let hh = Factor::new(&self.hh, GATES * hidden, hidden)?;
        for step in (0..len).rev() {
            let launch = Launch::new(device, "lstm_step_backward", dtype)?.tensor(dy)?;
            let launch = launch.maybe_output((step + 1 < len).then_some(&mut d_state))?.output(&mut d_cell)?;
            let launch = launch.tensor(&self.lengths)?.tensor(&kept.cells)?.tensor(&kept.gates)?;
            self.finish(launch.output(&mut d_gates)?.output(&mut d_projected)?, step)?;
            if step > 0 {
                let d = Factor::of_output(&d_gates, batch, GATES * hidden)?;
                let d = d.from(step * batch * GATES * hidden, dtype).every(len * batch * GATES * hidden);
                product(device, &mut d_state, Target::Replace, d, hh, 2)?;
            }
        }
        let d_projected = d_projected.into_tensor();
        if ties.wants(1) || ties.wants(5) {
            let mut d_hh = Output::new((2, GATES * hidden, hidden), dtype, device)?;
            let d = Factor::of_output(&d_gates, len * batch, GATES * hidden)?.t();
            let states = Factor::new(&kept.states, len * batch, hidden)?.every((len + 1) * batch * hidden);
            product(device, &mut d_hh, Target::Replace, d, states, 2)?;
            let d_hh = d_hh.into_tensor();
            for direction in 0..2 {
                ties.give(4 * direction + 1, || d_hh.get(direction)?.to_dtype(dtypes[4 * direction + 1]))?;
            }
        }
        if ties.wants(0) || ties.wants(4) {
            let d_ih = self.projection().weight_gradient(&d_projected, &self.without_padding(xs)?)?;
            for direction in 0..2 {
                let part = || d_ih.narrow(0, direction * GATES * hidden, GATES * hidden);
                ties.give(4 * direction, || part()?.to_dtype(dtypes[4 * direction]))?;
            }
        }
        if [2, 3, 6, 7].into_iter().any(|slot| ties.wants(slot)) {
            let rows = Rows { rows: batch * len, width: 2 * GATES * hidden, bias: None };
            let Some(sums) = rows.backward(None, &d_projected, true)?.1 else { bail!("the lstm has no sums") };
            for slot in [2, 3, 6, 7] {
                let part = || sums.narrow(0, slot / 4 * GATES * hidden, GATES * hidden);
                ties.give(slot, || part()?.to_dtype(dtypes[slot]))?;
            }
        }
        if !xs.track_op() {
            return Ok(None);
        }
        Ok(Some(self.projection().input_gradient(&d_projected, &self.ih, xs)?.into_tensor()))
    }
}
