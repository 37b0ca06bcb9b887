//! The recursions of one sequence, in f64: `log Σ exp` steps along the chain and their derivatives.

/// Below this a sum of scaled probabilities may have lost terms to underflow and is taken again in log space.
/// Terms that underflow next to a larger sum are smaller than it by a factor of 10¹⁰⁰ and do not count.
const TINY: f64 = 1e-200;

/// The largest value, NaN if there is one, -∞ if there is none.
fn largest(values: impl Iterator<Item = f64>) -> f64 {
    values.fold(f64::NEG_INFINITY, |max, x| if x > max || x.is_nan() { x } else { max })
}

/// `log Σ exp` of `values`; -∞ if there is none or all are -∞.
pub(super) fn log_sum_exp(values: impl Iterator<Item = f64> + Clone) -> f64 {
    let max = largest(values.clone());
    if max == f64::NEG_INFINITY { max } else { max + values.map(|x| (x - max).exp()).sum::<f64>().ln() }
}

/// `out_j = log Σ_i exp(prev_i + weights_ij)`.
///
/// Taken as `log Σ_i exp(prev_i - max prev) · exp(weights_ij)`, so a step takes `classes` exponentials instead
/// of `classes²`; where that underflows, from the sums themselves.
struct Step {
    classes: usize,
    weights: Vec<f64>,
    /// `exp(weights - shift)`, at most 1.
    factors: Vec<f64>,
    shift: f64,
}

impl Step {
    fn new(classes: usize, weights: Vec<f64>) -> Self {
        let shift = largest(weights.iter().copied());
        let shift = if shift.is_finite() { shift } else { 0.0 };
        let factors = weights.iter().map(|w| (w - shift).exp()).collect();
        Self { classes, weights, factors, shift }
    }

    /// `exp(prev - max prev)`, their products with the factors, and `max prev`.
    fn sums(&self, prev: &[f64]) -> (Vec<f64>, Vec<f64>, f64) {
        let max = largest(prev.iter().copied());
        let mut sums = vec![0.0; self.classes];
        let shift = if max == f64::NEG_INFINITY { 0.0 } else { max }; // exp(-∞) is 0, exp(-∞ + ∞) is not a number
        let scaled: Vec<f64> = prev.iter().map(|x| (x - shift).exp()).collect();
        for (scaled, factors) in scaled.iter().zip(self.factors.chunks_exact(self.classes)) {
            for (sum, factor) in sums.iter_mut().zip(factors) {
                *sum += scaled * factor;
            }
        }
        (scaled, sums, max)
    }

    fn arriving<'a>(&'a self, prev: &'a [f64], class: usize) -> impl Iterator<Item = f64> + Clone + 'a {
        prev.iter().zip(self.weights.iter().skip(class).step_by(self.classes)).map(|(prev, weight)| prev + weight)
    }

    fn forward(&self, prev: &[f64]) -> Vec<f64> {
        let (_, mut sums, max) = self.sums(prev);
        for (class, sum) in sums.iter_mut().enumerate() {
            *sum = if *sum > TINY { max + self.shift + sum.ln() } else { log_sum_exp(self.arriving(prev, class)) };
        }
        sums
    }

    /// Adds the gradients of `prev` and of the weights, given that of the step's result.
    fn backward(&self, prev: &[f64], d_out: &[f64], d_prev: &mut [f64], d_weights: &mut [f64]) {
        let (scaled, mut ratios, _) = self.sums(prev);
        for (class, (ratio, &d_out)) in ratios.iter_mut().zip(d_out).enumerate() {
            if *ratio > TINY {
                *ratio = d_out / *ratio;
                continue;
            }
            *ratio = 0.0;
            let out = log_sum_exp(self.arriving(prev, class));
            if d_out != 0.0 && out != f64::NEG_INFINITY {
                for (from, x) in self.arriving(prev, class).enumerate() {
                    let d = d_out * (x - out).exp();
                    d_prev[from] += d;
                    d_weights[from * self.classes + class] += d;
                }
            }
        }
        let per_class = self.factors.chunks_exact(self.classes).zip(d_weights.chunks_exact_mut(self.classes));
        for ((scaled, d_prev), (factors, d_weights)) in scaled.iter().zip(d_prev).zip(per_class) {
            for ((ratio, factor), d_weight) in ratios.iter().zip(factors).zip(d_weights) {
                let d = scaled * factor * ratio;
                *d_prev += d;
                *d_weight += d;
            }
        }
    }
}

