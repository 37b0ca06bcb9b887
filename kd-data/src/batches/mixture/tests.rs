use candle_core::Device;
use kd_core::batch::{Rows, Tokens, pad};

use super::*;
use crate::batches::BatchPlan;

fn mixture(shares: &[f64], order: Order) -> Mixture {
    Mixture::new(shares.to_vec(), order).unwrap()
}

fn turns(mixture: &Mixture, steps: usize) -> Vec<Turn> {
    (0..steps).map(|step| mixture.turn(step)).collect()
}

fn counts(turns: &[Turn], sets: usize) -> Vec<usize> {
    (0..sets).map(|set| turns.iter().filter(|turn| turn.set == set).count()).collect()
}

#[test]
fn shares_at_temperatures_by_hand() {
    // Cube roots of 1, 8 and 27: 1, 2, 3 of 6.
    for (share, expected) in temperature_shares(&[1, 8, 27], 3.0).unwrap().into_iter().zip([1. / 6., 2. / 6., 3. / 6.])
    {
        assert!((share - expected).abs() < 1e-15, "{share}");
    }
    // 10^(1/0.01) = 10^100 to 1, and no overflow on the way.
    assert_eq!(temperature_shares(&[10, 100, 1000], 0.001).unwrap(), [0.0, 0.0, 1.0]);
    let message = |sizes: &[usize], temperature| temperature_shares(sizes, temperature).unwrap_err().to_string();
    assert_eq!(message(&[], 1.0), "mixture: expected at least one set, found none");
    assert_eq!(message(&[1, 0], 1.0), "size of set 1: expected at least 1, found 0");
    assert_eq!(message(&[1], 0.0), "temperature: expected a number above 0, found 0");
    assert_eq!(message(&[1], f64::NAN), "temperature: expected a number above 0, found NaN");
}

#[test]
fn drawn_turns_have_the_shares_in_the_long_run() {
    let shares = temperature_shares(&[100, 400, 900], 2.0).unwrap(); // 1, 2, 3 of 6
    let all = turns(&mixture(&shares, Order::Drawn { seed: 5 }), 20_000);
    for (found, share) in counts(&all, 3).into_iter().zip([1. / 6., 2. / 6., 3. / 6.]) {
        // Deviation √(20000 · p (1 − p)) is at most 71; five of them.
        assert!((found as f64 - 20_000.0 * share).abs() < 355.0, "{found} of {share}");
    }
    // Independent of the turn before: after a turn of set 0 comes one of set 2 in half of the cases, ±5 · √(3333/4).
    let after = all.windows(2).filter(|pair| pair[0].set == 0 && pair[1].set == 2).count();
    assert!(after.abs_diff(1667) < 145, "{after}");
    assert_ne!(turns(&mixture(&shares, Order::Drawn { seed: 6 }), 100), all[..100]);
}

#[test]
fn a_turn_depends_on_the_step_alone() {
    for order in [Order::Drawn { seed: 5 }, Order::Even] {
        let shares = [0.2, 0.5, 0.3];
        let forwards = turns(&mixture(&shares, order), 5000);
        let backwards = mixture(&shares, order);
        let mut back: Vec<Turn> = (0..5000).rev().map(|step| backwards.turn(step)).collect();
        back.reverse();
        assert_eq!(back, forwards);
        assert_eq!(mixture(&shares, order).turn(4321), forwards[4321]);
        // The own steps of each set are 0, 1, 2, ..., over the ends of blocks too.
        for set in 0..3 {
            let own: Vec<usize> = forwards.iter().filter(|turn| turn.set == set).map(|turn| turn.step).collect();
            assert_eq!(own, (0..own.len()).collect::<Vec<_>>());
        }
    }
}

