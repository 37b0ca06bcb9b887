//! A data set cut so that nothing is judged by what it was made with.
//!
//! ```text
//! train: learn | reward (of reward 3)                   | chooses the epoch (where test has no labels)
//! dev:   fit (w-dev, lr-dev, covariance)                | reported, or chooses the epoch (where test has labels)
//! test:  reported, where it has labels
//! ```
//!
//! All students learn from the same examples, whether their weighting needs the other slices or not. Weights are fitted on
//! a slice of dev because teachers know the training part by heart. GLUE has no public labels of its test parts: there the rest
//! of dev is the test, and an inner part of train does what dev is for.

use anyhow::{Result, bail};
use kd_data::digest;
use kd_data::sample::draw;
use kd_data::task::{Examples, Part};
use kd_rl::reward::hold_out;

use crate::multi_teacher::{DataSet, classes_of, digest_of, select};

/// Seeds of the draws: every student of a data set has the same slices.
const REWARD_SEED: u64 = 2;
const FIT_SEED: u64 = 3;
/// The reward's share of what could be learned from, the value of `kd_rl::reward::hold_out`'s description.
const REWARD_SHARE: f64 = 0.05;

/// A data set without two slices, and these.
#[derive(Debug)]
pub struct Slices {
    /// What is left.
    pub set: DataSet,
    /// What reward 3 measures the student on, a part of train.
    pub reward: Examples,
    /// The class of each of those.
    pub reward_labels: Vec<u32>,
    /// What weights are fitted on, a part of dev.
    pub fit: Examples,
    /// The class of each of those.
    pub fit_labels: Vec<u32>,
}

impl Slices {
    /// Cuts `set`: a twentieth of what it learns from and at least `reward_least` for the reward, and the share `fit_share` of
    /// dev to fit weights on.
    ///
    /// # Errors
    /// If a slice would be empty, or nothing be left.
    pub fn cut(set: DataSet, reward_least: usize, fit_share: f64) -> Result<Self> {
        if !(fit_share > 0.0 && fit_share < 1.0) {
            bail!("--fit-share: expected a share above 0 and below 1, found {fit_share}");
        }
        let (for_reward, rest) = hold_out(set.learn.len(), REWARD_SHARE, reward_least, REWARD_SEED)?;
        let (reward, learn) = (select(&set.learn, &for_reward)?, select(&set.learn, &rest)?);
        let mut report = set.report;
        let Some(dev) = report.iter_mut().find(|(part, _)| *part == Part::Dev) else {
            bail!("{}: expected a labelled dev part to fit weights on, found none", set.name);
        };
        let n = (fit_share * dev.1.len() as f64).ceil() as usize;
        let (mut for_fit, mut rest) = draw(dev.1.len(), n, FIT_SEED)?;
        if rest.is_empty() {
            bail!("--fit-share: of {n} dev examples {n} would be taken, expected some to be left");
        }
        for_fit.sort_unstable();
        rest.sort_unstable();
        let fit = select(&dev.1, &for_fit)?;
        dev.1 = select(&dev.1, &rest)?;
        let choose = match set.choose {
            Some((name, _)) if name == Part::Dev.name() => Some((name, dev.1.clone())),
            choose => choose,
        };
        let slice = |examples| digest_of(examples, None, &[], &[]);
        let roles = digest_of(&learn, choose.as_ref(), &report, &set.classes);
        let digest = digest::of_parts([roles, slice(&reward), slice(&fit)]);
        let labels = classes_of(&set.task, &learn, &set.classes)?;
        let reward_labels = classes_of(&set.task, &reward, &set.classes)?;
        let fit_labels = classes_of(&set.task, &fit, &set.classes)?;
        let set = DataSet { learn, labels, choose, report, digest, ..set };
        Ok(Self { set, reward, reward_labels, fit, fit_labels })
    }

