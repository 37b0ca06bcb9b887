//! The linear-chain CRF against enumeration of all paths, numbers worked by hand, PyTorch and finite differences.

use candle_core::{D, DType, Result, Tensor, Var};
use kd_core::nn::Crf;
use kd_core::ops::crf::{self, constrain, viterbi};
use kd_core::testing::{assert_all_variables_learn, assert_close, check_gradients, device, random};
use kd_core::variables::Variables;
use serde_json::Value;

fn random_crf(seed: u64, rows: usize, classes: usize) -> (Tensor, Tensor) {
    let emissions = (random(seed, (rows, classes)).unwrap() * 3.0).unwrap();
    (emissions, (random(seed + 1, (classes + 2, classes)).unwrap() * 2.0).unwrap())
}

fn scalar(tensor: &Tensor) -> f64 {
    tensor.to_dtype(DType::F64).unwrap().to_scalar().unwrap()
}

/// All label paths of one sequence with their scores.
fn all_paths(emissions: &Tensor, transitions: &Tensor) -> Vec<(Vec<u32>, f64)> {
    let (e, a) = (emissions.to_vec2::<f64>().unwrap(), transitions.to_vec2::<f64>().unwrap());
    let classes = a[0].len();
    let mut paths = vec![(Vec::new(), 0.0)];
    for row in &e {
        let longer = paths.iter().flat_map(|(path, score): &(Vec<u32>, f64)| {
            let from = path.last().map_or(&a[classes], |&last| &a[last as usize]);
            (0..classes).map(move |class| {
                let path = path.iter().copied().chain([class as u32]).collect();
                (path, score + from[class] + row[class])
            })
        });
        paths = longer.collect();
    }
    for (path, score) in &mut paths {
        *score += path.last().map_or(0.0, |&last| a[classes + 1][last as usize]);
    }
    paths
}

#[test]
fn everything_agrees_with_the_enumeration_of_all_paths() {
    for (classes, len) in [(3, 4), (3, 3), (2, 4), (3, 1), (1, 4), (1, 1)] {
        let (emissions, transitions) = random_crf(7 * classes as u64 + len as u64, len, classes);
        let paths = all_paths(&emissions, &transitions);
        let partition: f64 = paths.iter().map(|(_, score)| score.exp()).sum();
        let found = crf::log_partition(&emissions, &transitions, &[len]).unwrap();
        assert!((found.to_vec1::<f64>().unwrap()[0] - partition.ln()).abs() < 1e-12);

        let mut marginals = vec![0.0; len * classes];
        for (path, score) in &paths {
            for (t, &class) in path.iter().enumerate() {
                marginals[t * classes + class as usize] += score.exp() / partition;
            }
        }
        let found = crf::log_marginals(&emissions, &transitions, &[len]).unwrap().exp().unwrap();
        assert_close(&found, &Tensor::from_vec(marginals, (len, classes), device()).unwrap(), 1e-12, 0.0).unwrap();

        let best = paths.iter().max_by(|a, b| a.1.total_cmp(&b.1)).unwrap();
        assert_eq!(viterbi(&emissions, &transitions, &[len]).unwrap(), best.0);

        for (path, score) in paths.iter().step_by(5) {
            let labels = Tensor::new(path.as_slice(), device()).unwrap();
            let found = crf::path_scores(&emissions, &transitions, &labels, &[len]).unwrap();
            assert!((found.to_vec1::<f64>().unwrap()[0] - score).abs() < 1e-12);
            let found = crf::negative_log_likelihood(&emissions, &transitions, &labels, &[len]).unwrap();
            assert!((scalar(&found) - (partition.ln() - score) / len as f64).abs() < 1e-12);
        }
    }
}

