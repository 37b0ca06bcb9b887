//! The tasks that have a name: their files, their classes, and the numbers that say how good predictions are.
//!
//! | name                       | kind            | files of train, dev, test                                          | metrics, the first chooses      |
//! |----------------------------|-----------------|--------------------------------------------------------------------|---------------------------------|
//! | `rte`, `qnli`, `sst2`      | classification  | `train.tsv`, `dev.tsv`, `test.tsv` ([`glue`](crate::glue))         | accuracy                        |
//! | `mrpc`, `qqp`              | classification  | the same                                                           | accuracy, F1 of the second class|
//! | `cola`                     | classification  | the same                                                           | Matthews, accuracy              |
//! | `mnli`, `mnli-mismatched`  | classification  | `train.tsv`, `dev_matched.tsv`, … or `dev_mismatched.tsv`, …       | accuracy                        |
//! | `stsb`                     | regression      | as `rte`                                                           | Pearson, Spearman               |
//! | `snli`                     | classification  | `train.tsv`, …, or `snli_1.0_train.txt`, …, or its `.jsonl`        | accuracy                        |
//! | `wikiqa`                   | classification  | `WikiQA-train.tsv`, …                                              | MAP, MRR, area under the ROC    |
//! | `query-passage`            | classification  | `train.tsv` or `train_autotest.tsv`, `valid.tsv`, `test.tsv` ([`neuronblocks`]: gold only in test) | area under the ROC, accuracy |
//! | `conll2003`                | tagging         | `eng.train`, `eng.testa`, `eng.testb`, or `train.txt`, `valid.txt`, `test.txt` | F1 of entities      |
//! | `wnut17`                   | tagging         | `wnut17train.conll`, `emerging.dev.conll`, `emerging.test.annotated` | F1 of entities                |
//! | `snips-intents`            | classification  | the folders `train`, `valid`, `test` ([`snips`](crate::snips))     | accuracy                        |
//! | `snips-slots`              | tagging         | the same                                                           | F1 of slots                     |
//! | any, [`Task::of_columns`]  | by its labels   | `train`, `dev`, `test` with `.tsv`, `.csv`, `.jsonl` or `.parquet` | by its labels                   |
//!
//! ```
//! use kd_data::task::{Metric, Task};
//! let task = Task::named("mrpc")?;
//! assert_eq!(task.classes, Some(vec!["not_equivalent".to_string(), "equivalent".to_string()]));
//! assert_eq!(task.metrics, [Metric::Accuracy, Metric::F1]);
//! # Ok::<(), kd_data::Error>(())
//! ```

mod examples;
mod scores;

use std::path::{Path, PathBuf};

use serde::{Deserialize, Serialize};

use crate::columns::{Columns, LabelKind, Rows};
use crate::conll::{ConllOptions, read_conll};
use crate::error::{Error, Result};
use crate::example::{Dataset, Label, TextExample, Utterance};
use crate::glue::{Glue, read_glue};
use crate::snips::read_snips;
use crate::tags::{TagScheme, convert_all};
use crate::{neuronblocks, snli, wikiqa};

pub use self::examples::{Examples, Targets};
pub use self::scores::{Metric, Scores};

/// A task: what is read, what is predicted, and how it is measured.
#[derive(Debug, Clone, PartialEq)]
pub struct Task {
    /// Its name.
    pub name: String,
    /// What is predicted.
    pub kind: TaskKind,
    /// The classes in the order of their columns, where the task says which there are; none: those of the training part
    /// ([`Task::classes_of`]).
    pub classes: Option<Vec<String>>,
    /// What predictions are measured by; the first chooses between models.
    pub metrics: Vec<Metric>,
    format: Format,
}

/// What is predicted.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum TaskKind {
    /// One class of a text or a pair.
    Classification,
    /// A number of a text or a pair.
    Regression,
    /// Any number of classes of a text or a pair, each for itself.
    MultiLabel,
    /// One class of every word, in IOB2.
    Tagging,
}

/// A part of a data set.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Part {
    /// To learn from.
    Train,
    /// To choose on.
    Dev,
    /// To report.
    Test,
}

impl Part {
    /// All three.
    pub const ALL: [Part; 3] = [Part::Train, Part::Dev, Part::Test];

    /// `train`, `dev` or `test`.
    pub fn name(self) -> &'static str {
        ["train", "dev", "test"][self as usize]
    }
}

#[derive(Debug, Clone, PartialEq)]
enum Format {
    Glue { set: Glue, suffix: &'static str },
    Snli,
    WikiQa,
    QueryPassage,
    Conll([&'static [&'static str]; 3]),
    SnipsIntents,
    SnipsSlots,
    Columns(Columns),
}

