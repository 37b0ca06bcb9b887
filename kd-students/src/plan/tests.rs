use candle_core::{DType, Device, Tensor};
use kd_core::batch::{Rows, Tokens, pad};
use kd_core::model::{Mode, Output, Represent, Student};
use kd_core::testing::assert_close;
use kd_core::variables::Variables;
use serde_json::{Value as Json, json};

use super::*;
use crate::blocks::embedding::Place;
use crate::blocks::{Block, Dim, Length, Value};

fn branch(name: &str, columns: &[&str]) -> Branch {
    Branch { name: name.to_string(), columns: columns.iter().map(|column| column.to_string()).collect(), length: None }
}

fn inputs() -> Inputs {
    Inputs {
        branches: vec![branch("q", &["q_text", "q_pos", "q_char"]), branch("a", &["a_text", "a_pos", "a_char"])],
        targets: vec![
            Target { name: "score".to_string(), classes: None },
            Target { name: "label".to_string(), classes: Some(3) },
            Target { name: "intent".to_string(), classes: Some(5) },
        ],
        ..Inputs::default()
    }
}

/// A pair of texts through shared LSTMs; two outputs.
fn pair() -> Json {
    json!([
        {"layer": "Embedding", "conf": {
            "word": {"cols": ["q_text", "a_text"], "dim": 6, "fix_weight": true},
            "pos": {"cols": ["q_pos", "a_pos"], "dim": 2},
            "char": {"cols": ["q_char", "a_char"], "type": "CNNCharEmbedding", "dim": 4, "embedding_matrix_dim": 3}}},
        {"layer_id": "out", "layer": "Linear", "inputs": ["drop"], "output_layer_flag": true,
         "conf": {"hidden_dim": [5, "#target#"], "last_hidden_activation": false, "batch_norm": false}},
        {"layer_id": "drop", "layer": "Dropout", "conf": {"dropout": 0.3}, "inputs": ["q_1"]},
        {"layer_id": "q_1", "layer": "BiLSTMLast", "conf": {"hidden_dim": 4}, "inputs": ["q"]},
        {"layer_id": "a_1", "layer": "q_1", "inputs": ["a"]},
        {"layer_id": "intent", "layer": "Linear", "inputs": ["a_1"], "output_layer_flag": true,
         "conf": {"hidden_dim": "#target:intent#", "activation": null}},
    ])
}

fn rows() -> BTreeMap<String, usize> {
    [("word", 20), ("pos", 7), ("char", 9)].map(|(name, rows)| (name.to_string(), rows)).into()
}

/// Texts of these word ids, with parts of speech and characters made of them.
fn text(ids: &[Vec<u32>]) -> kd_core::batch::Sequence {
    let sequence = pad(ids, &Device::Cpu).unwrap();
    let len = sequence.ids.dim(1).unwrap();
    let tags: Vec<Vec<u32>> = ids.iter().map(|ids| ids.iter().map(|id| 1 + id % 6).collect()).collect();
    let mut chars = vec![0u32; ids.len() * len * 5];
    for (text, ids) in ids.iter().enumerate() {
        for (at, id) in ids.iter().enumerate() {
            let of_word = 1 + (id % 5) as usize;
            chars[(text * len + at) * 5..][..of_word].iter_mut().zip(1..).for_each(|(c, n)| *c = 1 + (id + n) % 8);
        }
    }
    let chars = Tensor::from_vec(chars, (ids.len(), len, 5), &Device::Cpu).unwrap();
    let features = vec![pad(&tags, &Device::Cpu).unwrap().ids];
    kd_core::batch::Sequence { chars: Some(chars), features, ..sequence }
}

fn tokens(first: &[Vec<u32>], second: &[Vec<u32>]) -> Tokens {
    Tokens { first: text(first), second: Some(text(second)), more: Vec::new(), rows: Rows::Examples }
}

fn plan() -> Plan {
    Plan::parse(&pair(), &inputs(), &[]).unwrap()
}

fn network() -> (Network, Variables) {
    let variables = Variables::new(3, DType::F64, &Device::Cpu);
    let network = plan().build(&rows(), variables.builder()).unwrap();
    (network, variables)
}