#[test]
fn two_words_of_two_classes_by_hand() {
    // Weights e^score: word 1 (1, 2), word 2 (3, 1), class 0 to 0 doubles, ends add nothing. Paths
    // 00: 1·2·3 = 6, 01: 1·1 = 1, 10: 2·3 = 6, 11: 2·1 = 2; Z = 15. Word 1 is 0 with 7/15, word 2 with 12/15.
    let log = |x: f64| x.ln();
    let emissions = Tensor::new(&[[0.0, log(2.0)], [log(3.0), 0.0]], device()).unwrap();
    let transitions = Tensor::new(&[[log(2.0), 0.0], [0.0; 2], [0.0; 2], [0.0; 2]], device()).unwrap();
    let log_partition = crf::log_partition(&emissions, &transitions, &[2]).unwrap();
    assert!((log_partition.to_vec1::<f64>().unwrap()[0] - log(15.0)).abs() < 1e-14);
    let marginals = crf::log_marginals(&emissions, &transitions, &[2]).unwrap().exp().unwrap();
    let expected = (Tensor::new(&[[7.0, 8.0], [12.0, 3.0]], device()).unwrap() / 15.0).unwrap();
    assert_close(&marginals, &expected, 1e-14, 0.0).unwrap();
    // 00 and 10 are equally good: the lowest class wins.
    assert_eq!(viterbi(&emissions, &transitions, &[2]).unwrap(), [0, 0]);
    // Two sequences of one word: -log(2/3) and -log(3/4), over two rows.
    let labels = Tensor::new(&[1u32, 0], device()).unwrap();
    let loss = crf::negative_log_likelihood(&emissions, &transitions, &labels, &[1, 1]).unwrap();
    assert!((scalar(&loss) - log(2.0) / 2.0).abs() < 1e-14); // log(3/2) + log(4/3) = log 2
}

#[test]
fn equal_scores_give_the_lowest_class() {
    let zeros = |shape: (usize, usize)| Tensor::zeros(shape, DType::F32, device()).unwrap();
    assert_eq!(viterbi(&zeros((4, 3)), &zeros((5, 3)), &[3, 1]).unwrap(), [0; 4]);
}

#[test]
fn gradients_are_right() {
    let lengths = [2, 0, 1, 4];
    let (emissions, transitions) = random_crf(31, 7, 3);
    let labels = Tensor::new(&[0u32, 2, 1, 1, 2, 2, 0], device()).unwrap();
    let inputs = [emissions, transitions];
    let check = |f: &dyn Fn(&Tensor, &Tensor) -> Result<Tensor>| {
        check_gradients(|x| f(&x[0], &x[1]), &inputs, 1e-7).unwrap();
    };
    check(&|e, a| crf::log_partition(e, a, &lengths));
    check(&|e, a| crf::path_scores(e, a, &labels, &lengths));
    check(&|e, a| crf::negative_log_likelihood_sequences(e, a, &labels, &lengths));
    check(&|e, a| crf::negative_log_likelihood(e, a, &labels, &lengths));
    check(&|e, a| crf::log_marginals(e, a, &lengths));
    check(&|e, a| crf::log_partition(e, &constrain(a, |from, to| from != Some(0) || to != Some(1))?, &lengths));
    // A gradient that arrives through a stride.
    check(&|e, a| crf::log_marginals(e, a, &lengths)?.t()?.sqr());
    check(&|e, a| crf::log_partition(&e.t()?.contiguous()?.t()?, a, &lengths)?.sqr());
}

#[test]
fn many_classes_agree_with_one_path_at_a_time() {
    // The kernels take eight classes together, so: less, exactly, more, and an odd number of whole eights.
    for classes in [7, 8, 9, 17, 24] {
        let lengths = [3, 0, 2];
        let (emissions, transitions) = random_crf(40 + classes as u64, 5, classes);
        let found = crf::log_partition(&emissions, &transitions, &lengths).unwrap().to_vec1::<f64>().unwrap();
        for (idx, (row, len)) in [(0, 3), (3, 2)].into_iter().enumerate() {
            let paths = all_paths(&emissions.narrow(0, row, len).unwrap(), &transitions);
            let partition: f64 = paths.iter().map(|(_, score)| score.exp()).sum();
            assert!((found[2 * idx] - partition.ln()).abs() < 1e-12, "{classes} classes");
        }
        let inputs = [emissions, transitions];
        check_gradients(|x| crf::log_partition(&x[0], &x[1], &lengths), &inputs, 1e-7).unwrap();
        check_gradients(|x| crf::log_marginals(&x[0], &x[1], &lengths), &inputs, 1e-7).unwrap();
    }
}

