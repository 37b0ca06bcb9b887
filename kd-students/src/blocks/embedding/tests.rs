use candle_core::{DType, Device, Tensor};
use candle_nn::VarBuilder;
use kd_core::batch::pad;
use kd_core::testing::{assert_all_variables_learn, assert_close, random};
use kd_core::variables::Variables;
use serde_json::json;

use super::*;

fn cluster(name: &str, conf: Json) -> Cluster {
    let (cluster, unread) = Cluster::parse(name, &conf).unwrap();
    assert!(unread.is_empty());
    cluster
}

fn column(cluster: &str, place: Place) -> Column {
    Column { name: cluster.to_string(), cluster: Some(cluster.to_string()), place }
}

/// Words of 1 and 3 characters, of 2, and of none.
fn chars() -> Tensor {
    Tensor::new(&[[[3u32, 0, 0], [1, 2, 4]], [[2, 2, 0], [0, 0, 0]]], &Device::Cpu).unwrap()
}

fn sequence() -> Sequence {
    let sequence = pad(&[vec![4, 2], vec![3]], &Device::Cpu).unwrap();
    let features = vec![Tensor::new(&[[1u32, 2], [2, 0]], &Device::Cpu).unwrap()];
    Sequence { chars: Some(chars()), features, ..sequence }
}

fn build(cluster: &Cluster, rows: usize) -> (Embedding, Variables) {
    let variables = Variables::new(4, DType::F64, &Device::Cpu);
    let rows = [(cluster.name.clone(), rows)].into();
    let embedding = Embedding::new(std::slice::from_ref(cluster), &rows, variables.builder()).unwrap();
    (embedding, variables)
}

#[test]
fn columns_stand_side_by_side_and_padding_is_zero() {
    let clusters = [
        cluster("word", json!({"cols": ["w"], "dim": 3})),
        cluster("pos", json!({"cols": ["p"], "dim": 1})),
        cluster("char", json!({"cols": ["c"], "type": "LSTMCharEmbedding", "dim": 4, "embedding_matrix_dim": 2})),
    ];
    let rows = [("word", 5), ("pos", 3), ("char", 5)].map(|(name, rows)| (name.to_string(), rows)).into();
    let variables = Variables::new(4, DType::F64, &Device::Cpu);
    let embedding = Embedding::new(&clusters, &rows, variables.builder()).unwrap();
    let columns = [column("pos", Place::Feature(0)), column("char", Place::Characters), column("word", Place::Ids)];
    let y = embedding.forward(&sequence(), &columns, Mode::Eval).unwrap();
    assert_eq!(y.dims(), [2, 2, 8]);
    let values = y.to_vec3::<f64>().unwrap();
    let table = |name: &str| variables.tensors()[name].to_vec2::<f64>().unwrap();
    assert_eq!(values[0][1][..1], table("pos.weight")[2]);
    assert_eq!(values[1][0][5..], table("word.weight")[3]);
    assert_eq!(values[1][1], [0.0; 8]);
    assert_eq!(table("word.weight")[0], [0.0; 3]);
    assert_all_variables_learn(&variables, &(y * random(1, (2, 2, 8)).unwrap()).unwrap()).unwrap();
    let without = Sequence { features: Vec::new(), ..sequence() };
    let message = embedding.forward(&without, &columns, Mode::Eval).unwrap_err().to_string();
    assert!(message.contains("the sequence has no column `pos`, expected in Feature(0)"), "{message}");
}

#[test]
fn a_fixed_table_learns_nothing() {
    let cluster = cluster("word", json!({"cols": ["w"], "dim": 3, "fix_weight": true}));
    let (embedding, variables) = build(&cluster, 5);
    let y = embedding.forward(&sequence(), &[column("word", Place::Ids)], Mode::Eval).unwrap();
    assert!(y.sum_all().unwrap().backward().unwrap().get(&variables.named()[0].1).is_none());
    assert!(cluster.is_fixed() && !cluster.is_characters());
}

