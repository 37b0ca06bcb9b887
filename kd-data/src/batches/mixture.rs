//! Batches of several data sets in turn.
//!
//! Each data set keeps its own batches and its own count of steps; a [`Mixture`] says whose turn a step is, and how
//! many that set has had. With sizes `n_i`, the numbers of batches of an epoch, and a temperature `T` the share of set
//! `i` is
//!
//! ```text
//! p_i = n_i^(1/T) / Σ_j n_j^(1/T)
//! ```
//!
//! `T = 1` is proportional: every set has equally many epochs. A larger `T` gives small sets more than that, and an
//! infinite one gives all the same. (Multilingual BERT and T5 name it so: Raffel et al. 2020, §3.5.2; Clark et al.
//! 2019, "BAM!", use the power 0.75, which is `T` = 4/3.)

use std::sync::{Mutex, PoisonError};

use kd_core::batch::{Batch, Batches};
use kd_core::variables::mix;
use rand::{RngCore, SeedableRng};
use rand_chacha::ChaCha8Rng;

use crate::error::{Error, Result, count};

/// Steps that are drawn at a time. A constant of the order, not a parameter: another number would be another order.
const BLOCK: usize = 1024;

/// The shares of sets of `sizes` at `temperature`; they sum to 1.
///
/// ```
/// use kd_data::batches::temperature_shares;
/// assert_eq!(temperature_shares(&[1, 4], 1.0)?, [0.2, 0.8]);
/// assert_eq!(temperature_shares(&[1, 4], 2.0)?, [1.0 / 3.0, 2.0 / 3.0]); // √1 to √4
/// assert_eq!(temperature_shares(&[1, 4], f64::INFINITY)?, [0.5, 0.5]);
/// # Ok::<(), kd_data::Error>(())
/// ```
///
/// # Errors
/// If there are no sets, a set is empty, or `temperature` is not above 0.
pub fn temperature_shares(sizes: &[usize], temperature: f64) -> Result<Vec<f64>> {
    if temperature.is_nan() || temperature <= 0.0 {
        return Err(Error::argument("temperature", "a number above 0", temperature.to_string()));
    }
    if let Some(empty) = sizes.iter().position(|&size| size == 0) {
        return Err(Error::argument(format!("size of set {empty}"), "at least 1", "0"));
    }
    let Some(&largest) = sizes.iter().max() else {
        return Err(Error::argument("mixture", "at least one set", "none"));
    };
    // Relative to the largest, so that a low temperature does not overflow.
    let weights: Vec<f64> =
        sizes.iter().map(|&size| (size as f64 / largest as f64).powf(temperature.recip())).collect();
    let total: f64 = weights.iter().sum();
    Ok(weights.into_iter().map(|weight| weight / total).collect())
}

/// How the turns of the sets follow each other.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Order {
    /// Each step's set is drawn with the shares as probabilities.
    Drawn {
        /// What it is drawn from.
        seed: u64,
    },
    /// Each step is the turn of the set that is furthest behind its share, the first of several: no set is ever a whole turn
    /// ahead, and with shares `n_i / N` each set has had exactly `n_i` turns after `N` steps.
    Even,
}

/// Whose turn a step is.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Turn {
    /// The place of the set among the sets.
    pub set: usize,
    /// How many turns it has had before: its own step.
    pub step: usize,
}

/// Whose turn each step is: a function of shares, order and step alone.
///
/// ```
/// use kd_data::batches::{Mixture, Order};
/// let mixture = Mixture::new(vec![3.0, 1.0], Order::Even)?;
/// let turns: Vec<_> = (0..8).map(|step| mixture.turn(step)).map(|turn| (turn.set, turn.step)).collect();
/// assert_eq!(turns, [(0, 0), (0, 1), (1, 0), (0, 2), (0, 3), (0, 4), (1, 1), (0, 5)]);
/// # Ok::<(), kd_data::Error>(())
/// ```
#[derive(Debug)]
pub struct Mixture {
    shares: Vec<f64>,
    order: Order,
    drawn: Mutex<Drawn>,
}

/// What has been drawn so far.
#[derive(Debug)]
struct Drawn {
    /// Turns that each set has had before each block.
    starts: Vec<Vec<usize>>,
    /// The block of the last call, for the next is most likely in it.
    last: Option<(usize, Vec<Turn>)>,
}