#[test]
fn a_class_reached_only_from_an_impossible_one_stays_exact() {
    // Class 8 follows class 0 only, whose first emission is 2000 below the others: next to their sum it underflows.
    let (emissions, transitions) = random_crf(50, 3, 9);
    let mut penalties = vec![0.0; 27];
    penalties[0] = -2000.0;
    let emissions = (emissions + Tensor::from_vec(penalties, (3, 9), device()).unwrap()).unwrap();
    let constrained = |a: &Tensor| constrain(a, |from, to| to != Some(8) || from == Some(0));
    let log_marginals = crf::log_marginals(&emissions, &constrained(&transitions).unwrap(), &[3]).unwrap();
    // Paths through class 8 at the second word score about 2000 less, and those of the third word do not.
    let found = log_marginals.to_vec2::<f64>().unwrap();
    assert!((-2020.0..-1980.0).contains(&found[1][8]) && (-20.0..0.0).contains(&found[2][8]), "{found:?}");
    let inputs = [emissions, transitions];
    check_gradients(|x| crf::log_partition(&x[0], &constrained(&x[1])?, &[3]), &inputs, 1e-7).unwrap();
    check_gradients(|x| crf::log_marginals(&x[0], &constrained(&x[1])?, &[3]), &inputs, 1e-6).unwrap();
}

#[test]
fn everything_agrees_with_pytorch() {
    let reference: Value = serde_json::from_str(include_str!("reference/crf.json")).unwrap();
    let tensor = |value: &Value| {
        let shape: Vec<usize> = serde_json::from_value(value["shape"].clone()).unwrap();
        Tensor::from_vec(serde_json::from_value::<Vec<f64>>(value["values"].clone()).unwrap(), shape, device()).unwrap()
    };
    let lengths: Vec<usize> = serde_json::from_value(reference["lengths"].clone()).unwrap();
    let labels: Vec<u32> = serde_json::from_value(reference["labels"].clone()).unwrap();
    let labels = Tensor::new(labels, device()).unwrap();
    for (dtype, tolerance) in [(DType::F64, 1e-12), (DType::F32, 2e-5)] {
        let get = |name: &str| tensor(&reference[name]).to_dtype(dtype).unwrap();
        let variable = |name: &str| Var::from_tensor(&get(name)).unwrap();
        let (e, a) = (variable("emissions"), variable("transitions"));
        let per_sequence = |value: Tensor| (&value * get("sequence_weights")).unwrap().sum_all().unwrap();
        let log_partition = crf::log_partition(&e, &a, &lengths).unwrap();
        let path_scores = crf::path_scores(&e, &a, &labels, &lengths).unwrap();
        let loss = crf::negative_log_likelihood(&e, &a, &labels, &lengths).unwrap();
        let log_marginals = crf::log_marginals(&e, &a, &lengths).unwrap();
        let weighted = (&log_marginals * get("row_weights")).unwrap().sum_all().unwrap();
        for (name, value, scalar) in [
            ("log_partition", &log_partition, per_sequence(log_partition.clone())),
            ("path_scores", &path_scores, per_sequence(path_scores.clone())),
            ("negative_log_likelihood", &loss, loss.clone()),
            ("log_marginals", &log_marginals, weighted),
        ] {
            assert_close(value, &get(name), tolerance, tolerance).unwrap();
            let gradients = scalar.backward().unwrap();
            for (idx, variable) in [&e, &a].into_iter().enumerate() {
                let expected = tensor(&reference[format!("d_{name}")][idx]);
                let gradient = gradients.get(variable).unwrap();
                assert_eq!(gradient.dtype(), dtype);
                assert_close(gradient, &expected, tolerance, tolerance)
                    .unwrap_or_else(|error| panic!("{name}: {error}"));
            }
        }
    }
}

