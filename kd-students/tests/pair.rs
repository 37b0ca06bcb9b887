//! The encoder of pairs: its sizes, its pooling by hand, and that padding changes nothing.

use std::sync::{Arc, Mutex};

use candle_core::{DType, Device, Result, Shape, Tensor};
use candle_nn::init::Init;
use candle_nn::var_builder::{SimpleBackend, VarBuilder};
use kd_core::batch::{Rows, Tokens, pad};
use kd_core::model::{Mode, Represent, Student};
use kd_core::nn::{BiLstm, HeadPerTeacher, HeadsOf};
use kd_core::ops::packed::Precision;
use kd_core::testing::{assert_all_variables_learn, assert_close, device};
use kd_core::variables::Variables;
use kd_students::bundle::{Bundle, BundleOptions, PairBundle, PairDescription, save_pairs};
use kd_students::pair::{Combination, PairEncoder, PairEncoderConfig, PairPooling};

const POOLINGS: [PairPooling; 2] = [PairPooling::Max, PairPooling::LastStates];
const COMBINATIONS: [Combination; 2] = [Combination::Concat, Combination::ConcatDifferenceProduct];

fn small(pooling: PairPooling, combination: Combination, shared: bool) -> PairEncoderConfig {
    PairEncoderConfig {
        word_width: 5,
        hidden: 3,
        shared,
        pooling,
        combination,
        dropout: 0.25,
        ..PairEncoderConfig::new(12)
    }
}

fn encoder(config: &PairEncoderConfig) -> (PairEncoder, Variables) {
    let variables = Variables::new(3, DType::F32, device());
    (PairEncoder::new(config, variables.builder()).unwrap(), variables)
}

fn tokens(pairs: &[(&[u32], &[u32])]) -> Tokens {
    let text = |ids: Vec<Vec<u32>>| pad(&ids, device()).unwrap();
    let first = text(pairs.iter().map(|pair| pair.0.to_vec()).collect());
    let second = text(pairs.iter().map(|pair| pair.1.to_vec()).collect());
    Tokens { first, second: Some(second), more: Vec::new(), rows: Rows::Examples }
}

fn every_config() -> impl Iterator<Item = PairEncoderConfig> {
    POOLINGS.into_iter().flat_map(|pooling| {
        COMBINATIONS.into_iter().flat_map(move |combination| {
            [false, true].into_iter().map(move |shared| small(pooling, combination, shared))
        })
    })
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

    /// So that no row of the table is set.
    fn contains_tensor(&self, _: &str) -> bool {
        true
    }
}

#[test]
fn the_sizes_of_the_paper_have_its_number_of_parameters() {
    // A BiLSTM: layer 0 has 2 · (1024 · (300 + 256) + 2 · 1024) values, layer 1 2 · (1024 · (512 + 256) + 2 · 1024), together
    // 2,719,744. The table has 150,000 · 300 = 45,000,000, and a head without a bias 1024 · 2.
    for (heads, shared, expected) in
        [(2, false, 50_443_584), (4, false, 50_447_680), (4, true, 45_000_000 + 2_719_744 + 4 * 2048)]
    {
        let count = Arc::new(Mutex::new(0));
        let vb = VarBuilder::from_backend(Box::new(Shapes(count.clone())), DType::F32, Device::Cpu);
        let config = PairEncoderConfig { shared, ..PairEncoderConfig::new(150_000) };
        let body = PairEncoder::new(&config, vb.clone()).unwrap();
        let set = HeadsOf { name: "qa".into(), classes: 2, teachers: heads - 1, gold: true };
        HeadPerTeacher::new(body, vec![set], false, 0.1, vb).unwrap();
        assert_eq!(*count.lock().unwrap(), expected, "{heads} heads, shared {shared}");
    }
}

