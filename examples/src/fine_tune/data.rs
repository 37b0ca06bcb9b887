//! The parts of a task, as examples and as the encoder's tokens.

use std::fmt::Write;

use anyhow::{Context, Result, bail};
use candle_core::{Device, Tensor};
use kd_core::model::{Mode, Student};
use kd_data::batches::{collate_labels, restore, sequential};
use kd_data::digest;
use kd_data::encode::{Encode, EncodedTexts, EncodedWords, WordPieces};
use kd_data::task::{Examples, Part, Scores, Targets, Task, TaskKind};

use crate::progress::Progress;

/// Word pieces of a batch that is only asked.
const TOKENS: usize = 4096;

/// The parts of a task.
#[derive(Debug)]
pub struct Data {
    /// The task.
    pub task: Task,
    /// The classes in the order of the model's columns.
    pub classes: Vec<String>,
    /// To learn from.
    pub train: Examples,
    /// To choose on, and to report: dev always, test where there is one.
    pub others: Vec<(Part, Examples)>,
}

impl Data {
    /// The parts that `read` gives, train and dev at least, and of train the first `limit` examples.
    ///
    /// # Errors
    /// If there is no train or dev part, or a label of dev or test is none of train's.
    pub fn new(
        task: Task,
        limit: Option<usize>,
        read: impl Fn(&Task, Part) -> Result<Option<Examples>>,
    ) -> Result<Self> {
        let mut train = read(&task, Part::Train)?.context("there is no train part")?;
        let classes = task.classes_of(&train)?; // of all of it, whatever the limit
        train.truncate(limit.unwrap_or(usize::MAX));
        if train.is_empty() {
            bail!("--limit-train: expected at least 1, found 0");
        }
        let dev = read(&task, Part::Dev)?.context("there is no dev part")?;
        if !dev.is_labelled() {
            bail!("{}: expected labelled examples, found none: they choose and are reported", dev.path().display());
        }
        let mut others = vec![(Part::Dev, dev)];
        others.extend(read(&task, Part::Test)?.map(|test| (Part::Test, test)));
        // What scoring will refuse is refused before there is a training.
        for (_, examples) in others.iter().filter(|(_, examples)| examples.is_labelled()) {
            task.targets(examples, &classes)?;
        }
        Ok(Self { task, classes, train, others })
    }

    /// A digest of every part, by name.
    pub fn digests(&self) -> serde_json::Value {
        let of = |examples: &Examples| match examples {
            Examples::Texts { data, .. } => {
                digest::of_parts(data.examples.iter().map(|example| format!("{example:?}")))
            }
            Examples::Sentences(data) => digest::of_parts(data.examples.iter().map(|example| format!("{example:?}"))),
        };
        let mut digests = serde_json::Map::from_iter([("train".to_string(), of(&self.train).into())]);
        digests.extend(self.others.iter().map(|(part, examples)| (part.name().to_string(), of(examples).into())));
        digests.into()
    }
}

/// The same in word pieces.
pub struct Encoded<'a> {
    /// Texts and labels.
    pub data: &'a Data,
    /// The training part.
    pub train: Box<dyn Encode>,
    /// Dev and test.
    others: Vec<Box<dyn Encode>>,
    targets: Targets,
    device: Device,
}

impl std::fmt::Debug for Encoded<'_> {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Encoded").field("data", self.data).finish_non_exhaustive()
    }
}

impl<'a> Encoded<'a> {
    /// Every part in pieces of at most `max_len` a sequence. Texts are cut at their end, sentences of words into windows;
    /// how many were is said on standard error.
    pub fn new(data: &'a Data, pieces: &WordPieces, max_len: usize, device: &Device) -> Result<Self> {
        let of = |part: Part, examples: &Examples| encode(part.name(), examples, pieces, max_len, device);
        let others = data.others.iter().map(|(part, examples)| of(*part, examples)).collect::<Result<_>>()?;
        let targets = data.task.targets(&data.train, &data.classes)?;
        Ok(Self { data, train: of(Part::Train, &data.train)?, others, targets, device: device.clone() })
    }

    /// The labels of these training examples: classes `(rows,)` u32, numbers `(rows, 1)` f32, or 1 for each of several
    /// classes and 0 for the others, `(rows, classes)` f32.
    pub fn labels(&self, examples: &[usize]) -> candle_core::Result<Tensor> {
        let (rows, classes) = (examples.len(), self.data.classes.len());
        match &self.targets {
            Targets::Classes(classes) => collate_labels(classes, examples, &self.device),
            Targets::Scores(scores) => {
                let scores: Vec<f32> = examples.iter().map(|&id| scores[id] as f32).collect();
                Tensor::from_vec(scores, (rows, 1), &self.device)
            }
            Targets::Sets(sets) => {
                let mut targets = vec![0f32; rows * classes];
                for (row, &id) in targets.chunks_mut(classes).zip(examples) {
                    sets[id].iter().for_each(|&class| row[class as usize] = 1.0);
                }
                Tensor::from_vec(targets, (rows, classes), &self.device)
            }
        }
    }

