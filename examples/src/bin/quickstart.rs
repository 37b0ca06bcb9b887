//! The whole idea in three minutes, without a download: ten labelled utterances for each of seven intents, a pretrained
//! encoder fine-tuned on them, and a small student that learns from what the encoder says of 4,000 unlabelled utterances.
//!
//! ```sh
//! cargo run --release --bin quickstart
//! cargo run --release --bin predict -- --model out/quickstart/student --input questions.txt
//! ```
//!
//! Data: SNIPS (CC0). Encoder: all-MiniLM-L6-v2 (Apache-2.0) with the word pieces of SNIPS, `examples/models/pocket-encoder`. The control, a student
//! trained on the gold labels alone, has the same start, the same number of updates of as many utterances, and the same
//! choice of its best step. `examples/reference/quickstart.py` is the same in PyTorch.

use std::path::{Path, PathBuf};

use anyhow::{Result, bail};
use clap::Parser;
use examples::device::DeviceChoice;
use examples::intents::{Data, Draw, Pupil, Settings, Teacher};
use examples::plot::{Curve, Scale, Titles, curves};
use examples::report::{self, Spread, milliseconds, percent, table};
use kd_bench::latency::{Latency, measure};
use kd_core::trainer::Evaluation;
use kd_students::bundle::{self, Bundle};
use kd_teachers::hub::ModelFiles;
use serde::Serialize;

/// Distil a pretrained encoder into a small intent classifier, offline, in about three minutes.
#[derive(Debug, Parser)]
#[command(version)]
struct Args {
    /// Folder for report.json, the plot and the student
    #[arg(long, default_value = "out/quickstart")]
    out: PathBuf,
    /// Labelled utterances of each intent
    #[arg(long, default_value_t = 10)]
    per_class: usize,
    /// Unlabelled utterances
    #[arg(long, default_value_t = 4000)]
    unlabelled: usize,
    /// Number of draws; their seeds are 1, 2, ...
    #[arg(long, default_value_t = 3)]
    seeds: u64,
    /// Updates of the teacher
    #[arg(long, default_value_t = 100)]
    teacher_steps: usize,
    /// Updates of each student
    #[arg(long, default_value_t = 1000)]
    steps: usize,
    /// Folder of the pretrained encoder
    #[arg(long, default_value = concat!(env!("CARGO_MANIFEST_DIR"), "/models/pocket-encoder"))]
    encoder: PathBuf,
    /// Folder of SNIPS: train, valid and test with seq.in, seq.out and label
    #[arg(long, default_value = concat!(env!("CARGO_MANIFEST_DIR"), "/data/snips"))]
    data: PathBuf,
    /// auto, cpu, cuda or cuda:N
    #[arg(long, default_value = "auto")]
    device: DeviceChoice,
}

/// Classified at the end.
const SENTENCES: [&str; 3] = [
    "will it rain in lisbon this weekend",
    "add this song to my running playlist",
    "book a table for two near the station",
];

fn main() -> Result<()> {
    examples::start()?;
    let args = Args::parse();
    let device = args.device.open()?;
    let data = Data::read(&args.data)?;
    let files = ModelFiles::in_folder(&args.encoder)?;
    println!(
        "{} intents, {} labelled utterances each, {} unlabelled, {} of test",
        data.classes.len(),
        args.per_class,
        args.unlabelled,
        data.test.len()
    );

    let settings = Settings {
        per_class: args.per_class,
        unlabelled: args.unlabelled,
        teacher_steps: args.teacher_steps,
        steps: args.steps,
    };
    let names = ["teacher", "gold", "distilled"];
    let mut accuracies: [Vec<f64>; 3] = Default::default();
    let mut evaluations: [Vec<Vec<Evaluation>>; 2] = Default::default();
    let mut latencies = None;
    let student_folder = args.out.join("student");
    let mut parameters = [0; 2];
    for seed in 1..=args.seeds {
        let draw = Draw::new(&data, settings, seed)?;
        let teacher = Teacher::fine_tune(&data, &draw, &files, settings, seed, &device)?;
        accuracies[0].push(teacher.accuracy(&data)?);
        let outputs = teacher.ask(&draw.utterances)?;
        for (idx, outputs) in [None, Some(&outputs)].into_iter().enumerate() {
            let student = Pupil::train(&data, &draw, outputs, settings, seed, &device)?;
            accuracies[1 + idx].push(student.accuracy(&data, &data.test)?);
            evaluations[idx].push(student.evaluations.clone());
            if outputs.is_some() && seed == 1 {
                student.save(&data, &student_folder)?;
                parameters = [teacher.variables.parameter_count(), student.variables.parameter_count()];
                latencies = Some(time(&teacher, &Bundle::load(&student_folder, &device)?, &data)?);
            }
        }
    }

    let Some(latencies) = latencies else { bail!("--seeds: expected at least 1, found 0") };
    let [of_teacher, of_student] = latencies;
    let student_bytes = bundle::bytes(&student_folder)?;
    let teacher_bytes = std::fs::metadata(&files.weights[0])?.len();
    let rows: Vec<Row> = (0..3)
        .map(|idx| {
            let spread = Spread::of(&accuracies[idx]);
            let is_teacher = idx == 0;
            Row {
                name: names[idx],
                accuracy_mean: spread.mean,
                accuracy_std: spread.std,
                seeds: accuracies[idx].len(),
                parameters: parameters[usize::from(!is_teacher)],
                bytes: if is_teacher { teacher_bytes } else { student_bytes },
                latency: if is_teacher { of_teacher.clone() } else { of_student.clone() },
            }
        })
        .collect();
    let gains: Vec<f64> = accuracies[2].iter().zip(&accuracies[1]).map(|(distilled, gold)| distilled - gold).collect();
    print(&rows, &gains);
    let report = Report { program: "quickstart", per_class: args.per_class, unlabelled: args.unlabelled, rows };
    report::save(&args.out.join("report.json"), &report)?;
    plot(&args.out.join("dev-accuracy.svg"), &evaluations)?;

    let bundle = Bundle::load(&student_folder, &device)?;
    let words = SENTENCES.map(|text| text.split(' ').map(String::from).collect());
    println!();
    for (text, class) in SENTENCES.iter().zip(bundle.classify(&words)?) {
        if let Some(class) = class {
            println!("{text:42} {} ({:.2})", class.class, class.probability);
        }
    }
    println!("\nkept in {}: report.json, dev-accuracy.svg, student/", args.out.display());
    Ok(())
}

