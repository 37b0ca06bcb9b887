//! One draw of a low-resource tagging experiment: few labelled sentences, a teacher, students trained four ways.
//!
//! ```text
//! train --draw(seed)--> labelled + unlabelled      dev --draw(seed)--> small dev (chooses the best step)
//!   labelled --fine-tune--> teacher --once--> logits of every sentence, kept on disk
//!   labelled (+ unlabelled), logits --> student, four ways --> F1 on the whole of dev and test
//! ```
//!
//! Everything is kept in the draw's folder, and what is there already is not made again.

mod built_in;
mod from_file;
mod latency;
mod report;
mod students;
mod teacher;

use std::path::Path;

use anyhow::{Context, Result};
use kd_core::metrics::entity_f1;
use kd_data::conll::{ConllOptions, read_conll};
use kd_data::example::{Dataset, Sentence};
use kd_data::sample::draw;
use kd_data::tags::{Classes, TagScheme, convert_all};
use serde::{Deserialize, Serialize};

pub use crate::folder::Folder;
pub use from_file::{load, open, vectors};
pub use latency::{BatchLatency, Speed, measure};
pub use report::{Column, Report};
pub use students::{Classroom, StudentSettings, Tag, Trained, Way};
pub use teacher::{Pretrained, TeacherSettings, ask};

/// The three parts of a data set, in IOB2.
#[derive(Debug)]
pub struct Data {
    /// Sentences to draw from; the labels of those not drawn are not used.
    pub train: Dataset<Sentence>,
    /// Sentences to choose on.
    pub dev: Dataset<Sentence>,
    /// Sentences to report.
    pub test: Dataset<Sentence>,
    /// The tags of the training part.
    pub classes: Classes,
}

impl Data {
    /// Reads three CoNLL column files, of whatever tag scheme, into IOB2.
    ///
    /// # Errors
    /// If a file is malformed, or dev or test has a tag that train has not; the message names file and line.
    pub fn read(train: &Path, dev: &Path, test: &Path) -> Result<Self> {
        let read = |path: &Path| -> Result<_> {
            let mut data = read_conll(path, &ConllOptions::default())?;
            convert_all(&mut data, TagScheme::Iob2)?;
            Ok(data)
        };
        let (train, dev, test) = (read(train)?, read(dev)?, read(test)?);
        let classes = Classes::iob2(entity_types(&train))?;
        for part in [&dev, &test] {
            classes.encode(part)?;
        }
        Ok(Self { train, dev, test, classes })
    }
}

/// The types of the entities of IOB2 tags; one for every tag but `O`.
fn entity_types(data: &Dataset<Sentence>) -> impl Iterator<Item = &str> {
    data.examples.iter().flat_map(|sentence| &sentence.tags).filter_map(|tag| tag.split_once('-')).map(|(_, kind)| kind)
}

/// The sentences of one draw, all in one list: labelled, unlabelled, dev, test.
#[derive(Debug)]
pub struct Draw {
    /// The sentences; those not labelled still carry their gold tags, for scoring only.
    pub data: Dataset<Sentence>,
    /// Number of labelled sentences, the first of the list.
    pub labelled: usize,
    /// Number of labelled and unlabelled sentences together.
    pub training: usize,
    /// First sentence of test; dev lies between `training` and this.
    pub test: usize,
    /// Ids of as many dev sentences as there are labelled ones: what a low-resource run may choose its best step on.
    pub small_dev: Vec<usize>,
}

impl Draw {
    /// Draws `labels` labelled sentences (`None`: all) and at most `unlabelled` of the others.
    ///
    /// # Errors
    /// If there are fewer sentences than asked for.
    pub fn new(data: &Data, labels: Option<usize>, unlabelled: Option<usize>, seed: u64) -> Result<Self> {
        let labels = labels.unwrap_or(data.train.len());
        let (labelled, mut rest) = draw(data.train.len(), labels, seed)
            .with_context(|| format!("drawing labelled sentences from {}", data.train.path.display()))?;
        rest.truncate(unlabelled.unwrap_or(rest.len()));
        let (small_dev, _) = draw(data.dev.len(), labels.min(data.dev.len()), seed)?;
        let of_train = |ids: Vec<usize>| ids.into_iter().map(|id| data.train.examples[id].clone());
        let mut examples: Vec<Sentence> = of_train(labelled).chain(of_train(rest)).collect();
        let training = examples.len();
        examples.extend(data.dev.examples.iter().cloned());
        let test = examples.len();
        examples.extend(data.test.examples.iter().cloned());
        let small_dev = small_dev.into_iter().map(|id| training + id).collect();
        let data = Dataset { path: data.train.path.clone(), examples };
        Ok(Self { data, labelled: labels, training, test, small_dev })
    }

    /// Ids of the whole of dev.
    pub fn dev(&self) -> Vec<usize> {
        (self.training..self.test).collect()
    }

    /// Ids of the whole of test.
    pub fn test(&self) -> Vec<usize> {
        (self.test..self.data.len()).collect()
    }

    /// Exact entity F1 of `predicted` class ids for the sentences `ids`.
    pub fn f1(&self, ids: &[usize], predicted: &[Vec<u32>], classes: &Classes) -> Result<f64> {
        let named: Vec<Vec<&str>> = predicted
            .iter()
            .map(|tags| tags.iter().map(|&tag| classes.name(tag).context("a class without a name")).collect())
            .collect::<Result<_>>()?;
        let gold = ids.iter().map(|&id| self.data.examples[id].tags.as_slice());
        Ok(entity_f1(gold.zip(named.iter().map(Vec::as_slice)))?.f1())
    }
}

/// F1 on dev and test.
#[derive(Debug, Clone, Copy, PartialEq, Serialize, Deserialize)]
pub struct Scores {
    /// On the sample of dev that chose the best step; `None` for the teacher, whose last step counts.
    pub small_dev_f1: Option<f64>,
    /// On the whole of dev.
    pub dev_f1: f64,
    /// On the whole of test.
    pub test_f1: f64,
    /// Updates made.
    pub steps: usize,
    /// Step of the weights that were scored.
    pub best_step: usize,
}
