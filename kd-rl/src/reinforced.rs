//! An [`Agent`] inside a trainer: states from what the teachers said, rewards from what came of the step.

use std::collections::BTreeMap;

use candle_core::{DType, Device, Result, Tensor, bail};
use kd_core::batch::Batch;
use kd_core::losses::{self, Temperature};
use kd_core::model::{Mode, Output, Student};
use kd_core::weighting::{Feedback, TeacherWeighting, WeightingState};
use serde::{Deserialize, Serialize};
use serde_json::Value;

use crate::agent::{Agent, AgentConfig, Selection, Update};
use crate::baseline::BaselineConfig;
use crate::reward::{RunningScale, gold, gold_and_teachers, with_held_out};
use crate::state::{Layout, features};

/// What an action is rewarded for; see [`reward`](crate::reward) for what each can tell.
#[derive(Debug, Clone, Copy, PartialEq, Default, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Reward {
    /// Reward 1: fit to the labels.
    #[default]
    Gold,
    /// Reward 2: fit to labels and chosen teachers.
    GoldAndTeachers,
    /// Reward 3: reward 2 and the accuracy on held-out data, each standardised by what came before.
    HeldOut {
        /// `γ`, the share of reward 2, in `[0, 1]`.
        share: f64,
    },
}

/// Whose losses are the reward.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Timing {
    /// Those of the updated student on the same rows, each row for itself: one more forward pass without dropout.
    #[default]
    UpdatedRows,
    /// The mean of these over the batch, the same for every row.
    UpdatedBatch,
    /// The mean loss of the next batch before its step, the same for every row: no cost, and blunt.
    NextBatch,
}

/// Settings of [`Reinforced`].
///
/// | field             | default      | range | purpose                                                        |
/// |-------------------|--------------|-------|----------------------------------------------------------------|
/// | `agent`           | its own      |       | policy, baseline, updates                                      |
/// | `reward`          | gold         |       | what an action is rewarded for                                 |
/// | `timing`          | updated rows |       | whose losses the reward is made of                             |
/// | `temperature`     | 1            | > 0   | of the reward's divergence from the teachers, without the factor `T²` |
/// | `labels_in_state` | true         |       | whether a state holds the teachers' cross-entropies            |
/// | `held_out_every`  | 1            | ≥ 1   | batches between two measurements of the accuracy of reward 3   |
/// | `learn_every`     | 1            | ≥ 1   | batches between two whose rewards are asked for                |
#[derive(Debug, Clone, Copy, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct ReinforcedConfig {
    /// The policy that learns.
    pub agent: AgentConfig,
    /// What an action is rewarded for.
    pub reward: Reward,
    /// Whose losses are the reward.
    pub timing: Timing,
    /// Temperature of the reward's divergence from the teachers, > 0.
    pub temperature: f64,
    /// Whether a state holds the teachers' cross-entropies, which need labels.
    pub labels_in_state: bool,
    /// Batches between two measurements of the held-out accuracy, ≥ 1.
    pub held_out_every: usize,
    /// Batches between two that the policy learns from, ≥ 1. It chooses on all of them; a reward costs a forward pass of the
    /// student, a third of a step or a little more: every batch's 40 % of the time, every eighth's 5 %.
    #[serde(default = "one")]
    pub learn_every: usize,
}

fn one() -> usize {
    1
}

impl Default for ReinforcedConfig {
    fn default() -> Self {
        Self {
            agent: AgentConfig::default(),
            reward: Reward::default(),
            timing: Timing::default(),
            temperature: 1.0,
            labels_in_state: true,
            held_out_every: 1,
            learn_every: 1,
        }
    }
}

type Embed<'a> = Box<dyn Fn(&Batch) -> Result<Tensor> + 'a>;
type HeldOut<'a> = Box<dyn FnMut(&dyn Student) -> Result<f64> + 'a>;
type Told<'a> = Box<dyn FnMut(usize, &Update) + 'a>;

