//! Packed encoders against the same encoders in f32.

mod reference;

use candle_core::{DType, Device, Tensor};
use kd_core::batch::{Rows, Tokens};
use kd_core::model::{Frozen, Mode, Student, Teacher};
use kd_core::ops::packed::{PackedLinear, Precision, quantize_rows};
use kd_core::variables::Variables;
use kd_teachers::config::EncoderConfig;
use kd_teachers::encoder::Encoder;
use kd_teachers::heads::{HeadOptions, SequenceClassifier, TokenTagger};
use kd_teachers::hub::ModelFiles;
use kd_teachers::int8::dequantize_rows;
use reference::{FAMILIES, assert_close, encoder, folder, sequence, tokens, unpadded, values};

fn examples() -> Tokens {
    Tokens { first: sequence(), second: None, more: Vec::new(), rows: Rows::Examples }
}

/// `Σ ab / (‖a‖ ‖b‖)`.
fn cosine(a: &[f32], b: &[f32]) -> f64 {
    let dot = |a: &[f32], b: &[f32]| a.iter().zip(b).map(|(&a, &b)| f64::from(a) * f64::from(b)).sum::<f64>();
    dot(a, b) / (dot(a, a) * dot(b, b)).sqrt()
}

#[test]
fn hidden_states_agree_with_f32() {
    for family in FAMILIES {
        let (encoder, _) = encoder(&ModelFiles::in_folder(&folder(family)).unwrap()).unwrap();
        let expected = encoder.hidden_states(&sequence(), Mode::Eval).unwrap();
        // Layer norms keep values near 1, so absolute differences are relative ones.
        for (precision, tolerance, angle) in
            [(Precision::F32, 1e-5, 1e-9), (Precision::Bf16, 0.05, 1e-4), (Precision::Int8, 0.2, 1e-3)]
        {
            let packed = encoder.pack(precision).unwrap();
            let found = packed.hidden_states(&sequence(), Mode::Eval).unwrap();
            assert_eq!(found.len(), expected.len());
            for (found, expected) in found.iter().zip(&expected) {
                let (found, expected) = (unpadded(found, &sequence()), unpadded(expected, &sequence()));
                assert_close(&found, &expected, tolerance, &format!("{family}, {precision:?}"));
                let cosine = cosine(&found, &expected);
                assert!(1.0 - cosine < angle, "{family}, {precision:?}: {cosine}");
            }
            let last = packed.forward(&sequence(), Mode::Eval).unwrap();
            assert_eq!(values(&last), values(found.last().unwrap()));
            assert!(!last.track_op(), "a packed encoder has no graph");
        }
    }
}

#[test]
fn packed_models_teach_as_those_they_were_made_of() {
    let (tagger, _) = TokenTagger::load(&folder("bert"), &Device::Cpu).unwrap();
    let classes = tagger.classes().to_vec();
    let expected = values(tagger.forward(&tokens(), Mode::Eval).unwrap().logits().unwrap());
    let largest = expected.iter().fold(0f32, |largest, x| largest.max(x.abs()));
    for (precision, tolerance) in [(Precision::F32, 1e-5), (Precision::Bf16, 0.02), (Precision::Int8, 0.05)] {
        let teacher = Frozen::new(tagger.pack(precision).unwrap(), classes.clone());
        let found = values(teacher.teach(&tokens()).unwrap().logits().unwrap());
        assert_close(&found, &expected, tolerance * largest, &format!("{precision:?}"));
    }

    let variables = Variables::new(1, DType::F32, &Device::Cpu);
    let options = HeadOptions { hidden_states: true, ..HeadOptions::default() };
    let classifier = SequenceClassifier::new(tagger.encoder().config(), &classes, &variables, &options).unwrap();
    let packed = classifier.pack(Precision::Int8).unwrap();
    let (expected, found) =
        [&classifier as &dyn Student, &packed].map(|model| model.forward(&examples(), Mode::Eval).unwrap()).into();
    assert_eq!(found.hidden.len(), expected.hidden.len());
    assert_close(&values(found.pooled.as_ref().unwrap()), &values(expected.pooled.as_ref().unwrap()), 0.05, "pooled");
    assert_close(&values(found.logits().unwrap()), &values(expected.logits().unwrap()), 0.01, "logits");
    let message = packed.forward(&examples(), Mode::Train { seed: 1 }).unwrap_err().to_string();
    assert!(message.contains("no variables"), "{message}");
}

#[test]
fn what_is_packed_stays_when_training_goes_on() {
    let config = EncoderConfig {
        vocabulary: 50,
        hidden: 16,
        layers: 1,
        heads: 2,
        intermediate: 32,
        ..EncoderConfig::bert_base()
    };
    let variables = Variables::new(1, DType::F32, &Device::Cpu);
    let encoder = Encoder::new(&config, variables.builder()).unwrap();
    let packed = encoder.pack(Precision::F32).unwrap();
    let sequence = kd_core::batch::pad(&[vec![2, 7, 3], vec![2, 3]], &Device::Cpu).unwrap();
    let before = values(&packed.forward(&sequence, Mode::Eval).unwrap());
    for (_, variable) in variables.named() {
        variable.set(&(variable.as_tensor() + 1.0).unwrap()).unwrap();
    }
    assert_eq!(values(&packed.forward(&sequence, Mode::Eval).unwrap()), before);
}

#[test]
fn stored_multiples_are_the_packed_ones() {
    // What a checkpoint in int8 is read as, is rounded to the same multiples again.
    let weight: Vec<f32> = (0..64 * 96).map(|idx| ((idx * idx) as f32).sin() * (1.0 + (idx % 7) as f32)).collect();
    let (multiples, scales) = quantize_rows(&weight, 96);
    let read = dequantize_rows(&multiples, &scales, 96);
    assert_eq!(quantize_rows(&read, 96).0, multiples);
    let read = Tensor::from_vec(read, (64, 96), &Device::Cpu).unwrap();
    let x = Tensor::from_vec(weight[..96 * 3].to_vec(), (3, 96), &Device::Cpu).unwrap();
    let packed = PackedLinear::new(&read, None, Precision::Int8).unwrap().forward(&x).unwrap();
    let direct = PackedLinear::from_quantized(&multiples, &scales, None).unwrap().forward(&x).unwrap();
    assert_close(&values(&packed), &values(&direct), 1e-4, "products");
}
