//! A Transformer encoder layer; the formulas stand at [`crate::ops::encoder_layer`].
//!
//! The three projections are one product with their weights one below the other. Between products there is one kernel each:
//! biases are added where the next function is computed, the residual's gradient is the target that the last product adds
//! to. With `f32` weights and a `bf16` input the weights are rounded here and get gradients in `f32`.

use std::sync::{Mutex, PoisonError};

use candle_core::{CudaDevice, DType, Result, Tensor};

use super::attach::attach2;
use super::attention::Heads;
use super::columns::{Map, Rows};
use super::launch::{Geometry, Launch, reduce};
use super::norm::{Addition, Norm};
use super::output::{Output, device_of};
use super::product::Target;
use super::{wide, wide_weight};
use crate::ops::Activation;
use crate::ops::dropout::Mask;
use crate::ops::encoder_layer::kernel::slot;
use crate::ops::tie::Ties;

/// Settings of one call besides its weights.
pub(crate) struct Call<'a> {
    pub(crate) mask: &'a Tensor,
    pub(crate) heads: usize,
    pub(crate) intermediate: usize,
    pub(crate) eps: f64,
    pub(crate) activation: Activation,
    pub(crate) attention_dropout: Option<Mask>,
    pub(crate) output_dropout: Option<Mask>,
    pub(crate) hidden_dropout: Option<Mask>,
}

/// One layer; `weights` stand by [`slot`].
pub(crate) fn encoder_layer(x: &Tensor, weights: &[Tensor; slot::COUNT], call: &Call<'_>) -> Result<Tensor> {
    let x = x.contiguous()?;
    let (ties, token) = Ties::new(weights)?;
    let layer = Layer::new(&x, weights, call)?;
    let keep = x.track_op() || token.track_op();
    let (y, kept) = layer.forward(&x, keep)?;
    let kept = Mutex::new(kept);
    attach2("encoder-layer", [&x, &token], y, move |[x, token], _, dy| {
        let kept = kept.lock().unwrap_or_else(PoisonError::into_inner).take();
        let kept = match kept {
            Some(kept) => Some(kept),
            // A second backward through the same graph.
            None => layer.forward(x, true)?.1,
        };
        let Some(kept) = kept else { candle_core::bail!("encoder_layer: the forward kept nothing") };
        let dx = layer.backward(x, dy, kept, &ties)?;
        Ok([dx, ties.token_gradient(token)?])
    })
}

struct Layer {
    rows: usize,
    hidden: usize,
    intermediate: usize,
    function: Activation,
    /// In the dtype of `x`: queries, keys and values one below the other, `(3 · hidden, hidden)`.
    projections: Tensor,
    output: Tensor,
    inner: Tensor,
    outer: Tensor,
    /// Of queries, keys and values, wide.
    projection_biases: [Tensor; 3],
    output_bias: Tensor,
    inner_bias: Tensor,
    outer_bias: Tensor,
    attention_norm: Norm,
    norm: Norm,
    heads: Heads,
    output_dropout: Option<Mask>,
    hidden_dropout: Option<Mask>,
    /// What the weights' gradients are to be, by slot.
    dtypes: [DType; slot::COUNT],
}

/// What the forward leaves for the backward.
struct Kept {
    /// Queries, keys and values, `(batch · heads, len, width)`.
    projections: [Tensor; 3],
    mixed: Tensor,
    attention_sum: Tensor,
    attended: Tensor,
    /// `W_1 a` without the bias.
    inner: Tensor,
    activated: Tensor,
    sum: Tensor,
}

impl Layer {
    fn new(x: &Tensor, weights: &[Tensor; slot::COUNT], call: &Call<'_>) -> Result<Self> {
        let (batch, len, hidden) = x.dims3()?;
        let weight = |slot: usize| weights[slot].detach().to_dtype(x.dtype())?.contiguous();
        let bias = |slot: usize| wide_weight(&weights[slot], x.dtype());
        let norm =
            |slot: usize| -> Result<Norm> { Ok(Norm { gamma: bias(slot)?, beta: bias(slot + 1)?, eps: call.eps }) };
        let [q, k, v] = [0, 2, 4].map(|idx| weights[slot::QUERY + idx].detach());
        let [q_bias, k_bias, v_bias] = [1, 3, 5].map(|idx| bias(slot::QUERY + idx));
        Ok(Self {
            rows: batch * len,
            hidden,
            intermediate: call.intermediate,
            function: call.activation,
            projections: Tensor::cat(&[q, k, v], 0)?.to_dtype(x.dtype())?,
            output: weight(slot::OUTPUT)?,
            inner: weight(slot::INNER)?,
            outer: weight(slot::OUTER)?,
            projection_biases: [q_bias?, k_bias?, v_bias?],
            output_bias: bias(slot::OUTPUT + 1)?,
            inner_bias: bias(slot::INNER + 1)?,
            outer_bias: bias(slot::OUTER + 1)?,
            attention_norm: norm(slot::ATTENTION_NORM)?,
            norm: norm(slot::NORM)?,
            heads: Heads::new(batch, len, call.heads, hidden, call.mask, call.attention_dropout)?,
            output_dropout: call.output_dropout,
            hidden_dropout: call.hidden_dropout,
            dtypes: weights.each_ref().map(Tensor::dtype),
        })
    }

