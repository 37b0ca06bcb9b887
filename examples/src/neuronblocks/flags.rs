//! The command line, with the original's flags; what is given there wins over the file.

use std::path::PathBuf;

use anyhow::{Result, bail};

use super::configuration::{Configuration, VectorCoding, VectorType};
use crate::device::DeviceChoice;

/// Where a program runs; the original's other place had a file system of its own.
#[derive(Debug, Clone, Copy, PartialEq, Eq, clap::ValueEnum)]
pub enum RunMode {
    /// Here.
    Normal,
    /// Not supported.
    Philly,
}

/// How predictions are asked for.
#[derive(Debug, Clone, Copy, PartialEq, Eq, clap::ValueEnum)]
pub enum PredictMode {
    /// Of a file.
    Batch,
    /// Of one example after the other, typed in.
    Interactive,
}

/// What all commands know.
#[derive(Debug, Clone, clap::Args)]
#[command(rename_all = "snake_case")]
pub struct Shared {
    /// Configuration in NeuronBlocks' format
    #[arg(long, alias = "conf-path")]
    pub conf_path: PathBuf,
    /// Folder of logs; by default the model's
    #[arg(long, alias = "log-dir")]
    pub log_dir: Option<PathBuf>,
    /// Accepted for the original's scripts: normal
    #[arg(long, value_enum, ignore_case = true, default_value = "normal")]
    pub mode: RunMode,
    /// Write no log
    #[arg(long, num_args = 0..=1, default_missing_value = "true", default_value = "false", value_parser = parse_bool, alias = "disable-log-file")]
    pub disable_log_file: bool,
    /// auto, cpu, cuda or cuda:N; by default what `use_gpu` says
    #[arg(long)]
    pub device: Option<DeviceChoice>,
}

/// Flags of the original that say nothing to a model that is trained.
#[derive(Debug, Clone, clap::Args)]
#[command(rename_all = "snake_case")]
pub struct Ignored {
    /// Accepted for the original's scripts: batches are as large as memory allows
    #[arg(long, alias = "batch-size")]
    pub batch_size: Option<usize>,
    /// Accepted for the original's scripts: files are replaced anyway
    #[arg(long, num_args = 0..=1, default_missing_value = "true", default_value = "false", value_parser = parse_bool)]
    pub force: bool,
    /// Accepted for the original's scripts: there are no steps to log
    #[arg(long, num_args = 0..=1, default_missing_value = "true", default_value = "false", value_parser = parse_bool)]
    pub debug: bool,
}

impl Ignored {
    /// What was given and has no effect.
    pub fn warnings(&self) -> Vec<String> {
        let given = [("batch_size", self.batch_size.is_some()), ("force", self.force), ("debug", self.debug)];
        given
            .iter()
            .filter(|(_, is_given)| *is_given)
            .map(|(name, _)| format!("--{name}: has no effect here"))
            .collect()
    }
}

/// `train`.
#[derive(Debug, Clone, clap::Args)]
#[command(rename_all = "snake_case")]
pub struct Train {
    /// What all commands know
    #[command(flatten)]
    pub shared: Shared,
    /// File to learn from
    #[arg(long, alias = "train-data-path")]
    pub train_data_path: Option<PathBuf>,
    /// File to choose the best model on
    #[arg(long, alias = "valid-data-path")]
    pub valid_data_path: Option<PathBuf>,
    /// File to report
    #[arg(long, alias = "test-data-path")]
    pub test_data_path: Option<PathBuf>,
    /// Vectors of words
    #[arg(long, alias = "pretrained-emb-path")]
    pub pretrained_emb_path: Option<PathBuf>,
    /// What kind of file they are
    #[arg(long, value_enum, ignore_case = true)]
    pub pretrained_emb_type: Option<VectorType>,
    /// How they are written
    #[arg(long, value_enum, ignore_case = true)]
    pub pretrained_emb_binary_or_text: Option<VectorCoding>,
    /// Know every word of the vectors, not only those of the data
    #[arg(long, num_args = 0..=1, default_missing_value = "true", value_parser = parse_bool)]
    pub involve_all_words_in_pretrained_emb: Option<bool>,
    /// Model whose weights are the start
    #[arg(long, alias = "pretrained-model-path")]
    pub pretrained_model_path: Option<PathBuf>,
    /// Folder of encoded data
    #[arg(long, alias = "cache-dir")]
    pub cache_dir: Option<PathBuf>,
    /// Folder of the model
    #[arg(long, alias = "model-save-dir")]
    pub model_save_dir: Option<PathBuf>,
    /// File of predictions of the test set
    #[arg(long, alias = "predict-output-path")]
    pub predict_output_path: Option<PathBuf>,
    /// Examples a step
    #[arg(long, alias = "batch-size")]
    pub batch_size: Option<usize>,
    /// Begin anew in place of what is in the folder
    #[arg(long, num_args = 0..=1, default_missing_value = "true", default_value = "false", value_parser = parse_bool)]
    pub force: bool,
    /// Log every step
    #[arg(long, num_args = 0..=1, default_missing_value = "true", default_value = "false", value_parser = parse_bool)]
    pub debug: bool,
    /// Encode the data and end
    #[arg(long, num_args = 0..=1, default_missing_value = "true", default_value = "false", value_parser = parse_bool)]
    pub make_cache_only: bool,
    /// Passes over the training set
    #[arg(long, alias = "max-epoch")]
    pub max_epoch: Option<usize>,
    /// Learning rate
    #[arg(long, alias = "learning-rate")]
    pub learning_rate: Option<f64>,
    /// Seed of the weights, of the order of examples and of dropout
    #[arg(long)]
    pub seed: Option<u64>,
    /// Steps between checkpoints
    #[arg(long, default_value_t = 200, alias = "checkpoint-every")]
    pub checkpoint_every: usize,
}

