//! What the programs ask for on the command line.

use std::path::{Path, PathBuf};

use anyhow::{Context, Result, bail};
use candle_core::Device;
use clap::{Args, ValueEnum};
use kd_core::objective::SoftLoss;
use kd_data::columns::{Columns, LabelKind};
use kd_data::digest;
use kd_data::task::{Examples, Task};
use kd_students::pair::Combination;
use kd_teachers::heads::Pooling;

use super::{DataSet, Results, Settings, Source, StageOne, TeacherFile, read_unlabelled};
use crate::device::DeviceChoice;
use crate::fine_tune::Keep;

/// Columns of a task that is a folder of plain tables.
#[derive(Debug, Clone, Args)]
pub struct TableOptions {
    /// Column of the text in train, dev and test .tsv, .csv, .jsonl or .parquet; then the task may have any name
    #[arg(long)]
    pub text: Option<String>,
    /// Column of the second text of a pair
    #[arg(long, requires = "text")]
    pub second: Option<String>,
    /// Column of the class
    #[arg(long, requires = "text", default_value = "label")]
    pub label: String,
}

impl TableOptions {
    /// The task of this name, or a task of tables where their columns are given and no task has the name.
    ///
    /// # Errors
    /// If there is no such task.
    pub fn task(&self, name: &str) -> Result<Task> {
        match (&self.text, Task::NAMES.contains(&name)) {
            (Some(text), false) => {
                let (second, label) = (self.second.clone(), Some(self.label.clone()));
                let columns = Columns { second, label, kind: LabelKind::Class, ..Columns::text(text) };
                Ok(Task::of_columns(name, columns))
            }
            _ => Ok(Task::named(name)?),
        }
    }

    /// The only task that there is: columns are its own.
    ///
    /// # Errors
    /// As [`TableOptions::task`], and if columns are given of a task that has its own.
    pub fn only_task(&self, name: &str) -> Result<Task> {
        if self.text.is_some() && Task::NAMES.contains(&name) {
            bail!(
                "--text: expected another name for a task of tables, found --task {name}, which has columns of its own"
            );
        }
        self.task(name)
    }
}

/// Who learns.
#[derive(Debug, Clone, Args)]
pub struct StudentOptions {
    /// The student: an encoder's hub id (found in the hub's cache, or downloaded) or folder; `bilstm`; or FILE.json, a network in
    /// NeuronBlocks' format (examples/models). Of a file count the layers below its outputs, `inputs` (its text columns are the
    /// task's texts, in their order), vocabulary, lengths and preprocessing; heads, losses, optimiser, batches and epochs are this
    /// program's, and what the file says of its outputs, losses, distillation, metrics and optimiser is not read
    #[arg(long)]
    pub student: String,
    /// Revision of the hub id
    #[arg(long, default_value = "main")]
    pub revision: String,
    /// Allow pickled weights (pytorch_model.bin) where the model has no others
    #[arg(long)]
    pub pickle: bool,
    /// The encoder's first so many layers, several numbers separated by commas; 3 without it
    #[arg(long, value_delimiter = ',')]
    pub layers: Option<Vec<usize>>,
    /// How the encoder makes one vector of a pair; family without it
    #[arg(long, value_enum)]
    pub pooling: Option<PoolingChoice>,
    /// Word vectors in GloVe's text format for `bilstm` or FILE.json; without it random, or those of the file's `pre_trained_emb`
    #[arg(long)]
    pub vectors: Option<PathBuf>,
    /// Words that `bilstm` knows: the first of --vectors, or the most frequent of the training text; 150000 without it. FILE.json
    /// knows the words of the training text within its own limits, and the first of --vectors besides; without --vectors this is
    /// its `max_vocabulary`
    #[arg(long)]
    pub words: Option<usize>,
    /// How `bilstm` puts the vectors u and v of the two texts together; concat without it, in rl_kd concat-difference-product
    #[arg(long, value_enum)]
    pub combination: Option<CombinationChoice>,
    /// An encoder layer computes in bf16; weights and their updates stay in f32
    #[arg(long)]
    pub bf16: bool,
}

/// Words that are known where --words says nothing.
pub(super) const WORDS: usize = 150_000;

