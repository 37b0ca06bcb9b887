//! The encoder against transformers, and what must hold of it.

mod reference;

use candle_core::{DType, Device, Tensor};
use kd_core::batch::{Sequence, pad};
use kd_core::model::{Mode, Student};
use kd_core::testing::assert_all_variables_learn;
use kd_core::variables::Variables;
use kd_teachers::checkpoint::{Checkpoint, Part};
use kd_teachers::config::{EncoderConfig, Family};
use kd_teachers::encoder::{Encoder, Wanted};
use kd_teachers::heads::TokenTagger;
use kd_teachers::hub::ModelFiles;
use reference::{FAMILIES, assert_close, encoder, floats, folder, sequence, tokens, unpadded, values};

fn files(family: &str) -> ModelFiles {
    ModelFiles::in_folder(&folder(family)).unwrap()
}

/// `Σ_i cos(i) x_i`: no symmetry makes its gradient zero.
fn weigh(xs: &Tensor) -> Tensor {
    let weights: Vec<f32> = (0..xs.elem_count()).map(|idx| (idx as f32).cos()).collect();
    let weights = Tensor::from_vec(weights, xs.elem_count(), &Device::Cpu).unwrap();
    (xs.flatten_all().unwrap() * weights).unwrap().sum_all().unwrap()
}

#[test]
fn hidden_states_agree_with_transformers() {
    for family in FAMILIES {
        let expected = &reference::reference()[family];
        let (encoder, _) = encoder(&files(family)).unwrap();
        let states = encoder.hidden_states(&sequence(), Mode::Eval).unwrap();
        let layers = expected["hidden"].as_array().unwrap();
        assert_eq!(states.len(), layers.len());
        for (idx, (state, layer)) in states.iter().zip(layers).enumerate() {
            assert_close(&unpadded(state, &sequence()), &floats(layer), 1e-5, &format!("{family}, state {idx}"));
        }
        let last = encoder.forward(&sequence(), Mode::Eval).unwrap();
        assert_eq!(values(&last), values(states.last().unwrap()));
    }
}

#[test]
fn a_single_token_without_segments_agrees_with_transformers() {
    for family in FAMILIES {
        let (encoder, _) = encoder(&files(family)).unwrap();
        let id = sequence().ids.to_vec2::<u32>().unwrap()[2][0];
        let hidden = encoder.forward(&pad(&[vec![id]], &Device::Cpu).unwrap(), Mode::Eval).unwrap();
        assert_close(&values(&hidden), &floats(&reference::reference()[family]["one_token"]), 1e-5, family);
    }
}

#[test]
fn gradients_agree_with_torch() {
    for family in FAMILIES {
        let (loss, variables) = if family == "bert" {
            let (tagger, variables) = TokenTagger::load(&folder(family), &Device::Cpu).unwrap();
            (weigh(tagger.forward(&tokens(), Mode::Eval).unwrap().logits().unwrap()), variables)
        } else {
            let (encoder, variables) = encoder(&files(family)).unwrap();
            let hidden = encoder.forward(&sequence(), Mode::Eval).unwrap();
            (weigh(&tokens().rows.select(&hidden).unwrap()), variables)
        };
        let gradients = loss.backward().unwrap();
        let expected = &reference::reference()[family]["gradients"];
        assert_eq!(expected.as_object().unwrap().len(), variables.named().len());
        for (name, var) in variables.named() {
            let gradient = values(gradients.get(&var).unwrap_or_else(|| panic!("{family}: {name} has no gradient")));
            let expected = expected.get(&name).unwrap_or_else(|| &expected[format!("{family}.{name}")]);
            let (sum, norm) = (expected[0].as_f64().unwrap(), expected[1].as_f64().unwrap());
            let found_sum: f64 = gradient.iter().map(|&x| f64::from(x)).sum();
            let found_norm = gradient.iter().map(|&x| f64::from(x).powi(2)).sum::<f64>().sqrt();
            // f32 sums of a few hundred products; a key's bias has no gradient but rounding.
            let tolerance = 1e-4 * norm.max(1.0);
            assert!((found_norm - norm).abs() <= tolerance, "{family}: {name}: norm {found_norm}, expected {norm}");
            assert!((found_sum - sum).abs() <= 4.0 * tolerance, "{family}: {name}: sum {found_sum}, expected {sum}");
        }
    }
}

#[test]
fn every_variable_learns_in_training() {
    for family in FAMILIES {
        let (encoder, variables) = encoder(&files(family)).unwrap();
        let loss = weigh(&encoder.forward(&sequence(), Mode::Train { seed: 3 }).unwrap());
        assert_all_variables_learn(&variables, &loss).unwrap();
    }
}