#[test]
fn a_pair_is_pooled_and_combined_by_hand() {
    let texts: [(&[u32], &[u32]); 2] = [(&[4, 5, 6], &[7]), (&[8], &[9, 10])];
    for config in every_config() {
        let (encoder, variables) = encoder(&config);
        let found = encoder.represent(&tokens(&texts), Mode::Eval).unwrap().to_vec2::<f32>().unwrap();
        let table = variables.tensors()["words.weight"].to_vec2::<f32>().unwrap();
        // Each text alone, without padding, pooled in a loop.
        let vector = |name: &str, ids: &[u32]| -> Vec<f32> {
            let name = if config.shared { "both" } else { name };
            let lstm = BiLstm::new(5, 3, 2, variables.builder().pp(name)).unwrap();
            let rows: Vec<Vec<f32>> = ids.iter().map(|&id| table[id as usize].clone()).collect();
            let xs = Tensor::new(vec![rows], device()).unwrap();
            let states = lstm.forward(&xs, &[ids.len()]).unwrap().to_vec3::<f32>().unwrap().remove(0);
            match config.pooling {
                PairPooling::Max => {
                    (0..6).map(|idx| states.iter().map(|state| state[idx]).fold(f32::MIN, f32::max)).collect()
                }
                PairPooling::LastStates => [&states[ids.len() - 1][..3], &states[0][3..]].concat(),
            }
        };
        assert_eq!(encoder.width(), found[0].len());
        for (found, (first, second)) in found.iter().zip(texts) {
            let (u, v) = (vector("first", first), vector("second", second));
            let mut expected = [u.clone(), v.clone()].concat();
            if config.combination == Combination::ConcatDifferenceProduct {
                expected.extend(u.iter().zip(&v).map(|(u, v)| (u - v).abs()));
                expected.extend(u.iter().zip(&v).map(|(u, v)| u * v));
            }
            let tensor = |values: Vec<f32>| Tensor::new(values, device()).unwrap();
            assert_close(&tensor(found.clone()), &tensor(expected), 1e-6, 1e-5)
                .unwrap_or_else(|error| panic!("{config:?}: {error}"));
        }
    }
}

#[test]
fn padding_and_the_rest_of_the_batch_change_nothing() {
    let long: Vec<u32> = (0..25).map(|idx| 2 + idx % 10).collect();
    for config in every_config() {
        let (encoder, _) = encoder(&config);
        let rows = |pairs: &[(&[u32], &[u32])]| encoder.represent(&tokens(pairs), Mode::Eval).unwrap();
        let texts: [(&[u32], &[u32]); 2] = [(&[4, 5, 6], &[7]), (&[8], &[9, 10])];
        let together = rows(&texts);
        let alone = Tensor::cat(&[rows(&texts[..1]), rows(&texts[1..])], 0).unwrap();
        assert_close(&together, &alone, 1e-6, 1e-5).unwrap();
        let padded = rows(&[texts[0], texts[1], (&long, &long)]).narrow(0, 0, 2).unwrap();
        assert_close(&padded, &together, 1e-6, 1e-5).unwrap();
        // What stands on padding is not read.
        let mut other = tokens(&texts);
        let ids = Tensor::new(&[[4u32, 5, 6], [8, 3, 11]], device()).unwrap();
        other.first.ids = ids;
        assert_close(&encoder.represent(&other, Mode::Eval).unwrap(), &together, 0.0, 0.0).unwrap();
    }
}

#[test]
fn every_variable_learns_under_heads_and_all_heads_read_one_dropout() {
    for config in every_config() {
        let (encoder, variables) = encoder(&config);
        let set = HeadsOf { name: "qa".into(), classes: 2, teachers: 2, gold: true };
        let student = HeadPerTeacher::new(encoder, vec![set], true, 0.5, variables.builder()).unwrap();
        let tokens = tokens(&[(&[4, 5, 6], &[7]), (&[8], &[9, 10])]);
        for mode in [Mode::Eval, Mode::Train { seed: 4 }] {
            let output = student.forward(&tokens, mode).unwrap();
            let loss = Tensor::cat(&output.heads, 0).unwrap().sqr().unwrap().sum_all().unwrap();
            assert_all_variables_learn(&variables, &loss).unwrap_or_else(|error| panic!("{config:?}: {error}"));
        }
        let heads = |seed| Tensor::cat(&student.forward(&tokens, Mode::Train { seed }).unwrap().heads, 0).unwrap();
        assert_close(&heads(4), &heads(4), 0.0, 0.0).unwrap();
        assert!(assert_close(&heads(4), &heads(5), 1e-6, 0.0).is_err());
    }
}

