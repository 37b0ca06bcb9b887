//! MPNet and XLNet, whose attention knows distances, against transformers; and what must hold of them.

mod reference;

use candle_core::{DType, Device, Tensor};
use kd_core::batch::{Rows, Sequence, Tokens, pad};
use kd_core::model::{Mode, Output, Student};
use kd_core::ops::Activation;
use kd_core::ops::packed::Precision;
use kd_core::testing::assert_all_variables_learn;
use kd_core::variables::Variables;
use kd_teachers::config::{EncoderConfig, Family};
use kd_teachers::encoder::{Encoder, Wanted};
use kd_teachers::heads::{HeadOptions, Pooling, SequenceClassifier, TokenTagger};
use kd_teachers::hub::ModelFiles;
use reference::{assert_close, edited, floats, folder, ids_of, read_json, stored, unpadded, values};
use safetensors::tensor::Dtype;
use serde_json::{Value, json};

const NAMES: [&str; 3] = ["mpnet", "xlnet", "xlnet-clamped"];
const ALL: Wanted = Wanted { hidden: true, attention: true };

fn reference_of(name: &str) -> Value {
    read_json(&folder(name).join("reference.json"))
}

fn sequence(case: &Value) -> Sequence {
    let padded = |key: &str| pad(&ids_of(&case[key]), &Device::Cpu).unwrap();
    let segments = case.get("segments").map(|_| padded("segments").ids);
    Sequence { segments, ..padded("ids") }
}

fn examples(case: &Value) -> Tokens {
    Tokens { first: sequence(case), second: None, more: Vec::new(), rows: Rows::Examples }
}

/// Every token as a row.
fn words(case: &Value) -> Tokens {
    let first = sequence(case);
    Tokens { rows: first.token_rows().unwrap(), first, second: None, more: Vec::new() }
}

fn weigh(xs: &Tensor) -> Tensor {
    let weights: Vec<f64> = (0..xs.elem_count()).map(|idx| (idx as f64).cos()).collect();
    let weights = Tensor::from_vec(weights, xs.elem_count(), &Device::Cpu).unwrap().to_dtype(xs.dtype()).unwrap();
    (xs.flatten_all().unwrap() * weights).unwrap().sum_all().unwrap()
}

fn load(name: &str) -> (SequenceClassifier, Variables) {
    SequenceClassifier::load(&folder(name), &Device::Cpu).unwrap()
}

/// The folder of a token classifier on the same encoder, with the reference's head.
fn tagger_folder(name: &str) -> (tempfile::TempDir, ModelFiles) {
    let reference = reference_of(name);
    let (to, files) = edited(name, |tensors| {
        tensors.retain(|tensor| tensor.0.starts_with("mpnet.") || tensor.0.starts_with("transformer."));
        let bytes = |values: &Value| floats(values).iter().flat_map(|x| x.to_le_bytes()).collect();
        tensors.push(("classifier.weight".into(), Dtype::F32, vec![3, 16], bytes(&reference["token_weight"])));
        tensors.push(("classifier.bias".into(), Dtype::F32, vec![3], bytes(&reference["token_bias"])));
    });
    let mut config = read_json(&files.config);
    config["architectures"] = json!([config["architectures"][0].as_str().unwrap().replace("Sequence", "Token")]);
    std::fs::write(&files.config, config.to_string()).unwrap();
    (to, files)
}

#[test]
fn logits_hidden_states_and_attention_agree_with_transformers() {
    for name in NAMES {
        let model = load(name).0.returning(ALL);
        for (input, case) in reference_of(name)["cases"].as_object().unwrap() {
            let (what, tokens) = (format!("{name}, {input}"), examples(case));
            let output = model.forward(&tokens, Mode::Eval).unwrap();
            assert_close(&values(output.logits().unwrap()), &floats(&case["logits"]), 1e-5, &what);
            let (states, probs) = (case["hidden"].as_array().unwrap(), case["attention"].as_array().unwrap());
            assert_eq!((output.hidden.len(), output.attention.len()), (states.len(), probs.len()), "{what}");
            for (state, expected) in output.hidden.iter().zip(states) {
                assert_close(&unpadded(state, &tokens.first), &floats(expected), 1e-5, &what);
            }
            for (probs, expected) in output.attention.iter().zip(probs) {
                let mut found = Vec::new();
                for (row, len) in tokens.first.lengths().unwrap().into_iter().enumerate() {
                    let of_row = probs.get(row).unwrap();
                    found.extend(values(&of_row.narrow(1, 0, len).unwrap().narrow(2, 0, len).unwrap()));
                    let padding = values(&of_row.narrow(2, len, of_row.dim(2).unwrap() - len).unwrap());
                    assert!(padding.iter().all(|&p| p == 0.0), "{what}: a key on padding has a probability");
                }
                assert_close(&found, &floats(expected), 1e-5, &what);
            }
        }
    }
}

