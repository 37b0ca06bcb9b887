//! Where and in what both sides compute.

use anyhow::{Result, bail};
use candle_core::{DType, Device, Result as TensorResult, Tensor};
use clap::ValueEnum;
use serde::{Deserialize, Serialize};

use super::row::Tensors;

/// The kind of device.
#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub(super) enum Kind {
    Cpu,
    Cuda,
}

/// What products of f32 inputs are computed in.
#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub(super) enum Arithmetic {
    F32,
    /// f32 in memory, products on the tensor cores with 10 bits of mantissa.
    Tf32,
    /// Operations on bf16 tensors; training with f32 weights and bf16 layers, PyTorch's `autocast`.
    Bf16,
}

/// A device that is open, and the arithmetic.
#[derive(Debug, Clone)]
pub(super) struct Place {
    pub(super) device: Device,
    pub(super) arithmetic: Arithmetic,
}

impl Place {
    pub(super) fn open(kind: Kind, arithmetic: Arithmetic) -> Result<Self> {
        let device = match kind {
            Kind::Cpu if arithmetic != Arithmetic::F32 => {
                bail!("on the cpu the arithmetic is a row's own; `--arithmetic` is for `--device cuda`")
            }
            Kind::Cpu => Device::Cpu,
            Kind::Cuda => Device::new_cuda(0)?,
        };
        #[cfg(feature = "cuda")]
        kd_core::ops::cuda::keep_freed_memory(&device)?;
        candle_core::cuda::set_gemm_reduced_precision_f32(arithmetic == Arithmetic::Tf32);
        Ok(Self { device, arithmetic })
    }

    pub(super) fn is_cpu(&self) -> bool {
        self.device.is_cpu()
    }

    /// Of float inputs.
    pub(super) fn dtype(&self) -> DType {
        if self.arithmetic == Arithmetic::Bf16 { DType::BF16 } else { DType::F32 }
    }

    /// What an encoder's layers are to compute in.
    pub(super) fn compute(&self) -> Option<DType> {
        (self.arithmetic == Arithmetic::Bf16).then_some(DType::BF16)
    }

    /// The tensor there, a float in [`Place::dtype`].
    pub(super) fn take(&self, tensor: &Tensor) -> TensorResult<Tensor> {
        let tensor = tensor.to_device(&self.device)?;
        if tensor.dtype().is_float() { tensor.to_dtype(self.dtype()) } else { Ok(tensor) }
    }

    pub(super) fn take_all(&self, tensors: &Tensors) -> TensorResult<Tensors> {
        tensors.iter().map(|(name, tensor)| Ok((name.clone(), self.take(tensor)?))).collect()
    }

    /// Largest difference of outputs, from the one on the CPU: both sides round, each in its own way.
    pub(super) fn tolerance(&self, on_cpu: f64) -> f64 {
        match self.arithmetic {
            _ if self.is_cpu() => on_cpu,
            Arithmetic::F32 => on_cpu.max(1e-3),
            Arithmetic::Tf32 => on_cpu.max(0.02),
            Arithmetic::Bf16 => on_cpu.max(0.2),
        }
    }
}
