use candle_core::Device;
use kd_core::batch::{Rows, Tokens, pad};
use kd_core::model::Output;
use kd_core::testing::random;

use super::by_label::cross_entropies;
use super::*;

/// Logits `(1, 2)` of cross-entropy `ce` against label 1.
fn teacher(ce: f64) -> Tensor {
    Tensor::new(&[[((ce.exp()) - 1.0).ln().max(-700.0), 0.0]], &Device::Cpu).unwrap()
}

fn labels(rows: usize) -> Tensor {
    Tensor::full(1u32, rows, &Device::Cpu).unwrap()
}

fn batch(teachers: &[Tensor]) -> Batch {
    let rows = teachers.first().map_or(2, |logits| logits.dim(0).unwrap());
    let tokens = Tokens {
        first: pad(&vec![vec![1]; rows], &Device::Cpu).unwrap(),
        second: None,
        more: Vec::new(),
        rows: Rows::Examples,
    };
    let teachers = teachers.iter().cloned().map(Output::from_logits).collect();
    Batch {
        tokens,
        labels: Some(labels(rows)),
        targets: vec![],
        teachers,
        weights: None,
        task: 0,
        examples: (0..rows).collect(),
    }
}

fn close(found: &[f64], expected: &[f64]) {
    assert_eq!(found.len(), expected.len());
    assert!(found.iter().zip(expected).all(|(a, b)| (a - b).abs() < 1e-6), "{found:?} != {expected:?}");
}

fn row(weights: Tensor) -> Vec<f64> {
    weights.to_dtype(DType::F64).unwrap().to_vec2::<f64>().unwrap().remove(0)
}

#[test]
fn weights_by_label_are_as_worked_by_hand() {
    // Cross-entropies 0.5, 1 and 2 nats.
    let teachers = [0.5, 1.0, 2.0].map(teacher);
    close(&row(cross_entropies(&teachers, &labels(1)).unwrap()), &[0.5, 1.0, 2.0]);
    close(&row(best_single_weights(&teachers, &labels(1)).unwrap()), &[1.0, 0.0, 0.0]);
    // (1 - softmax) / 2 with e^0.5 = 1.648721, e = 2.718282, e² = 7.389056, sum 11.756059.
    close(&row(confidence_weights(&teachers, &labels(1)).unwrap()), &[0.4298779, 0.3843880, 0.1857341]);
    // 1/1.5, 1/2, 1/3 over their sum 1.5.
    close(&row(inverse_cross_entropy_weights(&teachers, &labels(1)).unwrap()), &[4. / 9., 3. / 9., 2. / 9.]);
}

#[test]
fn one_teacher_has_all_the_weight() {
    let one = [random(1, (3, 2)).unwrap()];
    let gold = labels(3);
    for weights in [best_single_weights, confidence_weights, inverse_cross_entropy_weights] {
        assert_eq!(weights(&one, &gold).unwrap().to_vec2::<f64>().unwrap(), [[1.0]; 3]);
    }
    for fitted in [mixture_weights, pool_weights, covariance_weights] {
        assert_eq!(fitted(&one, &gold).unwrap(), [1.0]);
    }
    assert_eq!(consensus_weights(&random(2, (3, 2)).unwrap(), &one, 1.0, 1.0).unwrap(), [1.0]);
}

#[test]
fn teachers_that_say_the_same_count_alike() {
    let same = vec![random(1, (6, 3)).unwrap(); 4];
    let gold = Tensor::new(&[0u32, 1, 2, 0, 1, 1], &Device::Cpu).unwrap();
    for fitted in [mixture_weights, pool_weights, covariance_weights] {
        let weights = fitted(&same, &gold).unwrap();
        // A regression may find that such teachers are worth less than nothing, and then all count alike too.
        close(&weights, &[0.25; 4]);
    }
    for weights in [confidence_weights, inverse_cross_entropy_weights] {
        close(&row(weights(&same, &gold).unwrap()), &[0.25; 4]);
    }
    close(&row(best_single_weights(&same, &gold).unwrap()), &[1.0, 0.0, 0.0, 0.0]);
    close(&consensus_weights(&random(2, (6, 3)).unwrap(), &same, 1.0, 1.0).unwrap(), &[0.25; 4]);
}

