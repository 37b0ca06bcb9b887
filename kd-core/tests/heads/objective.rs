//! The objective: finite differences, what it refuses, and what sets several heads apart from one.

use std::collections::HashMap;

use candle_core::{DType, Tensor};
use kd_core::batch::Batch;
use kd_core::losses;
use kd_core::model::{Mode, Output, Student, mean_logits};
use kd_core::objective::{Objective, Part, PerHead, SoftLoss, WeightedSum};
use kd_core::optim::AdamWConfig;
use kd_core::schedule::ValueSchedule;
use kd_core::testing::{assert_all_variables_learn, assert_close, check_gradients, random};
use kd_core::trainer::{Trainer, TrainerConfig};
use kd_core::variables::Variables;

use crate::{batch, gradients, set, student};

#[test]
fn one_teacher_is_plain_logit_matching() {
    let (student, variables) = student(5, DType::F64, vec![set("qa", 3, 1, true)]);
    let batch = batch(0, 3, 1, DType::F64);
    let plain = WeightedSum::new([
        Part::new("labels", 0.1, |output, batch, _| losses::cross_entropy(&output.heads[0], batch.labels()?)),
        Part::new("teacher", 0.9, |output, batch, _| losses::logit_mse(&output.heads[1], batch.teacher_logits(0)?)),
    ])
    .unwrap();
    let output = student.forward_batch(&batch, Mode::Train { seed: 3 }).unwrap();
    let of = |objective: &dyn Objective| gradients(&variables, &objective.loss(&output, &batch, 0).unwrap().total);
    let (found, expected) = (of(&PerHead::default()), of(&plain));
    assert_eq!(found.len(), variables.named().len());
    for (name, gradient) in found {
        assert_close(&gradient, &expected[&name], 1e-14, 1e-12).unwrap_or_else(|error| panic!("`{name}`: {error}"));
    }
}

/// Gives every teacher's head of `qa` the values of teacher 0's.
fn start_equally(variables: &Variables, teachers: usize) {
    let mut tensors: HashMap<String, Tensor> =
        variables.tensors().into_iter().map(|(name, tensor)| (name, tensor.copy().unwrap())).collect();
    for part in ["weight", "bias"] {
        let first = tensors[&format!("heads.qa.teacher.0.{part}")].clone();
        for idx in 1..teachers {
            tensors.insert(format!("heads.qa.teacher.{idx}.{part}"), first.clone());
        }
    }
    variables.set(&tensors).unwrap();
}

#[test]
fn heads_of_one_teacher_that_start_equal_stay_equal() {
    for same_teacher in [true, false] {
        let (student, variables) = student(5, DType::F32, vec![set("qa", 3, 3, true)]);
        start_equally(&variables, 3);
        let mut batch = batch(0, 3, 3, DType::F32);
        if same_teacher {
            batch.teachers = vec![batch.teachers[1].clone(); 3];
        }
        let config = TrainerConfig { seed: 4, ..TrainerConfig::new(20, AdamWConfig::with_lr(0.05)) };
        let objective = PerHead::default();
        let mut trainer = Trainer::new(&student, &variables, &objective, config).unwrap();
        for _ in 0..20 {
            trainer.step(&batch).unwrap();
        }
        let weight = |idx: usize| variables.tensors()[&format!("heads.qa.teacher.{idx}.weight")].clone();
        for idx in [1, 2] {
            // Dropout is one for all heads, so the same teacher leaves no difference but that of rounding.
            let is_equal = assert_close(&weight(idx), &weight(0), 1e-5, 1e-5).is_ok();
            assert_eq!(is_equal, same_teacher, "head {idx}");
        }
    }
}

