//! Each family with its own head against transformers, and what is saved of it.

mod reference;

use std::path::Path;

use candle_core::{DType, Device, Tensor};
use kd_core::batch::{Rows, Sequence, Tokens, pad};
use kd_core::model::{Mode, Output, Student};
use kd_core::testing::assert_all_variables_learn;
use kd_core::variables::Variables;
use kd_teachers::checkpoint::{POOLER, is_head};
use kd_teachers::config::{EncoderConfig, Family, ProblemType};
use kd_teachers::encoder::{Encoder, Wanted};
use kd_teachers::heads::{HeadOptions, Pooling, SequenceClassifier, TokenTagger};
use kd_teachers::hub::ModelFiles;
use reference::{Stored, assert_close, edited, floats, folder, ids_of, read_json, stored, unpadded, values};
use safetensors::tensor::Dtype;
use serde_json::{Value, json};

const NAMES: [&str; 6] = ["bert-classifier", "distilbert-classifier", "roberta", "xlm-roberta", "albert", "electra"];
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

/// `Σ_i cos(i) x_i`: no symmetry makes its gradient zero.
fn weigh(xs: &Tensor) -> Tensor {
    let weights: Vec<f64> = (0..xs.elem_count()).map(|idx| (idx as f64).cos()).collect();
    let weights = Tensor::from_vec(weights, xs.elem_count(), &Device::Cpu).unwrap().to_dtype(xs.dtype()).unwrap();
    (xs.flatten_all().unwrap() * weights).unwrap().sum_all().unwrap()
}

/// The folder of a token classifier on the same encoder, with the reference's head.
fn tagger_folder(name: &str) -> (tempfile::TempDir, ModelFiles) {
    let reference = reference_of(name);
    let (to, files) = edited(name, |tensors| {
        tensors.retain(|tensor| !is_head(&tensor.0) && !tensor.0.contains(POOLER));
        let bytes = |values: &Value| floats(values).iter().flat_map(|x| x.to_le_bytes()).collect();
        tensors.push(("classifier.weight".into(), Dtype::F32, vec![3, 16], bytes(&reference["token_weight"])));
        tensors.push(("classifier.bias".into(), Dtype::F32, vec![3], bytes(&reference["token_bias"])));
    });
    let mut config = read_json(&files.config);
    let architecture = config["architectures"][0].as_str().unwrap().replace("Sequence", "Token");
    config["architectures"] = json!([architecture]);
    config["id2label"] = json!({"0": "O", "1": "B", "2": "I"});
    std::fs::write(&files.config, config.to_string()).unwrap();
    (to, files)
}

/// Checks hidden states and attention of tokens that are not padding.
fn check_states(output: &Output, sequence: &Sequence, case: &Value, what: &str) {
    let lists = |key: &str| case[key].as_array().unwrap().clone();
    assert_eq!(output.hidden.len(), lists("hidden").len(), "{what}");
    for (idx, (state, expected)) in output.hidden.iter().zip(lists("hidden")).enumerate() {
        assert_close(&unpadded(state, sequence), &floats(&expected), 1e-5, &format!("{what}, state {idx}"));
    }
    assert_eq!(output.attention.len(), lists("attention").len(), "{what}");
    for (idx, (probs, expected)) in output.attention.iter().zip(lists("attention")).enumerate() {
        let mut found = Vec::new();
        for (row, len) in sequence.lengths().unwrap().into_iter().enumerate() {
            let of_row = probs.get(row).unwrap();
            found.extend(values(&of_row.narrow(1, 0, len).unwrap().narrow(2, 0, len).unwrap()));
            let behind = of_row.dim(2).unwrap() - len;
            let padding = values(&of_row.narrow(2, len, behind).unwrap());
            assert!(padding.iter().all(|&p| p == 0.0), "{what}: a key on padding has a probability");
        }
        assert_close(&found, &floats(&expected), 1e-5, &format!("{what}, attention {idx}"));
    }
}

