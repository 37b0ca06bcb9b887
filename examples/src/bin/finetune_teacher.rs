//! Fine-tunes a pretrained encoder on a task: teachers for everything that follows.
//!
//! ```sh
//! cargo run --release --bin finetune_teacher -- --task mrpc --data glue/MRPC \
//!     --model sentence-transformers/all-MiniLM-L6-v2 --lr 2e-5,3e-5,5e-5 --out out/mrpc
//! cargo run --release --bin finetune_teacher -- --task toxicity --data DIR --text comment --label kinds --kind classes \
//!     --separator '|' --model bert-base-uncased --lr 3e-5 --out out/toxicity
//! ```
//!
//! Each learning rate gives a teacher of its own, a folder `lr-2e-5` in `--out` that transformers loads too; three of
//! them are the set of teachers of TMKD (Yang et al. 2020). `report.json` has the scores on dev and test after every
//! epoch, `lr-2e-5.steps.jsonl` the loss of every step. Started again with the same `--out` it goes on where it was, and
//! learning rates that are done are not done again. By default the weights of the epoch that is best on dev are kept: dev
//! is then no estimate of anything any more, test is.

use std::path::PathBuf;

use anyhow::{Context, Result, bail};
use clap::Parser;
use examples::device::DeviceChoice;
use examples::fine_tune::{self, Data, Encoded, Freeze, Keep, Model, Run, Settings};
use examples::folder::Folder;
use examples::model_files;
use examples::report;
use kd_data::columns::{Columns, LabelKind};
use kd_data::digest;
use kd_data::encode::WordPieces;
use kd_data::task::{Part, Task};

/// Fine-tune a pretrained encoder on a task, once for each learning rate.
#[derive(Debug, Parser)]
#[command(version, args_override_self = true)]
struct Args {
    /// rte, mrpc, sst2, qnli, mnli, mnli-mismatched, qqp, cola, stsb, snli, wikiqa, query-passage, conll2003, wnut17,
    /// snips-intents, snips-slots; or with --text any name
    #[arg(long)]
    task: String,
    /// Folder of the task's files
    #[arg(long)]
    data: PathBuf,
    /// Column of the text in train, dev and test .tsv, .csv, .jsonl or .parquet
    #[arg(long)]
    text: Option<String>,
    /// Column of the second text of a pair
    #[arg(long, requires = "text")]
    second: Option<String>,
    /// Column of the label
    #[arg(long, requires = "text", default_value = "label")]
    label: String,
    /// What the column of the label holds
    #[arg(long, value_enum, requires = "text", default_value_t = KindChoice::Class)]
    kind: KindChoice,
    /// What parts several classes in one value
    #[arg(long, requires = "text", default_value_t = ',')]
    separator: char,
    /// Encoder: a hub id (found in the hub's cache, or downloaded) or a folder
    #[arg(long)]
    model: String,
    /// Revision of the hub id
    #[arg(long, default_value = "main")]
    revision: String,
    /// Allow pickled weights (pytorch_model.bin) where the model has no others
    #[arg(long)]
    pickle: bool,
    /// Peak learning rates, separated by commas
    #[arg(long, value_delimiter = ',', required = true)]
    lr: Vec<f64>,
    /// Passes over the training part
    #[arg(long, default_value_t = 3)]
    epochs: usize,
    /// Examples a step
    #[arg(long, default_value_t = 32)]
    batch_size: usize,
    /// Longest sequence in word pieces
    #[arg(long, default_value_t = 128)]
    max_len: usize,
    /// Share of the steps over which the learning rate rises
    #[arg(long, default_value_t = 0.1)]
    warmup: f64,
    /// Weight decay; biases and norms have none
    #[arg(long, default_value_t = 0.01)]
    weight_decay: f64,
    /// Seed of the head, of the batches and of dropout
    #[arg(long, default_value_t = 1)]
    seed: u64,
    /// Train on the first so many examples
    #[arg(long)]
    limit_train: Option<usize>,
    /// Use only the first so many layers
    #[arg(long)]
    layers: Option<usize>,
    /// What is not trained: embeddings, or a number of layers, the embeddings with them
    #[arg(long)]
    freeze: Option<Freeze>,
    /// Layers compute in bf16; weights and their updates stay in f32
    #[arg(long)]
    bf16: bool,
    /// On a GPU, products of f32 are made in TF32, with 10 bits of mantissa
    #[arg(long)]
    tf32: bool,
    /// Which epoch's weights are kept: the best on dev by the task's first metric, or the last
    #[arg(long, value_enum, default_value_t = Keep::Best)]
    keep: Keep,
    /// Parts, dev or test, whose predictions and logits are written beside each teacher: lr-2e-5.test.tsv
    #[arg(long, value_delimiter = ',', value_parser = parse_part)]
    predict: Vec<Part>,
    /// Steps between checkpoints
    #[arg(long, default_value_t = 200)]
    checkpoint_every: usize,
    /// auto, cpu, cuda or cuda:N
    #[arg(long, default_value = "auto")]
    device: DeviceChoice,
    /// Folder of the teachers and the report
    #[arg(long)]
    out: PathBuf,
}

