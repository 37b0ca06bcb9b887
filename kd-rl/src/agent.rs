//! A policy that learns: states in, choices out, rewards back.
//!
//! ```text
//! choose(states, number) --> Selection (weights go to the student)
//! learn(selection, rewards) --> history --every `update_every` batches--> one step up the expected reward
//! ```
//!
//! Its variables may be on a GPU. Draws are made on the host, so each batch reads from the device once its probabilities and
//! rewards, and one number for each row to see that states are finite.
//!
//! An [`Agent`] knows no student, batch or trainer: a loop of one's own makes the states and the rewards.
//! [`Reinforced`](crate::reinforced::Reinforced) does that inside a trainer.

use std::collections::{BTreeMap, HashMap};

use candle_core::{DType, Device, Result, Tensor, bail};
use kd_core::optim::{Accumulator, AdamW, AdamWConfig, Optimizer, clip_scale};
use kd_core::variables::{Variables, mix};
use kd_core::weighting::WeightingState;
use serde::{Deserialize, Serialize};

use crate::baseline::{Baseline, BaselineConfig};
use crate::collapse::{Collapse, collapse};
use crate::policy::{PolicyConfig, SelectionPolicy};
use crate::reinforce::{entropy, log_prob, reinforce_loss};
use crate::selection::{Choice, select, weights};
use crate::state::{Layout, Standardiser, ensure_finite};

/// Settings of an [`Agent`].
///
/// | field          | default         | range  | source of the default                                         |
/// |----------------|-----------------|--------|---------------------------------------------------------------|
/// | `policy`       | its own         |        |                                                               |
/// | `lr`           | 1e-3            | ≥ 0    | a small linear policy under Adam                              |
/// | `clip_norm`    | 1.0             | > 0    | one odd reward must not throw the policy                      |
/// | `baseline`     | moving average  |        | the rewards share a sign                                      |
/// | `entropy`      | 0               | ≥ 0    | Yuan et al. 2021 have none                                    |
/// | `samples`      | 1               | ≥ 1    | Yuan et al. 2021                                              |
/// | `update_every` | 1               | ≥ 1    | batches; `usize::MAX` where [`Agent::update`] is called at the end of a pass, as in the paper |
/// | `warm_up`      | 0               | ≥ 0    | batches with all teachers, while statistics settle            |
/// | `seed`         | 0               |        |                                                               |
#[derive(Debug, Clone, Copy, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct AgentConfig {
    /// The policy.
    pub policy: PolicyConfig,
    /// Learning rate of the policy's AdamW, without weight decay.
    pub lr: f64,
    /// Largest norm of the policy's gradient.
    pub clip_norm: f64,
    /// What rewards are compared with.
    pub baseline: BaselineConfig,
    /// Weight of the policy's entropy, in units of the advantage per nat.
    pub entropy: f64,
    /// Actions drawn for each row. The student learns from the mean of their weights, each has its own reward.
    pub samples: usize,
    /// Batches of one update of the policy, between which it does not change.
    pub update_every: usize,
    /// Batches at the beginning on which every teacher counts alike; states and baseline are learnt from them, actions are not.
    pub warm_up: usize,
    /// Seed of the draws, and of the start of a hidden layer.
    pub seed: u64,
}

impl Default for AgentConfig {
    fn default() -> Self {
        Self {
            policy: PolicyConfig::default(),
            lr: 1e-3,
            clip_norm: 1.0,
            baseline: BaselineConfig::default(),
            entropy: 0.0,
            samples: 1,
            update_every: 1,
            warm_up: 0,
            seed: 0,
        }
    }
}

