//! An [`Agent`] inside a trainer: states from what the teachers said, rewards from what came of the step.

mod config;

use std::collections::BTreeMap;

use candle_core::{DType, Device, Result, Tensor, bail};
use kd_core::batch::Batch;
use kd_core::losses::{self, Temperature};
use kd_core::model::{Mode, Output, Student};
use kd_core::weighting::{Feedback, TeacherWeighting, WeightingState};
use serde::{Deserialize, Serialize};
use serde_json::Value;

pub use self::config::{ReinforcedConfig, Reward, Timing};
use crate::agent::{Agent, Selection, Update};
use crate::reward::{RunningScale, gold, gold_and_teachers, with_held_out};
use crate::state::{Layout, features};

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
    /// Those that wait for the next held-out accuracy.
    queue: Vec<Judged>,
    scales: Scales,
}

#[derive(Debug, Clone, Copy, Default, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
struct Scales {
    fit: RunningScale,
    accuracy: RunningScale,
}

/// A selection of batch `number` whose rewards are known, but for the held-out accuracy.
struct Judged {
    number: usize,
    selection: Selection,
    /// `(samples, rows)`; of reward 3 the fit, standardised.
    rewards: Tensor,
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
        config.check()?;
        let layout = Layout::new(width, classes, config.labels_in_state, teachers);
        let agent = Agent::new(layout, config.agent, dtype, device)?;
        let (pending, queue, scales) = (BTreeMap::new(), Vec::new(), Scales::default());
        Ok(Self { config, agent, embed, held_out: None, told: None, pending, waiting: None, queue, scales })
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

    /// Updates the policy from what it has learnt from since its last update, if anything, and tells the observer: at the end
    /// of a pass whose last batch was `number`. With [`update_every`](crate::agent::AgentConfig::update_every) out of reach
    /// (`usize::MAX`) these are all updates that there are, as in the paper.
    ///
    /// # Errors
    /// If a tensor operation fails.
    pub fn end_pass(&mut self, number: usize) -> Result<()> {
        let update = self.agent.update()?;
        self.tell(number, update.as_ref());
        Ok(())
    }

    /// Losses to rewards, `(samples, rows)`; of reward 3 the part that is the fit.
    fn rewards(&self, output: &Output, batch: &Batch, of_samples: &[Tensor]) -> Result<Tensor> {
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
        let rewards = Tensor::stack(&rewards, 0)?;
        match self.config.timing {
            Timing::UpdatedRows => Ok(rewards),
            Timing::UpdatedBatch | Timing::NextBatch => {
                rewards.mean_keepdim(1)?.broadcast_as(rewards.shape())?.contiguous()
            }
        }
    }

    /// Learns from a selection of batch `number`; under reward 3 once the accuracy after it is measured.
    fn judge(&mut self, number: usize, selection: Selection, rewards: Tensor, feedback: &Feedback<'_>) -> Result<()> {
        let Reward::HeldOut { share } = self.config.reward else {
            return self.learn(vec![Judged { number, selection, rewards }]);
        };
        let fits = rewards.flatten_all()?;
        let standard = self.scales.fit.apply_to(&fits)?;
        self.scales.fit.update(&fits.to_device(&Device::Cpu)?.to_dtype(DType::F64)?.to_vec1()?)?;
        self.queue.push(Judged { number, selection, rewards: standard.reshape(rewards.shape())? });
        if !feedback.number.is_multiple_of(self.config.held_out_every) {
            return Ok(());
        }
        let accuracy = self.accuracy(feedback)?;
        let mut judged = std::mem::take(&mut self.queue);
        for Judged { rewards, .. } in &mut judged {
            *rewards = with_held_out(&rewards.flatten_all()?, accuracy, share)?.reshape(rewards.shape())?;
        }
        self.learn(judged)
    }

    /// The updated student's held-out accuracy, standardised by those before.
    fn accuracy(&mut self, feedback: &Feedback<'_>) -> Result<f64> {
        let Some(measure) = &mut self.held_out else {
            bail!("reward 3 needs a held-out accuracy, and `with_held_out` was not called");
        };
        let accuracy = measure(feedback.student)?;
        if !(0.0..=1.0).contains(&accuracy) {
            bail!("batch {}: expected a held-out accuracy in [0, 1], found {accuracy}", feedback.number);
        }
        let standard = self.scales.accuracy.apply(accuracy);
        self.scales.accuracy.update(&[accuracy])?;
        Ok(standard)
    }

    fn learn(&mut self, judged: Vec<Judged>) -> Result<()> {
        let pairs: Vec<_> = judged.iter().map(|judged| (&judged.selection, &judged.rewards)).collect();
        for (update, judged) in self.agent.learn_all(&pairs)?.into_iter().zip(&judged) {
            self.tell(judged.number, update.as_ref());
        }
        Ok(())
    }

