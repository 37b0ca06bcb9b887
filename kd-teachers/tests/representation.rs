//! The first layers of an encoder under a head for each teacher: sizes, start, folders, packed copies.

mod reference;

use std::sync::{Arc, Mutex};

use candle_core::{DType, Device, Result, Shape, Tensor};
use candle_nn::init::Init;
use candle_nn::var_builder::{SimpleBackend, VarBuilder};
use kd_core::batch::{Rows, Tokens, pad};
use kd_core::model::{Mode, Represent, Student};
use kd_core::nn::{HeadPerTeacher, HeadsOf};
use kd_core::ops::packed::Precision;
use kd_core::testing::assert_all_variables_learn;
use kd_teachers::config::EncoderConfig;
use kd_teachers::distilled;
use kd_teachers::heads::{HeadOptions, Pooling, Representation, RepresentationOptions, SequenceClassifier};
use kd_teachers::hub::ModelFiles;
use reference::{assert_close, encoder, folder, read_json, tokens, values};

/// One checkpoint of each kind of pooler; the second has one, the first has none.
const ALL: [&str; 8] = ["bert", "bert-classifier", "distilbert", "roberta", "albert", "electra", "mpnet", "xlnet"];

fn files(family: &str) -> ModelFiles {
    ModelFiles::in_folder(&folder(family)).unwrap()
}

fn options(layers: usize) -> RepresentationOptions {
    RepresentationOptions { layers: Some(layers), ..Default::default() }
}

fn set(name: &str, classes: usize, teachers: usize, gold: bool) -> HeadsOf {
    HeadsOf { name: name.to_string(), classes, teachers, gold }
}

fn names(names: &[&str]) -> Vec<String> {
    names.iter().map(|name| name.to_string()).collect()
}

/// Texts that every checkpoint can read, without segments.
fn examples() -> Tokens {
    let first = pad(&[vec![2, 7, 9, 11, 3], vec![2, 12, 3], vec![4]], &Device::Cpu).unwrap();
    Tokens { first, second: None, more: Vec::new(), rows: Rows::Examples }
}

fn represent(body: &dyn Represent) -> Vec<f32> {
    values(&body.represent(&examples(), Mode::Eval).unwrap())
}

/// Counts what is asked for, and gives one zero in every place of it.
struct Shapes(Arc<Mutex<usize>>);

impl SimpleBackend for Shapes {
    fn get(&self, shape: Shape, _: &str, _: Init, dtype: DType, device: &Device) -> Result<Tensor> {
        *self.0.lock().unwrap() += shape.elem_count();
        Tensor::zeros((), dtype, device)?.broadcast_as(shape)
    }

    fn get_unchecked(&self, name: &str, _: DType, _: &Device) -> Result<Tensor> {
        candle_core::bail!("`{name}` was asked for without its shape")
    }

    fn contains_tensor(&self, _: &str) -> bool {
        false
    }
}

#[test]
fn three_layers_of_bert_under_four_heads_have_the_paper_s_number_of_parameters() {
    // Embeddings (30522 + 512 + 2) · 768 + 2 · 768 = 23,837,184; a layer 4 · (768² + 768) + 2 · 768 · 3072 + 3072 + 768 +
    // 4 · 768 = 7,087,872; the pooler 768² + 768 = 590,592; a head without a bias 2 · 768 = 1,536.
    for (layers, heads, expected) in [(3, 4, 45_697_536), (1, 4, 31_521_792), (5, 1, 59_868_672)] {
        let count = Arc::new(Mutex::new(0));
        let vb = VarBuilder::from_backend(Box::new(Shapes(count.clone())), DType::F32, Device::Cpu);
        let body = Representation::new(&EncoderConfig::bert_base(), &options(layers), vb.clone()).unwrap();
        assert_eq!((body.width(), body.encoder().config().layers), (768, layers));
        HeadPerTeacher::new(body, vec![set("qa", 2, heads - 1, true)], false, 0.1, vb).unwrap();
        assert_eq!(*count.lock().unwrap(), expected, "{layers} layers");
    }
}

