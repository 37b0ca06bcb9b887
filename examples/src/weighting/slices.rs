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
//!
//! The training part of SST-2 has phrases of sentences: of those of four words or more two in three have four words in a
//! row in common with one of 10,000 others, wherever in the file these stand, and a student that has learnt one knows the
//! other. So where single texts are learnt from under a limit, train's slices are of the examples behind it, and only those
//! that share no four words in a row with what is learnt or with another slice.

use std::collections::HashSet;

use anyhow::{Result, bail};
use kd_data::digest;
use kd_data::sample::draw;
use kd_data::task::{Examples, Part};
use kd_rl::reward::{ensure_apart, hold_out};

use crate::multi_teacher::{DataSet, classes_of, digest_of, select};

/// Seeds of the draws: every student of a data set has the same slices.
const REWARD_SEED: u64 = 2;
const FIT_SEED: u64 = 3;
/// The reward's share of what could be learned from, the value of `kd_rl::reward::hold_out`'s description.
const REWARD_SHARE: f64 = 0.05;
/// Words in a row that two texts may not share to be apart.
const IN_A_ROW: usize = 4;

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
        let from_train = set.choose.as_ref().filter(|(name, _)| *name != Part::Dev.name());
        let Train { learn, reward, choose: of_train } = match single_texts(&set.spare) {
            Some(_) if !set.spare.is_empty() => {
                Train::beside(&set.learn, from_train.map(|(_, choose)| choose), &set.spare, reward_least)?
            }
            _ => {
                let (for_reward, rest) = hold_out(set.learn.len(), REWARD_SHARE, reward_least, REWARD_SEED)?;
                let (reward, learn) = (select(&set.learn, &for_reward)?, select(&set.learn, &rest)?);
                Train { learn, reward, choose: from_train.map(|(_, choose)| choose.clone()) }
            }
        };
        if let Some(choose) = &of_train {
            ensure_apart(&lines(&reward), &lines(choose))?;
        }
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
        let choose = set.choose.map(|(name, _)| (name, of_train.unwrap_or_else(|| dev.1.clone())));
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

/// What is made of train.
struct Train {
    learn: Examples,
    reward: Examples,
    choose: Option<Examples>,
}

impl Train {
    /// Slices of `spare` that share no four words in a row with one another and with what is learnt from: `learn` and what
    /// was held out to choose on.
    fn beside(learn: &Examples, choose: Option<&Examples>, spare: &Examples, reward_least: usize) -> Result<Self> {
        let learn = match choose {
            None => learn.clone(),
            Some(choose) => joined(learn, choose)?,
        };
        let texts = single_texts(spare).unwrap_or_default();
        let of_learn = single_texts(&learn).unwrap_or_default();
        let mut known: HashSet<Vec<String>> = of_learn.into_iter().flat_map(rows_of_words).collect();
        let order = draw(spare.len(), spare.len(), REWARD_SEED)?.0;
        let mut take = |n: usize, what: &str| -> Result<Examples> {
            let mut taken: Vec<usize> = Vec::new();
            for &idx in &order {
                let of_text = rows_of_words(texts[idx]);
                if taken.len() < n && !of_text.is_empty() && of_text.iter().all(|row| !known.contains(row)) {
                    taken.push(idx);
                }
            }
            if taken.len() < n {
                bail!(
                    "--limit-train: expected {n} of the {} training examples behind it {what} that share no {IN_A_ROW} words in a \
                     row with those to learn from, found {}",
                    spare.len(),
                    taken.len()
                );
            }
            taken.sort_unstable();
            known.extend(taken.iter().flat_map(|&idx| rows_of_words(texts[idx])));
            select(spare, &taken)
        };
        let choose = choose.map(|choose| take(choose.len(), "to choose on")).transpose()?;
        let n = ((REWARD_SHARE * learn.len() as f64).ceil() as usize).max(reward_least);
        let reward = take(n, "for the reward")?;
        Ok(Self { learn, reward, choose })
    }
}

/// Single texts; none of pairs.
fn single_texts(examples: &Examples) -> Option<Vec<&str>> {
    let Examples::Texts { data, .. } = examples else { return None };
    data.examples.iter().map(|example| example.second.is_none().then_some(example.first.as_str())).collect()
}

/// All [`IN_A_ROW`] words in a row of a text, in lower case.
fn rows_of_words(text: &str) -> Vec<Vec<String>> {
    let words: Vec<String> = text.split_whitespace().map(str::to_lowercase).collect();
    words.windows(IN_A_ROW).map(<[String]>::to_vec).collect()
}

/// The lines that examples come from.
fn lines(examples: &Examples) -> Vec<usize> {
    match examples {
        Examples::Texts { data, .. } => data.examples.iter().map(|example| example.line).collect(),
        Examples::Sentences(_) => Vec::new(),
    }
}

fn joined(first: &Examples, second: &Examples) -> Result<Examples> {
    let (Examples::Texts { data: first, .. }, Examples::Texts { data: second, .. }) = (first, second) else {
        bail!("expected texts, found sentences of words");
    };
    let mut data = first.clone();
    data.examples.extend(second.examples.iter().cloned());
    data.examples.sort_by_key(|example| example.line);
    Ok(Examples::Texts { data, left_out: Vec::new() })
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
    fn behind_a_limit_slices_share_no_four_words_with_what_is_learnt() {
        // Of 60 sentences of eight words each has two phrases in train: words 0 to 5 among the first 60 rows, words 2 to 7 behind
        // them, which share four; 40 others behind share none, and 10 are too short to tell.
        let folder = tempfile::tempdir().unwrap();
        let phrase = |name: &str, idx: usize, words: std::ops::Range<usize>| {
            let words: Vec<String> = words.map(|word| format!("{name}{idx}.{word}")).collect();
            format!("{}\t{}\n", words.join(" "), idx % 2)
        };
        let mut train: String = (0..60).map(|idx| phrase("a", idx, 0..6)).collect();
        train.extend((0..60).map(|idx| phrase("a", idx, 2..8)));
        train.extend((0..40).map(|idx| phrase("b", idx, 0..6)));
        train.extend((0..10).map(|idx| phrase("c", idx, 0..3)));
        std::fs::write(folder.path().join("train.tsv"), format!("sentence\tlabel\n{train}")).unwrap();
        let dev: String = (0..8).map(|idx| phrase("d", idx, 0..6)).collect();
        std::fs::write(folder.path().join("dev.tsv"), format!("sentence\tlabel\n{dev}")).unwrap();
        let read = |limit| {
            let task = Task::named("sst2").unwrap();
            DataSet::read("sst2", task, folder.path(), Keep::Best, 0.2, Some(limit)).unwrap()
        };
        let Slices { set, reward, .. } = Slices::cut(read(60), 20, 0.25).unwrap();
        let choose = set.choose.unwrap().1;
        // 12 of the 60 would have been held out; now all 60 are learnt from.
        assert_eq!((set.learn.len(), set.labels.len(), choose.len(), reward.len()), (60, 60, 12, 20));
        let mut slices = [texts(&choose), texts(&reward)].concat();
        assert!(texts(&set.learn).iter().all(|text| text.starts_with('a')));
        assert!(slices.iter().all(|text| text.starts_with('b')), "{slices:?}");
        slices.sort();
        slices.dedup();
        assert_eq!(slices.len(), 32);
        let message = Slices::cut(read(60), 29, 0.25).unwrap_err().to_string();
        let expected = "expected 29 of the 110 training examples behind it for the reward that share no 4 words in a row with those \
                        to learn from, found 28";
        assert!(message.contains(expected), "{message}");
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
