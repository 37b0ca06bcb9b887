//! A network's answers compared with what is right, and the file of its predictions.

use std::path::Path;

use anyhow::{Context, Result, bail};
use kd_data::encode::Encode;
use kd_data::features::{self, Features, Values};
use kd_data::scores::{ClassRows, Score};
use kd_data::table::split;
use serde_json::{Map, Value};

use super::answers::{self, Answer, Reading, ask};
use super::configuration::{Configuration, Problem};
use super::encoded::Encoded;
use super::model::{Model, gives_probs};
use crate::report;

impl Model {
    /// How this network's outputs become answers.
    pub fn answers_of(&self, configuration: &Configuration) -> Reading {
        let outputs = self.blueprint.plan.outputs();
        let heads = self.blueprint.pairing.answer.clone();
        let is_probs = |&head: &usize| {
            outputs.get(head).is_some_and(|output| gives_probs(configuration, &self.blueprint.plan, output))
        };
        let probs = heads.iter().map(is_probs).collect();
        Reading { problem: configuration.inputs.problem, heads, gives_probs: probs }
    }

    /// The names of the classes that answers are of.
    pub fn classes(&self) -> &[String] {
        self.classes_of(self.blueprint.pairing.answered)
    }

    /// The names of the classes of a target, by its place; none of numbers.
    pub fn classes_of(&self, target: usize) -> &[String] {
        let target = self.blueprint.inputs.targets.get(target);
        let classes = target.and_then(|target| self.reader.dictionaries.classes_of(&target.name));
        classes.map_or(&[], |classes| classes.names())
    }

    /// What the network says of all examples.
    ///
    /// # Errors
    /// If it cannot read them.
    pub fn ask(&self, encoded: &Encoded, reading: &Reading) -> Result<Vec<Answer>> {
        ask(&self.network, encoded, reading, self.device.is_cpu())
    }

    /// Checks before there is a trained network that every metric and field can be had of its answers to these examples, and that
    /// the first metric, which `chooses`, is defined.
    ///
    /// # Errors
    /// What cannot be had, with its path.
    pub fn rehearse(&self, configuration: &Configuration, encoded: &Encoded, chooses: bool) -> Result<()> {
        let n = self.classes().len();
        let answer = |example: usize| match configuration.inputs.problem {
            Problem::Classification => Answer::Probs(vec![1.0 / n as f32; n]),
            Problem::Regression => Answer::Number(0.0),
            Problem::SequenceTagging => Answer::Tags(vec![0; encoded.rows()[example]]),
            Problem::Mrc => Answer::Span(0, 0),
        };
        let answers: Vec<Answer> = (0..encoded.len()).map(answer).collect();
        let scores = self.scores(configuration, encoded, &answers)?;
        if let Some(answer) = answers.first() {
            self.fields(configuration, encoded.features(), 0, answer)?;
        }
        // That of classes depends on the labels alone; a correlation may become defined.
        if let (Problem::Classification, Some((name, None)), true) =
            (configuration.inputs.problem, scores.first(), chooses)
        {
            let path = encoded.features().path.display();
            bail!(
                "metrics[0]: expected one that chooses a model, found {name}, which is undefined for the labels of {path}"
            );
        }
        Ok(())
    }

    /// Every metric of the answers, in the configuration's order; none where it is undefined.
    ///
    /// # Errors
    /// If a label is missing, or a metric cannot be had of these answers.
    pub fn scores(
        &self,
        configuration: &Configuration,
        encoded: &Encoded,
        answers: &[Answer],
    ) -> Result<Vec<(String, Option<f64>)>> {
        let names = configuration.metrics.iter();
        names
            .zip(&self.blueprint.scores)
            .enumerate()
            .map(|(idx, (name, score))| {
                let value = self.score(score, configuration, encoded, answers);
                Ok((name.clone(), value.with_context(|| format!("metrics[{idx}]"))?))
            })
            .collect()
    }