#[test]
fn the_first_layers_are_those_of_the_checkpoint() {
    for family in ALL {
        let (whole, _) = encoder(&files(family)).unwrap();
        let hidden = whole.hidden_states(&examples().first, Mode::Eval).unwrap();
        assert_eq!(hidden.len(), whole.config().layers + 1);
        for (layers, expected) in hidden.iter().enumerate().skip(1) {
            if (family, layers) == ("albert", 3) {
                // Two groups of two layers that share their weights.
                let made = Representation::from_files(&files(family), 1, &Device::Cpu, &options(layers));
                let message = made.unwrap_err().to_string();
                assert!(message.contains("expected a multiple of 2 layers"), "{message}");
                continue;
            }
            let (body, _) = Representation::from_files(&files(family), 1, &Device::Cpu, &options(layers)).unwrap();
            assert_eq!(body.encoder().config().layers, layers);
            let found = body.encoder().forward(&examples().first, Mode::Eval).unwrap();
            assert_close(&values(&found), &values(expected), 1e-5, &format!("{family}, {layers} layers"));
            let cls = RepresentationOptions { pooling: Pooling::Cls, ..options(layers) };
            let (body, _) = Representation::from_files(&files(family), 1, &Device::Cpu, &cls).unwrap();
            let first = Rows::Examples.select(expected).unwrap();
            assert_close(&represent(&body), &values(&first), 1e-5, family);
        }
    }
}

#[test]
fn the_pooler_is_the_family_s_and_from_the_checkpoint_if_it_has_one() {
    for family in ALL {
        let make = |seed, new_pooler| {
            let options = RepresentationOptions { new_pooler, ..Default::default() };
            represent(&Representation::from_files(&files(family), seed, &Device::Cpu, &options).unwrap().0)
        };
        let has_pooler = ["bert-classifier", "albert"].contains(&family);
        assert_eq!(make(1, false) == make(2, false), has_pooler, "{family}");
        assert_ne!(make(1, true), make(2, true), "{family}");
        // What a classifier of the same seed pools.
        let pooling = HeadOptions { pooling: Pooling::Family, ..Default::default() };
        let classes = names(&["A", "B"]);
        let (model, _) = SequenceClassifier::from_files(&files(family), &classes, 1, &Device::Cpu, &pooling).unwrap();
        let output = model.forward(&examples(), Mode::Eval).unwrap();
        assert_close(&make(1, false), &values(&output.pooled.unwrap()), 1e-6, family);
    }
}

#[test]
fn bert_s_pooler_by_hand() {
    let (body, variables) =
        Representation::from_files(&files("bert-classifier"), 1, &Device::Cpu, &options(1)).unwrap();
    let hidden = body.encoder().forward(&examples().first, Mode::Eval).unwrap().to_vec3::<f32>().unwrap();
    let weight = variables.tensors()["pooler.dense.weight"].to_vec2::<f32>().unwrap();
    let bias = variables.tensors()["pooler.dense.bias"].to_vec1::<f32>().unwrap();
    let of_text = |text: usize| {
        let cls = hidden[text][0].clone();
        let dot = move |row: &Vec<f32>| row.iter().zip(&cls).map(|(w, x)| w * x).sum::<f32>();
        weight.iter().zip(&bias).map(move |(row, b)| (dot(row) + b).tanh()).collect::<Vec<f32>>()
    };
    let expected: Vec<f32> = (0..3).flat_map(of_text).collect();
    assert_close(&represent(&body), &expected, 1e-6, "pooled");
}

#[test]
fn a_text_s_vector_does_not_depend_on_the_batch() {
    for family in ALL {
        let (body, _) = Representation::from_files(&files(family), 1, &Device::Cpu, &options(1)).unwrap();
        let alone: Vec<f32> = [vec![2, 7, 9, 11, 3], vec![2, 12, 3], vec![4]]
            .into_iter()
            .flat_map(|ids| {
                let tokens = Tokens { first: pad(&[ids], &Device::Cpu).unwrap(), ..examples() };
                values(&body.represent(&tokens, Mode::Eval).unwrap())
            })
            .collect();
        assert_close(&represent(&body), &alone, 1e-5, family);
    }
}

