//! One bidirectional LSTM layer over sequences of different lengths.
//!
//! Hochreiter and Schmidhuber 1997 with the forget gate of Gers et al. 2000, in PyTorch's form, for each direction
//!
//! ```text
//! i, f, g, o = split(W_ih x_t + b_ih + W_hh h_{t-1} + b_hh)
//! c_t = σ(f) · c_{t-1} + σ(i) · tanh(g)        h_t = σ(o) · tanh(c_t)
//! ```
//!
//! from zero states, the second direction from each sequence's last token to its first. What stands behind a
//! sequence's end is not read, its outputs are exactly 0 and no gradient comes from it: the semantics of
//! PyTorch's packed sequences.
//!
//! On the CPU in f32 and f64 this is one fused op with an analytic backward pass. Sequences are sorted by length, so a time
//! step multiplies only the rows that are still alive; the two directions are two tasks. It keeps gates
//! and cells for the backward pass only if an argument is tracked. On a CUDA device with kernels a time step is a product
//! and a kernel, in other dtypes and on other devices it is composed of Candle's ops: right, but a dozen kernels.

mod cell;
mod composed;
mod kernel;
mod plan;
#[cfg(test)]
mod tests;

use std::sync::{Arc, Mutex, PoisonError};

use candle_core::backend::BackendStorage;
use candle_core::{CpuStorage, CustomOp2, Layout, Result, Shape, Tensor, bail};

use self::kernel::{Direction, Saved, Weights};
use self::plan::Plan;
use super::backward::hand_over;
use super::cpu::{Float, for_float, has_kernel, slice, tensor, values};
use super::packed::{PackedLinear, Precision};
use super::tie::Ties;

/// Weights of one direction of one layer; the gates stand in the order i, f, g, o.
#[derive(Debug, Clone)]
pub struct LstmWeights {
    /// `(4 · hidden, input)`.
    pub weight_ih: Tensor,
    /// `(4 · hidden, hidden)`.
    pub weight_hh: Tensor,
    /// `(4 · hidden,)`.
    pub bias_ih: Tensor,
    /// `(4 · hidden,)`.
    pub bias_hh: Tensor,
}

impl LstmWeights {
    /// `weight_ih`, `weight_hh`, `bias_ih`, `bias_hh`, without their graph.
    fn detached(tensors: &[Tensor]) -> Self {
        let [weight_ih, weight_hh, bias_ih, bias_hh] = [0, 1, 2, 3].map(|idx| tensors[idx].detach());
        Self { weight_ih, weight_hh, bias_ih, bias_hh }
    }

    fn pack<T: Float>(&self) -> Result<Direction<T>> {
        let (ih, hh) = (self.weight_ih.contiguous()?, self.weight_hh.contiguous()?);
        let bias = (&self.bias_ih + &self.bias_hh)?;
        let (ih, hh, bias) = (values::<T>(&ih)?, values::<T>(&hh)?, values::<T>(&bias)?);
        Ok(Direction::new(&ih, &hh, &bias))
    }

    /// Both maps as one, `(4 · hidden, input + hidden)`.
    fn round(&self, precision: Precision) -> Result<PackedLinear> {
        let weight = Tensor::cat(&[&self.weight_ih.detach(), &self.weight_hh.detach()], 1)?;
        let bias = (self.bias_ih.detach() + self.bias_hh.detach())?;
        PackedLinear::new(&weight, Some(&bias), precision)
    }

    fn tensors(&self) -> [&Tensor; 4] {
        [&self.weight_ih, &self.weight_hh, &self.bias_ih, &self.bias_hh]
    }

    fn check(&self, input: usize) -> Result<usize> {
        let (gates, hidden) = self.weight_hh.dims2()?;
        let expected: [&[usize]; 4] = [&[4 * hidden, input], &[4 * hidden, hidden], &[4 * hidden], &[4 * hidden]];
        let found = self.tensors().map(Tensor::dims);
        if gates != 4 * hidden || found != expected {
            bail!("expected lstm weights of shapes {expected:?}, found {found:?}");
        }
        Ok(hidden)
    }
}

