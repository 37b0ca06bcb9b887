//! What must not change a loss on logits, tried on the cases of its file.

use candle_core::{DType, Result, Tensor};
use kd_core::testing::assert_close;

use super::for_all_cases;
use super::reader::Given;

/// `change` applied to every tensor of the case with the rank given.
fn changed<'a>(given: &Given<'a>, rank: usize, change: impl Fn(&Tensor) -> Result<Tensor>) -> Result<Given<'a>> {
    let tensors = given
        .tensors
        .iter()
        .map(|(name, tensor)| Ok((name.clone(), if tensor.rank() == rank { change(tensor)? } else { tensor.clone() })));
    Ok(Given { tensors: tensors.collect::<Result<_>>()?, parameters: given.parameters })
}

#[test]
fn a_constant_on_a_row_and_an_order_of_classes_change_nothing() {
    for_all_cases(|loss, case| {
        if loss.name != "kl_divergence" || !case.finite_differences {
            return Ok(());
        }
        let (given, _) = case.given()?;
        let expected = (loss.mean)(&given)?;
        let shifted = changed(&given, 2, |logits| logits + 7.)?;
        assert_close(&(loss.mean)(&shifted)?, &expected, 1e-10, 1e-10)?;
        let reversed = changed(&given, 2, |logits| {
            let order = Tensor::arange(0, logits.dim(1)? as u32, logits.device())?.to_dtype(DType::U32)?;
            let last = (logits.dim(1)? - 1) as f64;
            let order = order.to_dtype(DType::F64)?.affine(-1., last)?.to_dtype(DType::U32)?;
            logits.index_select(&order, 1)
        })?;
        assert_close(&(loss.mean)(&reversed)?, &expected, 1e-10, 1e-10)
    });
}
