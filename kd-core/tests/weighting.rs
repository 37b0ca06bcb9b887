//! What a trainer asks and tells a weighting of the teachers, and that a resumed run asks the same.

mod tiny;

use std::collections::BTreeMap;
use std::ops::ControlFlow;

use candle_core::{DType, Result, Tensor};
use kd_core::batch::Batch;
use kd_core::model::{Mode, Output};
use kd_core::objective::WeightedTeachers;
use kd_core::optim::AdamWConfig;
use kd_core::testing::device;
use kd_core::trainer::{Report, Trainer, TrainerConfig};
use kd_core::weighting::{Feedback, TeacherWeighting, WeightingState};
use serde_json::{Value, json};
use tiny::{Tiny, bits, variables};

const STEPS: usize = 9;

/// Two teachers; the first counts more the longer it did well.
#[derive(Default)]
struct Learns {
    trust: f64,
    weighed: Vec<usize>,
    told: Vec<usize>,
    /// Whether the student moved between output and feedback.
    moved: Vec<bool>,
}

impl TeacherWeighting for Learns {
    fn weigh(&mut self, batch: &Batch, number: usize) -> Result<Tensor> {
        self.weighed.push(number);
        let first = 1.0 / (1.0 + (-self.trust).exp());
        Tensor::new(&[first, 1.0 - first], device())?.to_dtype(DType::F32)?.repeat((batch.rows()?, 1))
    }

    fn feedback(&mut self, feedback: &Feedback<'_>) -> Result<()> {
        self.told.push(feedback.number);
        assert_eq!(feedback.batch.weights.as_ref().unwrap().dims(), [feedback.batch.rows()?, 2]);
        let after = feedback.student.forward_batch(feedback.batch, Mode::Eval)?;
        let sum = |output: &Output| output.logits()?.sqr()?.sum_all()?.to_scalar::<f32>();
        let (before, after) = (sum(feedback.output)?, sum(&after)?);
        self.moved.push(before != after);
        self.trust += f64::from(after - before);
        Ok(())
    }

    fn describe(&self) -> Value {
        json!("learns")
    }

    fn state(&self) -> Result<WeightingState> {
        let trust = Tensor::new(&[self.trust as f32], device())?;
        Ok(WeightingState { tensors: BTreeMap::from([("rough".to_string(), trust)]), values: json!(self.trust) })
    }

    fn restore(&mut self, state: &WeightingState) -> Result<()> {
        assert_eq!(state.tensors["rough"].dims(), [1]);
        self.trust = state.values.as_f64().unwrap();
        Ok(())
    }
}

fn batch(step: usize) -> Result<Batch> {
    let mut batch = tiny::batch(step)?;
    let teacher = |shift: usize| -> Result<Output> {
        let logits = batch.examples.iter().flat_map(|n| [n * shift % 3, n % 2, 1].map(|logit| logit as f32));
        Ok(Output::from_logits(Tensor::from_vec(logits.collect::<Vec<f32>>(), (batch.examples.len(), 3), device())?))
    };
    batch.teachers = vec![teacher(1)?, teacher(2)?];
    Ok(batch)
}

fn config(accumulate: usize) -> TrainerConfig {
    TrainerConfig { accumulate, checkpoint_every: 2, ..TrainerConfig::new(STEPS, AdamWConfig::with_lr(0.05)) }
}

fn until(end: usize) -> impl FnMut(&Report) -> ControlFlow<()> {
    move |report| if report.step == end { ControlFlow::Break(()) } else { ControlFlow::Continue(()) }
}

#[test]
fn it_is_asked_before_and_told_after_every_step() {
    let (variables, objective) = (variables(), WeightedTeachers::new(0.3, 0.7, 2.0));
    let (student, mut weighting) = (Tiny::new(&variables, 0.0), Learns::default());
    let mut trainer = Trainer::new(&student, &variables, &objective, config(2)).unwrap().with_weighting(&mut weighting);
    trainer.fit(&batch, None, &mut until(0)).unwrap();
    drop(trainer);
    assert_eq!(weighting.weighed, (0..2 * STEPS).collect::<Vec<_>>());
    assert_eq!(weighting.told, weighting.weighed);
    assert!(weighting.moved.iter().all(|&moved| moved), "{:?}", weighting.moved);
}

#[test]
fn a_resumed_run_weighs_as_one_that_was_not_killed() {
    let run = |ends: &[usize]| {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("checkpoint");
        let mut last = None;
        for &end in ends {
            let (variables, objective) = (variables(), WeightedTeachers::new(0.3, 0.7, 2.0));
            let (student, mut weighting) = (Tiny::new(&variables, 0.0), Learns::default());
            let trainer = Trainer::new(&student, &variables, &objective, config(1)).unwrap();
            let mut trainer = trainer.with_weighting(&mut weighting).with_checkpoint(&path).unwrap();
            trainer.fit(&batch, None, &mut until(end)).unwrap();
            drop(trainer);
            last = Some((bits(&variables), weighting.trust.to_bits()));
        }
        last.unwrap()
    };
    assert_eq!(run(&[3, 7, STEPS]), run(&[STEPS]));
}

#[test]
fn a_checkpoint_belongs_to_its_weighting() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("checkpoint");
    let (variables, objective) = (variables(), WeightedTeachers::new(0.3, 0.7, 2.0));
    let (student, mut weighting) = (Tiny::new(&variables, 0.0), Learns::default());
    let trainer = || Trainer::new(&student, &variables, &objective, config(1)).unwrap();
    let mut first = trainer().with_weighting(&mut weighting).with_checkpoint(&path).unwrap();
    first.fit(&batch, None, &mut until(2)).unwrap();
    drop(first);
    let error = trainer().with_checkpoint(&path).unwrap_err().to_string();
    assert!(error.contains("made with another weighting of the teachers"), "{error}");
}

#[test]
fn a_skipped_step_has_no_feedback() {
    let (variables, objective) = (variables(), WeightedTeachers::new(0.3, 0.7, 2.0));
    let (student, mut weighting) = (Tiny::new(&variables, 0.0), Learns::default());
    let poisoned = |step| {
        let mut batch = batch(step)?;
        if step == 4 {
            batch.teachers[0].heads[0] = (&batch.teachers[0].heads[0] * f64::NAN)?;
        }
        Ok(batch)
    };
    let mut trainer = Trainer::new(&student, &variables, &objective, config(1)).unwrap().with_weighting(&mut weighting);
    trainer.fit(&poisoned, None, &mut until(0)).unwrap();
    drop(trainer);
    assert_eq!(weighting.told, [0, 1, 2, 3, 5, 6, 7, 8]);
}

#[test]
fn a_weighting_without_a_state_refuses_one() {
    struct Silent;
    impl TeacherWeighting for Silent {
        fn weigh(&mut self, _: &Batch, _: usize) -> Result<Tensor> {
            Tensor::ones((1, 1), DType::F32, device())
        }
    }
    assert!(Silent.restore(&WeightingState::default()).is_ok());
    let error = Silent.restore(&WeightingState { values: json!(1), ..Default::default() }).unwrap_err().to_string();
    assert!(error.starts_with("the weighting keeps no state, found 0 tensors and 1"), "{error}");
}