const CONLL_2003: [&[&str]; 3] =
    [&["eng.train", "train.txt"], &["eng.testa", "valid.txt", "dev.txt"], &["eng.testb", "test.txt"]];
const WNUT_17: [&[&str]; 3] = [&["wnut17train.conll"], &["emerging.dev.conll"], &["emerging.test.annotated"]];

impl Task {
    /// The names that [`Task::named`] knows.
    pub const NAMES: [&str; 16] = [
        "rte",
        "mrpc",
        "sst2",
        "qnli",
        "mnli",
        "mnli-mismatched",
        "qqp",
        "cola",
        "stsb",
        "snli",
        "wikiqa",
        "query-passage",
        "conll2003",
        "wnut17",
        "snips-intents",
        "snips-slots",
    ];

    /// The task of a name.
    ///
    /// # Errors
    /// If there is none of that name; the message lists those that there are.
    pub fn named(name: &str) -> Result<Self> {
        use Metric::{
            Accuracy, F1, Matthews, MeanAveragePrecision, MeanReciprocalRank, Pearson, RocAuc, SpanF1, Spearman,
        };
        let glue = |set: Glue, suffix, metrics: &[Metric]| {
            let classes = set.classes();
            let kind = if classes.is_some() { TaskKind::Classification } else { TaskKind::Regression };
            Self { name: name.into(), kind, classes, metrics: metrics.to_vec(), format: Format::Glue { set, suffix } }
        };
        let task = |kind, classes, metrics: &[Metric], format| Self {
            name: name.into(),
            kind,
            classes,
            metrics: metrics.to_vec(),
            format,
        };
        let (classification, tagging) = (TaskKind::Classification, TaskKind::Tagging);
        let ranking = [MeanAveragePrecision, MeanReciprocalRank, RocAuc];
        Ok(match name {
            "rte" => glue(Glue::Rte, "", &[Accuracy]),
            "mrpc" => glue(Glue::Mrpc, "", &[Accuracy, F1]),
            "sst2" => glue(Glue::Sst2, "", &[Accuracy]),
            "qnli" => glue(Glue::Qnli, "", &[Accuracy]),
            "mnli" => glue(Glue::Mnli, "_matched", &[Accuracy]),
            "mnli-mismatched" => glue(Glue::Mnli, "_mismatched", &[Accuracy]),
            "qqp" => glue(Glue::Qqp, "", &[Accuracy, F1]),
            "cola" => glue(Glue::Cola, "", &[Matthews, Accuracy]),
            "stsb" => glue(Glue::StsB, "", &[Pearson, Spearman]),
            "snli" => task(classification, Some(snli::classes()), &[Accuracy], Format::Snli),
            "wikiqa" => task(classification, Some(wikiqa::classes()), &ranking, Format::WikiQa),
            "query-passage" => {
                task(classification, Some(neuronblocks::classes()), &[RocAuc, Accuracy], Format::QueryPassage)
            }
            "conll2003" => task(tagging, None, &[SpanF1], Format::Conll(CONLL_2003)),
            "wnut17" => task(tagging, None, &[SpanF1], Format::Conll(WNUT_17)),
            "snips-intents" => task(classification, None, &[Accuracy], Format::SnipsIntents),
            "snips-slots" => task(tagging, None, &[SpanF1], Format::SnipsSlots),
            _ => {
                let expected = format!("one of {}", Self::NAMES.join(", "));
                return Err(Error::argument("task", expected, format!("`{name}`")));
            }
        })
    }

    /// A task of plain tables; their column of labels decides its kind and its metrics: accuracy, Pearson and Spearman, or
    /// micro-averaged F1 and exact match.
    pub fn of_columns(name: impl Into<String>, columns: Columns) -> Self {
        let (kind, metrics) = match columns.kind {
            LabelKind::Class => (TaskKind::Classification, vec![Metric::Accuracy]),
            LabelKind::Score => (TaskKind::Regression, vec![Metric::Pearson, Metric::Spearman]),
            LabelKind::Classes { .. } => (TaskKind::MultiLabel, vec![Metric::MicroF1, Metric::ExactMatch]),
        };
        Self { name: name.into(), kind, classes: None, metrics, format: Format::Columns(columns) }
    }

