use std::collections::BTreeMap;

use candle_core::{DType, Device, Tensor, Var};
use candle_nn::VarBuilder;
use kd_core::model::Mode;
use kd_core::testing::{assert_close, random};
use kd_core::variables::Variables;
use serde_json::{Value as Json, json};

use super::super::checks::{Given, LEN, check as check_block};
use super::super::{BlockConfig, Dim, Shape, Site, Value, standard};

fn config(block: &str, conf: Json) -> Box<dyn BlockConfig> {
    standard(block).unwrap().parse(conf).unwrap()
}

#[test]
fn shapes_padding_and_variables() {
    let text = [Given::text(LEN, 3, &[4, 1, 2])];
    for (block, conf) in [
        ("BiLSTM", json!({"hidden_dim": 2, "num_layers": 2})),
        ("BiLSTMLast", json!({"hidden_dim": 3})),
        ("BiLSTMLast", json!({"hidden_dim": 2, "num_layers": 3})),
        ("BiLSTMAtt", json!({"hidden_dim": 2})),
        ("BiGRU", json!({"hidden_dim": 3})),
        ("BiGRULast", json!({"hidden_dim": 2})),
        ("BiQRNN", json!({"hidden_dim": 2, "window": 2, "num_layers": 2})),
        ("BiQRNN", json!({"hidden_dim": 3, "zoneout": 0.3})),
    ] {
        check_block(config(block, conf).as_ref(), &text);
    }
    check_block(config("BiLSTM", json!({"hidden_dim": 2})).as_ref(), &[Given::text(Dim::Fixed(5), 3, &[5, 2])]);
}

#[test]
fn shapes_of_random_sizes() {
    for seed in 0..6u64 {
        let size = |what: u64, most: u64| 1 + (kd_core::variables::mix(seed, what) % most) as usize;
        // One text at least has two tokens: with one there is no state before it that a matrix could learn from.
        let mut lengths: Vec<usize> = (0..size(0, 3)).map(|text| size(10 + text as u64, 5)).collect();
        lengths[0] += 1;
        let text = [Given::text(LEN, size(1, 5), &lengths)];
        let (hidden, layers) = (size(2, 4), size(3, 2));
        for block in ["BiLSTM", "BiLSTMLast", "BiQRNN"] {
            check_block(config(block, json!({"hidden_dim": hidden, "num_layers": layers})).as_ref(), &text);
        }
        for block in ["BiGRU", "BiGRULast"] {
            check_block(config(block, json!({"hidden_dim": hidden})).as_ref(), &text);
        }
        let linear = json!({"hidden_dim": [hidden, layers], "activation": "Tanh"});
        check_block(config("Linear", linear).as_ref(), &text);
        let highway = json!({"num_layers": layers, "activation": "Tanh"});
        check_block(config("HighwayLinear", highway).as_ref(), &text);
    }
}

fn read(json: &Json) -> Tensor {
    let shape: Vec<usize> = serde_json::from_value(json["shape"].clone()).unwrap();
    let values: Vec<f64> = serde_json::from_value(json["values"].clone()).unwrap();
    Tensor::from_vec(values, shape, &Device::Cpu).unwrap()
}

fn mask(lengths: &[usize], len: usize) -> Tensor {
    let mask: Vec<u8> = lengths.iter().flat_map(|&n| (0..len).map(move |at| u8::from(at < n))).collect();
    Tensor::from_vec(mask, (lengths.len(), len), &Device::Cpu).unwrap()
}

#[test]
fn values_and_gradients_are_pytorchs_on_packed_sequences() {
    let cases: Vec<Json> =
        serde_json::from_str(include_str!("../../../tests/reference/recurrent_blocks.json")).unwrap();
    assert_eq!(cases.len(), 7);
    for case in cases {
        let block = case["block"].as_str().unwrap();
        let lengths: Vec<usize> = serde_json::from_value(case["lengths"].clone()).unwrap();
        let x = Var::from_tensor(&read(&case["x"])).unwrap();
        let named: BTreeMap<String, Var> = case["variables"]
            .as_object()
            .unwrap()
            .iter()
            .map(|(name, json)| (name.clone(), Var::from_tensor(&read(json)).unwrap()))
            .collect();
        let tensors = named.iter().map(|(name, var)| (name.clone(), var.as_tensor().clone())).collect();
        let vb = VarBuilder::from_tensors(tensors, DType::F64, &Device::Cpu);
        let (site, shape) = (Site { classes: Some(3), ..Site::default() }, Shape::sequence(LEN, 3));
        let config = config(block, case["conf"].clone());
        config.infer(std::slice::from_ref(&shape), &site).unwrap();
        let built = config.build(&[shape], &site, vb).unwrap();
        let input = Value::masked(x.as_tensor().clone(), Some(mask(&lengths, 4)));
        let output = built.forward(&[input], Mode::Eval).unwrap().zeroed().unwrap();
        let close = |found: &Tensor, expected: &Json, what: &str| {
            assert_close(found, &read(expected), 1e-12, 1e-10)
                .unwrap_or_else(|error| panic!("{block}, {what}: {error}"));
        };
        close(&output, &case["output"], "output");
        let gradients = (output * read(&case["weights"])).unwrap().sum_all().unwrap().backward().unwrap();
        close(gradients.get(&x).unwrap(), &case["gradients"]["x"], "x");
        for (name, var) in named {
            close(gradients.get(&var).unwrap(), &case["gradients"][&name], &name);
        }
    }
}

