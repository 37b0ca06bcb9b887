//! What holds of all blocks alike.

use serde_json::{Value as Json, json};

use super::checks::{Given, LEN, LEN2, check, refused};
use super::{BlockConfig, Dim, Shape, standard};

fn config(block: &str, conf: Json) -> Box<dyn BlockConfig> {
    standard(block).unwrap().parse(conf).unwrap()
}

/// A number in `1..=most` that seed and place decide.
fn size(seed: u64, what: u64, most: u64) -> usize {
    1 + (kd_core::variables::mix(seed, what) % most) as usize
}

#[test]
fn shapes_of_random_sizes() {
    for seed in 0..4 {
        let examples = size(seed, 0, 3);
        // Of at least two tokens: over one a softmax is 1, and nothing learns from it.
        let tokens = |what: u64| (0..examples as u64).map(|at| 1 + size(seed, what + at, 5)).collect::<Vec<_>>();
        let (first, second, width) = (tokens(10), tokens(20), 1 + size(seed, 1, 4));
        let text = |width: usize| Given::text(LEN, width, &first);
        let other = |width: usize| Given::text(LEN2, width, &second);
        let map = |width: usize| Given::matrix(&[LEN, LEN2, Dim::Fixed(width)], &first, &second);
        let (window, stride, channels) = (size(seed, 2, 3), size(seed, 3, 2), size(seed, 4, 4));
        let windows = |mut conf: Json| {
            (conf["window_size"], conf["stride"]) = (json!(window), json!(stride));
            conf
        };
        let convolution = json!({"output_channel_num": channels, "activation": "Tanh"});
        check(&*config("Conv", windows(convolution.clone())), &[text(width)]);
        check(&*config("Conv2D", windows(convolution)), &[map(width)]);
        let sizes = json!({"window_sizes": [window, 1], "output_channel_num": channels, "activation": "Tanh"});
        check(&*config("ConvPooling", sizes), &[text(width)]);
        check(&*config("Pooling1D", windows(json!({}))), &[text(width)]);
        check(&*config("Pooling2D", windows(json!({"pool_type": "mean"}))), &[map(width)]);
        check(&*config("Pooling", json!({"pool_axis": 1 + seed % 3})), &[map(width)]);
        check(&*config("LayerNorm", json!({})), &[text(width)]);
        check(&*config("MLP", json!({})), &[text(width)]);
        let heads = json!({"attention_conf": {"n_head": width}, "n_layer": size(seed, 5, 2)});
        check(&*config("Transformer", heads), &[text(width)]);
        check(&*config("LinearAttention", json!({"keep_dim": seed % 2 == 0})), &[text(width)]);
        for (block, conf) in [
            ("Attention", json!({})),
            ("MatchAttention", json!({"activation": "Tanh"})),
            ("Seq2SeqAttention", json!({})),
            ("BiAttFlow", json!({})),
            ("Match", json!({"activation": "Tanh"})),
            ("Expand_plus", json!({})),
            ("Interaction", json!({"matching_type": "general"})),
            ("Interaction", json!({"matching_type": "concat"})),
            ("MatrixMultiply", json!({"operation": "dim_based"})),
        ] {
            check(&*config(block, conf), &[text(width), other(width)]);
        }
        let keys = json!({"hidden_dim": channels, "activation": "Tanh"});
        check(&*config("FullAttention", keys), &[text(width), other(3), text(channels), other(2)]);
        check(&*config("BilinearAttention", json!({})), &[text(width), Given::vector(channels)]);
        check(&*config("Concat3D", json!({})), &[text(width), text(channels)]);
        check(&*config("Concat3D", json!({"concat3D_axis": 1})), &[text(width), other(width)]);
        check(&*config("Combination", json!({})), &[text(width), text(width)]);
    }
}

