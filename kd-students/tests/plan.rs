//! Networks from JSON as students: they learn, survive being killed, and the published files can be read.
//!
//! `published/` has two configuration files of NeuronBlocks (Gong et al. 2019) and their licence.

use std::collections::BTreeMap;
use std::ops::ControlFlow;

use candle_core::{DType, Device, Result, Tensor};
use kd_core::batch::{Batch, Rows, Sequence, Tokens, pad};
use kd_core::model::{Mode, Student};
use kd_core::objective::Loss;
use kd_core::optim::AdamWConfig;
use kd_core::testing::assert_all_variables_learn;
use kd_core::trainer::{Report, Trainer, TrainerConfig};
use kd_core::variables::Variables;
use kd_students::plan::{Branch, Inputs, LossPlan, Plan, Target};
use serde_json::{Value, json};

/// Inputs as a configuration file has them.
fn inputs(file: &Value, classes: Option<usize>) -> Inputs {
    let branch = |(name, columns): (&String, &Value)| Branch {
        name: name.clone(),
        columns: serde_json::from_value(columns.clone()).unwrap(),
        length: file["training_params"]["fixed_lengths"][name].as_u64().map(|length| length as usize),
    };
    let branches = file["inputs"]["model_inputs"].as_object().unwrap().iter().map(branch).collect();
    let name = file["inputs"]["target"][0].as_str().unwrap().to_string();
    let targets = vec![Target { name, classes }];
    Inputs { branches, targets, ..Inputs::default() }
}

/// Two texts of a length, the second with padding.
fn texts(len: usize, seed: u32) -> Sequence {
    let word = |at: usize| 1 + (at as u32 * 7 + seed) % 40;
    let mut sequence = pad(&[(0..len).map(word).collect(), (0..len - 2).map(word).collect()], &Device::Cpu).unwrap();
    sequence.features.clear();
    sequence
}

#[test]
fn published_files_are_read_built_and_trained() {
    for (text, classes, len, parameters, head) in [
        (include_str!("published/demo.json"), Some(2), 9, 654_491 - 50 * 300, 2),
        (include_str!("published/kdqbc_bilstmattn_cnn.json"), None, 30, 850_207 - 50 * 300, 1),
    ] {
        let file: Value = serde_json::from_str(text.trim_start_matches('\u{feff}')).unwrap();
        let plan = Plan::parse(&file["architecture"], &inputs(&file, classes), &[]).unwrap();
        assert_eq!(plan.warnings(), []);
        let without_words: usize = plan.parameters(&BTreeMap::new()).unwrap().values().sum();
        assert_eq!(without_words, parameters);
        let variables = Variables::new(1, DType::F32, &Device::Cpu);
        let network = plan.build(&[("word".to_string(), 41)].into(), variables.builder()).unwrap();
        let second = (plan.branches().len() == 2).then(|| texts(len, 3));
        let tokens = Tokens { first: texts(len, 1), second, more: Vec::new(), rows: Rows::Examples };
        let output = network.forward(&tokens, Mode::Train { seed: 1 }).unwrap();
        assert_eq!(output.logits().unwrap().dims(), [2, head]);
        let weights = Tensor::new(&[[1f32, -0.5], [0.3, 2.0]], &Device::Cpu).unwrap().narrow(1, 0, head).unwrap();
        assert_all_variables_learn(&variables, &(output.logits().unwrap() * weights).unwrap()).unwrap();

        // Ten steps with the loss of the file: it falls.
        let loss = LossPlan::parse(&file["loss"], &plan, &inputs(&file, classes)).unwrap();
        let labels = classes.map(|_| Tensor::new(&[0u32, 1], &Device::Cpu).unwrap());
        let targets = if classes.is_some() { vec![] } else { vec![Tensor::new(&[0.2f32, 0.9], &Device::Cpu).unwrap()] };
        let batch = Batch { tokens, labels, targets, teachers: vec![], weights: None, task: 0, examples: vec![0, 1] };
        let config = TrainerConfig { groups: plan.frozen(), ..TrainerConfig::new(10, AdamWConfig::with_lr(0.005)) };
        let mut trainer = Trainer::new(&network, &variables, &loss, config).unwrap();
        let losses: Vec<f64> = (0..10).map(|_| trainer.step(&batch).unwrap().loss).collect();
        assert!(losses[9] < 0.8 * losses[0], "{losses:?}");
    }
}

