//! Asks a teacher about a data set, once, and keeps what it says in a store for every student that follows.
//!
//! ```sh
//! kd-label --teacher out/mrpc/lr-2e-5 --task mrpc --data glue/MRPC --store outputs
//! kd-label --teacher textattack/bert-base-uncased-SST-2 --data tweets.jsonl --text body --store outputs --compute bf16
//! # DeBERTa-v2 and v3, ModernBERT: logits only, in f32.
//! cargo run --release --features candle-transformers --bin kd-label -- --teacher out/modernbert --task sst2 ...
//! # On many machines: part i of n, then copy the files of one teacher into one folder.
//! kd-label ... --shard $SLURM_ARRAY_TASK_ID/64      # Slurm, array 0-63
//! kd-label ... --shard $JOB_COMPLETION_INDEX/64     # Kubernetes, an indexed job
//! seq 0 63 | parallel kd-label ... --shard {}/64    # GNU parallel
//! # A teacher elsewhere: its answers as a file.
//! kd-label --import answers.jsonl --teacher my-api --weights 2026-11 --classes neg,pos --store outputs
//! kd-label --import train.tsv --text 1 --scores 2 --numbers probs --teacher neuronblocks --weights 1 --classes 0,1 ...
//! ```
//!
//! What is in the store is not asked again, so the same command goes on after Ctrl-C or a kill, which cost one batch at
//! most. Several of these programs may fill one store at once.
//!
//! With --shard a machine has no more than its share of a table of columns in memory. It reads the whole table all the same, and a
//! broken row of it, in whosever share, is an error everywhere, before the teacher is asked.

use std::path::PathBuf;

use anyhow::{Context, Result, bail};
use clap::Parser;
use examples::device::DeviceChoice;
use examples::labelling::{AskedTeacher, Compute, Keep, Share, contents, label, read};
use examples::model_files;
use kd_data::columns::Columns;
use kd_data::task::Task;
use kd_data::teacher_outputs::import::{self, Numbers, ScoreColumns};
use kd_data::teacher_outputs::{About, FloatType, Store, TeacherOutputs};

/// Keep a teacher's outputs for a data set in a store.
#[derive(Debug, Parser)]
#[command(name = "kd-label", version, args_override_self = true)]
struct Args {
    /// Fine-tuned teacher: a folder or a hub id; with --import its name
    #[arg(long)]
    teacher: String,
    /// Revision of the hub id
    #[arg(long, default_value = "main")]
    revision: String,
    /// Allow pickled weights (pytorch_model.bin) where the model has no others
    #[arg(long)]
    pickle: bool,
    /// A file, or a folder with the task's train, dev and test; may be given several times
    #[arg(long)]
    data: Vec<PathBuf>,
    /// A task's name (rte, mrpc, sst2, qnli, mnli, qqp, cola, stsb, snli, wikiqa, query-passage, conll2003, wnut17,
    /// snips-intents, ...); without it, tables with columns
    #[arg(long)]
    task: Option<String>,
    /// Column of the text
    #[arg(long, default_value = "text")]
    text: String,
    /// Column of the second text of a pair
    #[arg(long)]
    second: Option<String>,
    /// Folder of the store
    #[arg(long)]
    store: PathBuf,
    /// Longest sequence, in word pieces; 128 or as many as the model can read
    #[arg(long, conflicts_with = "import")]
    max_len: Option<usize>,
    /// Most tokens of a batch, padding included
    #[arg(long, default_value_t = 4096)]
    batch_tokens: usize,
    /// f32, bf16 or int8 (CPU)
    #[arg(long, default_value = "f32", conflicts_with = "import")]
    compute: Compute,
    /// Keep hidden states too, in f32 or f16
    #[arg(long, num_args = 0..=1, default_missing_value = "f32", conflicts_with = "import")]
    hidden: Option<FloatType>,
    /// Of these layers only; 0 is the embeddings
    #[arg(long, value_delimiter = ',', requires = "hidden")]
    hidden_layers: Option<Vec<usize>>,
    /// Keep attention probabilities too, in f32 or f16
    #[arg(long, num_args = 0..=1, default_missing_value = "f32", conflicts_with = "import")]
    attention: Option<FloatType>,
    /// Of these layers only, counted from 0
    #[arg(long, value_delimiter = ',', requires = "attention")]
    attention_layers: Option<Vec<usize>>,
    /// Keep the largest logits only, and what the others sum to
    #[arg(long, conflicts_with = "import")]
    top_k: Option<usize>,
    /// i/n: every n-th example only, beginning with the i-th, counted from 0
    #[arg(long = "shard", default_value = "0/1")]
    share: Share,
    /// Threads; all cores without it
    #[arg(long)]
    threads: Option<usize>,
    /// Compare everything that is stored with its checksums first, and ask again what is damaged
    #[arg(long)]
    verify: bool,
    /// Write the logits of these examples to one file, without text
    #[arg(long)]
    export: Option<PathBuf>,
    /// How numbers are kept there: f32 or f16
    #[arg(long, default_value = "f32", requires = "export")]
    export_type: FloatType,
    /// Read a teacher's answers from a .jsonl, .tsv, .parquet or .npy file (rows as in --data) instead of asking it
    #[arg(long, requires_all = ["weights", "classes"])]
    import: Option<PathBuf>,
    /// What tells this version of an imported teacher from another
    #[arg(long, requires = "import")]
    weights: Option<String>,
    /// The classes of an imported teacher; of any other, what its classes are called instead (LABEL_0 and the like), in its
    /// order
    #[arg(long, value_delimiter = ',')]
    classes: Option<Vec<String>>,
    /// What an imported table or matrix holds: logits or probs
    #[arg(long, default_value = "logits", requires = "import")]
    numbers: Numbers,
    /// Columns of an imported table: one a class, or one of the second class; without it, the names of the classes
    #[arg(long, value_delimiter = ',', requires = "import")]
    scores: Option<Vec<String>>,
    /// auto, cpu, cuda or cuda:N
    #[arg(long, default_value = "auto")]
    device: DeviceChoice,
}