impl Mixture {
    /// A mixture of as many sets as there are `shares`, of whatever sum; [`temperature_shares`] makes them of sizes.
    ///
    /// # Errors
    /// If there are no sets or a share is not finite and above 0.
    pub fn new(shares: Vec<f64>, order: Order) -> Result<Self> {
        if let Some(idx) = shares.iter().position(|&share| !(share > 0.0 && share.is_finite())) {
            return Err(Error::argument(format!("share of set {idx}"), "a number above 0", shares[idx].to_string()));
        }
        if shares.is_empty() {
            return Err(Error::argument("mixture", "at least one set", "none"));
        }
        let total: f64 = shares.iter().sum();
        if total.is_infinite() {
            return Err(Error::argument("mixture", "shares of a finite sum", total.to_string()));
        }
        let shares: Vec<f64> = shares.into_iter().map(|share| share / total).collect();
        let drawn = Mutex::new(Drawn { starts: vec![vec![0; shares.len()]], last: None });
        Ok(Self { shares, order, drawn })
    }

    /// The shares, which sum to 1.
    pub fn shares(&self) -> &[f64] {
        &self.shares
    }

    /// Whose turn step `step` is, counted from 0 without end. The first call costs a few nanoseconds for each step before.
    pub fn turn(&self, step: usize) -> Turn {
        let (block, position) = (step / BLOCK, step % BLOCK);
        let mut drawn = self.drawn.lock().unwrap_or_else(PoisonError::into_inner);
        while drawn.starts.len() <= block {
            let known = drawn.starts.len() - 1;
            let mut counts = drawn.starts[known].clone();
            self.block(known, &mut counts);
            drawn.starts.push(counts);
        }
        match &drawn.last {
            Some((number, turns)) if *number == block => turns[position],
            _ => {
                let turns = self.block(block, &mut drawn.starts[block].clone());
                let turn = turns[position];
                drawn.last = Some((block, turns));
                turn
            }
        }
    }

    /// The turns of a block; `counts`, the turns before it, become those after it.
    fn block(&self, block: usize, counts: &mut [usize]) -> Vec<Turn> {
        let mut rng = match self.order {
            Order::Drawn { seed } => Some(ChaCha8Rng::seed_from_u64(mix(seed, block as u64))),
            Order::Even => None,
        };
        let turn = |position: usize| {
            let set = match &mut rng {
                Some(rng) => self.draw(rng),
                None => self.furthest_behind((block * BLOCK + position) as f64, counts),
            };
            counts[set] += 1;
            Turn { set, step: counts[set] - 1 }
        };
        (0..BLOCK).map(turn).collect()
    }

    fn draw(&self, rng: &mut ChaCha8Rng) -> usize {
        // 53 bits: a number below 1.
        let mut rest = (rng.next_u64() >> 11) as f64 * 2f64.powi(-53);
        for (set, share) in self.shares.iter().enumerate() {
            if rest < *share {
                return set;
            }
            rest -= share;
        }
        // The shares' sum may be below 1 by its rounding.
        self.shares.len() - 1
    }

    fn furthest_behind(&self, step: f64, counts: &[usize]) -> usize {
        let behind = |set: usize| self.shares[set] * (step + 1.0) - counts[set] as f64;
        let mut furthest = 0;
        for set in 1..counts.len() {
            if behind(set) > behind(furthest) {
                furthest = set;
            }
        }
        furthest
    }

    /// The batches of `sets` in turn, each marked with its set's place as [`Batch::task`].
    ///
    /// # Errors
    /// If there are not as many sets as shares.
    pub fn batches<'a>(&'a self, sets: Vec<&'a dyn Batches>) -> Result<MixedBatches<'a>> {
        if sets.len() != self.shares.len() {
            let expected = format!("{}, one for each share", count(self.shares.len(), "set"));
            return Err(Error::argument("mixture", expected, sets.len().to_string()));
        }
        Ok(MixedBatches { mixture: self, sets })
    }
}

/// [`Batches`] of several sets in turn.
pub struct MixedBatches<'a> {
    mixture: &'a Mixture,
    sets: Vec<&'a dyn Batches>,
}

impl Batches for MixedBatches<'_> {
    fn batch(&self, step: usize) -> candle_core::Result<Batch> {
        let turn = self.mixture.turn(step);
        Ok(Batch { task: turn.set, ..self.sets[turn.set].batch(turn.step)? })
    }

    /// As many as the sets' epochs have together, if all of them know theirs. Only with proportional shares, in even
    /// order, is that every example once.
    fn steps_per_epoch(&self) -> Option<usize> {
        self.sets.iter().map(|set| set.steps_per_epoch()).sum()
    }

    fn describe(&self) -> serde_json::Value {
        let order = match self.mixture.order {
            Order::Drawn { seed } => serde_json::json!({"drawn": seed}),
            Order::Even => "even".into(),
        };
        let sets: Vec<serde_json::Value> = self.sets.iter().map(|set| set.describe()).collect();
        serde_json::json!({"shares": self.mixture.shares, "order": order, "sets": sets})
    }
}

#[cfg(test)]
mod tests;
