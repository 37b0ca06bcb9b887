//! What teachers say of the training examples, and the loss that learns from it.

use anyhow::{Context, Result, bail};
use candle_core::{Device, Tensor};
use kd_core::batch::Batch;
use kd_core::model::{Output, match_classes};
use kd_core::objective::{Loss, Objective, SoftLoss};
use kd_data::features::{Column, Features, WORDS};
use kd_data::table::Table;
use kd_data::teacher_outputs::import::Numbers;
use kd_data::teacher_outputs::{Content, Store, TeacherOutputs, TeacherRows};
use kd_students::plan::LossPlan;
use kd_teachers::hub::{HubEnvironment, ModelFiles};

use super::blueprint::Blueprint;
use super::configuration::{Configuration, Distillation, Problem, Source};
use super::model::Model;
use super::pairing::target_of;
use super::reader::texts;
use crate::labelling::{AskedTeacher, Compute, Keep, label};

/// Tokens of a batch that a teacher is asked about.
const ASKED: usize = 4096;

/// Outputs of one teacher.
#[derive(Debug)]
enum Said {
    /// Logits of each example, a row each.
    Rows { values: Vec<f32>, width: usize },
    /// Joined by content, and the classes in the order of the output that learns from them.
    Stored(TeacherRows, Vec<String>),
}

/// The teachers of a configuration.
#[derive(Debug)]
pub struct Teachers {
    said: Vec<Said>,
    heads: Vec<usize>,
    device: Device,
}

impl Teachers {
    /// What the teachers say of the examples of `features`, whose lines are in `table`, of these `columns`.
    ///
    /// # Errors
    /// If a teacher's outputs are missing, of other classes, or not numbers; the message names the teacher.
    pub fn ask(
        configuration: &Configuration,
        distillation: &Distillation,
        model: &Model,
        features: &Features,
        table: &Table,
        columns: &[String],
    ) -> Result<Self> {
        let (blueprint, device) = (&model.blueprint, &model.device);
        let mut said = Vec::new();
        for ((idx, teacher), &output) in distillation.teachers.iter().enumerate().zip(&blueprint.pairing.taught) {
            let path = || format!("distillation.teachers[{idx}]");
            // An output that is in no loss says what the answer is of.
            let target = target_of(configuration, &blueprint.plan, output).unwrap_or(blueprint.pairing.answered);
            let classes = model.classes_of(target);
            let texts = || Texts::of(configuration, blueprint, features, table, columns).with_context(path);
            said.push(match &teacher.source {
                Source::Scores { columns, numbers } => {
                    scores(features, columns, *numbers, classes, configuration).with_context(path)?
                }
                Source::File(file) => {
                    let outputs = TeacherOutputs::open_file(file).with_context(path)?;
                    let classes = stored_classes(outputs.classes(), classes, configuration).with_context(path)?;
                    Said::Stored(outputs.join(texts()?.contents()).with_context(path)?, classes)
                }
                Source::Model { id, revision, store, max_len } => {
                    let files = ModelFiles::find(id, revision, &HubEnvironment::from_env()?).with_context(path)?;
                    let asked = AskedTeacher::load(&files, *max_len, Compute::F32, &Keep::default(), device)
                        .with_context(path)?;
                    let classes = stored_classes(&asked.about().classes, classes, configuration).with_context(path)?;
                    let mut outputs =
                        Store::open(store).and_then(|store| store.teacher(asked.about())).with_context(path)?;
                    let texts = texts()?;
                    label(&asked, &texts.contents(), ASKED, &mut outputs).with_context(path)?;
                    Said::Stored(outputs.join(texts.contents()).with_context(path)?, classes)
                }
            });
        }
        Ok(Self { said, heads: blueprint.pairing.taught.clone(), device: device.clone() })
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
            Said::Stored(rows, classes) => rows.collate(examples, classes, &self.device),
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

/// The classes of stored outputs in the order of the output that learns from them; of a regression its one number.
///
/// # Errors
/// If the teacher has others.
fn stored_classes(teacher: &[String], classes: &[String], configuration: &Configuration) -> Result<Vec<String>> {
    if configuration.inputs.problem == Problem::Regression {
        if teacher.len() != 1 {
            bail!("expected a teacher of one number, found one of the classes {}", teacher.join(", "));
        }
        return Ok(teacher.to_vec());
    }
    match_classes(teacher, classes)?;
    Ok(classes.to_vec())
}

/// The texts as teachers know them: the text of each branch, or the two of one that no cluster embeds; or the words of the
/// first branch.
#[derive(Debug)]
enum Texts {
    Texts(Vec<(String, Option<String>)>),
    Words(Vec<Vec<String>>),
}

impl Texts {
    fn of(
        configuration: &Configuration,
        blueprint: &Blueprint,
        features: &Features,
        table: &Table,
        columns: &[String],
    ) -> Result<Self> {
        let branches = blueprint.plan.branches();
        if configuration.inputs.problem == Problem::SequenceTagging {
            let boundary = usize::from(configuration.inputs.add_start_end_for_seq);
            let of_words = |column: &Column| column.cluster == WORDS && column.branch == branches[0].name;
            let column = features.columns.iter().position(of_words);
            let column = column.with_context(|| format!("expected a column of words in `{}`", branches[0].name))?;
            let words = |example| {
                let words: Vec<String> = features.words(column, example).map(str::to_string).collect();
                words[boundary..words.len() - boundary].to_vec()
            };
            return Ok(Self::Words((0..features.len()).map(words).collect()));
        }
        // What else is known of the words, such as their parts of speech, is no text.
        let mut wanted: Vec<String> = Vec::new();
        for branch in branches {
            let is_text = |cluster: &Option<String>| cluster.as_ref().is_none_or(|cluster| cluster == WORDS);
            let texts = branch.columns.iter().filter(|column| is_text(&column.cluster)).map(|column| &column.name);
            let is_pair = branch.columns.iter().all(|column| column.cluster.is_none());
            for text in texts.take(if is_pair { 2 } else { 1 }) {
                if !wanted.contains(text) {
                    wanted.push(text.clone());
                }
            }
        }
        if !(1..=2).contains(&wanted.len()) {
            bail!("expected a text or a pair, which teachers read, found the columns {wanted:?}");
        }
        let mut texts = texts(table, &features.lines, columns, &wanted)?.into_iter();
        let first = texts.next().unwrap_or_default();
        Ok(Self::Texts(match texts.next() {
            None => first.into_iter().map(|text| (text, None)).collect(),
            Some(second) => first.into_iter().zip(second.into_iter().map(Some)).collect(),
        }))
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
