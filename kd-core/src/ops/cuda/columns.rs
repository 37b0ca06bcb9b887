//! Functions of each value, and linear maps with what is done to their rows.

use candle_core::{CudaDevice, D, Result, Tensor};

use super::attach::{attach1, attach2, attach3};
use super::launch::{Geometry, Launch, reduce};
use super::output::{Output, aligned, device_of};
use super::product::{Factor, Target, product};
use super::{wide, wide_weight};
use crate::ops::Activation;
use crate::ops::dropout::Mask;

/// [`crate::ops::dropout()`] with a mask.
pub(crate) fn dropout(x: &Tensor, mask: Mask) -> Result<Tensor> {
    fn run(x: &Tensor, mask: Mask) -> Result<Output> {
        let (mut y, count) = (Output::like(x)?, x.elem_count());
        let launch = Launch::new(device_of(x)?, "dropout", x.dtype())?.tensor(x)?.output(&mut y)?.long(count);
        launch.dropout(Some(mask)).run(Geometry::of_values(count))?;
        Ok(y)
    }
    let x = x.contiguous()?;
    let y = run(&x, mask)?;
    attach1("dropout", &x, y, move |_, _, dy| Ok(Some(run(dy, mask)?.into_tensor())))
}

/// [`crate::ops::gelu()`].
pub(crate) fn gelu(x: &Tensor) -> Result<Tensor> {
    let x = x.contiguous()?;
    // As rows of any width: there is no bias.
    let rows = Rows { rows: x.elem_count().div_ceil(1024), width: x.elem_count().min(1024), bias: None };
    let rows = if x.elem_count().is_multiple_of(1024) { rows } else { Rows { rows: 1, width: x.elem_count(), ..rows } };
    let y = rows.forward(&x, Some(Activation::Gelu))?;
    attach1("gelu", &x, y, move |x, _, dy| {
        let (dx, _) = rows.backward(Some((x, Activation::Gelu)), dy, false)?;
        Ok(dx)
    })
}

/// Rows of `width` values, to which a bias may be added.
#[derive(Debug, Clone)]
pub(super) struct Rows {
    pub(super) rows: usize,
    pub(super) width: usize,
    /// Wide and contiguous, `(width,)`.
    pub(super) bias: Option<Tensor>,
}

/// How `enum Activation` of the kernels numbers them.
fn number(activation: Option<Activation>) -> usize {
    match activation {
        None => 0,
        Some(Activation::Gelu) => 1,
        Some(Activation::Tanh) => 2,
        Some(Activation::Relu) => 3,
        Some(Activation::GeluTanh) => 4,
    }
}

impl Rows {
    /// `f(u + bias)`.
    pub(super) fn forward(&self, u: &Tensor, activation: Option<Activation>) -> Result<Output> {
        let u = &aligned(u)?;
        let mut y = Output::like(u)?;
        let launch = Launch::new(device_of(u)?, "bias_activation", u.dtype())?.tensor(u)?.maybe(self.bias.as_ref())?;
        let launch = launch.output(&mut y)?.long(self.rows).int(self.width)?.int(number(activation))?;
        launch.run(Geometry::of_columns(self.rows, self.width, self.width))?;
        Ok(y)
    }

    /// The gradient of `u` where there is a function of it, and the sum over rows if it is wanted.
    pub(super) fn backward(
        &self,
        of: Option<(&Tensor, Activation)>,
        dy: &Tensor,
        want_sum: bool,
    ) -> Result<(Option<Tensor>, Option<Tensor>)> {
        let dy = &aligned(dy)?;
        let u = of.map(|(u, _)| aligned(u)).transpose()?;
        let device: &CudaDevice = device_of(dy)?;
        let geometry = Geometry::of_columns(self.rows, self.width, self.width);
        let mut du = of.map(|_| Output::like(dy)).transpose()?;
        let shape = (geometry.grid.1 as usize, self.width);
        let mut partial = if want_sum { Some(Output::new(shape, wide(dy.dtype()), device)?) } else { None };
        let launch = Launch::new(device, "bias_activation_backward", dy.dtype())?.maybe(u.as_ref())?;
        let launch = launch.maybe(self.bias.as_ref())?.tensor(dy)?.maybe_output(du.as_mut())?;
        let launch = launch.maybe_output(partial.as_mut())?.long(self.rows).int(self.width)?;
        launch.int(number(of.map(|(_, activation)| activation)))?.run(geometry)?;
        let sum = partial.as_mut().map(|partial| reduce(device, partial)).transpose()?;
        Ok((du.map(Output::into_tensor), sum))
    }
}

