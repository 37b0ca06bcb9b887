//! Fine-tunes the teacher on the labelled sentences and asks it about all of them, once.

use anyhow::{Result, bail};
use candle_core::Device;
use kd_core::batch::Batch;
use kd_core::model::{Mode, Student};
use kd_core::objective::Distillation;
use kd_core::ops::packed::Precision;
use kd_core::optim::AdamWConfig;
use kd_core::schedule::Schedule;
use kd_core::trainer::{Outcome, Trainer, TrainerConfig};
use kd_data::batches::{BatchPlan, DEFAULT_POOL, collate_labels, sequential};
use kd_data::digest;
use kd_data::encode::{Encode, EncodedWords, WordPieces};
use kd_data::tags::Classes;
use kd_data::teacher_outputs::{About, Content, FloatType, TeacherOutputs, TeacherRows};
use kd_teachers::config::EncoderConfig;
use kd_teachers::heads::{HeadOptions, TokenTagger};
use kd_teachers::hub::ModelFiles;
use serde::{Deserialize, Serialize};

use super::{Draw, Folder, Scores};
use crate::interrupt::{self, Interrupted};
use crate::progress::Progress;

/// How the teacher is fine-tuned.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct TeacherSettings {
    /// Hub id or folder of the encoder.
    pub model: String,
    /// Peak learning rate; it rises over the first tenth of the steps and falls to 0.
    pub lr: f64,
    /// Sentences a step.
    pub batch_size: usize,
    /// Updates; `None` scales them to the labelled set, see [`TeacherSettings::steps_for`].
    pub steps: Option<usize>,
    /// Largest norm of the gradient.
    pub clip_norm: f64,
}

impl TeacherSettings {
    /// `500 · √(sentences / 150)`, at least 500: 27 passes over 150 sentences and 3 over CoNLL-2003's 14,041.
    /// Three epochs, as usual for large sets, would be 57 steps on 150 sentences, too few to learn anything.
    pub fn steps_for(&self, sentences: usize) -> usize {
        self.steps.unwrap_or_else(|| (500.0 * (sentences as f64 / 150.0).sqrt()).round().max(500.0) as usize)
    }
}

/// A pretrained encoder's files and what its outputs depend on.
#[derive(Debug)]
pub struct Pretrained {
    /// Where they are.
    pub files: ModelFiles,
    /// The tokenizer.
    pub pieces: WordPieces,
    /// Its longest sequence, in pieces.
    pub max_len: usize,
    digest: String,
}

impl Pretrained {
    /// Reads the tokenizer and takes the digest of the weights.
    pub fn open(files: ModelFiles) -> Result<Self> {
        let pieces = WordPieces::from_file(&files.tokenizer)?;
        let digests = files.weights.iter().map(digest::of_file).collect::<kd_data::Result<Vec<_>>>()?;
        let max_len = EncoderConfig::read(&files.config)?.max_positions;
        Ok(Self { digest: digest::of_parts(digests), max_len, pieces, files })
    }

    /// The encoder under a new head, and its variables.
    pub fn tagger(
        &self,
        classes: &Classes,
        seed: u64,
        device: &Device,
    ) -> Result<(TokenTagger, kd_core::variables::Variables)> {
        let loaded = TokenTagger::from_files(&self.files, classes.names(), seed, device, &HeadOptions::default())?;
        self.pieces.check_vocabulary(loaded.0.encoder().config().vocabulary)?;
        Ok(loaded)
    }
}

