//! Rewards and choices: a policy that picks, for every row, the teachers worth learning from.
//!
//! After Yuan et al., *Reinforced Multi-Teacher Selection for Knowledge Distillation* (AAAI 2021). One step of a
//! training loop reads:
//!
//! ```text
//! states (rows, features) --policy--> probs (rows, teachers) --select--> actions --weights--> the batch's teacher weights
//!                                         |                                                         |
//!                                         '--- reinforce_loss <-- rewards (rows,) <-- student's losses
//! ```
//!
//! ```
//! use candle_core::{DType, Device, Tensor};
//! use kd_core::variables::Variables;
//! use kd_rl::{policy::SelectionPolicy, reinforce::{Baseline, reinforce_loss}, rewards, selection::{select, weights}};
//! use rand::SeedableRng;
//! # fn main() -> candle_core::Result<()> {
//! let variables = Variables::new(1, DType::F32, &Device::Cpu);
//! let policy = SelectionPolicy::new(4, 3, 0.05, variables.builder())?; // 4 features, 3 teachers
//! let (mut rng, mut baseline) = (rand_chacha::ChaCha8Rng::seed_from_u64(1), Baseline::new(0.9)?);
//!
//! let states = Tensor::ones((2, 4), DType::F32, &Device::Cpu)?; // made by the caller
//! let probs = policy.probabilities(&states)?;
//! let actions = select(&probs, &mut rng)?;
//! let chosen = weights(&actions)?; // `chosen.weights` goes into the batch, the student takes its step
//! let rewards = rewards::gold(&Tensor::new(&[0.7f32, 0.2], &Device::Cpu)?)?;
//! let loss = reinforce_loss(&probs, &actions, &rewards, baseline.value())?;
//! baseline.update(&rewards)?; // after the loss: a baseline must not know the actions it judges
//! assert_eq!(chosen.weights.dims(), [2, 3]);
//! assert!(loss.to_scalar::<f32>()?.is_finite());
//! # Ok(()) }
//! ```
//!
//! This is the beginning of the crate: states, an episode's history and the loop itself are the caller's.
//! Everything random takes its generator as an argument.

pub mod policy;
pub mod reinforce;
pub mod rewards;
pub mod selection;
