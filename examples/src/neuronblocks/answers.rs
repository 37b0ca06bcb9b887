//! What a network says of examples, and how prediction files have it.

use anyhow::{Result, bail};
use candle_core::{DType, Tensor};
use kd_core::batch::Tokens;
use kd_core::model::{Mode, Output, Student};
use kd_core::ops;
use kd_data::batches::{restore, sequential};
use kd_data::encode::Encode;
use kd_data::features::best_span;
use kd_data::scores::largest;
use kd_students::tagger::decode;

use super::configuration::{Field, Problem};
use super::encoded::Encoded;

/// Tokens of a batch that is asked about.
const ASKED_ON_CPU: usize = 4096;
const ASKED_ON_GPU: usize = 1 << 16;

/// The answer to one example.
#[derive(Debug, Clone, PartialEq)]
pub enum Answer {
    /// The probability of each class.
    Probs(Vec<f32>),
    /// A number.
    Number(f32),
    /// The class of each row.
    Tags(Vec<u32>),
    /// First and last token of the answer in the passage.
    Span(usize, usize),
}

/// How the outputs of a network become answers.
#[derive(Debug, Clone, PartialEq)]
pub struct Reading {
    /// What was learned.
    pub problem: Problem,
    /// Heads that answer, whose mean counts; a span has two, its start and its end.
    pub heads: Vec<usize>,
    /// Whether a head already gives probabilities, by the head's place in `heads`.
    pub gives_probs: Vec<bool>,
}

impl Reading {
    /// The answers to the examples of a batch.
    ///
    /// # Errors
    /// If an output is of another shape than the problem needs.
    pub fn answers(&self, output: &Output, tokens: &Tokens) -> candle_core::Result<Vec<Answer>> {
        let head = |nth: usize| match output.heads.get(self.heads[nth]) {
            Some(head) => Ok(head),
            None => candle_core::bail!("the network has {} heads, head {} was asked for", output.heads.len(), nth),
        };
        match self.problem {
            Problem::Classification => {
                let rows = self.probs(output)?.to_vec2::<f32>()?;
                Ok(rows.into_iter().map(Answer::Probs).collect())
            }
            Problem::Regression => {
                let mut sum: Option<Tensor> = None;
                for nth in 0..self.heads.len() {
                    let numbers = numbers(head(nth)?)?;
                    sum = Some(match sum {
                        Some(sum) => (sum + numbers)?,
                        None => numbers,
                    });
                }
                let Some(sum) = sum else { candle_core::bail!("expected a head, found none") };
                let mean = (sum / self.heads.len() as f64)?;
                Ok(mean.to_dtype(DType::F32)?.to_vec1::<f32>()?.into_iter().map(Answer::Number).collect())
            }
            Problem::SequenceTagging => {
                let per_example = tokens.rows_per_example()?;
                // A CRF is the first head's.
                let tags = if output.transitions.is_some() && self.heads == [0] {
                    decode(output, &per_example)?
                } else {
                    decode(&Output::from_logits(self.probs(output)?), &per_example)?
                };
                let mut tags = tags.into_iter();
                Ok(per_example.iter().map(|&rows| Answer::Tags(tags.by_ref().take(rows).collect())).collect())
            }
            Problem::Mrc => {
                if self.heads.len() != 2 {
                    candle_core::bail!("expected two heads, of start and end, found {}", self.heads.len());
                }
                let log_probs = |nth: usize| -> candle_core::Result<Vec<Vec<f32>>> {
                    let scores = head(nth)?;
                    let scores = if scores.rank() == 3 { scores.squeeze(2)? } else { scores.clone() };
                    ops::log_softmax(&scores)?.to_dtype(DType::F32)?.to_vec2()
                };
                let (starts, ends) = (log_probs(0)?, log_probs(1)?);
                let span = |(start, end): (Vec<f32>, Vec<f32>)| match best_span(&start, &end) {
                    Some((first, last)) => Ok(Answer::Span(first, last)),
                    None => candle_core::bail!("expected a passage of at least one token, found none"),
                };
                starts.into_iter().zip(ends).map(span).collect()
            }
        }
    }

    /// The mean of the heads' probabilities, `(rows, classes)` f32.
    fn probs(&self, output: &Output) -> candle_core::Result<Tensor> {
        let mut heads = Vec::with_capacity(self.heads.len());
        for (&head, &is_probs) in self.heads.iter().zip(&self.gives_probs) {
            let Some(logits) = output.heads.get(head) else {
                candle_core::bail!("the network has {} heads, head {head} was asked for", output.heads.len())
            };
            let (_, _) = logits.dims2()?;
            heads.push(if is_probs { logits.clone() } else { ops::softmax(logits)? });
        }
        Tensor::stack(&heads, 0)?.mean(0)?.to_dtype(DType::F32)
    }
}

/// `(rows, 1)` or `(rows,)` as `(rows,)`.
fn numbers(head: &Tensor) -> candle_core::Result<Tensor> {
    match head.dims() {
        [_] => Ok(head.clone()),
        [_, 1] => head.squeeze(1),
        other => candle_core::bail!("expected one number a row, found the shape {other:?}"),
    }
}

/// What the network says of every example, in their order.
///
/// # Errors
/// If it cannot read them.
pub fn ask(network: &dyn Student, encoded: &Encoded, reading: &Reading, on_cpu: bool) -> Result<Vec<Answer>> {
    let batches = sequential(encoded.lengths(), if on_cpu { ASKED_ON_CPU } else { ASKED_ON_GPU });
    let mut all = Vec::with_capacity(batches.len());
    for examples in &batches {
        let tokens = encoded.collate(examples)?;
        let output = network.forward(&tokens, Mode::Eval)?.detach();
        all.push(reading.answers(&output, &tokens)?);
    }
    Ok(restore(&batches, all))
}