/// Chooses teachers row by row with a policy that learns from rewards (Yuan et al. 2021).
pub struct Reinforced<'a> {
    config: ReinforcedConfig,
    agent: Agent,
    embed: Option<Embed<'a>>,
    held_out: Option<HeldOut<'a>>,
    told: Option<Told<'a>>,
    /// Selections whose step was not made yet.
    pending: BTreeMap<usize, Selection>,
    /// The selection that waits for the next batch's loss.
    waiting: Option<(usize, Selection)>,
    scales: Scales,
}

#[derive(Debug, Clone, Copy, Default, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
struct Scales {
    fit: RunningScale,
    accuracy: RunningScale,
    /// The last accuracy, standardised.
    last: Option<f64>,
}

impl std::fmt::Debug for Reinforced<'_> {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Reinforced").field("config", &self.config).finish_non_exhaustive()
    }
}

impl<'a> Reinforced<'a> {
    /// A weighting of `teachers` teachers of `classes` classes, whose states have no instance vector yet.
    ///
    /// # Errors
    /// If a setting is out of its range, or two do not go together; the message says why.
    pub fn new(
        teachers: usize,
        classes: usize,
        config: ReinforcedConfig,
        dtype: DType,
        device: &Device,
    ) -> Result<Self> {
        Self::with_width(0, None, teachers, classes, config, dtype, device)
    }