/// What was chosen for a batch, to be kept until its rewards are known.
#[derive(Debug, Clone)]
pub struct Selection {
    /// Weight of each teacher on each row, `(rows, teachers)`, the mean over samples; rows sum to 1.
    pub weights: Tensor,
    /// The same of each sample.
    pub of_samples: Vec<Tensor>,
    /// Actions of each sample, one after the other, `(samples · rows, teachers)`.
    pub actions: Tensor,
    /// Probability of each teacher on each row when it was drawn, `(rows, teachers)`.
    pub probs: Tensor,
    /// States as the policy sees them, standardised and scaled, `(rows, features)`.
    pub states: Tensor,
    /// Rows, over all samples, on which no teacher was drawn and the most probable one stepped in.
    pub empty: usize,
    /// Whether the actions were drawn; those of the warm-up were not, and teach the policy nothing.
    pub is_drawn: bool,
}

/// What an update of the policy was made of.
#[derive(Debug, Clone, PartialEq)]
pub struct Update {
    /// Updates so far, this one included.
    pub updates: usize,
    /// Norm of the gradient before clipping.
    pub gradient_norm: f64,
    /// Mean reward over the update's rows and samples.
    pub reward: f64,
    /// Mean probability of each teacher over the update's rows.
    pub probs: Vec<f64>,
    /// Rows, over all samples.
    pub rows: usize,
    /// Those on which no teacher was drawn.
    pub empty: usize,
    /// Whether the policy has stopped to choose: 99 % of its probabilities within 1 % of a bound.
    pub collapse: Option<Collapse>,
}

/// A batch whose actions were judged.
struct Episode {
    states: Tensor,
    actions: Tensor,
    probs: Tensor,
    /// `(samples · rows,)` f64 on the CPU.
    advantages: Tensor,
    reward: f64,
    empty: usize,
}

/// A policy, its optimiser and baseline, and the history since the last update.
pub struct Agent {
    config: AgentConfig,
    policy: SelectionPolicy,
    variables: Variables,
    optimizer: AdamW,
    baseline: Baseline,
    standardiser: Standardiser,
    /// What each standardised feature is multiplied by, `(features,)`.
    scales: Tensor,
    history: Vec<Episode>,
    dtype: DType,
    device: Device,
}

impl std::fmt::Debug for Agent {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Agent")
            .field("config", &self.config)
            .field("variables", &self.variables)
            .finish_non_exhaustive()
    }
}

impl Agent {
    /// An agent over states of `layout`, its variables of `dtype` (f32 or f64) on `device`.
    ///
    /// # Errors
    /// If a setting is out of its range, or there are no features or no teachers.
    pub fn new(layout: Layout, config: AgentConfig, dtype: DType, device: &Device) -> Result<Self> {
        for (name, value) in [("samples", config.samples), ("update_every", config.update_every)] {
            if value == 0 {
                bail!("`{name}`: expected at least 1, found 0");
            }
        }
        if config.baseline == BaselineConfig::LeaveOneOut && config.samples < 2 {
            bail!("`samples`: expected at least 2 for the leave-one-out baseline, found {}", config.samples);
        }
        if !(config.entropy.is_finite() && config.entropy >= 0.0) {
            bail!("`entropy`: expected a finite weight of at least 0, found {}", config.entropy);
        }
        if config.clip_norm.is_nan() || config.clip_norm <= 0.0 {
            bail!("`clip_norm`: expected a number above 0, found {}", config.clip_norm);
        }
        let variables = Variables::new(config.seed, dtype, device);
        let policy = SelectionPolicy::new(layout, config.policy, variables.builder())?;
        let adam = AdamWConfig { weight_decay: 0.0, ..AdamWConfig::with_lr(config.lr) };
        let optimizer = AdamW::new(variables.named(), adam).map_err(candle_core::Error::wrap)?;
        let baseline = Baseline::new(config.baseline, layout.features(), dtype, device)?;
        let (standardiser, history) = (Standardiser::default(), Vec::new());
        let scales = layout.scales();
        let scales = Tensor::from_vec(scales, layout.features(), &Device::Cpu)?.to_dtype(dtype)?.to_device(device)?;
        let device = device.clone();
        Ok(Self { config, policy, variables, optimizer, baseline, standardiser, scales, history, dtype, device })
    }

    /// Its settings.
    pub fn config(&self) -> AgentConfig {
        self.config
    }