#[test]
fn a_plan_knows_shapes_places_and_parameters_before_there_is_a_tensor() {
    let plan = plan();
    let shown: Vec<(&str, String)> = plan.layers().iter().map(|layer| (&*layer.id, layer.shape.to_string())).collect();
    let expected = [
        ("q_1", "(batch, 8)"),
        ("drop", "(batch, 8)"),
        ("out", "(batch, 3)"),
        ("a_1", "(batch, 8)"),
        ("intent", "(batch, 5)"),
    ];
    assert_eq!(shown, expected.map(|(id, shape)| (id, shape.to_string())));
    assert_eq!(plan.outputs(), ["out", "intent"]);
    assert_eq!((plan.layers()[3].block.as_str(), plan.layers()[3].owner.as_str()), ("BiLSTMLast", "q_1"));
    let q = &plan.branches()[0];
    assert_eq!(q.shape.to_string(), "(batch, len, 12)");
    assert_eq!(
        q.columns.iter().map(|column| column.place).collect::<Vec<_>>(),
        [Place::Ids, Place::Feature(0), Place::Characters]
    );
    assert_eq!(plan.frozen(), [Group::frozen("embedding.word.*")]);
    let counts = plan.parameters(&rows()).unwrap();
    // Two directions of 4 · 4 · (12 + 4 + 2); 5 · 8 + 5 + 3 · 5 + 3 and a slope; windows of 3 · 3 · 4 + 4, and 9 · 3.
    let expected = [
        ("a_1", 0),
        ("drop", 0),
        ("embedding.char", 40 + 27),
        ("embedding.pos", 14),
        ("embedding.word", 120),
        ("intent", 45),
        ("out", 64),
        ("q_1", 576),
    ];
    assert_eq!(counts, expected.map(|(name, count)| (name.to_string(), count)).into());
    let (_, variables) = network();
    assert_eq!(counts.values().sum::<usize>(), variables.parameter_count());
    let unknown = plan.parameters(&BTreeMap::new()).unwrap();
    assert!(!unknown.contains_key("embedding.word") && unknown["q_1"] == 576);
}

#[test]
fn shared_layers_have_one_copy_that_learns_from_both_uses() {
    let (network, variables) = network();
    assert!(variables.named().iter().all(|(name, _)| !name.starts_with("a_1.")));
    let tokens = tokens(&[vec![3, 4], vec![5]], &[vec![6, 7, 8], vec![9, 10]]);
    let name = "q_1.layers.0.weight_hh_l0";
    let var = variables.named().into_iter().find(|(other, _)| other == name).unwrap().1;
    let gradient = |loss: &dyn Fn(&Output) -> Tensor| {
        let output = network.forward(&tokens, Mode::Eval).unwrap();
        loss(&output).backward().unwrap().get(&var).unwrap().clone()
    };
    let of = |output: &Output, head: usize| output.heads[head].sqr().unwrap().sum_all().unwrap();
    let (first, second) = (gradient(&|output| of(output, 0)), gradient(&|output| of(output, 1)));
    let both = gradient(&|output| (of(output, 0) + of(output, 1)).unwrap());
    assert_close(&both, &(first + second).unwrap(), 1e-12, 1e-10).unwrap();
}

#[test]
fn every_variable_learns_but_a_fixed_table() {
    let (network, variables) = network();
    let tokens = tokens(&[vec![3, 4], vec![5]], &[vec![6, 7, 8], vec![9, 10]]);
    let output = network.forward(&tokens, Mode::Train { seed: 4 }).unwrap();
    let loss = (output.heads[0].sqr().unwrap().sum_all().unwrap() + output.heads[1].sqr().unwrap().sum_all().unwrap())
        .unwrap();
    let message = kd_core::testing::assert_all_variables_learn(&variables, &loss).unwrap_err().to_string();
    assert!(
        message.lines().next() == Some("not all variables learn: `embedding.word.weight` has no gradient"),
        "{message}"
    );
}

#[test]
fn an_example_alone_is_what_it_is_in_a_longer_batch() {
    let (network, _) = network();
    let of =
        |first: &[Vec<u32>], second: &[Vec<u32>]| network.forward(&tokens(first, second), Mode::Eval).unwrap().heads;
    let batch = of(&[vec![3, 4, 5, 6], vec![7]], &[vec![8], vec![9, 10, 11]]);
    let alone = of(&[vec![7]], &[vec![9, 10, 11]]);
    for (batch, alone) in batch.iter().zip(&alone) {
        assert_close(&batch.narrow(0, 1, 1).unwrap(), alone, 1e-12, 1e-12).unwrap();
    }
}