/// Trap: with one head that all share, the squared errors to N teachers have the gradient of that to their mean.
#[test]
fn one_shared_head_is_the_mean_teacher_and_several_heads_are_not() {
    let batch = batch(0, 3, 3, DType::F64);
    let teachers: Vec<Tensor> = batch.teachers.iter().map(|teacher| teacher.logits().unwrap().clone()).collect();
    let mean = Batch { teachers: vec![Output::from_logits(mean_logits(&teachers).unwrap())], ..batch.clone() };
    let objective = PerHead { alpha: 1.0.into(), gold: false, ..PerHead::default() };

    // One student with a single head, and three views of that head.
    let (single, variables) = student(6, DType::F64, vec![set("qa", 3, 1, false)]);
    let output = single.forward_batch(&mean, Mode::Eval).unwrap();
    let shared = Output { heads: vec![output.heads[0].clone(); 3], ..output.clone() };
    let of = |variables: &Variables, output: &Output, batch: &Batch| {
        let loss = objective.loss(output, batch, 0).unwrap();
        (loss.values().unwrap().0, gradients(variables, &loss.total))
    };
    let (loss_of_shared, of_shared) = of(&variables, &shared, &batch);
    let (loss_of_mean, of_mean) = of(&variables, &output, &mean);
    // The losses differ by the spread of the teachers, the gradients do not.
    assert!(loss_of_shared > loss_of_mean + 0.1, "{loss_of_shared} {loss_of_mean}");
    for (name, gradient) in &of_shared {
        assert_close(gradient, &of_mean[name], 1e-13, 1e-12).unwrap_or_else(|error| panic!("`{name}`: {error}"));
    }

    // Three heads, even such that are equal: each has its own teacher's gradient.
    let (several, own) = student(6, DType::F64, vec![set("qa", 3, 3, false)]);
    start_equally(&own, 3);
    let (_, of_several) = of(&own, &several.forward_batch(&batch, Mode::Eval).unwrap(), &batch);
    for idx in 0..3 {
        let own = &of_several[&format!("heads.qa.teacher.{idx}.weight")];
        let mean = (&of_mean["heads.qa.teacher.0.weight"] / 3.0).unwrap();
        assert!(assert_close(own, &mean, 1e-2, 1e-2).is_err(), "head {idx}");
    }
    // And heads that are their own, as they are drawn, teach the body something else than one head of the mean teacher does.
    let (several, own) = student(6, DType::F64, vec![set("qa", 3, 3, false)]);
    let (_, of_several) = of(&own, &several.forward_batch(&batch, Mode::Eval).unwrap(), &batch);
    for name in ["body.dense.weight", "body.table.weight"] {
        assert!(assert_close(&of_several[name], &of_mean[name], 1e-2, 1e-2).is_err(), "`{name}`");
    }
}

#[test]
fn the_gradient_of_every_head_agrees_with_finite_differences() {
    let temperature = 2.0;
    let losses = [
        SoftLoss::LogitMse,
        SoftLoss::ProbMse,
        SoftLoss::Kl { temperature },
        SoftLoss::ReverseKl { temperature },
        SoftLoss::JensenShannon { temperature },
    ];
    for soft in losses {
        for (gold, centre) in [(true, false), (false, true)] {
            let alpha = if gold { 0.7 } else { 1.0 };
            let objective = PerHead { alpha: alpha.into(), soft, centre, gold };
            let batch = batch(0, 3, 2, DType::F64);
            let heads: Vec<Tensor> =
                (0..2 + u64::from(gold)).map(|idx| (random(idx, (4, 3)).unwrap() * 2.0).unwrap()).collect();
            let loss = |heads: &[Tensor]| {
                let output = Output { heads: heads.to_vec(), ..Output::default() };
                Ok(objective.loss(&output, &batch, 0)?.total)
            };
            check_gradients(loss, &heads, 1e-7).unwrap_or_else(|error| panic!("{objective:?}: {error}"));
        }
    }
}

#[test]
fn only_a_squared_error_sees_a_constant_and_centring_takes_it_away() {
    let output = Output { heads: vec![random(1, (4, 3)).unwrap()], ..Output::default() };
    let batch = batch(0, 3, 1, DType::F64);
    let shifted = (batch.teacher_logits(0).unwrap() + 7.0).unwrap();
    let shifted = Batch { teachers: vec![Output::from_logits(shifted)], ..batch.clone() };
    let of = |soft, centre, batch: &Batch| {
        let objective = PerHead { soft, centre, ..PerHead::TEACHERS_ONLY };
        objective.loss(&output, batch, 0).unwrap().values().unwrap().0
    };
    let close = |a: f64, b: f64| (a - b).abs() < 1e-12 * (1.0 + b.abs());
    assert!(of(SoftLoss::LogitMse, false, &shifted) > 10.0 + of(SoftLoss::LogitMse, false, &batch));
    assert!(close(of(SoftLoss::LogitMse, true, &shifted), of(SoftLoss::LogitMse, true, &batch)));
    for soft in [SoftLoss::ProbMse, SoftLoss::Kl { temperature: 3.0 }] {
        for centre in [false, true] {
            assert!(close(of(soft, centre, &shifted), of(soft, false, &batch)), "{soft:?}");
        }
    }
}

#[test]
fn half_precision_is_close() {
    let (batch, heads) = (batch(0, 3, 2, DType::F64), [1, 2, 3].map(|idx| random(idx, (4, 3)).unwrap()));
    let of = |dtype: DType| {
        let convert = |tensor: &Tensor| tensor.to_dtype(dtype).unwrap();
        let teachers = batch.teachers.iter().map(|teacher| Output::from_logits(convert(&teacher.heads[0])));
        let batch = Batch { teachers: teachers.collect(), ..batch.clone() };
        let output = Output { heads: heads.iter().map(convert).collect(), ..Output::default() };
        let loss = PerHead::default().loss(&output, &batch, 0).unwrap();
        assert_eq!(loss.total.dtype(), dtype);
        loss.values().unwrap().0
    };
    let expected = of(DType::F64);
    for (dtype, tolerance) in [(DType::F32, 1e-6), (DType::F16, 5e-3), (DType::BF16, 3e-2)] {
        assert!((of(dtype) - expected).abs() < tolerance * expected, "{dtype:?}");
    }
}

