//! What must not change a loss on logits, tried on every case of its file.

use std::collections::BTreeMap;

use candle_core::{Result, Tensor, bail};
use kd_core::testing::assert_close;
use serde_json::Value;

use super::reader::{Case, Given, Loss};
use super::{for_all_cases, logits, scalar};

/// Runs `check` for all cases of losses on logits but those of `except`; `check` is told the number of rows.
fn for_logits(except: &[&str], check: impl Fn(&Loss, &Case, &Given<'_>, usize) -> Result<()>) {
    for_all_cases(|loss, case| {
        if !logits::LOSSES.iter().any(|other| other.name == loss.name) || except.contains(&loss.name) {
            return Ok(());
        }
        let (given, _) = case.given()?;
        let rows = given.tensors.values().next().map_or(0, |tensor| tensor.dims()[0]);
        check(loss, case, &given, rows)
    });
}

/// The case with `change` made to all its tensors, by their names.
fn changed<'a>(given: &Given<'a>, change: impl Fn(&str, &Tensor) -> Result<Tensor>) -> Result<Given<'a>> {
    let tensors = given.tensors.iter().map(|(name, tensor)| Ok((name.clone(), change(name, tensor)?)));
    Ok(Given { tensors: tensors.collect::<Result<_>>()?, parameters: given.parameters })
}

fn last_first(tensor: &Tensor, dim: usize) -> Result<Tensor> {
    let order: Vec<u32> = (0..tensor.dim(dim)? as u32).rev().collect();
    tensor.index_select(&Tensor::new(order, tensor.device())?, dim)
}

fn close(case: &Case, found: &Tensor, expected: &Tensor) -> Result<()> {
    assert_close(found, expected, case.tolerance.absolute, case.tolerance.relative)
}

#[test]
fn rows_in_another_order_have_the_same_values() {
    for_logits(&[], |loss, case, given, _| {
        let turned = changed(given, |_, tensor| last_first(tensor, 0))?;
        if let Some(rows) = loss.rows {
            close(case, &rows(&turned)?, &last_first(&rows(given)?, 0)?)?;
        }
        close(case, &(loss.mean)(&turned)?, &(loss.mean)(given)?)
    });
}

#[test]
fn the_mean_of_a_batch_is_that_of_its_parts_by_their_rows() {
    // What is not a mean over rows, and says so.
    let except = ["hard_cross_entropy_by_weights", "column_correlation", "correlation"];
    for_logits(&except, |loss, case, given, rows| {
        if rows < 2 {
            return Ok(());
        }
        let part = |from, len| scalar(&(loss.mean)(&changed(given, |_, tensor| tensor.narrow(0, from, len))?)?);
        let (first, rest) = (part(0, 1)?, part(1, rows - 1)?);
        let (found, whole) = ((first + rest * (rows - 1) as f64) / rows as f64, scalar(&(loss.mean)(given)?)?);
        if (found - whole).abs() > case.tolerance.absolute + case.tolerance.relative * whole.abs() {
            bail!("expected {whole}, found {found} from two parts");
        }
        Ok(())
    });
}

#[test]
fn classes_in_another_order_change_nothing() {
    for_logits(&[], |loss, case, given, _| {
        let classes =
            given.tensor(if loss.name == "kl_from_log_probs" { "student_log_probs" } else { "student_logits" });
        let last = classes?.dim(1)? as u32 - 1;
        let turned = changed(given, |name, tensor| match name {
            "labels" => {
                let labels = tensor.to_vec1::<u32>()?.into_iter().map(|label| last - label);
                Tensor::new(labels.collect::<Vec<_>>(), tensor.device())
            }
            _ => last_first(tensor, 1),
        })?;
        let mut parameters: BTreeMap<String, Value> = given.parameters.clone();
        if let Some(Value::Array(weights)) = parameters.get_mut("class_weights") {
            weights.reverse();
        }
        let turned = Given { tensors: turned.tensors, parameters: &parameters };
        close(case, &(loss.mean)(&turned)?, &(loss.mean)(given)?)
    });
}

#[test]
fn a_constant_on_a_row_changes_only_what_says_so() {
    let changes = ["logit_mse", "cosine_distance", "binary_cross_entropy", "binary_cross_entropy_from_logits"];
    for_logits(&[], |loss, case, given, _| {
        let shifted = changed(given, |name, tensor| match name {
            "student_logits" => tensor + 7.0,
            "teacher_logits" => tensor - 3.0,
            _ => Ok(tensor.clone()),
        })?;
        let result = close(case, &(loss.mean)(&shifted)?, &(loss.mean)(given)?);
        match result {
            Ok(()) if changes.contains(&loss.name) => bail!("nothing changed"),
            Err(_) if changes.contains(&loss.name) => Ok(()),
            result => result,
        }
    });
}