#[test]
fn every_variable_learns_under_heads() {
    for family in ALL {
        let (body, variables) = Representation::from_files(&files(family), 1, &Device::Cpu, &options(1)).unwrap();
        let student = HeadPerTeacher::new(body, vec![set("qa", 2, 2, true)], true, 0.1, variables.builder()).unwrap();
        let output = student.forward(&reference_tokens(family), Mode::Train { seed: 1 }).unwrap();
        let loss = Tensor::cat(&output.heads, 0).unwrap().exp().unwrap().sum_all().unwrap();
        assert_all_variables_learn(&variables, &loss).unwrap_or_else(|error| panic!("{family}: {error}"));
    }
}

/// Texts with segments where the family has two, so that its table of them learns.
fn reference_tokens(family: &str) -> Tokens {
    let has_two = family != "roberta";
    Tokens { first: if has_two { reference::sequence() } else { examples().first }, ..examples() }
}

#[test]
fn what_is_saved_is_loaded_and_read_by_its_own_kind_only() {
    let home = tempfile::tempdir().unwrap();
    let sets = vec![set("wikiqa", 2, 3, true), set("snli", 3, 1, false)];
    let classes = [names(&["no", "yes"]), names(&["contradiction", "neutral", "entailment"])];
    for family in ALL {
        for (pooling, bias) in [(Pooling::Family, true), (Pooling::Mean, false), (Pooling::Cls, true)] {
            let to = home.path().join(family);
            let files = files(family);
            let options = RepresentationOptions { pooling, ..options(1) };
            let (body, variables) = Representation::from_files(&files, 3, &Device::Cpu, &options).unwrap();
            let student = HeadPerTeacher::new(body, sets.clone(), bias, 0.25, variables.builder()).unwrap();
            distilled::save(&student, &classes, &variables, &files.tokenizer, &to).unwrap();
            let (loaded, loaded_classes, loaded_variables) = distilled::load(&to, &Device::Cpu).unwrap();
            assert_eq!((loaded.sets(), loaded.has_bias(), loaded.dropout()), (&sets[..], bias, 0.25));
            assert_eq!((loaded.body().pooling(), loaded_classes), (pooling, classes.to_vec()));
            assert_eq!(loaded_variables.parameter_count(), variables.parameter_count());
            for set in [0, 1] {
                for mode in [Mode::Eval, Mode::Train { seed: 5 }] {
                    let logits = |student: &HeadPerTeacher<Representation>| {
                        let output = student.for_set(set).forward(&examples(), mode).unwrap();
                        output.heads.iter().map(values).collect::<Vec<_>>()
                    };
                    assert_eq!(logits(&loaded), logits(&student), "{family} {pooling:?}");
                }
            }
            let message = SequenceClassifier::load(&to, &Device::Cpu).unwrap_err().to_string();
            assert!(message.contains("found `kd_heads`, a head for each teacher: `distilled::load` reads it"));
            // It is a checkpoint to start from, whose heads are left out.
            let from = ModelFiles::in_folder(&to).unwrap();
            let (body, _) =
                Representation::from_files(&from, 9, &Device::Cpu, &RepresentationOptions { layers: None, ..options })
                    .unwrap();
            let encode =
                |body: &Representation| values(&body.encoder().forward(&examples().first, Mode::Eval).unwrap());
            assert_eq!(encode(&body), encode(student.body()), "{family} {pooling:?}");
        }
    }
    let config = read_json(&home.path().join("bert/config.json"));
    assert_eq!((config["num_hidden_layers"].as_u64(), config["kd_pooling"].as_str()), (Some(1), Some("cls")));
    assert_eq!(config["kd_heads"]["sets"][1]["classes"][2], "entailment");
}

