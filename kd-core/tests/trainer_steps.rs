//! What a step does with several batches, averages, numbers that are none, and variables that do not learn.

mod tiny;

use std::cell::Cell;
use std::collections::BTreeMap;
use std::ops::ControlFlow;
use std::path::Path;

use candle_core::{DType, Result, Tensor};
use candle_nn::Init;
use kd_core::batch::{Batch, Tokens};
use kd_core::checkpoint;
use kd_core::model::{Mode, Output, Student};
use kd_core::objective::Loss;
use kd_core::optim::{AdamWConfig, EmaConfig, Group, SgdConfig};
use kd_core::testing::{assert_close, device};
use kd_core::trainer::{Interval, Report, Trainer, TrainerConfig};
use kd_core::variables::Variables;
use tiny::{Tiny, batch, bits, cross_entropy, rows, variables};

fn go_on(_: &Report) -> ControlFlow<()> {
    ControlFlow::Continue(())
}

#[test]
fn several_batches_are_one_large_one() {
    // Four rows as 1 + 3 and as 4, without dropout, whose masks would differ.
    let config = |accumulate| TrainerConfig {
        accumulate,
        clip_norm: Some(0.1),
        ..TrainerConfig::new(5, SgdConfig::with_lr(0.5))
    };
    let trained = |parts: &[&[usize]]| {
        let variables = variables();
        let student = Tiny::new(&variables, 0.0);
        let mut trainer = Trainer::new(&student, &variables, &cross_entropy, config(parts.len())).unwrap();
        let reports: Vec<Report> =
            (0..5).map(|_| trainer.step_on(&mut parts.iter().map(|part| Ok(rows(part)))).unwrap()).collect();
        (variables.tensors(), reports)
    };
    let (large, of_large) = trained(&[&[1, 2, 3, 4]]);
    let (small, of_small) = trained(&[&[1], &[2, 3, 4]]);
    for (name, tensor) in &large {
        assert_close(&small[name], tensor, 1e-6, 1e-6).unwrap();
    }
    for (large, small) in of_large.iter().zip(&of_small) {
        for (large, small) in [(large.loss, small.loss), (large.gradient_norm, small.gradient_norm)] {
            assert!((large - small).abs() < 1e-6, "{large} {small}");
        }
    }
    // Were the two batches weighed alike, row 1 would count three times as much.
    assert!(of_large[0].loss != of_large[4].loss);
    let (repeated, _) = trained(&[&[1, 1, 1], &[2, 3, 4]]);
    assert!(assert_close(&repeated["layer.weight"], &large["layer.weight"], 1e-4, 1e-4).is_err());
}

/// A student of one number, `logits = weight`, and with SGD a loss whose gradient is `slope`.
struct Number(Tensor);

impl Number {
    fn new(variables: &Variables) -> Self {
        Self(variables.builder().get_with_hints((1, 1), "weight", Init::Const(0.0)).unwrap())
    }
}

impl Student for Number {
    fn forward(&self, _: &Tokens, _: Mode) -> Result<Output> {
        Ok(Output::from_logits(self.0.clone()))
    }
}

#[test]
fn the_average_is_scored_and_kept_and_training_goes_on_from_the_weights() {
    let variables = Variables::new(3, DType::F32, device());
    let student = Number::new(&variables);
    let slope = |output: &Output, _: &Batch, _: usize| Ok(Loss::of(output.logits()?.sum_all()?));
    let config = TrainerConfig {
        ema: Some(EmaConfig { decay: 0.5, warm_up: false }),
        evaluate_every: Interval::Steps(1),
        ..TrainerConfig::new(3, SgdConfig { weight_decay: 0.0, ..SgdConfig::with_lr(8.0) })
    };
    let value = || variables.tensors()["weight"].flatten_all().unwrap().to_vec1::<f32>().unwrap()[0];
    let (mut evaluated, mut observed) = (Vec::new(), Vec::new());
    let mut evaluate = || {
        evaluated.push(value());
        Ok([0.0, 1.0, 0.5][evaluated.len() - 1])
    };
    let mut observe = |_: &Report| {
        observed.push(value());
        ControlFlow::Continue(())
    };
    let mut trainer = Trainer::new(&student, &variables, &slope, config).unwrap();
    trainer.fit(&batch, Some(&mut evaluate), &mut observe).unwrap();
    // Weights 0, -8, -16, -24; averages 0, then (0 - 8)/2 = -4, (-4 - 16)/2 = -10, (-10 - 24)/2 = -17.
    assert_eq!((observed, evaluated), (vec![-8.0, -16.0, -24.0], vec![-4.0, -10.0, -17.0]));
    assert_eq!(value(), -10.0); // the best was the second
}

