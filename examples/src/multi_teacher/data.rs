//! A data set in the roles it plays: examples to learn from, to choose the best epoch on, and to report.
//!
//! Where the test part has labels, dev chooses and both are reported. Where it has none (GLUE), a share of the training
//! part is held out, the same for every student, and chooses; dev is then reported and chooses no student. Where one teacher
//! is the best, it is the best on dev in both cases, unless it is named.

use std::path::Path;

use anyhow::{Result, bail};
use kd_data::digest;
use kd_data::example::Dataset;
use kd_data::sample::draw;
use kd_data::task::{Examples, Part, Targets, Task, TaskKind};
use kd_data::teacher_outputs::Content;

use crate::fine_tune::{Data, Keep};
use crate::labelling::contents;

/// Seed of the draw of what is held out: every student of a data set has the same.
const HELD_OUT_SEED: u64 = 1;

/// A data set in its roles.
#[derive(Debug)]
pub struct DataSet {
    /// Its name in reports.
    pub name: String,
    /// What it is.
    pub task: Task,
    /// The classes in the order of all columns.
    pub classes: Vec<String>,
    /// To learn from.
    pub learn: Examples,
    /// The class of each of those.
    pub labels: Vec<u32>,
    /// To choose the best epoch on, with a name; none where the last is kept.
    pub choose: Option<(&'static str, Examples)>,
    /// Training examples behind the limit, for slices that are apart from those to learn from.
    pub spare: Examples,
    /// To report.
    pub report: Vec<(Part, Examples)>,
    /// A digest of all of it.
    pub digest: String,
}

impl DataSet {
    /// The parts of `task` below `folder`; of train the first `limit` examples, and of those the share `hold_out` to choose
    /// on if `keep` chooses and test has no labels.
    ///
    /// # Errors
    /// If there is no train or dev part, or the task has more than one class a text, numbers, or tags.
    pub fn read(
        name: &str,
        task: Task,
        folder: &Path,
        keep: Keep,
        hold_out: f64,
        limit: Option<usize>,
    ) -> Result<Self> {
        if task.kind != TaskKind::Classification {
            bail!("{name}: expected a task of one class a text, found {:?}", task.kind);
        }
        // All of it is read before the limit cuts it.
        let limit_of_data = limit.filter(|&limit| limit == 0);
        let data = Data::new(task, limit_of_data, |task, part| match task.path(folder, part) {
            None if part == Part::Test => Ok(None),
            _ => Ok(Some(task.read_part(folder, part)?)),
        })?;
        let Data { task, classes, mut train, others } = data;
        let limit = limit.unwrap_or(usize::MAX).min(train.len());
        let spare = select(&train, &(limit..train.len()).collect::<Vec<_>>())?;
        train.truncate(limit);
        let report: Vec<(Part, Examples)> = others.into_iter().filter(|(_, examples)| examples.is_labelled()).collect();
        let has_test = report.iter().any(|(part, _)| *part == Part::Test);
        let (learn, choose) = match keep {
            Keep::Last => (train, None),
            Keep::Best if has_test || hold_out == 0.0 => (train, Some((Part::Dev.name(), report[0].1.clone()))),
            Keep::Best => {
                let n = ((hold_out * train.len() as f64).round() as usize).max(1);
                let (mut held_out, mut rest) = draw(train.len(), n, HELD_OUT_SEED)?;
                held_out.sort_unstable();
                rest.sort_unstable();
                (select(&train, &rest)?, Some(("held-out", select(&train, &held_out)?)))
            }
        };
        if learn.is_empty() {
            bail!("{name}: expected examples to learn from besides those held out, found none");
        }
        let labels = classes_of(&task, &learn, &classes)?;
        let digest = digest_of(&learn, choose.as_ref(), &report, &classes);
        Ok(Self { name: name.to_string(), task, classes, learn, labels, choose, spare, report, digest })
    }

    /// How the best epoch is chosen and what is reported, for people.
    pub fn roles(&self) -> String {
        let reported: Vec<String> =
            self.report.iter().map(|(part, examples)| format!("{} ({})", part.name(), examples.len())).collect();
        let choose = match &self.choose {
            None => "the last epoch is kept".to_string(),
            Some((name, examples)) if *name == Part::Dev.name() => {
                format!("the epoch is chosen on dev ({}), whose own scores are therefore too good", examples.len())
            }
            Some((name, examples)) => format!("the epoch is chosen on {} {name} training examples", examples.len()),
        };
        let (learn, classes) = (self.learn.len(), self.classes.len());
        format!(
            "{}: {learn} examples of {classes} classes to learn from; {choose}; reported: {}",
            self.name,
            reported.join(", ")
        )
    }

    /// The texts of a role.
    pub fn contents(examples: &Examples) -> Vec<Content<'_>> {
        contents(std::slice::from_ref(examples))
    }
}