#[test]
fn a_packed_student_says_the_same() {
    for family in ALL {
        let (body, variables) = Representation::from_files(&files(family), 1, &Device::Cpu, &options(1)).unwrap();
        let student = HeadPerTeacher::new(body, vec![set("qa", 2, 2, true)], true, 0.1, variables.builder()).unwrap();
        let probs = |output| values(&student.probabilities(&output).unwrap());
        let expected = probs(student.forward(&examples(), Mode::Eval).unwrap());
        for (precision, tolerance) in [(Precision::F32, 1e-5), (Precision::Int8, 5e-2)] {
            let packed = student.copy_onto(student.body().pack(precision).unwrap()).unwrap();
            let output = packed.forward(&examples(), Mode::Eval).unwrap();
            assert_close(&probs(output), &expected, tolerance, family);
            let message = packed.forward(&examples(), Mode::Train { seed: 1 }).unwrap_err().to_string();
            assert!(message.contains("a packed encoder has no variables"), "{message}");
        }
    }
}

#[test]
fn what_cannot_be_done_is_named() {
    let make = |layers| Representation::from_files(&files("bert"), 1, &Device::Cpu, &options(layers)).map(|_| ());
    for layers in [0, 3] {
        let message = make(layers).unwrap_err().to_string();
        assert_eq!(message, format!("expected 1 to 2 layers, as many as the checkpoint has, found {layers}"));
    }
    let (body, variables) = Representation::from_files(&files("bert"), 1, &Device::Cpu, &options(1)).unwrap();
    let message = body.represent(&tokens(), Mode::Eval).unwrap_err().to_string();
    assert!(message.contains("represents examples, and these tokens have a row per word"), "{message}");
    let second = Some(pad(&[vec![5], vec![5], vec![5]], &Device::Cpu).unwrap());
    let message = body.represent(&Tokens { second, ..examples() }, Mode::Eval).unwrap_err().to_string();
    assert!(message.contains("reads one sequence, and these tokens have a second one"), "{message}");

    let home = tempfile::tempdir().unwrap();
    let tokenizer = files("bert").tokenizer;
    let student = HeadPerTeacher::new(body, vec![set("qa", 2, 2, true)], true, 0.1, variables.builder()).unwrap();
    let save = |classes: &[Vec<String>]| {
        distilled::save(&student, classes, &variables, &tokenizer, &home.path().join("student"))
            .unwrap_err()
            .to_string()
    };
    assert_eq!(save(&[]), "expected the classes of 1 data sets, found those of 0");
    let message = save(&[names(&["A"])]);
    assert_eq!(message, "data set `qa`: expected the names of 2 classes, found [\"A\"]");

    let message = distilled::load(&folder("bert"), &Device::Cpu).unwrap_err().to_string();
    assert!(message.contains("config.json: expected `kd_heads`, found none"), "{message}");
    let to = home.path().join("student");
    distilled::save(&student, &[names(&["A", "B"])], &variables, &tokenizer, &to).unwrap();
    let config = read_json(&to.join("config.json"));
    let load = |key: &str, value: serde_json::Value| {
        let mut config = config.clone();
        config[key] = value;
        std::fs::write(to.join("config.json"), config.to_string()).unwrap();
        distilled::load(&to, &Device::Cpu).unwrap_err().to_string()
    };
    let message = load("kd_pooling", "max".into());
    assert!(message.contains("`kd_pooling`: expected \"cls\", \"mean\" or \"family\", found \"max\""), "{message}");
    let message = load("kd_heads", serde_json::json!({"bias": true}));
    assert!(message.contains("config.json: `kd_heads`: missing field `dropout`"), "{message}");
    let more = serde_json::json!({"bias": true, "dropout": 0.1, "sets": [{"name": "qa", "classes": ["A", "B"], "teachers": 3, "gold": true}]});
    let message = load("kd_heads", more);
    assert!(message.contains("`heads.qa.teacher.2.bias`: expected shape [2], found no such tensor"), "{message}");
}