/// Both directions of a layer, `(batch, len, 2 · hidden)`: the left-to-right states first.
///
/// # Shapes
/// - `xs`: `(batch, len, input)` float
/// - `lengths`: tokens of each sequence, `batch` of them, 0 to `len`
/// - differentiable in `xs` and all weights
///
/// # Errors
/// If shapes do not fit, or a length is above `len`.
pub fn bidirectional(
    xs: &Tensor,
    lengths: &[usize],
    left_to_right: &LstmWeights,
    right_to_left: &LstmWeights,
) -> Result<Tensor> {
    let (_, len, input) = xs.dims3()?;
    let hidden = check_both(left_to_right, right_to_left, input)?;
    check_lengths(xs, lengths)?;
    let directions = [left_to_right, right_to_left];
    #[cfg(feature = "cuda")]
    if super::cuda::has_kernel(xs) && directions.iter().all(|d| d.tensors().iter().all(|w| w.dtype() == xs.dtype())) {
        let tensors = directions.map(LstmWeights::tensors);
        return super::cuda::bidirectional(xs, lengths, &std::array::from_fn(|idx| tensors[idx / 4][idx % 4].clone()));
    }
    if !has_kernel(xs) {
        return composed::bidirectional(xs, lengths, directions);
    }
    let xs = xs.contiguous()?;
    let plan = Plan::new(lengths, len);
    let tracked = xs.track_op() || directions.iter().any(|weights| weights.tensors().iter().any(|w| w.track_op()));
    if tracked {
        let weights: Vec<_> =
            directions.iter().flat_map(|weights| weights.tensors()).map(Tensor::contiguous).collect::<Result<_>>()?;
        let (ties, token) = Ties::new(&weights)?;
        let weights = [&weights[..4], &weights[4..]].map(LstmWeights::detached);
        xs.apply_op2(&token, Layer { plan, hidden, weights, ties, saved: Mutex::new(SavedFor::Nothing) })
    } else {
        for_float!(xs.dtype(), T => infer::<T>(&xs, &plan, directions, hidden))
    }
}

fn check_both(left_to_right: &LstmWeights, right_to_left: &LstmWeights, input: usize) -> Result<usize> {
    let hidden = left_to_right.check(input)?;
    if right_to_left.check(input)? != hidden {
        bail!("the directions of an lstm have different hidden sizes");
    }
    Ok(hidden)
}

fn check_lengths(xs: &Tensor, lengths: &[usize]) -> Result<()> {
    let (batch, len, _) = xs.dims3()?;
    if lengths.len() != batch {
        bail!("expected the lengths of {batch} sequences, found {}", lengths.len());
    }
    if let Some(sequence) = lengths.iter().position(|&length| length > len) {
        bail!("sequence {sequence} has length {}, expected at most {len}", lengths[sequence]);
    }
    Ok(())
}

/// The forward pass alone.
fn infer<T: Float>(xs: &Tensor, plan: &Plan, directions: [&LstmWeights; 2], hidden: usize) -> Result<Tensor> {
    let (batch, len, _) = xs.dims3()?;
    let [first, second] = directions.map(LstmWeights::pack::<T>);
    let (out, _) = kernel::forward(plan, &values::<T>(xs)?, [&first?, &second?], false);
    tensor(out, (batch, len, 2 * hidden))
}

/// Both directions of a layer for inference: the weights are copied once into the order in which products read them,
/// which [`bidirectional`] does at every call.
#[derive(Clone)]
pub struct PackedLayer {
    directions: Arc<Directions>,
    input: usize,
    hidden: usize,
}

enum Directions {
    Exact([Direction<f32>; 2]),
    Rounded([PackedLinear; 2]),
}

impl PackedLayer {
    /// A copy of the weights. In bf16 and int8 ([`packed`](super::packed)) the input and the past state of a step are one
    /// row, rounded together; cells and gates stay in f32.
    ///
    /// # Errors
    /// If shapes do not fit, or the weights are not f32 on the CPU.
    pub fn new(left_to_right: &LstmWeights, right_to_left: &LstmWeights, precision: Precision) -> Result<Self> {
        let input = left_to_right.weight_ih.dim(1)?;
        let hidden = check_both(left_to_right, right_to_left, input)?;
        let directions = match precision {
            Precision::F32 => Directions::Exact([left_to_right.pack()?, right_to_left.pack()?]),
            Precision::Bf16 | Precision::Int8 => {
                Directions::Rounded([left_to_right.round(precision)?, right_to_left.round(precision)?])
            }
        };
        Ok(Self { directions: Arc::new(directions), input, hidden })
    }

    /// As [`bidirectional`]; in f32 with the same bytes.
    ///
    /// # Errors
    /// If shapes do not fit, a length is above `len`, or `xs` is not f32 on the CPU or needs a gradient.
    pub fn forward(&self, xs: &Tensor, lengths: &[usize]) -> Result<Tensor> {
        let (batch, len, input) = xs.dims3()?;
        if input != self.input {
            bail!("expected inputs of width {}, found {input}", self.input);
        }
        if xs.track_op() {
            bail!("a packed lstm has no gradient, and its input needs one");
        }
        check_lengths(xs, lengths)?;
        let xs = xs.contiguous()?;
        let (plan, xs) = (Plan::new(lengths, len), values::<f32>(&xs)?);
        let out = match &*self.directions {
            Directions::Exact(directions) => kernel::forward(&plan, &xs, directions.each_ref(), false).0,
            Directions::Rounded(directions) => kernel::forward_rounded(&plan, &xs, directions.each_ref(), self.hidden),
        };
        tensor(out, (batch, len, 2 * self.hidden))
    }
}