#[test]
fn extreme_emissions_stay_exact() {
    // The emissions demand 0 then 1, the transition costs 10⁴. Scores: 01: 10⁴, 00 and 11: 0, 10: -2·10⁴.
    let emissions = Var::new(&[[1e4f32, -1e4], [-1e4, 1e4]], device()).unwrap();
    let transitions = Tensor::zeros((4, 2), DType::F32, device()).unwrap();
    let transitions = constrain(&transitions, |from, to| (from, to) != (Some(0), Some(1))).unwrap();
    let transitions = Var::from_tensor(&transitions).unwrap();
    assert_eq!(viterbi(&emissions, &transitions, &[2]).unwrap(), [0, 1]);
    let log_partition = crf::log_partition(&emissions, &transitions, &[2]).unwrap();
    assert_eq!(log_partition.to_vec1::<f32>().unwrap(), [1e4]);
    let gradients = log_partition.backward().unwrap();
    let expected = [[0f32, 1.0], [0.0, 0.0], [1.0, 0.0], [0.0, 1.0]]; // the path 01 and nothing else
    assert_eq!(gradients.get(&transitions).unwrap().to_vec2::<f32>().unwrap(), expected);
    let log_marginals = crf::log_marginals(&emissions, &transitions, &[2]).unwrap();
    assert_eq!(log_marginals.to_vec2::<f32>().unwrap(), [[0.0, -1e4], [-1e4, 0.0]]);
    let gradients = log_marginals.sum_all().unwrap().backward().unwrap();
    for variable in [&emissions, &transitions] {
        let gradient: Vec<f32> = gradients.get(variable).unwrap().flatten_all().unwrap().to_vec1().unwrap();
        assert!(gradient.iter().all(|x| x.is_finite()), "{gradient:?}");
    }
    // Fifty words with scores of 10⁴ each, so a path scores 5·10⁵, whose neighbours in f32 are 0.03 apart. Each word's
    // own class is ahead by 5, so the loss is 50 · log(1 + e⁻⁵) over 50 rows.
    let emissions = Tensor::new(&[1e4f32, 1e4 - 5.0], device()).unwrap().repeat((50, 1)).unwrap();
    let transitions = Tensor::zeros((4, 2), DType::F32, device()).unwrap();
    let labels = Tensor::zeros(50, DType::U32, device()).unwrap();
    let loss = scalar(&crf::negative_log_likelihood(&emissions, &transitions, &labels, &[50]).unwrap());
    assert!((loss - (-5f64).exp().ln_1p()).abs() < 1e-8, "{loss}");
}

#[test]
fn impossible_and_undefined_emissions_are_not_hidden() {
    let transitions = Tensor::zeros((4, 2), DType::F64, device()).unwrap();
    let emissions = Var::new(&[[0.0, f64::NEG_INFINITY], [0.0, 0.0]], device()).unwrap();
    let log_partition = crf::log_partition(&emissions, &transitions, &[2]).unwrap();
    assert!((log_partition.to_vec1::<f64>().unwrap()[0] - 2f64.ln()).abs() < 1e-14);
    let gradients = log_partition.backward().unwrap();
    let expected = Tensor::new(&[[1.0, 0.0], [0.5, 0.5]], device()).unwrap();
    assert_close(gradients.get(&emissions).unwrap(), &expected, 1e-14, 0.0).unwrap();
    let emissions = Tensor::new(&[[f64::NAN, 0.0], [0.0, 0.0]], device()).unwrap();
    assert!(crf::log_partition(&emissions, &transitions, &[2]).unwrap().to_vec1::<f64>().unwrap()[0].is_nan());
}

