//! Losses, gradients and probabilities of PyTorch: `tests/reference/heads.py`.

use std::collections::HashMap;

use candle_core::{DType, Result, Tensor};
use kd_core::batch::{Batch, Tokens};
use kd_core::model::{Mode, Output, Represent, Student};
use kd_core::nn::{HeadPerTeacher, Linear};
use kd_core::objective::{Objective, PerHead, SoftLoss};
use kd_core::testing::{assert_close, device};
use kd_core::variables::Variables;
use serde_json::Value;

use crate::{WIDTH, batch, gradients, set};

fn tensor(value: &Value) -> Tensor {
    let shape: Vec<usize> = serde_json::from_value(value["shape"].clone()).unwrap();
    Tensor::from_vec(serde_json::from_value::<Vec<f64>>(value["values"].clone()).unwrap(), shape, device()).unwrap()
}

fn tensors(value: &Value) -> HashMap<String, Tensor> {
    value.as_object().unwrap().iter().map(|(name, value)| (name.clone(), tensor(value))).collect()
}

/// `tanh(W x + b)` of the same rows whatever the tokens.
struct FixedRows {
    xs: Tensor,
    dense: Linear,
}

impl Represent for FixedRows {
    fn width(&self) -> usize {
        WIDTH
    }

    fn represent(&self, _: &Tokens, _: Mode) -> Result<Tensor> {
        self.dense.forward(&self.xs)?.tanh()
    }
}

#[test]
fn losses_gradients_and_probabilities_agree_with_pytorch() {
    let file: Value = serde_json::from_str(include_str!("../reference/heads.json")).unwrap();
    let cases = file["cases"].as_array().unwrap();
    assert_eq!(cases.len(), 9);
    for case in cases {
        for (dtype, tolerance) in [(DType::F64, 1e-12), (DType::F32, 5e-6)] {
            check(case, dtype, tolerance);
        }
    }
}

fn check(case: &Value, dtype: DType, tolerance: f64) {
    let (gold, size) = (case["gold"].as_bool().unwrap(), |name: &str| case[name].as_u64().unwrap() as usize);
    let variables = Variables::new(0, dtype, device());
    let xs = tensor(&case["xs"]).to_dtype(dtype).unwrap();
    let body = FixedRows { dense: Linear::new(3, WIDTH, variables.builder().pp("body")).unwrap(), xs };
    let set = set("set", size("classes"), size("teachers"), gold);
    let student = HeadPerTeacher::new(body, vec![set], true, 0.0, variables.builder()).unwrap();
    variables.set(&tensors(&case["variables"])).unwrap();
    let teachers = case["teacher_logits"].as_array().unwrap().iter();
    let labels: Vec<u32> = serde_json::from_value(case["labels"].clone()).unwrap();
    let batch = Batch {
        labels: Some(Tensor::new(labels, device()).unwrap()),
        teachers: teachers.map(|logits| Output::from_logits(tensor(logits).to_dtype(dtype).unwrap())).collect(),
        ..batch(0, 2, 0, dtype)
    };
    let temperature = 2.0;
    let name = case["soft"].as_str().unwrap();
    let soft = match name {
        "logit_mse" | "centred" => SoftLoss::LogitMse,
        "prob_mse" => SoftLoss::ProbMse,
        "kl" => SoftLoss::Kl { temperature },
        "reverse_kl" => SoftLoss::ReverseKl { temperature },
        "jensen_shannon" => SoftLoss::JensenShannon { temperature },
        other => panic!("no loss is called {other}"),
    };
    let alpha = case["alpha"].as_f64().unwrap().into();
    let objective = PerHead { alpha, soft, centre: name == "centred", gold };
    let output = student.forward_batch(&batch, Mode::Eval).unwrap();
    let loss = objective.loss(&output, &batch, 0).unwrap();
    let (total, parts) = loss.values().unwrap();
    let mut expected = vec![("loss", total), ("soft_part", parts["soft"])];
    expected.extend(parts.get("hard").map(|&hard| ("hard", hard)));
    assert_eq!(parts.len(), 1 + usize::from(gold));
    for (key, found) in expected {
        let expected = case[key].as_f64().unwrap();
        assert!((found - expected).abs() <= tolerance * (1.0 + expected.abs()), "{name} {key}: {found} {expected}");
    }
    let found = gradients(&variables, &loss.total);
    let expected = tensors(&case["gradients"]);
    assert_eq!(found.len(), expected.len());
    for (variable, gradient) in found {
        assert_close(&gradient, &expected[&variable], tolerance, tolerance)
            .unwrap_or_else(|error| panic!("{name} `{variable}`: {error}"));
    }
    let probs = student.probabilities(&output).unwrap();
    assert_close(&probs, &tensor(&case["probs"]), tolerance, tolerance).unwrap();
}
