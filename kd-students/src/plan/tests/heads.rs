//! What a network gives to the rows of each kind, a block from outside, and padding.

use super::*;

/// A tagger of words with a CRF, a span pointer, or a column of ids that nothing embeds.
fn tagger(more: &Json) -> Json {
    let mut list = vec![json!({"layer": "Embedding", "conf": {"word": {"cols": ["w"], "dim": 4}}})];
    list.extend(more.as_array().unwrap().iter().cloned());
    Json::Array(list)
}

fn of_words() -> Inputs {
    Inputs {
        branches: vec![branch("words", &["w"])],
        targets: vec![Target { name: "tag".to_string(), classes: Some(3) }],
        ..Inputs::default()
    }
}

fn forward(architecture: &Json, rows: Rows) -> candle_core::Result<Output> {
    let plan = Plan::parse(architecture, &of_words(), &[]).unwrap();
    let variables = Variables::new(3, DType::F64, &Device::Cpu);
    let network = plan.build(&[("word".to_string(), 20)].into(), variables.builder()).unwrap();
    let first = pad(&[vec![3, 4, 5], vec![6]], &Device::Cpu).unwrap();
    network.forward(&Tokens { first, second: None, more: Vec::new(), rows }, Mode::Eval)
}

fn words() -> Rows {
    Rows::Words { index: Tensor::new(&[0u32, 1, 2, 3], &Device::Cpu).unwrap(), per_example: vec![3, 1] }
}

#[test]
fn a_crf_gives_emissions_of_rows_and_transitions() {
    let architecture = tagger(&json!([
        {"layer_id": "tags", "layer": "Linear", "conf": {"hidden_dim": -1, "activation": null}, "inputs": ["words"]},
        {"layer_id": "crf", "layer": "CRF", "conf": {}, "inputs": ["tags"], "output_layer_flag": true},
    ]));
    let output = forward(&architecture, words()).unwrap();
    assert_eq!(output.logits().unwrap().dims(), [4, 3]);
    assert_eq!(output.transitions.unwrap().dims(), [5, 3]);
    let message = forward(&architecture, Rows::Examples).unwrap_err().to_string();
    assert!(message.contains("expected (batch, classes) of rows of examples, found [2, 3, 3]"), "{message}");
    let mut second = architecture;
    second[1]["output_layer_flag"] = json!(true);
    let message = Plan::parse(&second, &of_words(), &[]).unwrap_err().to_string();
    assert_eq!(message, "architecture[2].output_layer_flag: expected a CRF as the first output only");
}

#[test]
fn two_pointers_say_that_padding_is_nowhere() {
    let architecture = tagger(&json!([
        {"layer_id": "start", "layer": "Linear", "conf": {"hidden_dim": 1, "activation": null}, "inputs": ["words"],
         "output_layer_flag": true},
        {"layer_id": "end", "layer": "Linear", "conf": {"hidden_dim": 1, "activation": null, "keep_dim": false},
         "inputs": ["words"], "output_layer_flag": true},
    ]));
    let output = forward(&architecture, Rows::Examples).unwrap();
    for head in &output.heads {
        let head = head.to_vec2::<f64>().unwrap();
        assert!(head[0].iter().chain(&head[1][..1]).all(|x| x.abs() < 10.0), "{head:?}");
        assert_eq!(head[1][1..], [-1e4; 2]);
    }
    let message = forward(&architecture, words()).unwrap_err().to_string();
    assert!(message.contains("expected (batch, len, classes) of rows of words, found [2, 3]"), "{message}");
}

#[test]
fn rows_of_words_are_taken_from_as_many_words_as_the_first_text_has() {
    for (layer, conf, found) in [("Concat3D", json!({"concat3D_axis": 1}), 6), ("Conv", json!({"window_size": 2}), 2)] {
        let inputs = if layer == "Conv" { json!(["words"]) } else { json!(["words", "words"]) };
        let architecture = tagger(&json!([
            {"layer_id": "out", "layer": layer, "conf": conf, "inputs": inputs, "output_layer_flag": true},
        ]));
        let message = forward(&architecture, words()).unwrap_err().to_string();
        let expected = format!("output `out`\nexpected 3 words, as the first text has, found {found} in [2, {found}");
        assert!(message.starts_with(&expected), "{message}");
    }
}