/// Gradients of a task's share of sequences: of its rows, and of all transitions.
pub(super) struct Gradients {
    pub(super) emissions: Vec<f64>,
    pub(super) transitions: Vec<f64>,
    /// Gradient of the weights in the order (to, from), of the recursion that runs backward.
    transposed: Vec<f64>,
}

impl Gradients {
    pub(super) fn zeros(rows: usize, classes: usize) -> Self {
        Self {
            emissions: vec![0.0; rows * classes],
            transitions: vec![0.0; (classes + 2) * classes],
            transposed: vec![0.0; classes * classes],
        }
    }

    /// The gradients of all rows and the sum of those of the transitions, in the order of the shares.
    pub(super) fn join(shares: Vec<Self>, classes: usize) -> (Vec<f64>, Vec<f64>) {
        let mut transitions = vec![0.0; (classes + 2) * classes];
        let mut emissions = Vec::with_capacity(shares.iter().map(|share| share.emissions.len()).sum());
        for share in shares {
            emissions.extend(share.emissions);
            for (sum, d) in transitions.iter_mut().zip(&share.transitions) {
                *sum += d;
            }
            for from in 0..classes {
                for to in 0..classes {
                    transitions[from * classes + to] += share.transposed[to * classes + from];
                }
            }
        }
        (emissions, transitions)
    }
}

/// The transition scores and what the recursions need of them.
pub(super) struct Chain {
    pub(super) classes: usize,
    start: Vec<f64>,
    end: Vec<f64>,
    forward: Step,
    /// The step with its weights transposed, for the recursion from the last word to the first.
    backward: Step,
}

impl Chain {
    /// From transitions `(classes + 2, classes)`.
    pub(super) fn new(classes: usize, transitions: &[f64]) -> Self {
        let (weights, ends) = transitions.split_at(classes * classes);
        let transposed = (0..classes * classes).map(|i| weights[i % classes * classes + i / classes]).collect();
        Self {
            classes,
            start: ends[..classes].to_vec(),
            end: ends[classes..].to_vec(),
            forward: Step::new(classes, weights.to_vec()),
            backward: Step::new(classes, transposed),
        }
    }

    /// `log Σ exp` of the scores of all paths that end in each class at each word, `(len, classes)`.
    pub(super) fn alphas(&self, emissions: &[f64]) -> Vec<f64> {
        let mut alphas: Vec<f64> = Vec::with_capacity(emissions.len());
        for (t, emissions) in emissions.chunks_exact(self.classes).enumerate() {
            let stepped = match t {
                0 => self.start.clone(),
                _ => self.forward.forward(&alphas[(t - 1) * self.classes..]),
            };
            alphas.extend(stepped.iter().zip(emissions).map(|(a, e)| a + e));
        }
        alphas
    }

    /// Gradients of emissions and transitions from those of the alphas, which are used up.
    pub(super) fn alphas_backward(&self, alphas: &[f64], mut d_alphas: Vec<f64>, row: usize, into: &mut Gradients) {
        let classes = self.classes;
        for t in (0..alphas.len() / classes).rev() {
            let (before, d_alpha) = d_alphas.split_at_mut(t * classes);
            let d_alpha = &d_alpha[..classes];
            add(&mut into.emissions[(row + t) * classes..], d_alpha);
            if t == 0 {
                add(&mut into.transitions[classes * classes..], d_alpha);
            } else {
                let previous = (t - 1) * classes..t * classes;
                let d_weights = &mut into.transitions[..classes * classes];
                self.forward.backward(&alphas[previous.clone()], d_alpha, &mut before[previous], d_weights);
            }
        }
    }

