//! Trains a student one of four ways and scores it.

use anyhow::{Result, bail};
use candle_core::{DType, Device};
use kd_core::batch::Batch;
use kd_core::model::{Mode, Output, Student};
use kd_core::objective::{CrfTarget, Distillation};
use kd_core::optim::AdamWConfig;
use kd_core::schedule::Schedule;
use kd_core::trainer::{Outcome, Trainer, TrainerConfig};
use kd_core::variables::Variables;
use kd_data::batches::{BatchPlan, DEFAULT_POOL, collate_labels, restore, sequential};
use kd_data::glove::Vectors;
use kd_data::tags::Classes;
use kd_data::teacher_outputs::TeacherOutputs;
use kd_data::vocabulary::Vocabulary;
use kd_students::bundle::{self, BundleOptions, Description, StudentConfig};
use kd_students::encoder::WordEncoderConfig;
use kd_students::lookup::{Kind, Lookup};
use kd_students::tagger::{Head, Tagger, TaggerConfig, decode};
use serde::{Deserialize, Serialize};

use super::{Draw, Folder, Scores};
use crate::interrupt::Interrupted;
use crate::progress::Progress;

/// What a student learns from.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Way {
    /// The gold labels of the labelled sentences.
    Gold,
    /// The same, and the teacher's distribution over the tags of those sentences.
    Distilled,
    /// The gold labels, and on unlabelled sentences the teacher's most likely tags as if they were gold.
    Pseudo,
    /// Both: labels and the teacher's distribution, on labelled and unlabelled sentences.
    Both,
}

impl Way {
    /// All four, in the order of the table.
    pub const ALL: [Self; 4] = [Self::Gold, Self::Distilled, Self::Pseudo, Self::Both];

    /// Name in tables and folders.
    pub fn name(self) -> &'static str {
        match self {
            Self::Gold => "gold",
            Self::Distilled => "distilled",
            Self::Pseudo => "pseudo",
            Self::Both => "both",
        }
    }

    fn is_distilled(self) -> bool {
        matches!(self, Self::Distilled | Self::Both)
    }

    fn reads_unlabelled(self) -> bool {
        matches!(self, Self::Pseudo | Self::Both)
    }
}

/// How students are made and trained; the same for all four ways, so that the comparison is fair.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct StudentSettings {
    /// Softmax or CRF.
    pub head: Head,
    /// What is distilled into a CRF.
    pub crf_target: CrfTarget,
    /// Learning rate, constant.
    pub lr: f64,
    /// Sentences a step.
    pub batch_size: usize,
    /// Updates.
    pub steps: usize,
    /// Steps between evaluations on the small dev sample; the best one is kept.
    pub evaluate_every: usize,
    /// Evaluations without a better one that end training; `None` makes all steps.
    pub patience: Option<usize>,
    /// Largest norm of the gradient.
    pub clip_norm: f64,
    /// Weight of the labels when the teacher's distribution is used too; the teacher's weight is 1 minus this.
    pub alpha: f64,
    /// Temperature of both sides.
    pub temperature: f64,
    /// Words that get a row because they stand first in the vectors' file, which is sorted by frequency.
    pub vector_rows: usize,
    /// Times that a word without a vector must occur in the training text to get a row.
    pub min_count: usize,
}

impl StudentSettings {
    fn objective(&self, way: Way) -> Distillation {
        let (hard, soft) = if way.is_distilled() { (self.alpha, 1.0 - self.alpha) } else { (1.0, 0.0) };
        Distillation { hard, soft, temperature: self.temperature, crf_target: self.crf_target }
    }

    fn trainer(&self, seed: u64, checkpoint_every: usize) -> TrainerConfig {
        TrainerConfig {
            steps: self.steps,
            optimizer: AdamWConfig { weight_decay: 0.0, ..AdamWConfig::with_lr(self.lr) },
            schedule: Schedule::Constant,
            clip_norm: Some(self.clip_norm),
            evaluate_every: self.evaluate_every,
            patience: self.patience,
            checkpoint_every,
            seed,
        }
    }
}

/// The words and characters that the students of a draw know: those of the training text, labelled or not, and the
/// commonest words of the vectors' file.
///
/// Dev and test are not looked at. A rare word without a vector gets no row, so that the row of unknown words is trained.
pub fn lookup(draw: &Draw, vectors: Option<&Vectors>, settings: &StudentSettings) -> Result<Lookup> {
    let texts = || draw.data.examples[..draw.training].iter().map(|sentence| &sentence.words);
    let has_vector: std::collections::HashSet<&str> =
        vectors.iter().flat_map(|vectors| &vectors.words).map(String::as_str).collect();
    let keep = |word: &str, count: usize| count >= settings.min_count || has_vector.contains(word);
    let mut words = Vocabulary::words_where(texts(), keep);
    words.extend_with(vectors.iter().flat_map(|vectors| vectors.words.iter().take(settings.vector_rows)));
    let characters = Vocabulary::characters(texts());
    let characters = characters.symbols().iter().flat_map(|symbol| symbol.chars()).collect();
    Ok(Lookup::new(words.symbols().to_vec(), characters, true, WordEncoderConfig::compact(2, 2).max_chars)?)
}

/// A trained student and its scores.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Trained {
    /// F1, steps.
    pub scores: Scores,
    /// Number of values in all variables.
    pub parameters: usize,
    /// Size of the saved folder, in bytes.
    pub bytes: u64,
}