/// Embeds the ids of a branch by itself: `id / 2`.
#[derive(Debug, serde::Deserialize)]
struct Own {}

impl BlockConfig for Own {
    fn arity(&self) -> std::ops::RangeInclusive<usize> {
        1..=1
    }

    fn infer(&self, inputs: &[Shape], _: &Site) -> std::result::Result<Shape, String> {
        inputs[0].expect_rank([2])?;
        Ok(Shape::sequence(inputs[0].0[0], 1))
    }

    fn build(&self, _: &[Shape], _: &Site, _: VarBuilder<'_>) -> Result<Box<dyn Block>> {
        Ok(Box::new(Own {}))
    }
}

impl Block for Own {
    fn forward(&self, inputs: &[Value], _: Mode) -> candle_core::Result<Value> {
        let Some(sequence) = &inputs[0].sequence else { candle_core::bail!("expected a sequence") };
        let ids = (sequence.ids.to_dtype(DType::F64)? * 0.5)?.unsqueeze(2)?;
        Ok(inputs[0].with(ids))
    }
}

#[test]
fn a_block_from_outside_may_read_ids_and_comes_before_one_of_the_same_name() {
    let architecture = json!([
        {"layer_id": "own", "layer": "BiLSTM", "inputs": ["words"]},
        {"layer_id": "out", "layer": "own", "inputs": ["words"], "output_layer_flag": true},
        {"layer_id": "other", "layer": "Linear", "conf": {"hidden_dim": 3}, "inputs": ["own"], "output_layer_flag": true},
    ]);
    let plan = Plan::parse(&architecture, &of_words(), &[Kind::of::<Own>("BiLSTM")]).unwrap();
    assert_eq!(plan.branches()[0].shape, Shape(vec![Dim::Varies(Length::of_branch(0))]));
    let variables = Variables::new(3, DType::F64, &Device::Cpu);
    let network = plan.build(&BTreeMap::new(), variables.builder()).unwrap();
    let first = pad(&[vec![3, 4, 5], vec![6]], &Device::Cpu).unwrap();
    let tokens = Tokens { first, second: None, more: Vec::new(), rows: words() };
    let output = network.forward(&tokens, Mode::Eval).unwrap();
    assert_eq!(output.heads[0].to_vec2::<f64>().unwrap(), [[1.5], [2.0], [2.5], [3.0]]);
    assert_eq!((network.width(), network.represent(&tokens, Mode::Eval).unwrap().dims()), (1, &[4, 1][..]));
    let two = Tokens { second: Some(tokens.first.clone()), ..tokens };
    let message = network.forward(&two, Mode::Eval).unwrap_err().to_string();
    assert!(message.contains("expected 1 texts (words), found 2"), "{message}");
}

#[test]
fn padding_of_a_fixed_length_leaks_only_as_published() {
    let plan = |legacy_padding| {
        let mut inputs = of_words();
        (inputs.branches[0].length, inputs.legacy_padding) = (Some(4), legacy_padding);
        let architecture = tagger(&json!([
            {"layer_id": "last", "layer": "BiLSTMLast", "conf": {"hidden_dim": 2}, "inputs": ["words"],
             "output_layer_flag": true},
        ]));
        Plan::parse(&architecture, &inputs, &[]).unwrap()
    };
    assert_eq!(plan(false).branches()[0].shape.to_string(), "(batch, 4, 4)");
    let of = |legacy_padding, ids: Vec<u32>, len: usize| {
        let variables = Variables::new(3, DType::F64, &Device::Cpu);
        let rows = [("word".to_string(), 20)].into();
        let network = plan(legacy_padding).build(&rows, variables.builder()).unwrap();
        let mut first = pad(&[ids], &Device::Cpu).unwrap();
        let more = len - first.ids.dim(1).unwrap();
        first.ids = first.ids.pad_with_zeros(1, 0, more).unwrap();
        first.mask = first.mask.pad_with_zeros(1, 0, more).unwrap();
        let tokens = Tokens { first, second: None, more: Vec::new(), rows: Rows::Examples };
        network.forward(&tokens, Mode::Eval).unwrap().heads.remove(0).to_vec2::<f64>().unwrap()
    };
    assert_eq!(of(false, vec![3, 5], 4), of(false, vec![3, 5], 2));
    assert_ne!(of(true, vec![3, 5], 4), of(true, vec![3, 5], 2));
}
