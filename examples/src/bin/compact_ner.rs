//! Compact models for low-resource entity tagging (Izsak, Guskin and Wasserblat 2019): a pretrained encoder is fine-tuned on
//! few labelled sentences, labels many more, and a BiLSTM tagger learns from both.
//!
//! ```sh
//! cargo run --release --bin compact_ner -- --train eng.train --dev eng.testa --test eng.testb \
//!     --teacher intfloat/e5-small --vectors glove.6B.100d.txt --labels 150,300 --seeds 5 --out out/conll
//! cargo run --release --bin compact_ner -- ... --student examples/models/word_tagger.json   # a network from a file
//! cargo run --release --bin compact_ner -- predict --model out/conll/student < text.txt
//! ```
//!
//! Draws labelled sentences by seed, fine-tunes the teacher on them, asks it once about all sentences, and trains the
//! student four ways with the same updates and the same choice of the best step: gold labels alone, + distillation,
//! + pseudo-labels, + both. Prints F1 on all of test, sizes and latencies, and keeps `report.json`, `f1-by-labels.svg` and
//!   `student/` in `--out`. Started again with the same `--out`, it goes on where it was.

use std::path::PathBuf;

use anyhow::{Context, Result, bail};
use clap::Parser;
use examples::device::DeviceChoice;
use examples::model_files;
use examples::neuronblocks::model;
use examples::plot::{Scale, Titles, curves};
use examples::predict::{self, PredictArgs};
use examples::report;
use examples::tagging::{
    self, Classroom, Column, Data, Draw, Folder, Pretrained, Report, StudentSettings, Tag, TeacherSettings, Trained,
    Way, ask, measure,
};
use kd_core::objective::CrfTarget;
use kd_data::glove::{Vectors, read_vectors};
use kd_students::bundle::Bundle;
use kd_students::tagger::Head;

/// Distil a pretrained encoder into a compact entity tagger, with few labelled sentences.
#[derive(Debug, Parser)]
#[command(version, args_conflicts_with_subcommands = true, subcommand_negates_reqs = true, args_override_self = true)]
struct Args {
    #[command(subcommand)]
    command: Option<Command>,
    /// CoNLL column file to draw labelled and unlabelled sentences from
    #[arg(long, required = true)]
    train: Option<PathBuf>,
    /// CoNLL column file; a sample as large as the labelled set chooses the best step, all of it is reported
    #[arg(long, required = true)]
    dev: Option<PathBuf>,
    /// CoNLL column file that is reported
    #[arg(long, required = true)]
    test: Option<PathBuf>,
    /// Encoder to fine-tune: a hub id (found in the hub's cache, or downloaded) or a folder
    #[arg(long, default_value = "intfloat/e5-small")]
    teacher: String,
    /// Revision of the hub id
    #[arg(long, default_value = "main")]
    revision: String,
    /// Allow pickled weights (pytorch_model.bin) where the model has no others
    #[arg(long)]
    pickle: bool,
    /// FILE.json: a tagger in NeuronBlocks' format (examples/models/word_tagger.json) in place of the student of the paper. Its
    /// architecture, columns and vocabulary count, over the words of the training text, labelled or not; its losses, distillation,
    /// metrics, optimiser, batches and epochs are not read
    #[arg(long)]
    student: Option<PathBuf>,
    /// Word vectors in GloVe's text format, of width 100 or that of the table in --student; random without, or those of the
    /// file's `pre_trained_emb`
    #[arg(long)]
    vectors: Option<PathBuf>,
    /// Words, the first of --vectors, that the student knows besides those of its training text; 100 parameters each
    #[arg(long, default_value_t = 100_000)]
    vector_rows: usize,
    /// Labelled sentences, several separated by commas: 150, 300, ... or all
    #[arg(long, value_delimiter = ',', default_value = "150,300,750,1500,3000", value_parser = parse_count)]
    labels: Vec<Count>,
    /// Unlabelled sentences that the teacher labels: a number, or all
    #[arg(long, default_value = "all", value_parser = parse_count)]
    unlabelled: Count,
    /// Number of draws; their seeds are 1, 2, ...
    #[arg(long, default_value_t = 5)]
    seeds: u64,
    /// Output layer of the student, softmax without it; a network of --student has its own
    #[arg(long, value_enum, conflicts_with = "student")]
    head: Option<HeadChoice>,
    /// What is distilled into a CRF
    #[arg(long, value_enum, default_value_t = TargetChoice::Marginals)]
    crf_target: TargetChoice,
    /// Peak learning rate of the teacher
    #[arg(long, default_value_t = 5e-5)]
    teacher_lr: f64,
    /// Updates of the teacher; by default 500 for 150 sentences, growing with the root of their number
    #[arg(long)]
    teacher_steps: Option<usize>,
    /// Updates of every student
    #[arg(long, default_value_t = 1200)]
    steps: usize,
    /// Steps between evaluations on the small dev sample; the best is kept
    #[arg(long, default_value_t = 100)]
    evaluate_every: usize,
    /// Stop after that many evaluations without a better one
    #[arg(long)]
    patience: Option<usize>,
    /// Weight of the labels against the teacher's distribution, which weighs 1 minus this
    #[arg(long, default_value_t = 0.5)]
    alpha: f64,
    /// Temperature of both distributions
    #[arg(long, default_value_t = 1.0)]
    temperature: f64,
    /// Steps between checkpoints
    #[arg(long, default_value_t = 200)]
    checkpoint_every: usize,
    /// Folder for results, checkpoints and the student
    #[arg(long, default_value = "out/compact_ner")]
    out: PathBuf,
    /// auto, cpu, cuda or cuda:N
    #[arg(long, default_value = "auto")]
    device: DeviceChoice,
    /// Seconds for each latency (model and batch size); 0 measures none
    #[arg(long, default_value_t = 10.0)]
    latency_seconds: f64,
}