#[test]
fn a_packed_copy_says_the_same_and_stays_as_it_is() {
    for config in every_config() {
        let (encoder, variables) = encoder(&config);
        let set = HeadsOf { name: "qa".into(), classes: 2, teachers: 2, gold: true };
        let student = HeadPerTeacher::new(encoder, vec![set], true, 0.5, variables.builder()).unwrap();
        let tokens = tokens(&[(&[4, 5, 6], &[7]), (&[8], &[9, 10])]);
        let probs = |student: &HeadPerTeacher<PairEncoder>| {
            student.probabilities(&student.forward(&tokens, Mode::Eval).unwrap()).unwrap()
        };
        let before = probs(&student);
        let packed = student.copy_onto(student.body().pack(Precision::F32).unwrap()).unwrap();
        assert_close(&probs(&packed), &before, 1e-6, 1e-5).unwrap();
        for (_, var) in variables.named() {
            var.set(&var.as_tensor().ones_like().unwrap()).unwrap();
        }
        assert_close(&probs(&packed), &before, 1e-6, 1e-5).unwrap();
        assert!(assert_close(&probs(&student), &before, 1e-3, 0.0).is_err());
        let rounded = student.body().pack(Precision::Bf16).unwrap();
        assert_eq!(rounded.represent(&tokens, Mode::Eval).unwrap().dims(), [2, config.width()]);
    }
}

fn words(text: &str) -> Vec<String> {
    text.split(' ').map(String::from).collect()
}

#[test]
fn a_saved_student_of_pairs_answers_as_before() {
    let home = tempfile::tempdir().unwrap();
    let dir = home.path().join("student");
    let list = words("who wrote it ada the engine is red blue");
    let sets = vec![
        HeadsOf { name: "qa".into(), classes: 2, teachers: 2, gold: true },
        HeadsOf { name: "nli".into(), classes: 3, teachers: 1, gold: false },
    ];
    let pair = |(first, second): (&str, &str)| (words(first), words(second));
    let pairs = [("who wrote it", "Ada wrote it"), ("is it red", "the engine is blue or red")].map(pair);
    for config in every_config() {
        let encoder = PairEncoderConfig { words: list.len() + 2, ..config };
        let classes = vec![words("no yes"), words("a b c")];
        let (sets, words, lower_case) = (sets.clone(), list.clone(), true);
        let description = PairDescription { encoder, sets, bias: true, dropout: 0.3, classes, words, lower_case };
        let variables = Variables::new(8, DType::F32, device());
        let body = PairEncoder::new(&description.encoder, variables.builder()).unwrap();
        let student = HeadPerTeacher::new(body, description.sets.clone(), true, 0.3, variables.builder()).unwrap();
        // The second save replaces the first.
        for options in [BundleOptions { half_precision: true }, BundleOptions::default()] {
            assert!(save_pairs(&dir, &description, &variables, options).unwrap() > 1000);
        }
        let bundle = PairBundle::load(&dir, device(), Precision::F32).unwrap();
        assert_eq!(bundle.description(), &description);
        for (set, classes) in [(0, 2), (1, 3)] {
            let found = bundle.probabilities(set, &pairs).unwrap();
            assert_eq!((found.len(), found[0].len()), (2, classes));
            let tokens = bundle.lookup().pairs(&pairs, device()).unwrap();
            let expected = student.for_set(set).forward(&tokens, Mode::Eval).unwrap();
            let expected = student.probabilities(&expected).unwrap();
            assert_close(&Tensor::new(found, device()).unwrap(), &expected, 1e-6, 1e-5).unwrap();
        }
        assert!(bundle.probabilities(2, &pairs).unwrap_err().to_string().contains("0 (qa), 1 (nli), found task 2"));
    }
    let other = Bundle::load(&dir, device()).unwrap_err().to_string();
    assert!(other.contains("config.json: unknown variant `pair`"), "{other}");
}

