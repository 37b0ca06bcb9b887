//! Which examples make up a batch.
//!
//! [`BatchPlan`] is for training: batch `step` is a function of the step and the seed, so a resumed run sees what an
//! uninterrupted one would have seen. [`Mixture`] takes turns between several data sets. [`sequential`] is for prediction:
//! every example once, little padding.

mod mixture;

use std::sync::{Mutex, PoisonError};

use candle_core::{Device, Tensor, bail};
use kd_core::batch::{Batch, Described};
use kd_core::variables::mix;
use rand::SeedableRng;
use rand_chacha::ChaCha8Rng;

use crate::error::{Error, Result};
use crate::sample::shuffle;

pub use mixture::{MixedBatches, Mixture, Order, Turn, temperature_shares};

/// 8 batches: long enough to sort in, short enough to stay random. The value of the PyTorch runs this project compares
/// with.
pub const DEFAULT_POOL: usize = 8;

/// Shuffled batches of similar lengths, without end.
///
/// An epoch is a permutation of all examples, drawn from the seed and the epoch's number. It is cut into pools of
/// `pool` batches; each pool is sorted by length and cut into batches, and the epoch's batches are shuffled again. The
/// last, short batch is kept: an epoch sees every example once.
///
/// ```
/// use kd_data::batches::BatchPlan;
/// let plan = BatchPlan::new(vec![3, 9, 4, 8, 5], 2, 1, 8)?;
/// assert_eq!(plan.steps_per_epoch(), 3);
/// let mut seen: Vec<usize> = (0..3).flat_map(|step| plan.indices(step)).collect();
/// seen.sort();
/// assert_eq!(seen, [0, 1, 2, 3, 4]);
/// # Ok::<(), kd_data::Error>(())
/// ```
#[derive(Debug)]
pub struct BatchPlan {
    lengths: Vec<usize>,
    batch_size: usize,
    seed: u64,
    pool: usize,
    /// The epoch of the last call, for the next is most likely in it.
    epoch: Mutex<Option<(usize, Vec<Vec<usize>>)>>,
}

impl BatchPlan {
    /// A plan for examples of these lengths, `batch_size` a batch; `pool` is a number of batches ([`DEFAULT_POOL`]),
    /// and 1 does not sort by length at all.
    ///
    /// # Errors
    /// If there are no examples, or `batch_size` or `pool` is 0.
    pub fn new(lengths: Vec<usize>, batch_size: usize, seed: u64, pool: usize) -> Result<Self> {
        for (what, value) in [("examples", lengths.len()), ("batch size", batch_size), ("pool", pool)] {
            if value == 0 {
                return Err(Error::argument(format!("batch plan: {what}"), "at least 1", "0"));
            }
        }
        Ok(Self { lengths, batch_size, seed, pool, epoch: Mutex::new(None) })
    }

    /// Number of batches in which every example comes once.
    pub fn steps_per_epoch(&self) -> usize {
        self.lengths.len().div_ceil(self.batch_size)
    }

    /// The examples of the batch of step `step`, counted from 0 without end.
    pub fn indices(&self, step: usize) -> Vec<usize> {
        let (epoch, position) = (step / self.steps_per_epoch(), step % self.steps_per_epoch());
        let mut cached = self.epoch.lock().unwrap_or_else(PoisonError::into_inner);
        match &*cached {
            Some((number, batches)) if *number == epoch => batches[position].clone(),
            _ => {
                let batches = self.draw_epoch(epoch);
                let indices = batches[position].clone();
                *cached = Some((epoch, batches));
                indices
            }
        }
    }

    /// Batches for a trainer: those that `collate` makes of the examples of a step. They know their epoch, and what
    /// they [describe](Self::describe) is kept in checkpoints.
    pub fn batches<'a>(
        &'a self,
        collate: impl Fn(Vec<usize>) -> candle_core::Result<Batch> + 'a,
    ) -> Described<impl Fn(usize) -> candle_core::Result<Batch> + 'a> {
        Described {
            batch: move |step| collate(self.indices(step)),
            steps_per_epoch: Some(self.steps_per_epoch()),
            description: self.describe(),
        }
    }

    /// What decides the order: seed, sizes, and a digest of the examples' lengths.
    pub fn describe(&self) -> serde_json::Value {
        let lengths: Vec<u8> = self.lengths.iter().flat_map(|&length| (length as u64).to_le_bytes()).collect();
        serde_json::json!({
            "examples": self.lengths.len(),
            "lengths": crate::digest::of_bytes(lengths),
            "batch_size": self.batch_size,
            "pool": self.pool,
            "seed": self.seed,
        })
    }

    fn draw_epoch(&self, epoch: usize) -> Vec<Vec<usize>> {
        let mut rng = ChaCha8Rng::seed_from_u64(mix(self.seed, epoch as u64));
        let mut examples: Vec<usize> = (0..self.lengths.len()).collect();
        shuffle(&mut examples, &mut rng);
        let mut batches = Vec::with_capacity(self.steps_per_epoch());
        for pool in examples.chunks_mut(self.batch_size.saturating_mul(self.pool)) {
            if self.pool > 1 {
                pool.sort_by_key(|&example| self.lengths[example]); // stable: equal lengths stay shuffled
            }
            batches.extend(pool.chunks(self.batch_size).map(<[usize]>::to_vec));
        }
        shuffle(&mut batches, &mut rng);
        batches
    }
}