    /// The scores on dev, and on test where it has labels.
    pub fn evaluate(&self, student: &dyn Student) -> Result<Vec<(Part, Scores)>> {
        let labelled = self.data.others.iter().enumerate().filter(|(_, (_, examples))| examples.is_labelled());
        labelled
            .map(|(idx, (part, examples))| {
                let logits = self.logits(idx, student)?;
                Ok((*part, self.data.task.scores(examples, &self.data.classes, &logits)?))
            })
            .collect()
    }

    /// What `student` says of the rows of every example of part `idx` of the others.
    pub fn logits(&self, idx: usize, student: &dyn Student) -> Result<Vec<Vec<Vec<f32>>>> {
        let encoded = &self.others[idx];
        let batches = sequential(encoded.lengths(), TOKENS);
        let mut progress = Progress::new(self.data.others[idx].0.name(), encoded.lengths().len(), 0, "examples");
        let (mut results, mut done) = (Vec::with_capacity(batches.len()), 0);
        for examples in &batches {
            let tokens = encoded.collate(examples)?;
            let mut rows = student.forward(&tokens, Mode::Eval)?.detach().logits()?.to_vec2::<f32>()?.into_iter();
            results
                .push(examples.iter().map(|&id| rows.by_ref().take(encoded.rows()[id]).collect()).collect::<Vec<_>>());
            done += examples.len();
            progress.set(done, "");
        }
        Ok(restore(&batches, results))
    }
}

impl Encoded<'_> {
    /// What `student` says of the rows of `part`, tab-separated: the example's position, from 0, in tagging the word, the
    /// prediction (a class, a number, or classes parted by `|`), and the logits under the names of their classes.
    ///
    /// # Errors
    /// If the task has no such part.
    pub fn predictions(&self, part: Part, student: &dyn Student) -> Result<String> {
        let Some(idx) = self.data.others.iter().position(|(other, _)| *other == part) else {
            bail!("--predict: expected a {} part, found none", part.name());
        };
        let classes = &self.data.classes;
        let prediction = |row: &[f32]| match self.data.task.kind {
            TaskKind::Regression => row[0].to_string(),
            TaskKind::MultiLabel => {
                let above = classes.iter().zip(row).filter(|(_, logit)| **logit > 0.0);
                above.map(|(name, _)| name.as_str()).collect::<Vec<_>>().join("|")
            }
            TaskKind::Classification | TaskKind::Tagging => classes[largest(row)].clone(),
        };
        let sentences = match &self.data.others[idx].1 {
            Examples::Sentences(sentences) => Some(sentences),
            Examples::Texts { .. } => None,
        };
        let word = if sentences.is_some() { "\tword" } else { "" };
        let mut lines = format!("index{word}\tprediction\t{}\n", classes.join("\t"));
        for (index, rows) in self.logits(idx, student)?.iter().enumerate() {
            for (row_idx, row) in rows.iter().enumerate() {
                let word = sentences.map_or(String::new(), |data| format!("\t{}", data.examples[index].words[row_idx]));
                let logits: String = row.iter().map(|logit| format!("\t{logit}")).collect();
                writeln!(lines, "{index}{word}\t{}{logits}", prediction(row))?;
            }
        }
        Ok(lines)
    }
}

/// The place of the first of the largest.
fn largest(row: &[f32]) -> usize {
    (0..row.len()).rev().max_by(|&a, &b| row[a].total_cmp(&row[b])).unwrap_or(0)
}

/// The examples in pieces of at most `max_len` a sequence; how many are cut is said on standard error.
///
/// # Errors
/// If the tokenizer fails, or `max_len` leaves no room.
pub fn encode(
    name: &str,
    examples: &Examples,
    pieces: &WordPieces,
    max_len: usize,
    device: &Device,
) -> Result<Box<dyn Encode>> {
    let (encoded, shortened): (Box<dyn Encode>, usize) = match examples {
        Examples::Sentences(data) => {
            let encoded = EncodedWords::new(pieces, &data.examples, max_len, device)?;
            let shortened = encoded.shortened().len();
            (Box::new(encoded), shortened)
        }
        Examples::Texts { data, left_out } => {
            if !left_out.is_empty() {
                eprintln!("note: {} lines of {} hold no example", left_out.len(), data.path.display());
            }
            let texts = &data.examples;
            let encoded = if texts.iter().any(|example| example.second.is_some()) {
                let pair = |example: &kd_data::example::TextExample| {
                    (example.first.clone(), example.second.clone().unwrap_or_default())
                };
                EncodedTexts::pairs(pieces, texts.iter().map(pair), max_len, device)?
            } else {
                EncodedTexts::new(pieces, texts.iter().map(|example| &example.first), max_len, device)?
            };
            let shortened = encoded.shortened().len();
            (Box::new(encoded), shortened)
        }
    };
    if shortened > 0 {
        eprintln!("note: {shortened} of {} {name} texts or words are cut to {max_len} pieces", examples.len());
    }
    Ok(encoded)
}