/// A digest of every role.
pub(crate) fn digest_of(
    learn: &Examples,
    choose: Option<&(&'static str, Examples)>,
    report: &[(Part, Examples)],
    classes: &[String],
) -> String {
    let of = |examples: &Examples| match examples {
        Examples::Texts { data, .. } => digest::of_parts(data.examples.iter().map(|example| format!("{example:?}"))),
        Examples::Sentences(data) => digest::of_parts(data.examples.iter().map(|example| format!("{example:?}"))),
    };
    let choose = choose.map(|(name, examples)| format!("{name} {}", of(examples)));
    let report = report.iter().map(|(part, examples)| format!("{} {}", part.name(), of(examples)));
    digest::of_parts(std::iter::once(of(learn)).chain(choose).chain(report).chain(classes.iter().cloned()))
}

/// Some of the examples.
pub(crate) fn select(examples: &Examples, ids: &[usize]) -> Result<Examples> {
    match examples {
        Examples::Texts { data, .. } => Ok(Examples::Texts { data: data.select(ids), left_out: Vec::new() }),
        Examples::Sentences(_) => bail!("expected texts, found sentences of words"),
    }
}

/// The class of every text.
pub(crate) fn classes_of(task: &Task, examples: &Examples, classes: &[String]) -> Result<Vec<u32>> {
    match task.targets(examples, classes)? {
        Targets::Classes(rows) => Ok(rows.concat()),
        _ => bail!("{}: expected one class a text", task.name),
    }
}

/// Texts without labels that the first stage learns on, from a table with these two columns.
///
/// # Errors
/// If the table cannot be read or a column is missing.
pub fn read_unlabelled(path: &Path, first: &str, second: &str) -> Result<Examples> {
    let columns =
        kd_data::columns::Columns { second: Some(second.to_string()), ..kd_data::columns::Columns::text(first) };
    let data: Dataset<_> = kd_data::columns::read_columns(path, &columns)?;
    Ok(Examples::Texts { data, left_out: Vec::new() })
}

#[cfg(test)]
mod tests {
    use super::*;

    /// SST-2's files: twenty to learn from, four of dev, and test with or without labels.
    fn read(keep: Keep, hold_out: f64, test_label: &str) -> Result<DataSet> {
        let folder = tempfile::tempdir()?;
        let rows = |n: usize| (0..n).map(|idx| format!("text {idx}\t{}\n", idx % 2)).collect::<String>();
        std::fs::write(folder.path().join("train.tsv"), format!("sentence\tlabel\n{}", rows(20)))?;
        std::fs::write(folder.path().join("dev.tsv"), format!("sentence\tlabel\n{}", rows(4)))?;
        let test = if test_label.is_empty() { "sentence\na\n" } else { &format!("sentence\tlabel\na\t{test_label}\n") };
        std::fs::write(folder.path().join("test.tsv"), test)?;
        let columns = kd_data::columns::Columns {
            label: (!test_label.is_empty()).then(|| "label".to_string()),
            ..kd_data::columns::Columns::text("sentence")
        };
        let task = if test_label.is_empty() { Task::named("sst2")? } else { Task::of_columns("texts", columns) };
        DataSet::read("texts", task, folder.path(), keep, hold_out, None)
    }

    fn texts(examples: &Examples) -> Vec<&str> {
        let Examples::Texts { data, .. } = examples else { panic!("expected texts") };
        data.examples.iter().map(|example| example.first.as_str()).collect()
    }

    #[test]
    fn without_labels_in_test_a_share_of_train_chooses() {
        let set = read(Keep::Best, 0.25, "").unwrap();
        let (name, held_out) = set.choose.as_ref().unwrap();
        assert_eq!((*name, held_out.len(), set.learn.len(), set.labels.len()), ("held-out", 5, 15, 15));
        let mut all = [texts(held_out), texts(&set.learn)].concat();
        all.sort();
        all.dedup();
        assert_eq!(all.len(), 20);
        assert_eq!(set.report.iter().map(|(part, _)| part.name()).collect::<Vec<_>>(), ["dev"]);
        assert_eq!(
            set.roles(),
            "texts: 15 examples of 2 classes to learn from; the epoch is chosen on 5 held-out training examples; reported: dev (4)"
        );
        // The same for everyone, and another set under another name.
        assert_eq!(read(Keep::Best, 0.25, "").unwrap().digest, set.digest);
        assert_ne!(read(Keep::Best, 0.5, "").unwrap().digest, set.digest);
    }

    #[test]
    fn dev_chooses_where_test_has_labels_or_nothing_is_held_out() {
        for set in [read(Keep::Best, 0.25, "1").unwrap(), read(Keep::Best, 0.0, "").unwrap()] {
            assert_eq!((set.choose.as_ref().unwrap().0, set.learn.len()), ("dev", 20));
            assert!(set.roles().contains("whose own scores are therefore too good"), "{}", set.roles());
        }
        let set = read(Keep::Last, 0.25, "").unwrap();
        assert!(set.choose.is_none() && set.roles().contains("the last epoch is kept"));
    }

    #[test]
    fn what_is_no_class_a_text_is_named() {
        let folder = tempfile::tempdir().unwrap();
        let message =
            DataSet::read("x", Task::named("stsb").unwrap(), folder.path(), Keep::Last, 0.0, None).unwrap_err();
        assert_eq!(message.to_string(), "x: expected a task of one class a text, found Regression");
    }
}