#[test]
fn token_classifiers_agree_with_transformers() {
    for name in NAMES {
        let (_folder, files) = tagger_folder(name);
        let (model, _) = TokenTagger::load_files(&files, &Device::Cpu).unwrap();
        for (input, case) in reference_of(name)["cases"].as_object().unwrap() {
            let output = model.forward(&words(case), Mode::Eval).unwrap();
            let expected = floats(&case["token_logits"]);
            assert_close(&values(output.logits().unwrap()), &expected, 1e-5, &format!("{name}, {input}"));
        }
    }
}

#[test]
fn gradients_agree_with_torch() {
    for name in NAMES {
        let (model, variables) = load(name);
        let reference = reference_of(name);
        let output = model.forward(&examples(&reference["cases"]["padded"]), Mode::Eval).unwrap();
        let gradients = weigh(output.logits().unwrap()).backward().unwrap();
        let expected = reference["gradients"].as_object().unwrap();
        assert_eq!(expected.len(), variables.named().len(), "{name}");
        let prefix = model.encoder().config().family.prefix();
        for (variable, var) in variables.named() {
            let expected = expected.get(&variable).unwrap_or_else(|| &expected[&format!("{prefix}.{variable}")]);
            let gradient = values(gradients.get(&var).unwrap_or_else(|| panic!("{name}: {variable} has no gradient")));
            let (sum, norm) = (expected[0].as_f64().unwrap(), expected[1].as_f64().unwrap());
            let found_sum: f64 = gradient.iter().map(|&x| f64::from(x)).sum();
            let found_norm = gradient.iter().map(|&x| f64::from(x).powi(2)).sum::<f64>().sqrt();
            let tolerance = 1e-4 * norm.max(1.0);
            assert!((found_norm - norm).abs() <= tolerance, "{name}: {variable}: norm {found_norm}, expected {norm}");
            assert!((found_sum - sum).abs() <= 4.0 * tolerance, "{name}: {variable}: sum {found_sum}, expected {sum}");
        }
    }
}

/// A tiny encoder in f64, with every dropout of probability 0.3.
fn tiny(family: Family) -> (Encoder, Variables) {
    let config = EncoderConfig {
        vocabulary: 12,
        hidden: 6,
        layers: 2,
        heads: 2,
        intermediate: 8,
        activation: Activation::GeluTanh,
        max_positions: if family == Family::XlNet { usize::MAX } else { 10 },
        hidden_dropout: 0.3,
        attention_dropout: 0.3,
        initializer_range: 0.5,
        ..EncoderConfig::base(family)
    };
    let variables = Variables::new(1, DType::F64, &Device::Cpu);
    (Encoder::new(&config, variables.builder()).unwrap(), variables)
}

fn two_sequences() -> Sequence {
    let segments = pad(&[vec![0, 1, 1, 2], vec![0, 2]], &Device::Cpu).unwrap().ids;
    Sequence { segments: Some(segments), ..pad(&[vec![2, 7, 3, 5], vec![4, 9]], &Device::Cpu).unwrap() }
}

#[test]
fn every_gradient_agrees_with_finite_differences() {
    // Through the whole encoder with its dropouts, from the last states of both sequences and the attention of the last layer.
    for family in [Family::MpNet, Family::XlNet] {
        let (encoder, variables) = tiny(family);
        let sequence = two_sequences();
        let rows = sequence.token_rows().unwrap();
        let loss = || {
            let encoded = encoder.encode(&sequence, Mode::Train { seed: 5 }, ALL).unwrap();
            let last = weigh(&rows.select(&encoded.last).unwrap());
            (last + weigh(&encoded.attention[1].narrow(0, 0, 1).unwrap())).unwrap()
        };
        let gradients = loss().backward().unwrap();
        for (name, var) in variables.named() {
            let gradient = gradients.get(&var).unwrap_or_else(|| panic!("{family:?}: {name} has no gradient"));
            let gradient = gradient.flatten_all().unwrap().to_vec1::<f64>().unwrap();
            let original = var.as_tensor().copy().unwrap().flatten_all().unwrap().to_vec1::<f64>().unwrap();
            for idx in 0..original.len() {
                let at = |step: f64| {
                    let mut moved = original.clone();
                    moved[idx] += step;
                    var.set(&Tensor::from_vec(moved, var.shape(), &Device::Cpu).unwrap()).unwrap();
                    loss().to_scalar::<f64>().unwrap()
                };
                let numeric = (at(1e-5) - at(-1e-5)) / 2e-5;
                at(0.0);
                let (found, tolerance) = (gradient[idx], 1e-6 * numeric.abs().max(1.0));
                let what = format!("{family:?}: {name}[{idx}]: {found}, expected {numeric}");
                assert!((found - numeric).abs() < tolerance, "{what}");
            }
        }
    }
}