    /// The same, with `embed` to make the vectors `(rows, width)` of a batch's rows: an instance's embedding by a frozen
    /// encoder, best looked up by [`Batch::examples`], and whatever is known of the student.
    ///
    /// # Errors
    /// As [`new`](Self::new).
    pub fn with_embedding(
        (width, embed): (usize, impl Fn(&Batch) -> Result<Tensor> + 'a),
        teachers: usize,
        classes: usize,
        config: ReinforcedConfig,
        dtype: DType,
        device: &Device,
    ) -> Result<Self> {
        Self::with_width(width, Some(Box::new(embed)), teachers, classes, config, dtype, device)
    }

    fn with_width(
        width: usize,
        embed: Option<Embed<'a>>,
        teachers: usize,
        classes: usize,
        config: ReinforcedConfig,
        dtype: DType,
        device: &Device,
    ) -> Result<Self> {
        check(&config)?;
        let layout = Layout::new(width, classes, config.labels_in_state, teachers);
        let agent = Agent::new(layout, config.agent, dtype, device)?;
        let (pending, scales) = (BTreeMap::new(), Scales::default());
        Ok(Self { config, agent, embed, held_out: None, told: None, pending, waiting: None, scales })
    }

    /// How reward 3 measures the updated student, as a share of right answers: on data that neither trains it nor selects it,
    /// see [`hold_out`](crate::reward::hold_out) and [`ensure_apart`](crate::reward::ensure_apart).
    #[must_use]
    pub fn with_held_out(mut self, accuracy: impl FnMut(&dyn Student) -> Result<f64> + 'a) -> Self {
        self.held_out = Some(Box::new(accuracy));
        self
    }

    /// Who is told of each update of the policy, with the number of its last batch.
    #[must_use]
    pub fn with_observer(mut self, told: impl FnMut(usize, &Update) + 'a) -> Self {
        self.told = Some(Box::new(told));
        self
    }

    /// The agent, to be asked for probabilities.
    pub fn agent(&self) -> &Agent {
        &self.agent
    }

    /// The states of a batch's rows, as the agent gets them: `(rows, features)`, not standardised.
    ///
    /// # Errors
    /// If the batch lacks teachers or the labels that states hold.
    pub fn states(&self, batch: &Batch) -> Result<Tensor> {
        let shared = self.embed.as_ref().map(|embed| embed(batch)).transpose()?;
        let labels = if self.config.labels_in_state { Some(batch.labels()?) } else { None };
        features(shared.as_ref(), &teacher_logits(batch)?, labels)
    }

    /// Losses to rewards, `(samples, rows)`.
    fn rewards(
        &mut self,
        output: &Output,
        batch: &Batch,
        of_samples: &[Tensor],
        feedback: &Feedback<'_>,
    ) -> Result<Tensor> {
        let (logits, teachers) = (output.logits()?.detach(), teacher_logits(batch)?);
        let hard = losses::cross_entropy_rows(&logits, batch.labels()?)?;
        let temperature = Temperature::from(self.config.temperature).unscaled();
        let mut rewards = Vec::with_capacity(of_samples.len());
        for weights in of_samples {
            let soft = || losses::weighted_kl_divergence_rows(&logits, &teachers, weights, temperature);
            rewards.push(match self.config.reward {
                Reward::Gold => gold(&hard)?,
                Reward::GoldAndTeachers | Reward::HeldOut { .. } => gold_and_teachers(&hard, &soft()?)?,
            });
        }
        if let Reward::HeldOut { share } = self.config.reward {
            let fits = Tensor::cat(&rewards, 0)?.to_device(&Device::Cpu)?.to_dtype(DType::F64)?.to_vec1::<f64>()?;
            let accuracy = self.accuracy(feedback)?;
            for fit in &mut rewards {
                *fit = with_held_out(&self.scales.fit.apply_to(fit)?, accuracy, share)?;
            }
            self.scales.fit.update(&fits)?;
        }
        let rewards = Tensor::stack(&rewards, 0)?;
        match self.config.timing {
            Timing::UpdatedRows => Ok(rewards),
            Timing::UpdatedBatch | Timing::NextBatch => {
                rewards.mean_keepdim(1)?.broadcast_as(rewards.shape())?.contiguous()
            }
        }
    }

    fn accuracy(&mut self, feedback: &Feedback<'_>) -> Result<f64> {
        let is_due = feedback.number.is_multiple_of(self.config.held_out_every);
        match (self.scales.last, &mut self.held_out) {
            (Some(last), _) if !is_due => Ok(last),
            (_, Some(measure)) => {
                let accuracy = measure(feedback.student)?;
                if !(0.0..=1.0).contains(&accuracy) {
                    bail!("batch {}: expected a held-out accuracy in [0, 1], found {accuracy}", feedback.number);
                }
                let standard = self.scales.accuracy.apply(accuracy);
                self.scales.accuracy.update(&[accuracy])?;
                self.scales.last = Some(standard);
                Ok(standard)
            }
            (_, None) => bail!("reward 3 needs a held-out accuracy, and `with_held_out` was not called"),
        }
    }

    fn learn(&mut self, number: usize, selection: &Selection, rewards: &Tensor) -> Result<()> {
        let update = self.agent.learn(selection, rewards)?;
        if let (Some(update), Some(told)) = (&update, &mut self.told) {
            told(number, update);
        }
        Ok(())
    }
}

impl TeacherWeighting for Reinforced<'_> {
    fn weigh(&mut self, batch: &Batch, number: usize) -> Result<Tensor> {
        let selection = self.agent.choose(&self.states(batch)?, number)?;
        let weights = selection.weights.clone();
        if number.is_multiple_of(self.config.learn_every) {
            self.pending.insert(number, selection);
        }
        Ok(weights)
    }

    fn feedback(&mut self, feedback: &Feedback<'_>) -> Result<()> {
        let (number, batch) = (feedback.number, feedback.batch);
        if !number.is_multiple_of(self.config.learn_every) {
            return Ok(());
        }
        // Those of steps that were skipped have no reward.
        self.pending = self.pending.split_off(&number);
        let Some(selection) = self.pending.remove(&number) else {
            bail!("feedback on batch {number}, which was not weighed");
        };
        if self.config.timing == Timing::NextBatch {
            if let Some((before, waiting)) = self.waiting.take() {
                let loss = self.rewards(feedback.output, batch, &selection.of_samples, feedback)?.mean_all()?;
                let rewards = loss.broadcast_as((1, waiting.states.dim(0)?))?.contiguous()?;
                self.learn(before, &waiting, &rewards)?;
            }
            self.waiting = Some((number, selection));
            return Ok(());
        }
        let output = feedback.student.forward_batch(batch, Mode::Eval)?;
        let rewards = self.rewards(&output, batch, &selection.of_samples, feedback)?;
        self.learn(number, &selection, &rewards)
    }

