//! Values over time: weights of losses, temperatures.

use serde::de::value::MapAccessDeserializer;
use serde::de::{MapAccess, Visitor};
use serde::{Deserialize, Deserializer, Serialize};

use crate::error::{Error, Result};

/// A value by step: constant, or from one to another and then there.
///
/// With `t = min(step / steps, 1)`:
///
/// | variant       | value                              | e.g.                                                  |
/// |---------------|------------------------------------|-------------------------------------------------------|
/// | `Constant`    | the number                         |                                                       |
/// | `Linear`      | `from + (to - from) · t`           | teacher annealing (Clark et al. 2019, BAM!)           |
/// | `Cosine`      | `to + (from - to) · (1 + cos πt)/2`| slow at both ends                                     |
/// | `Exponential` | `from · (to / from)^t`             | a temperature that falls by the same factor each step |
///
/// In JSON a bare number is a constant, the others are `{"linear": {"from": 1, "to": 0, "steps": 1000}}` and so on.
///
/// ```
/// use kd_core::schedule::ValueSchedule;
/// let temperature = ValueSchedule::exponential(8.0, 2.0, 100);
/// assert_eq!([0, 50, 100, 500].map(|step| temperature.value(step)), [8.0, 4.0, 2.0, 2.0]);
/// assert_eq!(serde_json::from_str::<ValueSchedule>("0.5").ok(), Some(ValueSchedule::Constant(0.5)));
/// ```
#[derive(Debug, Clone, Copy, PartialEq, Serialize)]
#[serde(rename_all = "snake_case")]
pub enum ValueSchedule {
    /// In a line.
    Linear(Ramp),
    /// Along half a cosine.
    Cosine(Ramp),
    /// By the same factor at every step; both ends have the same sign and are not 0.
    Exponential(Ramp),
    /// The same at every step.
    #[serde(untagged)]
    Constant(f64),
}

/// The ends of a [`ValueSchedule`].
#[derive(Debug, Clone, Copy, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Ramp {
    /// Value at step 0.
    pub from: f64,
    /// Value at step `steps` and after it.
    pub to: f64,
    /// Steps from one to the other; 0 is `to` from the start.
    pub steps: usize,
}

impl Ramp {
    /// `between(from, to, t)` before the end, and `to` itself from there on, however the formula rounds.
    fn at(&self, step: usize, between: impl FnOnce(f64, f64, f64) -> f64) -> f64 {
        match step {
            _ if step >= self.steps => self.to,
            _ => between(self.from, self.to, step as f64 / self.steps as f64),
        }
    }
}

impl ValueSchedule {
    /// From `from` to `to` in a line over `steps` steps.
    pub const fn linear(from: f64, to: f64, steps: usize) -> Self {
        Self::Linear(Ramp { from, to, steps })
    }

    /// From `from` to `to` along half a cosine over `steps` steps.
    pub const fn cosine(from: f64, to: f64, steps: usize) -> Self {
        Self::Cosine(Ramp { from, to, steps })
    }

    /// From `from` to `to` by the same factor at each of `steps` steps.
    pub const fn exponential(from: f64, to: f64, steps: usize) -> Self {
        Self::Exponential(Ramp { from, to, steps })
    }

    /// The value at `step`, counted from 0.
    pub fn value(&self, step: usize) -> f64 {
        match *self {
            Self::Constant(value) => value,
            Self::Linear(ramp) => ramp.at(step, |from, to, t| from + (to - from) * t),
            Self::Cosine(ramp) => {
                ramp.at(step, |from, to, t| to + (from - to) * 0.5 * (1.0 + (std::f64::consts::PI * t).cos()))
            }
            Self::Exponential(ramp) => ramp.at(step, |from, to, t| from * (to / from).powf(t)),
        }
    }

    /// Both ends; every value lies between them.
    pub fn range(&self) -> [f64; 2] {
        match *self {
            Self::Constant(value) => [value, value],
            Self::Linear(ramp) | Self::Cosine(ramp) | Self::Exponential(ramp) => [ramp.from, ramp.to],
        }
    }

    /// Whether it is 0 at every step.
    pub fn is_zero(&self) -> bool {
        self.range() == [0.0, 0.0]
    }

    /// Checks that it is finite, and has a sign and no 0 where it is exponential.
    ///
    /// # Errors
    /// If not; the message names `field`.
    pub fn check(&self, field: &'static str) -> Result<()> {
        let [from, to] = self.range();
        let expected = match self {
            _ if !(from.is_finite() && to.is_finite()) => "finite values",
            Self::Exponential(_) if from == 0.0 || to == 0.0 || from.signum() != to.signum() => {
                "two values of the same sign, not 0, for an exponential schedule"
            }
            _ => return Ok(()),
        };
        Err(Error::Config { field, expected, found: format!("{from} to {to}") })
    }
}

impl From<f64> for ValueSchedule {
    fn from(value: f64) -> Self {
        Self::Constant(value)
    }
}

