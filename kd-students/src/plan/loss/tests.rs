//! Losses by their names: against PyTorch's, what they read, and what is refused.

use std::collections::BTreeMap;

use candle_core::{DType, Device, Var};
use kd_core::batch::{Rows, Tokens, pad};
use kd_core::testing::{assert_close, random};
use kd_core::variables::Variables;
use serde::Deserialize;
use serde_json::json;

use super::*;
use crate::plan::{Branch, Target};

fn target(name: &str, classes: Option<usize>) -> Target {
    Target { name: name.to_string(), classes }
}

/// A label of 4 classes, a topic of 2, and numbers.
fn inputs() -> Inputs {
    Inputs {
        branches: vec![Branch { name: "text".to_string(), columns: vec!["words".to_string()], length: None }],
        targets: vec![target("score", None), target("label", Some(4)), target("topic", Some(2))],
        ..Inputs::default()
    }
}

/// Outputs `a`, `b` and `c` of width 4, `one` of 1 and `two` of 2.
fn of_texts() -> Vec<Json> {
    vec![
        json!({"layer": "Embedding", "conf": {"word": {"cols": ["words"], "dim": 3}}}),
        json!({"layer_id": "mean", "layer": "Pooling", "conf": {"pool_type": "mean"}, "inputs": ["text"]}),
        linear("a", 4, "mean"),
        linear("b", 4, "mean"),
        linear("c", 4, "mean"),
        linear("one", 1, "mean"),
        linear("two", 2, "mean"),
    ]
}

fn linear(id: &str, width: usize, input: &str) -> Json {
    let conf = json!({"hidden_dim": width, "activation": null, "batch_norm": false});
    json!({"layer_id": id, "layer": "Linear", "conf": conf, "inputs": [input], "output_layer_flag": true})
}

/// Those, and for each word `tags` of width 4 and `pointer` of 1.
fn plan() -> Plan {
    let of_words = [linear("tags", 4, "text"), linear("pointer", 1, "text")];
    Plan::parse(&Json::Array([of_texts(), of_words.to_vec()].concat()), &inputs(), &[]).unwrap()
}

fn batch(labels: Option<Tensor>, targets: Vec<Tensor>, rows: usize) -> Batch {
    let first = pad(&vec![vec![1u32]; rows], &Device::Cpu).unwrap();
    let tokens = Tokens { first, second: None, more: Vec::new(), rows: Rows::Examples };
    Batch { tokens, labels, targets, teachers: vec![], weights: None, task: 0, examples: (0..rows).collect() }
}

fn parse(losses: Json) -> crate::Result<LossPlan> {
    LossPlan::parse(&losses, &plan(), &inputs())
}

fn one(kind: &str, conf: Json, inputs: &[&str]) -> crate::Result<LossPlan> {
    parse(json!({"losses": [{"type": kind, "conf": conf, "inputs": inputs}]}))
}

fn message(result: crate::Result<LossPlan>) -> String {
    result.unwrap_err().to_string()
}

#[derive(Deserialize)]
struct Array {
    shape: Vec<usize>,
    data: Vec<f64>,
}

#[derive(Deserialize)]
struct Case {
    #[serde(rename = "type")]
    kind: String,
    conf: Json,
    inputs: Vec<String>,
    heads: BTreeMap<String, Array>,
    target: Option<Array>,
    value: f64,
    gradients: BTreeMap<String, Array>,
}