    /// What each slice is for, for people.
    pub fn roles(&self) -> String {
        let (reward, fit) = (self.reward.len(), self.fit.len());
        format!(
            "{}; reward 3 on {reward} other training examples, weights fitted on {fit} other dev examples",
            self.set.roles()
        )
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::fine_tune::Keep;
    use kd_data::task::Task;

    /// 40 to learn from, 8 of dev, and test with or without labels.
    fn read(has_test: bool) -> DataSet {
        let folder = tempfile::tempdir().unwrap();
        let rows = |part: &str, n: usize| (0..n).map(|idx| format!("{part} {idx}\t{}\n", idx % 2)).collect::<String>();
        for (part, n) in [("train", 40), ("dev", 8)] {
            std::fs::write(folder.path().join(format!("{part}.tsv")), format!("sentence\tlabel\n{}", rows(part, n)))
                .unwrap();
        }
        let test = if has_test { "sentence\tlabel\na\t1\n" } else { "sentence\na\n" };
        std::fs::write(folder.path().join("test.tsv"), test).unwrap();
        let columns = kd_data::columns::Columns {
            label: Some("label".to_string()),
            ..kd_data::columns::Columns::text("sentence")
        };
        let task = if has_test { Task::of_columns("texts", columns) } else { Task::named("sst2").unwrap() };
        DataSet::read("texts", task, folder.path(), Keep::Best, 0.25, None).unwrap()
    }

    fn texts(examples: &Examples) -> Vec<String> {
        let Examples::Texts { data, .. } = examples else { panic!("expected texts") };
        data.examples.iter().map(|example| example.first.clone()).collect()
    }

    #[test]
    fn no_example_is_in_two_slices_and_none_is_lost() {
        for has_test in [false, true] {
            let slices = Slices::cut(read(has_test), 4, 0.25).unwrap();
            let Slices { set, reward, fit, .. } = &slices;
            let (name, choose) = set.choose.as_ref().unwrap();
            let train = [texts(&set.learn), texts(reward)].concat();
            let dev = [texts(&set.report[0].1), texts(fit)].concat();
            let (mut train, mut dev) = if has_test {
                assert_eq!((*name, texts(choose)), ("dev", texts(&set.report[0].1)));
                (train, dev)
            } else {
                assert_eq!((*name, choose.len()), ("held-out", 10));
                ([train, texts(choose)].concat(), dev)
            };
            assert_eq!((reward.len(), fit.len(), set.labels.len()), (4, 2, set.learn.len()));
            train.sort();
            train.dedup();
            dev.sort();
            dev.dedup();
            assert_eq!((train.len(), dev.len()), (40, 8));
            assert!(
                train.iter().all(|text| text.starts_with("train")) && dev.iter().all(|text| text.starts_with("dev"))
            );
        }
    }

    #[test]
    fn slices_are_the_same_for_everyone_and_known_by_a_digest() {
        let cut = |least, share| Slices::cut(read(false), least, share).unwrap().set.digest;
        assert_eq!(cut(4, 0.25), cut(4, 0.25));
        assert_ne!(cut(4, 0.25), cut(5, 0.25));
        assert_ne!(cut(4, 0.25), cut(4, 0.5));
        let roles = Slices::cut(read(false), 4, 0.25).unwrap().roles();
        assert!(
            roles.ends_with("reward 3 on 4 other training examples, weights fitted on 2 other dev examples"),
            "{roles}"
        );
    }

    #[test]
    fn a_slice_that_leaves_nothing_is_an_error() {
        let message = |least, share| Slices::cut(read(false), least, share).unwrap_err().to_string();
        assert!(message(30, 0.25).contains("of 30 rows 30 would be held out"), "{}", message(30, 0.25));
        assert!(message(4, 0.99).contains("--fit-share: of 8 dev examples 8 would be taken"), "{}", message(4, 0.99));
        assert!(message(4, 0.0).contains("--fit-share: expected a share above 0"));
    }
}
