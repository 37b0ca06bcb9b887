//! What the losses refuse, and what they do where nothing is defined. Their values are in `tests/conformance`.

mod targets;

use candle_core::{DType, Device, Result, Tensor, Var};

use super::*;
use crate::ops::crf::Path;
use crate::testing::{assert_close, random};

const CPU: &Device = &Device::Cpu;

type Pair = fn(&Tensor, &Tensor) -> Result<Tensor>;
type Softened = fn(&Tensor, Temperature) -> Result<Tensor>;
type Labelled<'a> = &'a dyn Fn(&Tensor) -> Result<Tensor>;

/// Every loss of student and teacher logits, with its name.
const PAIRS: &[(&str, Pair)] = &[
    ("soft_cross_entropy", |s, t| soft_cross_entropy(s, t, 2.0)),
    ("soft_cross_entropy_from_logits", |s, t| soft_cross_entropy_from_logits(s, t, 2.0)),
    ("binary_cross_entropy", binary_cross_entropy),
    ("binary_cross_entropy_from_logits", |s, t| binary_cross_entropy_from_logits(s, t, 2.0)),
    ("kl_divergence", |s, t| kl_divergence(s, t, 2.0)),
    ("reverse_kl_divergence", |s, t| reverse_kl_divergence(s, t, 2.0)),
    ("jensen_shannon_divergence", |s, t| jensen_shannon_divergence(s, t, 2.0)),
    ("kl_from_log_probs", kl_from_log_probs),
    ("logit_mse", logit_mse),
    ("centred_logit_mse", centred_logit_mse),
    ("probability_mse", |s, t| probability_mse(s, t, 2.0)),
    ("cosine_distance", cosine_distance),
    ("row_correlation", |s, t| row_correlation(s, t, 2.0)),
    ("column_correlation", |s, t| column_correlation(s, t, 2.0)),
    ("decoupled_divergence", |s, t| {
        let labels = Tensor::zeros(s.dims().first().copied().unwrap_or(1), DType::U32, CPU)?;
        decoupled_divergence(s, t, &labels, &Decoupled { target: 1.0, non_target: 8.0, temperature: 2.0.into() })
    }),
    ("distillation", |s, t| {
        let labels = Tensor::zeros(s.dims().first().copied().unwrap_or(1), DType::U32, CPU)?;
        distillation(s, t, &labels, 2.0).map(|(hard, soft)| hard + soft)?
    }),
];

fn zeros(shape: &[usize]) -> Tensor {
    Tensor::zeros(shape, DType::F64, CPU).unwrap()
}

fn message<T: std::fmt::Debug>(result: Result<T>) -> String {
    result.unwrap_err().to_string()
}

#[test]
fn pairs_that_do_not_fit_are_errors_with_the_name_of_the_loss() {
    for (name, loss) in PAIRS {
        let check = |student: &Tensor, teacher: &Tensor, expected: &str| {
            let found = message(loss(student, teacher));
            assert!(found.contains(expected), "{name}: {found}");
        };
        check(&zeros(&[2, 4]), &zeros(&[3, 4]), &format!("{name}: expected two tensors of one shape"));
        check(&zeros(&[2, 4]), &zeros(&[3, 4]), "[2, 4] and [3, 4]");
        check(&zeros(&[4]), &zeros(&[4]), "(rows, classes), found [4] and [4]");
        check(&zeros(&[2, 0]), &zeros(&[2, 0]), "at least one class, found shape [2, 0]");
        check(&zeros(&[0, 4]), &zeros(&[0, 4]), "no rows");
        let whole = zeros(&[2, 4]).to_dtype(DType::U32).unwrap();
        check(&whole, &whole, "the student has dtype U32, expected a float");
        check(&zeros(&[2, 4]), &zeros(&[2, 4]).to_dtype(DType::F32).unwrap(), "dtype F64 and the teacher F32");
        assert!(loss(&zeros(&[2, 4]), &zeros(&[2, 4])).is_ok(), "{name}");
    }
}

