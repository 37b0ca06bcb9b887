//! What is wrong in an architecture, and what has no effect, by its path.

use super::*;

/// What `architecture`, changed by `change`, is refused for.
fn refused(change: impl Fn(&mut Json)) -> String {
    let mut architecture = pair();
    change(&mut architecture);
    Plan::parse(&architecture, &inputs(), &[]).unwrap_err().to_string()
}

#[test]
fn everything_wrong_has_its_place() {
    type Change = fn(&mut Json);
    let cases: [(Change, &str); 35] = [
        (|a| *a = json!({}), "architecture: expected a list of layers, found {}"),
        (|a| a[1] = json!(7), "architecture[1]: expected an object, found 7"),
        (|a| a[1] = json!({"layer_id": "x"}), "architecture[1]: expected a key `layer`, found none"),
        (
            |a| a[1]["layer"] = json!("Linaer"),
            "architecture[1].layer: expected a block or an earlier layer_id, found `Linaer`",
        ),
        (
            |a| a[3]["layer"] = json!("a_1"),
            "architecture[3].layer: expected a block or an earlier layer_id, found `a_1`",
        ),
        (
            |a| a[4]["layer"] = json!("later"),
            "architecture[4].layer: expected a block or an earlier layer_id, found `later`",
        ),
        (
            |a| a[4]["conf"] = json!({}),
            "architecture[4].conf: expected none, for it is that of `q_1`, which the layer shares",
        ),
        (
            |a| a[2]["extra"] = json!(1),
            "architecture[2].extra: unknown key, expected one of layer_id, layer, conf, inputs, ",
        ),
        (|a| a[2]["conf"] = json!(1), "architecture[2].conf: expected an object, found 1"),
        (|a| a[2]["conf"]["drop"] = json!(1), "architecture[2].conf.drop: unknown key, expected `dropout`"),
        (
            |a| a[2]["conf"]["dropout"] = json!("x"),
            "architecture[2].conf.dropout: invalid type: string \"x\", expected f64",
        ),
        (
            |a| a[2]["conf"]["dropout"] = json!(1.5),
            "architecture[2].conf.dropout: expected a number in [0, 1), found 1.5",
        ),
        (|a| a[2]["inputs"] = json!("q_1"), "architecture[2].inputs: expected a list of names, found \"q_1\""),
        (|a| a[2]["inputs"] = json!([3]), "architecture[2].inputs[0]: expected a name, found 3"),
        (|a| a[2]["inputs"] = json!([]), "architecture[2].inputs: expected 1 for Dropout, found 0"),
        (|a| a[2]["inputs"] = json!(["q", "a"]), "architecture[2].inputs: expected 1 for Dropout, found 2"),
        (
            |a| a[2]["inputs"] = json!(["b"]),
            "architecture[2].inputs[0]: expected a layer_id or a branch (q, a), found `b`",
        ),
        (
            |a| a[2]["inputs"] = json!(["out"]),
            "architecture[1].inputs: expected no cycle, found `out` reads `drop` reads `out`",
        ),
        (
            |a| a[2]["layer_id"] = json!("q"),
            "architecture[2].layer_id: expected a new name, and a branch is called `q` already",
        ),
        (
            |a| a[2]["layer_id"] = json!("out"),
            "architecture[2].layer_id: expected a new name, and architecture[1] is called `out` already",
        ),
        (
            |a| a[2]["layer_id"] = json!("embedding"),
            "architecture[2].layer_id: expected a new name, and `embedding` is the name",
        ),
        (|a| a[2]["layer_id"] = json!("a.b"), "architecture[2].layer_id: expected a name without a dot, found `a.b`"),
        (
            |a| a[1]["output_layer_flag"] = json!("false"),
            "architecture[1].output_layer_flag: expected true or false, found \"false\"",
        ),
        (
            |a| a[1]["output_layer_flag"] = json!(false),
            "architecture[1].layer_id: expected every layer to feed an output, found `out`",
        ),
        (
            |a| {
                a[1]["output_layer_flag"] = json!(false);
                a[5]["output_layer_flag"] = json!(false)
            },
            "architecture: expected a layer whose output_layer_flag is true, found none",
        ),
        (
            |a| {
                let inputs = ["q", "a"];
                let sum = json!({"layer_id": "sum", "layer": "Add3D", "inputs": inputs, "output_layer_flag": true});
                a.as_array_mut().unwrap().push(sum);
            },
            "architecture[6].inputs: expected inputs of one shape, found (batch, len, 12) and (batch, len2, 12)",
        ),
        (
            |a| {
                let conf = json!({"window_size": 0});
                let conv = json!({"layer_id": "conv", "layer": "Conv", "conf": conf, "inputs": ["q"], "output_layer_flag": true});
                a.as_array_mut().unwrap().push(conv);
            },
            "architecture[6].conf.window_size: expected at least 1, found 0",
        ),
        (
            |a| a[4]["inputs"] = json!(["drop"]),
            "architecture[4].inputs: expected an input of rank 3, found (batch, 8) of rank 2",
        ),
        (
            |a| a[5]["conf"]["hidden_dim"] = json!("#target:score#"),
            "architecture[5].conf.hidden_dim: expected a target with classes, found `score`",
        ),
        (
            |a| a[2]["layer"] = json!("Embedding"),
            "architecture[2].layer: expected `Embedding` in architecture[0] only, found it here",
        ),
        (
            |a| {
                a[0]["conf"]["pos"].as_object_mut().unwrap().remove("cols");
            },
            "architecture[0].conf.pos: expected a key `cols`, found none",
        ),
        (
            |a| a[0]["conf"]["pos"]["cols"] = json!(["q_pos"]),
            "architecture[0].conf: expected a cluster with column `a_pos` of branch `a`, found none",
        ),
        (
            |a| a[0]["conf"]["pos"]["cols"] = json!(["q_pos", "a_text"]),
            "architecture[0].conf.pos.cols[1]: expected every column once, found `a_text` again",
        ),
        (
            |a| a[0]["conf"]["pos"]["dims"] = json!(3),
            "architecture[0].conf.pos.dims: unknown key, expected `dim` or `fix_weight`",
        ),
        (
            |a| a[0]["conf"]["char"]["type"] = json!("Cnn"),
            "architecture[0].conf.char.type: expected \"CNNCharEmbedding\" or \"LSTMCharEmbedding\", found \"Cnn\"",
        ),
    ];
    for (change, expected) in cases {
        let message = refused(change);
        assert!(message.starts_with(expected), "expected {expected}\nfound    {message}");
    }
}