/// What all students of one draw share.
#[derive(Debug)]
pub struct Classroom<'a> {
    /// The sentences.
    pub draw: &'a Draw,
    /// The tags.
    pub classes: &'a Classes,
    /// The teacher's answers.
    pub outputs: &'a TeacherOutputs,
    /// Words and characters.
    pub lookup: &'a Lookup,
    /// Pretrained word vectors.
    pub vectors: Option<&'a Vectors>,
    /// Sizes and training.
    pub settings: &'a StudentSettings,
    /// Seed of the draw; initial weights and the order of examples depend on it alone, not on the way.
    pub seed: u64,
    /// Where to train.
    pub device: &'a Device,
}

impl Classroom<'_> {
    /// A student trained `way`, saved as `folder/NAME`, from the folder if it was trained before.
    pub fn train(&self, way: Way, folder: &Folder) -> Result<Trained> {
        folder.cached(way.name(), || self.train_anew(way, folder))
    }

    fn train_anew(&self, way: Way, folder: &Folder) -> Result<Trained> {
        let Self { draw, classes, settings, seed, device, .. } = *self;
        let config = TaggerConfig {
            encoder: WordEncoderConfig::compact(self.lookup.word_rows(), self.lookup.character_rows()),
            head: settings.head,
        };
        let variables = Variables::new(seed, DType::F32, device);
        let tagger = Tagger::new(&config, classes.len(), variables.builder())?;
        if let Some(vectors) = self.vectors {
            let pairs = vectors.words.iter().zip(vectors.values.chunks_exact(vectors.width));
            let rows = pairs.filter_map(|(word, vector)| match self.lookup.word(word) {
                kd_students::encoder::UNKNOWN => None,
                row => Some((row as usize, vector.to_vec())),
            });
            tagger.set_word_vectors(&rows.collect::<Vec<_>>())?;
        }

        let trained_on = if way.reads_unlabelled() { draw.training } else { draw.labelled };
        let mut labels = classes.encode(&draw.data.select(&(0..draw.labelled).collect::<Vec<_>>()))?;
        for example in draw.labelled..trained_on {
            labels.push(self.outputs.labels(example, classes.names())?);
        }
        let lengths: Vec<usize> = draw.data.examples.iter().map(|sentence| sentence.words.len()).collect();
        let plan = BatchPlan::new(lengths[..trained_on].to_vec(), settings.batch_size, seed, DEFAULT_POOL)?;
        let batches = |step: usize| {
            let examples = plan.indices(step);
            let logits = self.outputs.collate(&examples, classes.names(), device)?;
            Ok(Batch {
                tokens: self.tokens(&examples)?,
                labels: Some(collate_labels(&labels, &examples, device)?),
                teachers: vec![Output::from_logits(logits)],
                weights: None,
                task: 0,
                examples,
            })
        };
        let f1 = |ids: &[usize]| draw.f1(ids, &self.predict(&tagger, &lengths, ids)?, classes);
        let mut evaluate = || f1(&draw.small_dev).map_err(|error| candle_core::Error::msg(error).into());

        let objective = settings.objective(way);
        let checkpoint = folder.path.join(format!("{}.checkpoint", way.name()));
        let mut trainer =
            Trainer::new(&tagger, &variables, &objective, settings.trainer(seed, folder.checkpoint_every))?.with_checkpoint(&checkpoint)?;
        let mut progress = Progress::new(way.name(), settings.steps, trainer.step_count(), "steps");
        if trainer.fit(&batches, Some(&mut evaluate), &mut progress)? == Outcome::Interrupted {
            bail!(Interrupted);
        }
        drop(progress);

        let best = trainer.best();
        let scores = Scores {
            small_dev_f1: best.map(|best| best.score),
            dev_f1: f1(&draw.dev())?,
            test_f1: f1(&draw.test())?,
            steps: trainer.step_count(),
            best_step: best.map_or(trainer.step_count(), |best| best.step),
        };
        let description = Description {
            student: StudentConfig::Tagger(config),
            classes: classes.names().to_vec(),
            words: self.lookup.words().to_vec(),
            characters: self.lookup.characters().to_vec(),
            lower_case: true,
        };
        let bytes = bundle::save(&folder.path.join(way.name()), &description, &variables, BundleOptions::default())?;
        if checkpoint.exists() {
            std::fs::remove_file(&checkpoint)?;
        }
        Ok(Trained { scores, parameters: variables.parameter_count(), bytes })
    }

    fn tokens(&self, examples: &[usize]) -> candle_core::Result<kd_core::batch::Tokens> {
        let words: Vec<Vec<String>> = examples.iter().map(|&id| self.draw.data.examples[id].words.clone()).collect();
        self.lookup.tokens(&words, Kind::Words, self.device)
    }

    fn predict(&self, tagger: &Tagger, lengths: &[usize], ids: &[usize]) -> Result<Vec<Vec<u32>>> {
        let lengths: Vec<usize> = ids.iter().map(|&id| lengths[id]).collect();
        let batches = sequential(&lengths, 4096);
        let mut results = Vec::new();
        for batch in &batches {
            let examples: Vec<usize> = batch.iter().map(|&place| ids[place]).collect();
            let tokens = self.tokens(&examples)?;
            let per_example = tokens.rows_per_example()?;
            let mut classes = decode(&tagger.forward(&tokens, Mode::Eval)?.detach(), &per_example)?.into_iter();
            results.push(per_example.iter().map(|&rows| classes.by_ref().take(rows).collect()).collect::<Vec<_>>());
        }
        Ok(restore(&batches, results))
    }
}
