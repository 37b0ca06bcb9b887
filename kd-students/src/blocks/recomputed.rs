//! A function of examples whose inside is larger than what goes in and comes out, and is not kept.
//!
//! A convolution over maps reads each place many times: nine times the map for windows of 3 × 3. Kept for the backward of a batch
//! that is gigabytes. Here a few examples are computed at a time, and the backward computes them again (Chen et al. 2016,
//! "Training deep nets with sublinear memory cost", §4.1). How many depends on sizes only, so the bytes are those of any number
//! of threads. Devices other than the CPU keep everything.

use std::sync::{Mutex, PoisonError};

use candle_core::{CpuStorage, CustomOp3, Layout, Result, Shape, Storage, Tensor, Var, bail};
use kd_core::ops;

/// Values of the inside that are there at a time: 64 MiB in f32.
const INSIDE: usize = 1 << 24;

type Function = dyn Fn(&Tensor, &Tensor, &Tensor) -> Result<Tensor> + Send + Sync;

/// `f(x, weight, bias)`, where `f` treats the examples of `x`, on axis 0, one by one and needs `inside` values for each.
pub(crate) fn recomputed(
    x: &Tensor,
    weight: &Tensor,
    bias: &Tensor,
    inside: usize,
    f: impl Fn(&Tensor, &Tensor, &Tensor) -> Result<Tensor> + Send + Sync + 'static,
) -> Result<Tensor> {
    let examples = (INSIDE / inside.max(1)).max(1);
    in_pieces(x, weight, bias, examples, Box::new(f))
}

fn in_pieces(x: &Tensor, weight: &Tensor, bias: &Tensor, examples: usize, f: Box<Function>) -> Result<Tensor> {
    if !x.device().is_cpu() || x.dim(0)? <= examples {
        return f(x, weight, bias);
    }
    let [detached, of_weight, of_bias] = [x, weight, bias].map(Tensor::detach);
    let pieces = pieces(&detached, examples)?;
    let pieces = pieces.iter().map(|piece| f(piece, &of_weight, &of_bias)).collect::<Result<Vec<_>>>()?;
    let y = Tensor::cat(&pieces, 0)?;
    if ![x, weight, bias].iter().any(|tensor| tensor.track_op()) {
        return Ok(y);
    }
    x.apply_op3(weight, bias, Recomputed { f, examples, y: Mutex::new(Some(y)) })
}

/// The examples, so many at a time.
fn pieces(x: &Tensor, examples: usize) -> Result<Vec<Tensor>> {
    let batch = x.dim(0)?;
    let piece = |start: usize| x.narrow(0, start, examples.min(batch - start))?.contiguous();
    (0..batch).step_by(examples).map(piece).collect()
}

struct Recomputed {
    f: Box<Function>,
    examples: usize,
    /// The result, until the op hands it on.
    y: Mutex<Option<Tensor>>,
}

impl CustomOp3 for Recomputed {
    fn name(&self) -> &'static str {
        "recomputed"
    }

    fn cpu_fwd(
        &self,
        _: &CpuStorage,
        _: &Layout,
        _: &CpuStorage,
        _: &Layout,
        _: &CpuStorage,
        _: &Layout,
    ) -> Result<(CpuStorage, Shape)> {
        let Some(y) = self.y.lock().unwrap_or_else(PoisonError::into_inner).take() else {
            bail!("recomputed: the result was taken before");
        };
        let (storage, layout) = y.storage_and_layout();
        match &*storage {
            Storage::Cpu(storage) if layout.is_contiguous() && layout.start_offset() == 0 => {
                Ok((storage.clone(), layout.shape().clone()))
            }
            _ => bail!("recomputed: expected a contiguous result on the cpu"),
        }
    }

    fn bwd(
        &self,
        x: &Tensor,
        weight: &Tensor,
        bias: &Tensor,
        _: &Tensor,
        grad: &Tensor,
    ) -> Result<(Option<Tensor>, Option<Tensor>, Option<Tensor>)> {
        let [of_weight, of_bias] = [weight, bias].map(|tensor| Var::from_tensor(&tensor.detach().copy()?));
        let (of_weight, of_bias) = (of_weight?, of_bias?);
        let (mut dx, mut dw, mut db) = (Vec::new(), None, None);
        let add = |sum: &mut Option<Tensor>, gradient: Option<&Tensor>| -> Result<()> {
            if let Some(gradient) = gradient {
                *sum = Some(match sum.take() {
                    Some(sum) => (sum + gradient)?,
                    None => gradient.clone(),
                });
            }
            Ok(())
        };
        for (piece, grad) in pieces(&x.detach(), self.examples)?.iter().zip(pieces(grad, self.examples)?) {
            let variable = x.track_op().then(|| Var::from_tensor(piece)).transpose()?;
            let y = (self.f)(variable.as_ref().map_or(piece, |variable| variable.as_tensor()), &of_weight, &of_bias)?;
            let gradients = ops::backward(&(y * grad)?.sum_all()?)?;
            if let Some(variable) = variable {
                dx.push(gradients.get(&variable).map_or_else(|| piece.zeros_like(), |gradient| Ok(gradient.clone()))?);
            }
            add(&mut dw, gradients.get(&of_weight))?;
            add(&mut db, gradients.get(&of_bias))?;
        }
        let dx = if dx.is_empty() { None } else { Some(Tensor::cat(&dx, 0)?) };
        Ok((dx, dw, db))
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use kd_core::testing::{assert_close, random};

    fn function() -> Box<Function> {
        Box::new(|x, weight, bias| ops::linear(&x.sqr()?, weight, Some(bias)))
    }

    #[test]
    fn values_and_gradients_are_those_of_the_whole() {
        let [x, weight, bias] = [random(1, (7, 2, 3)), random(2, (4, 3)), random(3, 4)]
            .map(|tensor| Var::from_tensor(&tensor.unwrap()).unwrap());
        let scale = Var::from_tensor(&random(4, (7, 2, 4)).unwrap()).unwrap();
        let of = |examples| {
            let y = in_pieces(&x.sin().unwrap(), &weight, &bias, examples, function()).unwrap();
            let loss = (&y * scale.as_tensor()).unwrap().sum_all().unwrap();
            (y, [loss.backward().unwrap(), ops::backward(&loss).unwrap()])
        };
        let (whole, [expected, _]) = of(7);
        for examples in [1, 3] {
            let (y, all) = of(examples);
            assert_close(&y, &whole, 1e-14, 0.0).unwrap();
            for gradients in all {
                for variable in [&x, &weight, &bias, &scale] {
                    let [found, expected] = [&gradients, &expected].map(|gradients| gradients.get(variable).unwrap());
                    assert_close(found, expected, 1e-13, 1e-13).unwrap();
                }
            }
        }
        let y = in_pieces(&x.detach(), &weight.detach(), &bias.detach(), 2, function()).unwrap();
        assert_close(&y, &in_pieces(&x, &weight, &bias, 7, function()).unwrap(), 1e-14, 0.0).unwrap();
        assert!(!y.track_op());
    }
}
