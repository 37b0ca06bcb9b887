//! The estimator's mean is the gradient of the expected reward: by enumeration of every draw, against finite differences.

mod toy;

use candle_core::{Device, Tensor, Var};
use kd_rl::policy::{Form, PolicyConfig, Scope};
use kd_rl::reinforce::{log_prob, reinforce_loss};
use kd_rl::selection::{Choice, select};
use toy::{baselines, enumerate};

#[test]
fn with_every_baseline_the_mean_over_all_draws_is_the_gradient_of_the_expected_reward() {
    for choice in [Choice::Subset, Choice::One] {
        for (baseline, samples, divisor) in baselines() {
            let policy = PolicyConfig { choice, ..PolicyConfig::default() };
            let found = enumerate(policy, baseline, samples).unwrap();
            assert!(found.exact.iter().any(|value| value.abs() > 1e-2), "{:?}", found.exact);
            for (idx, (mean, exact)) in found.mean.iter().zip(&found.exact).enumerate() {
                let difference = (mean * divisor - exact).abs();
                assert!(difference < 1e-9, "{choice:?}, {baseline:?}, entry {idx}: {mean} · {divisor} != {exact}");
            }
        }
    }
}

#[test]
fn so_it_is_for_every_form_of_policy() {
    for form in [Form::Linear, Form::Mlp { hidden: 3 }] {
        for scope in [Scope::Joint, Scope::PerTeacher] {
            let policy = PolicyConfig { form, scope, ..PolicyConfig::default() };
            let (baseline, samples, divisor) = baselines()[1];
            let found = enumerate(policy, baseline, samples).unwrap();
            for (mean, exact) in found.mean.iter().zip(&found.exact) {
                assert!((mean * divisor - exact).abs() < 1e-9, "{policy:?}: {mean} != {exact}");
            }
        }
    }
}

#[test]
fn of_drawn_weights_the_mean_comes_near_the_gradient_of_the_expected_reward() {
    // The reward c · ln w less its mean over teachers has the mean c' · ln p, c' being c less its mean: the expected reward's
    // gradient in p is c'_k / p_k. 40,000 draws, four standard errors.
    let (rows, choice) = (40_000, Choice::Weights { deviation: 0.5 });
    let (row, c) = ([0.2f64, 0.3, 0.5], [1.0, -0.5, 2.0]);
    let mean = c.iter().sum::<f64>() / 3.0;
    let probs = Var::from_tensor(&Tensor::new(&[row], &Device::Cpu).unwrap().repeat((rows, 1)).unwrap()).unwrap();
    let drawn = select(choice, &probs, 3, 0).unwrap();
    let reward = |weights: &Vec<f64>| weights.iter().zip(c).map(|(weight, c)| (c - mean) * weight.ln()).sum::<f64>();
    let rewards: Vec<f64> = drawn.to_vec2::<f64>().unwrap().iter().map(reward).collect();
    let rewards = Tensor::new(rewards, &Device::Cpu).unwrap();
    let loss = reinforce_loss(&log_prob(choice, &probs, &drawn).unwrap(), &rewards).unwrap();
    // Minus the gradient of every draw, divided by the rows.
    let gradients = loss.backward().unwrap().get(&probs).unwrap().to_vec2::<f64>().unwrap();
    for teacher in 0..3 {
        let of_draws: Vec<f64> = gradients.iter().map(|row| -row[teacher] * rows as f64).collect();
        let found = of_draws.iter().sum::<f64>() / rows as f64;
        let variance = of_draws.iter().map(|value| (value - found).powi(2)).sum::<f64>() / rows as f64;
        let expected = (c[teacher] - mean) / row[teacher];
        let error = (variance / rows as f64).sqrt();
        assert!((found - expected).abs() < 4.0 * error, "teacher {teacher}: {found} ± {error}, expected {expected}");
    }
}

#[test]
fn a_baseline_takes_out_most_of_the_variance() {
    let variance = |idx: usize| {
        let (baseline, samples, divisor) = baselines()[idx];
        enumerate(PolicyConfig::default(), baseline, samples).unwrap().variance * divisor * divisor
    };
    let none = variance(0);
    // Rewards lie around -1.8 and vary by 0.6: without a baseline most of the noise is the offset's.
    for idx in [1, 2, 5] {
        assert!(variance(idx) < 0.5 * none, "{:?}: {} against {none}", baselines()[idx].0, variance(idx));
    }
}
