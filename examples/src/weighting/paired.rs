//! Differences of two students seed by seed, and how sure they are.

use serde::{Deserialize, Serialize};

/// The mean of paired differences with its confidence interval.
#[derive(Debug, Clone, Copy, PartialEq, Serialize, Deserialize)]
pub struct Paired {
    /// Mean difference.
    pub mean: f64,
    /// Half the width of the 95 % confidence interval by Student's t; none for one pair.
    pub half_width: Option<f64>,
    /// Number of pairs.
    pub pairs: usize,
}

impl Paired {
    /// Of these differences; none if there are none.
    ///
    /// The interval is that of *seeds*: of students trained again on the same examples and asked about the same test. What another
    /// test set would say is not in it. One interval in twenty misses its mean, and a table has many.
    pub fn of(differences: &[f64]) -> Option<Self> {
        let pairs = differences.len();
        if pairs == 0 {
            return None;
        }
        let mean = differences.iter().sum::<f64>() / pairs as f64;
        let squares: f64 = differences.iter().map(|difference| (difference - mean).powi(2)).sum();
        let half_width =
            (pairs > 1).then(|| t_quantile(pairs - 1) * (squares / (pairs - 1) as f64).sqrt() / (pairs as f64).sqrt());
        Some(Self { mean, half_width, pairs })
    }

    /// In points with the interval: `+0.4 [-0.1, +0.9]`.
    pub fn points(&self) -> String {
        let signed = |value: f64| format!("{:+.1}", 100.0 * value);
        match self.half_width {
            None => signed(self.mean),
            Some(half) => format!("{} [{}, {}]", signed(self.mean), signed(self.mean - half), signed(self.mean + half)),
        }
    }
}

/// The t with `P(|T| ≤ t) = 0.95` for Student's distribution of `degrees` degrees of freedom, ≥ 1.
fn t_quantile(degrees: usize) -> f64 {
    let (mut low, mut high) = (0.0, 20.0);
    for _ in 0..80 {
        let middle = 0.5 * (low + high);
        if within(middle, degrees) < 0.95 {
            low = middle;
        } else {
            high = middle;
        }
    }
    0.5 * (low + high)
}

/// `P(|T| ≤ t)` (Abramowitz & Stegun 1964, 26.7.3 and 26.7.4).
fn within(t: f64, degrees: usize) -> f64 {
    let angle = (t / (degrees as f64).sqrt()).atan();
    let (sin, cos) = angle.sin_cos();
    // Odd: cos + 2/3 cos³ + 2·4/(3·5) cos⁵ + …; even: 1 + 1/2 cos² + 1·3/(2·4) cos⁴ + …
    let is_odd = degrees % 2 == 1;
    let first = if is_odd { cos } else { 1.0 };
    let start = if is_odd { 3 } else { 2 };
    let (mut sum, mut term) = (0.0, first);
    for power in (start..=degrees).step_by(2) {
        sum += term;
        term *= cos * cos * (power - 1) as f64 / power as f64;
    }
    if is_odd { (angle + sin * sum) * std::f64::consts::FRAC_2_PI } else { sin * sum }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn quantiles_are_those_of_the_tables() {
        for (degrees, expected) in
            [(1, 12.706), (2, 4.303), (3, 3.182), (4, 2.776), (9, 2.262), (30, 2.042), (120, 1.980)]
        {
            let found = t_quantile(degrees);
            assert!((found - expected).abs() < 5e-4, "{degrees}: {found}, expected {expected}");
        }
    }

    #[test]
    fn an_interval_by_hand() {
        // Mean 0.02, squared deviations 4 · 0.01², variance 4e-4 / 4 = 1e-4: 0.01 · 2.776 / √5 = 0.01242.
        let paired = Paired::of(&[0.01, 0.03, 0.01, 0.03, 0.02]).unwrap();
        assert!((paired.mean - 0.02).abs() < 1e-12);
        assert!((paired.half_width.unwrap() - 0.012_417).abs() < 1e-5, "{paired:?}");
        assert_eq!(paired.points(), "+2.0 [+0.8, +3.2]");
        let one = Paired::of(&[-0.01]).unwrap();
        assert_eq!(one.points(), "-1.0");
        assert!(Paired::of(&[]).is_none());
    }
}
