//! What teachers say of the training examples, and the loss that learns from it.

use std::collections::HashMap;

use anyhow::{Context, Result, bail};
use candle_core::{Device, Tensor};
use kd_core::batch::Batch;
use kd_core::model::Output;
use kd_core::objective::{Loss, Objective, SoftLoss};
use kd_data::features::Features;
use kd_data::table::Table;
use kd_data::teacher_outputs::import::Numbers;
use kd_data::teacher_outputs::{Content, Store, TeacherOutputs, TeacherRows};
use kd_students::plan::LossPlan;
use kd_teachers::hub::{HubEnvironment, ModelFiles};

use super::blueprint::Blueprint;
use super::configuration::{Configuration, Distillation, Problem, Source};
use crate::labelling::{AskedTeacher, Compute, Keep, label};

/// Tokens of a batch that a teacher is asked about.
const ASKED: usize = 4096;

/// Outputs of one teacher.
#[derive(Debug)]
enum Said {
    /// Logits of each example, a row each.
    Rows { values: Vec<f32>, width: usize },
    /// Joined by content.
    Stored(TeacherRows),
}

/// The teachers of a configuration.
#[derive(Debug)]
pub struct Teachers {
    said: Vec<Said>,
    heads: Vec<usize>,
    classes: Vec<String>,
    device: Device,
}

impl Teachers {
    /// What the teachers say of the examples of `features`, whose lines are in `table`.
    ///
    /// # Errors
    /// If a teacher's outputs are missing, of other classes, or not numbers; the message names the teacher.
    pub fn ask(
        configuration: &Configuration,
        distillation: &Distillation,
        blueprint: &Blueprint,
        features: &Features,
        table: &Table,
        classes: &[String],
        device: &Device,
    ) -> Result<Self> {
        let texts = Texts::of(configuration, blueprint, features, table)?;
        let (mut said, mut heads) = (Vec::new(), Vec::new());
        for (idx, teacher) in distillation.teachers.iter().enumerate() {
            let path = || format!("distillation.teachers[{idx}]");
            heads.push(match &teacher.output {
                None => 0,
                Some(output) => match blueprint.plan.outputs().iter().position(|other| other == output) {
                    Some(head) => head,
                    None => {
                        let outputs = blueprint.plan.outputs().join(", ");
                        bail!("{}.output: expected an output layer ({outputs}), found `{output}`", path());
                    }
                },
            });
            said.push(match &teacher.source {
                Source::Scores { columns, numbers } => {
                    scores(features, columns, *numbers, classes, configuration).with_context(path)?
                }
                Source::File(file) => {
                    let outputs = TeacherOutputs::open_file(file).with_context(path)?;
                    Said::Stored(outputs.join(texts.contents()).with_context(path)?)
                }
                Source::Model { id, revision, store, max_len } => {
                    let files = ModelFiles::find(id, revision, &HubEnvironment::from_env()?).with_context(path)?;
                    let model = AskedTeacher::load(&files, *max_len, Compute::F32, &Keep::default(), device)?;
                    let mut outputs =
                        Store::open(store).and_then(|store| store.teacher(model.about())).with_context(path)?;
                    label(&model, &texts.contents(), ASKED, &mut outputs)?;
                    Said::Stored(outputs.join(texts.contents()).with_context(path)?)
                }
            });
        }
        Ok(Self { said, heads, classes: classes.to_vec(), device: device.clone() })
    }

    /// What each says of these examples, in its order.
    ///
    /// # Errors
    /// If a store is damaged, or its classes are others.
    pub fn collate(&self, examples: &[usize]) -> candle_core::Result<Vec<Output>> {
        let of = |said: &Said| match said {
            Said::Rows { values, width } => {
                let rows: Vec<f32> = examples.iter().flat_map(|&id| &values[id * width..][..*width]).copied().collect();
                Ok(Output::from_logits(Tensor::from_vec(rows, (examples.len(), *width), &self.device)?))
            }
            Said::Stored(rows) => rows.collate(examples, &self.classes, &self.device),
        };
        self.said.iter().map(of).collect()
    }

    /// The loss `(1 − α) · configured + α · mean_i soft(head_i, teacher_i)`.
    pub fn objective<'a>(&'a self, distillation: &Distillation, configured: &'a LossPlan) -> Distilled<'a> {
        Distilled { configured, alpha: distillation.alpha, soft: distillation.loss, heads: &self.heads }
    }
}

/// `(1 − α) · configured + α · mean_i soft(head_i, teacher_i)`: the parts of the configured losses, and `soft`.
#[derive(Debug)]
pub struct Distilled<'a> {
    configured: &'a LossPlan,
    alpha: f64,
    soft: SoftLoss,
    heads: &'a [usize],
}

