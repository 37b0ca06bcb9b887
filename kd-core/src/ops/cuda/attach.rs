//! Results of kernels in Candle's graph.
//!
//! A result is computed first; then a custom op, whose forward hands out what is there, ties it to its arguments with a
//! closure as its backward. Arguments without a graph get no op at all, and gradients of variables are handed over.

use std::sync::{Mutex, PoisonError};

use candle_core::{CpuStorage, CudaStorage, CustomOp1, CustomOp2, CustomOp3, Layout, Result, Shape, Tensor, bail};

use super::output::Output;
use crate::ops::backward::hand_over;

struct Attached<F> {
    name: &'static str,
    result: Mutex<Option<Output>>,
    backward: F,
}

impl<F> Attached<F> {
    fn new(name: &'static str, result: Output, backward: F) -> Self {
        Self { name, result: Mutex::new(Some(result)), backward }
    }

    fn hand_out(&self) -> Result<(CudaStorage, Shape)> {
        match self.result.lock().unwrap_or_else(PoisonError::into_inner).take() {
            Some(result) => {
                let shape = result.shape().clone();
                Ok((result.into_storage(), shape))
            }
            None => bail!("{}: the result was handed out already", self.name),
        }
    }

    fn no_cpu(&self) -> Result<(CpuStorage, Shape)> {
        bail!("{}: expected a tensor on a cuda device", self.name)
    }
}

/// `y` with a backward into one argument; `backward` gets the argument, the result and its contiguous gradient.
pub(super) fn attach1(
    name: &'static str,
    x: &Tensor,
    y: Output,
    backward: impl Fn(&Tensor, &Tensor, &Tensor) -> Result<Option<Tensor>> + Send + Sync + 'static,
) -> Result<Tensor> {
    if x.track_op() { x.apply_op1(Attached::new(name, y, backward)) } else { Ok(y.into_tensor()) }
}

/// The same into two arguments.
pub(super) fn attach2(
    name: &'static str,
    xs: [&Tensor; 2],
    y: Output,
    backward: impl Fn([&Tensor; 2], &Tensor, &Tensor) -> Result<[Option<Tensor>; 2]> + Send + Sync + 'static,
) -> Result<Tensor> {
    if xs.iter().any(|x| x.track_op()) {
        xs[0].apply_op2(xs[1], Attached::new(name, y, backward))
    } else {
        Ok(y.into_tensor())
    }
}

/// The same into three arguments.
pub(super) fn attach3(
    name: &'static str,
    xs: [&Tensor; 3],
    y: Output,
    backward: impl Fn([&Tensor; 3], &Tensor, &Tensor) -> Result<[Option<Tensor>; 3]> + Send + Sync + 'static,
) -> Result<Tensor> {
    if xs.iter().any(|x| x.track_op()) {
        xs[0].apply_op3(xs[1], xs[2], Attached::new(name, y, backward))
    } else {
        Ok(y.into_tensor())
    }
}

impl<F> CustomOp1 for Attached<F>
where
    F: Fn(&Tensor, &Tensor, &Tensor) -> Result<Option<Tensor>>,
{
    fn name(&self) -> &'static str {
        self.name
    }

    fn cpu_fwd(&self, _: &CpuStorage, _: &Layout) -> Result<(CpuStorage, Shape)> {
        self.no_cpu()
    }

    fn cuda_fwd(&self, _: &CudaStorage, _: &Layout) -> Result<(CudaStorage, Shape)> {
        self.hand_out()
    }

    fn bwd(&self, x: &Tensor, y: &Tensor, dy: &Tensor) -> Result<Option<Tensor>> {
        let gradient = (self.backward)(x, y, &dy.contiguous()?)?;
        Ok(gradient.and_then(|gradient| hand_over(x, gradient)))
    }
}

impl<F> CustomOp2 for Attached<F>
where
    F: Fn([&Tensor; 2], &Tensor, &Tensor) -> Result<[Option<Tensor>; 2]>,
{
    fn name(&self) -> &'static str {
        self.name
    }

    fn cpu_fwd(&self, _: &CpuStorage, _: &Layout, _: &CpuStorage, _: &Layout) -> Result<(CpuStorage, Shape)> {
        self.no_cpu()
    }

    fn cuda_fwd(&self, _: &CudaStorage, _: &Layout, _: &CudaStorage, _: &Layout) -> Result<(CudaStorage, Shape)> {
        self.hand_out()
    }

    fn bwd(&self, x0: &Tensor, x1: &Tensor, y: &Tensor, dy: &Tensor) -> Result<(Option<Tensor>, Option<Tensor>)> {
        let [d0, d1] = (self.backward)([x0, x1], y, &dy.contiguous()?)?;
        Ok((d0.and_then(|d| hand_over(x0, d)), d1.and_then(|d| hand_over(x1, d))))
    }
}

impl<F> CustomOp3 for Attached<F>
where
    F: Fn([&Tensor; 3], &Tensor, &Tensor) -> Result<[Option<Tensor>; 3]>,
{
    fn name(&self) -> &'static str {
        self.name
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
        self.no_cpu()
    }

    fn cuda_fwd(
        &self,
        _: &CudaStorage,
        _: &Layout,
        _: &CudaStorage,
        _: &Layout,
        _: &CudaStorage,
        _: &Layout,
    ) -> Result<(CudaStorage, Shape)> {
        self.hand_out()
    }

    fn bwd(
        &self,
        x0: &Tensor,
        x1: &Tensor,
        x2: &Tensor,
        y: &Tensor,
        dy: &Tensor,
    ) -> Result<(Option<Tensor>, Option<Tensor>, Option<Tensor>)> {
        let [d0, d1, d2] = (self.backward)([x0, x1, x2], y, &dy.contiguous()?)?;
        let [d0, d1, d2] = [(x0, d0), (x1, d1), (x2, d2)].map(|(x, d)| d.and_then(|d| hand_over(x, d)));
        Ok((d0, d1, d2))
    }
}
