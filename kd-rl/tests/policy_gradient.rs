//! The estimator's mean is the gradient of the expected reward: by enumeration of every draw, against finite differences.

mod toy;

use kd_rl::policy::{Form, PolicyConfig, Scope};
use kd_rl::selection::Choice;
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