/// A classifier of pairs with shared layers, batch normalisation, dropout, and words that are not trained.
fn plan() -> Plan {
    let architecture = json!([
        {"layer": "Embedding", "conf": {
            "word": {"cols": ["a", "b"], "dim": 6}, "pos": {"cols": ["a_pos", "b_pos"], "dim": 3, "fix_weight": true}}},
        {"layer_id": "a_states", "layer": "BiGRU", "conf": {"hidden_dim": 6}, "inputs": ["first"]},
        {"layer_id": "b_states", "layer": "a_states", "inputs": ["second"]},
        {"layer_id": "a_dropped", "layer": "Dropout", "conf": {"dropout": 0.1}, "inputs": ["a_states"]},
        {"layer_id": "a_vector", "layer": "Pooling", "conf": {"pool_type": "max"}, "inputs": ["a_dropped"]},
        {"layer_id": "b_vector", "layer": "a_vector", "inputs": ["b_states"]},
        {"layer_id": "pair", "layer": "Combination", "inputs": ["a_vector", "b_vector"],
         "conf": {"operations": ["origin", "difference", "dot_multiply"]}},
        {"layer_id": "out", "layer": "Linear", "inputs": ["pair"], "output_layer_flag": true,
         "conf": {"hidden_dim": [8, -1], "last_hidden_activation": false}},
    ]);
    let branch = |name: &str, columns: [&str; 2]| Branch {
        name: name.to_string(),
        columns: columns.map(String::from).to_vec(),
        length: None,
    };
    let inputs = Inputs {
        branches: vec![branch("first", ["a", "a_pos"]), branch("second", ["b", "b_pos"])],
        targets: vec![Target { name: "label".to_string(), classes: Some(2) }],
        ..Inputs::default()
    };
    Plan::parse(&architecture, &inputs, &[]).unwrap()
}

fn rows() -> BTreeMap<String, usize> {
    [("word".to_string(), 12), ("pos".to_string(), 4)].into()
}

/// Eight pairs; the label is whether both texts have as many words.
fn batch(_: usize) -> Result<Batch> {
    let text =
        |idx: usize, by: usize| -> Vec<u32> { (0..1 + idx * by % 3).map(|at| (1 + (idx + at) % 11) as u32).collect() };
    let (first, second): (Vec<_>, Vec<_>) = (0..8).map(|idx| (text(idx, 1), text(idx, 2))).unzip();
    let labels: Vec<u32> = first.iter().zip(&second).map(|(a, b)| u32::from(a.len() == b.len())).collect();
    let sequence = |ids: &[Vec<u32>]| -> Result<Sequence> {
        let tags: Vec<Vec<u32>> = ids.iter().map(|ids| ids.iter().map(|id| 1 + id % 3).collect()).collect();
        Ok(Sequence { features: vec![pad(&tags, &Device::Cpu)?.ids], ..pad(ids, &Device::Cpu)? })
    };
    let tokens =
        Tokens { first: sequence(&first)?, second: Some(sequence(&second)?), more: Vec::new(), rows: Rows::Examples };
    let labels = Some(Tensor::new(labels, &Device::Cpu)?);
    let examples = (0..8).collect();
    Ok(Batch { tokens, labels, targets: vec![], teachers: vec![], weights: None, task: 0, examples })
}

fn cross_entropy(output: &kd_core::model::Output, batch: &Batch, _: usize) -> Result<Loss> {
    Ok(Loss::of(kd_core::losses::cross_entropy(output.logits()?, batch.labels()?)?))
}

/// Trains until `stop` steps, from the checkpoint at `path` if there is one there.
fn train(stop: usize, path: Option<&std::path::Path>) -> (Variables, Vec<(String, Vec<f32>)>) {
    let variables = Variables::new(6, DType::F32, &Device::Cpu);
    let plan = plan();
    let network = plan.build(&rows(), variables.builder()).unwrap();
    let config = TrainerConfig {
        groups: plan.frozen(),
        checkpoint_every: 1,
        seed: 2,
        ..TrainerConfig::new(120, AdamWConfig::with_lr(0.02))
    };
    let mut trainer = Trainer::new(&network, &variables, &cross_entropy, config).unwrap();
    if let Some(path) = path {
        trainer = trainer.with_checkpoint(path).unwrap();
    }
    let mut observer =
        |report: &Report| if report.step == stop { ControlFlow::Break(()) } else { ControlFlow::Continue(()) };
    trainer.fit(&batch, None, &mut observer).unwrap();
    let values = |tensor: Tensor| tensor.flatten_all().unwrap().to_vec1::<f32>().unwrap();
    let all = variables.tensors().into_iter().map(|(name, tensor)| (name, values(tensor))).collect();
    (variables, all)
}

#[test]
fn eight_pairs_are_learned_by_heart_and_a_killed_run_ends_in_the_same_bytes() {
    let (variables, whole) = train(1000, None);
    let network = plan().build(&rows(), variables.builder()).unwrap();
    let batch = batch(0).unwrap();
    let output = network.forward(&batch.tokens, Mode::Eval).unwrap();
    let predicted: Vec<u32> = output.logits().unwrap().argmax(1).unwrap().to_vec1().unwrap();
    assert_eq!(predicted, batch.labels().unwrap().to_vec1::<u32>().unwrap());

    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("checkpoint");
    let (_, half) = train(50, Some(&path));
    assert_ne!(half, whole);
    let (_, resumed) = train(1000, Some(&path));
    assert_eq!(resumed, whole);

    // What is observed has moved, what is fixed has not.
    let start = Variables::new(6, DType::F32, &Device::Cpu);
    plan().build(&rows(), start.builder()).unwrap();
    let whole: BTreeMap<_, _> = whole.into_iter().collect();
    let moved = |name: &str| start.tensors()[name].flatten_all().unwrap().to_vec1::<f32>().unwrap() != whole[name];
    assert!(moved("out.batch_norm_0.running_mean") && moved("out.batch_norm_0.running_var"));
    assert!(moved("embedding.word.weight") && !moved("embedding.pos.weight"));
}