/// Batches of examples of similar lengths for prediction: each example once, the longest batch first (so that memory
/// runs out at once or not at all). A batch of `n` examples with `n` times its longest length is at most `max_tokens`,
/// or it is one example.
///
/// The examples' ids are their positions; [`restore`] puts results back into their order.
///
/// ```
/// use kd_data::batches::{restore, sequential};
/// let batches = sequential(&[2, 9, 3, 4], 12);
/// assert_eq!(batches, [vec![1], vec![3, 2, 0]]);
/// let results: Vec<Vec<&str>> = vec![vec!["nine"], vec!["four", "three", "two"]];
/// assert_eq!(restore(&batches, results), ["two", "nine", "three", "four"]);
/// ```
pub fn sequential(lengths: &[usize], max_tokens: usize) -> Vec<Vec<usize>> {
    let mut examples: Vec<usize> = (0..lengths.len()).collect();
    examples.sort_by_key(|&example| std::cmp::Reverse(lengths[example]));
    let mut batches: Vec<Vec<usize>> = Vec::new();
    for example in examples {
        match batches.last_mut() {
            // The first example is the longest.
            Some(batch) if lengths[batch[0]].max(1).saturating_mul(batch.len() + 1) <= max_tokens => {
                batch.push(example)
            }
            _ => batches.push(vec![example]),
        }
    }
    batches
}

/// The results of `batches`, one for each example, in the order of the examples.
///
/// # Panics
/// If there are not as many results as examples, batch by batch.
pub fn restore<T>(batches: &[Vec<usize>], results: impl IntoIterator<Item = impl IntoIterator<Item = T>>) -> Vec<T> {
    let mut placed: Vec<(usize, T)> = Vec::new();
    let mut results = results.into_iter();
    for batch in batches {
        let before = placed.len();
        placed.extend(batch.iter().copied().zip(results.next().into_iter().flatten()));
        assert_eq!(placed.len() - before, batch.len(), "results of the examples {batch:?}");
    }
    placed.sort_by_key(|&(example, _)| example);
    placed.into_iter().map(|(_, result)| result).collect()
}

