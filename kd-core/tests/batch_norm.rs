//! Batch normalisation: PyTorch's values, padding, and statistics that survive a run that is killed.

use std::ops::ControlFlow;

use candle_core::{DType, Device, Result, Tensor, Var};
use kd_core::batch::{Batch, Rows, Tokens, pad};
use kd_core::model::{Mode, Output, Represent, Student};
use kd_core::nn::{BatchNorm, HeadPerTeacher, HeadsOf, Linear};
use kd_core::objective::Loss;
use kd_core::optim::AdamWConfig;
use kd_core::testing::{assert_all_variables_learn, assert_close, check_gradients, device, random};
use kd_core::trainer::{Report, Trainer, TrainerConfig};
use kd_core::variables::Variables;
use serde_json::Value;

const TRAIN: Mode = Mode::Train { seed: 1 };

fn matrix(value: &Value) -> Tensor {
    let rows: Vec<Vec<f64>> = serde_json::from_value(value.clone()).unwrap();
    Tensor::new(rows, device()).unwrap()
}

fn vector(value: &Value) -> Tensor {
    Tensor::new(serde_json::from_value::<Vec<f64>>(value.clone()).unwrap(), device()).unwrap()
}

fn layer(width: usize) -> (Variables, BatchNorm) {
    let variables = Variables::new(1, DType::F64, device());
    let norm = BatchNorm::new(width, variables.builder()).unwrap();
    (variables, norm)
}

fn statistics(variables: &Variables) -> [Vec<f64>; 2] {
    let tensors = variables.tensors();
    ["running_mean", "running_var"].map(|name| tensors[name].to_vec1().unwrap())
}

#[test]
fn two_training_batches_and_an_evaluation_are_pytorchs() {
    let reference: Value = serde_json::from_str(include_str!("reference/batch_norm.json")).unwrap();
    let (variables, norm) = layer(3);
    let named: std::collections::BTreeMap<_, _> = variables.named().into_iter().collect();
    for name in ["weight", "bias"] {
        named[name].set(&vector(&reference[name])).unwrap();
    }
    for step in reference["steps"].as_array().unwrap() {
        let x = Var::from_tensor(&matrix(&step["x"])).unwrap();
        let mode = if step["training"].as_bool().unwrap() { TRAIN } else { Mode::Eval };
        let y = norm.forward(&x, None, mode).unwrap();
        assert_close(&y, &matrix(&step["y"]), 1e-12, 1e-12).unwrap();
        let gradients = (y * matrix(&step["weights"])).unwrap().sum_all().unwrap().backward().unwrap();
        assert_close(gradients.get(&x).unwrap(), &matrix(&step["x_gradient"]), 1e-12, 1e-12).unwrap();
        for name in ["weight", "bias"] {
            let expected = vector(&step[format!("{name}_gradient")]);
            assert_close(gradients.get(&named[name]).unwrap(), &expected, 1e-12, 1e-12).unwrap();
        }
        let tensors = variables.tensors();
        for name in ["running_mean", "running_var"] {
            assert_close(&tensors[name], &vector(&step[name]), 1e-14, 1e-14).unwrap();
            assert!(gradients.get(&tensors[name]).is_none());
        }
    }
}

#[test]
fn padding_is_not_in_the_statistics() {
    let junk = (random(1, (2, 3, 4)).unwrap() * 100.0).unwrap();
    let mask = Tensor::new(&[[1u8, 1, 0], [1, 0, 0]], device()).unwrap();
    let rows = Rows::Words { index: Tensor::new(&[0u32, 1, 3], device()).unwrap(), per_example: vec![2, 1] };
    let ((padded, packed), (one, other)) = {
        let ((a, b), (c, d)) = (layer(4), layer(4));
        ((a, c), (b, d))
    };
    let y = rows.select(&one.forward(&junk, Some(&mask), TRAIN).unwrap()).unwrap();
    let expected = other.forward(&rows.select(&junk).unwrap(), None, TRAIN).unwrap();
    assert_close(&y, &expected, 1e-12, 1e-12).unwrap();
    for (found, expected) in statistics(&padded).iter().flatten().zip(statistics(&packed).iter().flatten()) {
        assert!((found - expected).abs() < 1e-9 * expected.abs().max(1.0), "{found} {expected}");
    }
    let message = one.forward(&junk, Some(&mask.t().unwrap()), TRAIN).unwrap_err().to_string();
    assert!(message.contains("expected a mask of shape [2, 3], found [3, 2]"), "{message}");
    let message = one.forward(&random(1, (2, 5)).unwrap(), None, TRAIN).unwrap_err().to_string();
    assert!(message.contains("expected a last dimension of 4, found [2, 5]"), "{message}");
}

#[test]
fn gradients_pass_through_the_statistics_of_the_batch() {
    let (variables, norm) = layer(2);
    let mask = Tensor::new(&[[1u8, 1, 1], [1, 1, 0]], device()).unwrap();
    check_gradients(|x| norm.forward(&x[0], None, TRAIN), &[random(3, (5, 2)).unwrap()], 1e-6).unwrap();
    check_gradients(|x| norm.forward(&x[0], Some(&mask), TRAIN), &[random(4, (2, 3, 2)).unwrap()], 1e-6).unwrap();
    check_gradients(|x| norm.forward(&x[0], None, Mode::Eval), &[random(5, (3, 2)).unwrap()], 1e-6).unwrap();
    let y = norm.forward(&random(6, (5, 2)).unwrap(), None, TRAIN).unwrap();
    assert_all_variables_learn(&variables, &(y * random(7, (5, 2)).unwrap()).unwrap()).unwrap();
}

