//! A network of two texts: what its plan knows, what its layers share, and what learns.

mod heads;
mod refused;

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