    /// `log Σ exp` of what follows each class at each word, `(len, classes)`.
    pub(super) fn betas(&self, emissions: &[f64]) -> Vec<f64> {
        let (classes, len) = (self.classes, emissions.len() / self.classes);
        let mut betas = vec![0.0; emissions.len()];
        for t in (0..len).rev() {
            let beta = if t + 1 == len {
                self.end.clone()
            } else {
                self.backward.forward(&self.next(emissions, &betas, t + 1))
            };
            betas[t * classes..(t + 1) * classes].copy_from_slice(&beta);
        }
        betas
    }

    /// Gradients of emissions and transitions from those of the betas, which are used up.
    pub(super) fn betas_backward(
        &self,
        emissions: &[f64],
        betas: &[f64],
        mut d_betas: Vec<f64>,
        row: usize,
        into: &mut Gradients,
    ) {
        let (classes, len) = (self.classes, emissions.len() / self.classes);
        for t in 0..len {
            let (d_beta, after) = d_betas.split_at_mut((t + 1) * classes);
            let d_beta = &d_beta[t * classes..];
            if t + 1 == len {
                add(&mut into.transitions[(classes + 1) * classes..], d_beta);
            } else {
                let mut d_next = vec![0.0; classes];
                let next = self.next(emissions, betas, t + 1);
                self.backward.backward(&next, d_beta, &mut d_next, &mut into.transposed);
                add(&mut into.emissions[(row + t + 1) * classes..], &d_next);
                add(after, &d_next);
            }
        }
    }

    fn next(&self, emissions: &[f64], betas: &[f64], t: usize) -> Vec<f64> {
        let at = t * self.classes..(t + 1) * self.classes;
        emissions[at.clone()].iter().zip(&betas[at]).map(|(e, b)| e + b).collect()
    }

    /// `log Z` from the alphas; 0 for a sequence without words.
    pub(super) fn log_partition(&self, alphas: &[f64]) -> f64 {
        match alphas.len().checked_sub(self.classes) {
            None => 0.0,
            Some(last) => log_sum_exp(alphas[last..].iter().zip(&self.end).map(|(a, e)| a + e)),
        }
    }

    /// Gradients from that of `log Z`.
    pub(super) fn log_partition_backward(&self, alphas: &[f64], d: f64, row: usize, into: &mut Gradients) {
        let Some(last) = alphas.len().checked_sub(self.classes) else { return };
        let log_partition = self.log_partition(alphas);
        let mut d_alphas = vec![0.0; alphas.len()];
        for ((d_alpha, alpha), end) in d_alphas[last..].iter_mut().zip(&alphas[last..]).zip(&self.end) {
            *d_alpha = d * (alpha + end - log_partition).exp();
        }
        add(&mut into.transitions[(self.classes + 1) * self.classes..], &d_alphas[last..]);
        self.alphas_backward(alphas, d_alphas, row, into);
    }

    /// Calls `visit` with the index into the transitions of every transition of a label path.
    pub(super) fn transitions_of(&self, labels: &[u32], mut visit: impl FnMut(usize)) {
        let (Some(&first), Some(&last)) = (labels.first(), labels.last()) else { return };
        visit(self.classes * self.classes + first as usize);
        labels.windows(2).for_each(|pair| visit(pair[0] as usize * self.classes + pair[1] as usize));
        visit((self.classes + 1) * self.classes + last as usize);
    }
}

/// Adds `values` to the beginning of `sums`.
pub(super) fn add(sums: &mut [f64], values: &[f64]) {
    for (sum, value) in sums.iter_mut().zip(values) {
        *sum += value;
    }
}
