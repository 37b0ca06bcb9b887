//! The logs: what is in them, and what becomes of them when a run goes on.

mod tiny;

use std::ops::ControlFlow;
use std::path::Path;

use kd_core::optim::AdamWConfig;
use kd_core::trainer::{Interval, JsonLines, Observer, Report, TensorBoard, Trainer, TrainerConfig};
use serde_json::{Value, json};
use tiny::{Tiny, batch, cross_entropy, variables};

fn report(step: usize) -> Report {
    Report {
        step,
        steps: 10,
        loss: step as f64 / 4.0,
        parts: [("hard".to_string(), 0.5)].into(),
        gradient_norm: 2.0,
        lr_factor: 1.0,
        is_skipped: false,
        skipped: 0,
        score: None,
    }
}

/// Writes these steps after training began from `begin`.
fn write(observer: &mut dyn Observer, begin: usize, steps: impl IntoIterator<Item = usize>) -> kd_core::Result<()> {
    observer.begin(begin)?;
    steps.into_iter().try_for_each(|step| observer.observe(&report(step)).map(|_| ()))
}

fn steps(path: &Path) -> Vec<u64> {
    let text = std::fs::read_to_string(path).unwrap();
    text.lines().map(|line| serde_json::from_str::<Value>(line).unwrap()["step"].as_u64().unwrap()).collect()
}

#[test]
fn a_line_is_the_report() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("runs/log.jsonl");
    let mut log = JsonLines::new(&path);
    let skipped = Report { loss: f64::NAN, is_skipped: true, skipped: 1, score: Some(0.75), ..report(1) };
    assert!(log.observe(&skipped).unwrap().is_continue());
    let line: Value = serde_json::from_str(std::fs::read_to_string(&path).unwrap().trim_end()).unwrap();
    let expected = json!({
        "step": 1, "steps": 10, "loss": null, "parts": {"hard": 0.5}, "gradient_norm": 2.0, "lr_factor": 1.0,
        "is_skipped": true, "skipped": 1, "score": 0.75,
    });
    assert_eq!(line, expected);
}

#[test]
fn a_resumed_log_is_cut_to_the_step_it_goes_on_from() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("log.jsonl");
    write(&mut JsonLines::new(&path), 0, 1..=7).unwrap();
    let mut whole = std::fs::read(&path).unwrap();
    write(&mut JsonLines::new(&path), 4, 5..=7).unwrap();
    assert_eq!(std::fs::read(&path).unwrap(), whole);
    // The last line was cut by the kill.
    std::fs::write(&path, &whole[..whole.len() - 1]).unwrap();
    write(&mut JsonLines::new(&path), 6, [7]).unwrap();
    assert_eq!(std::fs::read(&path).unwrap(), whole);
    // A new run starts anew.
    write(&mut JsonLines::new(&path), 0, [1]).unwrap();
    assert_eq!(steps(&path), [1]);
    // A log that starts late, and one that has lost lines.
    let late = folder.path().join("late");
    write(&mut JsonLines::new(&late), 3, [4]).unwrap();
    assert_eq!(steps(&late), [4]);
    whole.truncate(whole.len() / 2);
    std::fs::write(&path, &whole).unwrap();
    let error = write(&mut JsonLines::new(&path), 6, [7]).unwrap_err().to_string();
    let expected = format!("{}: expected a log up to step 6, where training goes on, found it up to 3", path.display());
    assert_eq!(error, expected);
    assert_eq!(std::fs::read(&path).unwrap(), whole);
}

#[test]
fn a_sparser_log_has_every_nth_step_and_the_notable_ones() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("log.jsonl");
    let mut log = JsonLines::every(&path, 4);
    for step in 1..=10 {
        let report = Report { is_skipped: step == 1, score: (step == 6).then_some(1.0), ..report(step) };
        assert!(log.observe(&report).unwrap().is_continue());
    }
    assert_eq!(steps(&path), [1, 4, 6, 8, 10]);
    write(&mut JsonLines::every(&path, 4), 7, 8..=10).unwrap();
    assert_eq!(steps(&path), [1, 4, 6, 8, 10]);
}

#[test]
fn an_event_file_goes_on_from_the_step_as_well() {
    let folder = tempfile::tempdir().unwrap();
    let file = || {
        let mut files = std::fs::read_dir(folder.path()).unwrap();
        let path = files.next().unwrap().unwrap().path();
        assert!(files.next().is_none());
        std::fs::read(path).unwrap()
    };
    write(&mut TensorBoard::new(folder.path()), 0, 1..=7).unwrap();
    let whole = file();
    // The name of a part stands in every event, the times differ.
    let count = |bytes: &[u8]| bytes.windows(10).filter(|window| window == b"parts/hard").count();
    assert_eq!(count(&whole), 7);
    write(&mut TensorBoard::new(folder.path()), 4, [5]).unwrap();
    assert_eq!((count(&file()), file().len()), (5, whole.len() - 2 * (whole.len() - 40) / 7));
    write(&mut TensorBoard::new(folder.path()), 0, [1]).unwrap();
    assert_eq!(count(&file()), 1);
}

#[test]
fn a_log_that_cannot_be_written_ends_training() {
    let folder = tempfile::tempdir().unwrap();
    let blocked = folder.path().join("file");
    std::fs::write(&blocked, "").unwrap();
    let variables = variables();
    let student = Tiny::new(&variables, 0.0);
    let config =
        TrainerConfig { evaluate_every: Interval::Steps(2), ..TrainerConfig::new(4, AdamWConfig::with_lr(0.1)) };
    let mut trainer = Trainer::new(&student, &variables, &cross_entropy, config).unwrap();
    let mut log = JsonLines::new(&blocked.join("log.jsonl"));
    let error = trainer.fit(&batch, None, &mut log).unwrap_err().to_string();
    assert!(error.starts_with(&blocked.display().to_string()), "{error}");
    assert_eq!(trainer.step_count(), 0);
}

#[test]
fn every_observer_of_a_list_is_told_and_one_may_end_training() {
    let variables = variables();
    let student = Tiny::new(&variables, 0.0);
    let mut trainer =
        Trainer::new(&student, &variables, &cross_entropy, TrainerConfig::new(9, AdamWConfig::with_lr(0.1))).unwrap();
    let (mut first, mut second) = (Vec::new(), Vec::new());
    let mut break_off = |report: &Report| {
        first.push(report.step);
        if report.step == 3 { ControlFlow::Break(()) } else { ControlFlow::Continue(()) }
    };
    let mut go_on = |report: &Report| {
        second.push(report.part("hard") == Some(report.loss));
        ControlFlow::Continue(())
    };
    let mut observers: Vec<&mut dyn Observer> = vec![&mut break_off, &mut go_on];
    trainer.fit(&batch, None, &mut observers).unwrap();
    assert_eq!((first, second), (vec![1, 2, 3], vec![true; 3]));
}
