//! A configuration under other heads: what a program trained on the body of a network, as a file that `neuronblocks` reads.

use anyhow::{Context, Result};
use kd_students::plan::Plan;
use serde_json::{Value, json};

use super::blueprint::Blueprint;
use super::configuration::{Configuration, Field};

/// `configuration` with linear heads of these names in place of its output layers, behind a dropout, whose mean is the answer;
/// `body` is what they read, of [`Plan::body`], and `target` the column that they learn. A name that a layer has already gets `_` behind it. The names are returned
/// too, in the order of `heads`.
///
/// Each head learns from the labels: what else taught the heads, the file does not say.
///
/// # Errors
/// If the file with these heads is none: its message has the path.
pub fn with_heads(
    configuration: &Configuration,
    body: &Plan,
    target: &str,
    heads: &[String],
    dropout: f64,
) -> Result<(Configuration, Vec<String>)> {
    let mut value = configuration.value.clone();
    let top = body.outputs().first().context("architecture: expected a layer below the outputs, found none")?;
    let items = configuration.architecture().as_array().map(Vec::as_slice).unwrap_or_default();
    let is_output = |item: &&Value| item["output_layer_flag"] != true;
    let mut items: Vec<Value> = items.iter().filter(is_output).cloned().collect();

    let branches = configuration.inputs.model_inputs.iter().map(|(name, _)| name.clone());
    let mut taken: Vec<String> = body.layers().iter().map(|layer| layer.id.clone()).chain(branches).collect();
    let mut free = |name: &str| {
        let mut name = name.to_string();
        while taken.contains(&name) {
            name.push('_');
        }
        taken.push(name.clone());
        name
    };
    let mut read = top.clone();
    if dropout > 0.0 {
        let id = free("dropout");
        items.push(json!({"layer_id": id, "layer": "Dropout", "conf": {"dropout": dropout}, "inputs": [read]}));
        read = id;
    }
    let heads: Vec<String> = heads.iter().map(|head| free(head)).collect();
    let conf = json!({"hidden_dim": -1, "batch_norm": false, "last_hidden_activation": false});
    for head in &heads {
        items.push(json!({
            "layer_id": head, "layer": "Linear", "conf": conf, "inputs": [read], "output_layer_flag": true,
        }));
    }
    value["architecture"] = Value::Array(items);

    value["inputs"]["target"] = json!([target]);
    let loss = |head: &String| json!({"type": "CrossEntropyLoss", "conf": {}, "inputs": [head, target]});
    let losses: Vec<Value> = heads.iter().map(loss).collect();
    value["loss"] = json!({"losses": losses});
    value["outputs"]["answer"] = json!(heads);
    if heads.len() > 1 {
        value["loss"]["multi_loss_op"] = json!("weighted_sum");
        value["loss"]["weights"] = json!(vec![1.0 / heads.len() as f64; heads.len()]);
    }
    // Which classes there are is the program's matter.
    let is_general = |field: &Field| !matches!(field, Field::ConfidenceOf(_));
    if !configuration.outputs.predict_fields.iter().all(is_general) {
        value["outputs"]["predict_fields"] = json!(["prediction", "confidence"]);
    }
    if let Some(value) = value.as_object_mut() {
        value.remove("distillation");
    }
    let made = Configuration::parse(&configuration.path, value)?;
    Blueprint::of(&made, None)?;
    Ok((made, heads))
}

#[cfg(test)]
mod tests {
    use std::path::Path;

    use super::*;

    /// A text whose vector is called as a head would be, under one output that learns from a teacher.
    fn configuration() -> Configuration {
        let value = json!({
            "tool_version": "1.1.0",
            "inputs": {
                "dataset_type": "classification", "file_header": {"text": 0, "label": 1, "second": 2},
                "model_inputs": {"text": ["text"]}, "target": ["label", "second"]
            },
            "outputs": {"model_name": "m", "predict_fields": ["confidence@yes"], "answer": ["out"]},
            "training_params": {"optimizer": {"name": "Adam", "params": {"lr": 0.1}}},
            "architecture": [
                {"layer": "Embedding", "conf": {"word": {"cols": ["text"], "dim": 4}}},
                {"layer_id": "out", "layer": "Linear", "inputs": ["gold"], "output_layer_flag": true,
                 "conf": {"hidden_dim": 2, "activation": null}},
                {"layer_id": "gold", "layer": "Pooling", "conf": {"pool_type": "max"}, "inputs": ["text"]}
            ],
            "loss": {"losses": [{"type": "CrossEntropyLoss", "conf": {}, "inputs": ["out", "label"]}]},
            "distillation": {"average": true, "teachers": [{"file": "a.shard"}]},
            "metrics": ["accuracy"]
        });
        Configuration::parse(Path::new("file.json"), value).unwrap()
    }

    fn under(heads: &[&str], dropout: f64) -> (Configuration, Vec<String>) {
        let configuration = configuration();
        let body = Blueprint::of(&configuration, None).unwrap().plan.body().unwrap();
        let heads: Vec<String> = heads.iter().map(|head| head.to_string()).collect();
        with_heads(&configuration, &body, "label", &heads, dropout).unwrap()
    }

    #[test]
    fn other_heads_stand_where_the_outputs_did_and_answer_together() {
        let (made, names) = under(&["gold", "teacher_1"], 0.1);
        assert_eq!(names, ["gold_", "teacher_1"]);
        let blueprint = Blueprint::of(&made, None).unwrap();
        let layers: Vec<_> =
            blueprint.plan.layers().iter().map(|layer| (layer.id.as_str(), layer.inputs.join(","))).collect();
        let expected = [("gold", "text"), ("dropout", "gold"), ("gold_", "dropout"), ("teacher_1", "dropout")];
        assert_eq!(layers, expected.map(|(id, inputs)| (id, inputs.to_string())));
        assert_eq!((blueprint.plan.outputs(), &blueprint.pairing.answer), (&names[..], &vec![0, 1]));
        assert_eq!(blueprint.warnings(&made), Vec::<String>::new());
        assert_eq!((made.inputs.target, made.distillation), (vec!["label".to_string()], None));
        assert_eq!(made.outputs.predict_fields, [Field::Prediction, Field::Confidence]);
    }

    #[test]
    fn one_head_without_dropout_is_one_layer_more() {
        let (made, names) = under(&["head"], 0.0);
        let blueprint = Blueprint::of(&made, None).unwrap();
        assert_eq!((blueprint.plan.layers().len(), blueprint.pairing.answer), (2, vec![0]));
        assert_eq!(blueprint.plan.layers()[1].inputs, ["gold"]);
        assert_eq!(names, ["head"]);
    }
}
