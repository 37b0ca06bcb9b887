//! AdamW in place, and sums of squares.

use candle_core::{DType, Result, Tensor};

use super::launch::{Geometry, Launch, reduce};
use super::output::{Output, device_of};

/// Numbers of a step; `step` is `lr / (1 - β₁ᵗ)`, `root` is `1 / √(1 - β₂ᵗ)`, `decay` is `1 - lr · λ`.
#[derive(Debug, Clone, Copy)]
pub(crate) struct AdamWStep {
    pub(crate) gradient_scale: f64,
    pub(crate) betas: [f64; 2],
    pub(crate) step: f64,
    pub(crate) root: f64,
    pub(crate) eps: f64,
    pub(crate) decay: f64,
}

/// Updates `weight` and its moments, all of them contiguous and of one size; the moments are wide.
pub(crate) fn adamw(weight: &Tensor, gradient: &Tensor, m: &Tensor, v: &Tensor, step: AdamWStep) -> Result<()> {
    let AdamWStep { gradient_scale, betas, step, root, eps, decay } = step;
    let gradient = gradient.to_dtype(weight.dtype())?.contiguous()?;
    let count = weight.elem_count();
    let launch = Launch::new(device_of(weight)?, "adamw", weight.dtype())?.tensor(weight)?.tensor(&gradient)?;
    let launch = launch.tensor(m)?.tensor(v)?.long(count).double(gradient_scale).double(betas[0]).double(betas[1]);
    launch.double(step).double(root).double(eps).double(decay).run(Geometry::of_values(count))
}

/// The sum of the squares of all values of tensors on one device, read once.
pub(crate) fn sum_of_squares(tensors: &[Tensor]) -> Result<f64> {
    /// Blocks of a tensor, each with a partial sum.
    const BLOCKS: usize = 512;
    let Some(first) = tensors.first() else { return Ok(0.0) };
    let device = device_of(first)?;
    let mut partial = Output::zeros((tensors.len() * BLOCKS, 1), DType::F64, device)?;
    let start = partial.address()?;
    for (idx, tensor) in tensors.iter().enumerate() {
        let tensor = tensor.contiguous()?;
        let launch = Launch::new(device, "squares", tensor.dtype())?.tensor(&tensor)?;
        let launch = launch.address(start + (idx * BLOCKS * DType::F64.size_in_bytes()) as u64);
        let blocks = tensor.elem_count().div_ceil(4 * 256).clamp(1, BLOCKS);
        launch.long(tensor.elem_count()).run(Geometry { grid: (blocks as u32, 1), block: (256, 1) })?;
    }
    reduce(device, &mut partial)?.get(0)?.to_scalar()
}
