//! What a policy in a trainer is rewarded for, when, and what does not go together.

use candle_core::{Result, bail};
use serde::{Deserialize, Serialize};

use crate::agent::AgentConfig;
use crate::baseline::BaselineConfig;

/// What an action is rewarded for; see [`reward`](crate::reward) for what each can tell.
#[derive(Debug, Clone, Copy, PartialEq, Default, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Reward {
    /// Reward 1: fit to the labels.
    #[default]
    Gold,
    /// Reward 2: fit to labels and chosen teachers.
    GoldAndTeachers,
    /// Reward 3: reward 2 and the accuracy on held-out data, each standardised by what came before. The accuracy is that of the
    /// student after the batches whose choices it judges: they wait for the next measurement, which is the same for all of them.
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
    /// The mean loss of the next batch before its step, the same for every row: no cost, and blunt. That batch's teachers are
    /// chosen before the policy has learnt from this one, so with an update for every batch each choice but the first is judged
    /// under a policy one update younger than the one that made it; see [`Agent::update`](crate::agent::Agent::update).
    NextBatch,
}

/// Settings of [`Reinforced`](crate::reinforced::Reinforced).
///
/// | field             | default      | range | purpose                                                        |
/// |-------------------|--------------|-------|----------------------------------------------------------------|
/// | `agent`           | its own      |       | policy, baseline, updates                                      |
/// | `reward`          | gold         |       | what an action is rewarded for                                 |
/// | `timing`          | updated rows |       | whose losses the reward is made of                             |
/// | `temperature`     | 1            | > 0   | of the reward's divergence from the teachers, without the factor `T²` |
/// | `labels_in_state` | true         |       | whether a state holds the teachers' cross-entropies            |
/// | `held_out_every`  | 1            | ≥ 1, under reward 3 a multiple of `learn_every` | batches between two measurements of the accuracy of reward 3 |
/// | `learn_every`     | 1            | ≥ 1   | batches between two whose rewards are asked for                |
///
/// Where a part of the reward is the same for all that a baseline compares, it cancels. The accuracy is the same for all
/// rows and samples of a batch, so reward 3 is refused under the standardised and the leave-one-out baseline. The samples of
/// a row share the student's step and with it `L_CE`, so under leave-one-out only `L_DL` of reward 2 is left: how near the chosen
/// teachers are to the student.
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
    /// Batches between two measurements of the held-out accuracy, ≥ 1; all that were learned from since the last one wait for it.
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

impl ReinforcedConfig {
    /// Checks what is not the agent's own: [`Agent::new`](crate::agent::Agent::new) checks the rest.
    ///
    /// # Errors
    /// If a setting is out of its range, or two do not go together; the message says why.
    pub fn check(&self) -> Result<()> {
        if !(self.temperature.is_finite() && self.temperature > 0.0) {
            bail!("`temperature`: expected a finite value above 0, found {}", self.temperature);
        }
        for (name, value) in [("held_out_every", self.held_out_every), ("learn_every", self.learn_every)] {
            if value == 0 {
                bail!("`{name}`: expected at least 1, found 0");
            }
        }
        if self.learn_every > 1 && self.timing == Timing::NextBatch {
            bail!("`learn_every`: expected 1 where the next batch's loss is the reward, found {}", self.learn_every);
        }
        let is_shared = self.timing != Timing::UpdatedRows;
        let (baseline, samples) = (self.agent.baseline, self.agent.samples);
        let is_standardised = matches!(baseline, BaselineConfig::Standardised { .. });
        if is_shared && is_standardised {
            bail!("where rows share one reward they all have the advantage 0 under the standardised baseline");
        }
        if let Reward::HeldOut { share } = self.reward {
            if !(0.0..=1.0).contains(&share) {
                bail!("`share`: expected a number in [0, 1], found {share}");
            }
            let (every, learn) = (self.held_out_every, self.learn_every);
            if !every.is_multiple_of(learn) {
                bail!("`held_out_every`: expected a multiple of `learn_every`, {learn}, found {every}");
            }
            if share < 1.0 && (is_standardised || baseline == BaselineConfig::LeaveOneOut) {
                bail!(
                    "`baseline`: expected one that compares batches, since rows and samples of a batch share one held-out \
                     accuracy, found {baseline:?}"
                );
            }
        }
        if samples > 1 && (self.reward == Reward::Gold || self.timing == Timing::NextBatch) {
            bail!("`samples`: expected 1 where all samples of a row have one reward, found {samples}");
        }
        Ok(())
    }
}