/// `test`.
#[derive(Debug, Clone, clap::Args)]
#[command(rename_all = "snake_case")]
pub struct Test {
    /// What all commands know
    #[command(flatten)]
    pub shared: Shared,
    /// Flags without effect
    #[command(flatten)]
    pub ignored: Ignored,
    /// File to report
    #[arg(long, alias = "test-data-path")]
    pub test_data_path: Option<PathBuf>,
    /// Folder of the model; by default where `train` saves it
    #[arg(long, alias = "previous-model-path")]
    pub previous_model_path: Option<PathBuf>,
    /// File of predictions
    #[arg(long, alias = "predict-output-path")]
    pub predict_output_path: Option<PathBuf>,
}

/// `predict`.
#[derive(Debug, Clone, clap::Args)]
#[command(rename_all = "snake_case")]
pub struct Predict {
    /// What all commands know
    #[command(flatten)]
    pub shared: Shared,
    /// Flags without effect
    #[command(flatten)]
    pub ignored: Ignored,
    /// Of a file, or of what is typed
    #[arg(long, value_enum, ignore_case = true, default_value = "batch")]
    pub predict_mode: PredictMode,
    /// File to predict; by default the test set
    #[arg(long, alias = "predict-data-path")]
    pub predict_data_path: Option<PathBuf>,
    /// Folder of the model; by default where `train` saves it
    #[arg(long, alias = "previous-model-path")]
    pub previous_model_path: Option<PathBuf>,
    /// File of predictions
    #[arg(long, alias = "predict-output-path")]
    pub predict_output_path: Option<PathBuf>,
}

/// `true`, `false`, and how Python and shells write them.
fn parse_bool(text: &str) -> Result<bool, String> {
    match text.to_lowercase().as_str() {
        "true" | "1" | "yes" => Ok(true),
        "false" | "0" | "no" => Ok(false),
        _ => Err(format!("expected true or false, found `{text}`")),
    }
}

fn put<T: Clone>(place: &mut T, flag: &Option<T>) {
    if let Some(value) = flag {
        *place = value.clone();
    }
}

fn put_some<T: Clone>(place: &mut Option<T>, flag: &Option<T>) {
    if flag.is_some() {
        *place = flag.clone();
    }
}

impl Shared {
    /// The configuration of the file, with what is given here in it.
    ///
    /// # Errors
    /// If the file is wrong, or a flag out of range.
    pub fn configuration(&self) -> Result<Configuration> {
        if self.mode == RunMode::Philly {
            bail!("--mode: expected normal, found philly, a cluster that is no more");
        }
        Configuration::read(&self.conf_path)
    }

    /// The device that the flag names, or that `use_gpu` allows.
    ///
    /// # Errors
    /// If it cannot be had.
    pub fn open(&self, configuration: &Configuration) -> Result<candle_core::Device> {
        let default = if configuration.training.use_gpu { DeviceChoice::Auto } else { DeviceChoice::Cpu };
        Ok(self.device.unwrap_or(default).open()?)
    }
}

impl Train {
    /// The configuration of the file, with what is given here in it.
    ///
    /// # Errors
    /// If the file is wrong, or a flag out of range.
    pub fn configuration(&self) -> Result<Configuration> {
        let mut configuration = self.shared.configuration()?;
        let Configuration { inputs, outputs, training, .. } = &mut configuration;
        put_some(&mut inputs.paths.train, &self.train_data_path);
        put_some(&mut inputs.paths.valid, &self.valid_data_path);
        put_some(&mut inputs.paths.test, &self.test_data_path);
        put_some(&mut inputs.paths.pre_trained_emb, &self.pretrained_emb_path);
        put_some(&mut inputs.paths.pretrained_model, &self.pretrained_model_path);
        put(&mut inputs.vector_type, &self.pretrained_emb_type);
        put(&mut inputs.vector_coding, &self.pretrained_emb_binary_or_text);
        put(&mut inputs.involve_all_words_in_pretrained_emb, &self.involve_all_words_in_pretrained_emb);
        put_some(&mut outputs.cache_dir, &self.cache_dir);
        put_some(&mut outputs.save_base_dir, &self.model_save_dir);
        put_some(&mut training.max_epoch, &self.max_epoch);
        put(&mut training.seed, &self.seed);
        put(&mut training.batch_size, &self.batch_size);
        let counts = [
            ("batch_size", self.batch_size),
            ("max_epoch", self.max_epoch),
            ("checkpoint_every", Some(self.checkpoint_every)),
        ];
        for (name, value) in counts {
            if value == Some(0) {
                bail!("--{name}: expected at least 1, found 0");
            }
        }
        if let Some(rate) = self.learning_rate {
            if !(rate.is_finite() && rate >= 0.0) {
                bail!("--learning_rate: expected a rate of at least 0, found {rate}");
            }
            training.set_rate(rate);
        }
        configuration.model_folder = configuration.inputs.paths.pretrained_model.clone();
        Ok(configuration)
    }
}
