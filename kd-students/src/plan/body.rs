//! A plan without its output layers.

use super::item::error;
use super::{Layer, Plan};
use crate::blocks::Dim;
use crate::error::Result;

pub(super) fn of(plan: &Plan) -> Result<Plan> {
    let outputs = || plan.layers.iter().filter(|layer| layer.is_output);
    let Some(first) = plan.outputs.first().and_then(|id| plan.layers.iter().find(|layer| layer.id == *id)) else {
        return error("architecture", "expected an output layer, found none");
    };
    if let Some(output) = outputs().find(|output| output.inputs.len() != 1) {
        let found = output.inputs.join(", ");
        return error(
            format!("{}.inputs", output.path),
            format!("expected one layer that the output reads, found {found}"),
        );
    }
    for output in outputs() {
        if output.inputs != first.inputs {
            let expected = format!("`{}`, which the output `{}` reads", first.inputs[0], first.id);
            let message = format!("expected {expected}, found `{}`", output.inputs[0]);
            return error(format!("{}.inputs", output.path), message);
        }
        let shares = |layer: &&Layer| layer.owner == output.id && !layer.is_output;
        if let Some(layer) = plan.layers.iter().find(shares) {
            let message =
                format!("expected a layer that is no output, for the outputs are left out, found `{}`", output.id);
            return error(format!("{}.layer", layer.path), message);
        }
    }
    let Some(top) = plan.layers.iter().find(|layer| first.inputs == [layer.id.as_str()]) else {
        let message = format!("expected a layer that the output reads, found the branch `{}`", first.inputs[0]);
        return error(format!("{}.inputs", first.path), message);
    };
    if !matches!(top.shape.0[..], [Dim::Fixed(_)]) {
        return error(
            &top.path,
            format!("expected a vector of each example below the outputs, (batch, width), found {}", top.shape),
        );
    }
    let layers = plan.layers.iter().filter(|layer| !layer.is_output).cloned();
    let layers = layers.map(|layer| Layer { is_output: layer.id == top.id, ..layer }).collect();
    Ok(Plan { layers, outputs: vec![top.id.clone()], ..plan.clone() })
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeMap;

    use candle_core::{DType, Device};
    use kd_core::batch::{Rows, Tokens, pad};
    use kd_core::model::{Mode, Represent, Student};
    use kd_core::nn::{HeadPerTeacher, HeadsOf};
    use kd_core::testing::assert_all_variables_learn;
    use kd_core::variables::Variables;
    use serde_json::{Value as Json, json};

    use super::*;
    use crate::plan::{Branch, Inputs, Target};

    /// Words, their LSTM, a vector, and two outputs of it.
    fn architecture() -> Json {
        json!([
            {"layer": "Embedding", "conf": {"word": {"cols": ["w"], "dim": 4}}},
            {"layer_id": "gold", "layer": "Linear", "inputs": ["vector"], "output_layer_flag": true,
             "conf": {"hidden_dim": [5, "#target#"], "activation": null}},
            {"layer_id": "states", "layer": "BiLSTM", "conf": {"hidden_dim": 3}, "inputs": ["words"]},
            {"layer_id": "vector", "layer": "Pooling", "conf": {"pool_type": "max"}, "inputs": ["states"]},
            {"layer_id": "teacher", "layer": "Linear", "inputs": ["vector"], "output_layer_flag": true,
             "conf": {"hidden_dim": 2, "activation": null}},
        ])
    }

    fn plan(architecture: &Json) -> Plan {
        let branch = |name: &str| Branch { name: name.to_string(), columns: vec!["w".to_string()], length: None };
        let inputs = Inputs {
            branches: vec![branch("words")],
            targets: vec![Target { name: "label".to_string(), classes: Some(3) }],
            ..Inputs::default()
        };
        Plan::parse(architecture, &inputs, &[]).unwrap()
    }

    fn tokens() -> Tokens {
        let first = pad(&[vec![3, 4, 5], vec![6]], &Device::Cpu).unwrap();
        Tokens { first, second: None, more: Vec::new(), rows: Rows::Examples }
    }

    fn rows() -> BTreeMap<String, usize> {
        [("word".to_string(), 9)].into()
    }

    #[test]
    fn the_body_is_the_network_below_its_outputs_with_the_same_variables() {
        let whole = plan(&architecture());
        let body = whole.body().unwrap();
        assert_eq!(body.layers().iter().map(|layer| layer.id.as_str()).collect::<Vec<_>>(), ["states", "vector"]);
        assert_eq!(body.outputs(), ["vector"]);
        assert!(body.layers()[1].is_output && !whole.layers()[1].is_output);

        let of_whole = Variables::new(3, DType::F64, &Device::Cpu);
        let network = whole.build(&rows(), of_whole.builder()).unwrap();
        let tensors = of_whole.tensors();
        let of_body = Variables::new(3, DType::F64, &Device::Cpu);
        let student = body.build(&rows(), of_body.builder()).unwrap();
        // A variable is drawn by its name, so both start alike.
        for (name, tensor) in of_body.tensors() {
            let values = |tensor: &candle_core::Tensor| tensor.flatten_all().unwrap().to_vec1::<f64>().unwrap();
            assert_eq!(values(&tensor), values(&tensors[&name]), "{name}");
        }
        assert_eq!(body.parameters(&rows()).unwrap().values().sum::<usize>(), of_body.parameter_count());
        assert_eq!(student.width(), 6);
        let vectors = student.represent(&tokens(), Mode::Eval).unwrap();
        assert_eq!(vectors.dims(), [2, 6]);
        // The second output is a linear layer on it.
        let by_hand = vectors
            .matmul(&tensors["teacher.linear_0.weight"].t().unwrap())
            .and_then(|xs| xs.broadcast_add(&tensors["teacher.linear_0.bias"]))
            .unwrap();
        let output = network.forward(&tokens(), Mode::Eval).unwrap();
        kd_core::testing::assert_close(&output.heads[1], &by_hand, 1e-12, 1e-12).unwrap();
    }

    #[test]
    fn other_heads_learn_on_it_and_so_does_it() {
        let body = plan(&architecture()).body().unwrap();
        let variables = Variables::new(3, DType::F64, &Device::Cpu);
        let network = body.build(&rows(), variables.builder()).unwrap();
        let set = HeadsOf { name: "set".to_string(), classes: 4, teachers: 2, gold: true };
        let student = HeadPerTeacher::new(network, vec![set], true, 0.0, variables.builder()).unwrap();
        let output = student.forward(&tokens(), Mode::Train { seed: 1 }).unwrap();
        assert_eq!((output.heads.len(), output.heads[0].dims()), (3, &[2, 4][..]));
        let loss = output.heads.iter().map(|head| head.sqr().unwrap().sum_all().unwrap());
        let loss = loss.reduce(|a, b| (a + b).unwrap()).unwrap();
        assert_all_variables_learn(&variables, &loss).unwrap();
    }

    #[test]
    fn what_has_no_body_is_named() {
        type Change = fn(&mut Json);
        let cases: [(Change, &str); 5] = [
            (
                |a| a[4]["inputs"] = json!(["other"]),
                "architecture[4].inputs: expected `vector`, which the output `gold` reads, found `other`",
            ),
            (
                |a| {
                    a[1]["layer"] = json!("Combination");
                    a[1]["conf"] = json!({"operations": ["origin"]});
                    a[1]["inputs"] = json!(["vector", "other"]);
                },
                "architecture[1].inputs: expected one layer that the output reads, found vector, other",
            ),
            (
                |a| {
                    a[1]["inputs"] = json!(["states"]);
                    a[4]["inputs"] = json!(["states"]);
                    a.as_array_mut().unwrap().remove(3); // it would feed no output
                },
                "architecture[2]: expected a vector of each example below the outputs, (batch, width), found (batch, len, 6)",
            ),
            (
                |a| {
                    a[1]["inputs"] = json!(["words"]);
                    a[4]["inputs"] = json!(["words"]);
                    a.as_array_mut().unwrap().drain(2..4);
                },
                "architecture[1].inputs: expected a layer that the output reads, found the branch `words`",
            ),
            (
                |a| {
                    let shared = json!({"layer_id": "again", "layer": "gold", "inputs": ["wide"]});
                    let wide =
                        json!({"layer_id": "wide", "layer": "Linear", "conf": {"hidden_dim": 6}, "inputs": ["vector"]});
                    a.as_array_mut().unwrap().extend([wide, shared]);
                    a[1]["inputs"] = json!(["again"]);
                    a[1]["conf"]["hidden_dim"] = json!(6);
                    a[4]["inputs"] = json!(["again"]);
                },
                "architecture[6].layer: expected a layer that is no output, for the outputs are left out, found `gold`",
            ),
        ];
        for (change, expected) in cases {
            let mut architecture = architecture();
            // Every layer has to feed an output.
            if expected.contains("other") {
                let other =
                    json!({"layer_id": "other", "layer": "Dropout", "inputs": ["vector"], "conf": {"dropout": 0.1}});
                architecture.as_array_mut().unwrap().push(other);
            }
            change(&mut architecture);
            assert_eq!(plan(&architecture).body().unwrap_err().to_string(), expected);
        }
    }
}