impl StudentOptions {
    /// The same for a pretrained encoder beside the student.
    ///
    /// # Errors
    /// If it is none.
    pub fn of_encoder(&self, encoder: &str, pooling: Option<PoolingChoice>) -> Result<Self> {
        let (student, revision) = (encoder.to_string(), "main".to_string());
        let (layers, vectors, words, combination) = (None, None, None, None);
        let options =
            Self { student, revision, layers, pooling, vectors, words, combination, bf16: false, ..self.clone() };
        if options.is_bilstm() || options.file().is_some() {
            bail!("expected a pretrained encoder, found {encoder}");
        }
        Ok(options)
    }

    /// Whether the student is a BiLSTM over words.
    pub fn is_bilstm(&self) -> bool {
        self.student == "bilstm"
    }

    /// The file of the student's network, if it has one.
    pub fn file(&self) -> Option<&Path> {
        Some(Path::new(&self.student)).filter(|path| path.extension().is_some_and(|end| end == "json"))
    }

    /// Refuses those of these options that are there; they are for `expected`.
    ///
    /// # Errors
    /// If one is there; the message names it.
    pub(super) fn refuse(&self, flags: &[&str], expected: &str) -> Result<()> {
        let is_there = |flag: &str| match flag {
            "layers" => self.layers.is_some(),
            "pooling" => self.pooling.is_some(),
            "bf16" => self.bf16,
            "vectors" => self.vectors.is_some(),
            "words" => self.words.is_some(),
            "combination" => self.combination.is_some(),
            _ => false,
        };
        match flags.iter().find(|flag| is_there(flag)) {
            Some(flag) => bail!("--{flag}: expected {expected} as --student, found {}", self.student),
            None => Ok(()),
        }
    }
}

/// How the vectors of two texts become one.
#[derive(Debug, Clone, Copy, clap::ValueEnum)]
pub enum CombinationChoice {
    /// [u, v], as TMKD's BiLSTM may have it
    Concat,
    /// [u, v, |u - v|, u · v], which sees whether the texts are alike; one BiLSTM reads both
    ConcatDifferenceProduct,
}

impl From<CombinationChoice> for Combination {
    fn from(choice: CombinationChoice) -> Self {
        match choice {
            CombinationChoice::Concat => Combination::Concat,
            CombinationChoice::ConcatDifferenceProduct => Combination::ConcatDifferenceProduct,
        }
    }
}

/// How an encoder makes one vector of a sequence.
#[derive(Debug, Clone, Copy, clap::ValueEnum)]
pub enum PoolingChoice {
    /// As its family does for classification: BERT's pooler over the first token
    Family,
    /// The first token
    Cls,
    /// The mean of all tokens
    Mean,
}

impl From<PoolingChoice> for Pooling {
    fn from(choice: PoolingChoice) -> Self {
        match choice {
            PoolingChoice::Family => Pooling::Family,
            PoolingChoice::Cls => Pooling::Cls,
            PoolingChoice::Mean => Pooling::Mean,
        }
    }
}

/// How students learn.
#[derive(Debug, Clone, Args)]
pub struct TrainingOptions {
    /// Peak learning rate; 1e-4, and 1e-3 where nothing is pretrained but vectors: bilstm, FILE.json without an encoder
    #[arg(long)]
    pub lr: Option<f64>,
    /// Passes over the training part
    #[arg(long, default_value_t = 10)]
    pub epochs: usize,
    /// Examples a step
    #[arg(long, default_value_t = 128)]
    pub batch_size: usize,
    /// Longest sequence in word pieces, of a pair together, 150 without it; a network of FILE.json has lengths of its own
    #[arg(long)]
    pub max_len: Option<usize>,
    /// Share of the steps over which the learning rate rises
    #[arg(long, default_value_t = 0.1)]
    pub warmup: f64,
    /// Weight decay; biases and norms have none
    #[arg(long, default_value_t = 0.01)]
    pub weight_decay: f64,
    /// Dropout in front of the heads
    #[arg(long, default_value_t = 0.1)]
    pub dropout: f64,
    /// Heads without a bias, as in the paper's equations
    #[arg(long)]
    pub without_bias: bool,
    /// What draws a head to its teacher
    #[arg(long, value_enum, default_value_t = SoftChoice::LogitMse)]
    pub soft: SoftChoice,
    /// Temperature of --soft kl, reverse-kl and jensen-shannon
    #[arg(long, default_value_t = 1.0)]
    pub temperature: f64,
    /// Take the mean of each row from the teachers' logits first
    #[arg(long)]
    pub centre: bool,
    /// Seeds of students, separated by commas
    #[arg(long, value_delimiter = ',', default_value = "1,2,3")]
    pub seeds: Vec<u64>,
    /// Which epoch's weights are kept: the best by the task's first metric, or the last
    #[arg(long, value_enum, default_value_t = Keep::Best)]
    pub keep: Keep,
    /// Share of the training part that chooses the best epoch where test has no labels; 0 lets dev choose
    #[arg(long, default_value_t = 0.1)]
    pub hold_out: f64,
    /// Learn from the first so many examples
    #[arg(long)]
    pub limit_train: Option<usize>,
    /// Steps between checkpoints, by default 200 on the CPU and 5000 elsewhere; a run of no more steps has none
    #[arg(long)]
    pub checkpoint_every: Option<usize>,
    /// auto, cpu, cuda or cuda:N
    #[arg(long, default_value = "auto")]
    pub device: DeviceChoice,
    /// On a GPU, products of f32 are made in TF32, with 10 bits of mantissa; runs that are done need none
    #[arg(long)]
    pub tf32: bool,
    /// Folder of the results
    #[arg(long)]
    pub out: PathBuf,
    /// Keep every student too, as a folder below students/
    #[arg(long)]
    pub save: bool,
}