impl Objective for Distilled<'_> {
    fn loss(&self, output: &Output, batch: &Batch, step: usize) -> candle_core::Result<Loss> {
        let mut soft: Option<Tensor> = None;
        if self.alpha > 0.0 {
            for (idx, &head) in self.heads.iter().enumerate() {
                let Some(logits) = output.heads.get(head) else {
                    candle_core::bail!("the network has {} heads, teacher {idx} needs head {head}", output.heads.len())
                };
                let loss = self.soft.of(logits, &batch.teacher_logits(idx)?.to_dtype(logits.dtype())?)?;
                soft = Some(match soft {
                    Some(sum) => (sum + loss)?,
                    None => loss,
                });
            }
        }
        let soft = soft.map(|sum| sum / self.heads.len() as f64).transpose()?;
        if self.alpha == 1.0
            && let Some(soft) = soft
        {
            return Ok(Loss::of(soft.clone()).with_part("soft", soft));
        }
        let mut loss = self.configured.loss(output, batch, step)?;
        if let Some(soft) = soft {
            loss.total = ((&loss.total * (1.0 - self.alpha))? + (&soft * self.alpha)?)?;
            loss = loss.with_part("soft", soft);
        }
        Ok(loss)
    }

    fn describe(&self) -> serde_json::Value {
        serde_json::json!({
            "configured": self.configured.describe(), "alpha": self.alpha, "soft": self.soft, "heads": self.heads,
        })
    }
}

/// The texts as teachers know them: the columns of the first two branches, or the words of the first.
#[derive(Debug)]
enum Texts {
    Texts(Vec<(String, Option<String>)>),
    Words(Vec<Vec<String>>),
}

impl Texts {
    fn of(configuration: &Configuration, blueprint: &Blueprint, features: &Features, table: &Table) -> Result<Self> {
        if configuration.inputs.problem == Problem::SequenceTagging {
            let boundary = usize::from(configuration.inputs.add_start_end_for_seq);
            let words = |example| {
                let words: Vec<String> = features.words(0, example).map(str::to_string).collect();
                words[boundary..words.len() - boundary].to_vec()
            };
            return Ok(Self::Words((0..features.len()).map(words).collect()));
        }
        let header = &configuration.inputs.file_header;
        let place = |column: &String| header.iter().find(|(name, _)| name == column).map(|(_, place)| *place);
        let texts = blueprint.inputs.branches.iter().flat_map(|branch| branch.columns.iter());
        // The first column of the file in each branch is its text.
        let mut places: Vec<usize> = Vec::new();
        for branch in &blueprint.inputs.branches {
            let of_branch = branch.columns.iter().filter_map(place);
            let wanted = if blueprint.inputs.branches.len() == 1 { 2 } else { 1 };
            places.extend(of_branch.take(wanted));
        }
        places.dedup();
        let (first, second) = match places[..] {
            [first] => (first, None),
            [first, second] => (first, Some(second)),
            _ => {
                let columns: Vec<&String> = texts.collect();
                bail!("distillation.teachers: expected a text or a pair, which teachers read, found {columns:?}");
            }
        };
        let by_number: HashMap<usize, &Vec<String>> =
            table.lines.iter().map(|line| (line.number, &line.columns)).collect();
        let text = |number: &usize| {
            let columns = by_number.get(number).context("expected the lines of the training file")?;
            Ok((columns[first].clone(), second.map(|second| columns[second].clone())))
        };
        Ok(Self::Texts(features.lines.iter().map(text).collect::<Result<_>>()?))
    }

    fn contents(&self) -> Vec<Content<'_>> {
        match self {
            Self::Words(sentences) => sentences.iter().map(Content::from).collect(),
            Self::Texts(texts) => texts
                .iter()
                .map(|(first, second)| match second {
                    Some(second) => Content::Pair(first, second),
                    None => Content::Text(first),
                })
                .collect(),
        }
    }
}

/// Logits from columns of the file.
fn scores(
    features: &Features,
    columns: &[(Option<String>, String)],
    numbers: Numbers,
    classes: &[String],
    configuration: &Configuration,
) -> Result<Said> {
    let logit = |value: f64, line: usize| match numbers {
        Numbers::Logits => Ok(value),
        Numbers::Probs if (0.0..=1.0).contains(&value) => Ok(value.max(1e-7).ln()),
        Numbers::Probs => bail!("line {line}: expected a probability, found {value}"),
    };
    let of = |column: &str| Ok::<_, anyhow::Error>(features.numbers(column)?.to_vec());
    if configuration.inputs.problem == Problem::Regression {
        let [(None, column)] = columns else { bail!("scores: expected one column of a regression") };
        return Ok(Said::Rows { values: of(column)?.into_iter().map(|value| value as f32).collect(), width: 1 });
    }
    let mut values = Vec::with_capacity(features.len() * classes.len());
    if let [(None, column)] = columns {
        let positive = kd_data::scores::positive_class(classes, configuration.inputs.positive_label.as_deref())?;
        if classes.len() != 2 {
            bail!("scores: expected a column for each of the classes {}, found one", classes.join(", "));
        }
        for (value, &line) in of(column)?.into_iter().zip(&features.lines) {
            let pair = match numbers {
                Numbers::Logits => [0.0, value],
                Numbers::Probs => [logit(1.0 - value, line)?, logit(value, line)?],
            };
            values.extend((0..2).map(|class| pair[usize::from(class == positive)] as f32));
        }
    } else {
        let column = |class: &String| match columns.iter().find(|(name, _)| name.as_ref() == Some(class)) {
            Some((_, column)) => of(column),
            None => {
                bail!("scores: expected a column for each of the classes {}, none is of `{class}`", classes.join(", "))
            }
        };
        let all = classes.iter().map(column).collect::<Result<Vec<_>>>()?;
        for (example, &line) in features.lines.iter().enumerate() {
            for column in &all {
                values.push(logit(column[example], line)? as f32);
            }
        }
    }
    Ok(Said::Rows { values, width: classes.len() })
}