/// What the teacher says of every sentence of `draw`, from the folder if it was asked before, and its scores.
pub fn ask(
    draw: &Draw,
    classes: &Classes,
    pretrained: &Pretrained,
    settings: &TeacherSettings,
    seed: u64,
    device: &Device,
    folder: &Folder,
) -> Result<(TeacherRows, Scores)> {
    let steps = settings.steps_for(draw.labelled);
    // Training is a function of these, so they stand for the fine-tuned weights.
    let labelled =
        serde_json::to_string(&draw.data.examples[..draw.labelled].iter().map(|s| &s.tags).collect::<Vec<_>>())?;
    let weights =
        digest::of_parts([&pretrained.digest, &serde_json::to_string(settings)?, &seed.to_string(), &labelled]);
    let about = About {
        tokenizer: pretrained.pieces.digest().to_string(),
        max_len: pretrained.max_len,
        weights,
        ..About::named(&settings.model, "", classes.names().to_vec())
    };
    let path = folder.path.join("teacher-outputs.shard");
    let found = if path.exists() { Some(TeacherOutputs::open_file(&path)?) } else { None };
    let is_whole = |stored: &TeacherOutputs| {
        stored.about().key() == about.key() && draw.data.examples.iter().all(|sentence| stored.contains(sentence))
    };
    let stored = match found.filter(is_whole) {
        Some(stored) => stored,
        None => {
            let stored = fine_tune_and_ask(draw, classes, pretrained, settings, seed, device, folder, about)?;
            stored.export(&path, &draw.data.examples, FloatType::F32)?;
            stored
        }
    };
    let outputs = stored.join(&draw.data.examples)?;
    let scores = folder.cached("teacher", || {
        let f1 = |ids: &[usize]| -> Result<f64> {
            let labels = ids.iter().map(|&id| outputs.labels(id, classes.names()));
            draw.f1(ids, &labels.collect::<candle_core::Result<Vec<_>>>()?, classes)
        };
        Ok(Scores { small_dev_f1: None, dev_f1: f1(&draw.dev())?, test_f1: f1(&draw.test())?, steps, best_step: steps })
    })?;
    Ok((outputs, scores))
}

#[expect(clippy::too_many_arguments, reason = "the second half of `ask`, cut off for reading")]
fn fine_tune_and_ask(
    draw: &Draw,
    classes: &Classes,
    pretrained: &Pretrained,
    settings: &TeacherSettings,
    seed: u64,
    device: &Device,
    folder: &Folder,
    about: About,
) -> Result<TeacherOutputs> {
    let (tagger, variables) = pretrained.tagger(classes, seed, device)?;
    let max_len = pretrained.max_len;
    let words = draw.data.examples.iter().map(|sentence| &sentence.words);
    let encoded = EncodedWords::new(&pretrained.pieces, words, max_len, device)?;
    for &(sentence, word) in encoded.shortened() {
        let sentence = &draw.data.examples[sentence];
        eprintln!(
            "note: the teacher reads only the start of `{}`, which has more than {max_len} pieces",
            sentence.words[word]
        );
    }
    let labels = classes.encode(&draw.data.select(&(0..draw.labelled).collect::<Vec<_>>()))?;
    let plan = BatchPlan::new(encoded.lengths()[..draw.labelled].to_vec(), settings.batch_size, seed, DEFAULT_POOL)?;
    let batches = plan.batches(|examples| {
        Ok(Batch {
            tokens: encoded.collate(&examples)?,
            labels: Some(collate_labels(&labels, &examples, device)?),
            targets: vec![],
            teachers: Vec::new(),
            weights: None,
            task: 0,
            examples,
        })
    });
    let steps = settings.steps_for(draw.labelled);
    let config = TrainerConfig {
        schedule: Schedule::WarmupLinear { warmup: steps / 10, total: steps },
        clip_norm: Some(settings.clip_norm),
        checkpoint_every: folder.checkpoint_every,
        seed,
        ..TrainerConfig::new(steps, AdamWConfig::with_lr(settings.lr))
    };
    let checkpoint = folder.path.join("teacher.checkpoint");
    let mut trainer =
        Trainer::new(&tagger, &variables, &Distillation::LABELS_ONLY, config)?.with_checkpoint(&checkpoint)?;
    let mut progress = Progress::new("teacher", steps, trainer.step_count(), "steps");
    if trainer.fit(&batches, None, &mut progress)? == Outcome::Interrupted {
        bail!(Interrupted);
    }
    drop(progress);

    let tagger = tagger.pack(Precision::F32)?; // from here on it is only asked
    let mut stored = TeacherOutputs::in_memory(about)?;
    let mut progress = Progress::new("teacher's outputs", draw.data.len(), 0, "sentences");
    let mut done = 0;
    for examples in sequential(encoded.lengths(), 2048) {
        interrupt::check()?;
        let tokens = encoded.collate(&examples)?;
        let logits = tagger.forward(&tokens, Mode::Eval)?.detach();
        let contents: Vec<Content> = examples.iter().map(|&id| (&draw.data.examples[id]).into()).collect();
        stored.append_output(&contents, &tokens, &logits)?;
        done += examples.len();
        progress.set(done, "");
    }
    // The logits are what students need; the weights can be had again from the seed.
    if let Err(error) = std::fs::remove_file(&checkpoint)
        && error.kind() != std::io::ErrorKind::NotFound
    {
        bail!("{}: {error}", checkpoint.display());
    }
    Ok(stored)
}
