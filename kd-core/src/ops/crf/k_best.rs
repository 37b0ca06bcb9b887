//! The best paths of each sequence, several of them.

use std::cmp::Ordering;

use candle_core::{Result, Tensor, bail};
use rayon::prelude::*;

use super::{CHUNK, check, chunks, read, read_tensor, to_cpu};

/// A label path of one sequence and its score `s(y)`, see [`crate::ops::crf`].
#[derive(Debug, Clone, PartialEq)]
pub struct Path {
    /// One class per word.
    pub labels: Vec<u32>,
    /// `s(y)`, not normalised, in nats.
    pub score: f64,
}

/// The `k` best paths of each sequence, the best first; of a sequence with fewer paths, all of them.
///
/// Exact: every class at every word keeps its own `k` best beginnings. Among equal scores the path comes first whose last
/// label is lower, or the one before it, and so on, so the first path is that of [`super::viterbi`]. A path with a
/// score of -∞ is none. One through a transition that [`super::constrain`] forbids is one, with a score to match: it is
/// among the `k` if too few others are. A sequence without words has one path, without labels, of score 0. Takes
/// `rows · classes² · k` additions and a sort of as many; nothing is differentiable here.
///
/// # Shapes
/// - `emissions`: `(rows, classes)`, `transitions`: `(classes + 2, classes)`, `lengths`: rows of each sequence
/// - returns one list per sequence
///
/// # Errors
/// As [`super::log_partition`], and if `k` is 0 or a score is NaN or +∞.
///
/// ```
/// use candle_core::{Device, Tensor};
/// let emissions = Tensor::new(&[[2f64, 0.], [0., 3.]], &Device::Cpu)?; // paths 00: 2, 01: 5, 10: 0, 11: 3
/// let transitions = Tensor::zeros((4, 2), emissions.dtype(), &Device::Cpu)?;
/// let paths = kd_core::ops::crf::k_best(&emissions, &transitions, &[2], 3)?;
/// let labels: Vec<_> = paths[0].iter().map(|path| (path.labels.clone(), path.score)).collect();
/// assert_eq!(labels, [(vec![0, 1], 5.), (vec![1, 1], 3.), (vec![0, 0], 2.)]);
/// # Ok::<(), candle_core::Error>(())
/// ```
pub fn k_best(emissions: &Tensor, transitions: &Tensor, lengths: &[usize], k: usize) -> Result<Vec<Vec<Path>>> {
    let classes = check(emissions, transitions, lengths)?;
    if k == 0 {
        bail!("k_best: expected at least one path, found k = 0");
    }
    let emissions = read_tensor(&to_cpu(&emissions.detach())?, read)?;
    let transitions = read_tensor(&to_cpu(&transitions.detach())?, read)?;
    for (name, values) in [("emission", &emissions), ("transition", &transitions)] {
        if let Some(value) = values.iter().find(|value| value.is_nan() || **value == f64::INFINITY) {
            bail!("k_best: expected {name}s that are finite or -inf, found {value}");
        }
    }
    let shares: Vec<Vec<Vec<Path>>> = chunks(lengths)
        .into_par_iter()
        .map(|(first, mut row)| {
            let mut paths = Vec::with_capacity(CHUNK);
            for &len in lengths.iter().skip(first).take(CHUNK) {
                paths.push(of_sequence(&emissions[row * classes..(row + len) * classes], &transitions, classes, k));
                row += len;
            }
            paths
        })
        .collect();
    Ok(shares.into_iter().flatten().collect())
}

/// The beginning of a path up to a class at a word.
#[derive(Clone, Copy)]
struct Beginning {
    score: f64,
    /// Class at the word before, and place among its beginnings.
    previous: (usize, usize),
}

/// The `k` best ways on from `beginnings` of each class, with what `step` adds to each class's; those of -∞ left out.
fn best(beginnings: &[Vec<Beginning>], step: impl Fn(usize) -> f64, k: usize) -> Vec<Beginning> {
    let mut ways = Vec::with_capacity(beginnings.len() * k);
    for (class, beginnings) in beginnings.iter().enumerate() {
        let step = step(class);
        for (place, beginning) in beginnings.iter().enumerate() {
            let score = beginning.score + step;
            if score > f64::NEG_INFINITY {
                ways.push(Beginning { score, previous: (class, place) });
            }
        }
    }
    // Stable, so equals stay in the order of classes, and within a class in that of their beginnings.
    ways.sort_by(|a, b| b.score.partial_cmp(&a.score).unwrap_or(Ordering::Equal));
    ways.truncate(k);
    ways
}

fn of_sequence(emissions: &[f64], transitions: &[f64], classes: usize, k: usize) -> Vec<Path> {
    let (start, end) = (&transitions[classes * classes..], &transitions[(classes + 1) * classes..]);
    let mut rows = emissions.chunks_exact(classes);
    let Some(first) = rows.next() else { return vec![Path { labels: Vec::new(), score: 0.0 }] };
    let begin = |class: usize| vec![Beginning { score: start[class] + first[class], previous: (0, 0) }];
    // Of each word the beginnings up to each class.
    let mut words: Vec<Vec<Vec<Beginning>>> = vec![(0..classes).map(begin).collect()];
    for emissions in rows {
        let before = &words[words.len() - 1];
        let step = |to: usize| {
            let mut best = best(before, |from| transitions[from * classes + to], k);
            best.iter_mut().for_each(|beginning| beginning.score += emissions[to]);
            best
        };
        let word = (0..classes).map(step).collect();
        words.push(word);
    }
    let path = |whole: Beginning| {
        let mut at = whole.previous;
        let mut labels = vec![0; words.len()];
        for (label, word) in labels.iter_mut().zip(&words).rev() {
            *label = at.0 as u32;
            at = word[at.0][at.1].previous;
        }
        Path { labels, score: whole.score }
    };
    best(&words[words.len() - 1], |class| end[class], k).into_iter().map(path).collect()
}

