//! When a policy has stopped to choose.
//!
//! A policy that selects everything is an expensive average of all teachers, one that selects nothing leaves its rows to the
//! teacher that steps in, and one whose probabilities sit at their bounds learns no more. None of them is an error by itself
//! (all teachers may be good), but each should be known before a result is called that of a policy.

use serde::{Deserialize, Serialize};

/// How a policy has collapsed.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Collapse {
    /// Practically every teacher on every row.
    AllOn,
    /// Practically no teacher on any row.
    AllOff,
    /// Practically every probability at one of its bounds, though not all at the same one.
    Saturated,
}

impl std::fmt::Display for Collapse {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str(match self {
            Self::AllOn => "every teacher is chosen on practically every row",
            Self::AllOff => "practically no teacher is chosen on any row",
            Self::Saturated => "practically every probability is at its bound",
        })
    }
}

/// The collapse of a policy with these probabilities, row by row, if it has collapsed: at least `share` of them are within
/// `margin` (of the width between its [`bounds`](crate::policy::SelectionPolicy::bounds)) of the upper bound, of the lower one,
/// or of either. 0.99 and 0.01 are good values.
///
/// No probabilities are no collapse. For a choice of one of several teachers only the saturated one can occur.
///
/// ```
/// use kd_rl::collapse::{Collapse, collapse};
/// assert_eq!(collapse(&[0.95, 0.949], [0.05, 0.95], 0.99, 0.01), Some(Collapse::AllOn));
/// assert_eq!(collapse(&[0.95, 0.05], [0.05, 0.95], 0.99, 0.01), Some(Collapse::Saturated));
/// assert_eq!(collapse(&[0.95, 0.5], [0.05, 0.95], 0.99, 0.01), None);
/// ```
pub fn collapse(probs: &[f64], [low, high]: [f64; 2], share: f64, margin: f64) -> Option<Collapse> {
    if probs.is_empty() {
        return None;
    }
    let margin = margin * (high - low);
    let most = |holds: &dyn Fn(f64) -> bool| {
        probs.iter().filter(|&&prob| holds(prob)).count() as f64 >= share * probs.len() as f64
    };
    let is_on = |prob: f64| prob >= high - margin;
    let is_off = |prob: f64| prob <= low + margin;
    match () {
        () if most(&is_on) => Some(Collapse::AllOn),
        () if most(&is_off) => Some(Collapse::AllOff),
        () if most(&|prob| is_on(prob) || is_off(prob)) => Some(Collapse::Saturated),
        () => None,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn each_collapse_is_told_from_the_others() {
        let of = |probs: &[f64]| collapse(probs, [0.0, 1.0], 0.9, 0.01);
        assert_eq!(of(&[]), None);
        assert_eq!(of(&[0.5; 10]), None);
        assert_eq!(of(&[1.0; 10]), Some(Collapse::AllOn));
        assert_eq!(of(&[0.005; 10]), Some(Collapse::AllOff));
        let mut mostly = [0.995; 10];
        mostly[3] = 0.4;
        assert_eq!(of(&mostly), Some(Collapse::AllOn));
        mostly[4] = 0.0;
        assert_eq!(of(&mostly), Some(Collapse::Saturated));
        mostly[5] = 0.6;
        assert_eq!(of(&mostly), None);
        assert!(Collapse::AllOff.to_string().contains("no teacher"));
    }
}