#[test]
fn without_evaluations_training_ends_with_the_average() {
    let variables = Variables::new(3, DType::F32, device());
    let student = Number::new(&variables);
    let slope = |output: &Output, _: &Batch, _: usize| Ok(Loss::of(output.logits()?.sum_all()?));
    let optimizer = SgdConfig { weight_decay: 0.0, ..SgdConfig::with_lr(8.0) };
    let config =
        TrainerConfig { ema: Some(EmaConfig { decay: 0.5, warm_up: false }), ..TrainerConfig::new(3, optimizer) };
    Trainer::new(&student, &variables, &slope, config).unwrap().fit(&batch, None, &mut go_on).unwrap();
    assert_eq!(variables.tensors()["weight"].to_vec2::<f32>().unwrap(), [[-17.0]]);
}

/// `cross_entropy`, but in `bad` steps the loss is no number, or it is one and its gradient is not.
fn poisoned(bad: &'static [usize], is_gradient: bool) -> impl Fn(&Output, &Batch, usize) -> Result<Loss> {
    move |output, batch, step| {
        let loss = cross_entropy(output, batch, step)?;
        Ok(match (bad.contains(&step), is_gradient) {
            (false, _) => loss,
            (true, false) => Loss::of((loss.total * f64::INFINITY)?),
            // The root of 0 is 0, with an infinite slope.
            (true, true) => Loss::of((&loss.total + (&loss.total - loss.total.detach())?.sqrt()?)?),
        })
    }
}

fn tensors(path: &Path) -> BTreeMap<String, Vec<f32>> {
    let (tensors, _): (_, serde_json::Value) = checkpoint::load(path).unwrap();
    tensors.into_iter().map(|(name, tensor)| (name, tensor.flatten_all().unwrap().to_vec1().unwrap())).collect()
}

#[test]
fn a_skipped_step_changes_nothing_and_is_reported() {
    let folder = tempfile::tempdir().unwrap();
    for is_gradient in [false, true] {
        let path = folder.path().join(format!("{is_gradient}"));
        let objective = poisoned(&[0, 3], is_gradient);
        let variables = variables();
        let student = Tiny::new(&variables, 0.2);
        let config =
            TrainerConfig { ema: Some(EmaConfig::with_decay(0.9)), ..TrainerConfig::new(6, AdamWConfig::with_lr(0.1)) };
        let mut trainer =
            Trainer::new(&student, &variables, &objective, config).unwrap().with_checkpoint(&path).unwrap();
        let start = bits(&variables);
        let mut step = |step: usize| {
            let report = trainer.step(&batch(step).unwrap()).unwrap();
            trainer.save().unwrap();
            (report, tensors(&path))
        };
        let (first, _) = step(0);
        assert!(first.is_skipped && first.step == 1 && first.skipped == 1, "{first:?}");
        assert_eq!(bits(&variables), start);
        assert_eq!(first.loss.is_finite(), is_gradient);
        assert!(!first.gradient_norm.is_finite());
        step(1);
        let (good, before) = step(2);
        assert!(!good.is_skipped && good.skipped == 1 && good.gradient_norm > 0.0);
        let kinds = ["model/", "moments/", "ema/"];
        assert!(kinds.iter().all(|kind| before.keys().any(|name| name.starts_with(kind))), "{:?}", before.keys());
        let (skipped, after) = step(3);
        assert!(skipped.is_skipped && skipped.skipped == 2);
        assert_eq!(before, after);
        let (good, last) = step(4);
        assert!(!good.is_skipped && good.skipped == 2);
        assert!(last.iter().all(|(name, values)| *values != after[name]));
    }
}

#[test]
fn too_many_skipped_steps_in_a_row_end_training_and_name_the_checkpoint() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("checkpoint");
    let run = |bad, is_gradient, max_skipped, checkpoint_every, path: Option<&Path>| {
        let objective = poisoned(bad, is_gradient);
        let variables = variables();
        let student = Tiny::new(&variables, 0.2);
        let config =
            TrainerConfig { max_skipped, checkpoint_every, ..TrainerConfig::new(20, AdamWConfig::with_lr(0.1)) };
        let mut trainer = Trainer::new(&student, &variables, &objective, config).unwrap();
        if let Some(path) = path {
            trainer = trainer.with_checkpoint(path).unwrap();
        }
        trainer.fit(&batch, None, &mut go_on).map(|_| trainer.skipped()).map_err(|error| error.to_string())
    };
    // Not in a row: all four are skipped.
    assert_eq!(run(&[2, 4, 7, 8], false, 2, 20, None), Ok(4));
    let place = path.display();
    assert_eq!(
        run(&[2, 7, 8, 9], false, 2, 5, Some(&path)),
        Err(format!(
            "step 9: the loss is inf, expected a finite number, after 2 steps in a row that were skipped for the same; \
             {place} holds the state after 5 steps"
        ))
    );
    let (_, state): (_, serde_json::Value) = checkpoint::load(&path).unwrap();
    assert_eq!(state["step"], 5);
    assert!(tensors(&path).values().flatten().all(|value| value.is_finite()));
    // From the checkpoint it comes to the same end.
    assert!(run(&[2, 7, 8, 9], false, 2, 5, Some(&path)).unwrap_err().ends_with("holds the state after 5 steps"));
    assert_eq!(
        run(&[1], true, 0, 20, None),
        Err("step 1: the gradient norm is NaN, expected a finite number, and no step may be skipped; no checkpoint was written"
            .to_string())
    );
}