#[test]
fn the_same_seed_gives_the_same_dropout() {
    let (network, _) = network();
    let tokens = tokens(&[vec![3, 4], vec![5]], &[vec![6, 7, 8], vec![9, 10]]);
    let of = |seed| network.forward(&tokens, Mode::Train { seed }).unwrap().heads[0].to_vec2::<f64>().unwrap();
    assert_eq!(of(1), of(1));
    assert_ne!(of(1), of(2));
}

#[test]
fn shared_layers_draw_their_own_dropout() {
    let mut architecture = pair();
    let drop = |id: &str, input: &str, conf: Option<Json>| {
        let mut item = json!({"layer_id": id, "layer": "first", "inputs": [input], "output_layer_flag": true});
        if let Some(conf) = conf {
            (item["layer"], item["conf"]) = (json!("Dropout"), conf);
        }
        item
    };
    let items = architecture.as_array_mut().unwrap();
    items.extend([drop("first", "q_1", Some(json!({"dropout": 0.5}))), drop("second", "q_1", None)]);
    let variables = Variables::new(3, DType::F64, &Device::Cpu);
    let network = Plan::parse(&architecture, &inputs(), &[]).unwrap().build(&rows(), variables.builder()).unwrap();
    let tokens = tokens(&[vec![3, 4], vec![5]], &[vec![6, 7, 8], vec![9, 10]]);
    let of = |mode| {
        let heads = network.forward(&tokens, mode).unwrap().heads;
        [2, 3].map(|head: usize| heads[head].to_vec2::<f64>().unwrap())
    };
    let [first, second] = of(Mode::Eval);
    assert_eq!(first, second);
    let [first, second] = of(Mode::Train { seed: 1 });
    assert_ne!(first, second);
}

#[test]
fn pretrained_vectors_stand_in_the_variables() {
    let (network, variables) = network();
    network.set_vectors("word", &[(4, vec![1.5; 6])]).unwrap();
    let table = variables.tensors()["embedding.word.weight"].to_vec2::<f64>().unwrap();
    assert_eq!((table[4].clone(), table[0].clone()), (vec![1.5; 6], vec![0.0; 6]));
    assert!(
        network.set_vectors("char", &[]).unwrap_err().to_string().contains("expected a cluster with a row for each id")
    );
}

/// A tagger of words with a CRF, a span pointer, or a column of ids that nothing embeds.
fn tagger(more: &Json) -> Json {
    let mut list = vec![json!({"layer": "Embedding", "conf": {"word": {"cols": ["w"], "dim": 4}}})];
    list.extend(more.as_array().unwrap().iter().cloned());
    Json::Array(list)
}

fn of_words() -> Inputs {
    Inputs {
        branches: vec![branch("words", &["w"])],
        targets: vec![Target { name: "tag".to_string(), classes: Some(3) }],
        ..Inputs::default()
    }
}

fn forward(architecture: &Json, rows: Rows) -> candle_core::Result<Output> {
    let plan = Plan::parse(architecture, &of_words(), &[]).unwrap();
    let variables = Variables::new(3, DType::F64, &Device::Cpu);
    let network = plan.build(&[("word".to_string(), 20)].into(), variables.builder()).unwrap();
    let first = pad(&[vec![3, 4, 5], vec![6]], &Device::Cpu).unwrap();
    network.forward(&Tokens { first, second: None, more: Vec::new(), rows }, Mode::Eval)
}

fn words() -> Rows {
    Rows::Words { index: Tensor::new(&[0u32, 1, 2, 3], &Device::Cpu).unwrap(), per_example: vec![3, 1] }
}