#[test]
fn every_variable_learns_in_training_and_dropout_follows_the_seed() {
    for name in NAMES {
        let (model, variables) = load(name);
        let tokens = examples(&reference_of(name)["cases"]["paired"]);
        let run = |mode| values(model.forward(&tokens, mode).unwrap().logits().unwrap());
        let output = model.forward(&tokens, Mode::Train { seed: 3 }).unwrap();
        assert_all_variables_learn(&variables, &weigh(output.logits().unwrap())).unwrap();
        assert_eq!(run(Mode::Train { seed: 1 }), run(Mode::Train { seed: 1 }), "{name}");
        assert_ne!(run(Mode::Train { seed: 1 }), run(Mode::Train { seed: 2 }), "{name}");
        assert_ne!(run(Mode::Train { seed: 1 }), run(Mode::Eval), "{name}");
    }
}

#[test]
fn each_dropout_of_xlnet_is_where_transformers_has_it() {
    // Of the outputs, what the first layer reads is dropped out, and the last states are the last layer's after dropout:
    // survivors are 1 / (1 - p) as large.
    let (encoder, _) = tiny(Family::XlNet);
    let encoded = encoder.encode(&two_sequences(), Mode::Train { seed: 7 }, ALL).unwrap();
    let plain = encoder.encode(&two_sequences(), Mode::Eval, ALL).unwrap();
    let pairs = [(&encoded.hidden[0], &plain.hidden[0]), (&encoded.last, &encoded.hidden[2])];
    for (dropped, whole) in pairs {
        let list = |tensor: &Tensor| tensor.flatten_all().unwrap().to_vec1::<f64>().unwrap();
        let (dropped, whole) = (list(dropped), list(whole));
        let zeros = dropped.iter().filter(|&&x| x == 0.0).count();
        assert!(zeros > 0 && zeros < dropped.len(), "{zeros} of {}", dropped.len());
        for (x, y) in dropped.iter().zip(&whole) {
            assert!(*x == 0.0 || (x - y / 0.7).abs() < 1e-12, "{x}, {y}");
        }
    }
}

#[test]
fn padding_and_neighbours_change_nothing() {
    for name in NAMES {
        let (model, _) = load(name);
        let case = &reference_of(name)["cases"]["paired"];
        let padded = sequence(case);
        let junk = Tensor::full(99u32, padded.ids.shape(), &Device::Cpu).unwrap();
        let with_junk = Sequence { ids: padded.mask.where_cond(&padded.ids, &junk).unwrap(), ..padded.clone() };
        let run = |sequence: &Sequence| model.encoder().forward(sequence, Mode::Eval).unwrap();
        assert_eq!(unpadded(&run(&padded), &padded), unpadded(&run(&with_junk), &padded), "{name}");
        for (row, len) in padded.lengths().unwrap().into_iter().enumerate() {
            let part =
                |tensor: &Tensor| tensor.narrow(0, row, 1).unwrap().narrow(1, 0, len).unwrap().contiguous().unwrap();
            let segments = padded.segments.as_ref().map(part);
            let alone = Sequence {
                ids: part(&padded.ids),
                mask: part(&padded.mask),
                segments,
                chars: None,
                features: Vec::new(),
            };
            assert_close(&values(&run(&alone)), &values(&part(&run(&padded))), 1e-5, name);
        }
    }
}

#[test]
fn one_segment_is_the_same_as_none() {
    let (model, _) = load("xlnet");
    let case = &reference_of("xlnet")["cases"]["padded"];
    let run = |segments| {
        let sequence = Sequence { segments, ..sequence(case) };
        unpadded(&model.encoder().forward(&sequence, Mode::Eval).unwrap(), &sequence)
    };
    let zeros = sequence(case).ids.zeros_like().unwrap();
    assert_close(&run(Some(zeros)), &run(None), 1e-6, "segments");
    assert_ne!(run(sequence(case).segments), run(None));
}

#[test]
fn the_first_layers_are_what_is_asked_for() {
    for name in NAMES {
        let files = ModelFiles::in_folder(&folder(name)).unwrap();
        let options = HeadOptions { layers: Some(1), hidden_states: true, ..HeadOptions::default() };
        let (model, _) = TokenTagger::from_files(&files, &["a".to_string()], 1, &Device::Cpu, &options).unwrap();
        let case = &reference_of(name)["cases"]["padded"];
        let output = model.forward(&words(case), Mode::Eval).unwrap();
        assert_eq!(output.hidden.len(), 2);
        assert_close(&unpadded(&output.hidden[1], &sequence(case)), &floats(&case["hidden"][1]), 1e-5, name);
    }
}