/// The classes of the rows of these examples, `(rows,)` u32, example by example; `labels` are those of all examples.
///
/// # Errors
/// If there is no example of an id.
pub fn collate_labels(labels: &[Vec<u32>], examples: &[usize], device: &Device) -> candle_core::Result<Tensor> {
    let mut rows = Vec::new();
    for &example in examples {
        match labels.get(example) {
            Some(labels) => rows.extend_from_slice(labels),
            None => bail!("example {example}: expected an id below {}, the number of labelled examples", labels.len()),
        }
    }
    let n = rows.len();
    Tensor::from_vec(rows, n, device)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn lengths(n: usize) -> Vec<usize> {
        (0..n).map(|idx| 1 + (idx * 37) % 50).collect()
    }

    fn plan(seed: u64) -> BatchPlan {
        BatchPlan::new(lengths(103), 4, seed, DEFAULT_POOL).unwrap()
    }

    #[test]
    fn an_epoch_sees_every_example_once() {
        let plan = plan(1);
        assert_eq!(plan.steps_per_epoch(), 26);
        for epoch in 0..3 {
            let batches: Vec<_> = (0..26).map(|step| plan.indices(epoch * 26 + step)).collect();
            let mut sizes: Vec<_> = batches.iter().map(Vec::len).collect();
            sizes.sort_unstable();
            assert_eq!(sizes, [&[3][..], &[4; 25]].concat());
            let mut all = batches.concat();
            all.sort_unstable();
            assert_eq!(all, (0..103).collect::<Vec<_>>());
        }
    }

    #[test]
    fn a_batch_depends_on_seed_and_step_only() {
        let (forwards, backwards) = (plan(1), plan(1));
        let there: Vec<_> = (0..80).map(|step| forwards.indices(step)).collect();
        let mut back: Vec<_> = (0..80).rev().map(|step| backwards.indices(step)).collect();
        back.reverse();
        assert_eq!(there, back);
        assert_ne!(there[..26], there[26..52]); // the second epoch is another
        assert_ne!(there[0], plan(2).indices(0));
    }

    #[test]
    fn batches_for_a_trainer_know_their_epoch_and_what_they_are() {
        use kd_core::batch::{Batches, Rows, Tokens, pad};
        let plan = plan(1);
        let batches = plan.batches(|examples| {
            let ids: Vec<_> = examples.iter().map(|&example| vec![example as u32]).collect();
            let tokens =
                Tokens { first: pad(&ids, &Device::Cpu)?, second: None, more: Vec::new(), rows: Rows::Examples };
            Ok(Batch { tokens, labels: None, targets: vec![], teachers: vec![], weights: None, task: 0, examples })
        });
        assert_eq!(batches.steps_per_epoch(), Some(26));
        assert_eq!(batches.batch(30).unwrap().examples, plan.indices(30));
        assert_eq!(batches.describe(), plan.describe());
        // Each of these is another order of other examples.
        let of = |lengths: Vec<usize>, size, seed, pool| BatchPlan::new(lengths, size, seed, pool).unwrap().describe();
        let mut swapped = lengths(103);
        swapped.swap(0, 1);
        let others = [
            of(swapped, 4, 1, DEFAULT_POOL),
            of(lengths(102), 4, 1, DEFAULT_POOL),
            of(lengths(103), 5, 1, DEFAULT_POOL),
            of(lengths(103), 4, 2, DEFAULT_POOL),
            of(lengths(103), 4, 1, 1),
        ];
        assert!(others.iter().all(|other| *other != plan.describe()));
        assert_eq!(of(lengths(103), 4, 1, DEFAULT_POOL), plan.describe());
    }

    #[test]
    fn batches_are_of_similar_lengths_and_in_random_order() {
        let plan = plan(3);
        let batches: Vec<_> = (0..26).map(|step| plan.indices(step)).collect();
        let lengths = lengths(103);
        let spread = |batch: &Vec<usize>| {
            let of_batch = || batch.iter().map(|&example| lengths[example]);
            of_batch().max().unwrap() - of_batch().min().unwrap()
        };
        // Lengths are 1 to 50, four of 32 sorted ones span about 6; four unsorted ones would span about 30.
        let mean = batches.iter().map(spread).sum::<usize>() as f64 / 26.0;
        assert!(mean < 10.0, "{mean}");
        let firsts: Vec<_> = batches.iter().map(|batch| lengths[batch[0]]).collect();
        assert!(!firsts.is_sorted(), "{firsts:?}");
        let unsorted = BatchPlan::new(lengths.clone(), 4, 3, 1).unwrap();
        let mean = (0..26).map(|step| spread(&unsorted.indices(step))).sum::<usize>() as f64 / 26.0;
        assert!(mean > 20.0, "{mean}");
    }

    #[test]
    fn empty_plans_are_errors() {
        let message = |n, size, pool| BatchPlan::new(lengths(n), size, 1, pool).unwrap_err().to_string();
        assert_eq!(message(0, 4, 8), "batch plan: examples: expected at least 1, found 0");
        assert_eq!(message(9, 0, 8), "batch plan: batch size: expected at least 1, found 0");
        assert_eq!(message(9, 4, 0), "batch plan: pool: expected at least 1, found 0");
    }

    #[test]
    fn prediction_sees_every_example_once_within_the_limit() {
        let lengths = lengths(103);
        let batches = sequential(&lengths, 120);
        for batch in &batches {
            let longest = batch.iter().map(|&example| lengths[example]).max().unwrap();
            assert!(batch.len() * longest <= 120, "{batch:?}");
        }
        assert!(batches.len() < 60, "{}", batches.len());
        let results = batches.iter().cloned();
        assert_eq!(restore(&batches, results), (0..103).collect::<Vec<_>>());
        // Longer than the limit: alone. Nothing: no batch.
        assert_eq!(sequential(&[5, 6], 1), [[1], [0]]);
        assert!(sequential(&[], 1).is_empty());
    }

    #[test]
    #[should_panic(expected = "results of the examples [0, 1]")]
    fn missing_results_are_not_overlooked() {
        restore(&[vec![0, 1]], [["a"]]);
    }

    #[test]
    fn labels_are_joined_in_the_order_of_the_batch() {
        let labels = [vec![1, 2], vec![3], vec![4, 5, 6]];
        let rows = collate_labels(&labels, &[2, 0], &Device::Cpu).unwrap();
        assert_eq!(rows.to_vec1::<u32>().unwrap(), [4, 5, 6, 1, 2]);
        let message = collate_labels(&labels, &[3], &Device::Cpu).unwrap_err().to_string();
        assert!(message.starts_with("example 3: expected an id below 3"), "{message}");
    }
}
