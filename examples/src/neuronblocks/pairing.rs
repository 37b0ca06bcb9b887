//! Which outputs answer, what they are compared with, and which of them learn from teachers: what the losses of a
//! configuration say.
//!
//! ```text
//! loss (start_layer, answer_start), loss (end_layer, answer_end)  ->  the answer is of [start_layer, end_layer]
//! target [label, rating], losses (rate, rating), (class, label)   ->  the answer is of [class], compared with label
//! ```

use anyhow::{Context, Result, bail};
use kd_data::features::TargetKind;
use kd_students::plan::Plan;
use serde_json::Value;

use super::configuration::{Configuration, Problem};

/// Losses that read classes; the others read numbers.
pub const OF_CLASSES: [&str; 6] =
    ["CrossEntropyLoss", "NLLLoss", "NLLLoss2d", "FocalLoss", "MultiMarginLoss", "CRFLoss"];

/// What the losses say.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Pairing {
    /// Outputs whose mean is the answer, by their place; of `mrc` those of start and end.
    pub answer: Vec<usize>,
    /// The target that answers are compared with, by its place; of `mrc` that of the start.
    pub answered: usize,
    /// The output that learns from each teacher, by its place.
    pub taught: Vec<usize>,
}

impl Pairing {
    /// The pairing of a configuration with this plan.
    ///
    /// # Errors
    /// If no target can be compared with answers, an output that is named is none, or the outputs that answer together are
    /// compared with different targets or learn nothing; the message has the path.
    pub fn of(configuration: &Configuration, plan: &Plan) -> Result<Self> {
        let kinds = target_kinds(configuration);
        let problem = configuration.inputs.problem;
        if problem == Problem::Mrc {
            let of = |kind| first_of(configuration, plan, &kinds, kind);
            let ((start, answered), (end, _)) = (of(TargetKind::SpanStart)?, of(TargetKind::SpanEnd)?);
            return Ok(Self { answer: vec![start, end], answered, taught: Vec::new() });
        }
        let kind = match problem {
            Problem::Regression => TargetKind::Number,
            Problem::SequenceTagging => TargetKind::Tags,
            _ => TargetKind::Class,
        };
        let (output, first) = first_of(configuration, plan, &kinds, kind)?;
        let taught = taught(configuration, plan, output)?;
        let answer = answer(configuration, plan, output, &taught)?;
        let mut answered: Vec<usize> =
            answer.iter().filter_map(|&output| target_of(configuration, plan, output)).collect();
        answered.retain(|&target| kinds[target] == kind);
        answered.dedup();
        let answered = match answered[..] {
            [] => first,
            [target] => target,
            [one, other, ..] => {
                let names = &configuration.inputs.target;
                bail!(
                    "{}: expected outputs that are compared with one target, found {} and {}",
                    if configuration.outputs.answer.is_some() { "outputs.answer" } else { "distillation.average" },
                    names[one],
                    names[other]
                )
            }
        };
        if let Some(distillation) = &configuration.distillation
            && distillation.alpha == 1.0
            && let Some(&idle) = answer.iter().find(|output| !taught.contains(output))
        {
            let output = &plan.outputs()[idle];
            bail!("distillation.alpha: expected below 1, since no teacher teaches `{output}`, which answers, found 1");
        }
        Ok(Self { answer, answered, taught })
    }
}

/// The target of an output, by its place: that of the first loss that reads both.
pub fn target_of(configuration: &Configuration, plan: &Plan, output: usize) -> Option<usize> {
    let id = plan.outputs().get(output)?.as_str();
    let of = |(_, inputs): (&str, Vec<&str>)| {
        let (last, outputs) = inputs.split_last()?;
        outputs.contains(&id).then(|| configuration.inputs.target.iter().position(|target| target == last))?
    };
    losses(configuration).find_map(of)
}