#[test]
fn windows_of_characters_by_hand() {
    // Characters are one number, c = id; windows of 2 with weights (1, -1) and bias 0.5, no activation.
    let conf = json!({"cols": ["c"], "type": "CNNCharEmbedding", "dim": 1, "embedding_matrix_dim": 1, "window_size": 2,
                      "activation": null});
    let Table::Cnn(config) = cluster("char", conf).table else { panic!("expected characters") };
    let of = |values: &[f64], shape: &[usize]| Tensor::from_vec(values.to_vec(), shape, &Device::Cpu).unwrap();
    let tensors = [
        ("embedding.weight", of(&[0., 1., 2., 3., 4.], &[5, 1])),
        ("conv_0.weight", of(&[1., -1.], &[1, 2])),
        ("conv_0.bias", of(&[0.5], &[1])),
    ];
    let tensors = tensors.into_iter().map(|(name, tensor)| (name.to_string(), tensor)).collect();
    let layer = CnnChar::new(&config, 5, VarBuilder::from_tensors(tensors, DType::F64, &Device::Cpu)).unwrap();
    let y = layer.forward(&chars()).unwrap().to_vec3::<f64>().unwrap();
    // "3": one window with a zero behind it, 3 + 0.5. "124": max(1 - 2, 2 - 4) + 0.5. "22": 0 + 0.5; what follows it is no
    // window. A word of nothing has none.
    assert_eq!(y, [[[3.5], [-0.5]], [[0.5], [0.0]]]);
}

#[test]
fn characters_are_pytorchs_convolution_on_long_words() {
    // Against the definition: max over t of ReLU(b + Σ_k w_k c_{t+k}), on words without padding.
    let conf = json!({"cols": ["c"], "type": "CNNCharEmbedding", "dim": [2, 3], "embedding_matrix_dim": 2,
                      "window_size": [1, 3], "stride": [1, 2]});
    let cluster = cluster("char", conf);
    assert_eq!(cluster.width(), 5);
    let (embedding, variables) = build(&cluster, 9);
    let chars = Tensor::new(&[[[1u32, 5, 3, 8, 2]]], &Device::Cpu).unwrap();
    let sequence = Sequence { chars: Some(chars), ..pad(&[vec![1]], &Device::Cpu).unwrap() };
    let y = embedding.forward(&sequence, &[column("char", Place::Characters)], Mode::Eval).unwrap();
    let tensors = variables.tensors();
    let rows = |name: &str| tensors[name].to_vec2::<f64>().unwrap();
    let table = rows("char.embedding.weight");
    let word: Vec<f64> = [1, 5, 3, 8, 2].iter().flat_map(|&id: &usize| table[id].clone()).collect();
    let mut expected = Vec::new();
    for (idx, size, stride) in [(0, 1, 1), (1, 3, 2)] {
        let bias: Vec<f64> = tensors[&format!("char.conv_{idx}.bias")].to_vec1().unwrap();
        for (weight, bias) in rows(&format!("char.conv_{idx}.weight")).iter().zip(bias) {
            let at = |t: usize| bias + weight.iter().zip(&word[2 * t..2 * (t + size)]).map(|(w, c)| w * c).sum::<f64>();
            expected.push((0..=5 - size).step_by(stride).map(at).fold(0.0, f64::max));
        }
    }
    let expected = Tensor::new(expected, &Device::Cpu).unwrap().reshape((1, 1, 5)).unwrap();
    assert_close(&y, &expected, 1e-12, 1e-12).unwrap();
}