/// A loss between a head and its teacher.
#[derive(Debug, Clone, Copy, clap::ValueEnum)]
pub enum SoftChoice {
    /// Squared differences of logits
    LogitMse,
    /// Squared differences of probabilities
    ProbMse,
    /// Kullback and Leibler's divergence of the student from the teacher at --temperature
    Kl,
    /// That of the teacher from the student, which keeps to the teacher's largest class, at --temperature
    ReverseKl,
    /// Jensen and Shannon's divergence, the same both ways and bounded, at --temperature
    JensenShannon,
}

impl SoftChoice {
    /// What the command line calls it.
    pub fn name(self) -> String {
        self.to_possible_value().map_or_else(String::new, |value| value.get_name().to_string())
    }

    fn loss(self, temperature: f64) -> SoftLoss {
        match self {
            Self::LogitMse => SoftLoss::LogitMse,
            Self::ProbMse => SoftLoss::ProbMse,
            Self::Kl => SoftLoss::Kl { temperature },
            Self::ReverseKl => SoftLoss::ReverseKl { temperature },
            Self::JensenShannon => SoftLoss::JensenShannon { temperature },
        }
    }
}

/// Longest sequence where --max-len says nothing, the paper's.
const MAX_LEN: usize = 150;

impl TrainingOptions {
    /// What decides how a student of `source` learns.
    ///
    /// # Errors
    /// If something is out of its range, or is not to be said of such a student.
    pub fn settings(&self, source: &Source) -> Result<Settings> {
        if let (Some(max_len), Some(file)) = (self.max_len, source.file()) {
            bail!(
                "--max-len: expected the lengths of {} (training_params.max_lengths), found {max_len}",
                file.display()
            );
        }
        let settings = Settings {
            lr: self.lr.unwrap_or(source.default_lr()),
            epochs: self.epochs,
            batch_size: self.batch_size,
            max_len: self.max_len.unwrap_or(MAX_LEN),
            warmup: self.warmup,
            weight_decay: self.weight_decay,
            clip_norm: 1.0,
            dropout: self.dropout,
            bias: !self.without_bias,
            soft: self.soft.loss(self.temperature),
            centre: self.centre,
            tf32: self.tf32,
        };
        settings.check()?;
        Ok(settings)
    }
}

impl TrainingOptions {
    /// Checks what is not among the settings.
    ///
    /// # Errors
    /// If something is out of its range.
    pub fn check(&self) -> Result<()> {
        if !(0.0..1.0).contains(&self.hold_out) {
            bail!("--hold-out: expected a share from 0 to below 1, found {}", self.hold_out);
        }
        if !(self.temperature.is_finite() && self.temperature > 0.0) {
            bail!("--temperature: expected a number above 0, found {}", self.temperature);
        }
        if self.checkpoint_every == Some(0) {
            bail!("--checkpoint-every: expected at least 1, found 0");
        }
        check_list("seeds", &self.seeds)
    }

    /// The device, computing as it is asked to.
    ///
    /// # Errors
    /// If it cannot be had.
    pub fn open_device(&self) -> Result<Device> {
        let device = self.device.open()?;
        candle_core::cuda::set_gemm_reduced_precision_f32(self.tf32);
        Ok(device)
    }