/// What stands in each target column, by the losses that read it.
pub fn target_kinds(configuration: &Configuration) -> Vec<TargetKind> {
    let problem = configuration.inputs.problem;
    let mut spans = [TargetKind::SpanStart, TargetKind::SpanEnd].into_iter();
    let kind = |target: &String| {
        let of_classes = losses(configuration)
            .find(|(_, inputs)| inputs.last().is_some_and(|column| column == target))
            .map(|(name, _)| OF_CLASSES.contains(&name));
        match (problem, of_classes) {
            (Problem::Mrc, Some(true)) => spans.next().unwrap_or(TargetKind::Text),
            (Problem::Mrc, None) => TargetKind::Text,
            (Problem::SequenceTagging, Some(true) | None) => TargetKind::Tags,
            (_, Some(true)) | (Problem::Classification, None) => TargetKind::Class,
            (_, Some(false) | None) => TargetKind::Number,
        }
    };
    configuration.inputs.target.iter().map(kind).collect()
}

/// The layer that the first loss compares with `target`.
pub fn compared_with(configuration: &Configuration, target: &str) -> Option<String> {
    let (_, inputs) = losses(configuration).find(|(_, inputs)| inputs.last() == Some(&target))?;
    inputs.first().map(|id| id.to_string())
}

/// Type and inputs of each loss.
pub fn losses(configuration: &Configuration) -> impl Iterator<Item = (&str, Vec<&str>)> {
    let list = configuration.loss()["losses"].as_array().map(Vec::as_slice).unwrap_or_default();
    list.iter().map(|loss| {
        let inputs = loss["inputs"].as_array().map(Vec::as_slice).unwrap_or_default();
        (loss["type"].as_str().unwrap_or_default(), inputs.iter().filter_map(Value::as_str).collect())
    })
}

/// The first target of this kind, one that a loss reads before others, and the output that is compared with it; without a
/// loss the first.
fn first_of(
    configuration: &Configuration,
    plan: &Plan,
    kinds: &[TargetKind],
    kind: TargetKind,
) -> Result<(usize, usize)> {
    let names = &configuration.inputs.target;
    let output = |target: usize| {
        let id = compared_with(configuration, &names[target])?;
        plan.outputs().iter().position(|output| *output == id)
    };
    let mut of_kind = (0..kinds.len()).filter(|&target| kinds[target] == kind).peekable();
    let first = of_kind.peek().copied();
    match (of_kind.find_map(|target| Some((output(target)?, target))), first) {
        (Some(found), _) => Ok(found),
        (None, Some(first)) => Ok((0, first)),
        (None, None) => bail!(
            "inputs.target: expected {}, as losses of {} have, for {} is scored by it, found {}",
            match kind {
                TargetKind::Class => "a column of classes",
                TargetKind::Tags => "a column of tags",
                TargetKind::Number => "a column of numbers",
                TargetKind::SpanEnd => "columns of start and end of answers",
                _ => "a column of starts of answers",
            },
            if kind == TargetKind::Number { "numbers" } else { "classes" },
            configuration.inputs.problem.name(),
            names.join(", ")
        ),
    }
}

fn place_of(plan: &Plan, output: &String, path: impl FnOnce() -> String) -> Result<usize> {
    let place = plan.outputs().iter().position(|other| other == output);
    place.with_context(|| {
        format!("{}: expected an output layer ({}), found `{output}`", path(), plan.outputs().join(", "))
    })
}

/// The output that each teacher has; by default the one that answers.
fn taught(configuration: &Configuration, plan: &Plan, default: usize) -> Result<Vec<usize>> {
    let teachers = configuration.distillation.iter().flat_map(|it| &it.teachers).enumerate();
    let output = |(idx, teacher): (usize, &super::configuration::TeacherConfig)| match &teacher.output {
        Some(output) => place_of(plan, output, || format!("distillation.teachers[{idx}].output")),
        None => Ok(default),
    };
    teachers.map(output).collect()
}

/// The outputs that answer together: those that are named, or all that are taught, or `default`.
fn answer(configuration: &Configuration, plan: &Plan, default: usize, taught: &[usize]) -> Result<Vec<usize>> {
    let is_average = configuration.distillation.as_ref().is_some_and(|it| it.average);
    let mut places = match &configuration.outputs.answer {
        None if is_average => taught.to_vec(),
        None => vec![default],
        Some(names) => {
            let named = |(idx, name)| place_of(plan, name, || format!("outputs.answer[{idx}]"));
            names.iter().enumerate().map(named).collect::<Result<_>>()?
        }
    };
    places.sort_unstable();
    places.dedup();
    if places.len() > 1
        && let Some(crf) = plan.layers().iter().find(|layer| layer.is_output && layer.block == "CRF")
    {
        bail!("distillation.average: expected false beside the CRF `{}`, whose best path answers alone", crf.id);
    }
    Ok(places)
}