#[test]
fn a_crf_gives_emissions_of_rows_and_transitions() {
    let architecture = tagger(&json!([
        {"layer_id": "tags", "layer": "Linear", "conf": {"hidden_dim": -1, "activation": null}, "inputs": ["words"]},
        {"layer_id": "crf", "layer": "CRF", "conf": {}, "inputs": ["tags"], "output_layer_flag": true},
    ]));
    let output = forward(&architecture, words()).unwrap();
    assert_eq!(output.logits().unwrap().dims(), [4, 3]);
    assert_eq!(output.transitions.unwrap().dims(), [5, 3]);
    let message = forward(&architecture, Rows::Examples).unwrap_err().to_string();
    assert!(message.contains("expected (batch, classes) of rows of examples, found [2, 3, 3]"), "{message}");
    let mut second = architecture;
    second[1]["output_layer_flag"] = json!(true);
    let message = Plan::parse(&second, &of_words(), &[]).unwrap_err().to_string();
    assert_eq!(message, "architecture[2].output_layer_flag: expected a CRF as the first output only");
}

#[test]
fn two_pointers_say_that_padding_is_nowhere() {
    let architecture = tagger(&json!([
        {"layer_id": "start", "layer": "Linear", "conf": {"hidden_dim": 1, "activation": null}, "inputs": ["words"],
         "output_layer_flag": true},
        {"layer_id": "end", "layer": "Linear", "conf": {"hidden_dim": 1, "activation": null, "keep_dim": false},
         "inputs": ["words"], "output_layer_flag": true},
    ]));
    let output = forward(&architecture, Rows::Examples).unwrap();
    for head in &output.heads {
        let head = head.to_vec2::<f64>().unwrap();
        assert!(head[0].iter().chain(&head[1][..1]).all(|x| x.abs() < 10.0), "{head:?}");
        assert_eq!(head[1][1..], [-1e4; 2]);
    }
    let message = forward(&architecture, words()).unwrap_err().to_string();
    assert!(message.contains("expected (batch, len, classes) of rows of words, found [2, 3]"), "{message}");
}

#[test]
fn rows_of_words_are_taken_from_as_many_words_as_the_first_text_has() {
    for (layer, conf, found) in [("Concat3D", json!({"concat3D_axis": 1}), 6), ("Conv", json!({"window_size": 2}), 2)] {
        let inputs = if layer == "Conv" { json!(["words"]) } else { json!(["words", "words"]) };
        let architecture = tagger(&json!([
            {"layer_id": "out", "layer": layer, "conf": conf, "inputs": inputs, "output_layer_flag": true},
        ]));
        let message = forward(&architecture, words()).unwrap_err().to_string();
        let expected = format!("output `out`\nexpected 3 words, as the first text has, found {found} in [2, {found}");
        assert!(message.starts_with(&expected), "{message}");
    }
}

#[test]
fn what_no_loss_reaches_is_named() {
    let learned = |outputs: &[&str]| plan().untrained(outputs).unwrap();
    assert_eq!(learned(&["out", "intent"]), Vec::<String>::new());
    // `q_1` has the variables of `a_1`, which `intent` reads; its branch's tables are those of the other.
    assert_eq!(learned(&["intent"]), ["out"]);
    assert_eq!(learned(&["out"]), ["intent"]);
    let mut all = learned(&[]);
    all.sort(); // the order of JSON's keys
    assert_eq!(all, ["embedding.char", "embedding.pos", "intent", "out", "q_1"]);
}

#[test]
fn a_table_that_nothing_reads_is_left_out_or_stays_as_it_is() {
    let mut architecture = pair();
    architecture[0]["conf"]["more"] = json!({"cols": ["x_more"], "dim": 2});
    architecture[0]["conf"]["third"] = json!({"cols": ["third_text"], "dim": 2});
    let mut inputs = inputs();
    inputs.branches.push(branch("third", &["third_text"]));
    let plan = Plan::parse(&architecture, &inputs, &[]).unwrap();
    let names: Vec<&str> = plan.clusters().iter().map(|cluster| cluster.name.as_str()).collect();
    assert!(names.contains(&"third") && !names.contains(&"more"), "{names:?}");
    let mut frozen: Vec<String> = plan.frozen().into_iter().map(|group| group.pattern).collect();
    frozen.sort(); // the order of JSON's keys
    assert_eq!(frozen, ["embedding.third.*", "embedding.word.*"]);
}

/// Embeds the ids of a branch by itself: `id / 2`.
#[derive(Debug, serde::Deserialize)]
struct Own {}

