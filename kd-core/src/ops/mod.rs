//! Differentiable kernels.

pub mod cpu;
pub mod crf;