#[test]
fn the_characters_of_a_word_do_not_depend_on_longer_words() {
    for conf in [
        json!({"cols": ["c"], "type": "CNNCharEmbedding", "dim": 3, "padding": 1}),
        json!({"cols": ["c"], "type": "LSTMCharEmbedding", "dim": 4}),
        json!({"cols": ["c"], "type": "LSTMCharEmbedding", "dim": 3, "bidirect_flag": false}),
    ] {
        let (embedding, variables) = build(&cluster("char", conf), 5);
        let of = |chars: Tensor| {
            let ids = vec![vec![1; chars.dim(1).unwrap()]; chars.dim(0).unwrap()];
            let sequence = Sequence { chars: Some(chars), ..pad(&ids, &Device::Cpu).unwrap() };
            embedding.forward(&sequence, &[column("char", Place::Characters)], Mode::Eval).unwrap()
        };
        let both = of(chars());
        let alone = of(Tensor::new(&[[[2u32, 2]]], &Device::Cpu).unwrap());
        assert_close(&both.narrow(0, 1, 1).unwrap().narrow(1, 0, 1).unwrap(), &alone, 1e-12, 1e-12).unwrap();
        let loss = (&both * random(1, both.shape()).unwrap()).unwrap();
        assert_all_variables_learn(&variables, &loss).unwrap();
    }
}

#[test]
fn one_direction_is_the_first_half_of_two() {
    let (two, of_two) = build(&cluster("char", json!({"cols": [], "type": "LSTMCharEmbedding", "dim": 6})), 5);
    let one = json!({"cols": [], "type": "LSTMCharEmbedding", "dim": 3, "bidirect_flag": false});
    let (one, of_one) = build(&cluster("char", one), 5);
    let tensors = of_two.tensors();
    for (name, var) in of_one.named() {
        var.set(&tensors[&name]).unwrap();
    }
    let of = |embedding: &Embedding| embedding.forward(&sequence(), &[column("char", Place::Characters)], Mode::Eval);
    let (one, two) = (of(&one).unwrap(), of(&two).unwrap());
    assert_close(&one, &two.narrow(2, 0, 3).unwrap(), 1e-12, 1e-12).unwrap();
}

#[test]
fn what_does_not_fit_is_named() {
    for (conf, expected) in [
        (json!(3), "expected an object, found 3"),
        (json!({"dim": 3}), "expected a key `cols`, found none"),
        (json!({"cols": "w", "dim": 3}), "cols: invalid type: string \"w\""),
        (json!({"cols": ["w"], "dim": 0}), "dim: expected at least 1, found 0"),
        (json!({"cols": ["w"], "dim": 3, "fix_weights": true}), "unknown field `fix_weights`"),
        (json!({"cols": ["w"]}), "missing field `dim`"),
        (
            json!({"cols": ["w"], "dim": 3, "bpe_path": "x.bpe"}),
            "bpe_path: expected none, for words are not cut by merges",
        ),
        (json!({"cols": ["w"], "type": 3}), "type: expected \"CNNCharEmbedding\" or \"LSTMCharEmbedding\", found 3"),
        (
            json!({"cols": ["w"], "type": "CNNCharEmbedding", "dim": [1, 2], "window_size": [1, 2, 3]}),
            "dim: expected 3 numbers, one for each window, found 2",
        ),
        (json!({"cols": ["w"], "type": "CNNCharEmbedding", "stride": 0}), "stride: expected at least 1, found 0"),
        (
            json!({"cols": ["w"], "type": "CNNCharEmbedding", "padding": 3}),
            "padding: expected less than the window of 3",
        ),
        (json!({"cols": ["w"], "type": "LSTMCharEmbedding", "dim": 5}), "dim: expected an even number"),
        (json!({"cols": ["w"], "type": "LSTMCharEmbedding", "dropout": 1}), "dropout: expected a number in [0, 1)"),
    ] {
        let message = Cluster::parse("x", &conf).unwrap_err();
        assert!(message.contains(expected), "expected {expected}, found {message}");
    }
    let clusters = [cluster("word", json!({"cols": ["w"], "dim": 3}))];
    let variables = Variables::new(4, DType::F64, &Device::Cpu);
    let message = Embedding::new(&clusters, &BTreeMap::new(), variables.builder()).unwrap_err().to_string();
    assert!(message.contains("expected the number of ids of cluster `word`, found None"), "{message}");
    let (_, unread) = Cluster::parse("c", &json!({"cols": [], "type": "CNNCharEmbedding", "dropout": 0.5})).unwrap();
    assert_eq!(unread, ["dropout"]);
}
