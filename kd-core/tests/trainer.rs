//! The trainer with a student of one weight.

use std::ops::ControlFlow;

use candle_core::{DType, Device, Result, Tensor};
use candle_nn::Init;
use kd_core::batch::{Batch, Rows, Tokens, pad};
use kd_core::model::{Mode, Output, Student};
use kd_core::objective::Loss;
use kd_core::optim::AdamWConfig;
use kd_core::schedule::Schedule;
use kd_core::trainer::{Outcome, Report, Trainer, TrainerConfig};
use kd_core::variables::Variables;

struct OneWeight {
    weight: Tensor,
    unused: Option<Tensor>,
}

impl OneWeight {
    fn new(variables: &Variables) -> Self {
        let weight = variables.builder().get_with_hints((1, 1), "weight", Init::Const(0.0)).unwrap();
        Self { weight, unused: None }
    }
}

impl Student for OneWeight {
    fn forward(&self, tokens: &Tokens, mode: Mode) -> Result<Output> {
        let batch = tokens.batch()?;
        let noise = match mode {
            Mode::Eval => 0.0,
            Mode::Train { seed } => (seed % 1000) as f64 / 1e6,
        };
        let mut logits = (self.weight.broadcast_as((batch, 1))? + noise)?;
        if let Some(unused) = &self.unused {
            logits = (logits + unused.detach().broadcast_as((batch, 1))?)?;
        }
        Ok(Output::from_logits(logits))
    }
}

/// `(weight - target)²`; the batch's only token is the target.
fn squared_distance(output: &Output, batch: &Batch) -> Result<Loss> {
    let target = batch.tokens.first.ids.to_dtype(DType::F32)?;
    let total = (output.logits()? - target)?.sqr()?.mean_all()?;
    Ok(Loss { total, hard: None, soft: None })
}

fn batch(step: usize) -> Result<Batch> {
    let tokens =
        Tokens { first: pad(&[vec![1 + (step % 2) as u32]], &Device::Cpu)?, second: None, rows: Rows::Examples };
    Ok(Batch { tokens, labels: None, teachers: vec![], weights: None, task: 0, examples: vec![step] })
}

fn config(steps: usize) -> TrainerConfig {
    TrainerConfig {
        steps,
        optimizer: AdamWConfig::with_lr(0.05),
        schedule: Schedule::WarmupLinear { warmup: 3, total: steps },
        clip_norm: Some(1.0),
        evaluate_every: 4,
        patience: None,
        checkpoint_every: 5,
        seed: 11,
    }
}

fn variables() -> Variables {
    Variables::new(3, DType::F32, &Device::Cpu)
}

fn weight(variables: &Variables) -> u32 {
    variables.named()[0].1.flatten_all().unwrap().to_vec1::<f32>().unwrap()[0].to_bits()
}

fn go_on(_: &Report) -> ControlFlow<()> {
    ControlFlow::Continue(())
}

#[test]
fn a_run_broken_off_anywhere_ends_in_the_same_bytes() {
    let run = |path: &std::path::Path, break_at: Option<usize>| {
        let variables = variables();
        let student = OneWeight::new(&variables);
        let mut trainer =
            Trainer::new(&student, &variables, &squared_distance, config(23)).unwrap().with_checkpoint(path).unwrap();
        let mut evaluate = || {
            let value = variables.named()[0].1.flatten_all()?.to_vec1::<f32>()?[0];
            Ok(-f64::from((value - 1.4).abs()))
        };
        let mut observe = |report: &Report| match break_at {
            Some(step) if step == report.step => ControlFlow::Break(()),
            _ => ControlFlow::Continue(()),
        };
        let outcome = trainer.fit(&batch, Some(&mut evaluate), &mut observe).unwrap();
        (outcome, weight(&variables), trainer.evaluations().to_vec())
    };
    let folder = tempfile::tempdir().unwrap();
    let whole = run(&folder.path().join("whole"), None);
    assert_eq!(whole.0, Outcome::Finished);
    for step in 1..23 {
        let path = folder.path().join(step.to_string());
        assert_eq!(run(&path, Some(step)).0, Outcome::Interrupted);
        assert_eq!(run(&path, None), whole, "broken off after step {step}");
    }
}

#[test]
fn the_best_weights_are_kept_and_patience_ends_the_run() {
    let variables = variables();
    let student = OneWeight::new(&variables);
    let config = TrainerConfig { patience: Some(3), schedule: Schedule::Constant, ..config(1000) };
    let mut trainer = Trainer::new(&student, &variables, &squared_distance, config).unwrap();
    let mut seen = Vec::new();
    let mut evaluate = || {
        seen.push(weight(&variables));
        Ok(if seen.len() == 2 { 1.0 } else { 0.0 })
    };
    assert_eq!(trainer.fit(&batch, Some(&mut evaluate), &mut go_on).unwrap(), Outcome::Finished);
    let evaluated: Vec<_> = trainer.evaluations().iter().map(|evaluation| evaluation.step).collect();
    assert_eq!(evaluated, [4, 8, 12, 16, 20]);
    assert_eq!(weight(&variables), seen[1]);
}

#[test]
fn a_variable_without_a_gradient_is_named() {
    let variables = variables();
    let mut student = OneWeight::new(&variables);
    student.unused = Some(variables.builder().get_with_hints((1, 1), "head.dead", Init::Const(1.0)).unwrap());
    let mut trainer = Trainer::new(&student, &variables, &squared_distance, config(5)).unwrap();
    let error = trainer.step(&batch(0).unwrap()).unwrap_err().to_string();
    assert_eq!(
        error,
        "step 0: expected a finite, non-zero gradient for every trainable variable, found: `head.dead` has no gradient"
    );
}

#[test]
fn a_loss_that_is_no_number_stops_and_keeps_weights_and_checkpoint() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("checkpoint");
    let variables = variables();
    let student = OneWeight::new(&variables);
    let poisoned = |output: &Output, batch: &Batch| {
        let mut loss = squared_distance(output, batch)?;
        if batch.examples[0] == 7 {
            loss.total = (loss.total / 0.0)?.affine(0.0, 0.0)?;
        }
        Ok(loss)
    };
    let mut trainer =
        Trainer::new(&student, &variables, &poisoned, config(20)).unwrap().with_checkpoint(&path).unwrap();
    let error = trainer.fit(&batch, None, &mut go_on).unwrap_err().to_string();
    assert!(error.starts_with("step 7: the loss is NaN"), "{error}");
    let resumed = Trainer::new(&student, &variables, &poisoned, config(20)).unwrap().with_checkpoint(&path).unwrap();
    assert_eq!(resumed.step_count(), 5);
}

#[test]
fn a_checkpoint_of_another_run_is_refused() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("checkpoint");
    let variables = variables();
    let student = OneWeight::new(&variables);
    let fresh = |config| Trainer::new(&student, &variables, &squared_distance, config).unwrap();
    fresh(config(6)).with_checkpoint(&path).unwrap().fit(&batch, None, &mut go_on).unwrap();
    let other = TrainerConfig { clip_norm: Some(2.0), ..config(6) };
    let error = fresh(other).with_checkpoint(&path).unwrap_err().to_string();
    assert!(error.ends_with("another configuration: `clip_norm`: expected 2.0, found 1.0"), "{error}");
}

#[test]
fn settings_out_of_range_are_refused() {
    let variables = variables();
    let student = OneWeight::new(&variables);
    let error = Trainer::new(&student, &variables, &squared_distance, config(0)).unwrap_err().to_string();
    assert_eq!(error, "steps: expected at least 1, found 0");
}
