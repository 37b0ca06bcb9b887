//! An objective put together from named parts.

use candle_core::{Result, Tensor, bail};
use serde_json::{Value, json};

use super::{Loss, Objective, in_part};
use crate::batch::Batch;
use crate::error::Error;
use crate::model::Output;
use crate::schedule::ValueSchedule;

/// Where in training a part is computed.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct Point {
    /// Step, counted from 0.
    pub step: usize,
    /// The objective's temperature at this step.
    pub temperature: f64,
}

type Function<'a> = dyn Fn(&Output, &Batch, Point) -> Result<Tensor> + 'a;

/// One part of a [`WeightedSum`]: a name, a weight and a function to a scalar.
pub struct Part<'a> {
    name: String,
    weight: ValueSchedule,
    function: Box<Function<'a>>,
}

impl<'a> Part<'a> {
    /// The part `name` of weight `weight`, a number or a schedule.
    pub fn new(
        name: &str,
        weight: impl Into<ValueSchedule>,
        function: impl Fn(&Output, &Batch, Point) -> Result<Tensor> + 'a,
    ) -> Self {
        Self { name: name.to_string(), weight: weight.into(), function: Box::new(function) }
    }
}

impl std::fmt::Debug for Part<'_> {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Part").field("name", &self.name).field("weight", &self.weight).finish_non_exhaustive()
    }
}

/// `Σ_i w_i(step) · L_i(output, batch)` over named parts.
///
/// A part is a function of the model's output, the batch and the [`Point`] of training. A part whose weight is 0 at a
/// step is not computed there, so it may need what the batch lacks.
///
/// ```
/// use kd_core::losses;
/// use kd_core::objective::{Part, WeightedSum};
/// use kd_core::schedule::ValueSchedule;
/// let objective = WeightedSum::new([
///     Part::new("labels", 0.5, |output, batch, _| losses::cross_entropy(output.logits()?, batch.labels()?)),
///     Part::new("teacher", ValueSchedule::linear(1.0, 0.2, 1000), |output, batch, at| {
///         losses::kl_divergence(output.logits()?, batch.teacher_logits(0)?, at.temperature)
///     }),
/// ])?
/// .with_temperature(ValueSchedule::exponential(4.0, 1.0, 1000))?;
/// # Ok::<(), kd_core::Error>(())
/// ```
#[derive(Debug)]
pub struct WeightedSum<'a> {
    temperature: ValueSchedule,
    parts: Vec<Part<'a>>,
}

impl<'a> WeightedSum<'a> {
    /// The sum of `parts`, at temperature 1.
    ///
    /// # Errors
    /// If there are no parts, two have one name, or a weight is not finite.
    pub fn new(parts: impl IntoIterator<Item = Part<'a>>) -> crate::Result<Self> {
        let parts: Vec<_> = parts.into_iter().collect();
        let wrong = |expected, found: String| Err(Error::Config { field: "parts", expected, found });
        if parts.is_empty() {
            return wrong("at least one part", "none".to_string());
        }
        for (idx, part) in parts.iter().enumerate() {
            if parts[..idx].iter().any(|other| other.name == part.name) {
                return wrong("every name once", format!("`{}` twice", part.name));
            }
            part.weight.check("weight").map_err(|error| match error {
                Error::Config { field, expected, found } => {
                    Error::Config { field, expected, found: format!("{found} of part `{}`", part.name) }
                }
                other => other,
            })?;
        }
        Ok(Self { temperature: ValueSchedule::Constant(1.0), parts })
    }

    /// The same sum at another temperature, a number or a schedule; the parts get it in their [`Point`].
    ///
    /// # Errors
    /// If a temperature is not finite and above 0.
    pub fn with_temperature(mut self, temperature: impl Into<ValueSchedule>) -> crate::Result<Self> {
        let temperature = temperature.into();
        temperature.check("temperature")?;
        let [from, to] = temperature.range();
        if from <= 0.0 || to <= 0.0 {
            let found = format!("{from} to {to}");
            return Err(Error::Config { field: "temperature", expected: "values above 0", found });
        }
        self.temperature = temperature;
        Ok(self)
    }
}

impl Objective for WeightedSum<'_> {
    fn loss(&self, output: &Output, batch: &Batch, step: usize) -> Result<Loss> {
        let point = Point { step, temperature: self.temperature.value(step) };
        let mut loss: Option<Loss> = None;
        for Part { name, weight, function } in &self.parts {
            let weight = weight.value(step);
            if weight == 0.0 {
                continue;
            }
            let add = || {
                let value = function(output, batch, point)?;
                if value.rank() != 0 {
                    bail!("expected a scalar, found the shape {:?}", value.dims());
                }
                let weighted = (&value * weight)?;
                let total = match &loss {
                    Some(loss) => (&loss.total + weighted)?,
                    None => weighted,
                };
                Ok((total, value))
            };
            let (total, value) = in_part(name, add())?;
            let sum = match loss {
                Some(loss) => Loss { total, ..loss },
                None => Loss::of(total),
            };
            loss = Some(sum.with_part(name, value));
        }
        match loss {
            Some(loss) => Ok(loss),
            None => bail!("at step {step} the weights of all parts of the loss are 0"),
        }
    }

    fn describe(&self) -> Value {
        let weights = self.parts.iter().map(|part| (part.name.clone(), json!(part.weight)));
        json!({ "temperature": self.temperature, "weights": weights.collect::<serde_json::Map<_, _>>() })
    }
}