impl std::fmt::Debug for PackedLayer {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "PackedLayer({} -> 2 x {})", self.input, self.hidden)
    }
}

/// What the forward pass keeps, in the dtype it ran in.
enum SavedFor {
    Nothing,
    F32([Saved<f32>; 2]),
    F64([Saved<f64>; 2]),
}

/// Floats whose saved values an op can hold.
trait Keep: Float {
    fn keep(saved: [Saved<Self>; 2]) -> SavedFor;
    fn kept(saved: &SavedFor) -> Option<&[Saved<Self>; 2]>;
}

impl Keep for f32 {
    fn keep(saved: [Saved<Self>; 2]) -> SavedFor {
        SavedFor::F32(saved)
    }

    fn kept(saved: &SavedFor) -> Option<&[Saved<Self>; 2]> {
        if let SavedFor::F32(saved) = saved { Some(saved) } else { None }
    }
}

impl Keep for f64 {
    fn keep(saved: [Saved<Self>; 2]) -> SavedFor {
        SavedFor::F64(saved)
    }

    fn kept(saved: &SavedFor) -> Option<&[Saved<Self>; 2]> {
        if let SavedFor::F64(saved) = saved { Some(saved) } else { None }
    }
}

/// `(xs, token)` → states; the token ties the eight weights to the graph.
struct Layer {
    plan: Plan,
    hidden: usize,
    weights: [LstmWeights; 2],
    ties: Ties,
    saved: Mutex<SavedFor>,
}

impl Layer {
    fn forward<T: Keep>(&self, xs: &[T]) -> Result<CpuStorage> {
        let [first, second] = self.weights.each_ref().map(LstmWeights::pack::<T>);
        let (out, saved) = kernel::forward(&self.plan, xs, [&first?, &second?], true);
        *self.saved.lock().unwrap_or_else(PoisonError::into_inner) = T::keep(saved);
        Ok(T::to_cpu_storage_owned(out))
    }

    fn backward<T: Keep>(&self, xs: &Tensor, result: &Tensor, gradient: &Tensor) -> Result<Option<Tensor>> {
        let saved = self.saved.lock().unwrap_or_else(PoisonError::into_inner);
        let Some(saved) = T::kept(&saved) else { bail!("the lstm has no saved forward pass") };
        let gradient = gradient.contiguous()?;
        let (d_xs, d_weights) = {
            let [(ih0, hh0), (ih1, hh1)] =
                self.weights.each_ref().map(|weights| (&weights.weight_ih, &weights.weight_hh));
            let (ih0, hh0, ih1, hh1) = (values::<T>(ih0)?, values::<T>(hh0)?, values::<T>(ih1)?, values::<T>(hh1)?);
            let weights = [Weights { ih: &ih0, hh: &hh0 }, Weights { ih: &ih1, hh: &hh1 }];
            let (x, states, d) = (values::<T>(xs)?, values::<T>(result)?, values::<T>(&gradient)?);
            kernel::backward(&self.plan, &x, weights, self.hidden, saved, &states, &d, xs.track_op())
        };
        for (direction, (weights, d)) in self.weights.iter().zip(d_weights).enumerate() {
            let slot = 4 * direction;
            self.ties.give(slot, || tensor(d.ih, weights.weight_ih.shape()))?;
            self.ties.give(slot + 1, || tensor(d.hh, weights.weight_hh.shape()))?;
            let d_bias = tensor(d.bias, weights.bias_ih.shape())?;
            self.ties.give(slot + 2, || Ok(d_bias.clone()))?;
            self.ties.give(slot + 3, || Ok(d_bias.clone()))?;
        }
        d_xs.map(|d_xs| tensor(d_xs, xs.shape())).transpose()
    }
}

impl CustomOp2 for Layer {
    fn name(&self) -> &'static str {
        "bidirectional-lstm"
    }

    fn cpu_fwd(&self, s1: &CpuStorage, l1: &Layout, _: &CpuStorage, _: &Layout) -> Result<(CpuStorage, Shape)> {
        let (batch, len, _) = l1.shape().dims3()?;
        let out = for_float!(s1.dtype(), T => self.forward::<T>(slice(s1, l1)?)?);
        Ok((out, Shape::from((batch, len, 2 * self.hidden))))
    }

    fn bwd(
        &self,
        xs: &Tensor,
        token: &Tensor,
        result: &Tensor,
        gradient: &Tensor,
    ) -> Result<(Option<Tensor>, Option<Tensor>)> {
        let d_xs = for_float!(xs.dtype(), T => self.backward::<T>(xs, result, gradient)?);
        Ok((d_xs.and_then(|d_xs| hand_over(xs, d_xs)), self.ties.token_gradient(token)?))
    }
}
