//! What the command line asks of a policy and of its rivals.

use clap::{Args, ValueEnum};
use kd_rl::agent::AgentConfig;
use kd_rl::baseline::BaselineConfig;
use kd_rl::policy::{Form, PolicyConfig, Scope};
use kd_rl::reinforced::{ReinforcedConfig, Reward, Timing};
use kd_rl::selection::Choice;

/// The policy of `rl-1`, `rl-2` and `rl-3`, and the numbers of two rivals.
#[derive(Debug, Clone, Args)]
pub struct PolicyOptions {
    /// Learning rate of the policy: an update moves each of its weights by about so much, and there are as few as a hundred
    #[arg(long, default_value_t = 3e-2)]
    pub policy_lr: f64,
    /// Probability of every teacher at the start; 0.9 begins close to all alike
    #[arg(long, default_value_t = 0.9)]
    pub policy_start: f64,
    /// Probabilities stay so far from 0 and 1
    #[arg(long, default_value_t = 0.05)]
    pub policy_floor: f64,
    /// Units of a hidden layer of the policy; a linear one without
    #[arg(long)]
    pub policy_hidden: Option<usize>,
    /// What decides about a teacher: everything, or the instance and what that teacher said
    #[arg(long, value_enum, default_value_t = ScopeChoice::Joint)]
    pub policy_scope: ScopeChoice,
    /// Any number of teachers on a row, one, or all by weights that are drawn around the policy's
    #[arg(long, value_enum, default_value_t = ChoiceChoice::Subset)]
    pub policy_choice: ChoiceChoice,
    /// What rewards are compared with
    #[arg(long, value_enum, default_value_t = BaselineChoice::Moving)]
    pub baseline: BaselineChoice,
    /// Weight of the policy's entropy
    #[arg(long, default_value_t = 0.0)]
    pub entropy: f64,
    /// Actions drawn for each row; of rl-2 and rl-3 only
    #[arg(long, default_value_t = 1)]
    pub samples: usize,
    /// Whose losses are the reward: those of the updated student on each row, their mean over the batch, or the next batch's
    #[arg(long, value_enum, default_value_t = TimingChoice::Rows)]
    pub reward_timing: TimingChoice,
    /// Share of reward 2 in reward 3
    #[arg(long, default_value_t = 0.5)]
    pub reward_share: f64,
    /// Batches between two whose rewards are asked for, which costs a forward pass
    #[arg(long, default_value_t = 8)]
    pub learn_every: usize,
    /// Such batches between two updates of the policy; what is left at the end of a pass makes one too
    #[arg(long, default_value_t = 1)]
    pub update_every: usize,
    /// Update the policy at the end of each pass instead, as in the paper
    #[arg(long, conflicts_with = "update_every")]
    pub update_per_pass: bool,
    /// Batches between two measurements of reward 3's accuracy, which all that were learned from in between wait for; a multiple of
    /// --learn-every
    #[arg(long, default_value_t = 64)]
    pub held_out_every: usize,
    /// Passes with all teachers before the policy chooses
    #[arg(long, default_value_t = 1)]
    pub warm_up: usize,
    /// States without the teachers' cross-entropies
    #[arg(long)]
    pub without_labels: bool,
    /// lin-ucb: standard errors that are added to what is expected
    #[arg(long, default_value_t = 0.5)]
    pub bandit_alpha: f64,
    /// consensus: the most that a teacher may count, or its even share if that is more
    #[arg(long, default_value_t = 0.6)]
    pub consensus_cap: f64,
}

/// See [`Scope`].
#[derive(Debug, Clone, Copy, ValueEnum)]
pub enum ScopeChoice {
    /// Everything
    Joint,
    /// The instance and what the teacher said
    PerTeacher,
}

/// See [`Choice`].
#[derive(Debug, Clone, Copy, ValueEnum)]
pub enum ChoiceChoice {
    /// Any number
    Subset,
    /// One
    One,
    /// All, by weights that vary by half a nat around the policy's
    Weights,
}

/// See [`BaselineConfig`].
#[derive(Debug, Clone, Copy, ValueEnum)]
pub enum BaselineChoice {
    /// Nothing
    None,
    /// The average of about ten batches
    Moving,
    /// The other rows of the batch
    Standardised,
    /// The other samples of the row
    LeaveOneOut,
    /// A linear function of the state
    Learned,
}

/// See [`Timing`].
#[derive(Debug, Clone, Copy, ValueEnum)]
pub enum TimingChoice {
    /// The updated student's on each row
    Rows,
    /// Their mean over the batch
    Batch,
    /// The next batch's
    Next,
}

impl PolicyOptions {
    /// The policy of students that learn at `temperature` in passes of `pass` batches, without its reward and its seed.
    ///
    /// What is out of range or does not go together, [`Experiment::check`](super::Experiment::check) says of a way's.
    pub fn config(&self, temperature: f64, pass: usize) -> ReinforcedConfig {
        let decay = 0.9; // about ten batches
        let update_every = if self.update_per_pass { usize::MAX } else { self.update_every };
        let policy = PolicyConfig {
            form: self.policy_hidden.map_or(Form::Linear, |hidden| Form::Mlp { hidden }),
            scope: match self.policy_scope {
                ScopeChoice::Joint => Scope::Joint,
                ScopeChoice::PerTeacher => Scope::PerTeacher,
            },
            choice: match self.policy_choice {
                ChoiceChoice::Subset => Choice::Subset,
                ChoiceChoice::One => Choice::One,
                ChoiceChoice::Weights => Choice::Weights { deviation: 0.5 },
            },
            floor: self.policy_floor,
            start: self.policy_start,
        };
        let baseline = match self.baseline {
            BaselineChoice::None => BaselineConfig::None,
            BaselineChoice::Moving => BaselineConfig::MovingAverage { decay },
            BaselineChoice::Standardised => BaselineConfig::Standardised { decay },
            BaselineChoice::LeaveOneOut => BaselineConfig::LeaveOneOut,
            BaselineChoice::Learned => BaselineConfig::Learned { lr: 1e-2 },
        };
        let agent = AgentConfig {
            policy,
            lr: self.policy_lr,
            baseline,
            entropy: self.entropy,
            samples: self.samples,
            update_every,
            warm_up: self.warm_up * pass,
            ..AgentConfig::default()
        };
        ReinforcedConfig {
            agent,
            reward: Reward::Gold,
            timing: match self.reward_timing {
                TimingChoice::Rows => Timing::UpdatedRows,
                TimingChoice::Batch => Timing::UpdatedBatch,
                TimingChoice::Next => Timing::NextBatch,
            },
            temperature,
            labels_in_state: !self.without_labels,
            held_out_every: self.held_out_every,
            learn_every: self.learn_every,
        }
    }
}