#[test]
fn padding_changes_nothing() {
    for family in FAMILIES {
        let (encoder, _) = encoder(&files(family)).unwrap();
        let padded = sequence();
        let junk = Tensor::full(99u32, padded.ids.shape(), &Device::Cpu).unwrap();
        let junk = Sequence { ids: padded.mask.where_cond(&padded.ids, &junk).unwrap(), ..padded.clone() };
        let hidden = encoder.forward(&padded, Mode::Eval).unwrap();
        let with_junk = encoder.forward(&junk, Mode::Eval).unwrap();
        assert_eq!(unpadded(&hidden, &padded), unpadded(&with_junk, &junk), "{family}");
        for (row, len) in padded.lengths().unwrap().into_iter().enumerate() {
            let part =
                |tensor: &Tensor| tensor.narrow(0, row, 1).unwrap().narrow(1, 0, len).unwrap().contiguous().unwrap();
            let alone = Sequence {
                ids: part(&padded.ids),
                mask: part(&padded.mask),
                segments: padded.segments.as_ref().map(part),
                chars: None,
                features: Vec::new(),
            };
            let alone = values(&encoder.forward(&alone, Mode::Eval).unwrap());
            assert_close(&alone, &values(&part(&hidden)), 1e-5, &format!("{family}, sequence {row}"));
        }
    }
}

#[test]
fn dropout_is_a_function_of_the_seed() {
    for family in FAMILIES {
        let (encoder, _) = encoder(&files(family)).unwrap();
        let run = |mode| values(&encoder.forward(&sequence(), mode).unwrap());
        assert_eq!(run(Mode::Train { seed: 1 }), run(Mode::Train { seed: 1 }));
        assert_ne!(run(Mode::Train { seed: 1 }), run(Mode::Train { seed: 2 }));
        assert_ne!(run(Mode::Train { seed: 1 }), run(Mode::Eval));
    }
}

#[test]
fn fewer_layers_are_the_first_ones() {
    for family in FAMILIES {
        let files = files(family);
        let config = EncoderConfig { layers: 1, ..EncoderConfig::read(&files.config).unwrap() };
        let variables = Variables::new(0, DType::F32, &Device::Cpu);
        let encoder = Encoder::new(&config, variables.builder()).unwrap();
        let checkpoint = Checkpoint::read(&files.weights, config.family).unwrap();
        checkpoint.load_into(&variables.named(), Part::Encoder, 1..2).unwrap();
        let hidden = encoder.forward(&sequence(), Mode::Eval).unwrap();
        let expected = floats(&reference::reference()[family]["hidden"][1]);
        assert_close(&unpadded(&hidden, &sequence()), &expected, 1e-5, family);
        // Without being told so, a layer is not left out.
        let message = checkpoint.load_into(&variables.named(), Part::Encoder, 0..0).unwrap_err().to_string();
        assert!(message.contains("layer.1.") && message.contains("expected no such tensor, found shape"), "{message}");
    }
}

#[test]
fn a_sequence_that_is_too_long_is_an_error() {
    let (encoder, _) = encoder(&files("bert")).unwrap();
    let long = pad(&[vec![7; 41]], &Device::Cpu).unwrap();
    let message = encoder.forward(&long, Mode::Eval).unwrap_err().to_string();
    assert!(message.contains("a sequence has 41 tokens, the encoder has 40 positions"), "{message}");
}

#[test]
fn an_unknown_id_is_an_error() {
    let (encoder, _) = encoder(&files("bert")).unwrap();
    assert!(encoder.forward(&pad(&[vec![100]], &Device::Cpu).unwrap(), Mode::Eval).is_err());
}

#[test]
fn layers_in_half_precision_keep_weights_and_gradients_in_f32() {
    for family in [Family::Bert, Family::Albert] {
        let variables = Variables::new(1, DType::F32, &Device::Cpu);
        let config = EncoderConfig {
            vocabulary: 30,
            hidden: 16,
            embedding: (family == Family::Albert).then_some(8),
            layers: 2,
            heads: 2,
            intermediate: 32,
            ..EncoderConfig::base(family)
        };
        let exact = Encoder::new(&config, variables.builder()).unwrap();
        let mixed = Encoder::new(&config, variables.builder()).unwrap().computing_in(DType::BF16);
        let sequence = pad(&[vec![2, 7, 3], vec![2, 3]], &Device::Cpu).unwrap();
        let wanted = Wanted { hidden: true, attention: true };
        let [expected, found] = [&exact, &mixed].map(|encoder| encoder.encode(&sequence, Mode::Eval, wanted).unwrap());
        for (expected, found) in expected.hidden.iter().zip(&found.hidden) {
            assert_eq!(found.dtype(), DType::F32);
            let (expected, found) = (unpadded(expected, &sequence), unpadded(found, &sequence));
            assert_close(&found, &expected, 0.05, "mixed precision");
        }
        for (expected, found) in expected.attention.iter().zip(&found.attention) {
            assert_eq!(found.dtype(), DType::F32);
            assert_close(&values(found), &values(expected), 0.01, "mixed precision, attention");
        }
        assert_ne!(values(&expected.hidden[2]), values(&found.hidden[2]));
        let last = mixed.forward(&sequence, Mode::Train { seed: 3 }).unwrap();
        let gradients = weigh(&last).backward().unwrap();
        for (name, variable) in variables.named() {
            let gradient = gradients.get(&variable).unwrap_or_else(|| panic!("`{name}` has no gradient"));
            assert_eq!(gradient.dtype(), DType::F32, "{name}");
        }
    }
}