#[test]
fn temperatures_are_finite_and_above_zero() {
    let x = zeros(&[2, 3]);
    let losses: [(&str, Softened); 9] = [
        ("soft_cross_entropy", |x, t| soft_cross_entropy(x, x, t)),
        ("soft_cross_entropy_from_logits", |x, t| soft_cross_entropy_from_logits(x, x, t)),
        ("binary_cross_entropy_from_logits", |x, t| binary_cross_entropy_from_logits(x, x, t)),
        ("kl_divergence", |x, t| kl_divergence(x, x, t)),
        ("reverse_kl_divergence", |x, t| reverse_kl_divergence(x, x, t)),
        ("jensen_shannon_divergence", |x, t| jensen_shannon_divergence(x, x, t)),
        ("probability_mse", |x, t| probability_mse(x, x, t)),
        ("row_correlation", |x, t| row_correlation(x, x, t)),
        ("column_correlation", |x, t| column_correlation(x, x, t)),
    ];
    for (name, loss) in losses {
        for wrong in [0.0, -1.0, f64::NAN, f64::INFINITY] {
            let found = message(loss(&x, Temperature { student: wrong, teacher: 1.0, scaled: true }));
            assert!(found.contains(&format!("{name}: student temperature {wrong}, expected")), "{found}");
            let found = message(loss(&x, Temperature { student: 1.0, teacher: wrong, scaled: true }));
            assert!(found.contains(&format!("{name}: teacher temperature {wrong}, expected")), "{found}");
        }
    }
}