#[cfg(test)]
mod tests {
    use candle_core::Device;

    use super::*;
    use crate::batch::{Rows, Tokens, pad};

    fn batch() -> Batch {
        let tokens = Tokens {
            first: pad(&[vec![1]], &Device::Cpu).unwrap(),
            second: None,
            more: Vec::new(),
            rows: Rows::Examples,
        };
        Batch { tokens, labels: None, targets: vec![], teachers: vec![], weights: None, task: 0, examples: vec![7] }
    }

    fn output() -> Output {
        Output::from_logits(Tensor::new(&[[2f64]], &Device::Cpu).unwrap())
    }

    fn logit<'a>(name: &str, weight: impl Into<ValueSchedule>) -> Part<'a> {
        Part::new(name, weight, |output, _, at| output.logits()?.sum_all()? / at.temperature)
    }

    #[test]
    fn weights_and_temperature_follow_their_schedules() {
        let objective = WeightedSum::new([
            logit("constant", 3.0),
            logit("falling", ValueSchedule::linear(1.0, 0.0, 2)),
            Part::new("step", 1.0, |output, _, at| output.logits()?.sum_all()? * at.step as f64),
        ])
        .unwrap()
        .with_temperature(ValueSchedule::exponential(4.0, 1.0, 2))
        .unwrap();
        let at = |step| objective.loss(&output(), &batch(), step).unwrap().values().unwrap();
        // z = 2 and T = 4, 2, 1: 3·z/T + w·z/T + step·z.
        for (step, total, logit) in [(0, 2.0, 0.5), (1, 5.5, 1.0), (2, 10.0, 2.0)] {
            let (found, parts) = at(step);
            assert_eq!((found, parts["constant"], parts["step"]), (total, logit, 2.0 * step as f64));
            // At step 2 its weight is 0.
            assert_eq!(parts.get("falling").copied(), (step < 2).then_some(logit));
        }
    }

    #[test]
    fn a_part_of_weight_0_is_not_computed() {
        let labels = |weight: ValueSchedule| {
            let part = Part::new("labels", weight, |_, batch, _| batch.labels()?.mean_all());
            WeightedSum::new([logit("rest", 1.0), part]).unwrap()
        };
        // The batch has no labels.
        assert!(labels(0.0.into()).loss(&output(), &batch(), 0).is_ok());
        let ramp = labels(ValueSchedule::linear(0.0, 1.0, 5));
        assert!(ramp.loss(&output(), &batch(), 0).is_ok());
        let error = ramp.loss(&output(), &batch(), 1).unwrap_err().to_string();
        assert!(error.starts_with("loss part `labels`: the batch of examples [7] has no labels"), "{error}");
    }

    #[test]
    fn errors_name_the_part_and_the_step() {
        let vector = Part::new("rows", 1.0, |output, _, _| Ok(output.logits()?.clone()));
        let error = WeightedSum::new([vector]).unwrap().loss(&output(), &batch(), 0).unwrap_err().to_string();
        assert!(error.starts_with("loss part `rows`: expected a scalar, found the shape [1, 1]"), "{error}");
        let nothing = WeightedSum::new([logit("a", ValueSchedule::linear(1.0, 0.0, 3))]).unwrap();
        let error = nothing.loss(&output(), &batch(), 3).unwrap_err().to_string();
        assert!(error.starts_with("at step 3 the weights of all parts of the loss are 0"), "{error}");
    }

    #[test]
    fn settings_out_of_range_are_refused() {
        let of = |parts: Vec<Part<'static>>| WeightedSum::new(parts).unwrap_err().to_string();
        assert_eq!(of(vec![]), "parts: expected at least one part, found none");
        assert_eq!(of(vec![logit("a", 1.0), logit("a", 2.0)]), "parts: expected every name once, found `a` twice");
        let nan = f64::NAN;
        assert_eq!(of(vec![logit("a", nan)]), "weight: expected finite values, found NaN to NaN of part `a`");
        let cold =
            |to| WeightedSum::new([logit("a", 1.0)]).unwrap().with_temperature(ValueSchedule::linear(1.0, to, 9));
        assert_eq!(cold(0.0).unwrap_err().to_string(), "temperature: expected values above 0, found 1 to 0");
        assert!(cold(0.1).is_ok());
    }

    #[test]
    fn it_describes_its_weights_and_temperature() {
        let objective = WeightedSum::new([logit("a", 1.0), logit("b", ValueSchedule::linear(1.0, 0.0, 2))]).unwrap();
        let ramp = json!({"linear": {"from": 1.0, "to": 0.0, "steps": 2}});
        assert_eq!(objective.describe(), json!({"temperature": 1.0, "weights": {"a": 1.0, "b": ramp}}));
    }
}
