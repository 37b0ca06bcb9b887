//! Whether every variable takes part in the loss.

use candle_core::backprop::GradStore;
use candle_core::{Result, Tensor};

use crate::error::Error;
use crate::optim::{Group, Optimizer, sum_of_squares};

/// Updates within which a variable must have had a gradient that is not all zero.
pub(super) const UPDATES: usize = 10;

/// The check of the first updates.
///
/// A graph that was cut leaves a variable without a gradient, which is seen at the first update. A dead layer leaves one that
/// is all zero; but a variable may be still for a while without a fault (a recurrent matrix while texts have one token, a
/// margin that holds, a bias whose gradient cancels), so it has [`UPDATES`] of them.
#[derive(Debug)]
pub(super) struct Liveness {
    may_be_still: Vec<Group>,
    /// Variables whose gradient was all zero in every update so far; `None` before the first.
    pub(super) still: Option<Vec<String>>,
}

impl Liveness {
    pub(super) fn new(may_be_still: &[String]) -> Self {
        Self { may_be_still: may_be_still.iter().map(Group::frozen).collect(), still: None }
    }

    /// Checks the finite gradients of the update after `updates` others; `step` is for the message.
    pub(super) fn check(&mut self, step: usize, gradients: &GradStore, optimizer: &dyn Optimizer) -> crate::Result<()> {
        if self.still.as_ref().is_some_and(Vec::is_empty) {
            return Ok(());
        }
        let (mut dead, mut still) = (Vec::new(), Vec::new());
        for (name, var) in optimizer.named() {
            let is_checked = match &self.still {
                None => !self.may_be_still.iter().any(|pattern| pattern.matches(name)),
                Some(still) => still.iter().any(|other| other == name),
            };
            if !is_checked {
                continue;
            }
            match gradients.get(var.as_tensor()) {
                None if self.still.is_none() => dead.push(format!("`{name}` has no gradient")),
                Some(gradient) if !is_all_zero(gradient)? => {}
                _ => still.push(name.to_string()),
            }
        }
        let updates = optimizer.updates() + 1;
        if updates >= UPDATES {
            let of = |name: String| format!("the gradient of `{name}` was all zero in each of {updates} updates");
            dead.extend(still.drain(..).map(of));
        }
        if !dead.is_empty() {
            return Err(Error::DeadVariables { step, dead });
        }
        self.still = Some(still);
        Ok(())
    }
}

fn is_all_zero(gradient: &Tensor) -> Result<bool> {
    Ok(sum_of_squares(gradient)? == 0.0)
}
