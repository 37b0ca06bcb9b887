//! Which function computes each file of a loss on representations.

use std::collections::HashMap;

use candle_core::{Result, Tensor};
use candle_nn::VarBuilder;
use kd_core::batch::Sequence;
use kd_core::losses::{self, LayerByLayer, SelectivityKernel};
use kd_core::model::Output;

use super::reader::{Given, Loss};

/// A loss of `student` and `teacher`, with or without rows.
macro_rules! of_student_and_teacher {
    ($mean:ident) => {
        Loss {
            name: stringify!($mean),
            rows: None,
            mean: |x| losses::$mean(x.tensor("student")?, x.tensor("teacher")?),
        }
    };
    ($mean:ident, $rows:ident) => {
        Loss {
            name: stringify!($mean),
            rows: Some(|x| losses::$rows(x.tensor("student")?, x.tensor("teacher")?)),
            mean: |x| losses::$mean(x.tensor("student")?, x.tensor("teacher")?),
        }
    };
}

pub(crate) const LOSSES: &[Loss] = &[
    of_student_and_teacher!(hidden_mse, hidden_mse_rows),
    of_student_and_teacher!(hidden_cosine, hidden_cosine_rows),
    of_student_and_teacher!(normalised_distance, normalised_distance_rows),
    Loss {
        name: "first_token_distance",
        rows: Some(|x| {
            let pairs: Vec<(usize, usize)> = x.parameter("pairs")?;
            losses::first_token_distance_rows(&hidden(x, "student")?, &hidden(x, "teacher")?, &pairs)
        }),
        mean: |x| {
            let pairs: Vec<(usize, usize)> = x.parameter("pairs")?;
            losses::first_token_distance(&hidden(x, "student")?, &hidden(x, "teacher")?, &pairs)
        },
    },
    Loss {
        name: "attention_mse",
        rows: Some(|x| losses::attention_mse_rows(x.tensor("student")?, x.tensor("teacher")?, x.tensor("mask")?)),
        mean: |x| losses::attention_mse(x.tensor("student")?, x.tensor("teacher")?, x.tensor("mask")?),
    },
    Loss {
        name: "attention_kl",
        rows: Some(|x| losses::attention_kl_rows(x.tensor("student")?, x.tensor("teacher")?, x.tensor("mask")?)),
        mean: |x| losses::attention_kl(x.tensor("student")?, x.tensor("teacher")?, x.tensor("mask")?),
    },
    Loss {
        name: "relation_kl",
        rows: Some(|x| {
            let [student, teacher] = [pair(x, ["student_a", "student_b"])?, pair(x, ["teacher_a", "teacher_b"])?];
            losses::relation_kl_rows(student, teacher, x.parameter("heads")?, x.tensor("mask")?)
        }),
        mean: |x| {
            let [student, teacher] = [pair(x, ["student_a", "student_b"])?, pair(x, ["teacher_a", "teacher_b"])?];
            losses::relation_kl(student, teacher, x.parameter("heads")?, x.tensor("mask")?)
        },
    },
    Loss {
        name: "self_relations_kl",
        rows: Some(|x| {
            let [student, teacher] = [projections(x, "student")?, projections(x, "teacher")?];
            losses::self_relations_kl_rows(student, teacher, x.parameter("heads")?, x.tensor("mask")?)
        }),
        mean: |x| {
            let [student, teacher] = [projections(x, "student")?, projections(x, "teacher")?];
            losses::self_relations_kl(student, teacher, x.parameter("heads")?, x.tensor("mask")?)
        },
    },
    Loss {
        name: "flow_mse",
        rows: Some(|x| {
            let [student, teacher] =
                [pair(x, ["student_early", "student_late"])?, pair(x, ["teacher_early", "teacher_late"])?];
            losses::flow_mse_rows(student, teacher, x.tensor("mask")?)
        }),
        mean: |x| {
            let [student, teacher] =
                [pair(x, ["student_early", "student_late"])?, pair(x, ["teacher_early", "teacher_late"])?];
            losses::flow_mse(student, teacher, x.tensor("mask")?)
        },
    },
    Loss {
        name: "neuron_selectivity",
        rows: Some(|x| {
            let kernel: SelectivityKernel = x.parameter("kernel")?;
            losses::neuron_selectivity_rows(x.tensor("student")?, x.tensor("teacher")?, kernel, x.tensor("mask")?)
        }),
        mean: |x| {
            let kernel: SelectivityKernel = x.parameter("kernel")?;
            losses::neuron_selectivity(x.tensor("student")?, x.tensor("teacher")?, kernel, x.tensor("mask")?)
        },
    },
    of_student_and_teacher!(relational_distance),
    of_student_and_teacher!(relational_angle),
    of_student_and_teacher!(similarity_preserving),
    Loss {
        name: "noise_contrast",
        rows: Some(|x| {
            let (anchors, candidates) = pair(x, ["anchors", "candidates"])?;
            let log_normaliser = Tensor::new(x.parameter::<f64>("log_normaliser")?, anchors.device())?;
            let examples = x.parameter("examples")?;
            losses::noise_contrast_rows(anchors, candidates, x.parameter("temperature")?, &log_normaliser, examples)
        }),
        mean: |x| {
            let (anchors, candidates) = pair(x, ["anchors", "candidates"])?;
            let log_normaliser = Tensor::new(x.parameter::<f64>("log_normaliser")?, anchors.device())?;
            let examples = x.parameter("examples")?;
            losses::noise_contrast(anchors, candidates, x.parameter("temperature")?, &log_normaliser, examples)
        },
    },
    Loss { name: "layer_by_layer", rows: None, mean: layer_by_layer },
];

