//! A policy over two teachers on few rows, small enough to enumerate every draw.
#![allow(dead_code, unreachable_pub, reason = "tests and an example use a part of this each")]

use candle_core::{DType, Device, Result, Tensor};
use kd_core::testing::random;
use kd_core::variables::Variables;
use kd_rl::baseline::{Baseline, BaselineConfig};
use kd_rl::policy::{PolicyConfig, SelectionPolicy};
use kd_rl::reinforce::{log_prob, reinforce_loss};
use kd_rl::selection::Choice;
use kd_rl::state::Layout;

/// Two shared features and one of each teacher.
pub const LAYOUT: Layout = Layout { shared: 2, own: 1, teachers: 2 };

const STATES: [[f64; 4]; 4] =
    [[1.0, 0.2, 0.5, -0.4], [-0.5, 0.7, 0.1, 0.9], [0.3, -1.1, -0.6, 0.2], [0.9, 0.4, 1.3, -0.8]];

/// Reward of each row for no teacher, the first, the second, both: arbitrary numbers with an offset, as losses have.
const REWARDS: [[f64; 4]; 4] =
    [[-1.9, -1.1, -2.3, -1.6], [-0.8, -2.7, -1.5, -2.0], [-2.2, -1.7, -1.2, -3.0], [-1.4, -1.9, -2.4, -1.3]];

/// The gradient of the loss over every variable in name order: its mean over all draws, what it should be, and the sum
/// of its entries' variances.
pub struct Estimate {
    pub mean: Vec<f64>,
    pub exact: Vec<f64>,
    pub variance: f64,
}

/// All baselines with the number of samples they need, after some batches, and what divides their advantages.
pub fn baselines() -> Vec<(BaselineConfig, usize, f64)> {
    vec![
        (BaselineConfig::None, 1, 1.0),
        (BaselineConfig::MovingAverage { decay: 0.9 }, 1, 1.0),
        // The batches before, see `seasoned`, have the variances 1/4 and 1: 0.9 · 1/4 + 0.1 · 1 = 0.325.
        (BaselineConfig::Standardised { decay: 0.9 }, 1, 0.325f64.sqrt()),
        (BaselineConfig::LeaveOneOut, 2, 1.0),
        (BaselineConfig::LeaveOneOut, 4, 1.0),
        (BaselineConfig::Learned { lr: 0.1 }, 1, 1.0),
    ]
}

/// A baseline that has seen batches.
pub fn seasoned(config: BaselineConfig) -> Result<Baseline> {
    let mut baseline = Baseline::new(config, LAYOUT.features(), DType::F64, &Device::Cpu)?;
    let states = Tensor::new(&STATES, &Device::Cpu)?.narrow(0, 0, 2)?;
    for rewards in [[-2.0, -1.0], [-3.0, -1.0]] {
        baseline.update(&Tensor::new(&[rewards], &Device::Cpu)?, &states)?;
    }
    if let BaselineConfig::Learned { .. } = config {
        // What a state earns when both choices are even.
        let means = REWARDS.map(|row| row.iter().sum::<f64>() / 4.0);
        let (states, means) = (Tensor::new(&STATES, &Device::Cpu)?, Tensor::new(&[means], &Device::Cpu)?);
        for _ in 0..200 {
            baseline.update(&means, &states)?;
        }
    }
    Ok(baseline)
}

