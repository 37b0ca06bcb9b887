//! Rewards of a row, from losses that the training loop already has.
//!
//! | reward                        | value                                 | Yuan et al. 2021 |
//! |-------------------------------|---------------------------------------|------------------|
//! | [`gold`]                      | `-L_CE`                               | reward 1         |
//! | [`gold_and_teachers`]         | `-L_CE - L_DL`                        | reward 2         |
//! | [`with_held_out`]             | `γ (-L_CE - L_DL) + (1 - γ) accuracy` | reward 3         |
//!
//! `L_CE` is the student's cross-entropy against the gold label and `L_DL` its divergence from the chosen teachers,
//! both per row, in nats, **after** the student's step: before it, `L_CE` does not depend on what was chosen. Leave the factor
//! `T²` of a distillation loss out of `L_DL`: at the high temperatures of that paper it would drown `L_CE`. The paper's `L_DL` is
//! a cross-entropy, which is larger by `Σ_k w_k H(p_k)`, the entropies of the chosen teachers: of no consequence for the student,
//! but as a reward it would pay for choosing those who are sure, whatever they are sure of. The formulas are
//! known from summaries of the paper, not from its text. All results are detached. None of the rewards is centred: use a
//! [`Baseline`](crate::baseline::Baseline).
//!
//! What they can tell. Reward 1 says whether the student got this row right, which it mostly owes to the steps before: a small
//! signal under large differences between rows, which a [learned](crate::baseline::BaselineConfig::Learned) baseline takes out in
//! part. Reward 2 adds a preference for teachers who are easy to agree with, right or wrong: a teacher who says what the
//! student says already earns the most. Reward 3's accuracy is the only term that sees what was not trained on, and one number for
//! thousands of choices: it can tell good passes from bad ones, not good choices from bad ones in a pass. It judges the choices
//! made *before* it was measured; added to the rewards of later ones it would be an offset and noise.

use candle_core::{Device, Result, Tensor, bail};
use serde::{Deserialize, Serialize};

/// `-L_CE` of each row: how well the student fits the gold labels.
///
/// # Shapes
/// - `hard`: `(rows,)` float, nats; returns `(rows,)`
///
/// # Errors
/// If `hard` is no vector.
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
///
/// ```
/// use candle_core::{Device, Tensor};
/// let losses = |value: f64| Tensor::new(&[value], &Device::Cpu);
/// let rewards = kd_rl::reward::gold_and_teachers(&losses(1.0)?, &losses(0.5)?)?;
/// assert_eq!(rewards.to_vec1::<f64>()?, [-1.5]);
/// # Ok::<(), candle_core::Error>(())
/// ```
pub fn gold_and_teachers(hard: &Tensor, soft: &Tensor) -> Result<Tensor> {
    let (hard_rows, soft_rows) = (hard.dims1()?, soft.dims1()?);
    if hard_rows != soft_rows {
        bail!("rewards need both losses of every row, found {hard_rows} hard and {soft_rows} soft losses");
    }
    (hard.detach() + soft.detach())?.neg()
}

/// `γ · fit + (1 - γ) · accuracy` of each row: the fit, and what it is worth on held-out data.
///
/// The two have different units, nats and a share. [`RunningScale`] brings them to one.
///
/// # Shapes
/// - `fit`: `(rows,)` float, from [`gold_and_teachers`], standardised or not; returns `(rows,)`
/// - `accuracy`: of the updated student on held-out data, standardised or not; the same for all rows of the batch
/// - `share`: `γ`, in `[0, 1]`
///
/// # Errors
/// If `share` is out of its range or the accuracy is not finite.
pub fn with_held_out(fit: &Tensor, accuracy: f64, share: f64) -> Result<Tensor> {
    if !(0.0..=1.0).contains(&share) {
        bail!("`share`: expected a number in [0, 1], found {share}");
    }
    if !accuracy.is_finite() {
        bail!("`accuracy`: expected a finite number, found {accuracy}");
    }
    fit.dims1()?;
    fit.detach().affine(share, (1.0 - share) * accuracy)
}

/// Mean and variance of all numbers so far, to bring rewards of different units to one (Welford 1962).
#[derive(Debug, Clone, Copy, PartialEq, Default, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct RunningScale {
    count: f64,
    mean: f64,
    squares: f64,
}

impl RunningScale {
    /// Takes in numbers.
    ///
    /// # Errors
    /// If one is not finite; nothing has changed then.
    pub fn update(&mut self, values: &[f64]) -> Result<()> {
        if let Some(value) = values.iter().find(|value| !value.is_finite()) {
            bail!("expected finite rewards, found {value}");
        }
        for value in values {
            self.count += 1.0;
            let apart = value - self.mean;
            self.mean += apart / self.count;
            self.squares += apart * (value - self.mean);
        }
        Ok(())
    }

    /// `(value - mean) / deviation` by what was seen before; the value minus the mean where nothing varied yet.
    pub fn apply(&self, value: f64) -> f64 {
        let deviation = if self.count > 1.0 { (self.squares / self.count).sqrt() } else { 0.0 };
        (value - self.mean) / if deviation > 1e-8 { deviation } else { 1.0 }
    }