/// The columns that a prediction file adds to the line of an example.
///
/// # Errors
/// If a field is not one of the answer's, or names no class.
pub fn fields(
    answer: &Answer,
    fields: &[Field],
    classes: &[String],
    span: impl Fn(usize, usize) -> String,
) -> Result<Vec<String>> {
    let class = |idx: usize| classes.get(idx).cloned().unwrap_or_default();
    let field = |field: &Field| match (field, answer) {
        (Field::Prediction, Answer::Probs(probs)) => Ok(class(largest(probs))),
        (Field::Prediction, Answer::Number(number)) => Ok(number.to_string()),
        (Field::Prediction, Answer::Tags(tags)) => {
            Ok(tags.iter().map(|&tag| class(tag as usize)).collect::<Vec<_>>().join(" "))
        }
        (Field::Prediction, Answer::Span(first, last)) => Ok(span(*first, *last)),
        (Field::Confidence, Answer::Probs(probs)) => Ok(probs[largest(probs)].to_string()),
        (Field::ConfidenceOf(name), Answer::Probs(probs)) => match classes.iter().position(|class| class == name) {
            Some(idx) => Ok(probs[idx].to_string()),
            None => bail!("outputs.predict_fields: expected confidence@ of {}, found `{name}`", classes.join(", ")),
        },
        _ => bail!("outputs.predict_fields: expected `prediction`, found a confidence, which only classes have"),
    };
    fields.iter().map(field).collect()
}

#[cfg(test)]
mod tests {
    use super::*;
    use candle_core::Device;
    use kd_core::batch::{Rows, pad};

    fn tokens(rows: Rows) -> Tokens {
        let first = pad(&[vec![2, 3], vec![4]], &Device::Cpu).unwrap();
        Tokens { first, second: None, more: vec![], rows }
    }

    fn reading(problem: Problem, heads: usize, gives_probs: bool) -> Reading {
        Reading { problem, heads: (0..heads).collect(), gives_probs: vec![gives_probs; heads] }
    }

    fn head(values: &[[f32; 2]]) -> Tensor {
        Tensor::from_vec(values.concat(), (values.len(), 2), &Device::Cpu).unwrap()
    }

    #[test]
    fn classes_are_the_mean_of_the_heads_probabilities() {
        // softmax (1/4, 3/4) and, given as it is, (3/4, 1/4).
        let output = Output { heads: vec![head(&[[0., 3f32.ln()]]), head(&[[0.75, 0.25]])], ..Output::default() };
        let reading = Reading { gives_probs: vec![false, true], ..reading(Problem::Classification, 2, false) };
        let answers = reading.answers(&output, &tokens(Rows::Examples)).unwrap();
        let [Answer::Probs(probs)] = &answers[..] else { panic!("{answers:?}") };
        assert!(probs.iter().all(|p| (p - 0.5).abs() < 1e-6), "{probs:?}");
    }

    #[test]
    fn numbers_tags_and_spans() {
        let number = Output::from_logits(Tensor::new(&[[0.5f32], [0.25]], &Device::Cpu).unwrap());
        let numbers = reading(Problem::Regression, 1, false).answers(&number, &tokens(Rows::Examples)).unwrap();
        assert_eq!(numbers, [Answer::Number(0.5), Answer::Number(0.25)]);

        let index = Tensor::new(&[0u32, 1, 2], &Device::Cpu).unwrap();
        let rows = Rows::Words { index, per_example: vec![2, 1] };
        let tags = Output::from_logits(head(&[[0., 1.], [1., 0.], [0., 1.]]));
        let tags = reading(Problem::SequenceTagging, 1, false).answers(&tags, &tokens(rows)).unwrap();
        assert_eq!(tags, [Answer::Tags(vec![1, 0]), Answer::Tags(vec![1])]);

        let heads = vec![head(&[[0., 3.], [1., -1e9]]), head(&[[2., 1.], [0., -1e9]])];
        let spans = Output { heads, ..Output::default() };
        let spans = reading(Problem::Mrc, 2, false).answers(&spans, &tokens(Rows::Examples)).unwrap();
        assert_eq!(spans, [Answer::Span(1, 1), Answer::Span(0, 0)]); // 3 + 1 beats 0 + 2 and 0 + 1
    }

    #[test]
    fn the_columns_of_a_prediction_file() {
        let classes = ["0", "1"].map(String::from);
        let all = [Field::Prediction, Field::Confidence, Field::ConfidenceOf("0".into())];
        let none = |_, _| String::new();
        let probs = Answer::Probs(vec![0.25, 0.75]);
        assert_eq!(fields(&probs, &all, &classes, none).unwrap(), ["1", "0.75", "0.25"]);
        assert_eq!(fields(&Answer::Tags(vec![1, 0]), &all[..1], &classes, none).unwrap(), ["1 0"]);
        let span = |first, last| format!("{first}-{last}");
        assert_eq!(fields(&Answer::Span(2, 3), &all[..1], &classes, span).unwrap(), ["2-3"]);
        let message = fields(&Answer::Number(1.), &all, &classes, none).unwrap_err().to_string();
        assert!(message.contains("expected `prediction`"), "{message}");
        let message = fields(&probs, &[Field::ConfidenceOf("2".into())], &classes, none).unwrap_err().to_string();
        assert!(message.ends_with("expected confidence@ of 0, 1, found `2`"), "{message}");
    }
}