/// [`crate::ops::linear()`] and [`crate::ops::linear_activation`].
pub(crate) fn linear(
    x: &Tensor,
    weight: &Tensor,
    bias: Option<&Tensor>,
    activation: Option<Activation>,
) -> Result<Tensor> {
    let (x, weight) = (x.contiguous()?, weight.contiguous()?);
    let (out, width) = weight.dims2()?;
    let rows = Rows {
        rows: x.elem_count() / width,
        width: out,
        bias: bias.map(|bias| wide_weight(bias, x.dtype())).transpose()?,
    };
    let mut shape = x.dims().to_vec();
    shape.pop();
    shape.push(out);
    let mut u = Output::new(shape, x.dtype(), device_of(&x)?)?;
    let (left, right) = (Factor::new(&x, rows.rows, width)?, Factor::new(&weight, out, width)?.t());
    product(device_of(&x)?, &mut u, Target::Replace, left, right, 1)?;
    let Some(bias) = bias else {
        return attach2("linear", [&x, &weight], u, |[x, weight], _, dy| backward(x, weight, dy));
    };
    let u = u.into_tensor();
    let y = rows.forward(&u, activation)?;
    let kept = activation.map(|activation| (u, activation));
    attach3("linear", [&x, &weight, bias], y, move |[x, weight, bias], _, dy| {
        let of = kept.as_ref().map(|(u, activation)| (u, *activation));
        let (du, sum) =
            if of.is_some() || bias.track_op() { rows.backward(of, dy, bias.track_op())? } else { (None, None) };
        let [dx, dw] = backward(x, weight, du.as_ref().unwrap_or(dy))?;
        let db = sum.map(|sum| sum.to_dtype(bias.dtype())).transpose()?;
        Ok([dx, dw, db])
    })
}

/// Gradients of the input and the weight of `x Wᵀ`.
fn backward(x: &Tensor, weight: &Tensor, dy: &Tensor) -> Result<[Option<Tensor>; 2]> {
    let map = Map::of(x, weight)?;
    let dx = if x.track_op() { Some(map.input_gradient(dy, weight, x)?.into_tensor()) } else { None };
    let dw = if weight.track_op() { Some(map.weight_gradient(dy, x)?) } else { None };
    Ok([dx, dw])
}

/// A linear map of `rows` rows from `width` to `out` values, its weight `(out, width)`.
#[derive(Debug, Clone, Copy)]
pub(super) struct Map {
    pub(super) rows: usize,
    pub(super) width: usize,
    pub(super) out: usize,
}

impl Map {
    fn of(x: &Tensor, weight: &Tensor) -> Result<Self> {
        let (out, width) = weight.dims2()?;
        Ok(Self { rows: x.elem_count() / x.dim(D::Minus1)?, width, out })
    }

    /// `x Wᵀ`, `(rows, out)`.
    pub(super) fn forward(self, x: &Tensor, weight: &Tensor) -> Result<Tensor> {
        let Self { rows, width, out } = self;
        let mut y = Output::new((rows, out), x.dtype(), device_of(x)?)?;
        let (left, right) = (Factor::new(x, rows, width)?, Factor::new(weight, out, width)?.t());
        product(device_of(x)?, &mut y, Target::Replace, left, right, 1)?;
        Ok(y.into_tensor())
    }

    /// `dy W`, in the shape of `x`.
    pub(super) fn input_gradient(self, dy: &Tensor, weight: &Tensor, x: &Tensor) -> Result<Output> {
        let mut dx = Output::like(x)?;
        self.write_input_gradient(&mut dx, Target::Replace, dy, weight)?;
        Ok(dx)
    }

    /// `dx = dy W` or `dx += dy W`.
    pub(super) fn write_input_gradient(
        self,
        dx: &mut Output,
        target: Target,
        dy: &Tensor,
        weight: &Tensor,
    ) -> Result<()> {
        let Self { rows, width, out } = self;
        product(device_of(dy)?, dx, target, Factor::new(dy, rows, out)?, Factor::new(weight, out, width)?, 1)
    }

    /// `dyᵀ x`, `(out, width)`.
    pub(super) fn weight_gradient(self, dy: &Tensor, x: &Tensor) -> Result<Tensor> {
        let Self { rows, width, out } = self;
        let mut dw = Output::new((out, width), x.dtype(), device_of(x)?)?;
        let (left, right) = (Factor::new(dy, rows, out)?.t(), Factor::new(x, rows, width)?);
        product(device_of(x)?, &mut dw, Target::Replace, left, right, 1)?;
        Ok(dw.into_tensor())
    }
}