#[test]
fn one_class_and_no_words_work() {
    let (emissions, transitions) = random_crf(3, 3, 1);
    let labels = Tensor::zeros(3, DType::U32, device()).unwrap();
    let zeros = |shape: &[usize]| Tensor::zeros(shape, DType::F64, device()).unwrap();
    let marginals = crf::log_marginals(&emissions, &transitions, &[2, 0, 1]).unwrap();
    assert_close(&marginals, &zeros(&[3, 1]), 1e-14, 0.0).unwrap();
    let losses = crf::negative_log_likelihood_sequences(&emissions, &transitions, &labels, &[2, 0, 1]).unwrap();
    assert_close(&losses, &zeros(&[3]), 1e-14, 0.0).unwrap();
    assert_eq!(viterbi(&emissions, &transitions, &[2, 0, 1]).unwrap(), [0; 3]);

    let (none, labels) = (zeros(&[0, 1]), Tensor::zeros(0, DType::U32, device()).unwrap());
    for lengths in [&[][..], &[0, 0]] {
        let expected = vec![0.0; lengths.len()];
        assert_eq!(crf::log_partition(&none, &transitions, lengths).unwrap().to_vec1::<f64>().unwrap(), expected);
        let scores = crf::path_scores(&none, &transitions, &labels, lengths).unwrap();
        assert_eq!(scores.to_vec1::<f64>().unwrap(), expected);
        assert_eq!(crf::log_marginals(&none, &transitions, lengths).unwrap().dims(), [0, 1]);
        assert!(viterbi(&none, &transitions, lengths).unwrap().is_empty());
        assert!(crf::negative_log_likelihood(&none, &transitions, &labels, lengths).is_err());
    }
}

/// Values and gradients of everything for many sequences, in f32.
fn all_values(emissions: &Tensor, transitions: &Tensor, labels: &Tensor, lengths: &[usize]) -> Vec<Vec<f32>> {
    let (e, a) = (Var::from_tensor(emissions).unwrap(), Var::from_tensor(transitions).unwrap());
    let losses = crf::negative_log_likelihood_sequences(&e, &a, labels, lengths).unwrap();
    let log_marginals = crf::log_marginals(&e, &a, lengths).unwrap();
    let total = (losses.sum_all().unwrap() + log_marginals.sqr().unwrap().sum_all().unwrap()).unwrap();
    let gradients = total.backward().unwrap();
    let (d_e, d_a) = (gradients.get(&e).unwrap(), gradients.get(&a).unwrap());
    [&losses, &log_marginals, d_e, d_a].map(|t| t.flatten_all().unwrap().to_vec1().unwrap()).to_vec()
}

#[test]
fn the_number_of_threads_changes_no_byte() {
    let lengths: Vec<usize> = (0..41).map(|idx| idx * 7 % 13).collect();
    let rows = lengths.iter().sum();
    let (emissions, transitions) = random_crf(5, rows, 9);
    let emissions = emissions.to_dtype(DType::F32).unwrap();
    let transitions = transitions.to_dtype(DType::F32).unwrap();
    let labels = emissions.argmin(D::Minus1).unwrap();
    let run = |threads| {
        let pool = rayon::ThreadPoolBuilder::new().num_threads(threads).build().unwrap();
        pool.install(|| {
            let values = all_values(&emissions, &transitions, &labels, &lengths);
            (values, viterbi(&emissions, &transitions, &lengths).unwrap())
        })
    };
    let expected = run(1);
    assert!(run(2) == expected && run(4) == expected);
}

#[test]
fn the_order_of_sequences_changes_nothing() {
    let (emissions, transitions) = random_crf(6, 7, 3);
    let pieces =
        [emissions.narrow(0, 0, 2).unwrap(), emissions.narrow(0, 2, 4).unwrap(), emissions.narrow(0, 6, 1).unwrap()];
    let swapped = Tensor::cat(&[&pieces[2], &pieces[0], &pieces[1]], 0).unwrap();
    let values = |e, lengths: &[usize]| crf::log_partition(e, &transitions, lengths).unwrap().to_vec1::<f64>().unwrap();
    let (a, b) = (values(&emissions, &[2, 4, 1]), values(&swapped, &[1, 2, 4]));
    assert_eq!([a[2], a[0], a[1]], [b[0], b[1], b[2]]);
    let marginals = crf::log_marginals(&swapped, &transitions, &[1, 2, 4]).unwrap();
    let alone = crf::log_marginals(&pieces[1], &transitions, &[4]).unwrap();
    assert_close(&marginals.narrow(0, 3, 4).unwrap(), &alone, 0.0, 0.0).unwrap();
}

