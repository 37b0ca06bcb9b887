//! The trainer with a student of one weight.

use std::ops::ControlFlow;

use candle_core::{DType, Result, Tensor};
use candle_nn::Init;
use kd_core::batch::{Batch, Described, Rows, Tokens, pad};
use kd_core::model::{Mode, Output, Student};
use kd_core::objective::Loss;
use kd_core::optim::AdamWConfig;
use kd_core::schedule::Schedule;
use kd_core::testing::device;
use kd_core::trainer::{Interval, Outcome, Report, Trainer, TrainerConfig};
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
fn squared_distance(output: &Output, batch: &Batch, _: usize) -> Result<Loss> {
    let target = batch.tokens.first.ids.to_dtype(DType::F32)?;
    let total = (output.logits()? - target)?.sqr()?.mean_all()?;
    Ok(Loss::of(total))
}

fn batch(step: usize) -> Result<Batch> {
    let tokens = Tokens {
        first: pad(&[vec![1 + (step % 2) as u32]], device())?,
        second: None,
        more: Vec::new(),
        rows: Rows::Examples,
    };
    Ok(Batch { tokens, labels: None, targets: vec![], teachers: vec![], weights: None, task: 0, examples: vec![step] })
}

fn config(steps: usize) -> TrainerConfig {
    TrainerConfig {
        schedule: Schedule::WarmupLinear { warmup: 3, total: steps.max(3) },
        clip_norm: Some(1.0),
        evaluate_every: Interval::Steps(4),
        checkpoint_every: 5,
        max_skipped: 0,
        seed: 11,
        ..TrainerConfig::new(steps, AdamWConfig::with_lr(0.05))
    }
}

fn variables() -> Variables {
    Variables::new(3, DType::F32, device())
}

fn weight(variables: &Variables) -> u32 {
    variables.named()[0].1.flatten_all().unwrap().to_vec1::<f32>().unwrap()[0].to_bits()
}

fn go_on(_: &Report) -> ControlFlow<()> {
    ControlFlow::Continue(())
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
fn settings_out_of_range_are_refused() {
    let variables = variables();
    let student = OneWeight::new(&variables);
    let error = Trainer::new(&student, &variables, &squared_distance, config(0)).unwrap_err().to_string();
    assert_eq!(error, "steps: expected at least 1, found 0");
}

#[test]
fn parts_are_reported_by_name_and_as_the_mean_over_rows() {
    let variables = variables();
    let student = OneWeight::new(&variables);
    let objective = |output: &Output, batch: &Batch, step: usize| {
        let loss = squared_distance(output, batch, step)?;
        let twice = (&loss.total * 2.0)?;
        Ok(if batch.examples[0] == 1 { loss } else { loss.with_part("twice", twice) })
    };
    let two = TrainerConfig { accumulate: 2, ..config(5) };
    let mut trainer = Trainer::new(&student, &variables, &objective, two).unwrap();
    let report = trainer.step_on(&mut [batch(0), batch(1)].into_iter()).unwrap();
    // The weight is 0 but for dropout's noise and the targets are 1 and 2; only the first batch has the part.
    assert!((report.loss - 2.5).abs() < 1e-2 && (report.part("twice").unwrap() - 2.0).abs() < 1e-2, "{report:?}");
    assert_eq!((report.step, report.part("hard"), report.lr_factor), (1, None, 1.0 / 3.0));
    let error = trainer.step_on(&mut std::iter::empty()).unwrap_err().to_string();
    assert_eq!(error, "batches: expected at least one, found none");
}

#[test]
fn an_evaluation_by_epochs_needs_their_length() {
    let variables = variables();
    let student = OneWeight::new(&variables);
    let config = TrainerConfig { evaluate_every: Interval::Epochs(1), ..config(5) };
    let mut evaluate = || Ok(0.0);
    let mut trainer = Trainer::new(&student, &variables, &squared_distance, config.clone()).unwrap();
    let error = trainer.fit(&batch, Some(&mut evaluate), &mut go_on).unwrap_err().to_string();
    let expected = "evaluate_every: expected a number of steps, since the batches do not know how long an epoch is";
    assert_eq!(error, format!("{expected}, found 1 epochs"));

    let batches = Described { batch, steps_per_epoch: Some(2), description: serde_json::Value::Null };
    let mut trainer = Trainer::new(&student, &variables, &squared_distance, config).unwrap();
    trainer.fit(&batches, Some(&mut evaluate), &mut go_on).unwrap();
    assert_eq!(trainer.evaluations().iter().map(|evaluation| evaluation.step).collect::<Vec<_>>(), [2, 4, 5]);
}