/// The cells of two texts of fixed lengths are vectors to what reads a text; those of the second text's padding are 0 there, and
/// have no place in what is made of them.
#[test]
fn padding_of_a_last_axis_ends_with_it() {
    let map = || Given::matrix(&[Dim::Fixed(4), Dim::Fixed(6)], &[4, 1, 3], &[2, 6, 5]);
    for (block, conf) in [
        ("BiGRU", json!({"hidden_dim": 2})),
        ("BiGRULast", json!({"hidden_dim": 2})),
        ("BiLSTM", json!({"hidden_dim": 2})),
        ("BiLSTMAtt", json!({"hidden_dim": 2})),
        ("BiLSTMLast", json!({"hidden_dim": 2})),
        ("BiQRNN", json!({"hidden_dim": 2, "window": 2})),
        ("Conv", json!({"activation": "Tanh"})),
        ("ConvPooling", json!({"activation": "Tanh"})),
        ("Flatten", json!({})),
        ("HighwayLinear", json!({})),
        ("LayerNorm", json!({})),
        ("Linear", json!({"hidden_dim": 3})),
        ("Linear", json!({"hidden_dim": [4, 6], "activation": "Tanh"})),
        ("Linear", json!({"hidden_dim": 1, "keep_dim": false, "activation": "Tanh"})),
        ("LinearAttention", json!({})),
        ("LinearAttention", json!({"keep_dim": true})),
        ("MLP", json!({})),
        ("MultiHeadAttention", json!({"n_head": 3})),
        ("Pooling", json!({"pool_axis": 1})),
        ("Pooling", json!({"pool_axis": 2})),
        ("Pooling1D", json!({})),
        ("Transformer", json!({"attention_conf": {"n_head": 2}, "n_layer": 2})),
    ] {
        check(&*config(block, conf), &[map()]);
    }
    let other = || Given::matrix(&[Dim::Fixed(5), Dim::Fixed(6)], &[2, 5, 3], &[6, 1, 3]);
    for (block, conf) in [
        ("Attention", json!({})),
        ("BiAttFlow", json!({})),
        ("Concat3D", json!({"concat3D_axis": 1})),
        ("Interaction", json!({"matching_type": "concat"})),
        ("Match", json!({"activation": "Tanh"})),
        ("MatchAttention", json!({"activation": "Tanh"})),
        ("MatrixMultiply", json!({})),
        ("Seq2SeqAttention", json!({})),
    ] {
        check(&*config(block, conf), &[map(), other()]);
    }
    let keys = json!({"hidden_dim": 2, "activation": "Tanh"});
    check(&*config("FullAttention", keys), &[map(), other(), map(), other()]);
    check(&*config("BilinearAttention", json!({})), &[map(), Given::vector(3)]);
    // What was pooled over the first text is a vector with the second's padding.
    let pooled = |tokens: &[usize]| Given { shape: Shape::vector(6), first: Some(tokens.to_vec()), second: None };
    for (block, conf) in [
        ("HighwayLinear", json!({"activation": "Tanh"})),
        ("LayerNorm", json!({})),
        ("Linear", json!({"hidden_dim": [3, 6], "activation": "Tanh"})),
    ] {
        check(&*config(block, conf), &[pooled(&[2, 6, 5])]);
    }
    for block in ["Add2D", "CalculateDistance", "Combination", "Concat2D", "Minus2D"] {
        check(&*config(block, json!({})), &[pooled(&[2, 6, 5]), pooled(&[3, 1, 6])]);
    }
}

/// Where one text has ended, the other counts beside zeros.
#[test]
fn padding_of_another_text_of_the_same_length_does_not_count() {
    let text = |tokens: &[usize]| Given::text(Dim::Fixed(7), 3, tokens);
    for (block, conf) in [
        ("Add3D", json!({})),
        ("Combination", json!({})),
        ("Concat3D", json!({})),
        ("ElementWisedMultiply3D", json!({})),
        ("Minus3D", json!({"abs_flag": true})),
    ] {
        check(&*config(block, conf), &[text(&[5, 1, 7]), text(&[3, 6, 2])]);
    }
    let keys = [[5, 1, 7], [3, 6, 2], [4, 2, 1], [2, 1, 6]];
    let conf = json!({"hidden_dim": 2, "activation": "Tanh"});
    check(&*config("FullAttention", conf), &keys.map(|tokens| text(&tokens)));
}

#[test]
fn a_softmax_of_maps_is_refused_where_there_are_none() {
    let text = || Shape::sequence(LEN, 3);
    let expected = "activation: expected Softmax2d of rank 4 only, found (batch, len, 3)";
    for (block, inputs) in [
        ("Conv", 1),
        ("ConvPooling", 1),
        ("HighwayLinear", 1),
        ("Linear", 1),
        ("Match", 2),
        ("MatchAttention", 2),
        ("FullAttention", 4),
    ] {
        let config = config(block, json!({"activation": "Softmax2d"}));
        assert_eq!(refused(&*config, &vec![text(); inputs]), expected, "{block}");
    }
}

#[test]
fn windows_of_nothing_are_named_by_their_key() {
    let (text, map) = (Shape::sequence(LEN, 3), Shape(vec![LEN, LEN2, Dim::Fixed(3)]));
    for (block, conf, input, expected) in [
        ("Conv", json!({"window_size": 0}), &text, "window_size: expected at least 1, found 0"),
        ("Conv", json!({"stride": 0}), &text, "stride: expected at least 1, found 0"),
        ("ConvPooling", json!({"window_sizes": [2, 0]}), &text, "window_sizes[1]: expected at least 1, found 0"),
        ("Pooling1D", json!({"window_size": 0}), &text, "window_size: expected at least 1, found 0"),
        ("Conv2D", json!({"window_size": [2, 0]}), &map, "window_size: axis 2: expected at least 1, found 0"),
        (
            "Pooling2D",
            json!({"window_size": 2, "stride": [0, 1]}),
            &map,
            "stride: axis 1: expected at least 1, found 0",
        ),
    ] {
        assert_eq!(refused(&*config(block, conf), std::slice::from_ref(input)), expected);
    }
}