#[test]
fn values_and_gradients_are_those_of_pytorch() {
    let cases: Vec<Case> = serde_json::from_str(include_str!("../../../tests/reference/losses.json")).unwrap();
    let plan = plan();
    let mut seen = std::collections::BTreeSet::new();
    for case in &cases {
        let name = format!("{} {} {:?}", case.kind, case.conf, case.inputs);
        let tensor = |array: &Array| Tensor::from_slice(&array.data, array.shape.as_slice(), &Device::Cpu).unwrap();
        let inputs: Vec<&str> = case.inputs.iter().map(String::as_str).collect();
        let loss = one(&case.kind, case.conf.clone(), &inputs).unwrap_or_else(|error| panic!("{name}: {error}"));
        let none = || Var::zeros((5, 1), DType::F64, &Device::Cpu).unwrap();
        let heads: Vec<Var> = plan
            .outputs()
            .iter()
            .map(|id| case.heads.get(id).map_or_else(none, |array| Var::from_tensor(&tensor(array)).unwrap()))
            .collect();
        let output = Output { heads: heads.iter().map(|head| head.as_tensor().clone()).collect(), ..Output::default() };
        let column = case.target.as_ref().map(tensor);
        let classes = |column: &Tensor| column.to_dtype(DType::U32).unwrap();
        let zeros = Tensor::zeros(5, DType::F32, &Device::Cpu).unwrap();
        let batch = match inputs.last() {
            Some(&"label") => batch(column.as_ref().map(classes), vec![], 5),
            Some(&"topic") => batch(None, vec![zeros.clone(), zeros, classes(column.as_ref().unwrap())], 5),
            _ => batch(None, column.into_iter().collect(), 5),
        };
        let found = loss.loss(&output, &batch, 0).unwrap_or_else(|error| panic!("{name}: {error}"));
        let value = found.total.to_scalar::<f64>().unwrap();
        assert!((value - case.value).abs() <= 1e-10 * (1.0 + case.value.abs()), "{name}: {value}, not {}", case.value);
        let gradients = found.total.backward().unwrap();
        for (id, expected) in &case.gradients {
            let head = &heads[plan.outputs().iter().position(|output| output == id).unwrap()];
            assert_close(gradients.get(head).unwrap(), &tensor(expected), 1e-10, 1e-10)
                .unwrap_or_else(|error| panic!("{name}: {error}"));
        }
        seen.insert(case.kind.as_str());
    }
    let missing: Vec<_> = kind::NAMES.into_iter().filter(|name| !seen.contains(name)).collect();
    assert_eq!(missing, ["CRFLoss"]);
}

#[test]
fn a_crf_is_a_sum_over_the_batch_or_a_mean_over_words() {
    let architecture = json!([
        {"layer": "Embedding", "conf": {"word": {"cols": ["words"], "dim": 3}}},
        {"layer_id": "logits", "layer": "Linear", "conf": {"hidden_dim": -1, "activation": null}, "inputs": ["text"]},
        {"layer_id": "output", "layer": "CRF", "conf": {}, "inputs": ["logits"], "output_layer_flag": true},
    ]);
    let plan = Plan::parse(&architecture, &inputs(), &[]).unwrap();
    let of = |conf: Json| {
        let loss = json!({"losses": [{"type": "CRFLoss", "conf": conf, "inputs": ["output", "label"]}]});
        let loss = LossPlan::parse(&loss, &plan, &inputs()).unwrap();
        let (emissions, transitions) = (random(1, (3, 4)).unwrap(), random(2, (6, 4)).unwrap());
        let labels = Tensor::new(&[0u32, 3, 1], &Device::Cpu).unwrap();
        let expected = kd_core::ops::crf::negative_log_likelihood(&emissions, &transitions, &labels, &[2, 1]).unwrap();
        let mut batch = batch(Some(labels), vec![], 2);
        let index = Tensor::new(&[0u32, 1, 2], &Device::Cpu).unwrap();
        batch.tokens.rows = Rows::Words { index, per_example: vec![2, 1] };
        let output = Output { transitions: Some(transitions), ..Output::from_logits(emissions) };
        let value = loss.loss(&output, &batch, 0).unwrap().total;
        value.to_scalar::<f64>().unwrap() / expected.to_scalar::<f64>().unwrap()
    };
    assert!((of(json!({})) - 3.0).abs() < 1e-12); // three words
    let other = json!({"losses": [{"type": "CrossEntropyLoss", "inputs": ["output", "label"]}]});
    assert_eq!(
        message(LossPlan::parse(&other, &plan, &inputs())),
        "loss.losses[0].inputs[0]: expected an output that is no CRF for CrossEntropyLoss, for only CRFLoss trains `output`"
    );
    assert_eq!(
        message(one("CRFLoss", json!({}), &["tags", "label"])),
        "loss.losses[0].inputs[0]: expected a CRF for CRFLoss, found the layer `tags`"
    );
    assert!((of(json!({"size_average": true})) - 1.0).abs() < 1e-12);
}

