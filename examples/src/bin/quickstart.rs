//! The whole idea in three minutes, without a download: ten labelled utterances for each of seven intents, a pretrained
//! encoder fine-tuned on them, and a small student that learns from what the encoder says of 2,000 unlabelled utterances.
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
use candle_core::{DType, Device};
use clap::Parser;
use examples::device::DeviceChoice;
use examples::interrupt::{self, Interrupted};
use examples::plot::{Curve, Titles, curves};
use examples::progress::Progress;
use examples::report::{self, Spread, milliseconds, percent, table};
use kd_bench::latency::{Latency, measure};
use kd_core::batch::{Batch, Batches};
use kd_core::metrics::accuracy;
use kd_core::model::{Mode, Output, Student};
use kd_core::objective::{CrfTarget, Distillation};
use kd_core::optim::AdamWConfig;
use kd_core::schedule::Schedule;
use kd_core::trainer::{Evaluation, Outcome, Trainer, TrainerConfig};
use kd_core::variables::Variables;
use kd_data::batches::{BatchPlan, collate_labels, restore, sequential};
use kd_data::encode::{Encode, EncodedTexts, WordPieces};
use kd_data::example::Utterance;
use kd_data::sample::draw_per_class;
use kd_data::snips::read_snips;
use kd_data::tags::Classes;
use kd_data::teacher_outputs::TeacherOutputs;
use kd_data::vocabulary::Vocabulary;
use kd_students::bundle::{self, Bundle, BundleOptions, Description, StudentConfig};
use kd_students::classifier::{Classifier, ClassifierConfig};
use kd_students::encoder::WordEncoderConfig;
use kd_students::lookup::{Kind, Lookup};
use kd_teachers::heads::{HeadOptions, SequenceClassifier};
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
    #[arg(long, default_value_t = 2000)]
    unlabelled: usize,
    /// Number of draws; their seeds are 1, 2, ...
    #[arg(long, default_value_t = 3)]
    seeds: u64,
    /// Updates of the teacher
    #[arg(long, default_value_t = 60)]
    teacher_steps: usize,
    /// Updates of each student
    #[arg(long, default_value_t = 400)]
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

/// Utterances of a step; in the distilled student's, `GOLD_IN_BATCH` of them are labelled by hand.
const BATCH: usize = 16;
const GOLD_IN_BATCH: usize = 4;
/// Longest utterance in word pieces; SNIPS has none as long.
const MAX_PIECES: usize = 128;
/// Classified at the end.
const SENTENCES: [&str; 3] = [
    "will it rain in lisbon this weekend",
    "add this song to my running playlist",
    "book a table for two near the station",
];

/// Three parts of SNIPS and their intents.
struct Data {
    train: Vec<Utterance>,
    dev: Vec<Utterance>,
    test: Vec<Utterance>,
    classes: Classes,
}

impl Data {
    fn read(folder: &Path) -> Result<Self> {
        let read = |part: &str| Ok::<_, kd_data::Error>(read_snips(folder.join(part))?.examples);
        let train = read("train")?;
        let classes = Classes::from_names(train.iter().map(|utterance| utterance.intent.as_str()))?;
        Ok(Self { dev: read("valid")?, test: read("test")?, train, classes })
    }

    fn labels(&self, utterances: &[Utterance]) -> Result<Vec<u32>> {
        let label = |utterance: &Utterance| match self.classes.index(&utterance.intent) {
            Some(label) => Ok(label),
            None => bail!("expected one of the intents {:?}, found `{}`", self.classes.names(), utterance.intent),
        };
        utterances.iter().map(label).collect()
    }
}

/// One draw: labelled utterances first, then unlabelled ones, and a dev sample as large as the labelled part.
struct Draw {
    utterances: Vec<Utterance>,
    labelled: usize,
    dev: Vec<Utterance>,
}

