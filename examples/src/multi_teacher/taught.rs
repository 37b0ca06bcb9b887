//! A data set and what its teachers said of it.

use anyhow::{Context, Result, bail};
use candle_core::Device;
use kd_data::task::Part;

use super::student::Source;
use super::teachers::{TeacherFile, probabilities};
use super::training::{Answers, Lesson};
use super::{DataSet, EncodedSet, Soft, Targets, scores_of};

/// A data set, as its students read it, and its teachers.
#[derive(Debug)]
pub struct TaughtSet {
    /// The data set.
    pub set: DataSet,
    /// The same as students read it.
    pub encoded: EncodedSet,
    /// Who teaches.
    pub teachers: Vec<TeacherFile>,
    /// What they said of the examples to learn from: by teacher, example, class.
    pub logits: Vec<Vec<Vec<f32>>>,
}

impl TaughtSet {
    /// Encodes the texts and joins what the teachers said of those to learn from.
    ///
    /// # Errors
    /// If a teacher was not asked about one, or has other classes; the message names teacher and text, or the classes.
    pub fn new(
        set: DataSet,
        teachers: Vec<TeacherFile>,
        source: &Source,
        max_len: usize,
        device: &Device,
    ) -> Result<Self> {
        let learned = DataSet::contents(&set.learn);
        let logits = teachers.iter().map(|teacher| teacher.logits(&learned, &set.classes)).collect::<Result<_>>()?;
        let encoded = EncodedSet::new(&set, source, max_len, device)?;
        Ok(Self { set, encoded, teachers, logits })
    }

    /// What teacher `idx` says of every part that is reported.
    ///
    /// # Errors
    /// If it was not asked about one of them.
    pub fn answers_of(&self, idx: usize) -> Result<Answers> {
        let answer = |(part, examples): &(Part, _)| {
            let logits = self.teachers[idx].logits(&DataSet::contents(examples), &self.set.classes)?;
            Ok((part.name().to_string(), probabilities(&logits)?))
        };
        self.set.report.iter().map(answer).collect()
    }

    /// The place of the best teacher: the one called `name`, or else the best on dev by the task's first metric.
    ///
    /// # Errors
    /// If there is no teacher, none of that name, or one was not asked about dev.
    pub fn best(&self, name: Option<&str>) -> Result<usize> {
        if let Some(name) = name {
            let names = || self.teachers.iter().map(|teacher| teacher.name.as_str()).collect::<Vec<_>>().join(", ");
            let place = self.teachers.iter().position(|teacher| teacher.name == name);
            return place.with_context(|| format!("--best-teacher: expected one of {}, found `{name}`", names()));
        }
        if self.teachers.len() == 1 {
            return Ok(0);
        }
        let (part, examples) = self.set.report.first().context("there is nothing to report")?;
        let mut best: Option<(usize, f64)> = None;
        for idx in 0..self.teachers.len() {
            let score = scores_of(&self.set, examples, &self.answers_of(idx)?[part.name()])?.first();
            if best.is_none_or(|(_, highest)| score > highest) {
                best = Some((idx, score));
            }
        }
        match best {
            Some((idx, score)) => {
                println!("the best teacher on {}: {} ({:.1})", part.name(), self.teachers[idx].name, 100.0 * score);
                Ok(idx)
            }
            None => bail!("--teacher: expected at least one, found none"),
        }
    }

    /// What a student whose teachers weigh `alpha` learns.
    pub fn lesson(&self, soft: Soft, alpha: f64) -> Lesson<'_> {
        Lesson {
            encoded: &*self.encoded.learn,
            labels: (alpha < 1.0).then_some(&self.set.labels[..]),
            targets: Targets::new(soft, &self.logits, self.set.classes.len()),
        }
    }
}
