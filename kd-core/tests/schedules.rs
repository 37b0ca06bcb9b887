//! The schedules against PyTorch's and transformers'.

use kd_core::schedule::Schedule;
use serde_json::Value;

fn warmup(schedule: Schedule) -> usize {
    match schedule {
        Schedule::WarmupConstant { warmup }
        | Schedule::WarmupLinear { warmup, .. }
        | Schedule::WarmupCosine { warmup, .. }
        | Schedule::WarmupPolynomial { warmup, .. } => warmup,
        Schedule::Constant | Schedule::StepDecay { .. } => 0,
    }
}

#[test]
fn factors_are_those_of_pytorch_and_the_rise_is_one_step_ahead() {
    let cases: Vec<Value> = serde_json::from_str(include_str!("reference/schedules.json")).unwrap();
    assert_eq!(cases.len(), 8);
    for case in cases {
        let schedule: Schedule = serde_json::from_value(case["schedule"].clone()).unwrap();
        let expected: Vec<f64> = serde_json::from_value(case["factors"].clone()).unwrap();
        let warmup = warmup(schedule);
        assert!(expected.len() > 25);
        for (step, &at_step) in expected.iter().enumerate() {
            // Theirs rises from 0 to (warmup - 1) / warmup, this one from 1 / warmup to 1.
            let expected = if step < warmup { expected[step + 1] } else { at_step };
            let found = schedule.factor(step);
            assert!((found - expected).abs() < 1e-12, "{schedule:?}: step {step}: expected {expected}, found {found}");
        }
    }
}