#[test]
fn several_losses_are_weighted_and_reported() {
    let loss = parse(json!({
        "losses": [
            {"type": "CrossEntropyLoss", "conf": {}, "inputs": ["a", "label"]},
            {"type": "MSELoss", "inputs": ["one", "score"]},
            {"type": "CrossEntropyLoss", "conf": {}, "inputs": ["two", "topic"]},
        ],
        "multi_loss_op": "weighted_sum",
        "weights": [1.0, 0.5, 0],
    }))
    .unwrap();
    let zeros = |width| Tensor::zeros((1, width), DType::F64, &Device::Cpu).unwrap();
    let heads = [4, 4, 4, 1, 2, 4, 1].map(zeros).to_vec();
    let labels = Tensor::new(&[2u32], &Device::Cpu).unwrap();
    // The score of f32 beside an output of f64; a loss of weight 0 reads nothing.
    let batch = batch(Some(labels), vec![Tensor::new(&[3f32], &Device::Cpu).unwrap()], 1);
    let (total, parts) = loss.loss(&Output { heads, ..Output::default() }, &batch, 0).unwrap().values().unwrap();
    assert!((total - (4f64.ln() + 4.5)).abs() < 1e-12);
    assert_eq!(parts.len(), 2);
    assert_eq!(parts["MSELoss(one, score)"], 9.0);
    let unread: Vec<String> = loss.warnings().iter().map(ToString::to_string).collect();
    assert_eq!(unread[0], "loss.losses: the output `b` is in no loss");
    assert_eq!(loss.learned(&plan()), ["a", "one"]);
    assert_eq!(loss.describe()["losses"]["weights"], json!([1.0, 0.5, 0]));
}

#[test]
fn an_ignored_class_is_a_class_and_in_tagging_it_is_padding() {
    let of = |conf: Json, inputs: &[&str]| {
        let loss = one("CrossEntropyLoss", conf, inputs).unwrap();
        let warnings: Vec<String> = loss.warnings().iter().map(ToString::to_string).collect();
        warnings.into_iter().filter(|warning| warning.contains("ignore_index")).collect::<Vec<_>>()
    };
    let tagging = of(json!({"ignore_index": 0, "size_average": false}), &["tags", "label"]);
    assert_eq!(
        tagging,
        ["loss.losses[0].conf.ignore_index: 0 is padding in a list of tags, and no row is padding: nothing is ignored"]
    );
    assert!(of(json!({"ignore_index": 0}), &["a", "label"]).is_empty());
    assert!(of(json!({"ignore_index": -100}), &["a", "label"]).is_empty());
    assert_eq!(of(json!({"ignore_index": 4}), &["a", "label"]).len(), 1);
    let message = message(one("CrossEntropyLoss", json!({"ignore_index": 2}), &["tags", "label"]));
    assert!(
        message.contains("conf.ignore_index: expected 0, which is padding in a list of tags, found 2"),
        "{message}"
    );
}

/// A mean of nothing is 0 and teaches nothing, where PyTorch's is NaN.
#[test]
fn a_batch_of_ignored_classes_alone_teaches_nothing() {
    for (kind, conf) in [
        ("CrossEntropyLoss", json!({"ignore_index": 2})),
        ("NLLLoss", json!({"ignore_index": 2})),
        ("CrossEntropyLoss", json!({"weight": [1, 1, 0, 1]})),
    ] {
        let loss = one(kind, conf, &["a", "label"]).unwrap();
        let head = Var::from_tensor(&random(1, (2, 4)).unwrap()).unwrap();
        let output = Output::from_logits(head.as_tensor().clone());
        let of = |labels: [u32; 2]| {
            let labels = Tensor::new(&labels, &Device::Cpu).unwrap();
            let total = loss.loss(&output, &batch(Some(labels), vec![], 2), 0).unwrap().total;
            let gradients = total.backward().unwrap();
            let slope = gradients.get(&head).unwrap().abs().unwrap().sum_all().unwrap().to_scalar::<f64>().unwrap();
            (total.to_scalar::<f64>().unwrap(), slope)
        };
        assert_eq!(of([2, 2]), (0.0, 0.0), "{kind}");
        assert!(of([2, 1]).1 > 0.0, "{kind}");
    }
}

#[test]
fn an_output_of_words_is_one_of_the_first_texts() {
    let mut list = of_texts();
    list.push(json!({"layer_id": "conv", "layer": "Conv", "conf": {"window_size": 2}, "inputs": ["text"]}));
    list.push(linear("shorter", 4, "conv"));
    let plan = Plan::parse(&Json::Array(list), &inputs(), &[]).unwrap();
    let loss = json!({"losses": [{"type": "CrossEntropyLoss", "inputs": ["shorter", "label"]}]});
    assert_eq!(
        LossPlan::parse(&loss, &plan, &inputs()).unwrap_err().to_string(),
        "loss.losses[0].inputs[0]: expected an output for each of the len words of `text`, found (batch, len-1, 4)"
    );
}