#[test]
fn sharing_needs_inputs_of_the_same_width() {
    let message = refused(|a| {
        a[2]["conf"] = json!({"dropout": 0.0});
        a.as_array_mut().unwrap().extend([
            json!({"layer_id": "wide", "layer": "BiLSTM", "conf": {"hidden_dim": 3}, "inputs": ["a"]}),
            json!({"layer_id": "again", "layer": "q_1", "inputs": ["wide"], "output_layer_flag": true}),
        ]);
    });
    let expected = "architecture[7].inputs: expected inputs like those of `q_1`, whose variables it shares, (batch, len, 12), \
                    found (batch, len2, 6)";
    assert_eq!(message, expected);
}

#[test]
fn what_has_no_effect_is_warned_of() {
    let mut architecture = pair();
    architecture[0]["weight_on_gpu"] = json!(true);
    architecture[0]["conf"]["char"]["dropout"] = json!(0.5);
    architecture[0]["conf"]["pos"]["cols"] = json!(["q_pos", "a_pos", "x_pos"]);
    architecture[3]["layer"] = json!("BiGRULast");
    architecture[3]["conf"]["num_layers"] = json!(2);
    let mut inputs = inputs();
    inputs.branches.push(branch("third", &["q_text"]));
    let plan = Plan::parse(&architecture, &inputs, &[]).unwrap();
    let warnings: Vec<String> = plan.warnings().iter().map(Warning::to_string).collect();
    let expected = [
        "architecture[0].weight_on_gpu: has no effect: the tables stand on the device of the model",
        "architecture[0].conf.char.dropout: has no effect on CNNCharEmbedding",
        "architecture[0].conf.pos.cols[2]: `x_pos` is a column of no branch",
        "architecture[3].conf.num_layers: has no effect on BiGRULast",
        "inputs.model_inputs.third: no layer reads this branch",
    ];
    assert_eq!(warnings, expected);
}