#[cfg(test)]
mod tests {
    use super::super::{path_scores, viterbi};
    use super::*;
    use crate::testing::random;
    use candle_core::{DType, Device};

    const CPU: &Device = &Device::Cpu;

    /// All label paths of one sequence in the order that is promised, scores from the paths themselves.
    fn all_paths(emissions: &Tensor, transitions: &Tensor) -> Vec<Path> {
        let (len, classes) = emissions.dims2().unwrap();
        let mut paths: Vec<Path> = (0..classes.pow(len as u32))
            .map(|idx| {
                // Counts with the first word fastest, so by the last label, then the one before.
                let labels: Vec<u32> = (0..len).map(|t| (idx / classes.pow(t as u32) % classes) as u32).collect();
                let tensor = Tensor::new(labels.as_slice(), CPU).unwrap();
                let score = path_scores(emissions, transitions, &tensor, &[len]).unwrap().to_vec1::<f64>().unwrap()[0];
                Path { labels, score }
            })
            .collect();
        paths.sort_by(|a, b| b.score.partial_cmp(&a.score).unwrap());
        paths
    }

    fn check_against_all(emissions: &Tensor, transitions: &Tensor, ks: &[usize]) {
        let len = emissions.dim(0).unwrap();
        let expected = all_paths(emissions, transitions);
        for &k in ks {
            let found = k_best(emissions, transitions, &[len], k).unwrap().remove(0);
            assert_eq!(found.len(), k.min(expected.len()));
            for (found, expected) in found.iter().zip(&expected) {
                assert_eq!(found.labels, expected.labels, "k = {k}");
                assert!((found.score - expected.score).abs() < 1e-12);
            }
        }
    }

    #[test]
    fn the_paths_are_the_first_of_all() {
        for (classes, len) in [(3, 4), (4, 3), (2, 6), (5, 2), (3, 1), (1, 4), (1, 1)] {
            let emissions = (random(classes as u64, (len, classes)).unwrap() * 3.0).unwrap();
            let transitions = (random(len as u64, (classes + 2, classes)).unwrap() * 2.0).unwrap();
            check_against_all(&emissions, &transitions, &[1, 2, 3, 5, 20, 1000]);
            let best = k_best(&emissions, &transitions, &[len], 1).unwrap();
            assert_eq!(viterbi(&emissions, &transitions, &[len]).unwrap(), best[0][0].labels);
        }
    }

    #[test]
    fn ties_go_to_the_lower_label_of_the_later_word() {
        // Whole numbers from -1 to 1, so many paths have exactly the same score.
        let whole = |seed, shape| ((random(seed, shape).unwrap() * 1.5).unwrap()).round().unwrap();
        for seed in 0..10 {
            let (emissions, transitions) = (whole(seed, (4, 3)), whole(seed + 100, (5, 3)));
            check_against_all(&emissions, &transitions, &[1, 2, 4, 7, 81]);
        }
        let zeros = |shape: (usize, usize)| Tensor::zeros(shape, DType::F32, CPU).unwrap();
        let paths = k_best(&zeros((2, 2)), &zeros((4, 2)), &[2], 4).unwrap();
        let labels: Vec<_> = paths[0].iter().map(|path| path.labels.as_slice()).collect();
        assert_eq!(labels, [[0, 0], [1, 0], [0, 1], [1, 1]]);
    }

    #[test]
    fn sequences_do_not_meet_and_threads_change_nothing() {
        let lengths: Vec<usize> = (0..23).map(|idx| idx * 5 % 7).collect();
        let rows = lengths.iter().sum::<usize>();
        let emissions = (random(1, (rows, 4)).unwrap() * 3.0).unwrap();
        let transitions = random(2, (6, 4)).unwrap();
        let pools = [1, 3].map(|n| rayon::ThreadPoolBuilder::new().num_threads(n).build().unwrap());
        let [one, three] = pools.map(|pool| pool.install(|| k_best(&emissions, &transitions, &lengths, 3).unwrap()));
        assert_eq!(one, three);
        let mut row = 0;
        for (found, &len) in one.iter().zip(&lengths) {
            let alone = k_best(&emissions.narrow(0, row, len).unwrap(), &transitions, &[len], 3).unwrap();
            assert_eq!(*found, alone[0]);
            row += len;
        }
        assert_eq!(one[0], [Path { labels: vec![], score: 0.0 }]); // no words
    }

    #[test]
    fn impossible_paths_are_none() {
        let emissions = Tensor::new(&[[0.0, f64::NEG_INFINITY], [0.0, 1.0]], CPU).unwrap();
        let transitions = Tensor::zeros((4, 2), DType::F64, CPU).unwrap();
        let paths = k_best(&emissions, &transitions, &[2], 4).unwrap().remove(0);
        assert_eq!(paths.iter().map(|path| path.labels.as_slice()).collect::<Vec<_>>(), [[0, 1], [0, 0]]);
        let message = |emissions: &Tensor, k| k_best(emissions, &transitions, &[2], k).unwrap_err().to_string();
        assert!(message(&emissions, 0).contains("k = 0"));
        assert!(message(&(&emissions * f64::NAN).unwrap(), 1).contains("emissions that are finite or -inf, found NaN"));
        assert!(message(&emissions.narrow(0, 0, 1).unwrap(), 1).contains("lengths sum to 2"));
    }
}