#[test]
fn a_mixture_and_a_pool_fit_the_labels_best() {
    let teachers: Vec<_> = (1..4).map(|seed| random(seed, (30, 3)).unwrap()).collect();
    let gold = Tensor::from_iter((0..30u32).map(|row| row * row % 3), &Device::Cpu).unwrap();
    let probs = |k: usize| kd_core::ops::softmax(&teachers[k]).unwrap();
    let loss = |weights: &[f64]| {
        let parts = (0..3).map(|k| (probs(k) * weights[k]).unwrap()).reduce(|a, b| (a + b).unwrap()).unwrap();
        kd_core::losses::cross_entropy(&parts.log().unwrap(), &gold).unwrap().to_scalar::<f64>().unwrap()
    };
    let best = loss(&mixture_weights(&teachers, &gold).unwrap());
    for first in 0..=10 {
        for second in 0..=10 - first {
            let weights = [first, second, 10 - first - second].map(|tenth| f64::from(tenth) / 10.0);
            assert!(best <= loss(&weights) + 1e-9, "{weights:?}");
        }
    }
}

#[test]
fn least_squares_match_the_grid_and_drop_the_useless() {
    let teachers: Vec<_> = (1..4).map(|seed| (random(seed, (30, 3)).unwrap() * seed as f64).unwrap()).collect();
    let gold = Tensor::from_iter((0..30u32).map(|row| row * row % 3), &Device::Cpu).unwrap();
    let hot: Vec<f64> = (0..90usize).map(|at| f64::from(u8::from((at / 3 * (at / 3)) % 3 == at % 3))).collect();
    let hot = Tensor::from_vec(hot, (30, 3), &Device::Cpu).unwrap();
    let error = |weights: &[f64]| {
        let probs = |k: usize| (kd_core::ops::softmax(&teachers[k]).unwrap() * weights[k]).unwrap();
        let mixture = (0..3).map(probs).reduce(|a, b| (a + b).unwrap()).unwrap();
        (mixture - &hot).unwrap().sqr().unwrap().sum_all().unwrap().to_scalar::<f64>().unwrap()
    };
    let weights = covariance_weights(&teachers, &gold).unwrap();
    assert!(weights.iter().all(|&weight| weight >= 0.0) && (weights.iter().sum::<f64>() - 1.0).abs() < 1e-12);
    for first in 0..=20 {
        for second in 0..=20 - first {
            let other = [first, second, 20 - first - second].map(|part| f64::from(part) / 20.0);
            assert!(error(&weights) <= error(&other) + 1e-6, "{weights:?} {other:?}");
        }
    }
    // Right on every row against wrong on every row, without a doubt.
    let sure = |z: f64| Tensor::new(&[[z, 0.0], [z, 0.0]], &Device::Cpu).unwrap();
    let gold = Tensor::new(&[0u32, 0], &Device::Cpu).unwrap();
    close(&covariance_weights(&[sure(3.0), sure(-3.0)], &gold).unwrap(), &[1.0, 0.0]);
    close(&covariance_weights(&[sure(900.0), sure(900.0)], &gold).unwrap(), &[0.5, 0.5]);
    close(&mixture_weights(&[sure(900.0), sure(-900.0)], &gold).unwrap(), &[1.0, 0.0]);
    close(&pool_weights(&[sure(3.0), sure(-3.0)], &gold).unwrap(), &[1.0, 0.0]);
}

#[test]
fn a_consensus_shortens_the_gradient_within_its_cap() {
    let logits = |z: f64| Tensor::new(&[[z, 0.0]], &Device::Cpu).unwrap();
    // Student 1/2; teachers at 3/4 and 1/3: gradients -1/4 and 1/6 of class 0, balanced by weights 2/5 and 3/5.
    let teachers = [logits(3f64.ln()), logits(0.5f64.ln())];
    close(&consensus_weights(&logits(0.0), &teachers, 1.0, 1.0).unwrap(), &[0.4, 0.6]);
    close(&consensus_weights(&logits(0.0), &teachers, 1.0, 0.55).unwrap(), &[0.45, 0.55]);
    close(&consensus_weights(&logits(0.0), &teachers, 1.0, 0.5).unwrap(), &[0.5, 0.5]);
    // Two that agree with the student pull nowhere: as they come.
    close(&consensus_weights(&logits(0.0), &[logits(0.0), logits(0.0)], 1.0, 1.0).unwrap(), &[0.5, 0.5]);
    let message =
        |cap, temperature| consensus_weights(&logits(0.0), &teachers, temperature, cap).unwrap_err().to_string();
    assert!(message(0.4, 1.0).contains("`cap`: expected a number in [0.5, 1] with 2 teachers, found 0.4"));
    assert!(message(1.0, 0.0).contains("temperature 0"));
    let nan = consensus_weights(&logits(f64::NAN), &teachers, 1.0, 1.0).unwrap_err().to_string();
    assert!(nan.contains("gradients of finite numbers"), "{nan}");
}

