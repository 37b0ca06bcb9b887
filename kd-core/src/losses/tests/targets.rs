//! Losses against numbers, signs and sets: what they refuse, and their values and slopes at corners.

use super::*;

/// Every loss of predictions and targets of one shape.
const OF_TARGETS: &[(&str, Pair)] = &[
    ("absolute_error", absolute_error),
    ("smooth_absolute_error", |x, t| smooth_absolute_error(x, t, 1.0)),
    ("poisson", |x, t| poisson(x, t, &Poisson::default())),
    ("kl_from_probs", kl_from_probs),
    ("binary_cross_entropy_of_probs", binary_cross_entropy_of_probs),
    ("weighted_binary_cross_entropy", |x, t| weighted_binary_cross_entropy(x, t, &BinaryWeights::default())),
    ("multi_label_margin", multi_label_margin),
    ("soft_margin", soft_margin),
    ("hinge_embedding", |x, t| hinge_embedding(x, t, 1.0)),
    ("margin_ranking", |x, t| margin_ranking(x, t, &signs(x), 0.5)),
    ("cosine_embedding", |x, t| cosine_embedding(x, t, &signs(x), 0.5)),
    ("triplet_margin", |x, t| {
        triplet_margin(x, t, &t.affine(-2.0, 0.5)?, &TripletMargin { margin: 1e3, ..Default::default() })
    }),
];

fn signs(x: &Tensor) -> Tensor {
    Tensor::ones(x.dims().first().copied().unwrap_or(1), x.dtype(), x.device()).unwrap()
}

#[test]
fn targets_that_do_not_fit_are_errors_with_the_name_of_the_loss() {
    for (name, loss) in OF_TARGETS {
        let check = |x: &Tensor, t: &Tensor, expected: &str| {
            let found = message(loss(x, t));
            assert!(found.contains(expected), "{name}: {found}");
        };
        check(&zeros(&[2, 4]), &zeros(&[3, 4]), &format!("{name}: expected two tensors of one shape"));
        check(&zeros(&[4]), &zeros(&[4]), "(rows, classes), found [4] and [4]");
        check(&zeros(&[0, 4]), &zeros(&[0, 4]), "no rows");
        check(&zeros(&[2, 4]), &zeros(&[2, 4]).to_dtype(DType::F32).unwrap(), "dtype F64 and the teacher F32");
        assert!(loss(&zeros(&[2, 4]), &zeros(&[2, 4])).is_ok(), "{name}");
    }
    let x = zeros(&[2, 4]);
    let found = message(margin_ranking(&x, &x, &zeros(&[3]), 0.0));
    assert!(found.contains("margin_ranking: expected signs [2] of F64, found [3] of F64"), "{found}");
}

#[test]
fn numbers_out_of_range_are_refused() {
    let (x, labels) = (zeros(&[2, 3]), Tensor::new(&[0u32, 1], CPU).unwrap());
    let ones = signs(&x);
    for (result, expected) in [
        (smooth_absolute_error(&x, &x, -1.0), "smooth_absolute_error: beta -1, expected"),
        (poisson(&x, &x, &Poisson { epsilon: 0.0, ..Default::default() }), "poisson: epsilon 0, expected"),
        (focal(&x, &labels, &Focal { gamma: f64::NAN, class_weights: None }), "focal: gamma NaN, expected"),
        (
            focal(&x, &labels, &Focal { gamma: 0.0, class_weights: Some(vec![1.0]) }),
            "focal: expected 3 class weights, found 1",
        ),
        (
            multi_class_margin(&x, &labels, &MultiClassMargin { margin: f64::INFINITY, ..Default::default() }),
            "margin inf, expected",
        ),
        (
            multi_class_margin(
                &x,
                &labels,
                &MultiClassMargin { class_weights: Some(vec![1.0, -1.0, 0.0]), ..Default::default() },
            ),
            "multi_class_margin: the weight of class 1 is -1",
        ),
        (hinge_embedding(&x, &x, f64::NAN), "hinge_embedding: margin NaN"),
        (margin_ranking(&x, &x, &ones, f64::NAN), "margin_ranking: margin NaN"),
        (cosine_embedding(&x, &x, &ones, 1.5), "cosine_embedding: margin 1.5, expected a value from -1 to 1"),
        (
            triplet_margin(&x, &x, &x, &TripletMargin { margin: 0.0, ..Default::default() }),
            "triplet_margin: margin 0, expected",
        ),
        (
            triplet_margin(&x, &x, &x, &TripletMargin { p: 0.5, ..Default::default() }),
            "triplet_margin: p 0.5, expected",
        ),
        (
            weighted_binary_cross_entropy(
                &x,
                &x,
                &BinaryWeights { class_weights: Some(vec![1.0; 2]), positive_weights: None },
            ),
            "weighted_binary_cross_entropy: expected 3 class weights, found 2",
        ),
        (
            negative_log_likelihood(&x, &labels, &HardCrossEntropy { label_smoothing: 1.0, ..Default::default() }),
            "negative_log_likelihood: label smoothing 1, expected",
        ),
    ] {
        let found = message(result);
        assert!(found.contains(expected), "{found}");
    }
    let found = message(multi_class_margin(&x, &Tensor::new(&[0u32, 3], CPU).unwrap(), &MultiClassMargin::default()));
    assert!(found.contains("multi_class_margin: label 3 with 3 classes, in row 1"), "{found}");
}

