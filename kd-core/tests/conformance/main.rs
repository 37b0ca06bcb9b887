//! Every loss gives the values and gradients of its file in `conformance/losses`, and every file has its loss.

mod invariance;
mod logits;
mod reader;
mod representations;
mod sequences;
mod targets;

use std::collections::BTreeSet;

use candle_core::{DType, Result, Tensor, Var, bail};
use kd_core::testing::{assert_close, check_gradients, device};

use self::reader::{Case, File, Given, Loss, files};

fn losses() -> impl Iterator<Item = &'static Loss> {
    logits::LOSSES.iter().chain(sequences::LOSSES).chain(representations::LOSSES).chain(targets::LOSSES)
}

/// Runs `check` for every case of every loss; a failure names both.
fn for_all_cases(check: impl Fn(&Loss, &Case) -> Result<()>) {
    let files = files();
    for loss in losses() {
        let Some(file) = files.get(loss.name) else { panic!("no file losses/{}.json", loss.name) };
        for case in &file.cases {
            check(loss, case).unwrap_or_else(|error| panic!("{}, {}: {error}", loss.name, case.name));
        }
    }
}

impl Case {
    /// The inputs as variables where they are `f64`, as tensors where they are not.
    fn given(&self) -> Result<(Given<'_>, Vec<(&String, Var)>)> {
        let (mut given, mut variables) = (Given { tensors: Default::default(), parameters: &self.parameters }, vec![]);
        for (name, array) in &self.inputs {
            let mut tensor = array.tensor()?;
            if tensor.dtype() == DType::F64 {
                let variable = Var::from_tensor(&tensor)?;
                tensor = variable.as_tensor().clone();
                variables.push((name, variable));
            }
            given.tensors.insert(name.clone(), tensor);
        }
        Ok((given, variables))
    }
}

fn scalar(tensor: &Tensor) -> Result<f64> {
    tensor.to_dtype(DType::F64)?.to_scalar()
}

#[test]
fn every_file_has_one_loss() {
    let claimed: Vec<&str> = losses().map(|loss| loss.name).collect();
    let set: BTreeSet<&str> = claimed.iter().copied().collect();
    assert_eq!(set.len(), claimed.len(), "a loss is listed twice");
    let files = files();
    assert_eq!(set, files.keys().map(String::as_str).collect(), "losses listed here, and files");
    for (name, File { loss, source, formula, cases }) in &files {
        assert!(name == loss && !source.is_empty() && !formula.is_empty(), "{name}");
        assert!(cases.iter().any(|case| case.finite_differences), "{name}: no case for finite differences");
    }
}

#[test]
fn values_and_gradients_are_those_of_the_files() {
    for_all_cases(|loss, case| {
        let (given, variables) = case.given()?;
        let close = |found: &Tensor, expected: &Tensor| {
            assert_close(found, expected, case.tolerance.absolute, case.tolerance.relative)
        };
        match (loss.rows, &case.expected.rows) {
            (Some(rows), Some(expected)) => close(&rows(&given)?, &expected.tensor()?)?,
            (None, None) => {}
            _ => bail!("either the loss has rows or the case"),
        }
        let mean = (loss.mean)(&given)?;
        close(&mean, &Tensor::new(case.expected.mean, device())?)?;
        let gradients = mean.backward()?;
        if let Some(name) = case.expected.gradients.keys().find(|name| !case.inputs.contains_key(*name)) {
            bail!("a gradient of `{name}`, which is no input");
        }
        for (name, variable) in &variables {
            match (gradients.get(variable), case.expected.gradients.get(*name)) {
                (Some(found), Some(expected)) => close(found, &expected.tensor()?)
                    .map_err(|error| error.context(format!("the gradient of `{name}`")))?,
                (None, Some(_)) => bail!("`{name}` has no gradient"),
                (Some(_), None) => bail!("`{name}` has a gradient, expected none"),
                (None, None) => {}
            }
        }
        Ok(())
    });
}

#[test]
fn gradients_agree_with_finite_differences() {
    for_all_cases(|loss, case| {
        if !case.finite_differences {
            return Ok(());
        }
        let names: Vec<&String> = case.expected.gradients.keys().collect();
        let inputs = names.iter().map(|name| case.inputs[*name].tensor()).collect::<Result<Vec<_>>>()?;
        for f in [Some(loss.mean), loss.rows].into_iter().flatten() {
            let of = |tensors: &[Tensor]| {
                let (mut given, _) = case.given()?;
                given.tensors.extend(names.iter().map(|name| name.to_string()).zip(tensors.iter().cloned()));
                f(&given)
            };
            check_gradients(of, &inputs, 1e-6)?;
        }
        Ok(())
    });
}

#[test]
fn single_precision_gives_the_same_to_its_digits() {
    for_all_cases(|loss, case| {
        let (mut given, _) = case.given()?;
        for tensor in given.tensors.values_mut().filter(|tensor| tensor.dtype() == DType::F64) {
            *tensor = tensor.detach().to_dtype(DType::F32)?;
        }
        let mean = (loss.mean)(&given)?;
        if mean.dtype() != DType::F32 {
            bail!("expected a loss of F32, found {:?}", mean.dtype());
        }
        let (found, expected) = (scalar(&mean)?, case.expected.mean);
        if (found - expected).abs() > 1e-4 * (1.0 + expected.abs()) {
            bail!("in f32: expected {expected}, found {found}");
        }
        Ok(())
    });
}
