//! What the store of teachers' outputs is worth: an epoch of distillation with it against the same epoch with the
//! teachers called live, and how fast it is filled.
//!
//! ```sh
//! cargo run --release --bin store_speed -- --teacher out/a --teacher out/b --teacher out/c \
//!     --student sentence-transformers/paraphrase-MiniLM-L3-v2 --task mrpc --data glue/MRPC/train.tsv --json speed.json
//! ```
//!
//! Two students start from the same weights and see the same batches; each step of one is followed by the same step of
//! the other, so that a busy machine slows both. The loss is the mean over the teachers of the Kullback-Leibler
//! divergence at temperature 2. Live, every teacher reads the batch in pieces of its own, with packed f32 layers on the
//! CPU, and no graph. Filling is measured with batches of similar lengths, as `kd-label` does it, and with batches in
//! the file's order that are padded to `--max-len`; both write to a store on the disk.

use std::path::PathBuf;
use std::time::Instant;

use anyhow::{Context, Result, bail};
use candle_core::Device;
use clap::Parser;
use examples::device::DeviceChoice;
use examples::interrupt;
use examples::labelling::{AskedTeacher, Compute, Keep, Share, contents, label, padded_to, read};
use examples::report;
use kd_core::batch::Batch;
use kd_core::losses::kl_divergence;
use kd_core::model::{Output, match_classes};
use kd_core::objective::Loss;
use kd_core::optim::AdamWConfig;
use kd_core::trainer::{Trainer, TrainerConfig};
use kd_data::batches::{BatchPlan, DEFAULT_POOL};
use kd_data::columns::Columns;
use kd_data::encode::{Encode, EncodedTexts, WordPieces};
use kd_data::task::Task;
use kd_data::teacher_outputs::{Content, Store, TeacherOutputs, TeacherRows};
use kd_teachers::heads::{HeadOptions, SequenceClassifier};
use kd_teachers::hub::{HubEnvironment, ModelFiles};
use serde::Serialize;

/// Temperature of the divergence.
const TEMPERATURE: f64 = 2.0;

/// Measure distillation from the store against live teachers.
#[derive(Debug, Parser)]
#[command(version, args_override_self = true)]
struct Args {
    /// Fine-tuned classifier: a folder or a hub id; given several times
    #[arg(long, required = true)]
    teacher: Vec<String>,
    /// Encoder of the student: a folder or a hub id
    #[arg(long)]
    student: String,
    /// Use only the student's first so many layers
    #[arg(long)]
    layers: Option<usize>,
    /// A task's name; without it, tables with columns
    #[arg(long)]
    task: Option<String>,
    /// Column of the text
    #[arg(long, default_value = "text")]
    text: String,
    /// Column of the second text of a pair
    #[arg(long)]
    second: Option<String>,
    /// A file of examples
    #[arg(long)]
    data: PathBuf,
    /// The first so many examples
    #[arg(long, default_value_t = 1024)]
    limit: usize,
    /// Examples a step
    #[arg(long, default_value_t = 32)]
    batch_size: usize,
    /// Longest sequence, in word pieces
    #[arg(long, default_value_t = 128)]
    max_len: usize,
    /// Most tokens of a batch that fills the store, padding included
    #[arg(long, default_value_t = 4096)]
    batch_tokens: usize,
    /// f32, bf16 or int8 (CPU), for the teachers
    #[arg(long, default_value = "f32")]
    compute: Compute,
    /// Seed of the student's head, of the batches and of dropout
    #[arg(long, default_value_t = 1)]
    seed: u64,
    /// auto, cpu, cuda or cuda:N
    #[arg(long, default_value = "auto")]
    device: DeviceChoice,
    /// Write the numbers here too
    #[arg(long)]
    json: Option<PathBuf>,
}

/// What was measured.
#[derive(Debug, Serialize)]
struct Measured {
    examples: usize,
    batch_size: usize,
    max_len: usize,
    steps: usize,
    filling: Vec<Filling>,
    /// Seconds of all steps, teachers and loading included.
    live_seconds: f64,
    stored_seconds: f64,
    /// Of the seconds of the stored epoch, those that reading the store took.
    reading_seconds: f64,
    ratio: f64,
    /// Mean loss over the steps of each; they differ by rounding.
    live_loss: f64,
    stored_loss: f64,
}

/// How fast a teacher fills the store, in examples a second: encoding, teacher and disk.
#[derive(Debug, Serialize)]
struct Filling {
    teacher: String,
    similar_lengths: f64,
    padded: f64,
    ratio: f64,
}