#[test]
fn corners_have_the_slope_of_the_side_without_a_loss() {
    let check = |loss: &dyn Fn(&Tensor) -> Result<Tensor>, at: f64, expected: f64| {
        let x = Var::new(&[[at]], CPU).unwrap();
        let gradients = loss(&x).unwrap().backward().unwrap();
        assert_eq!(gradients.get(&x).unwrap().to_vec2::<f64>().unwrap(), [[expected]]);
    };
    let at = |value: f64| Tensor::new(&[[value]], CPU).unwrap();
    check(&|x| absolute_error(x, &at(2.0)), 2.0, 0.0);
    check(&|x| hinge_embedding(x, &at(-1.0), 1.0), 1.0, 0.0);
    check(&|x| margin_ranking(x, &at(0.0), &signs(x), 1.0), 1.0, 0.0);
    // A sure and right row of a power below 1, whose own slope at 0 is infinite.
    let labels = Tensor::new(&[0u32], CPU).unwrap();
    let sure = Var::new(&[[1e4, 0.0]], CPU).unwrap();
    let loss = focal(&sure, &labels, &Focal { gamma: 0.5, class_weights: None }).unwrap();
    assert_eq!(loss.to_scalar::<f64>().unwrap(), 0.0);
    let gradients = loss.backward().unwrap();
    assert_eq!(gradients.get(&sure).unwrap().to_vec2::<f64>().unwrap(), [[0.0; 2]]);
}

#[test]
fn coinciding_vectors_have_no_distance_and_no_gradient() {
    for p in [1.0, 2.0, 3.0] {
        let config = TripletMargin { p, eps: 0.0, ..Default::default() };
        let (x, far) = (Var::new(&[[1f64, 2.]], CPU).unwrap(), Tensor::new(&[[100f64, 0.]], CPU).unwrap());
        // d(x, x) = 0, and the negative is far enough: the value 0. With a negative that coincides: the margin.
        assert_eq!(triplet_margin(&x, &x.detach(), &far, &config).unwrap().to_scalar::<f64>().unwrap(), 0.0);
        let loss = triplet_margin(&x, &x.detach(), &x.detach(), &config).unwrap();
        assert_eq!(loss.to_scalar::<f64>().unwrap(), 1.0);
        let gradients = loss.backward().unwrap();
        assert_eq!(gradients.get(&x).unwrap().to_vec2::<f64>().unwrap(), [[0.0; 2]], "p {p}");
    }
}

#[test]
fn half_precision_and_large_values_give_finite_values_and_gradients() {
    for dtype in [DType::BF16, DType::F32] {
        for scale in [0.5, 40.0] {
            for (name, loss) in OF_TARGETS.iter().filter(|(name, _)| !name.starts_with("binary")) {
                let x = (random(1, (4, 5)).unwrap() * scale).unwrap().to_dtype(dtype).unwrap();
                let x = Var::from_tensor(&x).unwrap();
                let targets = random(2, (4, 5)).unwrap().affine(0.5, 0.5).unwrap().to_dtype(dtype).unwrap();
                let loss = loss(&x, &targets).unwrap();
                assert_eq!(loss.dtype(), dtype, "{name}");
                let gradients = loss.backward().unwrap();
                let gradient = gradients.get(&x).unwrap().to_dtype(DType::F64).unwrap().flatten_all().unwrap();
                let gradient = gradient.to_vec1::<f64>().unwrap();
                assert!(
                    gradient.iter().all(|g| g.is_finite()) && gradient.iter().any(|g| *g != 0.0),
                    "{name}: {gradient:?}"
                );
            }
        }
    }
}

#[test]
fn the_number_of_threads_changes_no_byte() {
    let x = random(1, (700, 40)).unwrap().to_dtype(DType::F32).unwrap();
    let targets = random(2, (700, 40)).unwrap().affine(0.4, 0.5).unwrap().to_dtype(DType::F32).unwrap();
    let run = |loss: &Pair| {
        // Probabilities for those losses that take them.
        let x = Var::from_tensor(&x.affine(0.4, 0.5).unwrap()).unwrap();
        let loss = loss(&x, &targets).unwrap();
        let gradient = loss.backward().unwrap().get(&x).unwrap().flatten_all().unwrap().to_vec1::<f32>().unwrap();
        (loss.to_scalar::<f32>().unwrap().to_bits(), gradient.into_iter().map(f32::to_bits).collect::<Vec<_>>())
    };
    let pools = [1, 2, 4].map(|n| rayon::ThreadPoolBuilder::new().num_threads(n).build().unwrap());
    for (name, loss) in OF_TARGETS {
        let [one, two, four] = pools.each_ref().map(|pool| pool.install(|| run(loss)));
        assert!(one == two && one == four, "{name}");
    }
}