    fn map(&self, width: usize, out: usize) -> Map {
        Map { rows: self.rows, width, out }
    }

    fn activation(&self) -> Rows {
        Rows { rows: self.rows, width: self.intermediate, bias: Some(self.inner_bias.clone()) }
    }

    /// Queries, keys and values with their biases, by head.
    fn project(&self, x: &Tensor) -> Result<[Tensor; 3]> {
        let Heads { batch, len, heads, width, .. } = self.heads;
        let u = self.map(self.hidden, 3 * self.hidden).forward(x, &self.projections)?;
        let device: &CudaDevice = device_of(x)?;
        let part = || Output::new((batch * heads, len, width), x.dtype(), device);
        let mut parts = [part()?, part()?, part()?];
        let mut launch = Launch::new(device, "split_projections", x.dtype())?.tensor(&u)?;
        for bias in &self.projection_biases {
            launch = launch.tensor(bias)?;
        }
        for part in &mut parts {
            launch = launch.output(part)?;
        }
        let launch = launch.long(self.rows).int(len)?.int(heads)?.int(width)?;
        launch.run(Geometry::of_columns(self.rows, 3 * self.hidden, width))?;
        Ok(parts.map(Output::into_tensor))
    }

    /// The gradient of the projections' product, `(rows, 3 · hidden)`, and its sum over rows.
    fn join(&self, [q, k, v]: &[Tensor; 3]) -> Result<(Tensor, Tensor)> {
        let Heads { len, heads, width, .. } = self.heads;
        let device: &CudaDevice = device_of(q)?;
        let geometry = Geometry::of_columns(self.rows, 3 * self.hidden, width);
        let mut u = Output::new((self.rows, 3 * self.hidden), q.dtype(), device)?;
        let mut partial = Output::new((geometry.grid.1 as usize, 3 * self.hidden), wide(q.dtype()), device)?;
        let launch = Launch::new(device, "join_projections", q.dtype())?.tensor(q)?.tensor(k)?.tensor(v)?;
        let launch = launch.output(&mut u)?.output(&mut partial)?.long(self.rows).int(len)?.int(heads)?.int(width)?;
        launch.run(geometry)?;
        Ok((u.into_tensor(), reduce(device, &mut partial)?))
    }

    fn forward(&self, x: &Tensor, keep: bool) -> Result<(Output, Option<Kept>)> {
        let (rows, hidden) = (self.rows, self.hidden);
        let projections = self.project(x)?;
        let mixed = self.heads.join(&self.heads.forward(&projections)?, &[rows, hidden])?.into_tensor();
        let projections = keep.then_some(projections); // freed here if not

        let u = self.map(hidden, hidden).forward(&mixed, &self.output)?;
        let sum = || if keep { Output::like(&u).map(Some) } else { Ok(None) };
        let (mut attention_sum, mut sum) = (sum()?, sum()?);
        let mut attended = Output::like(&u)?;
        let addition = Addition { bias: Some(&self.output_bias), residual: Some(x), dropout: self.output_dropout };
        self.attention_norm.forward(&u, addition, attention_sum.as_mut(), &mut attended)?;
        let attended = attended.into_tensor();

        let inner = self.map(hidden, self.intermediate).forward(&attended, &self.inner)?;
        let activated = self.activation().forward(&inner, Some(self.function))?.into_tensor();
        let u = self.map(self.intermediate, hidden).forward(&activated, &self.outer)?;
        let mut y = Output::like(x)?;
        let addition =
            Addition { bias: Some(&self.outer_bias), residual: Some(&attended), dropout: self.hidden_dropout };
        self.norm.forward(&u, addition, sum.as_mut(), &mut y)?;
        let kept = match (projections, attention_sum, sum) {
            (Some(projections), Some(attention_sum), Some(sum)) => Some(Kept {
                projections,
                mixed,
                attention_sum: attention_sum.into_tensor(),
                attended,
                inner,
                activated,
                sum: sum.into_tensor(),
            }),
            _ => None,
        };
        Ok((y, kept))
    }