fn main() -> Result<()> {
    examples::start()?;
    let args = Args::parse();
    let device = args.device.open()?;
    let environment = HubEnvironment::from_env()?;
    let task = match &args.task {
        Some(name) => Task::named(name)?,
        None => Task::of_columns("columns", Columns { second: args.second.clone(), ..Columns::text(&args.text) }),
    };
    let files = read(&task, &[&args.data], Share::ALL)?;
    let mut all = contents(&files);
    all.truncate(args.limit);
    let mut seen = std::collections::HashSet::new();
    all.retain(|example| seen.insert(example.digest())); // filling asks once for each
    let teachers = args
        .teacher
        .iter()
        .map(|id| {
            let files = ModelFiles::find(id, "main", &environment)?;
            AskedTeacher::load(&files, Some(args.max_len), args.compute, &Keep::default(), &device)
        })
        .collect::<Result<Vec<_>>>()?;
    let classes = teachers.first().context("--teacher: expected at least one, found none")?.about().classes.clone();

    let folder = tempfile::tempdir()?;
    let mut filling = Vec::new();
    let mut rows = Vec::new();
    for (idx, teacher) in teachers.iter().enumerate() {
        match_classes(&teacher.about().classes, &classes)?;
        let store = |way: &str| Store::open(folder.path().join(format!("{idx}-{way}")));
        teacher.ask(&teacher.encode(&all[..all.len().min(8)])?.collate(&[0])?)?; // wakes threads and caches
        let mut outputs = store("similar")?.teacher(teacher.about())?;
        let similar_lengths = rate(all.len(), || label(teacher, &all, args.batch_tokens, &mut outputs).map(drop))?;
        let mut other = store("padded")?.teacher(teacher.about())?;
        let padded = rate(all.len(), || label_padded(teacher, &all, &args, &mut other))?;
        let ratio = similar_lengths / padded;
        filling.push(Filling { teacher: teacher.about().model.clone(), similar_lengths, padded, ratio });
        rows.push(outputs.join(all.iter().copied())?);
    }
    let measured = epochs(&args, &teachers, &rows, &all, &classes, filling, &environment, &device)?;
    print(&measured);
    if let Some(path) = &args.json {
        report::save(path, &measured)?;
    }
    Ok(())
}

/// Examples a second.
fn rate(examples: usize, fill: impl FnOnce() -> Result<()>) -> Result<f64> {
    let start = Instant::now();
    fill()?;
    Ok(examples as f64 / start.elapsed().as_secs_f64())
}

