//! Low-resource draws: a few examples keep their labels, the others are used without.

use rand::{RngCore, SeedableRng};
use rand_chacha::ChaCha8Rng;

use crate::error::{Error, Result, count};

/// Draws `n` of the examples `0..n_total` to be labelled; returns them and the rest, both in the drawn order.
///
/// Every `n`-subset is equally likely. A larger `n` of the same seed contains the smaller draw, and the first `k` of the
/// rest are a random sample too.
///
/// ```
/// let (labelled, rest) = kd_data::sample::draw(5, 2, 1)?;
/// assert_eq!((labelled.len(), rest.len()), (2, 3));
/// assert_eq!(kd_data::sample::draw(5, 3, 1)?.0[..2], labelled);
/// # Ok::<(), kd_data::Error>(())
/// ```
///
/// # Errors
/// If `n` is larger than `n_total`.
pub fn draw(n_total: usize, n: usize, seed: u64) -> Result<(Vec<usize>, Vec<usize>)> {
    if n > n_total {
        let expected = format!("at most {}, as many as there are", count(n_total, "labelled example"));
        return Err(Error::argument("draw", expected, n.to_string()));
    }
    let mut labelled: Vec<usize> = (0..n_total).collect();
    shuffle(&mut labelled, &mut ChaCha8Rng::seed_from_u64(seed));
    let rest = labelled.split_off(n);
    Ok((labelled, rest))
}

/// Draws `n` examples of every class to be labelled; returns them and the rest, both in the drawn order.
///
/// `labels` holds the class of each example.
///
/// ```
/// let (labelled, rest) = kd_data::sample::draw_per_class(&[0, 1, 0, 1, 1], 2, 1)?;
/// assert_eq!((labelled.len(), rest.len()), (4, 1));
/// # Ok::<(), kd_data::Error>(())
/// ```
///
/// # Errors
/// If a class has fewer than `n` examples; the message names its index.
pub fn draw_per_class(labels: &[u32], n: usize, seed: u64) -> Result<(Vec<usize>, Vec<usize>)> {
    let (order, _) = draw(labels.len(), labels.len(), seed)?;
    let mut counts = vec![0; labels.iter().max().map_or(0, |&class| class as usize + 1)];
    let (labelled, rest) = order.into_iter().partition(|&example| {
        counts[labels[example] as usize] += 1;
        counts[labels[example] as usize] <= n
    });
    match counts.iter().position(|&found| found < n) {
        Some(class) => {
            let expected = format!("at least {}", count(n, "example"));
            Err(Error::argument(format!("draw of class {class}"), expected, counts[class].to_string()))
        }
        None => Ok((labelled, rest)),
    }
}

/// Fisher and Yates' shuffle, written out so that a seed means the same with every version of `rand`.
pub(crate) fn shuffle<T>(items: &mut [T], rng: &mut ChaCha8Rng) {
    for idx in 0..items.len().saturating_sub(1) {
        // The high half of a 128-bit product: uniform up to one part in 2^64 / len.
        let offset = (u128::from(rng.next_u64()) * (items.len() - idx) as u128) >> 64;
        items.swap(idx, idx + offset as usize);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_draw_parts_all_examples() {
        let (labelled, rest) = draw(100, 30, 7).unwrap();
        let mut all = [labelled.clone(), rest].concat();
        assert_eq!(labelled.len(), 30);
        all.sort_unstable();
        assert_eq!(all, (0..100).collect::<Vec<_>>());
    }

    #[test]
    fn the_seed_is_all_that_matters() {
        assert_eq!(draw(100, 30, 7).unwrap(), draw(100, 30, 7).unwrap());
        assert_ne!(draw(100, 30, 7).unwrap().0, draw(100, 30, 8).unwrap().0);
        // Guards published draws against a change of generator: recorded from this code.
        assert_eq!(draw(10, 4, 1).unwrap().0, [4, 1, 6, 0]);
    }

    #[test]
    fn every_example_is_drawn_equally_often() {
        // 2000 draws of 2 of 8: each is drawn 500 times in the mean, deviation √(2000 · 1/4 · 3/4) = 19.4; five of them.
        let mut counts = [0usize; 8];
        for seed in 0..2000 {
            for id in draw(8, 2, seed).unwrap().0 {
                counts[id] += 1;
            }
        }
        assert!(counts.iter().all(|&count| count.abs_diff(500) < 97), "{counts:?}");
    }

    #[test]
    fn a_draw_per_class_has_as_many_of_each() {
        let labels = [0, 0, 0, 0, 1, 1, 1, 2, 2, 2, 2, 2];
        let (labelled, rest) = draw_per_class(&labels, 3, 5).unwrap();
        for class in 0..3 {
            assert_eq!(labelled.iter().filter(|&&example| labels[example] == class).count(), 3);
        }
        let mut all = [labelled, rest].concat();
        all.sort_unstable();
        assert_eq!(all, (0..12).collect::<Vec<_>>());
        let message = draw_per_class(&labels, 4, 5).unwrap_err().to_string();
        assert_eq!(message, "draw of class 1: expected at least 4 examples, found 3");
    }

    #[test]
    fn all_none_and_too_many() {
        assert!(draw(3, 3, 1).unwrap().1.is_empty());
        assert!(draw(3, 0, 1).unwrap().0.is_empty());
        let expected = "draw: expected at most 3 labelled examples, as many as there are, found 4";
        assert_eq!(draw(3, 4, 1).unwrap_err().to_string(), expected);
    }
}