/// Enumerates every draw of `samples` actions for each of `4 / samples` rows.
pub fn enumerate(policy: PolicyConfig, config: BaselineConfig, samples: usize) -> Result<Estimate> {
    let (rows, choice, baseline) = (4 / samples, policy.choice, seasoned(config)?);
    let variables = Variables::new(5, DType::F64, &Device::Cpu);
    let policy = SelectionPolicy::new(LAYOUT, policy, variables.builder())?;
    for (idx, (_, var)) in variables.named().into_iter().enumerate() {
        var.set(&random(idx as u64 + 3, var.shape().clone())?)?;
    }
    let states = Tensor::new(&STATES, &Device::Cpu)?.narrow(0, 0, rows)?;
    let kinds: Vec<usize> = match choice {
        Choice::Subset => (0..4).collect(),
        Choice::One => vec![1, 2],
        Choice::Weights { .. } => candle_core::bail!("weights cannot be enumerated"),
    };
    let probs: Vec<Vec<f64>> = policy.probabilities(&states)?.to_vec2()?;
    let (mut mean, mut squares): (Vec<f64>, Vec<f64>) = (vec![], vec![]);
    for joint in 0..kinds.len().pow(4) {
        // Sample by sample, and in each row by row.
        let draws: Vec<usize> = (0..4).map(|place| kinds[joint / kinds.len().pow(place) % kinds.len()]).collect();
        let actions: Vec<f64> = draws.iter().flat_map(|&kind| actions(kind)).collect();
        let rewards: Vec<f64> = draws.iter().enumerate().map(|(place, &kind)| REWARDS[place % rows][kind]).collect();
        let rewards = Tensor::from_vec(rewards, (samples, rows), &Device::Cpu)?;
        let advantages = baseline.advantages(&rewards, &states)?.flatten_all()?;
        let now = policy.probabilities(&states)?;
        let now = Tensor::cat(&vec![&now; samples], 0)?;
        let actions = Tensor::from_vec(actions, (4, 2), &Device::Cpu)?;
        let gradients = reinforce_loss(&log_prob(choice, &now, &actions)?, &advantages)?.backward()?;
        let likelihood: f64 =
            draws.iter().enumerate().map(|(place, &kind)| likelihood(choice, &probs[place % rows], kind)).product();
        let mut at = 0;
        for (_, var) in variables.named() {
            let gradient = gradients.get(&var).expect("every variable has a gradient");
            for value in gradient.flatten_all()?.to_vec1::<f64>()? {
                if at == mean.len() {
                    mean.push(0.0);
                    squares.push(0.0);
                }
                mean[at] += likelihood * value;
                squares[at] += likelihood * value * value;
                at += 1;
            }
        }
    }
    let variance = mean.iter().zip(&squares).map(|(mean, square)| square - mean * mean).sum();
    Ok(Estimate { mean, exact: differences(&variables, &policy, &states, &kinds)?, variance })
}

/// Minus the gradient of the expected reward, by central differences.
fn differences(variables: &Variables, policy: &SelectionPolicy, states: &Tensor, kinds: &[usize]) -> Result<Vec<f64>> {
    let (step, mut exact) = (1e-5, vec![]);
    let expected = || -> Result<f64> {
        let probs: Vec<Vec<f64>> = policy.probabilities(states)?.to_vec2()?;
        let row = |(row, probs): (usize, &Vec<f64>)| -> f64 {
            let of = |&kind: &usize| likelihood(policy.config().choice, probs, kind) * REWARDS[row][kind];
            kinds.iter().map(of).sum()
        };
        Ok(probs.iter().enumerate().map(row).sum::<f64>() / probs.len() as f64)
    };
    for (_, var) in variables.named() {
        let start = var.as_tensor().copy()?;
        let values = start.flatten_all()?.to_vec1::<f64>()?;
        for place in 0..values.len() {
            let at = |sign: f64| -> Result<f64> {
                let mut moved = values.clone();
                moved[place] += sign * step;
                var.set(&Tensor::from_vec(moved, start.shape(), &Device::Cpu)?)?;
                expected()
            };
            exact.push(-(at(1.0)? - at(-1.0)?) / (2.0 * step));
        }
        var.set(&start)?;
    }
    Ok(exact)
}

fn actions(kind: usize) -> [f64; 2] {
    [(kind % 2) as f64, (kind / 2) as f64]
}

fn likelihood(choice: Choice, probs: &[f64], kind: usize) -> f64 {
    match choice {
        Choice::Subset => {
            let of = |a: f64, p: f64| if a == 1.0 { p } else { 1.0 - p };
            actions(kind).iter().zip(probs).map(|(&a, &p)| of(a, p)).product()
        }
        Choice::One | Choice::Weights { .. } => probs[kind - 1],
    }
}