#[derive(Debug, clap::Subcommand)]
enum Command {
    /// Tag text with a saved student
    Predict(PredictArgs),
}

/// A number, or all.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
struct Count(Option<usize>);

fn parse_count(text: &str) -> Result<Count, String> {
    match text {
        "all" => Ok(Count(None)),
        _ => text.parse().map(|n| Count(Some(n))).map_err(|_| format!("expected a number or all, found `{text}`")),
    }
}

#[derive(Debug, Clone, Copy, clap::ValueEnum)]
enum HeadChoice {
    Softmax,
    Crf,
}

#[derive(Debug, Clone, Copy, clap::ValueEnum)]
enum TargetChoice {
    Emissions,
    Marginals,
}

fn main() -> Result<()> {
    examples::start()?;
    let args = Args::parse();
    match &args.command {
        Some(Command::Predict(args)) => predict::run(args),
        None => train(&args),
    }
}

fn train(args: &Args) -> Result<()> {
    let path = |path: &Option<PathBuf>| path.clone().context("--train, --dev and --test are needed");
    let data = Data::read(&path(&args.train)?, &path(&args.dev)?, &path(&args.test)?)?;
    let device = args.device.open()?;
    let pretrained = Pretrained::open(model_files::find(&args.teacher, &args.revision, args.pickle)?)?;
    let design = args.student.as_deref().map(|path| tagging::open(path, &data.classes)).transpose()?;
    let (vectors, vector_rows) = match &design {
        None => (args.vectors.as_ref().map(|path| read_wanted(path, &data, args.vector_rows)).transpose()?, None),
        Some(design) => tagging::vectors(design, args.vectors.as_deref(), args.vector_rows, &data)?.unzip(),
    };
    let teacher = TeacherSettings {
        model: args.teacher.clone(),
        lr: args.teacher_lr,
        batch_size: 8,
        steps: args.teacher_steps,
        clip_norm: 1.0,
    };
    let student = StudentSettings {
        head: match args.head {
            None | Some(HeadChoice::Softmax) => Head::Softmax,
            Some(HeadChoice::Crf) => Head::Crf,
        },
        crf_target: match args.crf_target {
            TargetChoice::Emissions => CrfTarget::Emissions,
            TargetChoice::Marginals => CrfTarget::Marginals,
        },
        lr: 1e-3,
        batch_size: 16,
        steps: args.steps,
        evaluate_every: args.evaluate_every,
        patience: args.patience,
        clip_norm: 5.0,
        alpha: args.alpha,
        temperature: args.temperature,
        vector_rows: vector_rows.unwrap_or(args.vector_rows),
        min_count: 3,
    };
    let file =
        |path: &Option<PathBuf>| path.as_ref().and_then(|path| Some(path.file_name()?.to_string_lossy().into_owned()));
    let mut settings = serde_json::json!({
        "train": file(&args.train), "dev": file(&args.dev), "test": file(&args.test), "vectors": file(&args.vectors),
        "unlabelled": args.unlabelled.0, "teacher": teacher, "student": student,
    });
    if let Some(design) = &design {
        settings["network"] = design.describe()?;
        let own = design.configuration.inputs.paths.pre_trained_emb.clone();
        settings["vectors"] = serde_json::json!(file(&args.vectors.clone().or(own)));
        // The file says these.
        if let Some(student) = settings["student"].as_object_mut() {
            student.retain(|key, _| !["head", "min_count"].contains(&key.as_str()));
        }
    }
    let folder = |path: PathBuf| Folder { path, checkpoint_every: args.checkpoint_every };
    folder(args.out.clone()).claim(&settings)?;

    let mut columns = Vec::new();
    for &Count(labels) in &args.labels {
        let mut column = Column { labels: labels.unwrap_or(data.train.len()), ..Column::default() };
        for seed in 1..=args.seeds {
            eprintln!("== {} labelled sentences, seed {seed}", column.labels);
            let folder = folder(args.out.join(format!("labels-{}/seed-{seed}", column.labels)));
            let draw = Draw::new(&data, labels, args.unlabelled.0, seed)?;
            let (outputs, scores) = ask(&draw, &data.classes, &pretrained, &teacher, seed, &device, &folder)?;
            let room = Classroom {
                draw: &draw,
                classes: &data.classes,
                outputs: &outputs,
                vectors: vectors.as_ref(),
                design: design.as_ref(),
                settings: &student,
                seed,
                device: &device,
            };
            column.teacher.push(scores);
            column.students.push(Way::ALL.iter().map(|&way| room.train(way, &folder)).collect::<Result<_>>()?);
        }
        columns.push(column);
    }

    // The student to deploy: both ways, the largest labelled set, the draw that did best on its own small dev sample.
    let last = columns.last().context("no labels")?;
    let both = |students: &Vec<Trained>| students.last().and_then(|both| both.scores.small_dev_f1).unwrap_or(0.0);
    let best = (0..last.students.len()).max_by(|&a, &b| both(&last.students[a]).total_cmp(&both(&last.students[b])));
    let best =
        format!("labels-{}/seed-{}/both", last.labels, best.context("--seeds: expected at least 1, found 0")? + 1);
    let (from, to) = (args.out.join(&best), args.out.join("student"));
    let kept: Box<dyn Tag> = if design.is_some() {
        model::copy(&from, &to)?;
        tagging::load(&to, &device)?
    } else {
        kd_students::bundle::copy(&from, &to)?;
        Box::new(Bundle::load(&to, &device)?)
    };
    let speeds = match args.latency_seconds {
        seconds if seconds > 0.0 => Some(measure(&data, &*kept, &pretrained, &device, seconds)?),
        _ => None,
    };
    let report = Report::new(&settings, &columns, best, speeds);
    report::save(&args.out.join("report.json"), &report)?;
    let titles = Titles {
        title: "Entity F1 on test by labelled sentences",
        x: "labelled sentences",
        y: "F1",
        scale: Scale::Logarithmic,
    };
    curves(&args.out.join("f1-by-labels.svg"), titles, &report.curves())?;
    report.print();
    println!("\nkept in {}: report.json, f1-by-labels.svg, student/", args.out.display());
    Ok(())
}

/// The vectors of the words of the training file, and the commonest of all.
fn read_wanted(path: &std::path::Path, data: &Data, rows: usize) -> Result<Vectors> {
    let words: std::collections::HashSet<String> =
        data.train.examples.iter().flat_map(|sentence| &sentence.words).map(|word| word.to_lowercase()).collect();
    let mut place = 0;
    let vectors = read_vectors(path, |word| {
        place += 1;
        place <= rows || words.contains(word)
    })?;
    if vectors.width != 100 {
        bail!("{}: expected vectors of width 100, found {}", path.display(), vectors.width);
    }
    Ok(vectors)
}
