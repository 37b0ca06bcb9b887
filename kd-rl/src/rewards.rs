//! Rewards of a row, from losses that the training loop already has.
//!
//! | function                  | reward                                | Yuan et al. 2021 |
//! |---------------------------|---------------------------------------|------------------|
//! | [`gold`]                  | `-L_CE`                               | reward 1         |
//! | [`gold_and_teachers`]     | `-L_CE - L_DL`                        | reward 2         |
//! | [`with_development`]      | `γ (-L_CE - L_DL) + (1 - γ) accuracy` | reward 3         |
//!
//! `L_CE` is the student's cross-entropy against the gold label and `L_DL` its loss against the chosen teachers,
//! both per row, in nats, after the student's step. Leave the factor `T²` of a distillation loss out of `L_DL`: at the
//! high temperatures of that paper it would drown `L_CE`. The formulas are known from summaries of the paper, not from
//! its text. All results are detached. None of the rewards is centred: use a [`crate::reinforce::Baseline`].

use candle_core::{Result, Tensor, bail};

/// `-L_CE` of each row: how well the student fits the gold labels.
///
/// # Shapes
/// - `hard`: `(rows,)` float, nats; returns `(rows,)`
pub fn gold(hard: &Tensor) -> Result<Tensor> {
    hard.dims1()?;
    hard.detach().neg()
}

/// `-L_CE - L_DL` of each row: how well the student fits labels and chosen teachers.
///
/// # Shapes
/// - `hard`, `soft`: `(rows,)` float, nats; returns `(rows,)`
///
/// # Errors
/// If the shapes differ.
pub fn gold_and_teachers(hard: &Tensor, soft: &Tensor) -> Result<Tensor> {
    let (hard_rows, soft_rows) = (hard.dims1()?, soft.dims1()?);
    if hard_rows != soft_rows {
        bail!("rewards need both losses of every row, found {hard_rows} hard and {soft_rows} soft losses");
    }
    (hard.detach() + soft.detach())?.neg()
}

/// `γ (-L_CE - L_DL) + (1 - γ) · accuracy` of each row: the fit, and what it is worth on held-out data.
///
/// # Shapes
/// - `hard`, `soft`: `(rows,)` float, nats; returns `(rows,)`
/// - `accuracy`: of the updated student on held-out data, in `[0, 1]`; the same for all rows of the batch
/// - `share`: `γ`, in `[0, 1]`
///
/// # Errors
/// If the shapes differ or a number is out of its range.
pub fn with_development(hard: &Tensor, soft: &Tensor, accuracy: f64, share: f64) -> Result<Tensor> {
    for (name, value) in [("accuracy", accuracy), ("share", share)] {
        if !(0.0..=1.0).contains(&value) {
            bail!("`{name}`: expected a number in [0, 1], found {value}");
        }
    }
    gold_and_teachers(hard, soft)?.affine(share, (1.0 - share) * accuracy)
}

#[cfg(test)]
mod tests {
    use super::*;
    use candle_core::Device;

    #[test]
    fn rewards_are_as_defined() {
        let losses = |values: &[f64]| Tensor::new(values, &Device::Cpu).unwrap();
        let (hard, soft) = (losses(&[1.0, 0.25]), losses(&[0.5, 0.0]));
        let values = |rewards: Tensor| rewards.to_vec1::<f64>().unwrap();
        assert_eq!(values(gold(&hard).unwrap()), [-1.0, -0.25]);
        assert_eq!(values(gold_and_teachers(&hard, &soft).unwrap()), [-1.5, -0.25]);
        // 0.5 · -1.5 + 0.5 · 0.8 = -0.35 and 0.5 · -0.25 + 0.4 = 0.275.
        let found = values(with_development(&hard, &soft, 0.8, 0.5).unwrap());
        assert!((found[0] + 0.35).abs() < 1e-12 && (found[1] - 0.275).abs() < 1e-12, "{found:?}");
    }

    #[test]
    fn what_does_not_fit_is_an_error() {
        let losses = |rows: usize| Tensor::full(1f32, rows, &Device::Cpu).unwrap();
        let message = |result: Result<Tensor>| result.unwrap_err().to_string();
        assert!(message(gold_and_teachers(&losses(2), &losses(1))).contains("found 2 hard and 1 soft losses"));
        assert!(message(with_development(&losses(1), &losses(1), 80.0, 0.5)).contains("`accuracy`: expected"));
        assert!(message(with_development(&losses(1), &losses(1), 0.8, f64::NAN)).contains("`share`: expected"));
    }
}