fn pair<'a>(x: &'a Given<'_>, names: [&str; 2]) -> Result<(&'a Tensor, &'a Tensor)> {
    Ok((x.tensor(names[0])?, x.tensor(names[1])?))
}

fn projections<'a>(x: &'a Given<'_>, owner: &str) -> Result<[&'a Tensor; 3]> {
    let of = |name: &str| x.tensor(&format!("{owner}_{name}"));
    Ok([of("queries")?, of("keys")?, of("values")?])
}

/// The layers that stand one upon the other in a tensor.
fn layers(stacked: &Tensor) -> Result<Vec<Tensor>> {
    (0..stacked.dim(0)?).map(|idx| stacked.get(idx)).collect()
}

fn hidden(x: &Given<'_>, name: &str) -> Result<Output> {
    Ok(Output { hidden: layers(x.tensor(name)?)?, ..Output::default() })
}

fn layer_by_layer(x: &Given<'_>) -> Result<Tensor> {
    let output = |owner: &str| {
        let of = |name: &str| x.tensor(&format!("{owner}_{name}"));
        let (hidden, attention) = (layers(of("hidden")?)?, layers(of("attention")?)?);
        Ok::<_, candle_core::Error>(Output { hidden, attention, ..Output::from_logits(of("logits")?.clone()) })
    };
    let mask = x.tensor("mask")?;
    let sequence =
        Sequence { ids: mask.clone(), mask: mask.clone(), segments: None, chars: None, features: Vec::new() };
    let (embeddings, of_layers) = pair(x, ["embeddings_weight", "hidden_weight"])?;
    let weights = [("embeddings.weight", embeddings), ("hidden.weight", of_layers)];
    let weights: HashMap<String, Tensor> = weights.map(|(name, x)| (name.to_string(), x.clone())).into();
    let vb = VarBuilder::from_tensors(weights, embeddings.dtype(), embeddings.device());
    let (teacher_width, student_width) = embeddings.dims2()?;
    let matching =
        LayerByLayer::new(x.parameter("pairs")?, student_width, teacher_width, x.parameter("temperature")?, vb)?;
    matching.losses(&output("student")?, &output("teacher")?, &sequence, &sequence.token_rows()?)?.total()
}