#[test]
fn labels_weights_and_smoothing_are_checked() {
    let x = zeros(&[2, 3]);
    let labels = |labels: &[u32]| Tensor::new(labels, CPU).unwrap();
    let hard = |config: HardCrossEntropy| message(hard_cross_entropy(&x, &labels(&[0, 1]), &config));
    for smoothing in [-0.1, 1.0, f64::NAN] {
        let found = hard(HardCrossEntropy { label_smoothing: smoothing, ..Default::default() });
        assert!(found.contains(&format!("label smoothing {smoothing}, expected")), "{found}");
    }
    let weighted = |weights: &[f64]| HardCrossEntropy { class_weights: Some(weights.to_vec()), ..Default::default() };
    assert!(hard(weighted(&[1.0, 1.0])).contains("expected 3 class weights, found 2"));
    assert!(hard(weighted(&[1.0, -1.0, 1.0])).contains("the weight of class 1 is -1"));
    assert!(hard(weighted(&[1.0, 1.0, f64::NAN])).contains("the weight of class 2 is NaN"));
    let found = hard(HardCrossEntropy { divisor: Divisor::Weights, ..weighted(&[0.0, 0.0, 1.0]) });
    assert!(found.contains("weights of all labels are 0"), "{found}");

    let decoupled = Decoupled { target: 1.0, non_target: 1.0, temperature: 1.0.into() };
    let smoothed = HardCrossEntropy { label_smoothing: 0.1, ..Default::default() };
    let losses: [Labelled<'_>; 3] =
        [&|labels| cross_entropy(&x, labels), &|labels| hard_cross_entropy(&x, labels, &smoothed), &|labels| {
            decoupled_divergence(&x, &x, labels, &decoupled)
        }];
    for loss in losses {
        assert!(message(loss(&labels(&[0, 3]))).contains("label 3 with 3 classes"));
        assert!(message(loss(&labels(&[0]))).contains("labels [2] of u32, found [1]"));
        assert!(message(loss(&zeros(&[2]))).contains("labels [2] of u32, found [2] of F64"));
    }
    assert!(message(cross_entropy(&zeros(&[2]), &labels(&[0, 1]))).contains("(rows, classes), found [2]"));
    assert!(message(cross_entropy(&zeros(&[0, 3]), &labels(&[]))).contains("no rows"));
}

#[test]
fn parts_are_weighted_with_finite_numbers_and_the_rest_of_a_label_is_more_than_one_class() {
    let (x, labels) = (zeros(&[2, 3]), Tensor::new(&[0u32, 1], CPU).unwrap());
    let decoupled = |target, non_target| {
        let config = Decoupled { target, non_target, temperature: 1.0.into() };
        message(decoupled_divergence(&x, &x, &labels, &config))
    };
    assert!(decoupled(-1.0, 1.0).contains("decoupled_divergence: target weight -1"));
    assert!(decoupled(1.0, f64::NAN).contains("non-target weight NaN"));
    let config = Decoupled { target: 1.0, non_target: 1.0, temperature: 0.0.into() };
    assert!(message(decoupled_divergence(&x, &x, &labels, &config)).contains("temperature 0"));
    let config = Decoupled { temperature: 1.0.into(), ..config };
    let two = zeros(&[2, 2]);
    assert!(message(decoupled_divergence(&two, &two, &labels, &config)).contains("at least 3 classes, found 2"));
    let relations = |inter_class, intra_class| {
        message(correlation(&x, &x, &Correlation { inter_class, intra_class, temperature: 1.0.into() }))
    };
    assert!(relations(f64::INFINITY, 1.0).contains("inter-class weight inf"));
    assert!(relations(1.0, -0.5).contains("intra-class weight -0.5"));
    assert!(message(standardise(&zeros(&[3]))).contains("standardise: expected logits of shape (rows, classes)"));
}

#[test]
fn paths_that_do_not_fit_are_errors() {
    let (emissions, transitions) = (zeros(&[3, 2]), zeros(&[4, 2]));
    let path = |labels: &[u32], score| Path { labels: labels.to_vec(), score };
    let found =
        |paths: &[Vec<Path>]| message(path_cross_entropy(&emissions, &transitions, paths, PathWeights::Uniform));
    assert!(found(&[vec![path(&[0, 1], 0.0)]]).contains("lengths sum to 2, expected the 3 rows"));
    assert!(found(&[vec![path(&[0, 1, 1], 0.0)], vec![]]).contains("sequence 1 has no path"));
    assert!(found(&[vec![path(&[0, 1, 1], 0.0), path(&[0], 0.0)]]).contains("paths of 3 and 1 labels"));
    assert!(found(&[vec![path(&[0, 2, 1], 0.0)]]).contains("label 2, expected 2 classes"));
    assert!(found(&[vec![path(&[0, 1, 1], f64::NAN)]]).contains("score NaN"));
    let none = path_cross_entropy(&zeros(&[0, 2]), &transitions, &[vec![path(&[], 0.0)]], PathWeights::Uniform);
    assert!(message(none).contains("no rows"));
}

#[test]
fn rows_of_equal_logits_have_the_documented_value_and_no_gradient() {
    let teacher = Tensor::new(&[[1f64, 2., 4.], [3., -1., 0.5]], CPU).unwrap();
    let rows: [(&str, Pair); 2] = [
        ("cosine_distance", |s, t| cosine_distance_rows(s, t)),
        ("row_correlation", |s, t| row_correlation_rows(s, t, 1.0)),
    ];
    for (name, loss) in rows {
        let student = Var::new(&[[0f64, 0., 0.], [0.5, 1., -0.3]], CPU).unwrap();
        let values = loss(&student, &teacher).unwrap();
        assert_eq!(values.to_vec1::<f64>().unwrap()[0], 1.0, "{name}");
        let gradients = values.sum_all().unwrap().backward().unwrap();
        let gradient = gradients.get(&student).unwrap().to_vec2::<f64>().unwrap();
        assert_eq!(gradient[0], [0.0; 3], "{name}");
        assert!(gradient[1].iter().all(|x| x.is_finite() && *x != 0.0), "{name}: {gradient:?}");
    }
    // One row: all its columns are of equal values.
    let student = Var::new(&[[0f64, 1., 2.]], CPU).unwrap();
    let loss = column_correlation(&student, &teacher.narrow(0, 0, 1).unwrap(), 1.0).unwrap();
    assert_eq!(loss.to_scalar::<f64>().unwrap(), 1.0);
    let gradients = loss.backward().unwrap();
    assert_eq!(gradients.get(&student).unwrap().to_vec2::<f64>().unwrap(), [[0.0; 3]]);
    // Standardised, a row of equal logits is uniform.
    let student = Var::new(&[[7f64, 7., 7.]], CPU).unwrap();
    let loss = kl_divergence(&standardise(&student).unwrap(), &teacher.narrow(0, 0, 1).unwrap(), 1.0).unwrap();
    let gradients = loss.backward().unwrap();
    assert_eq!(gradients.get(&student).unwrap().to_vec2::<f64>().unwrap(), [[0.0; 3]]);
}

#[test]
fn zero_logits_have_the_right_gradient_where_a_maximum_turns() {
    // d/dz of log(1 + e^z) - y z at 0 is 1/2 - y; and two equal distributions have no divergence to follow.
    let (student, targets) = (Var::new(&[[0f64, 0.]], CPU).unwrap(), Tensor::new(&[[1f64, 0.25]], CPU).unwrap());
    let gradients = binary_cross_entropy(&student, &targets).unwrap().backward().unwrap();
    assert_eq!(gradients.get(&student).unwrap().to_vec2::<f64>().unwrap(), [[-0.25, 0.125]]);
    let loss = jensen_shannon_divergence(&student, &student.detach(), 1.0).unwrap();
    let gradients = loss.backward().unwrap();
    assert_close(gradients.get(&student).unwrap(), &zeros(&[1, 2]), 1e-15, 0.0).unwrap();
}

#[test]
fn half_precision_gives_finite_values_and_gradients_of_its_own_dtype() {
    let (student, teacher) = (random(1, (4, 5)).unwrap(), random(2, (4, 5)).unwrap());
    for dtype in [DType::BF16, DType::F16] {
        for (name, loss) in PAIRS {
            let variable = Var::from_tensor(&student.to_dtype(dtype).unwrap()).unwrap();
            let teacher = teacher.to_dtype(dtype).unwrap();
            let found = loss(&variable, &teacher).unwrap();
            assert_eq!(found.dtype(), dtype, "{name}");
            let wide = |x: &Tensor| x.to_dtype(DType::F64).unwrap();
            let expected = loss(&wide(&variable.detach()), &wide(&teacher)).unwrap();
            assert_close(&found, &expected, 3e-2, 3e-2).unwrap_or_else(|error| panic!("{name} in {dtype:?}: {error}"));
            let gradients = found.backward().unwrap();
            let gradient = wide(gradients.get(&variable).unwrap()).flatten_all().unwrap().to_vec1::<f64>().unwrap();
            assert!(gradient.iter().all(|x| x.is_finite()), "{name} in {dtype:?}");
            assert!(gradient.iter().any(|x| *x != 0.0), "{name} in {dtype:?}");
        }
    }
}

#[test]
fn logits_of_ten_thousand_give_finite_values_and_gradients() {
    let student = [[1e4f32, -1e4, 0., 30.], [0., 0., 1e4, 1e4], [-1e4, 0., 3., 1.]];
    let teacher = [[-1e4f32, 1e4, 0., 0.], [1e4, -1e4, 0., 0.], [1e4, 1e4, 0., -1e4]];
    for (name, loss) in PAIRS.iter().filter(|(name, _)| *name != "kl_from_log_probs") {
        let student = Var::new(&student, CPU).unwrap();
        let loss = loss(&student, &Tensor::new(&teacher, CPU).unwrap()).unwrap();
        assert!(loss.to_scalar::<f32>().unwrap().is_finite(), "{name}: {loss}");
        let gradients = loss.backward().unwrap();
        let gradient = gradients.get(&student).unwrap().flatten_all().unwrap().to_vec1::<f32>().unwrap();
        assert!(gradient.iter().all(|x| x.is_finite()), "{name}: {gradient:?}");
    }
}

#[test]
fn the_number_of_threads_changes_no_byte() {
    let [student, teacher] = [1, 2].map(|seed| (random(seed, (700, 40)).unwrap() * 4.0).unwrap());
    let run = |loss: &Pair| {
        let student = Var::from_tensor(&student.to_dtype(DType::F32).unwrap()).unwrap();
        let loss = loss(&student, &teacher.to_dtype(DType::F32).unwrap()).unwrap();
        let gradient = loss.backward().unwrap().get(&student).unwrap().flatten_all().unwrap().to_vec1::<f32>().unwrap();
        (loss.to_scalar::<f32>().unwrap().to_bits(), gradient.into_iter().map(f32::to_bits).collect::<Vec<_>>())
    };
    let pools = [1, 2, 4].map(|n| rayon::ThreadPoolBuilder::new().num_threads(n).build().unwrap());
    for (name, loss) in PAIRS {
        let [one, two, four] = pools.each_ref().map(|pool| pool.install(|| run(loss)));
        assert!(one == two && one == four, "{name}");
    }
}

#[test]
fn both_losses_in_one_visit_are_those_of_two() {
    let (student, teacher) = (random(1, (4, 5)).unwrap(), random(2, (4, 5)).unwrap());
    let labels = Tensor::new(&[0u32, 4, 2, 2], CPU).unwrap();
    for temperature in [
        Temperature::from(2.0),
        Temperature::from(3.0).unscaled(),
        Temperature { student: 1.5, teacher: 4.0, scaled: true },
        Temperature { student: 1.5, teacher: 4.0, scaled: false },
    ] {
        let (hard, soft) = distillation(&student, &teacher, &labels, temperature).unwrap();
        assert_close(&hard, &cross_entropy(&student, &labels).unwrap(), 1e-14, 0.0).unwrap();
        assert_close(&soft, &kl_divergence(&student, &teacher, temperature).unwrap(), 1e-14, 0.0).unwrap();
    }
}

#[test]
fn the_divergence_is_that_of_the_label_and_the_teachers_share_of_that_of_the_rest() {
    // Zhao et al. 2022, §3.1: KL = KL(b) + (1 - p_label) KL(n).
    let (student, teacher) = (random(1, (4, 5)).unwrap(), (random(2, (4, 5)).unwrap() * 3.0).unwrap());
    let labels = Tensor::new(&[0u32, 4, 2, 2], CPU).unwrap();
    let part = |target, non_target| {
        let config = Decoupled { target, non_target, temperature: 1.0.into() };
        decoupled_divergence_rows(&student, &teacher, &labels, &config).unwrap()
    };
    let of_label = crate::ops::softmax(&teacher).unwrap().gather(&labels.unsqueeze(1).unwrap(), 1).unwrap();
    let rest = of_label.squeeze(1).unwrap().affine(-1.0, 1.0).unwrap();
    let sum = (part(1.0, 0.0) + (rest * part(0.0, 1.0)).unwrap()).unwrap();
    assert_close(&sum, &kl_divergence_rows(&student, &teacher, 1.0).unwrap(), 1e-12, 1e-12).unwrap();
}

#[test]
fn at_high_temperature_the_divergence_is_half_the_squared_difference_of_centred_logits() {
    // Hinton et al. 2015, §2.1; what is left is of the order of 1 / T.
    let (student, teacher) = (random(1, (4, 5)).unwrap(), random(2, (4, 5)).unwrap());
    let expected = (centred_logit_mse_rows(&student, &teacher).unwrap() * 0.5).unwrap();
    assert_close(&kl_divergence_rows(&student, &teacher, 1e4).unwrap(), &expected, 1e-3, 0.0).unwrap();
}

#[test]
fn the_only_path_is_the_label_and_all_paths_are_the_cross_entropy_of_two_crfs() {
    use crate::ops::crf;
    let (emissions, transitions) = (random(1, (5, 3)).unwrap(), random(2, (5, 3)).unwrap());
    let taught = ((random(3, (5, 3)).unwrap() * 3.0).unwrap(), random(4, (5, 3)).unwrap());
    let paths = crf::k_best(&taught.0, &taught.1, &[2, 3], 1).unwrap();
    let labels = Tensor::new(crf::viterbi(&taught.0, &taught.1, &[2, 3]).unwrap(), CPU).unwrap();
    let expected = crf::negative_log_likelihood(&emissions, &transitions, &labels, &[2, 3]).unwrap();
    for weights in [PathWeights::Uniform, PathWeights::Posterior] {
        let found = path_cross_entropy(&emissions, &transitions, &paths, weights).unwrap();
        assert_close(&found, &expected, 1e-14, 0.0).unwrap();
    }
    // With all paths, taught by itself: log Z - Σ p(y) s(y), the entropy, whose gradient with respect to the student is 0.
    let (emissions, transitions) = (Var::from_tensor(&emissions).unwrap(), Var::from_tensor(&transitions).unwrap());
    let paths = crf::k_best(&emissions, &transitions, &[2, 3], 27).unwrap();
    let loss = path_cross_entropy(&emissions, &transitions, &paths, PathWeights::Posterior).unwrap();
    assert!(loss.to_scalar::<f64>().unwrap() > 0.1);
    let gradients = loss.backward().unwrap();
    for variable in [&emissions, &transitions] {
        let gradient = gradients.get(variable).unwrap();
        assert_close(gradient, &gradient.zeros_like().unwrap(), 1e-13, 0.0).unwrap();
    }
}