    /// Its policy.
    pub fn policy(&self) -> &SelectionPolicy {
        &self.policy
    }

    /// Where its variables are.
    pub fn device(&self) -> &Device {
        &self.device
    }

    /// Probability of each teacher in these states, `(rows, teachers)`, without a draw and without learning from them.
    ///
    /// # Errors
    /// If the states do not fit the layout or are not finite.
    pub fn probabilities(&self, states: &Tensor) -> Result<Tensor> {
        ensure_finite(states)?;
        Ok(self.policy.probabilities(&self.seen(&self.own(states)?)?)?.detach())
    }

    /// Chooses teachers for the rows of batch `number`, and learns the states' statistics.
    ///
    /// # Shapes
    /// - `states`: `(rows, features)` float, not standardised
    ///
    /// # Errors
    /// If the states do not fit the layout or are not finite; the message names the row. Nothing has changed then.
    pub fn choose(&mut self, states: &Tensor, number: usize) -> Result<Selection> {
        let (rows, features) = states.dims2()?;
        if features != self.policy.layout().features() {
            bail!("the policy reads states of {} features, found {features}", self.policy.layout().features());
        }
        let states = self.own(states)?;
        self.standardiser.update(&states)?;
        let states = self.seen(&states)?;
        let probs = self.policy.probabilities(&states)?.detach();
        let (samples, teachers, is_drawn) =
            (self.config.samples, self.policy.layout().teachers, number >= self.config.warm_up);
        if !is_drawn {
            let alike = Tensor::full(1.0 / teachers as f64, (rows, teachers), &Device::Cpu)?;
            let alike = alike.to_dtype(self.dtype)?.to_device(&self.device)?;
            let actions = Tensor::ones((samples * rows, teachers), self.dtype, &self.device)?;
            let of_samples = vec![alike.clone(); samples];
            return Ok(Selection { weights: alike, of_samples, actions, probs, states, empty: 0, is_drawn });
        }
        let (mut actions, mut of_samples, mut empty) = (Vec::new(), Vec::new(), 0);
        for sample in 0..samples {
            let seed = mix(self.config.seed, sample as u64);
            let drawn = select(self.config.policy.choice, &probs, seed, number)?;
            if let Choice::Weights { .. } = self.config.policy.choice {
                of_samples.push(drawn.clone());
            } else {
                let found = weights(&drawn, &probs)?;
                empty += found.empty;
                of_samples.push(found.weights);
            }
            actions.push(drawn);
        }
        let mean = if samples == 1 { of_samples[0].clone() } else { Tensor::stack(&of_samples, 0)?.mean(0)? };
        Ok(Selection { weights: mean, of_samples, actions: Tensor::cat(&actions, 0)?, probs, states, empty, is_drawn })
    }

    /// Takes in what the selection earned, and changes the policy if an update is due.
    ///
    /// # Shapes
    /// - `rewards`: `(samples, rows)` float on any device, or `(rows,)` with one sample
    ///
    /// # Errors
    /// If the shape differs or a reward is not finite; the message names its place, and nothing has changed then.
    pub fn learn(&mut self, selection: &Selection, rewards: &Tensor) -> Result<Option<Update>> {
        Ok(self.learn_all(&[(selection, rewards)])?.pop().flatten())
    }