impl Draw {
    fn new(data: &Data, args: &Args, seed: u64) -> Result<Self> {
        let (labelled, rest) = draw_per_class(&data.labels(&data.train)?, args.per_class, seed)?;
        let (dev, _) = draw_per_class(&data.labels(&data.dev)?, args.per_class, seed)?;
        let chosen = labelled.iter().chain(rest.iter().take(args.unlabelled));
        Ok(Self {
            utterances: chosen.map(|&id| data.train[id].clone()).collect(),
            labelled: labelled.len(),
            dev: dev.into_iter().map(|id| data.dev[id].clone()).collect(),
        })
    }
}

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

    let names = ["teacher", "gold", "distilled"];
    let mut accuracies: [Vec<f64>; 3] = Default::default();
    let mut evaluations: [Vec<Vec<Evaluation>>; 2] = Default::default();
    let mut latencies = None;
    let student_folder = args.out.join("student");
    let mut parameters = [0; 2];
    for seed in 1..=args.seeds {
        let draw = Draw::new(&data, &args, seed)?;
        let teacher = Teacher::fine_tune(&data, &draw, &files, &args, seed, &device)?;
        accuracies[0].push(teacher.accuracy(&data)?);
        let outputs = teacher.ask(&draw.utterances)?;
        let lookup = lookup(&draw)?;
        for (idx, is_distilled) in [false, true].into_iter().enumerate() {
            let student = Pupil::train(&data, &draw, &outputs, &lookup, is_distilled, &args, seed, &device)?;
            accuracies[1 + idx].push(student.accuracy(&data, &data.test)?);
            evaluations[idx].push(student.evaluations.clone());
            if is_distilled && seed == 1 {
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

/// The fine-tuned encoder.
struct Teacher {
    classifier: SequenceClassifier,
    variables: Variables,
    pieces: WordPieces,
    device: Device,
}

impl Teacher {
    fn fine_tune(
        data: &Data,
        draw: &Draw,
        files: &ModelFiles,
        args: &Args,
        seed: u64,
        device: &Device,
    ) -> Result<Self> {
        let options = HeadOptions::default();
        let (classifier, variables) =
            SequenceClassifier::from_files(files, data.classes.names(), seed, device, &options)?;
        let pieces = WordPieces::from_file(&files.tokenizer)?;
        pieces.check_vocabulary(classifier.encoder().config().vocabulary)?;
        let labelled = &draw.utterances[..draw.labelled];
        let labels = one_row_each(&data.labels(labelled)?);
        let encoded = EncodedTexts::new(&pieces, labelled.iter().map(Utterance::text), MAX_PIECES, device)?;
        let plan = BatchPlan::new(encoded.lengths().to_vec(), 8, seed, 1)?;
        let batches = |step: usize| {
            let examples = plan.indices(step);
            let labels = collate_labels(&labels, &examples, device)?;
            Ok(batch(encoded.collate(&examples)?, labels, vec![], examples))
        };
        let config = TrainerConfig {
            steps: args.teacher_steps,
            optimizer: AdamWConfig::with_lr(2e-4),
            schedule: Schedule::WarmupLinear { warmup: args.teacher_steps / 10, total: args.teacher_steps },
            clip_norm: Some(1.0),
            evaluate_every: args.teacher_steps,
            patience: None,
            checkpoint_every: args.teacher_steps,
            seed,
        };
        let mut trainer = Trainer::new(&classifier, &variables, &Distillation::LABELS_ONLY, config)?;
        fit(&mut trainer, "teacher", args.teacher_steps, &batches, None)?;
        Ok(Self { classifier, variables, pieces, device: device.clone() })
    }

    fn ask(&self, utterances: &[Utterance]) -> Result<TeacherOutputs> {
        let texts = utterances.iter().map(Utterance::text);
        let encoded = EncodedTexts::new(&self.pieces, texts, MAX_PIECES, &self.device)?;
        let mut outputs = TeacherOutputs::new(self.classifier.classes().to_vec(), "in memory".to_string())?;
        let mut progress = Progress::new("teacher's outputs", utterances.len(), 0, "utterances");
        for examples in sequential(encoded.lengths(), 1024) {
            interrupt::check()?;
            let output = self.classifier.forward(&encoded.collate(&examples)?, Mode::Eval)?.detach();
            outputs.append(&examples, &vec![1; examples.len()], output.logits()?)?;
            progress.set(outputs.len(), "");
        }
        Ok(outputs)
    }

    fn accuracy(&self, data: &Data) -> Result<f64> {
        let outputs = self.ask(&data.test)?;
        let predicted = (0..data.test.len()).map(|id| Ok(outputs.labels(id, data.classes.names())?[0]));
        Ok(accuracy(&predicted.collect::<Result<Vec<_>>>()?, &data.labels(&data.test)?))
    }
}

/// A student in training: words and characters, BiLSTM, maximum and mean.
struct Pupil {
    classifier: Classifier,
    config: ClassifierConfig,
    variables: Variables,
    lookup: Lookup,
    evaluations: Vec<Evaluation>,
    device: Device,
}

/// The words and characters of the training text, labelled or not.
fn lookup(draw: &Draw) -> Result<Lookup> {
    let words = Vocabulary::words(&draw.utterances);
    let characters = Vocabulary::characters(&draw.utterances);
    let characters = characters.symbols().iter().flat_map(|symbol| symbol.chars()).collect();
    Ok(Lookup::new(words.symbols().to_vec(), characters, true, WordEncoderConfig::compact(2, 2).max_chars)?)
}

impl Pupil {
    #[expect(clippy::too_many_arguments, reason = "each is one part of the experiment")]
    fn train(
        data: &Data,
        draw: &Draw,
        outputs: &TeacherOutputs,
        lookup: &Lookup,
        is_distilled: bool,
        args: &Args,
        seed: u64,
        device: &Device,
    ) -> Result<Self> {
        let sizes = WordEncoderConfig::compact(lookup.word_rows(), lookup.character_rows());
        let config =
            ClassifierConfig { encoder: WordEncoderConfig { word_width: 64, filters: 32, layers: 1, ..sizes } };
        let variables = Variables::new(seed, DType::F32, device);
        let classifier = Classifier::new(&config, data.classes.len(), variables.builder())?;
        let pupil = Self {
            classifier,
            config,
            variables,
            lookup: lookup.clone(),
            evaluations: Vec::new(),
            device: device.clone(),
        };

        // Gold labels, then the teacher's most likely class.
        let mut labels = one_row_each(&data.labels(&draw.utterances[..draw.labelled])?);
        for id in draw.labelled..draw.utterances.len() {
            labels.push(outputs.labels(id, data.classes.names())?);
        }
        let lengths: Vec<usize> = draw.utterances.iter().map(|utterance| utterance.sentence.words.len()).collect();
        let (gold, rest) = lengths.split_at(draw.labelled);
        let gold_in_batch = if is_distilled { GOLD_IN_BATCH } else { BATCH };
        let gold_plan = BatchPlan::new(gold.to_vec(), gold_in_batch, seed, 1)?;
        let rest_plan = BatchPlan::new(rest.to_vec(), BATCH - GOLD_IN_BATCH, seed, 1)?;
        let batches = |step: usize| {
            let mut examples = gold_plan.indices(step);
            if is_distilled {
                examples.extend(rest_plan.indices(step).iter().map(|id| draw.labelled + id));
            }
            let texts: Vec<Vec<String>> =
                examples.iter().map(|&id| draw.utterances[id].sentence.words.clone()).collect();
            let logits = outputs.collate(&examples, data.classes.names(), device)?;
            let labels = collate_labels(&labels, &examples, device)?;
            let tokens = lookup.tokens(&texts, Kind::Examples, device)?;
            Ok(batch(tokens, labels, vec![Output::from_logits(logits)], examples))
        };
        let weights = if is_distilled { (0.5, 0.5) } else { (1.0, 0.0) };
        let objective =
            Distillation { hard: weights.0, soft: weights.1, temperature: 1.0, crf_target: CrfTarget::Emissions };
        let config = TrainerConfig {
            steps: args.steps,
            optimizer: AdamWConfig { weight_decay: 0.0, ..AdamWConfig::with_lr(1e-3) },
            schedule: Schedule::Constant,
            clip_norm: Some(5.0),
            evaluate_every: (args.steps / 8).max(1),
            patience: None,
            checkpoint_every: args.steps,
            seed,
        };
        let mut trainer = Trainer::new(&pupil.classifier, &pupil.variables, &objective, config)?;
        let mut evaluate = || pupil.accuracy(data, &draw.dev).map_err(|error| candle_core::Error::msg(error).into());
        let name = if is_distilled { "distilled student" } else { "gold-only student" };
        fit(&mut trainer, name, args.steps, &batches, Some(&mut evaluate))?;
        let evaluations = trainer.evaluations().to_vec();
        Ok(Self { evaluations, ..pupil })
    }

    fn accuracy(&self, data: &Data, utterances: &[Utterance]) -> Result<f64> {
        let lengths: Vec<usize> = utterances.iter().map(|utterance| utterance.sentence.words.len()).collect();
        let batches = sequential(&lengths, 2048);
        let mut results = Vec::new();
        for batch in &batches {
            let texts: Vec<Vec<String>> = batch.iter().map(|&id| utterances[id].sentence.words.clone()).collect();
            let tokens = self.lookup.tokens(&texts, Kind::Examples, &self.device)?;
            let logits = self.classifier.forward(&tokens, Mode::Eval)?.detach();
            results.push(logits.logits()?.argmax(1)?.to_vec1::<u32>()?);
        }
        Ok(accuracy(&restore(&batches, results), &data.labels(utterances)?))
    }

    fn save(&self, data: &Data, folder: &Path) -> Result<()> {
        let description = Description {
            student: StudentConfig::Classifier(self.config.clone()),
            classes: data.classes.names().to_vec(),
            words: self.lookup.words().to_vec(),
            characters: self.lookup.characters().to_vec(),
            lower_case: true,
        };
        bundle::save(folder, &description, &self.variables, BundleOptions::default())?;
        Ok(())
    }
}

fn one_row_each(labels: &[u32]) -> Vec<Vec<u32>> {
    labels.iter().map(|&label| vec![label]).collect()
}

fn batch(
    tokens: kd_core::batch::Tokens,
    labels: candle_core::Tensor,
    teachers: Vec<Output>,
    examples: Vec<usize>,
) -> Batch {
    Batch { tokens, labels: Some(labels), teachers, weights: None, task: 0, examples }
}

fn fit(
    trainer: &mut Trainer<'_>,
    name: &str,
    steps: usize,
    batches: &dyn Batches,
    evaluate: Option<&mut dyn FnMut() -> kd_core::Result<f64>>,
) -> Result<()> {
    let mut progress = Progress::new(name, steps, 0, "steps");
    match trainer.fit(batches, evaluate, &mut progress)? {
        Outcome::Finished => Ok(()),
        Outcome::Interrupted => bail!(Interrupted),
    }
}

/// From text to logits at 1 and 32 utterances of test.
fn time(teacher: &Teacher, student: &Bundle, data: &Data) -> Result<[Vec<BatchLatency>; 2]> {
    let mut latencies: [Vec<BatchLatency>; 2] = Default::default();
    for batch in [1, 32] {
        let utterances = &data.test[..batch];
        let words: Vec<Vec<String>> = utterances.iter().map(|utterance| utterance.sentence.words.clone()).collect();
        let ask = || teacher.ask_quietly(utterances);
        let classify = || student.classify(&words).map(drop).map_err(candle_core::Error::wrap);
        for (of, latency) in latencies.iter_mut().zip([measure(ask, 2, 20)?, measure(classify, 5, 200)?]) {
            of.push(BatchLatency { batch, utterances_per_second: 1e3 * batch as f64 / latency.p50_ms, latency });
        }
    }
    Ok(latencies)
}

impl Teacher {
    fn ask_quietly(&self, utterances: &[Utterance]) -> candle_core::Result<()> {
        let texts = utterances.iter().map(Utterance::text);
        let encoded =
            EncodedTexts::new(&self.pieces, texts, MAX_PIECES, &self.device).map_err(candle_core::Error::wrap)?;
        let tokens = encoded.collate(&(0..utterances.len()).collect::<Vec<_>>())?;
        self.classifier.forward(&tokens, Mode::Eval)?.logits()?.to_vec2::<f32>().map(drop)
    }
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
    curves(path, Titles { title: "Accuracy on the dev sample", x: "updates", y: "accuracy" }, &curves_of)
}