#[test]
fn a_schedule_drops_a_part_whose_weight_is_zero() {
    let objective = PerHead { alpha: ValueSchedule::linear(0.0, 1.0, 4), ..PerHead::default() };
    let (student, _) = student(1, DType::F64, vec![set("qa", 2, 2, true)]);
    let whole = batch(0, 2, 2, DType::F64);
    let output = student.forward_batch(&whole, Mode::Eval).unwrap();
    let parts = |batch: &Batch, step| {
        objective.loss(&output, batch, step).map(|loss| loss.parts.keys().cloned().collect::<Vec<_>>())
    };
    assert_eq!(parts(&whole, 2).unwrap(), ["hard", "soft"]);
    // Nothing that has no weight is asked for.
    assert_eq!(parts(&Batch { teachers: vec![], ..whole.clone() }, 0).unwrap(), ["hard"]);
    assert_eq!(parts(&Batch { labels: None, ..whole.clone() }, 4).unwrap(), ["soft"]);
    let half = objective.loss(&output, &whole, 2).unwrap().values().unwrap();
    assert!((half.0 - (half.1["hard"] + half.1["soft"]) / 2.0).abs() < 1e-12);
}

#[test]
fn what_is_missing_is_named() {
    let (student, _) = student(1, DType::F64, vec![set("qa", 2, 2, true)]);
    let whole = batch(0, 2, 2, DType::F64);
    let output = student.forward_batch(&whole, Mode::Eval).unwrap();
    let message = |objective: PerHead, batch: &Batch| objective.loss(&output, batch, 3).unwrap_err().to_string();
    let check = |objective: PerHead, batch: &Batch, expected: &str| {
        let message = message(objective, batch);
        assert!(message.contains(expected), "{message}");
    };
    let stage_two = PerHead::default();
    check(
        stage_two,
        &Batch { labels: None, ..whole.clone() },
        "loss part `hard`: the batch of examples [10, 11, 12, 13]",
    );
    for (teachers, found) in [(0, "of 0 teachers"), (1, "of 1 teachers"), (3, "of 3 teachers")] {
        let other = batch(0, 2, teachers, DType::F64);
        check(stage_two, &other, "loss part `soft`: the output has 2 heads of teachers, the batch of examples [10,");
        check(stage_two, &other, found);
    }
    let mut classes = whole.clone();
    classes.teachers[1] = batch(0, 3, 2, DType::F64).teachers[1].clone();
    let expected = "the head of teacher 1 has (rows, classes) [4, 2], the teacher's logits of examples [10, 11, 12, 13] have \
                    [4, 3]";
    check(stage_two, &classes, expected);
    classes.teachers[1].heads.clear();
    check(stage_two, &classes, "loss part `soft`: the output has no head");
    let with = |alpha: ValueSchedule, gold| PerHead { alpha, gold, ..PerHead::default() };
    check(with(0.5.into(), false), &whole, "expected alpha 1 without a gold head, found 0.5 to 0.5");
    check(with(1.0.into(), true), &whole, "expected alpha below 1 with a gold head, found 1");
    check(with(1.5.into(), true), &whole, "expected alpha from 0 to 1, found 1.5 at step 3");
    check(with(f64::NAN.into(), true), &whole, "expected alpha from 0 to 1, found NaN at step 3");
    // Three heads, the gold one among them, for two teachers.
    check(PerHead::TEACHERS_ONLY, &whole, "the output has 3 heads of teachers");
}

#[test]
fn an_objective_reads_back_what_it_wrote() {
    let json = r#"{"alpha":0.9,"soft":"logit_mse","centre":false,"gold":true}"#;
    assert_eq!(serde_json::to_string(&PerHead::default()).unwrap(), json);
    assert_eq!(serde_json::from_str::<PerHead>(json).unwrap(), PerHead::default());
    let other = PerHead { soft: SoftLoss::Kl { temperature: 2.0 }, ..PerHead::TEACHERS_ONLY };
    let described = other.describe();
    assert_eq!(described["per_head"]["soft"]["kl"]["temperature"], 2.0);
    assert_eq!(serde_json::from_value::<PerHead>(described["per_head"].clone()).unwrap(), other);
}

#[test]
fn every_variable_learns_in_training() {
    for (sets, objective) in [
        (set("qa", 3, 2, true), PerHead::default()),
        (set("qa", 3, 2, false), PerHead::TEACHERS_ONLY),
        (set("qa", 3, 0, true), PerHead::LABELS_ONLY),
    ] {
        let (student, variables) = student(1, DType::F64, vec![sets.clone()]);
        let batch = batch(0, 3, sets.teachers, DType::F64);
        let output = student.forward_batch(&batch, Mode::Train { seed: 2 }).unwrap();
        assert_all_variables_learn(&variables, &objective.loss(&output, &batch, 0).unwrap().total).unwrap();
    }
}
