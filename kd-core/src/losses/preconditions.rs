//! What the losses check before they compute.

use candle_core::{DType, Result, Tensor, bail};

/// Checks one tensor of logits, `(rows, classes)` float with at least one class; returns the two.
pub(super) fn logits(loss: &str, name: &str, tensor: &Tensor) -> Result<(usize, usize)> {
    let &[rows, classes] = tensor.dims() else {
        bail!("{loss}: expected {name} of shape (rows, classes), found {:?}", tensor.dims());
    };
    if classes == 0 {
        bail!("{loss}: expected {name} with at least one class, found shape {:?}", tensor.dims());
    }
    if !matches!(tensor.dtype(), DType::F16 | DType::BF16 | DType::F32 | DType::F64) {
        bail!("{loss}: the {name} has dtype {:?}, expected a float", tensor.dtype());
    }
    Ok((rows, classes))
}

/// Checks two tensors of one shape `(rows, classes)` and one float dtype; returns the shape.
pub(super) fn pair(loss: &str, student: &Tensor, teacher: &Tensor) -> Result<(usize, usize)> {
    if student.rank() != 2 || student.dims() != teacher.dims() {
        bail!(
            "{loss}: expected two tensors of one shape (rows, classes), found {:?} and {:?}",
            student.dims(),
            teacher.dims()
        );
    }
    let shape = logits(loss, "student", student)?;
    logits(loss, "teacher", teacher)?;
    if student.dtype() != teacher.dtype() {
        bail!(
            "{loss}: the student has dtype {:?} and the teacher {:?}, expected one",
            student.dtype(),
            teacher.dtype()
        );
    }
    Ok(shape)
}

/// Checks labels `(rows,)` u32 and returns them.
pub(super) fn labels(loss: &str, labels: &Tensor, (rows, classes): (usize, usize)) -> Result<Vec<u32>> {
    if labels.dims() != [rows] || labels.dtype() != DType::U32 {
        bail!("{loss}: expected labels {:?} of u32, found {:?} of {:?}", [rows], labels.dims(), labels.dtype());
    }
    let labels = labels.to_vec1::<u32>()?;
    match labels.iter().position(|&label| label as usize >= classes) {
        Some(row) => bail!("{loss}: label {} with {classes} classes, in row {row}", labels[row]),
        None => Ok(labels),
    }
}

/// Checks one finite weight of at least 0 per class.
pub(super) fn class_weights(loss: &str, weights: &[f64], classes: usize) -> Result<()> {
    if weights.len() != classes {
        bail!("{loss}: expected {classes} class weights, found {}", weights.len());
    }
    match weights.iter().position(|weight| !(weight.is_finite() && *weight >= 0.0)) {
        Some(class) => {
            bail!("{loss}: the weight of class {class} is {}, expected a finite value of at least 0", weights[class])
        }
        None => Ok(()),
    }
}

/// Checks `signs` `(rows,)` of the dtype of `like`, and detaches them. That each is 1 or -1 is not looked at: it would be a
/// copy from the device.
pub(super) fn signs(loss: &str, signs: &Tensor, like: &Tensor) -> Result<Tensor> {
    if signs.dims() != [like.dim(0)?] || signs.dtype() != like.dtype() {
        bail!(
            "{loss}: expected signs {:?} of {:?}, found {:?} of {:?}",
            [like.dim(0)?],
            like.dtype(),
            signs.dims(),
            signs.dtype()
        );
    }
    wide(&signs.detach())
}

/// Checks a number of a loss's config.
pub(super) fn number(loss: &str, name: &str, value: f64, expected: &str, holds: bool) -> Result<()> {
    if !(value.is_finite() && holds) {
        bail!("{loss}: {name} {value}, expected {expected}");
    }
    Ok(())
}

/// Checks a weight of a part of a loss.
pub(super) fn weight(loss: &str, name: &str, weight: f64) -> Result<()> {
    if !(weight.is_finite() && weight >= 0.0) {
        bail!("{loss}: {name} {weight}, expected a finite value of at least 0");
    }
    Ok(())
}

/// `max(x, 0)`, with slope 0 at 0, where Candle's has 1.
pub(super) fn positive(x: &Tensor) -> Result<Tensor> {
    x.gt(0f64)?.where_cond(x, &x.zeros_like()?)
}

/// `ln(1 + e^x)`; no `x` is too large.
pub(super) fn softplus(x: &Tensor) -> Result<Tensor> {
    // A constant: the logarithm of the sum does not depend on it, and so has the right gradient at 0 too.
    let larger = x.detach().maximum(0f64)?;
    &larger + ((x - &larger)?.exp()? + larger.neg()?.exp()?)?.log()?
}

/// Half precision as f32, the rest as it is; differentiable.
pub(super) fn wide(tensor: &Tensor) -> Result<Tensor> {
    match tensor.dtype() {
        DType::F16 | DType::BF16 => tensor.to_dtype(DType::F32),
        _ => Ok(tensor.clone()),
    }
}
