//! The backward pass without zeros and additions for every weight.
//!
//! Candle starts the gradient of each tensor as zeros of its size and adds what the op computed: three passes over memory
//! more than needed, and for a vocabulary's embeddings as much time as the gradient itself. Inside [`backward`] the ops
//! of this crate hand the gradients of variables, inputs and weights alike, over directly. The result is what `loss.backward()` gives, which works
//! as well; only slower.
//!
//! ```
//! use candle_core::{Device, Tensor, Var};
//! use kd_core::ops;
//! let weight = Var::new(&[[1f32, 2.]], &Device::Cpu)?;
//! let y = ops::linear(&Tensor::new(&[[3f32, 4.]], &Device::Cpu)?, &weight, None)?;
//! let gradients = ops::backward(&y.sum_all()?)?;
//! assert_eq!(gradients.get(&weight).map(|g| g.to_vec2::<f32>()).transpose()?, Some(vec![vec![3., 4.]]));
//! # Ok::<(), candle_core::Error>(())
//! ```

use std::cell::RefCell;

use candle_core::backprop::GradStore;
use candle_core::{Result, Tensor};

thread_local! {
    /// Variables and their gradients, while a [`backward`] runs on this thread: Candle goes through a graph on one.
    static HANDED_OVER: RefCell<Option<Vec<(Tensor, Tensor)>>> = const { RefCell::new(None) };
}

/// Empties the place when a backward ends, however it ends.
struct Guard(Option<Vec<(Tensor, Tensor)>>);

impl Drop for Guard {
    fn drop(&mut self) {
        HANDED_OVER.replace(self.0.take());
    }
}

/// The gradients of `loss` with respect to all variables, as `loss.backward()`.
///
/// # Errors
/// If an operation of the graph has no backward.
pub fn backward(loss: &Tensor) -> Result<GradStore> {
    let guard = Guard(HANDED_OVER.replace(Some(Vec::new())));
    let mut gradients = loss.backward()?;
    let handed_over = HANDED_OVER.take().unwrap_or_default();
    drop(guard);
    for (variable, gradient) in handed_over {
        // A variable that is used by Candle's operations too has one there.
        let sum = match gradients.remove(&variable) {
            Some(other) => (other + gradient)?,
            None => gradient,
        };
        gradients.insert(&variable, sum);
    }
    Ok(gradients)
}

/// What an op returns as the gradient of an argument: nothing if nobody wants it or if it could be handed over.
pub(crate) fn hand_over(argument: &Tensor, gradient: Tensor) -> Option<Tensor> {
    if !argument.track_op() {
        return None;
    }
    // Another tensor needs it inside the graph, for what is in front of it.
    if !argument.is_variable() {
        return Some(gradient);
    }
    HANDED_OVER.with_borrow_mut(|handed_over| match handed_over {
        Some(handed_over) => {
            // Added at once, so that a weight of many uses does not keep a gradient of each; what cannot be added is an
            // error in `backward`.
            let other = handed_over.iter_mut().find(|(variable, _)| variable.id() == argument.id());
            match other.map(|(_, other)| (&*other + &gradient).map(|sum| *other = sum)) {
                Some(Ok(())) => {}
                _ => handed_over.push((argument.clone(), gradient)),
            }
            None
        }
        None => Some(gradient),
    })
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::ops;
    use crate::testing::{assert_close, random};
    use candle_core::{Device, Var};

    #[test]
    fn it_gives_what_candle_gives() {
        let [weight, other] = [1, 2].map(|seed| Var::from_tensor(&random(seed, (3, 3)).unwrap()).unwrap());
        let bias = Var::from_tensor(&random(3, 3).unwrap()).unwrap();
        let table = Var::from_tensor(&random(4, (5, 3)).unwrap()).unwrap();
        let ids = Tensor::new(&[[0u32, 4], [4, 1]], &Device::Cpu).unwrap();
        let x = ops::embedding(&table, &ids).unwrap();
        // One weight twice, once behind an operation, and in one of Candle's; the other has no gradient.
        let x = ops::linear(&x, &weight, Some(&bias)).unwrap();
        let x = ops::linear(&x, &weight.t().unwrap(), None).unwrap();
        let x = ops::linear_activation(&x, &weight, &bias, ops::Activation::Gelu).unwrap();
        let x = ops::layer_norm(&x, &bias, &bias, 1e-3).unwrap();
        let loss = (x.sum_all().unwrap() + weight.exp().unwrap().sum_all().unwrap()).unwrap();
        let (found, expected) = (backward(&loss).unwrap(), loss.backward().unwrap());
        for variable in [&weight, &bias, &table] {
            assert_close(found.get(variable).unwrap(), expected.get(variable).unwrap(), 1e-14, 0.0).unwrap();
        }
        assert!(found.get(&other).is_none());
        assert_eq!(found.get_ids().count(), expected.get_ids().count());
    }

    #[test]
    fn an_error_leaves_the_next_backward_as_it_was() {
        struct NoBackward;
        impl candle_core::CustomOp1 for NoBackward {
            fn name(&self) -> &'static str {
                "no-backward"
            }
            fn cpu_fwd(
                &self,
                storage: &candle_core::CpuStorage,
                layout: &candle_core::Layout,
            ) -> Result<(candle_core::CpuStorage, candle_core::Shape)> {
                Ok((storage.clone(), layout.shape().clone()))
            }
        }
        let weight = Var::from_tensor(&random(1, (2, 3)).unwrap()).unwrap();
        let y = ops::linear(&random(2, (4, 3)).unwrap(), &weight, None).unwrap();
        assert!(backward(&y.apply_op1(NoBackward).unwrap()).is_err());
        // Outside, the gradient is in Candle's store.
        assert!(y.backward().unwrap().get(&weight).is_some());
    }
}