#[test]
fn constrained_paths_are_well_formed() {
    // O, B-x, I-x, B-y, I-y: an I follows the B or I of its own kind.
    let allowed = |from: Option<usize>, to: Option<usize>| match to {
        Some(inside @ (2 | 4)) => from == Some(inside - 1) || from == Some(inside),
        _ => true,
    };
    let (emissions, transitions) = random_crf(8, 60, 5);
    let constrained = constrain(&transitions, allowed).unwrap();
    let lengths = [20, 1, 39];
    let wrong = |labels: &[u32]| {
        let (mut row, mut wrong) = (0, 0);
        for len in lengths {
            let labels = &labels[row..row + len];
            let before = std::iter::once(None).chain(labels.iter().map(|&label| Some(label as usize)));
            wrong += labels.iter().zip(before).filter(|&(&label, from)| !allowed(from, Some(label as usize))).count();
            row += len;
        }
        wrong
    };
    assert!(wrong(&viterbi(&emissions, &transitions, &lengths).unwrap()) > 0);
    assert_eq!(wrong(&viterbi(&emissions, &constrained, &lengths).unwrap()), 0);
    // Only what is forbidden changes, and by the stated penalty.
    let change = (constrained - transitions).unwrap().to_vec2::<f64>().unwrap();
    assert!((change[5][2] - crf::FORBIDDEN).abs() < 1e-9 && (change[0][4] - crf::FORBIDDEN).abs() < 1e-9);
    assert_eq!((change[1][2], change[2][2], change[6][2], change[5][1]), (0.0, 0.0, 0.0, 0.0));
    // The end can be forbidden too.
    let ends = constrain(&Tensor::zeros((3, 1), DType::F32, device()).unwrap(), |_, to| to.is_some()).unwrap();
    assert_eq!(ends.to_vec2::<f32>().unwrap(), [[0.0], [0.0], [-1e4]]);
}

#[test]
fn transitions_learn_and_start_small() {
    for dtype in [DType::F32, DType::F64] {
        let variables = Variables::new(3, dtype, device());
        let layer = Crf::new(4, variables.builder().pp("crf")).unwrap();
        assert_eq!(variables.named()[0].0, "crf.transitions");
        let start = layer.transitions().abs().unwrap().flatten_all().unwrap().max(0).unwrap();
        assert!((0.05..=0.1).contains(&scalar(&start)));
        let emissions = random_crf(9, 5, 4).0.to_dtype(dtype).unwrap();
        let labels = Tensor::new(&[0u32, 1, 2, 3, 0], device()).unwrap();
        let loss = layer.negative_log_likelihood(&emissions, &labels, &[3, 2]).unwrap();
        assert_all_variables_learn(&variables, &loss).unwrap();
        let log_marginals = layer.log_marginals(&emissions, &[3, 2]).unwrap();
        assert_all_variables_learn(&variables, &log_marginals.sqr().unwrap().sum_all().unwrap()).unwrap();
    }
}

#[test]
fn errors_name_what_does_not_fit() {
    let (e, a) = random_crf(1, 3, 2);
    let labels = |labels: &[u32]| Tensor::new(labels, device()).unwrap();
    let message = |result: Result<Tensor>| result.unwrap_err().to_string();
    assert!(message(crf::log_partition(&e, &a, &[2])).contains("lengths sum to 2, expected the 3 rows"));
    assert!(message(crf::log_partition(&e, &a.narrow(0, 0, 3).unwrap(), &[3])).contains("[4, 2], found [3, 2]"));
    assert!(message(crf::path_scores(&e, &a, &labels(&[0, 2, 1]), &[3])).contains("label of row 1 is 2"));
    assert!(message(crf::path_scores(&e, &a, &labels(&[0, 1]), &[3])).contains("shape [3], found [2]"));
    assert!(message(constrain(&e, |_, _| true)).contains("[4, 2], found [3, 2]"));
    assert!(Crf::new(0, Variables::new(0, DType::F32, device()).builder()).is_err());
}
