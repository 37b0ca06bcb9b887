//! What every student must do: all of it learns, padding changes nothing, eight sentences are learned by heart.

mod fixture;

use candle_core::{Device, Tensor};
use fixture::{KINDS, all_words, batch, description, lookup, loss, student, train};
use kd_core::batch::{Rows, Tokens};
use kd_core::model::Mode;
use kd_students::lookup::Kind;
use kd_students::tagger::decode;

#[test]
fn every_variable_gets_a_gradient() {
    for kind in KINDS {
        let description = description(kind);
        let (student, variables) = student(&description, 3);
        let (tokens, labels) = batch(&description);
        for mode in [Mode::Train { seed: 1 }, Mode::Eval] {
            let output = student.forward(&tokens, mode).unwrap();
            let grads = loss(&output, &tokens, &labels).backward().unwrap();
            for (name, var) in variables.named() {
                let grad = grads.get(&var).unwrap_or_else(|| panic!("{kind}: `{name}` has no gradient"));
                let values = grad.flatten_all().unwrap().to_vec1::<f32>().unwrap();
                assert!(values.iter().all(|value| value.is_finite()), "{kind}: the gradient of `{name}` is not finite");
                assert!(values.iter().any(|&value| value != 0.0), "{kind}: the gradient of `{name}` is zero");
            }
        }
    }
}

#[test]
fn padding_does_not_change_logits() {
    for kind in KINDS {
        let description = description(kind);
        let (student, _) = student(&description, 3);
        let lookup = lookup(&description);
        let logits = |sentences: &[Vec<String>]| {
            let tokens = lookup.tokens(sentences, description.student.kind(), &Device::Cpu).unwrap();
            student.forward(&tokens, Mode::Eval).unwrap().logits().unwrap().to_vec2::<f32>().unwrap()
        };
        let together = logits(&all_words());
        let alone: Vec<Vec<f32>> = all_words().iter().flat_map(|words| logits(std::slice::from_ref(words))).collect();
        // More words and longer ones than any sentence has.
        let long: Vec<String> = (0..25).map(|length| "Lovelace".repeat(1 + length % 4)).collect();
        let mut padded = logits(&[all_words(), vec![long]].concat());
        padded.truncate(together.len());
        for other in [&alone, &padded] {
            assert_eq!(other.len(), together.len());
            for (row, (a, b)) in together.iter().zip(other).enumerate() {
                let far = a.iter().zip(b).any(|(a, b)| (a - b).abs() > 1e-6 + 1e-5 * b.abs());
                assert!(!far, "{kind}, row {row}: {a:?} {b:?}");
            }
        }
    }
}

#[test]
fn eight_sentences_are_learned_by_heart() {
    for kind in KINDS {
        let description = description(kind);
        let (student, variables) = student(&description, 5);
        let (tokens, labels) = batch(&description);
        let last = train(&*student, &variables, &tokens, &labels, 120);
        let output = student.forward(&tokens, Mode::Eval).unwrap();
        let found = decode(&output, &tokens.rows_per_example().unwrap()).unwrap();
        assert_eq!(found, labels.to_vec1::<u32>().unwrap(), "{kind}: the last loss was {last}");
    }
}

#[test]
fn the_same_seed_gives_the_same_bytes() {
    for kind in KINDS {
        let description = description(kind);
        let (tokens, labels) = batch(&description);
        let trained = |seed| {
            let (student, variables) = student(&description, seed);
            train(&*student, &variables, &tokens, &labels, 3);
            student.forward(&tokens, Mode::Eval).unwrap().logits().unwrap().to_vec2::<f32>().unwrap()
        };
        assert_eq!(trained(1), trained(1), "{kind}");
        assert_ne!(trained(1), trained(2), "{kind}");
    }
}

#[test]
fn dropout_follows_the_mode() {
    let description = description("softmax");
    let (student, _) = student(&description, 5);
    let (tokens, _) = batch(&description);
    let logits = |mode| student.forward(&tokens, mode).unwrap().logits().unwrap().to_vec2::<f32>().unwrap();
    assert_eq!(logits(Mode::Train { seed: 1 }), logits(Mode::Train { seed: 1 }));
    assert_ne!(logits(Mode::Train { seed: 1 }), logits(Mode::Train { seed: 2 }));
    assert_ne!(logits(Mode::Train { seed: 1 }), logits(Mode::Eval));
}

#[test]
fn tokens_of_another_kind_are_refused() {
    let message = |kind: &str, tokens: &Tokens| {
        student(&description(kind), 0).0.forward(tokens, Mode::Eval).unwrap_err().to_string()
    };
    let (words, examples) = (batch(&description("crf")).0, batch(&description("classifier")).0);
    assert!(message("crf", &examples).contains("a tagger labels words"));
    assert!(message("classifier", &words).contains("a classifier labels examples"));
    let mut bare = words;
    bare.first.chars = None;
    assert!(message("crf", &bare).contains("the tokens have no characters"));
    let mut outside = examples;
    outside.first.ids = Tensor::full(33u32, outside.first.ids.shape(), &Device::Cpu).unwrap();
    assert!(message("classifier", &outside).contains("id 33 is outside a table of 33 rows"));
}

#[test]
fn only_the_given_rows_get_a_label() {
    let description = description("softmax");
    let (student, _) = student(&description, 5);
    let mut tokens = lookup(&description).tokens(&all_words(), Kind::Words, &Device::Cpu).unwrap();
    let all = student.forward(&tokens, Mode::Eval).unwrap().logits().unwrap().to_vec2::<f32>().unwrap();
    let Rows::Words { index, .. } = &tokens.rows else { panic!("expected words") };
    let last = index.narrow(0, index.dim(0).unwrap() - 1, 1).unwrap();
    tokens.rows = Rows::Words { index: last, per_example: vec![0, 0, 0, 0, 0, 0, 0, 1] };
    let one = student.forward(&tokens, Mode::Eval).unwrap().logits().unwrap().to_vec2::<f32>().unwrap();
    assert_eq!(one.len(), 1);
    for (a, b) in one[0].iter().zip(&all[all.len() - 1]) {
        assert!((a - b).abs() < 1e-6, "{one:?}");
    }
}