#[test]
fn the_decoder_does_not_read_padding_and_learns() {
    let site = Site { classes: Some(4), ..Site::default() };
    let conf = json!({"encoder": "SLUEncoder", "encoder_conf": {"hidden_dim": 2, "dropout": 0, "num_layers": 1},
                      "decoder": "SLUDecoder", "decoder_conf": {"hidden_dim": 3, "num_layers": 2, "decoder_emb_dim": 2}});
    let config = config("EncoderDecoder", conf);
    let shape = Shape::sequence(LEN, 3);
    assert_eq!(config.infer(std::slice::from_ref(&shape), &site).unwrap(), Shape::sequence(LEN, 4));
    let variables = Variables::new(2, DType::F64, &Device::Cpu);
    let block = config.build(&[shape], &site, variables.builder()).unwrap();
    let x = random(1, (2, 4, 3)).unwrap();
    let of = |x: &Tensor, lengths: &[usize]| {
        let value = Value::masked(x.clone(), Some(mask(lengths, x.dim(1).unwrap())));
        block.forward(&[value], Mode::Eval).unwrap().zeroed().unwrap()
    };
    let y = of(&x, &[4, 2]);
    let alone = of(&x.narrow(0, 1, 1).unwrap().narrow(1, 0, 2).unwrap(), &[2]);
    assert_close(&y.narrow(0, 1, 1).unwrap().narrow(1, 0, 2).unwrap(), &alone, 1e-12, 1e-12).unwrap();
    // Each row is a distribution.
    let sums = y.narrow(0, 0, 1).unwrap().exp().unwrap().sum(2).unwrap();
    assert_close(&sums, &sums.ones_like().unwrap(), 1e-12, 0.0).unwrap();
    let gradients = (y.sqr().unwrap()).sum_all().unwrap().backward().unwrap();
    for (name, var) in variables.named() {
        let gradient = gradients.get(&var).unwrap_or_else(|| panic!("`{name}` has no gradient"));
        assert!(gradient.sqr().unwrap().sum_all().unwrap().to_scalar::<f64>().unwrap() > 0.0, "{name}");
    }
}

/// The recursion of one direction of the first layer, a token at a time.
fn by_hand(x: &[Vec<f64>], weight: &[Vec<f64>], bias: &[f64], window: usize, kept: f64) -> Vec<Vec<f64>> {
    let (sigmoid, hidden) = (|x: f64| 1.0 / (1.0 + (-x).exp()), bias.len() / 3);
    let mut cell = vec![0.0; hidden];
    (0..x.len())
        .map(|at| {
            let mut source = x[at].clone();
            if window == 2 {
                source.extend(if at == 0 { vec![0.0; x[at].len()] } else { x[at - 1].clone() });
            }
            let gate = |row: usize| bias[row] + weight[row].iter().zip(&source).map(|(w, x)| w * x).sum::<f64>();
            (0..hidden)
                .map(|unit| {
                    let forget = sigmoid(gate(hidden + unit)) * kept;
                    cell[unit] = forget * gate(unit).tanh() + (1.0 - forget) * cell[unit];
                    sigmoid(gate(2 * hidden + unit)) * cell[unit]
                })
                .collect()
        })
        .collect()
}

