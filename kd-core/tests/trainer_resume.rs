//! A run that was killed and resumed is one that was not: weights, evaluations and log, byte for byte.

mod tiny;

use std::ops::ControlFlow;
use std::path::Path;

use candle_core::Result;
use kd_core::batch::{Batch, Described};
use kd_core::model::{Mode, Output, Student};
use kd_core::objective::{Loss, Objective, Part, WeightedSum};
use kd_core::optim::{
    AdadeltaConfig, AdagradConfig, AdamConfig, AdamWConfig, AdamaxConfig, EmaConfig, Group, NAdamConfig,
    OptimizerConfig, RAdamConfig, RmsPropConfig, SgdConfig,
};
use kd_core::schedule::{Schedule, ValueSchedule};
use kd_core::trainer::{Evaluation, Interval, JsonLines, Observer, Outcome, Report, Trainer, TrainerConfig};
use kd_core::{Error, losses};
use serde_json::json;
use tiny::{Tiny, batch, bits, cross_entropy, variables};

const STEPS: usize = 17;

/// How a run ends early.
#[derive(Clone, Copy, PartialEq)]
enum End {
    /// Not.
    Never,
    /// As by Ctrl-C after a step: with a checkpoint.
    Asked(usize),
    /// As by a kill in the middle of writing the log of a step: the last checkpoint is older.
    Killed(usize),
}

struct Ending<'a> {
    end: End,
    log: &'a Path,
}

impl Observer for Ending<'_> {
    fn observe(&mut self, report: &Report) -> kd_core::Result<ControlFlow<()>> {
        if self.end == End::Killed(report.step) {
            let mut torn = std::fs::read(self.log).unwrap();
            torn.extend(b"{\"step\":99");
            std::fs::write(self.log, torn).unwrap();
            return Err(candle_core::Error::msg("killed").into());
        }
        let is_asked = self.end == End::Asked(report.step);
        Ok(if is_asked { ControlFlow::Break(()) } else { ControlFlow::Continue(()) })
    }
}

fn configs() -> Vec<TrainerConfig> {
    let optimizers: [OptimizerConfig; 9] = [
        AdamWConfig::with_lr(0.05).into(),
        SgdConfig { momentum: 0.9, ..SgdConfig::with_lr(0.05) }.into(),
        AdamaxConfig::with_lr(0.05).into(),
        NAdamConfig::with_lr(0.05).into(),
        RAdamConfig::with_lr(0.05).into(),
        AdamConfig { weight_decay: 0.1, ..AdamConfig::with_lr(0.05) }.into(),
        AdagradConfig { lr_decay: 0.1, ..AdagradConfig::with_lr(0.05) }.into(),
        AdadeltaConfig::with_lr(1.0).into(),
        RmsPropConfig { momentum: 0.9, centered: true, ..RmsPropConfig::with_lr(0.01) }.into(),
    ];
    let with = |(idx, optimizer)| TrainerConfig {
        schedule: Schedule::WarmupCosine { warmup: 3, total: STEPS },
        groups: vec![Group::with_lr_factor("table.*", 0.5)],
        clip_norm: Some(0.5),
        accumulate: [1, 3, 2][idx % 3],
        ema: [Some(EmaConfig::with_decay(0.8)), None, Some(EmaConfig { decay: 0.5, warm_up: false })][idx % 3],
        evaluate_every: [Interval::Steps(3), Interval::Epochs(2), Interval::Epochs(1)][idx % 3],
        checkpoint_every: 4,
        max_skipped: 2,
        seed: 11,
        ..TrainerConfig::new(STEPS, optimizer)
    };
    optimizers.into_iter().enumerate().map(with).collect()
}

#[derive(Debug, PartialEq)]
struct Ended {
    outcome: Outcome,
    bits: Vec<u32>,
    evaluations: Vec<Evaluation>,
    skipped: usize,
    log: String,
}

/// One run in `folder`, or its continuation.
fn run(folder: &Path, config: &TrainerConfig, end: End) -> kd_core::Result<Ended> {
    let variables = variables();
    let student = Tiny::new(&variables, 0.3);
    // In steps 5 and 6 and in 12 the loss is no number: with three batches a step in the last of them.
    let labels = |output: &Output, batch: &Batch, at: kd_core::objective::Point| -> Result<_> {
        let loss = losses::cross_entropy(output.logits()?, batch.labels()?)?;
        let is_last = batch.examples[0] / 3 % config.accumulate == config.accumulate - 1;
        if [5, 6, 12].contains(&at.step) && is_last { loss * f64::NAN } else { Ok(loss) }
    };
    let small = Part::new("small", ValueSchedule::linear(1e-2, 0.0, 9), |output, _, at| {
        (output.logits()? / at.temperature)?.sqr()?.mean_all()
    });
    let objective = WeightedSum::new([Part::new("labels", 1.0, labels), small])?
        .with_temperature(ValueSchedule::exponential(4.0, 1.0, 10))?;
    let batches = Described { batch, steps_per_epoch: Some(7), description: json!({"seed": 1}) };
    let mut trainer =
        Trainer::new(&student, &variables, &objective, config.clone())?.with_checkpoint(&folder.join("checkpoint"))?;
    let mut evaluate = || {
        let output = student.forward(&batch(100)?.tokens, Mode::Eval)?;
        let loss = cross_entropy(&output, &batch(100)?, 0)?.values()?.0;
        Ok(-loss)
    };
    let path = folder.join("log.jsonl");
    let (mut log, mut ending) = (JsonLines::new(&path), Ending { end, log: &path });
    let mut observers: Vec<&mut dyn Observer> = vec![&mut log, &mut ending];
    let outcome = trainer.fit(&batches, Some(&mut evaluate), &mut observers)?;
    Ok(Ended {
        outcome,
        bits: bits(&variables),
        evaluations: trainer.evaluations().to_vec(),
        skipped: trainer.skipped(),
        log: std::fs::read_to_string(&path).unwrap(),
    })
}