#[test]
fn what_transformers_saved_is_saved_again() {
    let to = tempfile::tempdir().unwrap();
    for name in NAMES {
        let (model, variables) = load(name);
        assert_eq!(model.pooling(), Pooling::Family);
        let saved = to.path().join(name);
        model.save(&variables, &folder(name).join("tokenizer.json"), &saved).unwrap();
        let mut expected = stored(&folder(name));
        // The query stream's, which is not there in fine-tuning.
        expected.retain(|tensor| tensor.0 != "transformer.mask_emb");
        assert_eq!(stored(&saved), expected, "{name}");
        let (again, _) = SequenceClassifier::load(&saved, &Device::Cpu).unwrap();
        assert_eq!(again.encoder().config(), model.encoder().config());
        let tokens = examples(&reference_of(name)["cases"]["paired"]);
        let logits = |model: &SequenceClassifier| values(model.forward(&tokens, Mode::Eval).unwrap().logits().unwrap());
        assert_eq!(logits(&again), logits(&model), "{name}");
    }
}

#[test]
fn bfloat16_layers_are_near() {
    for name in NAMES {
        let (model, variables) = load(name);
        let tokens = examples(&reference_of(name)["cases"]["paired"]);
        let expected = values(model.forward(&tokens, Mode::Eval).unwrap().logits().unwrap());
        let model = model.computing_in(DType::BF16);
        let logits = model.forward(&tokens, Mode::Eval).unwrap().logits().unwrap().clone();
        assert_eq!(logits.dtype(), DType::F32);
        assert_close(&values(&logits), &expected, 0.1, name);
        assert_all_variables_learn(&variables, &weigh(&logits)).unwrap();
    }
}

#[test]
fn packed_models_agree_with_f32() {
    for name in NAMES {
        let (model, variables) = load(name);
        let model = model.returning(ALL);
        let tokens = examples(&reference_of(name)["cases"]["paired"]);
        let tensors = |output: &Output| {
            [&output.heads[..], &output.hidden, &output.attention].concat().iter().map(values).collect::<Vec<_>>()
        };
        let expected = tensors(&model.forward(&tokens, Mode::Eval).unwrap());
        for (precision, tolerance) in [(Precision::F32, 1e-5), (Precision::Bf16, 0.1), (Precision::Int8, 0.3)] {
            let packed = model.pack(precision).unwrap();
            let found = tensors(&packed.forward(&tokens, Mode::Eval).unwrap());
            assert_eq!(found.len(), expected.len());
            for (idx, (found, expected)) in found.iter().zip(&expected).enumerate() {
                assert_close(found, expected, tolerance, &format!("{name}, {precision:?}, tensor {idx}"));
            }
            let message = packed.forward(&tokens, Mode::Train { seed: 1 }).unwrap_err().to_string();
            assert!(message.contains("a packed encoder has no variables"), "{message}");
        }
        // What is packed does not follow the variables.
        let packed = model.pack(Precision::F32).unwrap();
        for (_, var) in variables.named() {
            var.set(&var.zeros_like().unwrap()).unwrap();
        }
        assert_close(&tensors(&packed.forward(&tokens, Mode::Eval).unwrap())[0], &expected[0], 1e-5, name);
    }
}

#[test]
fn what_cannot_be_done_is_an_error() {
    let (mpnet, _) = load("mpnet");
    let long = pad(&[vec![5; 21]], &Device::Cpu).unwrap();
    let message = mpnet.encoder().forward(&long, Mode::Eval).unwrap_err().to_string();
    assert!(message.contains("a sequence has 21 tokens, the encoder has 20 positions"), "{message}");
    let check = |name: &str, key: &str, value: Value, expected: &str| {
        let (to, files) = edited(name, |_| {});
        let mut config = read_json(&files.config);
        config[key] = value;
        std::fs::write(&files.config, config.to_string()).unwrap();
        let message = SequenceClassifier::load(to.path(), &Device::Cpu).unwrap_err().to_string();
        assert!(message.contains(expected), "{message}");
    };
    check("xlnet", "attn_type", json!("uni"), "unsupported `attn_type`: expected \"bi\", found \"uni\"");
    check("xlnet", "bi_data", json!(true), "unsupported `bi_data`: expected false, found true");
    check("xlnet", "summary_type", json!("first"), "unsupported `summary_type`: expected \"last\", found \"first\"");
    let buckets = "unsupported `relative_attention_num_buckets`: expected 32, found 64";
    check("mpnet", "relative_attention_num_buckets", json!(64), buckets);
    // XLNet knows no longest sequence.
    let (xlnet, _) = load("xlnet");
    assert_eq!(xlnet.encoder().forward(&long, Mode::Eval).unwrap().dims(), [1, 21, 16]);
}
