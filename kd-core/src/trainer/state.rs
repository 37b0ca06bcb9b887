//! The trainer's checkpoint.

use std::collections::BTreeMap;
use std::path::Path;

use candle_core::Tensor;
use serde::{Deserialize, Serialize};
use serde_json::Value;

use super::{Evaluation, Trainer, TrainerConfig};
use crate::checkpoint;
use crate::error::{Error, Result};
use crate::optim::Ema;
use crate::weighting::WeightingState;

/// What a checkpoint holds besides tensors.
#[derive(Serialize, Deserialize)]
struct State {
    config: TrainerConfig,
    objective: Value,
    batches: Value,
    description: Value,
    /// Settings and values of the weighting of the teachers; both null without one.
    #[serde(default)]
    weighting: [Value; 2],
    step: usize,
    updates: usize,
    averaged: usize,
    skipped: usize,
    skipped_in_a_row: usize,
    still: Option<Vec<String>>,
    evaluations: Vec<Evaluation>,
    best: Option<Evaluation>,
}

/// How far the run of a checkpoint has come.
#[derive(Debug, Clone, PartialEq, Deserialize)]
pub struct Saved {
    /// Steps made, skipped ones included.
    pub step: usize,
    /// The evaluations made.
    pub evaluations: Vec<Evaluation>,
}

impl Saved {
    /// Of the trainer's checkpoint at `path`, without its tensors.
    ///
    /// # Errors
    /// If there is none, or something else.
    pub fn read(path: &Path) -> Result<Self> {
        checkpoint::load_state(path)
    }
}

impl Trainer<'_> {
    /// Writes the checkpoint now, if there is a place for one; [`fit`](Self::fit) does it when it is due.
    ///
    /// # Errors
    /// If the disk is full or the place cannot be written; an older checkpoint is whole then.
    pub fn save(&mut self) -> Result<()> {
        let Some(path) = &self.checkpoint else { return Ok(()) };
        let mut tensors = BTreeMap::new();
        let mut put = |kind: &str, named: BTreeMap<String, Tensor>| {
            tensors.extend(named.into_iter().map(|(name, tensor)| (format!("{kind}/{name}"), tensor)));
        };
        put("model", self.variables.tensors());
        put("moments", self.optimizer.state()?);
        if let Some(ema) = &self.ema {
            put("ema", ema.state()?);
        }
        if let Some((_, best)) = &self.best {
            put("best", best.clone());
        }
        let mut weighting = <[Value; 2]>::default();
        if let Some(of) = &self.weighting {
            let WeightingState { tensors, values } = of.state()?;
            put("weighting", tensors);
            weighting = [of.describe(), values];
        }
        let state = State {
            config: self.config.clone(),
            objective: self.objective.describe(),
            batches: self.batches.clone().unwrap_or(Value::Null),
            description: self.description.clone(),
            weighting,
            step: self.step,
            updates: self.optimizer.updates(),
            averaged: self.ema.as_ref().map_or(0, Ema::updates),
            skipped: self.skipped,
            skipped_in_a_row: self.skipped_in_a_row,
            still: self.liveness.still.clone(),
            evaluations: self.evaluations.clone(),
            best: self.best.as_ref().map(|(evaluation, _)| *evaluation),
        };
        checkpoint::save(path, &tensors, &state)?;
        self.saved = Some(self.step);
        Ok(())
    }

    pub(super) fn restore(&mut self, path: &Path) -> Result<()> {
        let (mut tensors, state): (_, State) = checkpoint::load(path)?;
        let wrong = |message: String| Error::Checkpoint { path: path.to_path_buf(), message };
        same(path, "configuration", &self.config, &state.config)?;
        same(path, "objective", &self.objective.describe(), &state.objective)?;
        same(path, "description", &self.description, &state.description)?;
        let described = self.weighting.as_ref().map_or(Value::Null, |weighting| weighting.describe());
        same(path, "weighting of the teachers", &described, &state.weighting[0])?;
        let mut take = |kind: &str| -> BTreeMap<String, Tensor> {
            let prefix = format!("{kind}/");
            let names: Vec<_> = tensors.keys().filter(|name| name.starts_with(&prefix)).cloned().collect();
            names
                .into_iter()
                .filter_map(|name| Some((name[prefix.len()..].to_string(), tensors.remove(&name)?)))
                .collect()
        };
        let (model, moments, ema, best) = (take("model"), take("moments"), take("ema"), take("best"));
        self.optimizer.restore(&moments, state.updates).map_err(|error| wrong(error.to_string()))?;
        self.variables.set(&model.into_iter().collect()).map_err(|error| wrong(error.to_string()))?;
        if let Some(average) = &mut self.ema {
            average.restore(&ema, state.averaged).map_err(|error| wrong(error.to_string()))?;
        }
        if let Some(weighting) = &mut self.weighting {
            let [_, values] = state.weighting;
            let learnt = WeightingState { tensors: take("weighting"), values };
            weighting.restore(&learnt).map_err(|error| wrong(error.to_string()))?;
        }
        self.step = state.step;
        self.saved = Some(state.step);
        self.skipped = state.skipped;
        self.skipped_in_a_row = state.skipped_in_a_row;
        self.liveness.still = state.still;
        self.evaluations = state.evaluations;
        self.batches = Some(state.batches);
        self.best = state.best.map(|evaluation| (evaluation, best));
        Ok(())
    }
}

/// Refuses to go on under other settings than those of the checkpoint at `path`.
pub(super) fn same(path: &Path, what: &str, now: &impl Serialize, then: &impl Serialize) -> Result<()> {
    match checkpoint::differences(now, then) {
        differences if differences.is_empty() => Ok(()),
        differences => Err(Error::Checkpoint {
            path: path.to_path_buf(),
            message: format!("made with another {what}: {}", differences.join("; ")),
        }),
    }
}

/// Numbers that JSON has no word for, as text.
pub(super) mod any_number {
    use serde::{Deserialize, Deserializer, Serializer, de::Error};

    #[derive(Deserialize)]
    #[serde(untagged)]
    enum Written {
        Number(f64),
        Text(String),
    }

    pub(crate) fn serialize<S: Serializer>(value: &f64, serializer: S) -> Result<S::Ok, S::Error> {
        if value.is_finite() { serializer.serialize_f64(*value) } else { serializer.serialize_str(&value.to_string()) }
    }

    pub(crate) fn deserialize<'de, D: Deserializer<'de>>(deserializer: D) -> Result<f64, D::Error> {
        match Written::deserialize(deserializer)? {
            Written::Number(value) => Ok(value),
            Written::Text(text) => {
                text.parse().map_err(|_| D::Error::custom(format!("expected a number, found {text}")))
            }
        }
    }
}