impl BlockConfig for Own {
    fn arity(&self) -> std::ops::RangeInclusive<usize> {
        1..=1
    }

    fn infer(&self, inputs: &[Shape], _: &Site) -> std::result::Result<Shape, String> {
        inputs[0].expect_rank([2])?;
        Ok(Shape::sequence(inputs[0].0[0], 1))
    }

    fn build(&self, _: &[Shape], _: &Site, _: VarBuilder<'_>) -> Result<Box<dyn Block>> {
        Ok(Box::new(Own {}))
    }
}

impl Block for Own {
    fn forward(&self, inputs: &[Value], _: Mode) -> candle_core::Result<Value> {
        let Some(sequence) = &inputs[0].sequence else { candle_core::bail!("expected a sequence") };
        let ids = (sequence.ids.to_dtype(DType::F64)? * 0.5)?.unsqueeze(2)?;
        Ok(inputs[0].with(ids))
    }
}

#[test]
fn a_block_from_outside_may_read_ids_and_comes_before_one_of_the_same_name() {
    let architecture = json!([
        {"layer_id": "own", "layer": "BiLSTM", "inputs": ["words"]},
        {"layer_id": "out", "layer": "own", "inputs": ["words"], "output_layer_flag": true},
        {"layer_id": "other", "layer": "Linear", "conf": {"hidden_dim": 3}, "inputs": ["own"], "output_layer_flag": true},
    ]);
    let plan = Plan::parse(&architecture, &of_words(), &[Kind::of::<Own>("BiLSTM")]).unwrap();
    assert_eq!(plan.branches()[0].shape, Shape(vec![Dim::Varies(Length::of_branch(0))]));
    let variables = Variables::new(3, DType::F64, &Device::Cpu);
    let network = plan.build(&BTreeMap::new(), variables.builder()).unwrap();
    let first = pad(&[vec![3, 4, 5], vec![6]], &Device::Cpu).unwrap();
    let tokens = Tokens { first, second: None, more: Vec::new(), rows: words() };
    let output = network.forward(&tokens, Mode::Eval).unwrap();
    assert_eq!(output.heads[0].to_vec2::<f64>().unwrap(), [[1.5], [2.0], [2.5], [3.0]]);
    assert_eq!((network.width(), network.represent(&tokens, Mode::Eval).unwrap().dims()), (1, &[4, 1][..]));
    let two = Tokens { second: Some(tokens.first.clone()), ..tokens };
    let message = network.forward(&two, Mode::Eval).unwrap_err().to_string();
    assert!(message.contains("expected 1 texts (words), found 2"), "{message}");
}

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

#[test]
fn padding_of_a_fixed_length_leaks_only_as_published() {
    let plan = |legacy_padding| {
        let mut inputs = of_words();
        (inputs.branches[0].length, inputs.legacy_padding) = (Some(4), legacy_padding);
        let architecture = tagger(&json!([
            {"layer_id": "last", "layer": "BiLSTMLast", "conf": {"hidden_dim": 2}, "inputs": ["words"],
             "output_layer_flag": true},
        ]));
        Plan::parse(&architecture, &inputs, &[]).unwrap()
    };
    assert_eq!(plan(false).branches()[0].shape.to_string(), "(batch, 4, 4)");
    let of = |legacy_padding, ids: Vec<u32>, len: usize| {
        let variables = Variables::new(3, DType::F64, &Device::Cpu);
        let rows = [("word".to_string(), 20)].into();
        let network = plan(legacy_padding).build(&rows, variables.builder()).unwrap();
        let mut first = pad(&[ids], &Device::Cpu).unwrap();
        let more = len - first.ids.dim(1).unwrap();
        first.ids = first.ids.pad_with_zeros(1, 0, more).unwrap();
        first.mask = first.mask.pad_with_zeros(1, 0, more).unwrap();
        let tokens = Tokens { first, second: None, more: Vec::new(), rows: Rows::Examples };
        network.forward(&tokens, Mode::Eval).unwrap().heads.remove(0).to_vec2::<f64>().unwrap()
    };
    assert_eq!(of(false, vec![3, 5], 4), of(false, vec![3, 5], 2));
    assert_ne!(of(true, vec![3, 5], 4), of(true, vec![3, 5], 2));
}