#[cfg(test)]
mod tests {
    use std::path::Path;

    use serde_json::json;

    use super::super::blueprint::Blueprint;
    use super::*;

    /// Outputs `rate`, `kind` and `mood`, in this order, of the targets that end in `_is`.
    fn pairing(targets: &[&str], answer: Value, distillation: Value) -> Result<Pairing> {
        let linear = |id: &str, width: usize| {
            let conf = json!({"hidden_dim": width, "batch_norm": false, "last_hidden_activation": false});
            json!({"layer_id": id, "layer": "Linear", "conf": conf, "inputs": ["mean"], "output_layer_flag": true})
        };
        let loss = |name: &str, output: &str| json!({"type": name, "inputs": [output, format!("{output}_is")]});
        let value = json!({
            "tool_version": "1.1.0",
            "inputs": {
                "dataset_type": "classification", "target": targets, "model_inputs": {"t": ["text"]},
                "file_header": {"text": 0, "rate_is": 1, "kind_is": 2, "mood_is": 3}
            },
            "outputs": {"model_name": "m", "answer": answer},
            "training_params": {"optimizer": {"name": "SGD", "params": {"lr": 0.1}}},
            "architecture": [
                {"layer": "Embedding", "conf": {"word": {"cols": ["text"], "dim": 2}}},
                {"layer_id": "mean", "layer": "Pooling", "conf": {"pool_type": "mean"}, "inputs": ["t"]},
                linear("rate", 1), linear("kind", 3), linear("mood", 2)
            ],
            "loss": {
                "losses": [loss("MSELoss", "rate"), loss("CrossEntropyLoss", "mood"), loss("CrossEntropyLoss", "kind")],
                "multi_loss_op": "weighted_sum", "weights": [1.0, 1.0, 1.0]
            },
            "metrics": ["accuracy"], "distillation": distillation
        });
        let configuration = Configuration::parse(Path::new("conf.json"), value)?;
        Ok(Blueprint::of(&configuration, None)?.pairing)
    }

    #[test]
    fn losses_say_which_output_answers_and_learns() {
        let targets = ["rate_is", "kind_is", "mood_is"];
        let of = |answer: &[usize], answered, taught: &[usize]| Pairing {
            answer: answer.to_vec(),
            answered,
            taught: taught.to_vec(),
        };
        let found = |targets: &[&str], answer, distillation| pairing(targets, answer, distillation).unwrap();
        // The first target of classes, and the output of its loss.
        assert_eq!(found(&targets, Value::Null, Value::Null), of(&[1], 1, &[]));
        assert_eq!(found(&["mood_is", "kind_is", "rate_is"], Value::Null, Value::Null), of(&[2], 0, &[]));
        assert_eq!(found(&targets, json!(["mood"]), Value::Null), of(&[2], 2, &[]));
        let teachers = json!({"teachers": [{"file": "a"}, {"file": "b", "output": "mood"}]});
        assert_eq!(found(&targets, Value::Null, teachers), of(&[1], 1, &[1, 2]));
    }

    #[test]
    fn outputs_that_cannot_answer_are_named() {
        let message = |answer: Value, distillation: Value| {
            pairing(&["rate_is", "kind_is", "mood_is"], answer, distillation).unwrap_err().to_string()
        };
        assert_eq!(
            message(json!(["kid"]), Value::Null),
            "outputs.answer[0]: expected an output layer (rate, kind, mood), found `kid`"
        );
        let both = json!({"average": true, "teachers": [{"file": "a"}, {"file": "b", "output": "mood"}]});
        assert_eq!(
            message(Value::Null, both),
            "distillation.average: expected outputs that are compared with one target, found kind_is and mood_is"
        );
        let idle = json!({"alpha": 1.0, "teachers": [{"file": "b", "output": "mood"}]});
        assert_eq!(
            message(Value::Null, idle),
            "distillation.alpha: expected below 1, since no teacher teaches `kind`, which answers, found 1"
        );
    }
}