#[test]
fn even_turns_have_the_shares_all_the_time() {
    let sizes = [7, 50, 143];
    let even = mixture(&temperature_shares(&sizes, 1.0).unwrap(), Order::Even);
    let all = turns(&even, 2000);
    for steps in 1..=2000 {
        for (found, share) in counts(&all[..steps], 3).into_iter().zip(even.shares()) {
            assert!((found as f64 - share * steps as f64).abs() < 1.0, "{found} of {steps} steps at {share}");
        }
    }
    assert_eq!(counts(&all[..200], 3), sizes);
    assert_eq!(counts(&all, 3), sizes.map(|size| 10 * size));
}

#[test]
fn batches_of_each_set_are_its_own_and_carry_its_place() {
    let collate = |first: u32| {
        move |examples: Vec<usize>| {
            let ids: Vec<_> = examples.iter().map(|&example| vec![first + example as u32]).collect();
            let tokens =
                Tokens { first: pad(&ids, &Device::Cpu)?, second: None, more: Vec::new(), rows: Rows::Examples };
            Ok(Batch { tokens, labels: None, targets: vec![], teachers: vec![], weights: None, task: 0, examples })
        }
    };
    let plans = [(30, 4), (11, 2)].map(|(n, size)| BatchPlan::new(vec![1; n], size, 3, 1).unwrap());
    let sets = [plans[0].batches(collate(0)), plans[1].batches(collate(100))];
    let sizes: Vec<usize> = plans.iter().map(BatchPlan::steps_per_epoch).collect();
    assert_eq!(sizes, [8, 6]);
    for order in [Order::Drawn { seed: 2 }, Order::Even] {
        let mixture = mixture(&temperature_shares(&sizes, 1.0).unwrap(), order);
        let batches = mixture.batches(vec![&sets[0], &sets[1]]).unwrap();
        let all: Vec<Batch> = (0..70).map(|step| batches.batch(step).unwrap()).collect();
        for (set, (n, first)) in [(30, 0), (11, 100)].into_iter().enumerate() {
            let own: Vec<&Batch> = all.iter().filter(|batch| batch.task == set).collect();
            assert!(own.len() >= 2 * sizes[set], "{}", own.len());
            for epoch in own.chunks_exact(sizes[set]) {
                let mut seen: Vec<usize> = epoch.iter().flat_map(|batch| batch.examples.clone()).collect();
                seen.sort_unstable();
                assert_eq!(seen, (0..n).collect::<Vec<_>>());
            }
            let ids = own[0].tokens.first.ids.flatten_all().unwrap().to_vec1::<u32>().unwrap();
            let expected: Vec<u32> = own[0].examples.iter().map(|&example| first + example as u32).collect();
            assert_eq!(ids, expected);
        }
        assert_eq!(batches.steps_per_epoch(), Some(14));
    }
    let describe = |shares: &[f64], order| {
        let mixture = mixture(shares, order);
        mixture.batches(vec![&sets[0], &sets[1]]).unwrap().describe()
    };
    let one = describe(&[1.0, 3.0], Order::Drawn { seed: 2 });
    assert_eq!(one["sets"][1], plans[1].describe());
    assert_eq!(one["shares"], serde_json::json!([0.25, 0.75]));
    let others = [
        describe(&[1.0, 2.0], Order::Drawn { seed: 2 }),
        describe(&[1.0, 3.0], Order::Drawn { seed: 3 }),
        describe(&[1.0, 3.0], Order::Even),
    ];
    assert!(others.iter().all(|other| *other != one));
}

#[test]
fn sets_and_shares_that_do_not_fit_are_errors() {
    let message = |shares: &[f64]| Mixture::new(shares.to_vec(), Order::Even).unwrap_err().to_string();
    assert_eq!(message(&[]), "mixture: expected at least one set, found none");
    assert_eq!(message(&[f64::MAX, f64::MAX]), "mixture: expected shares of a finite sum, found inf");
    assert_eq!(message(&[1.0, 0.0]), "share of set 1: expected a number above 0, found 0");
    assert_eq!(message(&[f64::NAN]), "share of set 0: expected a number above 0, found NaN");
    let two = mixture(&[1.0, 1.0], Order::Even);
    let found = two.batches(vec![]).err().unwrap().to_string();
    assert_eq!(found, "mixture: expected 2 sets, one for each share, found 0");
}