#[test]
fn sequence_classifiers_agree_with_transformers() {
    for name in NAMES {
        let (model, _) = SequenceClassifier::load(&folder(name), &Device::Cpu).unwrap();
        assert_eq!(model.pooling(), Pooling::Family);
        let model = model.returning(ALL);
        let reference = reference_of(name);
        for (input, case) in reference["cases"].as_object().unwrap() {
            let what = format!("{name}, {input}");
            let tokens = examples(case);
            let output = model.forward(&tokens, Mode::Eval).unwrap();
            assert_close(&values(output.logits().unwrap()), &floats(&case["logits"]), 1e-5, &what);
            check_states(&output, &tokens.first, case, &what);
            // What is not asked for is not there, and changes nothing.
            let plain = model.clone().returning(Wanted::default()).forward(&tokens, Mode::Eval).unwrap();
            assert!(plain.hidden.is_empty() && plain.attention.is_empty());
            assert_eq!(values(plain.logits().unwrap()), values(output.logits().unwrap()));
        }
    }
}

#[test]
fn token_classifiers_agree_with_transformers() {
    for name in NAMES {
        let (_folder, files) = tagger_folder(name);
        let (model, variables) = TokenTagger::load_files(&files, &Device::Cpu).unwrap();
        assert_eq!(model.classes(), ["O", "B", "I"]);
        assert!(variables.named().iter().all(|(name, _)| !name.starts_with(POOLER)));
        for (input, case) in reference_of(name)["cases"].as_object().unwrap() {
            let output = model.forward(&words(case), Mode::Eval).unwrap();
            let what = format!("{name}, {input}");
            assert_close(&values(output.logits().unwrap()), &floats(&case["token_logits"]), 1e-5, &what);
        }
    }
}