#[test]
fn one_position_and_numbers_that_are_none_leave_the_statistics_alone() {
    let (variables, norm) = layer(2);
    let start = statistics(&variables);
    let one = Tensor::new(&[[3f64, 0.0]], device()).unwrap();
    // (3 - 0) / √(1 + 1e-5), as in evaluation.
    let y: Vec<Vec<f64>> = norm.forward(&one, None, TRAIN).unwrap().to_vec2().unwrap();
    assert!((y[0][0] - 3.0 / (1.0f64 + 1e-5).sqrt()).abs() < 1e-12 && y[0][1] == 0.0, "{y:?}");
    let mask = Tensor::new(&[0u8, 1], device()).unwrap();
    norm.forward(&random(1, (2, 2)).unwrap(), Some(&mask), TRAIN).unwrap();
    norm.forward(&Tensor::new(&[[1.0, f64::NAN], [2.0, 3.0]], device()).unwrap(), None, TRAIN).unwrap();
    assert_eq!(statistics(&variables)[1][1], start[1][1]);
    assert!(statistics(&variables).iter().flatten().all(|x| x.is_finite()));
    norm.forward(&random(1, (3, 2)).unwrap(), None, Mode::Eval).unwrap();
    let before = statistics(&variables);
    norm.forward(&random(1, (3, 2)).unwrap(), None, TRAIN).unwrap();
    assert_ne!(statistics(&variables), before);
}

struct Small {
    first: Linear,
    norm: BatchNorm,
    last: Linear,
}

impl Small {
    fn new(variables: &Variables) -> Self {
        let vb = variables.builder();
        Self {
            first: Linear::without_bias(1, 4, vb.pp("first")).unwrap(),
            norm: BatchNorm::new(4, vb.pp("norm")).unwrap(),
            last: Linear::new(4, 1, vb.pp("last")).unwrap(),
        }
    }
}

impl Student for Small {
    fn forward(&self, tokens: &Tokens, mode: Mode) -> Result<Output> {
        let xs = self.first.forward(&tokens.first.ids.to_dtype(DType::F32)?)?;
        Ok(Output::from_logits(self.last.forward(&self.norm.forward(&xs, None, mode)?)?))
    }
}

impl Represent for Small {
    fn width(&self) -> usize {
        1
    }

    fn represent(&self, tokens: &Tokens, mode: Mode) -> Result<Tensor> {
        self.forward(tokens, mode)?.logits().cloned()
    }
}

#[test]
fn the_next_stage_of_training_starts_with_the_statistics_of_the_last() {
    let stage = |seed| {
        let variables = Variables::new(seed, DType::F32, device());
        let set = HeadsOf { name: "task".to_string(), classes: 2, teachers: 1, gold: true };
        let student = HeadPerTeacher::new(Small::new(&variables), vec![set], true, 0.0, variables.builder()).unwrap();
        (student, variables)
    };
    let ((first, of_first), (second, of_second)) = (stage(1), stage(2));
    first.forward(&batch(0).unwrap().tokens, TRAIN).unwrap();
    let transfer = second.start_from(&of_second, &of_first.tensors(), &[]).unwrap();
    assert!(transfer.body.contains(&"norm.running_mean".to_string()), "{transfer}");
    let values = |variables: &Variables| variables.tensors()["norm.running_mean"].to_vec1::<f32>().unwrap();
    assert_eq!(values(&of_second), values(&of_first));
    assert_ne!(values(&of_first), [0.0; 4]);
}

fn squared(output: &Output, _: &Batch, _: usize) -> Result<Loss> {
    Ok(Loss::of((output.logits()? - 2.0)?.sqr()?.mean_all()?))
}

fn batch(step: usize) -> Result<Batch> {
    let ids: Vec<Vec<u32>> = (0..4).map(|row| vec![((step + 1) * row % 7) as u32]).collect();
    let tokens = Tokens { first: pad(&ids, device())?, second: None, more: Vec::new(), rows: Rows::Examples };
    Ok(Batch { tokens, labels: None, targets: vec![], teachers: vec![], weights: None, task: 0, examples: vec![] })
}

#[test]
fn a_run_that_was_killed_ends_with_the_statistics_of_one_that_was_not() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("checkpoint");
    // The run is broken off after `stop` steps, and trained from its checkpoint to the end.
    let train = |stop: usize, checkpoint: bool| {
        let variables = Variables::new(5, DType::F32, device());
        let student = Small::new(&variables);
        let config = TrainerConfig { checkpoint_every: 1, ..TrainerConfig::new(9, AdamWConfig::with_lr(0.05)) };
        let mut trainer = Trainer::new(&student, &variables, &squared, config).unwrap();
        if checkpoint {
            trainer = trainer.with_checkpoint(&path).unwrap();
        }
        let mut observer = |report: &Report| {
            if report.step == stop { ControlFlow::Break(()) } else { ControlFlow::Continue(()) }
        };
        trainer.fit(&batch, None, &mut observer).unwrap();
        let values = |tensor: Tensor| tensor.to_device(&Device::Cpu).unwrap().flatten_all().unwrap().to_vec1::<f32>();
        variables.tensors().into_iter().map(|(name, tensor)| (name, values(tensor).unwrap())).collect::<Vec<_>>()
    };
    let whole = train(100, false);
    let half = train(4, true);
    assert_ne!(half, whole);
    assert_eq!(train(100, true), whole);
    assert!(whole.iter().any(|(name, values)| name == "norm.running_mean" && values.iter().all(|&x| x != 0.0)));
}