/// In the order of the file, every text padded to the longest there may be.
fn label_padded(teacher: &AskedTeacher, all: &[Content<'_>], args: &Args, outputs: &mut TeacherOutputs) -> Result<()> {
    let encoded = teacher.encode(all)?;
    let ids: Vec<usize> = (0..all.len()).collect();
    for batch in ids.chunks((args.batch_tokens / args.max_len).max(1)) {
        interrupt::check()?;
        let tokens = padded_to(&encoded.collate(batch)?, args.max_len)?;
        let contents: Vec<Content<'_>> = batch.iter().map(|&id| all[id]).collect();
        outputs.append_output(&contents, &tokens, &teacher.ask(&tokens)?)?;
    }
    Ok(outputs.flush()?)
}

/// One epoch each way, step by step in turns.
#[expect(clippy::too_many_arguments, reason = "the second half of `main`, cut off for reading")]
fn epochs(
    args: &Args,
    teachers: &[AskedTeacher],
    rows: &[TeacherRows],
    all: &[Content<'_>],
    classes: &[String],
    filling: Vec<Filling>,
    environment: &HubEnvironment,
    device: &Device,
) -> Result<Measured> {
    let files = ModelFiles::find(&args.student, "main", environment)?;
    let options = HeadOptions { layers: args.layers, ..HeadOptions::default() };
    let student = || SequenceClassifier::from_files(&files, classes, args.seed, device, &options);
    let (live_student, live_variables) = student()?;
    let (stored_student, stored_variables) = student()?;
    let encoded = student_texts(&WordPieces::from_file(&files.tokenizer)?, all, args.max_len, device)?;
    // The teachers' texts are encoded before the clock starts, as a loop that trains more than an epoch does it.
    let read = teachers.iter().map(|teacher| teacher.encode(all)).collect::<Result<Vec<_>>>()?;
    let columns = teachers
        .iter()
        .map(|teacher| match_classes(&teacher.about().classes, classes))
        .collect::<candle_core::Result<Vec<_>>>()?;

    let objective = |output: &Output, batch: &Batch, _step: usize| -> candle_core::Result<Loss> {
        let mut sum = None;
        for teacher in 0..batch.teachers.len() {
            let loss = kl_divergence(output.logits()?, batch.teacher_logits(teacher)?, TEMPERATURE)?;
            sum = Some(match sum {
                None => loss,
                Some(sum) => (sum + loss)?,
            });
        }
        match sum {
            Some(sum) => Ok(Loss::of((sum / batch.teachers.len() as f64)?)),
            None => candle_core::bail!("the batch has no teachers"),
        }
    };
    let plan = BatchPlan::new(encoded.lengths().to_vec(), args.batch_size, args.seed, DEFAULT_POOL)?;
    let steps = plan.steps_per_epoch();
    let config = || TrainerConfig { seed: args.seed, ..TrainerConfig::new(steps, AdamWConfig::with_lr(5e-5)) };
    let mut live = Trainer::new(&live_student, &live_variables, &objective, config())?;
    let mut stored = Trainer::new(&stored_student, &stored_variables, &objective, config())?;
    let batch = |examples: &[usize], teachers: Vec<Output>| -> Result<Batch> {
        let (tokens, examples) = (encoded.collate(examples)?, examples.to_vec());
        Ok(Batch { tokens, labels: None, targets: vec![], teachers, weights: None, task: 0, examples })
    };
    let ask = |examples: &[usize]| -> Result<Vec<Output>> {
        let of_teacher = |idx: usize| {
            let logits = teachers[idx].ask(&read[idx].collate(examples)?)?.logits()?.clone();
            let columns: Vec<u32> = columns[idx].iter().map(|&column| column as u32).collect();
            let columns = candle_core::Tensor::new(columns, device)?;
            Ok(Output::from_logits(logits.index_select(&columns, 1)?))
        };
        (0..teachers.len()).map(of_teacher).collect()
    };
    let (mut live_seconds, mut stored_seconds, mut reading_seconds) = (0.0, 0.0, 0.0);
    let (mut live_loss, mut stored_loss) = (0.0, 0.0);
    for step in 0..steps {
        interrupt::check()?;
        let examples = plan.indices(step);
        let start = Instant::now();
        live_loss += live.step(&batch(&examples, ask(&examples)?)?)?.loss;
        live_seconds += start.elapsed().as_secs_f64();

        let start = Instant::now();
        let teachers = rows.iter().map(|rows| rows.collate(&examples, classes, device));
        let teachers = teachers.collect::<candle_core::Result<Vec<_>>>()?;
        reading_seconds += start.elapsed().as_secs_f64();
        stored_loss += stored.step(&batch(&examples, teachers)?)?.loss;
        stored_seconds += start.elapsed().as_secs_f64();
    }
    Ok(Measured {
        examples: all.len(),
        batch_size: args.batch_size,
        max_len: args.max_len,
        steps,
        filling,
        live_seconds,
        stored_seconds,
        reading_seconds,
        ratio: live_seconds / stored_seconds,
        live_loss: live_loss / steps as f64,
        stored_loss: stored_loss / steps as f64,
    })
}

/// Texts or pairs in the student's pieces.
fn student_texts(pieces: &WordPieces, all: &[Content<'_>], max_len: usize, device: &Device) -> Result<EncodedTexts> {
    let (mut texts, mut pairs) = (Vec::new(), Vec::new());
    for &content in all {
        match content {
            Content::Text(text) => texts.push(text),
            Content::Pair(first, second) => pairs.push((first, second)),
            Content::Words(_) => bail!("--data: expected texts, found sentences of words"),
        }
    }
    Ok(match pairs.len() {
        0 => EncodedTexts::new(pieces, texts, max_len, device)?,
        _ => EncodedTexts::pairs(pieces, pairs, max_len, device)?,
    })
}

fn print(measured: &Measured) {
    let row = |filling: &Filling| {
        let Filling { teacher, similar_lengths, padded, ratio } = filling;
        vec![teacher.clone(), format!("{similar_lengths:.1}"), format!("{padded:.1}"), format!("{ratio:.2}")]
    };
    let header = ["filling the store, examples/s", "similar lengths", "padded", "ratio"];
    println!("{}\n", report::table(&header, &measured.filling.iter().map(row).collect::<Vec<_>>()));
    let Measured { live_seconds, stored_seconds, reading_seconds, live_loss, stored_loss, .. } = measured;
    let rows = [
        vec!["teachers live".to_string(), format!("{live_seconds:.2}"), "1.00".to_string(), format!("{live_loss:.5}")],
        vec![
            format!("store ({:.1} % of it reading)", 100.0 * reading_seconds / stored_seconds),
            format!("{stored_seconds:.2}"),
            format!("{:.2}", measured.ratio),
            format!("{stored_loss:.5}"),
        ],
    ];
    let header = [
        &format!("an epoch of {} steps of {}", measured.steps, measured.batch_size),
        "seconds",
        "times faster",
        "loss",
    ];
    println!("{}", report::table(&header, &rows));
}