    /// The same for several selections whose rewards became known together, in their order: all are compared with what
    /// was known before, so that no reward is a part of the baseline of another that has a measurement in common with it.
    ///
    /// # Errors
    /// As [`learn`](Self::learn).
    pub fn learn_all(&mut self, judged: &[(&Selection, &Tensor)]) -> Result<Vec<Option<Update>>> {
        let mut compared = Vec::with_capacity(judged.len());
        for (selection, rewards) in judged {
            let (samples, rows) = (self.config.samples, selection.states.dim(0)?);
            let is_vector = rewards.dims() == [rows] && samples == 1;
            let rewards = if is_vector { rewards.unsqueeze(0)? } else { (*rewards).clone() };
            if rewards.dims() != [samples, rows] {
                bail!("expected rewards (samples, rows) of shape {:?}, found {:?}", [samples, rows], rewards.dims());
            }
            let advantages = self.baseline.advantages(&rewards, &selection.states)?.flatten_all()?;
            compared.push((*selection, rewards, advantages));
        }
        let mut updates = Vec::with_capacity(judged.len());
        for (selection, rewards, advantages) in compared {
            self.baseline.update(&rewards, &selection.states)?;
            if selection.states.dim(0)? == 0 || !selection.is_drawn {
                updates.push(None);
                continue;
            }
            self.history.push(Episode {
                states: selection.states.clone(),
                actions: selection.actions.clone(),
                probs: selection.probs.clone(),
                advantages,
                reward: rewards.to_device(&Device::Cpu)?.to_dtype(DType::F64)?.mean_all()?.to_scalar()?,
                empty: selection.empty,
            });
            updates.push(if self.history.len() < self.config.update_every { None } else { self.update()? });
        }
        Ok(updates)
    }

    /// One step of the policy on the history since the last, which is forgotten; nothing without one. [`learn`](Self::learn)
    /// calls it when it is due, a loop whose passes differ in length at the end of each.
    ///
    /// Actions that were drawn before an earlier update are those of another policy `μ`: `E_μ[(π/μ) · (R - b) ∇ log π]` is
    /// the gradient of `π`, so their advantages are multiplied by `π(a | s) / μ(a | s)` (importance sampling, Sutton & Barto
    /// 2018, §5.5), which is 1 where nothing came between.
    ///
    /// # Errors
    /// If a tensor operation fails.
    pub fn update(&mut self) -> Result<Option<Update>> {
        if self.history.is_empty() {
            return Ok(None);
        }
        let choice = self.config.policy.choice;
        let mut accumulator = Accumulator::new(self.optimizer.named());
        let (mut probs, mut reward, mut rows, mut empty) = (Vec::new(), 0.0, 0, 0);
        for episode in &self.history {
            let now = self.policy.probabilities(&episode.states)?;
            let of_samples = Tensor::cat(&vec![&now; self.config.samples], 0)?;
            let log_prob_now = log_prob(choice, &of_samples, &episode.actions)?;
            let then = Tensor::cat(&vec![&episode.probs; self.config.samples], 0)?;
            let ratios = (log_prob_now.detach() - log_prob(choice, &then, &episode.actions)?)?.exp()?;
            let advantages = (&episode.advantages * ratios.to_device(&Device::Cpu)?.to_dtype(DType::F64)?)?;
            let mut loss = reinforce_loss(&log_prob_now, &advantages)?;
            if self.config.entropy > 0.0 {
                loss = (loss - (entropy(choice, &now)?.mean(0)? * self.config.entropy)?)?;
            }
            let count = episode.actions.dim(0)?;
            accumulator.add(&loss.backward()?, &[], count)?;
            probs.extend(episode.probs.to_device(&Device::Cpu)?.to_dtype(DType::F64)?.to_vec2::<f64>()?);
            reward += episode.reward * count as f64;
            rows += count;
            empty += episode.empty;
        }
        let gradients = accumulator.finish()?.dense;
        let gradient_norm = self.optimizer.gradient_norm(&gradients, &[])?;
        self.optimizer.step(&gradients, 1.0, clip_scale(gradient_norm, self.config.clip_norm))?;
        self.history.clear();
        let teachers = self.policy.layout().teachers;
        let mean = |idx: usize| probs.iter().map(|row| row[idx]).sum::<f64>() / probs.len() as f64;
        Ok(Some(Update {
            updates: self.optimizer.updates(),
            gradient_norm,
            reward: reward / rows as f64,
            probs: (0..teachers).map(mean).collect(),
            rows,
            empty,
            collapse: collapse(&probs.concat(), self.policy.bounds(), 0.99, 0.01),
        }))
    }

