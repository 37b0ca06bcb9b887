use candle_core::DType;
use kd_core::testing::{assert_close, random};

use super::*;
use crate::blocks::Dim;
use crate::blocks::checks::{Given, LEN, built, check, refused, run_values, run_with};
use crate::blocks::reference::{case, tensor};

fn text() -> [Given; 1] {
    [Given::text(LEN, 6, &[5, 1, 7, 0])]
}

fn attention(causal: Option<bool>) -> MultiHeadAttentionConfig {
    MultiHeadAttentionConfig { n_head: 3, causal, ..Default::default() }
}

fn transformer(causal: Option<bool>) -> TransformerConfig {
    TransformerConfig { attention_conf: attention(causal), n_layer: 2, ..Default::default() }
}

#[test]
fn shapes_padding_and_variables() {
    check(&MlpConfig::default(), &text());
    for causal in [None, Some(true)] {
        check(&attention(causal), &text());
        check(&MultiHeadAttentionConfig { scale: false, ..attention(causal) }, &text());
        check(&transformer(causal), &text());
    }
}

#[test]
fn values_are_those_of_pytorch() {
    for (name, causal) in [("multi_head_attention", false), ("multi_head_attention_causal", true)] {
        let case = case(name);
        let mask = tensor(&case.inputs["mask"]).to_dtype(DType::U8).unwrap();
        let names = ["c_attn.weight", "c_attn.bias", "c_proj.weight", "c_proj.bias"];
        let weights = names.map(|name| (name, tensor(&case.inputs[name])));
        let config = MultiHeadAttentionConfig { n_head: case.parameter("heads"), ..attention(Some(causal)) };
        let inputs = [Value::masked(tensor(&case.inputs["x"]), Some(mask))];
        let y = run_with(&config, &inputs, &weights).unwrap().zeroed().unwrap();
        assert_close(&y, &tensor(&case.outputs["y"]), 1e-12, 1e-12).unwrap_or_else(|error| panic!("{name}: {error}"));
    }
    let of_layer = case("transformer");
    let mask = tensor(&of_layer.inputs["mask"]).to_dtype(DType::U8).unwrap();
    let weights: Vec<(&str, Tensor)> =
        of_layer.inputs.iter().map(|(name, array)| (name.as_str(), tensor(array))).collect();
    let config = TransformerConfig { n_layer: 1, ..transformer(None) };
    let inputs = [Value::masked(tensor(&of_layer.inputs["x"]), Some(mask))];
    let y = run_with(&config, &inputs, &weights).unwrap().zeroed().unwrap();
    assert_close(&y, &tensor(&of_layer.outputs["y"]), 1e-12, 1e-12).unwrap();
    let case = case("mlp");
    let names = ["c_fc.weight", "c_fc.bias", "c_proj.weight", "c_proj.bias"];
    let weights = names.map(|name| (name, tensor(&case.inputs[name])));
    let y = run_with(&MlpConfig::default(), &[Value::new(tensor(&case.inputs["x"]))], &weights).unwrap().tensor;
    assert_close(&y, &tensor(&case.outputs["y"]), 1e-12, 1e-12).unwrap();
}

#[test]
fn a_word_sees_later_ones_unless_it_is_causal() {
    let x = random(1, (1, 4, 6)).unwrap();
    let other = Tensor::cat(&[x.narrow(1, 0, 3).unwrap(), random(9, (1, 1, 6)).unwrap()], 1).unwrap();
    for (causal, legacy_padding, sees) in
        [(None, false, true), (Some(true), false, false), (None, true, false), (Some(false), true, true)]
    {
        let site = Site { legacy_padding, ..Default::default() };
        let of = |x: &Tensor| {
            let y = run_values(&transformer(causal), &[Value::new(x.clone())], &site).unwrap().tensor;
            y.narrow(1, 0, 3).unwrap()
        };
        assert_eq!(
            assert_close(&of(&x), &of(&other), 1e-12, 0.0).is_err(),
            sees,
            "{causal:?}, legacy {legacy_padding}"
        );
    }
}

#[test]
fn dropout_is_that_of_the_seed_and_of_training() {
    let shapes = [Shape::sequence(Dim::Fixed(4), 6)];
    let (block, _) = built(&transformer(None), &shapes, &Site::default());
    let x = [Value::new(random(1, (2, 4, 6)).unwrap())];
    let of = |mode| block.forward(&x, mode).unwrap().tensor;
    let same = |a: &Tensor, b: &Tensor| assert_close(a, b, 0.0, 0.0).is_ok();
    assert!(same(&of(Mode::Eval), &of(Mode::Eval)));
    assert!(same(&of(Mode::Train { seed: 1 }), &of(Mode::Train { seed: 1 })));
    assert!(!same(&of(Mode::Train { seed: 1 }), &of(Mode::Train { seed: 2 })));
    assert!(!same(&of(Mode::Train { seed: 1 }), &of(Mode::Eval)));
}

#[test]
fn what_does_not_fit_is_named() {
    let text = [Shape::sequence(LEN, 6)];
    let heads = TransformerConfig::default();
    assert_eq!(
        refused(&heads, &text),
        "attention_conf.n_head: expected a number that divides the width of 6, found 12"
    );
    let none = TransformerConfig { n_layer: 0, ..transformer(None) };
    assert_eq!(refused(&none, &text), "n_layer: expected at least 1, found 0");
    let other = TransformerConfig { mlp: "Linear".to_string(), ..transformer(None) };
    assert_eq!(refused(&other, &text), "mlp: expected `MLP`, found `Linear`");
    let dropped = TransformerConfig { mlp_conf: MlpConfig { dropout: 1.0 }, ..transformer(None) };
    assert_eq!(refused(&dropped, &text), "mlp_conf.dropout: expected a number in [0, 1), found 1");
}