    fn tell(&mut self, number: usize, update: Option<&Update>) {
        if let (Some(update), Some(told)) = (update, &mut self.told) {
            told(number, update);
        }
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
                let loss = self.rewards(feedback.output, batch, &selection.of_samples)?.mean_all()?;
                let rewards = loss.broadcast_as((1, waiting.states.dim(0)?))?.contiguous()?;
                self.judge(before, waiting, rewards, feedback)?;
            }
            self.waiting = Some((number, selection));
            return Ok(());
        }
        let output = feedback.student.forward_batch(batch, Mode::Eval)?;
        let rewards = self.rewards(&output, batch, &selection.of_samples)?;
        self.judge(number, selection, rewards, feedback)
    }

    fn describe(&self) -> Value {
        serde_json::json!({ "reinforced": self.config, "layout": self.agent.policy().layout() })
    }

    fn state(&self) -> Result<WeightingState> {
        let WeightingState { tensors, values } = self.agent.state()?;
        let mut tensors: BTreeMap<_, _> =
            tensors.into_iter().map(|(name, tensor)| (format!("agent/{name}"), tensor)).collect();
        let mut put = |name: String, number: usize, selection: &Selection| -> Result<Kept> {
            let Selection { weights, actions, probs, states, empty, is_drawn, .. } = selection;
            for (part, tensor) in [("weights", weights), ("actions", actions), ("probs", probs), ("states", states)] {
                tensors.insert(format!("{name}/{part}"), tensor.copy()?);
            }
            Ok(Kept { number, empty: *empty, is_drawn: *is_drawn })
        };
        let waiting = self.waiting.as_ref().map(|(number, selection)| put("waiting".to_string(), *number, selection));
        let waiting = waiting.transpose()?;
        let queue = self.queue.iter().enumerate();
        let queue = queue.map(|(idx, judged)| put(format!("queue/{idx}"), judged.number, &judged.selection));
        let queue = queue.collect::<Result<_>>()?;
        for (idx, judged) in self.queue.iter().enumerate() {
            tensors.insert(format!("queue/{idx}/rewards"), judged.rewards.copy()?);
        }
        let saved = Saved { agent: values, scales: self.scales, waiting, queue };
        Ok(WeightingState { tensors, values: serde_json::to_value(saved).map_err(candle_core::Error::wrap)? })
    }

    fn restore(&mut self, state: &WeightingState) -> Result<()> {
        let saved: Saved = serde_json::from_value(state.values.clone()).map_err(candle_core::Error::wrap)?;
        let device = self.agent.device();
        let part = |name: &str, part: &str| match state.tensors.get(&format!("{name}/{part}")) {
            Some(tensor) => tensor.to_device(device),
            None => bail!("the state of the policy lacks `{name}/{part}`"),
        };
        let selection = |name: &str, kept: &Kept| -> Result<Selection> {
            let (weights, actions) = (part(name, "weights")?, part(name, "actions")?);
            let (probs, states) = (part(name, "probs")?, part(name, "states")?);
            // Rewards are made of the samples before a selection waits.
            let of_samples = vec![weights.clone()];
            Ok(Selection { weights, of_samples, actions, probs, states, empty: kept.empty, is_drawn: kept.is_drawn })
        };
        let waiting = match &saved.waiting {
            None => None,
            Some(kept) => Some((kept.number, selection("waiting", kept)?)),
        };
        let mut queue = Vec::with_capacity(saved.queue.len());
        for (idx, kept) in saved.queue.iter().enumerate() {
            let name = format!("queue/{idx}");
            let (selection, rewards) = (selection(&name, kept)?, part(&name, "rewards")?.to_device(&Device::Cpu)?);
            queue.push(Judged { number: kept.number, selection, rewards });
        }
        let of_agent =
            |(name, tensor): (&String, &Tensor)| Some((name.strip_prefix("agent/")?.to_string(), tensor.clone()));
        let tensors = state.tensors.iter().filter_map(of_agent).collect();
        self.agent.restore(&WeightingState { tensors, values: saved.agent })?;
        (self.waiting, self.queue, self.scales) = (waiting, queue, saved.scales);
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
    waiting: Option<Kept>,
    queue: Vec<Kept>,
}

/// A selection beside its tensors.
#[derive(Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
struct Kept {
    number: usize,
    empty: usize,
    is_drawn: bool,
}

/// The first head of every teacher.
pub(crate) fn teacher_logits(batch: &Batch) -> Result<Vec<Tensor>> {
    (0..batch.teachers.len()).map(|idx| batch.teacher_logits(idx).cloned()).collect()
}
