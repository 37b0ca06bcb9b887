//! How far logits are softened before they are compared.

use candle_core::{Result, bail};
use serde::{Deserialize, Serialize};

/// The divisors of student and teacher logits, and whether a loss makes good for them.
///
/// Dividing logits by `T` makes the gradient of a divergence smaller by about `T²`: once because it passes the division,
/// once because the two distributions are closer. With `scaled` the loss is multiplied by `T²`, so that its weight means the same
/// at every temperature (Hinton et al. 2015, §2). Where the two differ, `T` is the student's.
///
/// | field     | purpose                      | range        | from a number `T` |
/// |-----------|------------------------------|--------------|-------------------|
/// | `student` | divides the student's logits | finite, > 0  | `T`               |
/// | `teacher` | divides the teacher's logits | finite, > 0  | `T`               |
/// | `scaled`  | multiplies by `student²`     |              | true              |
///
/// Losses take `impl Into<Temperature>`, so a number does where both sides have the same:
///
/// ```
/// use kd_core::losses::Temperature;
/// assert_eq!(Temperature::from(2.0), Temperature { student: 2.0, teacher: 2.0, scaled: true });
/// assert_eq!(Temperature::from(2.0).factor(), 4.0);
/// assert_eq!(Temperature::from(2.0).unscaled().factor(), 1.0);
/// ```
#[derive(Debug, Clone, Copy, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Temperature {
    /// Divides the student's logits; finite, > 0.
    pub student: f64,
    /// Divides the teacher's logits; finite, > 0.
    pub teacher: f64,
    /// Whether the loss is multiplied by the square of `student`.
    pub scaled: bool,
}

impl From<f64> for Temperature {
    /// The same on both sides, scaled.
    fn from(temperature: f64) -> Self {
        Self { student: temperature, teacher: temperature, scaled: true }
    }
}

impl Temperature {
    /// The same temperatures without the factor `T²`.
    pub fn unscaled(self) -> Self {
        Self { scaled: false, ..self }
    }

    /// What a loss is multiplied with: the square of `student` if `scaled`, else 1.
    pub fn factor(self) -> f64 {
        if self.scaled { self.student * self.student } else { 1.0 }
    }

    pub(super) fn check(self, loss: &str) -> Result<Self> {
        for (side, temperature) in [("student", self.student), ("teacher", self.teacher)] {
            if !(temperature.is_finite() && temperature > 0.0) {
                bail!("{loss}: {side} temperature {temperature}, expected a finite value above 0");
            }
        }
        Ok(self)
    }
}