#[derive(Debug, Clone, Copy, clap::ValueEnum)]
enum KindChoice {
    /// One class
    Class,
    /// A number
    Score,
    /// Any number of classes
    Classes,
}

fn parse_part(text: &str) -> Result<Part, String> {
    let part = [Part::Dev, Part::Test].into_iter().find(|part| part.name() == text);
    part.ok_or_else(|| format!("expected dev or test, found `{text}`"))
}

impl Args {
    fn task(&self) -> Result<Task> {
        let Some(text) = &self.text else { return Ok(Task::named(&self.task)?) };
        let kind = match self.kind {
            KindChoice::Class => LabelKind::Class,
            KindChoice::Score => LabelKind::Score,
            KindChoice::Classes => LabelKind::Classes { separator: self.separator },
        };
        let (second, label) = (self.second.clone(), Some(self.label.clone()));
        Ok(Task::of_columns(&self.task, Columns { second, label, kind, ..Columns::text(text) }))
    }

    fn settings(&self) -> Settings {
        Settings {
            epochs: self.epochs,
            batch_size: self.batch_size,
            max_len: self.max_len,
            warmup: self.warmup,
            weight_decay: self.weight_decay,
            seed: self.seed,
            layers: self.layers,
            freeze: self.freeze,
            bf16: self.bf16,
            tf32: self.tf32,
            keep: self.keep,
        }
    }
}

fn main() -> Result<()> {
    examples::start()?;
    let args = Args::parse();
    let settings = args.settings();
    settings.check()?;
    let data = Data::new(args.task()?, args.limit_train, |task, part| match task.path(&args.data, part) {
        None if part == Part::Test => Ok(None),
        _ => Ok(Some(task.read_part(&args.data, part)?)),
    })?;
    if let Some(part) = args.predict.iter().find(|part| !data.others.iter().any(|(there, _)| there == *part)) {
        bail!("--predict: expected a {} part, found none", part.name());
    }
    let files = model_files::find(&args.model, &args.revision, args.pickle)?;
    let pieces = WordPieces::from_file(&files.tokenizer)?;
    let weights = files.weights.iter().map(digest::of_file).collect::<kd_data::Result<Vec<_>>>()?;
    let described = serde_json::json!({
        "task": args.task, "data": data.digests(), "classes": data.classes,
        "model": args.model, "revision": files.revision, "weights": weights, "tokenizer": pieces.digest(),
        "settings": settings,
    });
    let folder = Folder { path: args.out.clone(), checkpoint_every: args.checkpoint_every };
    folder.claim(&described)?;

    let device = args.device.open()?;
    if args.tf32 && !device.is_cuda() {
        bail!("--tf32: expected a CUDA device, found the CPU");
    }
    candle_core::cuda::set_gemm_reduced_precision_f32(args.tf32);
    let encoded = Encoded::new(&data, &pieces, args.max_len, &device)?;
    let mut runs: Vec<Run> = Vec::new();
    for &lr in &args.lr {
        runs.push(folder.cached(&fine_tune::name_of(lr), || {
            let model = Model::new(data.task.kind, &data.classes, &files, &settings, &device)?;
            pieces.check_vocabulary(model.config().vocabulary)?;
            fine_tune::fine_tune(&encoded, &model, &settings, lr, &folder)
        })?);
        for &part in &args.predict {
            let path = args.out.join(format!("{}.{}.tsv", fine_tune::name_of(lr), part.name()));
            if !path.exists() {
                let teacher = fine_tune::load(data.task.kind, &args.out.join(fine_tune::name_of(lr)), &device)?;
                report::save_text(&path, &encoded.predictions(part, &*teacher)?)?;
            }
        }
        fine_tune::clean_up(lr, &folder)?;
    }
    report::save(&args.out.join("report.json"), &serde_json::json!({"run": described, "teachers": runs}))?;
    println!("{}", fine_tune::table(&data.task, &runs).context("no learning rate")?);
    println!("\nkept in {}: report.json and a folder for each learning rate", args.out.display());
    Ok(())
}