/// From text to logits at 1 and 32 utterances of test.
fn time(teacher: &Teacher, student: &Bundle, data: &Data) -> Result<[Vec<BatchLatency>; 2]> {
    let mut latencies: [Vec<BatchLatency>; 2] = Default::default();
    for batch in [1, 32] {
        let utterances = &data.test[..batch];
        let words: Vec<Vec<String>> = utterances.iter().map(|utterance| utterance.sentence.words.clone()).collect();
        let ask = || teacher.logits(utterances).map(drop);
        let classify = || student.classify(&words).map(drop).map_err(candle_core::Error::wrap);
        for (of, latency) in latencies.iter_mut().zip([measure(ask, 2, 20)?, measure(classify, 5, 200)?]) {
            of.push(BatchLatency { batch, utterances_per_second: 1e3 * batch as f64 / latency.p50_ms, latency });
        }
    }
    Ok(latencies)
}

#[derive(Debug, Serialize)]
struct Report {
    program: &'static str,
    per_class: usize,
    unlabelled: usize,
    rows: Vec<Row>,
}

#[derive(Debug, Serialize)]
struct Row {
    name: &'static str,
    accuracy_mean: f64,
    accuracy_std: f64,
    seeds: usize,
    parameters: usize,
    bytes: u64,
    latency: Vec<BatchLatency>,
}

#[derive(Debug, Clone, Serialize)]
struct BatchLatency {
    batch: usize,
    utterances_per_second: f64,
    #[serde(flatten)]
    latency: Latency,
}

fn print(rows: &[Row], gains: &[f64]) {
    let header = ["model", "test accuracy", "parameters", "MB", "ms, batch 1 (p50 / p99)", "ms, batch 32"];
    let cells = rows.iter().map(|row| {
        vec![
            row.name.to_string(),
            percent(Spread { mean: row.accuracy_mean, std: row.accuracy_std }, row.seeds),
            row.parameters.to_string(),
            format!("{:.1}", row.bytes as f64 / 1e6),
            milliseconds(&row.latency[0].latency),
            milliseconds(&row.latency[1].latency),
        ]
    });
    println!("\n{}\n", table(&header, &cells.collect::<Vec<_>>()));
    let gain = Spread::of(gains);
    let error = gain.std / (gains.len() as f64).sqrt();
    println!(
        "distilled over gold alone: {:+.1} points (standard error {:.1}, {} draws)",
        100.0 * gain.mean,
        100.0 * error,
        gains.len()
    );
    let faster = |idx: usize| rows[0].latency[idx].latency.p50_ms / rows[2].latency[idx].latency.p50_ms;
    println!("faster than the teacher: {:.0} times at batch 1, {:.0} times at batch 32", faster(0), faster(1));
}

/// Accuracy on the dev sample by step, mean over the draws.
fn plot(path: &Path, evaluations: &[Vec<Vec<Evaluation>>; 2]) -> Result<()> {
    let curve = |(name, runs): (&str, &Vec<Vec<Evaluation>>)| Curve {
        name: name.to_string(),
        points: (0..runs[0].len())
            .map(|idx| {
                let spread = Spread::of(&runs.iter().map(|run| run[idx].score).collect::<Vec<_>>());
                (runs[0][idx].step as f64, spread.mean, spread.std)
            })
            .collect(),
    };
    let curves_of: Vec<Curve> = ["gold", "distilled"].into_iter().zip(evaluations).map(curve).collect();
    curves(
        path,
        Titles { title: "Accuracy on the dev sample", x: "updates", y: "accuracy", scale: Scale::Logarithmic },
        &curves_of,
    )
}