    fn describe(&self) -> Value {
        serde_json::json!({ "reinforced": self.config, "layout": self.agent.policy().layout() })
    }

    fn state(&self) -> Result<WeightingState> {
        let WeightingState { tensors, values } = self.agent.state()?;
        let mut tensors: BTreeMap<_, _> =
            tensors.into_iter().map(|(name, tensor)| (format!("agent/{name}"), tensor)).collect();
        if let Some((_, selection)) = &self.waiting {
            let Selection { weights, actions, probs, states, .. } = selection;
            for (name, tensor) in [("weights", weights), ("actions", actions), ("probs", probs), ("states", states)] {
                tensors.insert(format!("waiting/{name}"), tensor.copy()?);
            }
        }
        let waiting = self.waiting.as_ref().map(|(number, selection)| (*number, selection.empty, selection.is_drawn));
        let saved = Saved { agent: values, scales: self.scales, waiting };
        Ok(WeightingState { tensors, values: serde_json::to_value(saved).map_err(candle_core::Error::wrap)? })
    }

    fn restore(&mut self, state: &WeightingState) -> Result<()> {
        let saved: Saved = serde_json::from_value(state.values.clone()).map_err(candle_core::Error::wrap)?;
        let device = self.agent.device();
        let part = |name: &str| match state.tensors.get(&format!("waiting/{name}")) {
            Some(tensor) => tensor.to_device(device),
            None => bail!("the state of the policy lacks `waiting/{name}`"),
        };
        let waiting = match saved.waiting {
            None => None,
            Some((number, empty, is_drawn)) => {
                let (weights, actions, probs, states) =
                    (part("weights")?, part("actions")?, part("probs")?, part("states")?);
                let of_samples = vec![weights.clone()];
                Some((number, Selection { weights, of_samples, actions, probs, states, empty, is_drawn }))
            }
        };
        let of_agent =
            |(name, tensor): (&String, &Tensor)| Some((name.strip_prefix("agent/")?.to_string(), tensor.clone()));
        let tensors = state.tensors.iter().filter_map(of_agent).collect();
        self.agent.restore(&WeightingState { tensors, values: saved.agent })?;
        (self.waiting, self.scales) = (waiting, saved.scales);
        self.pending.clear();
        Ok(())
    }
}

/// What a state holds beside tensors.
#[derive(Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
struct Saved {
    agent: Value,
    scales: Scales,
    /// Number, empty rows and whether it was drawn.
    waiting: Option<(usize, usize, bool)>,
}

fn check(config: &ReinforcedConfig) -> Result<()> {
    if !(config.temperature.is_finite() && config.temperature > 0.0) {
        bail!("`temperature`: expected a finite value above 0, found {}", config.temperature);
    }
    for (name, value) in [("held_out_every", config.held_out_every), ("learn_every", config.learn_every)] {
        if value == 0 {
            bail!("`{name}`: expected at least 1, found 0");
        }
    }
    if config.learn_every > 1 && config.timing == Timing::NextBatch {
        bail!("`learn_every`: expected 1 where the next batch's loss is the reward, found {}", config.learn_every);
    }
    if let Reward::HeldOut { share } = config.reward
        && !(0.0..=1.0).contains(&share)
    {
        bail!("`share`: expected a number in [0, 1], found {share}");
    }
    let is_shared = config.timing != Timing::UpdatedRows;
    if is_shared && matches!(config.agent.baseline, BaselineConfig::Standardised { .. }) {
        bail!("where rows share one reward they all have the advantage 0 under the standardised baseline");
    }
    if config.agent.samples > 1 && (config.reward == Reward::Gold || config.timing == Timing::NextBatch) {
        bail!("`samples`: expected 1 where all samples of a row have one reward, found {}", config.agent.samples);
    }
    Ok(())
}

/// The first head of every teacher.
pub(crate) fn teacher_logits(batch: &Batch) -> Result<Vec<Tensor>> {
    (0..batch.teachers.len()).map(|idx| batch.teacher_logits(idx).cloned()).collect()
}