/// A trial of the settings has two rows: with a row of each class the terms of this loss would be 2000³, 64 GB.
#[test]
fn the_settings_of_many_classes_are_tried_out_on_few_rows() {
    let list = [of_texts(), vec![linear("many", 2000, "mean")]].concat();
    let plan = Plan::parse(&Json::Array(list), &inputs(), &[]).unwrap();
    let loss = json!({"losses": [{"type": "MultiLabelMarginLoss", "inputs": ["many", "score"]}]});
    assert_eq!(LossPlan::parse(&loss, &plan, &inputs()).unwrap().learned(&plan), ["many"]);
}

#[test]
fn a_pointer_is_compared_with_places() {
    let loss = one("CrossEntropyLoss", json!({}), &["pointer", "score"]).unwrap();
    let mut heads = vec![Tensor::zeros((1, 1), DType::F64, &Device::Cpu).unwrap(); 6];
    heads.push(Tensor::new(&[[0f64, 3f64.ln(), -1e4]], &Device::Cpu).unwrap());
    let batch = batch(None, vec![Tensor::new(&[1u32], &Device::Cpu).unwrap()], 1);
    let value = loss.loss(&Output { heads, ..Output::default() }, &batch, 0).unwrap().total;
    assert!((value.to_scalar::<f64>().unwrap() + 0.75f64.ln()).abs() < 1e-12);
}

#[test]
fn it_trains_every_output_that_it_reads() {
    let plan = Plan::parse(&Json::Array(of_texts()), &inputs(), &[]).unwrap();
    let variables = Variables::new(3, DType::F64, &Device::Cpu);
    let network = plan.build(&BTreeMap::from([("word".to_string(), 5)]), variables.builder()).unwrap();
    let loss = json!({"losses": [{"type": "CosineEmbeddingLoss", "inputs": ["a", "b", "score"]}]});
    let loss = LossPlan::parse(&loss, &plan, &inputs()).unwrap();
    let signs = Tensor::new(&[1f64, -1.], &Device::Cpu).unwrap();
    let batch = batch(None, vec![signs], 2);
    let output = kd_core::model::Student::forward(&network, &batch.tokens, kd_core::model::Mode::Eval).unwrap();
    let gradients = loss.loss(&output, &batch, 0).unwrap().total.backward().unwrap();
    let trained: Vec<String> =
        variables.named().into_iter().filter(|(_, var)| gradients.get(var).is_some()).map(|(name, _)| name).collect();
    assert!(trained.iter().any(|name| name.starts_with("a.")), "{trained:?}");
    assert!(trained.iter().any(|name| name.starts_with("b.")), "{trained:?}");
    assert!(!trained.iter().any(|name| name.starts_with("c.")), "{trained:?}");
}