fn main() -> Result<()> {
    let args = Args::parse();
    if let Some(threads) = args.threads {
        // SAFETY: no other thread has been started yet.
        unsafe { std::env::set_var("RAYON_NUM_THREADS", threads.to_string()) };
    }
    examples::start()?;
    let task = match &args.task {
        Some(name) => Task::named(name)?,
        None => Task::of_columns("columns", Columns { second: args.second.clone(), ..Columns::text(&args.text) }),
    };
    let files = read(&task, &args.data, args.share)?;
    let examples = contents(&files);
    let store = Store::open(&args.store)?;
    let mut outputs = match &args.import {
        Some(path) => {
            let (weights, classes) = (args.weights.clone(), args.classes.clone());
            let about = About::named(&args.teacher, weights.unwrap_or_default(), classes.unwrap_or_default());
            let mut outputs = store.teacher(&about)?;
            let before = outputs.len();
            let read = args.import_from(path, &examples, &mut outputs)?;
            println!("{}: {read} examples, {} of them new", path.display(), outputs.len() - before);
            outputs
        }
        None => {
            if examples.is_empty() {
                bail!("--data: expected at least one example, found none");
            }
            let files = model_files::find(&args.teacher, &args.revision, args.pickle)?;
            let teacher = AskedTeacher::load(&files, args.max_len, args.compute, &args.keep(), &args.device.open()?)?;
            let mut about = teacher.about().clone();
            if let Some(classes) = &args.classes {
                if classes.len() != about.classes.len() {
                    bail!("--classes: expected {} names, found {}", about.classes.len(), classes.len());
                }
                about.classes.clone_from(classes);
            }
            let mut outputs = store.teacher(&about)?;
            if args.verify {
                outputs.verify();
            }
            let asked = label(&teacher, &examples, args.batch_tokens, &mut outputs)?;
            println!("{} examples, {asked} of them asked now", examples.len());
            outputs
        }
    };
    if args.verify {
        outputs.verify();
    }
    for damage in outputs.damage() {
        eprintln!("damaged: {damage}; with --verify its examples are asked again, or remove the file and run again");
    }
    if let Some(path) = &args.export {
        if examples.is_empty() {
            bail!("--export: expected --data with at least one example, found none");
        }
        outputs.export(path, examples.iter().copied(), args.export_type)?;
        println!("exported to {}", path.display());
    }
    println!(
        "{} examples of {} in {} under {}",
        outputs.len(),
        args.teacher,
        args.store.display(),
        outputs.about().key()
    );
    Ok(())
}

impl Args {
    fn keep(&self) -> Keep {
        Keep {
            top_k: self.top_k,
            hidden: self.hidden,
            hidden_layers: self.hidden_layers.clone(),
            attention: self.attention,
            attention_layers: self.attention_layers.clone(),
        }
    }

    fn import_from(
        &self,
        path: &std::path::Path,
        examples: &[kd_data::teacher_outputs::Content<'_>],
        outputs: &mut TeacherOutputs,
    ) -> Result<usize> {
        let columns = || ScoreColumns {
            header: self.text.parse::<usize>().is_err(),
            first: self.text.clone(),
            second: self.second.clone(),
            scores: self.scores.clone().or_else(|| self.classes.clone()).unwrap_or_default(),
            numbers: self.numbers,
        };
        let end =
            path.extension().and_then(|end| end.to_str()).context("--import: expected a file with an extension")?;
        Ok(match end {
            "jsonl" => import::jsonl(path, outputs)?,
            "tsv" | "txt" => import::tsv(path, &columns(), outputs)?,
            #[cfg(feature = "parquet")]
            "parquet" => import::parquet(path, &columns(), outputs)?,
            "npy" => {
                let rows: Vec<usize> = examples.iter().map(|example| example.rows()).collect();
                import::npy(path, examples, &rows, self.numbers, outputs)?
            }
            _ => bail!("--import: expected .jsonl, .tsv, .npy, or .parquet with the feature `parquet`, found .{end}"),
        })
    }
}