    /// All that it has learnt, the history since the last update included. A selection whose rewards are not known yet is
    /// the caller's.
    ///
    /// # Errors
    /// If a tensor cannot be copied.
    pub fn state(&self) -> Result<WeightingState> {
        let mut tensors = BTreeMap::new();
        let mut put = |kind: &str, named: BTreeMap<String, Tensor>| -> Result<()> {
            for (name, tensor) in named {
                tensors.insert(format!("{kind}/{name}"), tensor.copy()?);
            }
            Ok(())
        };
        put("policy", self.variables.tensors())?;
        put("moments", self.optimizer.state()?)?;
        put("states", self.standardiser.tensors())?;
        let (value, updates, of_baseline) = self.baseline.state()?;
        put("baseline", of_baseline)?;
        let mut episodes = Vec::with_capacity(self.history.len());
        for (idx, episode) in self.history.iter().enumerate() {
            let Episode { states, actions, probs, advantages, reward, empty } = episode;
            let named = [("states", states), ("actions", actions), ("probs", probs), ("advantages", advantages)];
            let named = named.map(|(name, tensor)| (format!("{idx}/{name}"), tensor.clone()));
            put("history", named.into())?;
            episodes.push((*reward, *empty));
        }
        let saved = Saved {
            updates: self.optimizer.updates(),
            rows: self.standardiser.rows(),
            baseline: value,
            baseline_updates: updates,
            episodes,
        };
        let values = serde_json::to_value(saved).map_err(candle_core::Error::wrap)?;
        Ok(WeightingState { tensors, values })
    }

    /// Takes back what [`state`](Self::state) gave; then it goes on as the agent that gave it, bit by bit.
    ///
    /// # Errors
    /// If the state is that of an agent with another layout or other settings.
    pub fn restore(&mut self, state: &WeightingState) -> Result<()> {
        let saved: Saved = serde_json::from_value(state.values.clone()).map_err(candle_core::Error::wrap)?;
        let of = |kind: &str| -> Result<BTreeMap<String, Tensor>> {
            let prefix = format!("{kind}/");
            let named = state.tensors.iter().filter_map(|(name, tensor)| Some((name.strip_prefix(&prefix)?, tensor)));
            named.map(|(name, tensor)| Ok((name.to_string(), tensor.to_device(&self.device)?))).collect()
        };
        let (history, standardiser) = (of("history")?, Standardiser::from_tensors(&of("states")?, saved.rows)?);
        let mut episodes = Vec::with_capacity(saved.episodes.len());
        for (idx, &(reward, empty)) in saved.episodes.iter().enumerate() {
            let part = |name: &str| match history.get(&format!("{idx}/{name}")) {
                Some(tensor) => Ok(tensor.clone()),
                None => bail!("the state of an agent lacks `{name}` of batch {idx} of its history"),
            };
            let (states, actions, probs) = (part("states")?, part("actions")?, part("probs")?);
            let advantages = part("advantages")?.to_device(&Device::Cpu)?;
            episodes.push(Episode { states, actions, probs, advantages, reward, empty });
        }
        self.optimizer.restore(&of("moments")?, saved.updates)?;
        self.variables.set(&of("policy")?.into_iter().collect::<HashMap<_, _>>())?;
        self.baseline.restore(saved.baseline, saved.baseline_updates, &of("baseline")?)?;
        (self.history, self.standardiser) = (episodes, standardiser);
        Ok(())
    }

    /// States as the policy sees them.
    fn seen(&self, states: &Tensor) -> Result<Tensor> {
        self.standardiser.apply(states)?.broadcast_mul(&self.scales)
    }

    fn own(&self, states: &Tensor) -> Result<Tensor> {
        states.detach().to_device(&self.device)?.to_dtype(self.dtype)
    }
}

/// What a state holds beside tensors.
#[derive(Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
struct Saved {
    updates: usize,
    rows: usize,
    baseline: Option<f64>,
    baseline_updates: usize,
    /// Reward and empty rows of each batch of the history.
    episodes: Vec<(f64, usize)>,
}