    /// [`apply`](Self::apply) to every element.
    pub(crate) fn apply_to(&self, values: &Tensor) -> Result<Tensor> {
        let host = values.to_device(&Device::Cpu)?.to_dtype(candle_core::DType::F64)?.to_vec1::<f64>()?;
        Tensor::from_iter(host.into_iter().map(|value| self.apply(value)), &Device::Cpu)
    }
}

/// Which of a training set's rows are kept apart for the accuracy of reward 3, and the others: both sorted.
///
/// Taken from the *training* data, so that the set that models are selected on takes no part in training. `share` of the rows
/// and at least `least` of them; 0.05 and 200 are good values (a share of 200 rows has a standard error of at most 3.5 points).
///
/// # Errors
/// If `share` is not in (0, 1), or no row would be left.
///
/// ```
/// let (kept, rest) = kd_rl::reward::hold_out(1000, 0.05, 200, 7)?;
/// assert_eq!((kept.len(), rest.len()), (200, 800));
/// # Ok::<(), candle_core::Error>(())
/// ```
pub fn hold_out(rows: usize, share: f64, least: usize, seed: u64) -> Result<(Vec<usize>, Vec<usize>)> {
    if !(share > 0.0 && share < 1.0) {
        bail!("`share`: expected a number between 0 and 1, found {share}");
    }
    let kept = ((rows as f64 * share).ceil() as usize).max(least);
    if kept >= rows {
        bail!("of {rows} rows {kept} would be held out, expected some to be left");
    }
    let mut order: Vec<usize> = (0..rows).collect();
    order.sort_by_cached_key(|&row| (kd_core::variables::mix(seed, row as u64), row));
    let mut rest = order.split_off(kept);
    order.sort_unstable();
    rest.sort_unstable();
    Ok((order, rest))
}

/// Refuses a held-out set that shares examples with the set that models are selected on: what a policy was rewarded for is
/// no measure of the student.
///
/// # Errors
/// If an id is in both; the message names the first.
pub fn ensure_apart(held_out: &[usize], selection: &[usize]) -> Result<()> {
    let selection: std::collections::HashSet<_> = selection.iter().collect();
    match held_out.iter().find(|id| selection.contains(id)) {
        Some(id) => bail!("example {id} is held out for the reward and in the set that models are selected on"),
        None => Ok(()),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn rewards_are_as_defined() {
        let losses = |values: &[f64]| Tensor::new(values, &Device::Cpu).unwrap();
        let (hard, soft) = (losses(&[1.0, 0.25]), losses(&[0.5, 0.0]));
        let values = |rewards: Tensor| rewards.to_vec1::<f64>().unwrap();
        assert_eq!(values(gold(&hard).unwrap()), [-1.0, -0.25]);
        let fit = gold_and_teachers(&hard, &soft).unwrap();
        assert_eq!(values(fit.clone()), [-1.5, -0.25]);
        // 0.5 · -1.5 + 0.5 · 0.8 = -0.35 and 0.5 · -0.25 + 0.4 = 0.275.
        let found = values(with_held_out(&fit, 0.8, 0.5).unwrap());
        assert!((found[0] + 0.35).abs() < 1e-12 && (found[1] - 0.275).abs() < 1e-12, "{found:?}");
    }

    #[test]
    fn a_scale_is_that_of_what_came_before() {
        let mut scale = RunningScale::default();
        assert_eq!(scale.apply(3.0), 3.0);
        scale.update(&[1.0, 1.0]).unwrap();
        assert_eq!(scale.apply(3.0), 2.0);
        scale.update(&[5.0, 5.0]).unwrap(); // mean 3, deviation 2
        assert!((scale.apply(7.0) - 2.0).abs() < 1e-12);
        let before = scale;
        assert!(scale.update(&[1.0, f64::NAN]).unwrap_err().to_string().contains("finite rewards, found NaN"));
        assert_eq!(scale, before);
    }

    #[test]
    fn held_out_rows_are_apart_and_follow_the_seed() {
        let (kept, rest) = hold_out(5000, 0.05, 200, 1).unwrap();
        assert_eq!(kept.len(), 250);
        ensure_apart(&kept, &rest).unwrap();
        let mut all = [kept.clone(), rest].concat();
        all.sort_unstable();
        assert_eq!(all, (0..5000).collect::<Vec<_>>());
        assert_eq!(hold_out(5000, 0.05, 200, 1).unwrap().0, kept);
        assert_ne!(hold_out(5000, 0.05, 200, 2).unwrap().0, kept);
        let message = ensure_apart(&[3, 9], &[1, 9]).unwrap_err().to_string();
        assert!(message.contains("example 9 is held out"), "{message}");
    }

    #[test]
    fn what_does_not_fit_is_an_error() {
        let losses = |rows: usize| Tensor::full(1f32, rows, &Device::Cpu).unwrap();
        let message = |result: Result<Tensor>| result.unwrap_err().to_string();
        assert!(message(gold_and_teachers(&losses(2), &losses(1))).contains("found 2 hard and 1 soft losses"));
        assert!(message(with_held_out(&losses(1), f64::NAN, 0.5)).contains("`accuracy`: expected"));
        assert!(message(with_held_out(&losses(1), 0.8, f64::NAN)).contains("`share`: expected"));
        assert!(hold_out(100, 0.05, 200, 1).unwrap_err().to_string().contains("of 100 rows 200 would be held out"));
        assert!(hold_out(100, 1.0, 2, 1).unwrap_err().to_string().contains("`share`: expected"));
    }
}