    fn score(
        &self,
        score: &Score,
        configuration: &Configuration,
        encoded: &Encoded,
        answers: &[Answer],
    ) -> Result<Option<f64>> {
        let target = self.blueprint.pairing.answered;
        let expected = |what: &str| format!("expected {what} in `{}`", configuration.inputs.target[target]);
        let gold = |example: usize| encoded.classes(target, example).with_context(|| expected("classes"));
        match configuration.inputs.problem {
            Problem::Classification => {
                let (mut rows, mut of) = (Vec::new(), Vec::new());
                for (example, answer) in answers.iter().enumerate() {
                    let Answer::Probs(probs) = answer else { bail!("expected probabilities, found {answer:?}") };
                    rows.push(probs.clone());
                    of.extend_from_slice(gold(example)?);
                }
                let positive = configuration.inputs.positive_label.as_deref();
                Ok(score.of_classes(&ClassRows { classes: self.classes(), positive, gold: &of, scores: &rows })?)
            }
            Problem::SequenceTagging => {
                let name = |&tag: &u32| self.classes().get(tag as usize).map_or("", String::as_str);
                let (mut right, mut said) = (Vec::new(), Vec::new());
                for (example, answer) in answers.iter().enumerate() {
                    let Answer::Tags(tags) = answer else { bail!("expected tags, found {answer:?}") };
                    right.push(gold(example)?.iter().map(name).collect::<Vec<_>>());
                    said.push(tags.iter().map(name).collect::<Vec<_>>());
                }
                Ok(Some(score.of_tags(&right, &said)?))
            }
            Problem::Regression => {
                let (mut right, mut said) = (Vec::new(), Vec::new());
                for (example, answer) in answers.iter().enumerate() {
                    let Answer::Number(number) = answer else { bail!("expected a number, found {answer:?}") };
                    said.push(f64::from(*number));
                    let number = encoded.number(target, example).with_context(|| expected("numbers"))?;
                    right.push(f64::from(number));
                }
                Ok(score.of_numbers(&right, &said)?)
            }
            Problem::Mrc => {
                let features = encoded.features();
                let texts = features.targets.iter().find_map(|labels| match &labels.values {
                    Values::Texts(texts) => Some(texts.clone()),
                    _ => None,
                });
                let mut places = features.targets.iter().filter_map(|labels| match &labels.values {
                    Values::Places(places) => Some(places),
                    _ => None,
                });
                let right = match (texts, places.next(), places.next()) {
                    (Some(texts), ..) => texts,
                    (None, Some(starts), Some(ends)) => {
                        let span = |example: usize| {
                            span_text(features, example, starts[example] as usize, ends[example] as usize)
                        };
                        (0..features.len()).map(span).collect()
                    }
                    _ => bail!("inputs.target: expected columns of start and end of answers"),
                };
                let said = answers.iter().enumerate().map(|(example, answer)| match answer {
                    Answer::Span(first, last) => Ok(span_text(features, example, *first, *last)),
                    other => bail!("expected a span, found {other:?}"),
                });
                let said = said.collect::<Result<Vec<_>>>()?;
                Ok(Some(score.of_answers(&right, &said)?))
            }
        }
    }

    /// Writes the lines of the file that `features` are of with the configured fields of each answer behind them, and their
    /// names behind a header's, its columns parted by tabs; `reading` says how many there are.
    ///
    /// # Errors
    /// If a file cannot be read or written, or a field is not one of these answers.
    pub fn write_predictions(
        &self,
        configuration: &Configuration,
        reading: &features::Reading,
        features: &Features,
        answers: &[Answer],
        to: &Path,
    ) -> Result<()> {
        let from = &features.path;
        let text = std::fs::read_to_string(from).with_context(|| from.display().to_string())?;
        let lines: Vec<&str> = text.trim_start_matches('\u{feff}').split('\n').collect();
        let columns = |line: usize| {
            let line = lines.get(line).copied().unwrap_or_default();
            split(line, reading.layout.names().len()).map_or_else(|_| line.trim_end().to_string(), |it| it.join("\t"))
        };
        let mut out = String::new();
        if reading.header {
            out += &columns(0);
            for field in &configuration.outputs.predict_fields {
                out += &format!("\t{field}");
            }
            out.push('\n');
        }
        for (example, (answer, &line)) in answers.iter().zip(&features.lines).enumerate() {
            out += &columns(line - 1);
            for field in self.fields(configuration, features, example, answer)? {
                out.push('\t');
                out += &field;
            }
            out.push('\n');
        }
        report::save_text(to, &out)
    }

    /// The configured fields of an answer.
    ///
    /// # Errors
    /// If a field is not one of this answer.
    pub fn fields(
        &self,
        configuration: &Configuration,
        features: &Features,
        example: usize,
        answer: &Answer,
    ) -> Result<Vec<String>> {
        let span = |first, last| span_text(features, example, first, last);
        answers::fields(answer, &configuration.outputs.predict_fields, self.classes(), span)
    }
}

fn span_text(features: &Features, example: usize, first: usize, last: usize) -> String {
    match &features.passage {
        Some(passage) if last < passage.spans[example].len() => passage.answer(example, first, last).to_string(),
        _ => String::new(),
    }
}

/// Scores as JSON; null where undefined.
pub fn as_json(scores: &[(String, Option<f64>)]) -> Value {
    let entry = |(name, value): &(String, Option<f64>)| (name.clone(), value.map_or(Value::Null, Value::from));
    Value::Object(scores.iter().map(entry).collect::<Map<_, _>>())
}

/// Scores as a line.
pub fn as_text(scores: &[(String, Option<f64>)]) -> String {
    let one = |(name, value): &(String, Option<f64>)| match value {
        Some(value) => format!("{name}: {value:.6}"),
        None => format!("{name}: undefined"),
    };
    scores.iter().map(one).collect::<Vec<_>>().join("; ")
}
