//! Checks for tests of layers: gradients, closeness, liveness.
//!
//! All of them return an error that says where, so a test ends in `?` or `unwrap`:
//!
//! ```
//! use kd_core::testing::{check_gradient, random};
//! check_gradient(|x| x.sqr(), &random(1, (2, 3))?, 1e-8)?;
//! # Ok::<(), candle_core::Error>(())
//! ```

use std::sync::OnceLock;

use candle_core::{DType, Device, Result, Shape, Tensor, Var, bail};

use crate::variables::{Variables, mix};

/// The device that tests of tensors run on: the CPU, or the first GPU where the environment variable `KD_TEST_DEVICE` is
/// `cuda`. One for the whole process, for Candle takes two openings of a GPU for two devices. A GPU has one stream for all
/// threads: every test has a thread of its own, and where it ends with work in a stream of its own the driver may hang.
///
/// # Panics
/// If the variable is something else, or there is no such device.
pub fn device() -> &'static Device {
    static DEVICE: OnceLock<Device> = OnceLock::new();
    DEVICE.get_or_init(|| match std::env::var("KD_TEST_DEVICE").as_deref() {
        Err(_) | Ok("cpu") => Device::Cpu,
        Ok("cuda") => match Device::new_cuda_with_stream(0) {
            Ok(device) => device,
            Err(error) => panic!("KD_TEST_DEVICE=cuda: {error}"),
        },
        Ok(other) => panic!("KD_TEST_DEVICE: expected cpu or cuda, found `{other}`"),
    })
}

/// Values in `[-1, 1)` that depend on `seed` and index only; `f64`, on [`device`].
pub fn random(seed: u64, shape: impl Into<Shape>) -> Result<Tensor> {
    let shape = shape.into();
    let values = (0..shape.elem_count() as u64).map(|idx| (mix(seed, idx) >> 11) as f64 / (1u64 << 52) as f64 - 1.0);
    Tensor::from_vec(values.collect::<Vec<f64>>(), shape, device())
}

/// Compares the gradient of `Σ f(x) · w`, for fixed random weights `w` in `[-1, 1)`, with central differences.
///
/// `x` must be `f64`; each value is moved by `1e-5 · max(1, |x|)`. The check fails where
/// `|gradient - difference| > tolerance · (1 + |difference|)`, or where no gradient arrives though `f` depends on `x`.
///
/// # Errors
/// If the gradient is wrong (the message has the worst index and both values), or `f` fails.
pub fn check_gradient(f: impl Fn(&Tensor) -> Result<Tensor>, x: &Tensor, tolerance: f64) -> Result<()> {
    check_gradients(|inputs| f(&inputs[0]), std::slice::from_ref(x), tolerance)
}

/// [`check_gradient`] for each of several inputs.
///
/// # Errors
/// As there; the message says which input, counted from 0.
pub fn check_gradients(f: impl Fn(&[Tensor]) -> Result<Tensor>, inputs: &[Tensor], tolerance: f64) -> Result<()> {
    if let Some(input) = inputs.iter().find(|input| input.dtype() != DType::F64) {
        bail!("a gradient is checked in f64, found {:?}", input.dtype());
    }
    let loss = |inputs: &[Tensor]| {
        let y = f(inputs)?;
        (&y * random(0x5eed, y.shape())?)?.sum_all()
    };
    let variables = inputs.iter().map(|input| Var::from_tensor(&input.copy()?)).collect::<Result<Vec<_>>>()?;
    let tensors: Vec<_> = variables.iter().map(|variable| variable.as_tensor().clone()).collect();
    let gradients = loss(&tensors)?.backward()?;
    for (input_idx, variable) in variables.iter().enumerate() {
        let values: Vec<f64> = variable.flatten_all()?.to_vec1()?;
        let found = match gradients.get(variable) {
            Some(gradient) if gradient.dims() != variable.dims() => {
                bail!("input {input_idx}: expected a gradient of {:?}, found {:?}", variable.dims(), gradient.dims())
            }
            Some(gradient) => gradient.flatten_all()?.to_vec1()?,
            None => vec![0.0; values.len()],
        };
        let at = |idx: usize, value: f64| {
            let mut values = values.clone();
            values[idx] = value;
            let mut inputs: Vec<_> = tensors.iter().map(Tensor::detach).collect();
            inputs[input_idx] = Tensor::from_vec(values, variable.shape(), variable.device())?;
            loss(&inputs)?.to_scalar::<f64>()
        };
        let mut expected = Vec::with_capacity(values.len());
        for (idx, &value) in values.iter().enumerate() {
            let step = 1e-5 * value.abs().max(1.0);
            // The step that was really made, after rounding.
            let (up, down) = (value + step, value - step);
            expected.push((at(idx, up)? - at(idx, down)?) / (up - down));
        }
        if let Some(message) = worst_difference(&found, &expected, variable.dims(), tolerance, tolerance) {
            bail!("the gradient of input {input_idx} differs from central differences: {message}");
        }
    }
    Ok(())
}