    /// The names, in this order of preference, that the file or folder of a part may have.
    pub fn file_names(&self, part: Part) -> Vec<String> {
        let name = part.name();
        match &self.format {
            Format::Glue { suffix, .. } if part != Part::Train => vec![format!("{name}{suffix}.tsv")],
            Format::Glue { .. } => vec![format!("{name}.tsv")],
            Format::Snli => {
                ["NAME.tsv", "snli_1.0_NAME.txt", "snli_1.0_NAME.jsonl"].map(|n| n.replace("NAME", name)).into()
            }
            Format::WikiQa => vec![format!("WikiQA-{name}.tsv")],
            Format::QueryPassage => {
                let names: &[&str] =
                    [&["train.tsv", "train_autotest.tsv"][..], &["valid.tsv"], &["test.tsv"]][part as usize];
                names.iter().map(|name| name.to_string()).collect()
            }
            Format::Conll(names) => names[part as usize].iter().map(|name| name.to_string()).collect(),
            Format::SnipsIntents | Format::SnipsSlots => {
                vec![if part == Part::Dev { "valid" } else { name }.to_string()]
            }
            Format::Columns(_) => ["tsv", "csv", "jsonl", "parquet"].map(|end| format!("{name}.{end}")).into(),
        }
    }

    /// The file or folder of a part below `folder`: the first of [`Task::file_names`] that is there.
    pub fn path(&self, folder: &Path, part: Part) -> Option<PathBuf> {
        self.file_names(part).into_iter().map(|name| folder.join(name)).find(|path| path.exists())
    }

    /// The examples of a part below `folder`.
    ///
    /// # Errors
    /// If none of its files is there, and those of [`Task::read`].
    pub fn read_part(&self, folder: &Path, part: Part) -> Result<Examples> {
        match self.path(folder, part) {
            Some(path) => self.read(&path),
            None => {
                let expected =
                    format!("`{}`, the {} part of {}", self.file_names(part).join("` or `"), part.name(), self.name);
                Err(Error::file(folder, expected, "no such file"))
            }
        }
    }

    /// The examples of a file, or of a folder where the format is one of folders. Tags are in IOB2, whatever they were in.
    ///
    /// # Errors
    /// What the format's reader finds wrong; messages name file and line.
    pub fn read(&self, path: &Path) -> Result<Examples> {
        self.read_where(path, &mut || true)
    }

    /// Those of the examples that `keep`, asked once for every example in the file's order, says yes to.
    ///
    /// Of a table of columns the others are never in memory together; every other format is read whole first. What is wrong with
    /// the file is an error wherever it stands, so all who read a share of it say the same.
    ///
    /// # Errors
    /// As [`Task::read`].
    pub fn read_where(&self, path: &Path, keep: &mut dyn FnMut() -> bool) -> Result<Examples> {
        let (mut data, left_out) = match &self.format {
            Format::Glue { set, .. } => read_glue(path, *set)?,
            Format::Snli => snli::read_snli(path)?,
            Format::WikiQa => (wikiqa::read_wikiqa(path)?, Vec::new()),
            Format::QueryPassage => (neuronblocks::read_query_passages(path)?, Vec::new()),
            Format::Columns(columns) => {
                let rows = Rows::open(path, columns)?.filter(|row| row.is_err() || keep());
                let examples = rows.collect::<Result<_>>()?;
                return Ok(Examples::Texts {
                    data: Dataset { path: path.to_path_buf(), examples },
                    left_out: Vec::new(),
                });
            }
            Format::SnipsIntents => (intents(read_snips(path)?), Vec::new()),
            Format::Conll(_) | Format::SnipsSlots => {
                let mut data = match self.format {
                    Format::SnipsSlots => read_snips(path)?.slots(),
                    _ => read_conll(path, &ConllOptions::default())?,
                };
                convert_all(&mut data, TagScheme::Iob2)?;
                data.examples.retain(|_| keep());
                return Ok(Examples::Sentences(data));
            }
        };
        data.examples.retain(|_| keep());
        Ok(Examples::Texts { data, left_out })
    }

    /// The classes in the order of their columns: those of the task, or else those that occur in `train`, sorted by name;
    /// of tags `O` is the first and every type has both its marks. A regression has one column, `score`.
    ///
    /// # Errors
    /// If `train` has no labels.
    pub fn classes_of(&self, train: &Examples) -> Result<Vec<String>> {
        match (&self.classes, self.kind) {
            (Some(classes), _) => Ok(classes.clone()),
            (None, TaskKind::Regression) => Ok(vec!["score".to_string()]),
            (None, _) => train.classes(),
        }
    }
}

/// The commands as texts, with their intents.
fn intents(data: Dataset<Utterance>) -> Dataset<TextExample> {
    let example = |utterance: Utterance| TextExample {
        first: utterance.text(),
        line: utterance.sentence.line,
        label: Label::Class(utterance.intent),
        ..TextExample::default()
    };
    Dataset { path: data.path, examples: data.examples.into_iter().map(example).collect() }
}

#[cfg(test)]
mod tests;
