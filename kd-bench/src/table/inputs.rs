//! Random inputs; each value depends on the seed and its place alone.

use candle_core::{Device, Result, Shape, Tensor};
use candle_nn::VarBuilder;
use kd_core::variables::{Variables, mix};

use super::row::Tensors;

/// Values of mean 0 and variance 1, uniform in ±√3; f32.
pub(super) fn random(seed: u64, shape: impl Into<Shape>) -> Result<Tensor> {
    let shape = shape.into();
    let unit = |place| (mix(seed, place) >> 40) as f32 / (1u64 << 23) as f32 - 1.0; // [-1, 1)
    let values: Vec<f32> = (0..shape.elem_count() as u64).map(|place| 3f32.sqrt() * unit(place)).collect();
    Tensor::from_vec(values, shape, &Device::Cpu)
}

/// Numbers of `0..below`, u32.
pub(super) fn ids(seed: u64, shape: impl Into<Shape>, below: u64) -> Result<Tensor> {
    let shape = shape.into();
    let values: Vec<u32> = (0..shape.elem_count() as u64).map(|place| (mix(seed, place) % below) as u32).collect();
    Tensor::from_vec(values, shape, &Device::Cpu)
}

/// The values of `variables`, moved a little so that no bias is 0 and no scale 1, as tensors that are not trained.
pub(super) fn frozen(variables: &Variables) -> Result<Tensors> {
    let moved = |(seed, (name, tensor)): (u64, (String, Tensor))| {
        let noise = (random(seed, tensor.shape())? * 0.02)?;
        Ok((name, (tensor.detach() + noise)?))
    };
    (0..).zip(variables.tensors()).map(moved).collect()
}

/// A builder of these tensors.
pub(super) fn builder(tensors: &Tensors) -> VarBuilder<'static> {
    VarBuilder::from_tensors(tensors.clone(), candle_core::DType::F32, &Device::Cpu)
}

/// `weights`, named so for PyTorch, and further inputs.
pub(super) fn with_weights<const N: usize>(
    weights: impl IntoIterator<Item = (String, Tensor)>,
    more: [(&str, &Tensor); N],
) -> Tensors {
    let weights = weights.into_iter().map(|(name, tensor)| (format!("weights.{name}"), tensor));
    weights.chain(named(more)).collect()
}

/// Tensors by name.
pub(super) fn named<const N: usize>(tensors: [(&str, &Tensor); N]) -> Tensors {
    tensors.into_iter().map(|(name, tensor)| (name.to_string(), tensor.clone())).collect()
}