/// Checks `|a - b| <= atol + rtol · |b|` for every value, in `f64`. NaN is close to nothing, an infinity to itself.
///
/// # Errors
/// If shapes differ or a value does; the message has the index, both values and how many are too far apart.
pub fn assert_close(a: &Tensor, b: &Tensor, atol: f64, rtol: f64) -> Result<()> {
    if a.dims() != b.dims() {
        bail!("expected shape {:?}, found {:?}", b.dims(), a.dims());
    }
    let values = |tensor: &Tensor| {
        tensor.detach().to_device(&Device::Cpu)?.to_dtype(DType::F64)?.flatten_all()?.to_vec1::<f64>()
    };
    match worst_difference(&values(a)?, &values(b)?, a.dims(), atol, rtol) {
        Some(message) => bail!("{message}"),
        None => Ok(()),
    }
}

/// Checks that the gradient of `loss` reaches every variable and is finite and not all zero there.
///
/// # Errors
/// If not; the message names every variable that would not learn, and why.
pub fn assert_all_variables_learn(variables: &Variables, loss: &Tensor) -> Result<()> {
    let gradients = loss.sum_all()?.backward()?;
    let mut wrong = Vec::new();
    for (name, variable) in variables.named() {
        let Some(gradient) = gradients.get(&variable) else {
            wrong.push(format!("`{name}` has no gradient"));
            continue;
        };
        let gradient: Vec<f64> = gradient.to_dtype(DType::F64)?.flatten_all()?.to_vec1()?;
        if gradient.iter().any(|g| !g.is_finite()) {
            wrong.push(format!("the gradient of `{name}` is not finite"));
        } else if gradient.iter().all(|&g| g == 0.0) {
            wrong.push(format!("the gradient of `{name}` is zero"));
        }
    }
    if !wrong.is_empty() {
        bail!("not all variables learn: {}", wrong.join("; "));
    }
    Ok(())
}

/// What to say of the value that is furthest outside its bound, if one is.
fn worst_difference(found: &[f64], expected: &[f64], dims: &[usize], atol: f64, rtol: f64) -> Option<String> {
    let mut worst: Option<(usize, f64)> = None;
    let mut count = 0;
    for (idx, (&a, &b)) in found.iter().zip(expected).enumerate() {
        let excess = (a - b).abs() / (atol + rtol * b.abs());
        if a == b || excess <= 1.0 {
            continue;
        }
        count += 1;
        // NaN compares as the worst.
        if worst.is_none_or(|(_, other)| excess.is_nan() && !other.is_nan() || excess > other) {
            worst = Some((idx, excess));
        }
    }
    let (idx, _) = worst?;
    let (mut rest, mut index) = (idx, vec![0; dims.len()]);
    for (position, &dim) in index.iter_mut().zip(dims).rev() {
        *position = rest % dim;
        rest /= dim;
    }
    Some(format!(
        "{count} of {} values, worst at {index:?}: expected {}, found {} (atol {atol:e}, rtol {rtol:e})",
        found.len(),
        expected[idx],
        found[idx]
    ))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_cut_graph_and_a_wrong_factor_are_found() {
        let x = random(1, (2, 3)).unwrap();
        check_gradient(|x| x.sqr(), &x, 1e-8).unwrap();
        assert!(check_gradient(|x| x.detach().sqr(), &x, 1e-8).is_err());
        // x² whose graph says x · constant, half the gradient.
        assert!(check_gradient(|x| x * x.detach(), &x, 1e-8).is_err());
        let message = check_gradients(|x| &x[0] * x[1].detach(), &[x.clone(), x], 1e-8).unwrap_err().to_string();
        assert!(message.contains("input 1") && message.contains("worst at ["), "{message}");
    }

    #[test]
    fn closeness_reports_the_worst_index() {
        let a = Tensor::new(&[[1.0, 2.0], [3.0, f64::INFINITY]], &Device::Cpu).unwrap();
        assert_close(&a, &a, 0.0, 0.0).unwrap();
        let b = Tensor::new(&[[1.1, 2.0], [5.0, f64::INFINITY]], &Device::Cpu).unwrap();
        let message = assert_close(&a, &b, 1e-3, 0.0).unwrap_err().to_string();
        assert!(message.contains("2 of 4 values, worst at [1, 0]: expected 5, found 3"), "{message}");
        let nan = Tensor::new(&[[1.0, f64::NAN], [3.0, 4.0]], &Device::Cpu).unwrap();
        assert!(assert_close(&nan, &nan, 1.0, 1.0).unwrap_err().to_string().contains("[0, 1]"));
        assert!(assert_close(&a, &a.flatten_all().unwrap(), 1.0, 1.0).is_err());
    }

    #[test]
    fn variables_that_do_not_learn_are_named() {
        let variables = Variables::new(1, DType::F32, &Device::Cpu);
        let builder = variables.builder();
        let get = |name| builder.get(2, name).unwrap();
        let (used, cut, unused, nan) = (get("used"), get("cut"), get("unused"), get("nan"));
        let _ = unused;
        let loss = used.exp().unwrap().sum_all().unwrap();
        let cut = (&cut * cut.zeros_like().unwrap()).unwrap().sum_all().unwrap();
        let nan = (nan * f64::NAN).unwrap().sum_all().unwrap();
        let loss = ((loss + cut).unwrap() + nan).unwrap();
        let message = assert_all_variables_learn(&variables, &loss).unwrap_err().to_string();
        for part in ["the gradient of `cut` is zero", "the gradient of `nan` is not finite", "`unused` has no gradient"]
        {
            assert!(message.contains(part), "{message}");
        }
        assert!(!message.contains("`used`"), "{message}");
    }
}