#[test]
fn a_student_of_pairs_that_does_not_fit_is_not_saved() {
    let home = tempfile::tempdir().unwrap();
    let dir = home.path().join("student");
    let encoder = small(PairPooling::Max, Combination::Concat, false);
    let list: Vec<String> = (0..10).map(|idx| format!("word{idx}")).collect();
    let sets = vec![HeadsOf { name: "qa".into(), classes: 2, teachers: 1, gold: true }];
    let classes = vec![words("no yes")];
    let fitting = PairDescription { encoder, sets, bias: true, dropout: 0.0, classes, words: list, lower_case: false };
    let variables = Variables::new(8, DType::F32, device());
    let body = PairEncoder::new(&fitting.encoder, variables.builder()).unwrap();
    HeadPerTeacher::new(body, fitting.sets.clone(), true, 0.0, variables.builder()).unwrap();
    let check = |break_it: fn(&mut PairDescription), expected: &str| {
        let mut description = fitting.clone();
        break_it(&mut description);
        let error = save_pairs(&dir, &description, &variables, BundleOptions::default()).unwrap_err().to_string();
        assert!(error.contains(expected), "{error}");
        assert!(!dir.exists());
    };
    check(|d| d.classes.clear(), "classes: expected those of 1 data sets, found 0");
    check(|d| d.classes[0].truncate(1), "classes: expected 2 names for data set `qa`, found [\"no\"]");
    check(|d| d.words.truncate(9), "words: expected 10 entries for 12 rows with padding and unknown, found 9");
    check(|d| d.sets[0].teachers = 2, "`heads.qa.teacher.1.weight` is missing, expected shape [2, 12]");
    check(|d| d.bias = false, "`heads.qa.gold.bias` belongs to no variable");
    save_pairs(&dir, &fitting, &variables, BundleOptions::default()).unwrap();
}

#[test]
fn words_start_normal_and_take_pretrained_vectors() {
    let config = PairEncoderConfig { word_width: 100, hidden: 1, ..PairEncoderConfig::new(402) };
    let (encoder, variables) = encoder(&config);
    let table = || variables.tensors()["words.weight"].to_vec2::<f32>().unwrap();
    let start = table();
    assert_eq!(start[..2].concat(), [0.0; 200]);
    let values = start[2..].concat();
    let variance = values.iter().map(|x| f64::from(*x).powi(2)).sum::<f64>() / 40_000.0;
    // 1 / 100, within four standard errors of a variance of 40,000 values: 4 · 0.01 · √(2 / 40,000).
    assert!((variance - 0.01).abs() < 2.9e-4, "{variance}");
    encoder.set_word_vectors(&[(4, vec![7.0; 100])]).unwrap();
    assert_eq!((&table()[4], &table()[5]), (&vec![7.0; 100], &start[5]));
    let message = encoder.set_word_vectors(&[(402, vec![7.0; 100])]).unwrap_err().to_string();
    assert!(message.contains("row 402: expected a row in 1..402"), "{message}");
}

#[test]
fn what_cannot_be_read_is_named() {
    let (encoder, _) = encoder(&small(PairPooling::Max, Combination::Concat, false));
    let message = |tokens: &Tokens| encoder.represent(tokens, Mode::Eval).unwrap_err().to_string();
    let pair = tokens(&[(&[4], &[7])]);
    let single = Tokens { second: None, ..pair.clone() };
    assert!(message(&single).contains("reads two texts apart, the tokens have no second one"));
    let empty = tokens(&[(&[4], &[7]), (&[5], &[])]);
    assert!(message(&empty).contains("the second text of example 1 of the batch has no words"));
    let index = Tensor::new(&[0u32], device()).unwrap();
    let words = Tokens { rows: Rows::Words { index, per_example: vec![1] }, ..pair };
    assert!(message(&words).contains("represents examples"));
}

#[test]
fn a_config_has_the_documented_json_and_ranges() {
    let config = PairEncoderConfig::new(10);
    let json = serde_json::to_string(&config).unwrap();
    let expected = r#"{"words":10,"word_width":300,"hidden":256,"layers":2,"shared":false,"pooling":"max","combination":"concat","dropout":0.0}"#;
    assert_eq!(json, expected);
    assert_eq!(serde_json::from_str::<PairEncoderConfig>(&json).unwrap(), config);
    type Break = fn(&mut PairEncoderConfig);
    let fields: [(&str, Break); 5] = [
        ("words: expected at least 2, found 1", |c| c.words = 1),
        ("word_width: expected at least 1, found 0", |c| c.word_width = 0),
        ("hidden: expected at least 1, found 0", |c| c.hidden = 0),
        ("layers: expected at least 1, found 0", |c| c.layers = 0),
        ("dropout: expected a number in [0, 1), found 1", |c| c.dropout = 1.0),
    ];
    for (expected, break_it) in fields {
        let mut config = config.clone();
        break_it(&mut config);
        let variables = Variables::new(0, DType::F32, device());
        assert_eq!(PairEncoder::new(&config, variables.builder()).unwrap_err().to_string(), expected);
    }
}
