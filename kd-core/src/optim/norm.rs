//! The norm of all gradients together, and clipping by it.

use candle_core::backprop::GradStore;
use candle_core::{CpuStorage, DType, Result, Storage, Tensor, Var};
use rayon::prelude::*;

use super::CHUNK;

/// Euclidean norm of all gradients of `named` together; a variable without a gradient counts as 0.
///
/// Sums of squares are taken in f64 on the CPU. On another device they are summed there, in f32, and read once for
/// all variables. [`Optimizer::gradient_norm`](super::Optimizer::gradient_norm) has sparse gradients too.
pub fn gradient_norm<'a>(named: impl IntoIterator<Item = &'a Var>, gradients: &GradStore) -> Result<f64> {
    norm(named.into_iter().filter_map(|var| gradients.get(var.as_tensor())))
}

/// Euclidean norm of all tensors together.
pub(crate) fn norm<'a>(tensors: impl IntoIterator<Item = &'a Tensor>) -> Result<f64> {
    let (mut sum, mut on_device) = (0.0, Vec::new());
    for tensor in tensors {
        if tensor.device().is_cpu() {
            sum += sum_of_squares(tensor)?;
        } else {
            on_device.push(tensor.to_dtype(DType::F32)?.sqr()?.sum_all()?);
        }
    }
    if !on_device.is_empty() {
        sum += f64::from(Tensor::stack(&on_device, 0)?.sum_all()?.to_scalar::<f32>()?);
    }
    Ok(sum.sqrt())
}

/// The factor that brings a gradient of norm `norm` down to `max_norm`, and 1 below it
/// (as PyTorch's `clip_grad_norm_`, which adds 1e-6 to the divisor).
pub fn clip_scale(norm: f64, max_norm: f64) -> f64 {
    (max_norm / (norm + 1e-6)).min(1.0)
}

/// Sum of squares, in f64 over chunks of fixed size, so that it is the same for any number of threads.
pub(crate) fn sum_of_squares(tensor: &Tensor) -> Result<f64> {
    let tensor = tensor.contiguous()?;
    {
        let (storage, layout) = tensor.storage_and_layout();
        if let (Storage::Cpu(CpuStorage::F32(values)), Some((start, end))) = (&*storage, layout.contiguous_offsets()) {
            let partial = |values: &[f32]| {
                let mut lanes = [0f64; 8];
                let whole = values.chunks_exact(8);
                let rest: f64 = whole.remainder().iter().map(|&x| f64::from(x) * f64::from(x)).sum();
                for values in whole {
                    for (lane, &x) in lanes.iter_mut().zip(values) {
                        *lane += f64::from(x) * f64::from(x);
                    }
                }
                lanes.iter().sum::<f64>() + rest
            };
            let partials: Vec<f64> = values[start..end].par_chunks(CHUNK).map(partial).collect();
            return Ok(partials.iter().sum());
        }
    }
    tensor.to_dtype(DType::F64)?.sqr()?.sum_all()?.to_scalar()
}

#[cfg(test)]
mod tests {
    use super::*;
    use candle_core::Device;

    #[test]
    fn the_norm_spans_all_variables_and_clipping_keeps_small_ones() {
        let a = Var::new(&[[3f32]], &Device::Cpu).unwrap();
        let b = Var::new(&[[4f32]], &Device::Cpu).unwrap();
        let loss = ((a.sqr().unwrap() + b.sqr().unwrap()).unwrap() * 0.5).unwrap().sum_all().unwrap();
        let norm = gradient_norm([&a, &b], &loss.backward().unwrap()).unwrap();
        assert_eq!(norm, 5.0);
        assert_eq!(clip_scale(norm, 6.0), 1.0);
        assert!((clip_scale(norm, 1.0) - 0.2).abs() < 1e-6);
    }
}