#[test]
fn what_does_not_fit_is_named_with_its_place() {
    for (losses, expected) in [
        (json!([]), "loss: expected an object, found []"),
        (json!({}), "loss: missing field `losses`"),
        (json!({"losses": []}), "loss.losses: expected at least one loss, found none"),
        (
            json!({"losses": [], "kind": 1}),
            "loss.kind: unknown field, expected one of `losses`, `multi_loss_op`, `weights`",
        ),
        (json!({"losses": [], "multi_loss_op": "max"}), "loss.multi_loss_op: expected `weighted_sum`, found `max`"),
        (
            json!({"losses": [{"type": "L1Loss", "inputs": ["one", "score"]}, {"type": "MSELoss", "inputs": ["one", "score"]}]}),
            "loss.weights: expected a number of at least 0 for each of 2 losses, found []",
        ),
        (
            json!({"losses": [{"type": "L1Loss", "inputs": ["one", "score"]}, {"type": "L1Loss", "inputs": ["one", "score"]}],
                   "weights": [1, 1]}),
            "loss.losses[1]: L1Loss(one, score) stands there twice",
        ),
        (json!({"losses": [{"type": "L1Loss"}]}), "loss.losses[0]: missing field `inputs`"),
    ] {
        assert_eq!(message(parse(losses)), expected);
    }
    for (kind, conf, inputs, expected) in [
        (
            "CrossEntropy",
            json!({}),
            &["a", "label"][..],
            "type: unknown loss `CrossEntropy`, expected one of CrossEntropyLoss, NLLLoss",
        ),
        ("MSELoss", json!({}), &["one"], r#"inputs: expected an output and a target for MSELoss, found ["one"]"#),
        ("TripletMarginLoss", json!({}), &["a", "b"], "inputs: expected three outputs for TripletMarginLoss"),
        ("MSELoss", json!({}), &["mean", "score"], "inputs[0]: expected one of the outputs"),
        (
            "MSELoss",
            json!({}),
            &["one", "mark"],
            r#"inputs[1]: expected one of the targets ["score", "label", "topic"], found `mark`"#,
        ),
        (
            "MSELoss",
            json!({}),
            &["one", "label"],
            "inputs[1]: expected a target of numbers for MSELoss, `label` has 4 classes",
        ),
        (
            "NLLLoss",
            json!({}),
            &["a", "score"],
            "inputs[1]: expected a target of classes for NLLLoss, `score` has numbers",
        ),
        (
            "NLLLoss",
            json!({}),
            &["two", "label"],
            "inputs[1]: expected an output of the 4 classes of `label`, found one of shape (batch, 2)",
        ),
        (
            "MSELoss",
            json!({"margin": 1}),
            &["one", "score"],
            "conf.margin: unknown field, expected one of `size_average`, `reduce`, `reduction`",
        ),
        (
            "MSELoss",
            json!({"size_average": 1}),
            &["one", "score"],
            "conf.size_average: invalid type: integer `1`, expected a boolean",
        ),
        (
            "MSELoss",
            json!({"reduce": false}),
            &["one", "score"],
            "conf.reduce: expected true, for a loss is one number",
        ),
        ("MSELoss", json!({"reduction": "none"}), &["one", "score"], "conf.reduction: unknown variant `none`"),
        (
            "MSELoss",
            json!({"reduction": "batchmean"}),
            &["one", "score"],
            "conf.reduction: expected mean or sum, found batchmean",
        ),
        (
            "CrossEntropyLoss",
            json!({"weight": [1, 2]}),
            &["a", "label"],
            "conf: hard_cross_entropy: expected 4 class weights, found 2",
        ),
        (
            "FocalLoss",
            json!({}),
            &["a", "label"],
            "conf.alpha: expected a list with a factor of each of 4 classes, found 0.5",
        ),
        (
            "FocalLoss",
            json!({"alpha": "x"}),
            &["two", "topic"],
            "conf.alpha: a number, or one for each class in a list",
        ),
        ("FocalLoss", json!({"gamma": -1}), &["two", "topic"], "conf: focal: gamma -1"),
        ("MultiMarginLoss", json!({"p": 3}), &["a", "label"], "conf.p: expected 1 or 2, found 3"),
        ("CosineEmbeddingLoss", json!({"margin": 2}), &["a", "b", "score"], "conf: cosine_embedding: margin 2"),
        ("TripletMarginLoss", json!({"p": 0}), &["a", "b", "c"], "conf: triplet_margin: p 0"),
        (
            "CrossEntropyLoss",
            json!({"ignore_index": 1, "label_smoothing": 0.1}),
            &["a", "label"],
            "conf.label_smoothing: expected 0 beside",
        ),
    ] {
        let found = message(one(kind, conf, inputs));
        assert!(found.starts_with(&format!("loss.losses[0].{expected}")), "{found}\nis not\nloss.losses[0].{expected}");
    }
}

#[test]
fn what_a_batch_lacks_is_named_with_the_loss() {
    let loss = one("MSELoss", json!({}), &["one", "score"]).unwrap();
    let heads = vec![Tensor::zeros((2, 1), DType::F32, &Device::Cpu).unwrap(); 7];
    let of = |heads: Vec<Tensor>, targets| {
        let error = loss.loss(&Output { heads, ..Output::default() }, &batch(None, targets, 2), 0).unwrap_err();
        error.to_string()
    };
    let found = of(heads.clone(), vec![]);
    assert!(found.contains("MSELoss(one, score)") && found.contains("has 0 target columns"), "{found}");
    assert!(of(vec![], vec![Tensor::new(&[1f32, 2.], &Device::Cpu).unwrap()]).contains("at least 4 outputs, found 0"));
    let found = of(heads, vec![Tensor::new(&[1f32], &Device::Cpu).unwrap()]);
    assert!(found.contains("expected an output of the target's shape (rows, columns) [1, 1], found [2, 1]"), "{found}");
}