#[test]
fn killed_anywhere_is_uninterrupted() {
    for (idx, config) in configs().iter().enumerate() {
        let folder = tempfile::tempdir().unwrap();
        let whole = run(&folder.path().join("whole"), config, End::Never).unwrap();
        assert_eq!((whole.outcome, whole.skipped), (Outcome::Finished, 3));
        assert_eq!(whole.log.lines().count(), STEPS);
        assert_eq!(whole.log.matches("\"is_skipped\":true").count(), 3);
        for step in (1..STEPS).step_by(if idx < 3 { idx + 1 } else { 6 }) {
            let asked = folder.path().join(format!("asked {step}"));
            assert_eq!(run(&asked, config, End::Asked(step)).unwrap().outcome, Outcome::Interrupted);
            assert_eq!(run(&asked, config, End::Never).unwrap(), whole, "config {idx} broken off after step {step}");
            let killed = folder.path().join(format!("killed {step}"));
            assert!(run(&killed, config, End::Killed(step)).is_err());
            assert_eq!(run(&killed, config, End::Never).unwrap(), whole, "config {idx} killed in step {step}");
        }
        // Both, one after the other.
        let twice = folder.path().join("twice");
        run(&twice, config, End::Asked(6)).unwrap();
        run(&twice, config, End::Killed(11)).unwrap_err();
        assert_eq!(run(&twice, config, End::Never).unwrap(), whole);
    }
}

#[test]
fn a_checkpoint_of_another_run_is_refused_with_what_differs() {
    struct Alpha(f64);
    impl Objective for Alpha {
        fn loss(&self, output: &Output, batch: &Batch, step: usize) -> Result<Loss> {
            cross_entropy(output, batch, step)
        }
        fn describe(&self) -> serde_json::Value {
            json!({"alpha": self.0})
        }
    }
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("checkpoint");
    let variables = variables();
    let student = Tiny::new(&variables, 0.0);
    let config =
        TrainerConfig { ema: Some(EmaConfig::with_decay(0.5)), ..TrainerConfig::new(3, AdamWConfig::with_lr(0.05)) };
    let run = |config: &TrainerConfig, alpha: f64, description: &str, seed: usize| -> kd_core::Result<Outcome> {
        let objective = Alpha(alpha);
        let mut trainer = Trainer::new(&student, &variables, &objective, config.clone())?
            .with_description(json!({"data": description}))
            .with_checkpoint(&path)?;
        let batches = Described { batch, steps_per_epoch: None, description: json!({"seed": seed}) };
        trainer.fit(&batches, None, &mut |_: &Report| ControlFlow::Continue(()))
    };
    assert_eq!(run(&config, 0.5, "a", 1).unwrap(), Outcome::Finished);
    assert_eq!(run(&config, 0.5, "a", 1).unwrap(), Outcome::Finished);
    let message = |result: kd_core::Result<Outcome>| {
        let message = result.unwrap_err().to_string();
        let (file, message) = message.split_once(": ").unwrap();
        assert_eq!(file, path.display().to_string());
        message.to_string()
    };
    let other = TrainerConfig { ema: Some(EmaConfig::with_decay(0.25)), ..config.clone() };
    assert_eq!(
        message(run(&other, 0.5, "a", 1)),
        "made with another configuration: `ema.decay`: expected 0.25, found 0.5"
    );
    let other = TrainerConfig { optimizer: SgdConfig::with_lr(0.05).into(), ..config.clone() };
    assert!(message(run(&other, 0.5, "a", 1)).contains("`optimizer.name`: expected \"sgd\", found \"adamw\""));
    assert_eq!(message(run(&config, 0.25, "a", 1)), "made with another objective: `alpha`: expected 0.25, found 0.5");
    assert_eq!(
        message(run(&config, 0.5, "b", 1)),
        "made with another description: `data`: expected \"b\", found \"a\""
    );
    assert_eq!(message(run(&config, 0.5, "a", 2)), "made with another series of batches: `seed`: expected 2, found 1");
}

#[test]
fn a_score_that_is_no_number_survives_the_checkpoint() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("checkpoint");
    let variables = variables();
    let student = Tiny::new(&variables, 0.0);
    let config = TrainerConfig {
        evaluate_every: Interval::Steps(1),
        checkpoint_every: 1,
        ..TrainerConfig::new(5, AdamWConfig::with_lr(0.05))
    };
    let scores = [f64::NAN, f64::NEG_INFINITY, 0.1 + 0.2, f64::INFINITY, 1.0];
    for stop in 1..=5 {
        let mut trainer =
            Trainer::new(&student, &variables, &cross_entropy, config.clone()).unwrap().with_checkpoint(&path).unwrap();
        assert_eq!(trainer.step_count(), stop - 1);
        let mut evaluate = || Ok::<_, Error>(scores[stop - 1]);
        trainer.fit(&batch, Some(&mut evaluate), &mut |_: &Report| ControlFlow::Break(())).unwrap();
        let found: Vec<_> = trainer.evaluations().iter().map(|evaluation| evaluation.score.to_bits()).collect();
        assert_eq!(found, scores[..stop].iter().map(|score| score.to_bits()).collect::<Vec<_>>());
        assert_eq!(trainer.best().unwrap().step, [1, 2, 3, 4, 4][stop - 1]);
    }
}
