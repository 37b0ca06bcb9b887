//! Wall-clock time of a call: median, 99th percentile, words per second.
//!
//! A measurement calls the closure `warm_up` times without looking at the clock, then `runs` times, each call timed
//! by itself with the monotonic clock. What is measured is whatever the closure does, on all threads, on a machine
//! that may be busy with other things: state the machine beside the numbers. Make the inputs outside the closure.
//! On a GPU calls return before the work is done, so there the closure has to read a value back or synchronise.
//!
//! ```
//! use kd_bench::latency::measure;
//! let mut sum = 0u64;
//! let latency = measure(|| { sum = (0..1000u64).map(std::hint::black_box).sum(); Ok(()) }, 2, 20)?;
//! assert!(latency.p50_ms <= latency.p99_ms && latency.runs == 20 && latency.threads >= 1);
//! # Ok::<(), candle_core::Error>(())
//! ```

use std::time::Instant;

use candle_core::{Result, bail};
use serde::{Deserialize, Serialize};

/// What repeated calls took.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Latency {
    /// Median, in milliseconds: the smallest time that at least half of the calls did not exceed.
    pub p50_ms: f64,
    /// 99th percentile, in milliseconds: the smallest time that at least 99 % of the calls did not exceed.
    /// With fewer than 100 calls this is the slowest one.
    pub p99_ms: f64,
    /// Number of timed calls.
    pub runs: usize,
    /// Number of threads that Candle's and this workspace's CPU kernels could use (`RAYON_NUM_THREADS`).
    pub threads: usize,
}

impl Latency {
    /// Words per second when a call works on `words` words, at the median time.
    pub fn words_per_second(&self, words: usize) -> f64 {
        words as f64 / (self.p50_ms / 1e3)
    }

    fn of(mut seconds: Vec<f64>) -> Self {
        seconds.sort_by(f64::total_cmp);
        let percentile = |percent: usize| {
            let rank = (seconds.len() * percent).div_ceil(100).max(1); // nearest rank, counted from 1
            seconds[rank - 1] * 1e3
        };
        let threads = candle_core::utils::get_num_threads();
        Self { p50_ms: percentile(50), p99_ms: percentile(99), runs: seconds.len(), threads }
    }
}

/// Calls `call` `warm_up` times, then `runs` times with the clock on.
///
/// # Errors
/// If `runs` is 0, or the first error of a call.
pub fn measure(mut call: impl FnMut() -> Result<()>, warm_up: usize, runs: usize) -> Result<Latency> {
    let mut latencies = measure_together(&mut [&mut call], warm_up, runs)?;
    match latencies.pop() {
        Some(latency) => Ok(latency),
        None => bail!("one call was measured, no latency was found"),
    }
}

/// Times several calls in turns: each round makes one call of each, in order.
///
/// A ratio of two latencies taken one after the other also measures how the machine's speed changed in between
/// (a factor of two within minutes on shared machines); in turns, both see the same.
///
/// # Errors
/// If `runs` is 0, or the first error of a call.
pub fn measure_together(
    calls: &mut [&mut dyn FnMut() -> Result<()>],
    warm_up: usize,
    runs: usize,
) -> Result<Vec<Latency>> {
    if runs == 0 {
        bail!("`runs`: expected at least 1, found 0");
    }
    let mut seconds = vec![Vec::with_capacity(runs); calls.len()];
    for round in 0..warm_up + runs {
        for (call, seconds) in calls.iter_mut().zip(&mut seconds) {
            let start = Instant::now();
            call()?;
            if round >= warm_up {
                seconds.push(start.elapsed().as_secs_f64());
            }
        }
    }
    Ok(seconds.into_iter().map(Latency::of).collect())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn percentiles_are_of_the_nearest_rank() {
        let of = |milliseconds: Vec<f64>| Latency::of(milliseconds.into_iter().map(|ms| ms / 1e3).collect());
        let close = |found: f64, expected: f64| assert!((found - expected).abs() < 1e-9, "{found} != {expected}");
        let hundred = of((1..=100).rev().map(f64::from).collect());
        close(hundred.p50_ms, 50.0);
        close(hundred.p99_ms, 99.0);
        let three = of(vec![30.0, 10.0, 20.0]);
        close(three.p50_ms, 20.0);
        close(three.p99_ms, 30.0);
        // 40 words in 20 ms.
        close(three.words_per_second(40), 2000.0);
    }

    #[test]
    fn warm_up_is_called_and_not_counted() {
        let mut called = 0;
        let mut call = || {
            called += 1;
            Ok(())
        };
        assert_eq!(measure(&mut call, 3, 7).unwrap().runs, 7);
        assert_eq!(called, 10);
    }

    #[test]
    fn calls_take_turns() {
        let order = std::cell::RefCell::new(String::new());
        let note = |mark| {
            order.borrow_mut().push(mark);
            Ok(())
        };
        let (mut first, mut second) = (|| note('a'), || note('b'));
        assert_eq!(measure_together(&mut [&mut first, &mut second], 1, 2).unwrap().len(), 2);
        assert_eq!(order.into_inner(), "ababab");
    }

    #[test]
    fn errors_come_through() {
        assert!(measure(|| Ok(()), 1, 0).unwrap_err().to_string().contains("expected at least 1, found 0"));
        assert!(measure(|| bail!("broken"), 0, 1).unwrap_err().to_string().contains("broken"));
    }

    #[test]
    fn a_latency_survives_json() {
        let latency = Latency { p50_ms: 1.25, p99_ms: 2.5, runs: 9, threads: 2 };
        let json = serde_json::to_string(&latency).unwrap();
        assert_eq!(json, r#"{"p50_ms":1.25,"p99_ms":2.5,"runs":9,"threads":2}"#);
        assert_eq!(serde_json::from_str::<Latency>(&json).unwrap(), latency);
    }
}