#[test]
fn rules_weigh_every_row_alike_or_by_its_label() {
    let batch = batch(&[random(1, (2, 3)).unwrap(), random(2, (2, 3)).unwrap()]);
    let values = |weights: Tensor| weights.to_dtype(DType::F64).unwrap().to_vec2::<f64>().unwrap();
    assert_eq!(values(uniform().weigh(&batch, 0).unwrap()), [[0.5; 2]; 2]);
    assert_eq!(values(fixed(&[0.25, 0.75]).unwrap().weigh(&batch, 0).unwrap()), [[0.25, 0.75]; 2]);
    for mut rule in [
        Box::new(best_single()) as Box<dyn TeacherWeighting>,
        Box::new(confidence()),
        Box::new(inverse_cross_entropy()),
    ] {
        let sums = rule.weigh(&batch, 0).unwrap().sum(1).unwrap().to_vec1::<f64>().unwrap();
        assert!(sums.iter().all(|sum| (sum - 1.0).abs() < 1e-12), "{}: {sums:?}", rule.describe());
    }
    // Both teachers take turns by chance: 200 batches, four standard errors of 0.035.
    let mut single = random_single(5);
    let turns = (0..200).map(|number| values(single.weigh(&batch, number).unwrap()));
    let first: f64 = turns
        .map(|weights| {
            assert_eq!(weights[0], weights[1]);
            weights[0][0]
        })
        .sum();
    assert!((first / 200.0 - 0.5).abs() < 0.14, "{first}");
    assert_eq!(values(random_single(5).weigh(&batch, 7).unwrap()), values(single.weigh(&batch, 7).unwrap()));
}

#[test]
fn what_does_not_fit_is_an_error() {
    let none = batch(&[]);
    for mut rule in [
        Box::new(uniform()) as Box<dyn TeacherWeighting>,
        Box::new(random_single(1)),
        Box::new(best_single()),
        Box::new(confidence()),
        Box::new(LinUcb::new(1, 1.0, true).unwrap()),
    ] {
        assert!(rule.weigh(&none, 0).is_err(), "{}", rule.describe());
    }
    let error = uniform().weigh(&none, 0).unwrap_err().to_string();
    assert!(error.contains("the batch of examples [0, 1] has no teachers"), "{error}");
    assert!(fixed(&[1.5, -0.5]).map(|_| ()).unwrap_err().to_string().contains("at least 0 that sum to 1"));
    let two = batch(&[random(1, (2, 3)).unwrap(), random(2, (2, 3)).unwrap()]);
    let error = fixed(&[1.0]).unwrap().weigh(&two, 0).unwrap_err().to_string();
    assert!(error.contains("weights for 1 teachers, the batch has 2"), "{error}");
    for fitted in [mixture_weights, pool_weights, covariance_weights] {
        let error = |teachers: &[Tensor], labels: &[u32]| {
            fitted(teachers, &Tensor::new(labels, &Device::Cpu).unwrap()).unwrap_err().to_string()
        };
        assert!(error(&[], &[0]).contains("found 0 teachers"));
        assert!(error(&[random(1, (1, 2)).unwrap()], &[2]).contains("row 0: label 2 with 2 classes"));
        assert!(error(&[random(1, (1, 2)).unwrap(), random(1, (1, 3)).unwrap()], &[1]).contains("teacher 1: expected"));
        let nan = (random(1, (1, 2)).unwrap() * f64::NAN).unwrap();
        assert!(error(&[nan], &[1]).contains("teacher 0, row 0: expected logits that are numbers"));
    }
}