#[test]
fn gradients_agree_with_torch() {
    for name in NAMES {
        let (model, variables) = SequenceClassifier::load(&folder(name), &Device::Cpu).unwrap();
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

#[test]
fn what_transformers_saved_is_saved_again_byte_for_byte() {
    let to = tempfile::tempdir().unwrap();
    for name in NAMES {
        let from = folder(name);
        let (model, variables) = SequenceClassifier::load(&from, &Device::Cpu).unwrap();
        let saved = to.path().join(name);
        model.save(&variables, &from.join("tokenizer.json"), &saved).unwrap();
        assert_eq!(stored(&saved), stored(&from), "{name}");
        let (written, read) = (read_json(&saved.join("config.json")), read_json(&from.join("config.json")));
        for key in ["architectures", "model_type", "id2label", "label2id", "vocab_size", "pad_token_id"] {
            assert_eq!(written[key], read[key], "{name}: {key}");
        }
        assert_eq!(written.get("problem_type"), Some(read.get("problem_type").unwrap_or(&Value::Null)), "{name}");
        let (again, _) = SequenceClassifier::load(&saved, &Device::Cpu).unwrap();
        assert_eq!(again.encoder().config(), model.encoder().config());
        assert_eq!((again.classes(), again.problem_type()), (model.classes(), model.problem_type()));

        let (_folder, files) = tagger_folder(name);
        let (model, variables) = TokenTagger::load_files(&files, &Device::Cpu).unwrap();
        model.save(&variables, &files.tokenizer, &saved).unwrap();
        assert_eq!(stored(&saved), stored(files.config.parent().unwrap()), "{name}");
    }
}

#[test]
fn padding_changes_nothing() {
    for name in NAMES {
        let (model, _) = SequenceClassifier::load(&folder(name), &Device::Cpu).unwrap();
        let case = &reference_of(name)["cases"]["paired"];
        let tokens = examples(case);
        let junk = Tensor::full(99u32, tokens.first.ids.shape(), &Device::Cpu).unwrap();
        let ids = tokens.first.mask.where_cond(&tokens.first.ids, &junk).unwrap();
        let with_junk = Tokens { first: Sequence { ids, ..tokens.first.clone() }, ..tokens.clone() };
        let logits = |tokens: &Tokens| model.forward(tokens, Mode::Eval).unwrap().logits().unwrap().clone();
        let expected = logits(&tokens);
        assert_eq!(values(&logits(&with_junk)), values(&expected), "{name}");
        for (row, len) in tokens.first.lengths().unwrap().into_iter().enumerate() {
            let part =
                |tensor: &Tensor| tensor.narrow(0, row, 1).unwrap().narrow(1, 0, len).unwrap().contiguous().unwrap();
            let first = Sequence {
                ids: part(&tokens.first.ids),
                mask: part(&tokens.first.mask),
                segments: tokens.first.segments.as_ref().map(part),
                chars: None,
                features: Vec::new(),
            };
            let alone = logits(&Tokens { first, second: None, more: Vec::new(), rows: Rows::Examples });
            let what = format!("{name}, sequence {row}");
            assert_close(&values(&alone), &values(&expected.get(row).unwrap()), 1e-5, &what);
        }
    }
}

#[test]
fn dropout_is_a_function_of_the_seed() {
    for name in NAMES {
        let (model, _) = SequenceClassifier::load(&folder(name), &Device::Cpu).unwrap();
        let tokens = examples(&reference_of(name)["cases"]["padded"]);
        let run = |mode| values(model.forward(&tokens, mode).unwrap().logits().unwrap());
        assert_eq!(run(Mode::Train { seed: 1 }), run(Mode::Train { seed: 1 }), "{name}");
        assert_ne!(run(Mode::Train { seed: 1 }), run(Mode::Train { seed: 2 }), "{name}");
        assert_ne!(run(Mode::Train { seed: 1 }), run(Mode::Eval), "{name}");
    }
}

#[test]
fn the_problem_type_is_read_or_follows_from_the_classes() {
    let load = |name: &str| SequenceClassifier::load(&folder(name), &Device::Cpu).unwrap().0;
    assert_eq!(load("roberta").problem_type(), ProblemType::MultiLabel);
    assert_eq!(load("roberta").classes(), ["no", "maybe", "yes"]);
    assert_eq!(load("xlm-roberta").problem_type(), ProblemType::Regression);
    assert_eq!(load("xlm-roberta").classes(), ["LABEL_0"]);
    assert_eq!(load("albert").problem_type(), ProblemType::SingleLabel);
    // A new head on the same encoder means something else, unless it is said.
    let new = |classes: &[&str], problem_type| {
        let classes: Vec<String> = classes.iter().map(|&name| name.into()).collect();
        let options = HeadOptions { problem_type, pooling: Pooling::Family, ..HeadOptions::default() };
        let files = ModelFiles::in_folder(&folder("roberta")).unwrap();
        SequenceClassifier::from_files(&files, &classes, 1, &Device::Cpu, &options).unwrap().0.problem_type()
    };
    assert_eq!(new(&["similarity"], None), ProblemType::Regression);
    assert_eq!(new(&["a", "b"], None), ProblemType::SingleLabel);
    assert_eq!(new(&["a", "b"], Some(ProblemType::MultiLabel)), ProblemType::MultiLabel);
}

#[test]
fn classes_without_names_are_called_as_transformers_calls_them() {
    let (to, files) = edited("electra", |_| {});
    let mut config = read_json(&files.config);
    config.as_object_mut().unwrap().retain(|key, _| key != "id2label" && key != "label2id");
    config["num_labels"] = json!(3);
    std::fs::write(&files.config, config.to_string()).unwrap();
    let (model, _) = SequenceClassifier::load(to.path(), &Device::Cpu).unwrap();
    assert_eq!(model.classes(), ["LABEL_0", "LABEL_1", "LABEL_2"]);
    // Two is what transformers takes when nothing is said; the head has three rows.
    config.as_object_mut().unwrap().remove("num_labels");
    std::fs::write(&files.config, config.to_string()).unwrap();
    let message = SequenceClassifier::load(to.path(), &Device::Cpu).unwrap_err().to_string();
    assert!(message.contains("`classifier.out_proj.bias`: expected shape [2], found [3]"), "{message}");
}

#[test]
fn a_pooler_is_loaded_where_there_is_one() {
    let classes = ["a", "b"].map(String::from);
    let pooler = |files: &ModelFiles, new_pooler, seed| {
        let options = HeadOptions { pooling: Pooling::Family, new_pooler, ..HeadOptions::default() };
        let (_, variables) = SequenceClassifier::from_files(files, &classes, seed, &Device::Cpu, &options).unwrap();
        let named = variables.named();
        let value = |end: &str| values(&named.iter().find(|(name, _)| name.ends_with(end)).unwrap().1);
        (value("pooler.dense.weight"), value("classifier.weight"))
    };
    let files = ModelFiles::in_folder(&folder("bert-classifier")).unwrap();
    let (loaded, drawn) = pooler(&files, false, 1);
    let expected: Stored =
        stored(&folder("bert-classifier")).into_iter().find(|tensor| tensor.0 == "bert.pooler.dense.weight").unwrap();
    let expected: Vec<f32> =
        expected.3.chunks_exact(4).map(|bytes| f32::from_le_bytes(bytes.try_into().unwrap())).collect();
    assert_eq!(loaded, expected);
    // The rest of the head is drawn from the seed.
    assert_eq!(drawn.len(), 32);
    assert_ne!(pooler(&files, false, 2).1, drawn);
    assert_eq!(pooler(&files, false, 2).0, loaded);
    // Anew where it is asked for, and where there is none.
    assert_ne!(pooler(&files, true, 1).0, loaded);
    let (_folder, without) = edited("bert-classifier", |tensors| tensors.retain(|tensor| !tensor.0.contains(POOLER)));
    assert_eq!(pooler(&without, false, 1).0, pooler(&files, true, 1).0);
    // A model that is whole needs it.
    let message = SequenceClassifier::load_files(&without, &Device::Cpu).unwrap_err().to_string();
    assert!(message.contains("`pooler.dense.bias`: expected shape [16], found no such tensor"), "{message}");
}

#[test]
fn every_variable_learns_through_each_output() {
    for name in NAMES {
        let (model, variables) = SequenceClassifier::load(&folder(name), &Device::Cpu).unwrap();
        let tokens = examples(&reference_of(name)["cases"]["paired"]);
        let model = model.returning(ALL);
        let output = model.forward(&tokens, Mode::Train { seed: 3 }).unwrap();
        assert_all_variables_learn(&variables, &weigh(output.logits().unwrap())).unwrap();
        // Attention probabilities have a graph: the first layer's reach the embeddings and its own queries and keys.
        let gradients = weigh(&output.attention[0]).backward().unwrap();
        let with_gradient: Vec<String> = variables
            .named()
            .into_iter()
            .filter(|(_, var)| gradients.get(var).is_some())
            .map(|(name, _)| name)
            .collect();
        for part in ["word_embeddings.weight", "position_embeddings.weight"] {
            assert!(with_gradient.iter().any(|name| name.contains(part)), "{name}: {part}");
        }
        let maps = with_gradient.iter().filter(|name| name.contains("query.") || name.contains("q_lin.")).count();
        assert_eq!(maps, 2, "{name}: weight and bias of one layer's queries, found {with_gradient:?}");
    }
}

#[test]
fn shared_layers_get_the_sum_of_the_gradients_of_their_uses() {
    // Two uses of one layer, in f64, against finite differences.
    let config = EncoderConfig {
        vocabulary: 12,
        hidden: 6,
        embedding: Some(4),
        layers: 2,
        heads: 2,
        intermediate: 8,
        max_positions: 5,
        initializer_range: 0.5,
        ..EncoderConfig::base(Family::Albert)
    };
    let variables = Variables::new(1, DType::F64, &Device::Cpu);
    let encoder = Encoder::new(&config, variables.builder()).unwrap();
    let sequence = pad(&[vec![2, 7, 3, 5], vec![4, 9]], &Device::Cpu).unwrap();
    let loss = || {
        let encoded = encoder.encode(&sequence, Mode::Eval, ALL).unwrap();
        let [first, second] = [&encoded.last, &encoded.attention[1]].map(weigh);
        (first + second).unwrap()
    };
    let value = || loss().to_scalar::<f64>().unwrap();
    let gradients = loss().backward().unwrap();
    // The backward that trainers use adds the uses up too.
    let trained = kd_core::ops::backward(&loss()).unwrap();
    for (name, var) in variables.named() {
        let [added, expected] = [&trained, &gradients].map(|gradients| gradients.get(&var).unwrap());
        kd_core::testing::assert_close(added, expected, 1e-12, 1e-12).unwrap();
        let gradient = gradients.get(&var).unwrap().flatten_all().unwrap().to_vec1::<f64>().unwrap();
        let original = var.as_tensor().copy().unwrap().flatten_all().unwrap().to_vec1::<f64>().unwrap();
        for idx in [0, original.len() / 2, original.len() - 1] {
            let at = |step: f64| {
                let mut moved = original.clone();
                moved[idx] += step;
                var.set(&Tensor::from_vec(moved, var.shape(), &Device::Cpu).unwrap()).unwrap();
                value()
            };
            let numeric = (at(1e-5) - at(-1e-5)) / 2e-5;
            at(0.0);
            let found = gradient[idx];
            let tolerance = 1e-6 * numeric.abs().max(1.0);
            assert!((found - numeric).abs() < tolerance, "{name}[{idx}]: {found}, expected {numeric}");
        }
    }
}

#[test]
fn the_first_layers_of_groups_that_share_weights() {
    // Four layers in two groups: 1 or 2 are of the first group, 4 are all, 3 cut the second.
    let files = ModelFiles::in_folder(&folder("albert")).unwrap();
    let make = |layers| {
        let options = HeadOptions { layers: Some(layers), hidden_states: true, ..HeadOptions::default() };
        TokenTagger::from_files(&files, &["a".to_string()], 1, &Device::Cpu, &options)
    };
    let case = &reference_of("albert")["cases"]["padded"];
    let expected = case["hidden"].as_array().unwrap();
    for (layers, groups) in [(1, 1), (2, 1), (4, 2)] {
        let (model, variables) = make(layers).unwrap();
        let output = model.forward(&words(case), Mode::Eval).unwrap();
        let what = format!("{layers} layers");
        assert_eq!((output.hidden.len(), model.encoder().config().groups), (layers + 1, groups), "{what}");
        assert_close(&unpadded(&output.hidden[layers], &sequence(case)), &floats(&expected[layers]), 1e-5, &what);
        // And what is saved of them is that model again.
        let to = tempfile::tempdir().unwrap();
        let saved = to.path().join("model");
        model.save(&variables, &files.tokenizer, &saved).unwrap();
        let (again, _) = TokenTagger::load(&saved, &Device::Cpu).unwrap();
        let again = again.forward(&words(case), Mode::Eval).unwrap();
        assert_eq!(values(again.logits().unwrap()), values(output.logits().unwrap()), "{what}");
    }
    let message = make(3).unwrap_err().to_string();
    assert!(message.contains("expected a multiple of 2 layers, which share their weights"), "{message}");
}

#[test]
fn a_sequence_beyond_the_table_of_positions_is_an_error() {
    for name in NAMES {
        let (model, _) = SequenceClassifier::load(&folder(name), &Device::Cpu).unwrap();
        assert_eq!(model.encoder().config().max_positions, 12, "{name}");
        let sequence = pad(&[vec![5; 13]], &Device::Cpu).unwrap();
        let message = model.encoder().forward(&sequence, Mode::Eval).unwrap_err().to_string();
        assert!(message.contains("a sequence has 13 tokens, the encoder has 12 positions"), "{name}: {message}");
    }
}

#[test]
fn an_electra_as_wide_as_its_embeddings_has_no_projection() {
    let sizes = EncoderConfig {
        vocabulary: 20,
        hidden: 8,
        embedding: Some(8),
        layers: 1,
        heads: 2,
        intermediate: 8,
        ..EncoderConfig::base(Family::Electra)
    };
    let names = |config: &EncoderConfig| -> Vec<String> {
        let variables = Variables::new(1, DType::F32, &Device::Cpu);
        Encoder::new(config, variables.builder()).unwrap();
        variables.named().into_iter().map(|(name, _)| name).filter(|name| name.contains("project")).collect()
    };
    assert!(names(&sizes).is_empty());
    let narrower = EncoderConfig { embedding: Some(4), ..sizes.clone() };
    assert_eq!(names(&narrower), ["embeddings_project.bias", "embeddings_project.weight"]);
    let variables = Variables::new(1, DType::F32, &Device::Cpu);
    let bert = EncoderConfig { family: Family::Bert, ..narrower };
    let message = Encoder::new(&bert, variables.builder()).unwrap_err().to_string();
    assert!(message.contains("bert has embeddings as wide as its hidden states, 8, found 4"), "{message}");
}

#[test]
fn packed_families_agree_with_f32() {
    use kd_core::ops::packed::Precision;
    for name in NAMES {
        let (model, _) = SequenceClassifier::load(&folder(name), &Device::Cpu).unwrap();
        let model = model.returning(ALL);
        let tokens = examples(&reference_of(name)["cases"]["paired"]);
        let expected = model.forward(&tokens, Mode::Eval).unwrap();
        for (precision, tolerance) in [(Precision::F32, 1e-5), (Precision::Bf16, 0.1), (Precision::Int8, 0.3)] {
            let packed = model.pack(precision).unwrap();
            let found = packed.forward(&tokens, Mode::Eval).unwrap();
            let what = format!("{name}, {precision:?}");
            let tensors = |output: &Output| {
                [&output.heads[..], &output.hidden, &output.attention].concat().iter().map(values).collect::<Vec<_>>()
            };
            let (found, expected) = (tensors(&found), tensors(&expected));
            assert_eq!(found.len(), expected.len(), "{what}");
            let last = expected.len() - 1;
            for (idx, (found, expected)) in found.iter().zip(&expected).enumerate() {
                // Hidden states of padding mean nothing, but are computed alike.
                assert_close(found, expected, tolerance, &format!("{what}, tensor {idx} of {last}"));
            }
            assert_eq!((packed.pooling(), packed.problem_type()), (model.pooling(), model.problem_type()));
        }
    }
}

#[test]
fn what_cannot_be_loaded_is_named() {
    let load = |name: &str| SequenceClassifier::load(Path::new(name), &Device::Cpu).unwrap_err().to_string();
    let (to, files) = edited("roberta", |_| {});
    let original = read_json(&files.config);
    let check = |key: &str, value: Value, expected: &str| {
        let mut config = original.clone();
        config[key] = value;
        std::fs::write(&files.config, config.to_string()).unwrap();
        let message = load(to.path().to_str().unwrap());
        assert!(message.contains(expected), "{message}");
    };
    check("model_type", json!("deberta"), "unsupported model_type `deberta`, expected one of `bert`, `roberta`");
    check("position_embedding_type", json!("relative_key"), "unsupported `position_embedding_type`");
    check(
        "problem_type",
        json!("ranking"),
        "unsupported `problem_type`: expected one of \"single_label_classification\"",
    );
    check("hidden_act", json!("silu"), "unsupported `hidden_act`");
    check("max_position_embeddings", json!(2), "`max_position_embeddings`: expected more than 2");
    check("architectures", json!(["RobertaForQuestionAnswering"]), "found RobertaForQuestionAnswering");
    check("architectures", json!(["RobertaForTokenClassification"]), "expected a sequence classifier, found a token");
}
