//! Rewards and choices: a policy that picks, for every row, the teachers worth learning from.
//!
//! After Yuan et al., *Reinforced Multi-Teacher Selection for Knowledge Distillation* (AAAI 2021).
//!
//! ```text
//! states (rows, features) --policy--> probs --select--> actions --weights--> the student's loss --step--> rewards (rows,)
//!                               ^                          |                                                |
//!                               '---- reinforce_loss <-----'------------------- baseline <------------------'
//! ```
//!
//! | module          | what                                                                                         |
//! |-----------------|----------------------------------------------------------------------------------------------|
//! | [`state`]       | what a policy sees of a row, standardised                                                    |
//! | [`policy`]      | probabilities from states: linear or one hidden layer, joint or per teacher; subset, one or weights |
//! | [`selection`]   | seeded draws, and the weights they mean                                                      |
//! | [`reward`]      | three rewards from losses, and the rows they are held out on                                 |
//! | [`baseline`]    | what a reward is compared with                                                               |
//! | [`reinforce`]   | the policy gradient                                                                          |
//! | [`collapse`]    | when a policy has stopped to choose                                                          |
//! | [`agent`]       | all of it, for a loop of one's own: no trainer, store or student                             |
//! | [`reinforced`]  | the agent as a [`TeacherWeighting`](kd_core::weighting::TeacherWeighting) of a trainer       |
//! | [`rivals`]      | ten other weightings under the same trait                                                    |
//!
//! # From a loop of one's own
//!
//! ```
//! use candle_core::{DType, Device, Tensor};
//! use kd_rl::{agent::{Agent, AgentConfig}, state::Layout};
//! # fn main() -> candle_core::Result<()> {
//! let layout = Layout { shared: 4, own: 0, teachers: 3 };
//! let mut agent = Agent::new(layout, AgentConfig::default(), DType::F32, &Device::Cpu)?;
//! for number in 0..3 {
//!     let states = Tensor::ones((2, 4), DType::F32, &Device::Cpu)?; // made by the caller
//!     let selection = agent.choose(&states, number)?;
//!     assert_eq!(selection.weights.dims(), [2, 3]); // the student takes its step by these
//!     let losses = Tensor::new(&[0.7f32, 0.2], &Device::Cpu)?; // of the student, after it
//!     agent.learn(&selection, &kd_rl::reward::gold(&losses)?)?;
//! }
//! # Ok(()) }
//! ```
//!
//! In a trainer: `Trainer::new(..)?.with_weighting(&mut reinforced)` with a
//! [`WeightedTeachers`](kd_core::objective::WeightedTeachers) objective.
//!
//! # The derivation
//!
//! The policy gives row `s` the probabilities `p_k(s; θ)`, an action is a set `a` of teachers drawn from
//! `π(a | s) = Π_k p_k^{a_k} (1 - p_k)^{1 - a_k}`, and what the student makes of it earns `R(a, s)`, of which nothing is known but its
//! value. The policy is to make `J(θ) = Σ_a π(a | s) R(a, s)` large. With `∇π = π ∇ log π`,
//!
//! ```text
//! ∇J = Σ_a π(a | s) R(a, s) ∇ log π(a | s) = E[R ∇ log π]                 so one draw is an unbiased estimate
//! E[b ∇ log π] = b ∇ Σ_a π(a | s) = b ∇ 1 = 0                             so any b that does not know a may be taken off
//! ∇ log π(a | s) = Σ_k (a_k - p_k) ∇ z_k   for p_k = σ(z_k)               so the draw and not only its probability counts
//! ```
//!
//! A sum of `p · R` in the place of `R · log π` has no such meaning: its gradient is that of another objective, in which the action
//! taken plays no part. A sum without `b` has the right mean and is useless: losses as rewards are all negative, every draw is pushed
//! down, and what is drawn next decides. The tests enumerate every draw of a toy and compare the mean with finite differences, for every
//! baseline; `cargo run --example baselines` prints the variances.
//!
//! A set may be empty. Then the most probable teacher steps in for the student, the row is counted, and the policy is judged for
//! having drawn nothing: the estimate stays unbiased, the soft loss keeps its share.
//!
//! # When not to use it
//!
//! - *Teachers are alike.* Averaging them is as good for the student and has no noise. With one teacher there is nothing to choose.
//! - *Few steps.* A policy learns from thousands of rewards. An update at the end of a pass, as in the paper, is one step of the
//!   optimiser for every pass over the data.
//! - *The label decides.* Where training rows have labels, [`rivals::best_single`] and [`rivals::confidence`] see on the row itself which
//!   teacher is right; the policy has to learn to read it from the cross-entropies in its state. Compare with them first.
//! - *No held-out data.* A reward on training rows can rise by memorising them; what it is worth shows elsewhere.
//! - *The reward does not depend on the choice*, as the loss before a student's step, or that of a student which no longer moves.
//!   Then every advantage is noise, and AdamW, which divides by its size, makes steps of it. A reward that never varies has
//!   the advantage 0 under three of the baselines and teaches nothing; with none, or the learned one, chance moves the policy.
//!
//! Nothing here is random without a seed: draws are functions of seed, batch number and place, and the state of an agent can be
//! saved and taken back bit by bit.

pub mod agent;
pub mod baseline;
pub mod collapse;
pub mod policy;
pub mod reinforce;
pub mod reinforced;
pub mod reward;
pub mod rivals;
pub mod selection;
pub mod state;
