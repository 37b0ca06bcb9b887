//! The ops on a CUDA device, in `f32`, `f64` and `bf16`: kernels of this crate and cuBLAS.
//!
//! The kernels stand in `kernels/*.cu` and are compiled by NVRTC for the device at hand when the first of them is wanted
//! (some seconds, once per process). They give the values of the CPU's ops to rounding, dropout bit for bit, and the
//! same bytes in every run: no sum depends on the order of blocks. In `bf16` sums, biases and the weights of norms are
//! `f32`. These kernels wait for nothing and copy nothing from the device.
//!
//! A CRF's marginals and best paths are computed on the host; `RESULTS.md` in the repository has all kernels against PyTorch
//! and against what they replace ([`set_kernels`]). Products follow [`candle_core::cuda_backend::gemm_reduced_precision_f32`]: with it on, `f32` is multiplied in
//! TF32.
//!
//! [`Device::new_cuda`](candle_core::Device::new_cuda) of Candle 0.11 gives every thread a stream of its own, and nothing orders
//! the work of one thread behind another's. Tensors of such a device belong to the thread that made them, until it has called
//! `synchronize`. Where several threads share tensors, open the device with
//! [`Device::new_cuda_with_stream`](candle_core::Device::new_cuda_with_stream), which has one stream for all.
//!
//! Freed memory goes back to the driver at every synchronisation, unless it is told to keep it: [`keep_freed_memory`].

mod attach;
mod attention;
mod char_cnn;
mod columns;
mod crf;
mod distillation;
mod embedding;
mod encoder_layer;
mod launch;
mod lstm;
mod memory;
mod norm;
mod optim;
mod output;
mod product;
mod softmax;

use std::sync::atomic::{AtomicBool, Ordering};

use candle_core::{DType, Tensor};

pub(crate) use attention::attention;
pub(crate) use char_cnn::char_cnn;
pub(crate) use columns::{dropout, gelu, linear};
pub(crate) use crf::{has_crf, scores as crf_scores};
pub(crate) use distillation::distillation;
pub(crate) use embedding::embedding;
pub(crate) use encoder_layer::{Call, encoder_layer};
pub(crate) use lstm::bidirectional;
pub use memory::keep_freed_memory;
pub(crate) use norm::norm;
pub(crate) use optim::{AdamWStep, adamw, sum_of_squares};
pub(crate) use softmax::{masked_softmax, softmax};

static KERNELS: AtomicBool = AtomicBool::new(true);

/// Whether ops on CUDA devices use this crate's kernels, as they do from the start, or are composed of Candle's operations:
/// to measure what a kernel brings. It holds for the whole process, and a backward pass goes on as its forward pass was.
pub fn set_kernels(used: bool) {
    KERNELS.store(used, Ordering::Relaxed);
}

/// Whether the kernels run on `tensor`: on a CUDA device, in a dtype they know, and with values in it.
pub(crate) fn has_kernel(tensor: &Tensor) -> bool {
    tensor.device().is_cuda()
        && KERNELS.load(Ordering::Relaxed)
        && matches!(tensor.dtype(), DType::F32 | DType::F64 | DType::BF16)
        && tensor.elem_count() > 0
}

/// Whether the norms' kernels do, which hold a row in registers.
pub(crate) fn has_norm(x: &Tensor) -> candle_core::Result<bool> {
    Ok(has_kernel(x) && norm::holds(x)?)
}

/// Whether a linear map's do: all of its tensors have one dtype.
pub(crate) fn has_linear(x: &Tensor, weight: &Tensor, bias: Option<&Tensor>) -> bool {
    has_kernel(x)
        && weight.elem_count() > 0
        && weight.dtype() == x.dtype()
        && bias.is_none_or(|bias| bias.dtype() == x.dtype())
}

/// What a dtype is computed in.
fn wide(dtype: DType) -> DType {
    if dtype == DType::BF16 { DType::F32 } else { dtype }
}

/// A bias or a norm's weight as the kernels for inputs of `dtype` want it.
fn wide_weight(weight: &Tensor, dtype: DType) -> candle_core::Result<Tensor> {
    weight.detach().to_dtype(wide(dtype))?.contiguous()
}
