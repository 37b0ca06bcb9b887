//! Layer norm, alone and of a residual sum.

use candle_core::{CudaDevice, D, Result, Tensor, bail};

use super::attach::attach3;
use super::launch::{Geometry, Launch, reduce};
use super::output::{Output, device_of};
use super::{wide, wide_weight};
use crate::ops::dropout::Mask;
use crate::ops::tie::Ties;

/// The widest row that the kernels hold in their threads' registers.
pub(crate) const MOST_WIDTH: usize = 4096;
const WARP_WIDTH: usize = 256;
const MOST_THREADS: usize = 512;

/// `gamma` and `beta` are wide and contiguous, as all of these tensors.
#[derive(Debug, Clone)]
pub(super) struct Norm {
    pub(super) gamma: Tensor,
    pub(super) beta: Tensor,
    pub(super) eps: f64,
}

/// What is added before a norm: `s = residual + dropout(x + bias)`.
#[derive(Debug, Clone, Copy, Default)]
pub(super) struct Addition<'a> {
    pub(super) bias: Option<&'a Tensor>,
    pub(super) residual: Option<&'a Tensor>,
    pub(super) dropout: Option<Mask>,
}

/// Gradients of a norm of a sum.
pub(super) struct Gradients {
    /// Of the sum.
    pub(super) sum: Output,
    /// Of `x`, where dropout makes it another one.
    pub(super) x: Option<Output>,
    pub(super) gamma: Tensor,
    pub(super) beta: Tensor,
    pub(super) bias: Tensor,
}

impl Norm {
    fn width(&self) -> usize {
        self.gamma.elem_count()
    }

    /// Writes the norm of the sum into `y`, and the sum if it is wanted.
    pub(super) fn forward(
        &self,
        x: &Tensor,
        addition: Addition<'_>,
        sum: Option<&mut Output>,
        y: &mut Output,
    ) -> Result<()> {
        let (width, rows) = (self.width(), x.elem_count() / self.width());
        let launch = Launch::new(device_of(x)?, "norm", x.dtype())?.tensor(x)?.maybe(addition.bias)?;
        let launch = launch.maybe(addition.residual)?.tensor(&self.gamma)?.tensor(&self.beta)?;
        let launch = launch.maybe_output(sum)?.output(y)?.long(rows).int(width)?.double(self.eps);
        launch.dropout(addition.dropout).run(Geometry::of_rows(rows, width, WARP_WIDTH, MOST_THREADS))
    }

    /// The gradients from `dy`, plus `more` if there is another one of the result.
    pub(super) fn backward(
        &self,
        sum: &Tensor,
        dy: &Tensor,
        more: Option<&Tensor>,
        dropout: Option<Mask>,
    ) -> Result<Gradients> {
        /// Two blocks on each of a large card's multiprocessors.
        const BLOCKS: usize = 264;
        let device: &CudaDevice = device_of(sum)?;
        let (width, rows) = (self.width(), sum.elem_count() / self.width());
        let mut d_sum = Output::like(sum)?;
        let mut dx = dropout.map(|_| Output::like(sum)).transpose()?;
        let blocks = rows.min(BLOCKS);
        let mut partial = Output::new((blocks, 3 * width), wide(sum.dtype()), device)?;
        let launch = Launch::new(device, "norm_backward", sum.dtype())?.tensor(sum)?.tensor(dy)?.maybe(more)?;
        let launch = launch.tensor(&self.gamma)?.output(&mut d_sum)?.maybe_output(dx.as_mut())?.output(&mut partial)?;
        let launch = launch.long(rows).int(width)?.double(self.eps).dropout(dropout);
        let threads = width.div_ceil(4).next_multiple_of(32).clamp(32, MOST_THREADS);
        launch.run(Geometry { grid: (blocks as u32, 1), block: (threads as u32, 1) })?;
        let sums = reduce(device, &mut partial)?;
        let part = |idx: usize| sums.narrow(0, idx * width, width);
        Ok(Gradients { sum: d_sum, x: dx, gamma: part(0)?, beta: part(1)?, bias: part(2)? })
    }
}

/// [`crate::ops::layer_norm()`] and, with a residual, [`crate::ops::layer_norm_residual`].
pub(crate) fn norm(
    x: &Tensor,
    residual: Option<&Tensor>,
    gamma: &Tensor,
    beta: &Tensor,
    eps: f64,
    dropout: Option<Mask>,
) -> Result<Tensor> {
    let x = x.contiguous()?;
    let norm = Norm { gamma: wide_weight(gamma, x.dtype())?, beta: wide_weight(beta, x.dtype())?, eps };
    let mut y = Output::like(&x)?;
    let Some(residual) = residual else {
        norm.forward(&x, Addition::default(), None, &mut y)?;
        return attach3("layer-norm", [&x, gamma, beta], y, move |[x, gamma, beta], _, dy| {
            let gradients = norm.backward(x, dy, None, None)?;
            Ok([
                x.track_op().then(|| gradients.sum.into_tensor()),
                Some(gradients.gamma.to_dtype(gamma.dtype())?),
                Some(gradients.beta.to_dtype(beta.dtype())?),
            ])
        });
    };
    if residual.dtype() != x.dtype() {
        bail!("layer_norm_residual: expected a residual of {:?}, found {:?}", x.dtype(), residual.dtype());
    }
    let residual = residual.contiguous()?;
    let weights = [gamma.clone(), beta.clone()];
    let (ties, token) = Ties::new(&weights)?;
    let tracked = x.track_op() || residual.track_op() || token.track_op();
    let mut sum = if tracked { Some(Output::like(&x)?) } else { None };
    norm.forward(&x, Addition { bias: None, residual: Some(&residual), dropout }, sum.as_mut(), &mut y)?;
    let sum = sum.map(Output::into_tensor);
    let dtypes = [gamma.dtype(), beta.dtype()];
    attach3("layer-norm-residual", [&x, &residual, &token], y, move |[x, residual, token], _, dy| {
        let Some(sum) = &sum else { bail!("layer_norm_residual: the forward kept nothing") };
        let gradients = norm.backward(sum, dy, None, dropout)?;
        ties.give(0, || gradients.gamma.to_dtype(dtypes[0]))?;
        ties.give(1, || gradients.beta.to_dtype(dtypes[1]))?;
        let d_sum = gradients.sum.into_tensor();
        let dx = match gradients.x {
            Some(dx) => dx.into_tensor(),
            None => d_sum.clone(),
        };
        Ok([x.track_op().then_some(dx), residual.track_op().then_some(d_sum), ties.token_gradient(token)?])
    })
}

/// So that a width over [`MOST_WIDTH`] is composed.
pub(crate) fn holds(x: &Tensor) -> Result<bool> {
    Ok(x.dim(D::Minus1)? <= MOST_WIDTH)
}