    /// The gradient of `x` if it is tracked; those of the weights go to `ties`.
    fn backward(&self, x: &Tensor, dy: &Tensor, kept: Kept, ties: &Ties) -> Result<Option<Tensor>> {
        let (hidden, intermediate) = (self.hidden, self.intermediate);
        let Kept { projections, mixed, attention_sum, attended, inner, activated, sum } = kept;
        let give = |slot: usize, gradient: &Tensor| ties.give(slot, || gradient.to_dtype(self.dtypes[slot]));
        let give_weight = |slot: usize, map: Map, dy: &Tensor, x: &Tensor| {
            ties.give(slot, || map.weight_gradient(dy, x)?.to_dtype(self.dtypes[slot]))
        };

        let norm = self.norm.backward(&sum, dy, None, self.hidden_dropout)?;
        drop(sum);
        give(slot::NORM, &norm.gamma)?;
        give(slot::NORM + 1, &norm.beta)?;
        give(slot::OUTER + 1, &norm.bias)?;
        let d_residual = norm.sum.into_tensor();
        let d_outer = norm.x.map_or_else(|| d_residual.clone(), Output::into_tensor);
        let map = self.map(intermediate, hidden);
        give_weight(slot::OUTER, map, &d_outer, &activated)?;
        let d_activated = map.input_gradient(&d_outer, &self.outer, &activated)?.into_tensor();
        drop((d_outer, activated));

        let want_sum = ties.wants(slot::INNER + 1);
        let (d_inner, bias) = self.activation().backward(Some((&inner, self.function)), &d_activated, want_sum)?;
        drop((inner, d_activated));
        if let Some(bias) = bias {
            give(slot::INNER + 1, &bias)?;
        }
        let Some(d_inner) = d_inner else { candle_core::bail!("encoder_layer: no gradient before the activation") };
        let map = self.map(hidden, intermediate);
        give_weight(slot::INNER, map, &d_inner, &attended)?;
        let d_attended = map.input_gradient(&d_inner, &self.inner, &attended)?.into_tensor();
        drop((d_inner, attended));

        let norm = self.attention_norm.backward(&attention_sum, &d_attended, Some(&d_residual), self.output_dropout)?;
        drop((attention_sum, d_attended, d_residual));
        give(slot::ATTENTION_NORM, &norm.gamma)?;
        give(slot::ATTENTION_NORM + 1, &norm.beta)?;
        give(slot::OUTPUT + 1, &norm.bias)?;
        let mut dx = norm.sum;
        let d_mixed = {
            let d_output = match norm.x {
                Some(d_output) => d_output.into_tensor(),
                // Without dropout it is what the last product will add to: it has to be another one.
                None => copy(&mut dx, x)?,
            };
            let map = self.map(hidden, hidden);
            give_weight(slot::OUTPUT, map, &d_output, &mixed)?;
            map.input_gradient(&d_output, &self.output, &mixed)?.into_tensor()
        };
        drop(mixed);

        let d_projections = self.heads.backward(&projections, &self.heads.split(&d_mixed)?)?;
        drop((projections, d_mixed));
        let (du, bias) = self.join(&d_projections)?;
        drop(d_projections);
        let map = self.map(hidden, 3 * hidden);
        let slots = [0, 1, 2].map(|idx| slot::QUERY + 2 * idx);
        for (idx, slot) in slots.into_iter().enumerate() {
            give(slot + 1, &bias.narrow(0, idx * hidden, hidden)?)?;
        }
        if slots.into_iter().any(|slot| ties.wants(slot)) {
            let weights = map.weight_gradient(&du, x)?;
            for (idx, slot) in slots.into_iter().enumerate() {
                give(slot, &weights.narrow(0, idx * hidden, hidden)?)?;
            }
        }
        if !x.track_op() {
            return Ok(None);
        }
        map.write_input_gradient(&mut dx, Target::Add, &du, &self.projections)?;
        Ok(Some(reshaped(dx, x)?))
    }
}

/// Another tensor with the values of `output`.
fn copy(output: &mut Output, like: &Tensor) -> Result<Tensor> {
    let mut copied = Output::new(output.shape(), output.dtype(), device_of(like)?)?;
    let count = output.shape().elem_count();
    let launch = Launch::new(device_of(like)?, "swap_middle", output.dtype())?.output(output)?.output(&mut copied)?;
    launch.long(count).int(1)?.int(1)?.int(count)?.run(Geometry::of_values(count))?;
    Ok(copied.into_tensor())
}

fn reshaped(output: Output, like: &Tensor) -> Result<Tensor> {
    output.into_tensor().reshape(like.shape())
}