    /// The folder that students are kept in, if they are.
    pub fn students(&self) -> Option<PathBuf> {
        self.save.then(|| self.out.join("students"))
    }

    /// Steps between checkpoints.
    pub fn checkpoint_every(&self, device: &Device) -> usize {
        self.checkpoint_every.unwrap_or(if device.is_cpu() { 200 } else { 5000 })
    }
}

/// The stage without labels.
#[derive(Debug, Clone, Args)]
pub struct StageOneOptions {
    /// Table of pairs without labels (.tsv, .csv, .jsonl)
    #[arg(long, requires = "stage1_teacher")]
    pub stage1_data: Option<PathBuf>,
    /// Column of the first text there
    #[arg(long, default_value = "question")]
    pub stage1_text: String,
    /// Column of the second
    #[arg(long, default_value = "passage")]
    pub stage1_second: String,
    /// What teachers said of those pairs, a file each, separated by commas
    #[arg(long, value_delimiter = ',', requires = "stage1_data")]
    pub stage1_teacher: Vec<PathBuf>,
    /// Passes over them
    #[arg(long, default_value_t = 1)]
    pub stage1_epochs: usize,
    /// Peak learning rate; --lr without it
    #[arg(long)]
    pub stage1_lr: Option<f64>,
    /// Examples a step; --batch-size without it
    #[arg(long)]
    pub stage1_batch_size: Option<usize>,
    /// One first stage of this seed for all; without it, each seed has its own
    #[arg(long)]
    pub stage1_seed: Option<u64>,
    /// The first so many pairs
    #[arg(long)]
    pub stage1_limit: Option<usize>,
}

impl StageOneOptions {
    /// The texts, if there is such a stage.
    ///
    /// # Errors
    /// If they cannot be read.
    pub fn read(&self) -> Result<Option<Examples>> {
        let Some(path) = &self.stage1_data else { return Ok(None) };
        let mut examples = read_unlabelled(path, &self.stage1_text, &self.stage1_second)?;
        examples.truncate(self.stage1_limit.unwrap_or(usize::MAX));
        Ok(Some(examples))
    }

    /// The stage: its texts are encoded and joined with what its teachers said.
    ///
    /// # Errors
    /// If a teacher's file cannot be read, it was not asked about a pair, or has other classes than the first.
    pub fn open(
        &self,
        examples: &Examples,
        source: &Source,
        settings: &Settings,
        results: Results,
        checkpoint_every: usize,
        device: &Device,
    ) -> Result<StageOne> {
        let teachers = TeacherFile::open_all(&self.stage1_teacher)?;
        let contents = DataSet::contents(examples);
        let classes = teachers.first().map_or(Vec::new(), |teacher| teacher.classes().to_vec());
        let logits = teachers.iter().map(|teacher| teacher.logits(&contents, &classes)).collect::<Result<_>>()?;
        let settings = Settings {
            epochs: self.stage1_epochs,
            lr: self.stage1_lr.unwrap_or(settings.lr),
            batch_size: self.stage1_batch_size.unwrap_or(settings.batch_size),
            ..settings.clone()
        };
        settings.check().context("--stage1-…")?;
        Ok(StageOne {
            encoded: source.encode("unlabelled", examples, settings.max_len, device)?,
            digest: digest::of_parts(contents.iter().map(|content| format!("{content:?}"))),
            teachers,
            logits,
            settings,
            seed: self.stage1_seed,
            results,
            checkpoint_every,
            device: device.clone(),
        })
    }
}

/// Weights of the teachers, each above 0 and at most 1.
///
/// # Errors
/// If one is outside, or there are none, or one is there twice.
pub fn check_alphas(alphas: &[f64]) -> Result<()> {
    if let Some(alpha) = alphas.iter().find(|&&alpha| !(alpha > 0.0 && alpha <= 1.0)) {
        bail!("--alpha: expected weights above 0 and at most 1, found {alpha}");
    }
    check_list("alpha", alphas)
}

/// Checks what is swept.
///
/// # Errors
/// If there is nothing, or something twice; the message names the option.
pub fn check_list<T: PartialEq + std::fmt::Display>(name: &str, values: &[T]) -> Result<()> {
    if values.is_empty() {
        bail!("--{name}: expected at least one, found none");
    }
    match values.iter().enumerate().find(|(idx, value)| values[..*idx].contains(value)) {
        Some((_, value)) => bail!("--{name}: expected each once, found {value} twice"),
        None => Ok(()),
    }
}

#[cfg(test)]
mod tests;