#[test]
fn quasi_recurrent_layers_are_their_recursion() {
    for (window, zoneout) in [(1, 0.0), (2, 0.0), (2, 0.25)] {
        let config = config("BiQRNN", json!({"hidden_dim": 2, "window": window, "zoneout": zoneout}));
        let variables = Variables::new(9, DType::F64, &Device::Cpu);
        let shape = Shape::sequence(LEN, 3);
        let block = config.build(&[shape], &Site::default(), variables.builder()).unwrap();
        let x = random(5, (2, 4, 3)).unwrap();
        let value = Value::masked(x.clone(), Some(mask(&[4, 2], 4)));
        let y = block.forward(&[value], Mode::Eval).unwrap().tensor.to_vec3::<f64>().unwrap();
        let tensors = variables.tensors();
        for (text, len) in [(0, 4), (1, 2)] {
            let tokens = x.to_vec3::<f64>().unwrap()[text][..len].to_vec();
            for direction in 0..2 {
                let weight = tensors[&format!("layers.{direction}.weight")].to_vec2().unwrap();
                let bias: Vec<f64> = tensors[&format!("layers.{direction}.bias")].to_vec1().unwrap();
                let turn = |mut rows: Vec<Vec<f64>>| {
                    if direction == 1 {
                        rows.reverse();
                    }
                    rows
                };
                let expected = turn(by_hand(&turn(tokens.clone()), &weight, &bias, window, 1.0 - zoneout));
                for (at, expected) in expected.iter().enumerate() {
                    for (unit, expected) in expected.iter().enumerate() {
                        let found = y[text][at][2 * direction + unit];
                        assert!((found - expected).abs() < 1e-12, "window {window}: {found} {expected}");
                    }
                }
            }
            assert!(y[text][len..].iter().flatten().all(|&y| y == 0.0));
        }
    }
}

#[test]
fn zoneout_keeps_cells_in_training() {
    let config = config("BiQRNN", json!({"hidden_dim": 200, "zoneout": 0.5}));
    let variables = Variables::new(9, DType::F64, &Device::Cpu);
    let block = config.build(&[Shape::sequence(LEN, 1)], &Site::default(), variables.builder()).unwrap();
    let x = Value::new(random(5, (1, 1, 1)).unwrap());
    let y =
        block.forward(&[x], Mode::Train { seed: 3 }).unwrap().tensor.flatten_all().unwrap().to_vec1::<f64>().unwrap();
    // The cell before the first token is 0, so what is kept is 0: 200 ± 4 standard deviations of 10 of 400.
    let kept = y.iter().filter(|&&y| y == 0.0).count();
    assert!((160..=240).contains(&kept), "{kept} of 400");
}

#[test]
fn dropout_is_between_layers_only() {
    let of = |layers: usize, mode| {
        let config = config("BiLSTM", json!({"hidden_dim": 2, "num_layers": layers, "dropout": 0.5}));
        let variables = Variables::new(9, DType::F64, &Device::Cpu);
        let block = config.build(&[Shape::sequence(LEN, 3)], &Site::default(), variables.builder()).unwrap();
        let x = Value::new(random(5, (2, 4, 3)).unwrap());
        block.forward(&[x], mode).unwrap().tensor.to_vec3::<f64>().unwrap()
    };
    assert_eq!(of(1, Mode::Eval), of(1, Mode::Train { seed: 1 }));
    assert_ne!(of(2, Mode::Eval), of(2, Mode::Train { seed: 1 }));
}

#[test]
fn what_does_not_fit_is_named() {
    let text = Shape::sequence(LEN, 3);
    for (block, conf, shape, expected) in [
        ("BiLSTM", json!({"hidden_dim": 0}), &text, "hidden_dim: expected at least 1, found 0"),
        ("BiLSTMLast", json!({"num_layers": 0}), &text, "num_layers: expected at least 1, found 0"),
        ("BiLSTMAtt", json!({"dropout": 1.0}), &text, "dropout: expected a number in [0, 1), found 1"),
        ("BiGRU", json!({}), &Shape::vector(3), "expected an input of rank 3, found (batch, 3) of rank 2"),
        ("BiQRNN", json!({"window": 3}), &text, "window: expected 1 or 2, found 3"),
        ("BiQRNN", json!({"zoneout": -1.0}), &text, "zoneout: expected a number in [0, 1), found -1"),
        ("EncoderDecoder", json!({}), &text, "decoder: expected a target with classes, found None"),
        (
            "EncoderDecoder",
            json!({"encoder_conf": {"hidden_dim": 0}}),
            &text,
            "encoder_conf.hidden_dim: expected at least 1",
        ),
        (
            "EncoderDecoder",
            json!({"decoder_conf": {"num_layers": 0}}),
            &text,
            "decoder_conf.num_layers: expected at least 1",
        ),
        ("EncoderDecoder", json!({}), &Shape::vector(3), "expected an input of rank 3, found (batch, 3) of rank 2"),
    ] {
        let message = config(block, conf).infer(std::slice::from_ref(shape), &Site::default()).unwrap_err();
        assert!(message.starts_with(expected), "{block}: expected {expected}, found {message}");
    }
    let unknown = standard("BiLSTM").unwrap().parse(json!({"hiden_dim": 3})).unwrap_err();
    assert!(unknown.contains("unknown field `hiden_dim`"), "{unknown}");
}