impl<'de> Deserialize<'de> for ValueSchedule {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> std::result::Result<Self, D::Error> {
        // By hand: serde's untagged variants forget what was wrong with the tagged ones.
        #[derive(Deserialize)]
        #[serde(rename_all = "snake_case")]
        enum Tagged {
            Linear(Ramp),
            Cosine(Ramp),
            Exponential(Ramp),
        }
        struct NumberOrTagged;
        impl<'de> Visitor<'de> for NumberOrTagged {
            type Value = ValueSchedule;

            fn expecting(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
                f.write_str("a number, or one of `linear`, `cosine` and `exponential` with `from`, `to` and `steps`")
            }

            fn visit_f64<E>(self, value: f64) -> std::result::Result<ValueSchedule, E> {
                Ok(ValueSchedule::Constant(value))
            }

            fn visit_i64<E>(self, value: i64) -> std::result::Result<ValueSchedule, E> {
                Ok(ValueSchedule::Constant(value as f64))
            }

            fn visit_u64<E>(self, value: u64) -> std::result::Result<ValueSchedule, E> {
                Ok(ValueSchedule::Constant(value as f64))
            }

            fn visit_map<A: MapAccess<'de>>(self, map: A) -> std::result::Result<ValueSchedule, A::Error> {
                Ok(match Tagged::deserialize(MapAccessDeserializer::new(map))? {
                    Tagged::Linear(ramp) => ValueSchedule::Linear(ramp),
                    Tagged::Cosine(ramp) => ValueSchedule::Cosine(ramp),
                    Tagged::Exponential(ramp) => ValueSchedule::Exponential(ramp),
                })
            }
        }
        deserializer.deserialize_any(NumberOrTagged)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn values_by_hand() {
        let at = |schedule: ValueSchedule| [0, 1, 2, 3, 4, 9].map(|step| schedule.value(step));
        assert_eq!(at(ValueSchedule::Constant(0.3)), [0.3; 6]);
        assert_eq!(at(ValueSchedule::linear(1.0, 3.0, 4)), [1.0, 1.5, 2.0, 2.5, 3.0, 3.0]);
        assert_eq!(at(ValueSchedule::linear(1.0, 3.0, 0)), [3.0; 6]);
        assert_eq!(at(ValueSchedule::exponential(16.0, 1.0, 4)), [16.0, 8.0, 4.0, 2.0, 1.0, 1.0]);
        // cos(π/4) = √½.
        let quarter = 0.5f64.sqrt();
        let cosine = [1.0, 0.5 + 0.5 * quarter, 0.5, 0.5 - 0.5 * quarter, 0.0, 0.0];
        for (found, expected) in at(ValueSchedule::cosine(1.0, 0.0, 4)).into_iter().zip(cosine) {
            assert!((found - expected).abs() < 1e-15, "{found} {expected}");
        }
    }

    #[test]
    fn numbers_and_ramps_read_back_what_they_wrote() {
        for (text, schedule) in [
            ("0.5", ValueSchedule::Constant(0.5)),
            (r#"{"linear":{"from":1.0,"to":0.0,"steps":10}}"#, ValueSchedule::linear(1.0, 0.0, 10)),
            (r#"{"cosine":{"from":1.0,"to":0.0,"steps":10}}"#, ValueSchedule::cosine(1.0, 0.0, 10)),
            (r#"{"exponential":{"from":4.0,"to":1.0,"steps":10}}"#, ValueSchedule::exponential(4.0, 1.0, 10)),
        ] {
            assert_eq!(serde_json::from_str::<ValueSchedule>(text).unwrap(), schedule);
            assert_eq!(serde_json::to_string(&schedule).unwrap(), text);
        }
        assert_eq!(serde_json::from_str::<ValueSchedule>("-2").unwrap(), ValueSchedule::Constant(-2.0));
        for (text, expected) in [
            (r#"{"linear":{"from":1,"till":0,"steps":10}}"#, "unknown field `till`"),
            (r#"{"square":{"from":1,"to":0,"steps":10}}"#, "unknown variant `square`"),
            (r#""half""#, "invalid type: string \"half\", expected a number, or one of `linear`"),
        ] {
            let error = serde_json::from_str::<ValueSchedule>(text).unwrap_err().to_string();
            assert!(error.starts_with(expected), "{error}");
        }
    }

    #[test]
    fn values_that_have_no_formula_are_refused() {
        let message = |schedule: ValueSchedule| schedule.check("soft").unwrap_err().to_string();
        assert_eq!(message(f64::NAN.into()), "soft: expected finite values, found NaN to NaN");
        let expected = "soft: expected two values of the same sign, not 0, for an exponential schedule, found";
        assert_eq!(message(ValueSchedule::exponential(1.0, 0.0, 5)), format!("{expected} 1 to 0"));
        assert_eq!(message(ValueSchedule::exponential(1.0, -1.0, 5)), format!("{expected} 1 to -1"));
        assert!(ValueSchedule::exponential(-1.0, -2.0, 5).check("soft").is_ok());
    }
}