/// [`Tiny`]'s logits and, times a number that may be 0, those of a vector and a matrix.
struct Still {
    tiny: Tiny,
    vector: Tensor,
    matrix: Tensor,
    vector_scale: Cell<f32>,
    matrix_scale: f32,
}

impl Student for Still {
    fn forward(&self, tokens: &Tokens, mode: Mode) -> Result<Output> {
        // Times a tensor: Candle cuts the graph behind a multiplication by the number 0.
        let times = |tensor: &Tensor, scale: f32| tensor.broadcast_mul(&Tensor::new(scale, device())?);
        let logits = self.tiny.forward(tokens, mode)?.logits()?.clone();
        let logits = logits.broadcast_add(&times(&self.vector, self.vector_scale.get())?)?;
        Ok(Output::from_logits(logits.broadcast_add(&times(&self.matrix, self.matrix_scale)?)?))
    }
}

fn still(variables: &Variables, matrix_scale: f32) -> Still {
    let get = |name: &str, shape: &[usize]| variables.builder().get_with_hints(shape, name, Init::Const(0.5)).unwrap();
    Still {
        tiny: Tiny::new(variables, 0.0),
        vector: get("key.bias", &[3]),
        matrix: get("late.weight", &[1, 3]),
        vector_scale: Cell::new(0.0),
        matrix_scale,
    }
}

#[test]
fn a_still_vector_has_ten_updates_to_move() {
    let config = || TrainerConfig::new(20, AdamWConfig::with_lr(0.1));
    let run = |config: TrainerConfig, used_in: Option<usize>| {
        let variables = variables();
        let student = still(&variables, 1.0);
        let mut trainer = Trainer::new(&student, &variables, &cross_entropy, config).unwrap();
        for step in 0..20 {
            student.vector_scale.set(if used_in == Some(step) { 1.0 } else { 0.0 });
            trainer.step(&batch(step).unwrap()).map_err(|error| error.to_string())?;
        }
        Ok(())
    };
    assert_eq!(
        run(config(), None),
        Err("step 9: expected a finite, non-zero gradient for every trainable variable, found: the gradient of `key.bias` was \
             all zero in each of 10 updates"
            .to_string())
    );
    assert_eq!(run(config(), Some(9)), Ok(()));
    assert!(run(config(), Some(10)).is_err());
    assert_eq!(run(TrainerConfig { may_be_still: vec!["*key.bias".to_string()], ..config() }, None), Ok(()));
    // What is frozen has no gradient to check.
    assert_eq!(run(TrainerConfig { groups: vec![Group::frozen("key.*")], ..config() }, None), Ok(()));
}

#[test]
fn a_still_matrix_has_as_many() {
    let run = |may_be_still: &[&str]| {
        let variables = variables();
        let student = still(&variables, 0.0);
        student.vector_scale.set(1.0);
        let may_be_still = may_be_still.iter().map(|name| name.to_string()).collect();
        let config = TrainerConfig { may_be_still, ..TrainerConfig::new(20, AdamWConfig::with_lr(0.1)) };
        let mut trainer = Trainer::new(&student, &variables, &cross_entropy, config).unwrap();
        let step =
            |trainer: &mut Trainer<'_>| trainer.step(&batch(0).unwrap()).map_err(|error| error.to_string()).map(drop);
        let first = (0..20).map(|_| step(&mut trainer)).find(|done| done.is_err()).unwrap_or(Ok(()));
        assert!(first.is_ok() || step(&mut trainer) == first); // it is not forgotten
        first
    };
    let expected = "step 9: expected a finite, non-zero gradient for every trainable variable, found: the gradient of \
                    `late.weight` was all zero in each of 10 updates";
    assert_eq!(run(&[]), Err(expected.to_string()));
    assert_eq!(run(&["weight"]), Err(expected.to_string()));
    assert_eq!(run(&["late.*"]), Ok(()));
}

#[test]
fn frozen_variables_stay_and_the_rest_learns() {
    let variables = variables();
    let student = Tiny::new(&variables, 0.0);
    let before = variables.tensors().into_iter().map(|(name, tensor)| (name, tensor.copy().unwrap()));
    let before: BTreeMap<_, _> = before.collect();
    let config =
        TrainerConfig { groups: vec![Group::frozen("table.*")], ..TrainerConfig::new(5, AdamWConfig::with_lr(0.1)) };
    Trainer::new(&student, &variables, &cross_entropy, config).unwrap().fit(&batch, None, &mut go_on).unwrap();
    for (name, tensor) in variables.tensors() {
        let is_same = assert_close(&tensor, &before[&name], 0.0, 0.0).is_ok();
        assert_eq!(is_same, name.starts_with("table."), "{name}");
    }
}
