//! What must not change a loss on representations, what it says of degenerate inputs, and that projections learn.

use candle_core::{DType, Result, Tensor, Var};
use kd_core::batch::{Sequence, pad};
use kd_core::losses::{self, LayerByLayer, LayerMap, Projection, SelectivityKernel};
use kd_core::model::Output;
use kd_core::testing::{assert_all_variables_learn, assert_close, device, random};
use kd_core::variables::Variables;

type Loss = fn(&Tensor, &Tensor) -> Result<Tensor>;
type MaskedLoss = fn(&Tensor, &Tensor, &Tensor) -> Result<Tensor>;

/// Losses of `(rows, width)` with a value per row.
const OF_ROWS: [(&str, Loss); 3] = [
    ("hidden_mse", losses::hidden_mse_rows),
    ("hidden_cosine", losses::hidden_cosine_rows),
    ("normalised_distance", losses::normalised_distance_rows),
];

/// Losses of `(rows, width)` that are relations between rows.
const OF_BATCHES: [(&str, Loss); 3] = [
    ("relational_distance", losses::relational_distance),
    ("relational_angle", losses::relational_angle),
    ("similarity_preserving", losses::similarity_preserving),
];

/// Losses of `(batch, len, width)` and a mask, with a value per example.
const OF_SEQUENCES: [(&str, MaskedLoss); 5] = [
    ("relation_kl", |s, t, mask| losses::relation_kl_rows((s, s), (t, t), 2, mask)),
    ("self_relations_kl", |s, t, mask| losses::self_relations_kl_rows([s, s, s], [t, t, t], 2, mask)),
    ("flow_mse", |s, t, mask| losses::flow_mse_rows((s, s), (t, t), mask)),
    ("neuron_selectivity, linear", |s, t, mask| losses::neuron_selectivity_rows(s, t, SelectivityKernel::Linear, mask)),
    ("neuron_selectivity, polynomial", |s, t, mask| {
        losses::neuron_selectivity_rows(s, t, SelectivityKernel::Polynomial, mask)
    }),
];

/// Losses of `(batch, heads, len, len)` and a mask, with a value per example; probabilities suit both.
const OF_ATTENTION: [(&str, MaskedLoss); 2] =
    [("attention_mse", losses::attention_mse_rows), ("attention_kl", losses::attention_kl_rows)];

/// Value and gradient of the student.
fn with_gradient(student: &Tensor, f: impl Fn(&Tensor) -> Result<Tensor>) -> Result<(Tensor, Tensor)> {
    let variable = Var::from_tensor(&student.copy()?)?;
    let value = f(&variable)?;
    let gradients = value.sum_all()?.backward()?;
    let gradient = gradients.get(&variable).expect("the student has a gradient").clone();
    Ok((value.detach(), gradient))
}

fn finite(x: &Tensor) -> bool {
    let values: Vec<f64> = x.to_dtype(DType::F64).unwrap().flatten_all().unwrap().to_vec1().unwrap();
    values.iter().all(|x| x.is_finite())
}

fn scalar(x: &Tensor) -> f64 {
    x.to_dtype(DType::F64).unwrap().sum_all().unwrap().to_scalar().unwrap()
}

/// Masks of examples with these numbers of tokens.
fn mask(lengths: &[usize], len: usize) -> Tensor {
    let values = lengths.iter().flat_map(|&tokens| (0..len).map(move |idx| u8::from(idx < tokens)));
    Tensor::from_vec(values.collect::<Vec<_>>(), (lengths.len(), len), device()).unwrap()
}

/// An orthogonal matrix: the reflection at the plane orthogonal to a random vector.
fn rotation(width: usize) -> Tensor {
    let v = random(77, (width, 1)).unwrap();
    let scale = 2. / scalar(&v.sqr().unwrap());
    let outer = (v.matmul(&v.t().unwrap()).unwrap() * scale).unwrap();
    (Tensor::eye(width, DType::F64, device()).unwrap() - outer).unwrap()
}

fn permuted(x: &Tensor, dim: usize) -> Tensor {
    let order: Vec<u32> = (0..x.dim(dim).unwrap() as u32).rev().collect();
    x.index_select(&Tensor::new(order, device()).unwrap(), dim).unwrap()
}

/// `x` with `len` longer by two positions of `value`, in the dimensions given.
fn longer(x: &Tensor, dims: &[usize], value: f64) -> Tensor {
    dims.iter().fold(x.clone(), |x, &dim| {
        let mut shape = x.dims().to_vec();
        shape[dim] = 2;
        let padding = (Tensor::ones(shape, DType::F64, device()).unwrap() * value).unwrap();
        Tensor::cat(&[&x, &padding], dim).unwrap()
    })
}

fn attention(seed: u64, mask: &Tensor) -> Tensor {
    let (batch, len) = mask.dims2().unwrap();
    let q = random(seed, (batch, len, 4)).unwrap();
    kd_core::ops::attention_probs(&(&q * 3.).unwrap(), &q, 2, mask).unwrap()
}

#[test]
fn more_padding_changes_neither_values_nor_gradients() {
    let lengths = [3, 1, 2];
    let (short, long) = (mask(&lengths, 3), mask(&lengths, 5));
    let check = |name: &str, loss: MaskedLoss, dims: &[usize], student: &Tensor, teacher: &Tensor| {
        let (expected, gradient) = with_gradient(student, |s| loss(s, teacher, &short)).unwrap();
        assert_eq!(expected.dims(), [3], "{name}");
        // What stands on padding is not looked at, whatever it is.
        for value in [0., 1e3, f64::NEG_INFINITY, f64::NAN] {
            let (s, t) = (longer(student, dims, value), longer(teacher, dims, value));
            let (found, with_padding) = with_gradient(&s, |s| loss(s, &t, &long)).unwrap();
            assert_close(&found, &expected, 1e-14, 1e-13).unwrap_or_else(|error| panic!("{name}, {value}: {error}"));
            assert_close(&with_padding, &longer(&gradient, dims, 0.), 1e-14, 1e-12)
                .unwrap_or_else(|error| panic!("{name}, {value}, gradient: {error}"));
        }
    };
    let (student, teacher) = (random(1, (3, 3, 4)).unwrap(), random(2, (3, 3, 4)).unwrap());
    for (name, loss) in OF_SEQUENCES {
        check(name, loss, &[1], &student, &teacher);
    }
    for (name, loss) in OF_ATTENTION {
        check(name, loss, &[2, 3], &attention(3, &short), &attention(4, &short));
    }
}

#[test]
fn an_example_has_the_same_value_alone() {
    let mask = mask(&[3, 2], 3);
    let check = |name: &str, loss: MaskedLoss, student: &Tensor, teacher: &Tensor| {
        let together = loss(student, teacher, &mask).unwrap();
        for idx in 0..2 {
            let [s, t, m] = [student, teacher, &mask].map(|x| x.narrow(0, idx, 1).unwrap());
            let alone = loss(&s, &t, &m).unwrap();
            assert_close(&alone, &together.narrow(0, idx, 1).unwrap(), 1e-14, 1e-13)
                .unwrap_or_else(|error| panic!("{name}: {error}"));
        }
    };
    for (name, loss) in OF_SEQUENCES {
        check(name, loss, &random(1, (2, 3, 4)).unwrap(), &random(2, (2, 3, 4)).unwrap());
    }
    for (name, loss) in OF_ATTENTION {
        check(name, loss, &attention(3, &mask), &attention(4, &mask));
    }
}

#[test]
fn an_example_without_a_token_is_zero() {
    let mask = mask(&[2, 0], 2);
    for (name, loss) in OF_SEQUENCES {
        let (student, teacher) = (random(1, (2, 2, 4)).unwrap(), random(2, (2, 2, 4)).unwrap());
        let (value, gradient) = with_gradient(&student, |s| loss(s, &teacher, &mask)).unwrap();
        assert_eq!(value.to_vec1::<f64>().unwrap()[1], 0., "{name}");
        assert!(finite(&gradient), "{name}");
    }
    for (name, loss) in OF_ATTENTION {
        let value = loss(&attention(3, &mask), &attention(4, &mask), &mask).unwrap();
        assert_eq!(value.to_vec1::<f64>().unwrap()[1], 0., "{name}");
    }
}

#[test]
fn the_order_of_rows_does_not_matter() {
    let (student, teacher) = (random(1, (5, 4)).unwrap(), random(2, (5, 4)).unwrap());
    for (name, loss) in OF_ROWS {
        let found = loss(&permuted(&student, 0), &permuted(&teacher, 0)).unwrap();
        assert_close(&found, &permuted(&loss(&student, &teacher).unwrap(), 0), 0., 0.)
            .unwrap_or_else(|error| panic!("{name}: {error}"));
    }
    for (name, loss) in OF_BATCHES {
        let expected = loss(&student, &teacher).unwrap();
        let found = loss(&permuted(&student, 0), &permuted(&teacher, 0)).unwrap();
        assert_close(&found, &expected, 1e-13, 1e-13).unwrap_or_else(|error| panic!("{name}: {error}"));
        let other = loss(&permuted(&student, 0), &teacher).unwrap();
        assert!((scalar(&other) - scalar(&expected)).abs() > 1e-3, "{name}: rows belong together");
    }
    let mask = mask(&[3, 3], 3);
    let (student, teacher) = (random(1, (2, 3, 4)).unwrap(), random(2, (2, 3, 4)).unwrap());
    for (name, loss) in OF_SEQUENCES {
        let found = loss(&permuted(&student, 1), &permuted(&teacher, 1), &mask).unwrap();
        assert_close(&found, &loss(&student, &teacher, &mask).unwrap(), 1e-13, 1e-13)
            .unwrap_or_else(|error| panic!("{name}: {error}"));
    }
}

#[test]
fn rotations_of_the_student_change_no_relation() {
    let (student, teacher) = (random(1, (5, 4)).unwrap(), random(2, (5, 3)).unwrap());
    for (name, loss) in OF_BATCHES {
        let rotated = student.matmul(&rotation(4)).unwrap();
        assert_close(&loss(&rotated, &teacher).unwrap(), &loss(&student, &teacher).unwrap(), 1e-12, 1e-12)
            .unwrap_or_else(|error| panic!("{name}: {error}"));
    }
    let (student, teacher) = (random(1, (2, 3, 4)).unwrap(), random(2, (2, 3, 6)).unwrap());
    let (key, mask) = (random(3, (2, 3, 4)).unwrap(), mask(&[3, 2], 3));
    let rotated = |x: &Tensor| x.broadcast_matmul(&rotation(4)).unwrap();
    let loss = |a: &Tensor, b: &Tensor| losses::relation_kl_rows((a, b), (&teacher, &teacher), 1, &mask).unwrap();
    assert_close(&loss(&rotated(&student), &rotated(&key)), &loss(&student, &key), 1e-12, 1e-12).unwrap();
}

#[test]
fn scales_that_a_loss_does_not_see() {
    let (student, teacher) = (random(1, (5, 4)).unwrap(), random(2, (5, 4)).unwrap());
    for (name, loss) in OF_ROWS.into_iter().skip(1).chain(OF_BATCHES) {
        let (s, t) = ((&student * 7.).unwrap(), (&teacher * 0.2).unwrap());
        assert_close(&loss(&s, &t).unwrap(), &loss(&student, &teacher).unwrap(), 1e-12, 1e-12)
            .unwrap_or_else(|error| panic!("{name}: {error}"));
    }
    // Each neuron for itself, and their order.
    let (student, teacher) = (random(1, (2, 3, 4)).unwrap(), random(2, (2, 3, 5)).unwrap());
    let scales = Tensor::new(&[1f64, 0.1, 30., 2.], device()).unwrap();
    for (name, loss) in &OF_SEQUENCES[3..] {
        let found = loss(&permuted(&student.broadcast_mul(&scales).unwrap(), 2), &teacher, &mask(&[3, 2], 3)).unwrap();
        assert_close(&found, &loss(&student, &teacher, &mask(&[3, 2], 3)).unwrap(), 1e-12, 1e-12)
            .unwrap_or_else(|error| panic!("{name}: {error}"));
    }
}

#[test]
fn a_student_that_is_its_teacher_has_no_loss() {
    let check = |name: &str, x: &Tensor, loss: &dyn Fn(&Tensor) -> Result<Tensor>| {
        let (value, gradient) = with_gradient(x, loss).unwrap();
        assert_close(&value, &value.zeros_like().unwrap(), 1e-14, 0.).unwrap_or_else(|error| panic!("{name}: {error}"));
        // attention_kl's gradient is that of probabilities not yet known to sum to 1.
        if name != "attention_kl" {
            assert_close(&gradient, &x.zeros_like().unwrap(), 1e-13, 0.)
                .unwrap_or_else(|error| panic!("{name}, gradient: {error}"));
        }
    };
    let rows = random(1, (5, 4)).unwrap();
    for (name, loss) in OF_ROWS.into_iter().chain(OF_BATCHES) {
        check(name, &rows, &|s| loss(s, &rows));
    }
    let (sequences, mask) = (random(2, (2, 3, 4)).unwrap(), mask(&[3, 2], 3));
    for (name, loss) in OF_SEQUENCES {
        check(name, &sequences, &|s| loss(s, &sequences, &mask));
    }
    let maps = attention(3, &mask);
    for (name, loss) in OF_ATTENTION {
        check(name, &maps, &|s| loss(s, &maps, &mask));
    }
}

#[test]
fn equal_rows_and_zeros_give_numbers() {
    let zeros = Tensor::zeros((4, 3), DType::F64, device()).unwrap();
    let equal = Tensor::ones((4, 3), DType::F64, device()).unwrap();
    let half = Tensor::cat(&[&zeros, &random(1, (2, 3)).unwrap()], 0).unwrap();
    let degenerate = [zeros.clone(), equal, half.narrow(0, 2, 4).unwrap()];
    for (name, loss) in OF_ROWS.into_iter().chain(OF_BATCHES) {
        for student in &degenerate {
            for teacher in degenerate.iter().chain([&random(2, (4, 3)).unwrap()]) {
                let (value, gradient) = with_gradient(student, |s| loss(s, teacher)).unwrap();
                assert!(finite(&value) && finite(&gradient), "{name}: {student} and {teacher}");
            }
        }
    }
    let mask = mask(&[4], 4);
    for (name, loss) in OF_SEQUENCES {
        for student in &degenerate {
            // Widths that two relation heads divide.
            let of = |x: &Tensor| Tensor::cat(&[x, x], 1).unwrap().unsqueeze(0).unwrap();
            for teacher in &degenerate {
                let (value, gradient) = with_gradient(&of(student), |s| loss(s, &of(teacher), &mask)).unwrap();
                assert!(finite(&value) && finite(&gradient), "{name}: {student} and {teacher}");
            }
        }
    }
    // A zero vector is at right angles to everything, and at distance 1 from every direction.
    let teacher = random(2, (4, 3)).unwrap();
    for (name, loss) in &OF_ROWS[1..] {
        assert_close(&loss(&zeros, &teacher).unwrap(), &Tensor::ones(4, DType::F64, device()).unwrap(), 1e-15, 0.)
            .unwrap_or_else(|error| panic!("{name}: {error}"));
    }
}

#[test]
fn rows_that_coincide_have_no_distance_and_a_right_angle() {
    // The teacher's rows are the corners of a triangle of equal sides: relative distances 1, cosines 1/2.
    let teacher = Tensor::eye(3, DType::F64, device()).unwrap();
    let one_place = Tensor::ones((3, 2), DType::F64, device()).unwrap();
    assert!((scalar(&losses::relational_distance(&one_place, &teacher).unwrap()) - 0.5).abs() < 1e-14);
    assert!((scalar(&losses::relational_angle(&one_place, &teacher).unwrap()) - 0.125).abs() < 1e-14);
    // Relative distances 0, 3/2 and 3/2. Cosines 0 at the two that coincide and 1 at the third.
    let two_places = Tensor::new(&[[1f64, 1.], [1., 1.], [2., 1.]], device()).unwrap();
    let by_hand = (0.5 + 0.125 + 0.125) / 3.;
    assert!((scalar(&losses::relational_distance(&two_places, &teacher).unwrap()) - by_hand).abs() < 1e-14);
    assert!((scalar(&losses::relational_angle(&two_places, &teacher).unwrap()) - 0.125).abs() < 1e-14);
}

#[test]
fn sure_teachers_and_students_give_finite_divergences() {
    let mask = mask(&[2], 2);
    let sure = Tensor::new(&[[[[1f32, 0.], [0., 1.]]]], device()).unwrap();
    let (value, gradient) =
        with_gradient(&sure, |s| losses::attention_kl(s, &sure.flip(&[3])?.contiguous()?, &mask)).unwrap();
    // ln 1 - ln of the smallest normal number, 2^-126.
    assert!((scalar(&value) - 126. * 2f64.ln()).abs() < 1e-3, "{value}");
    assert!(finite(&gradient), "{gradient}");
    let far = (random(1, (1, 2, 2)).unwrap() * 1e4).unwrap();
    let (value, gradient) =
        with_gradient(&far, |s| losses::relation_kl((s, s), (&far.neg()?, &far), 1, &mask)).unwrap();
    assert!(finite(&value) && finite(&gradient), "{value}");
}

#[test]
fn half_precision_is_computed_wider() {
    let wide = |x: &Tensor| x.to_dtype(DType::F64).unwrap();
    for dtype in [DType::F16, DType::BF16] {
        // Squares of 300 leave f16's range.
        let of = |seed, shape: &[usize]| (random(seed, shape).unwrap() * 300.).unwrap().to_dtype(dtype).unwrap();
        for (name, loss) in OF_ROWS.into_iter().skip(1).chain(OF_BATCHES) {
            let (s, t) = (of(1, &[5, 4]), of(2, &[5, 4]));
            let (value, gradient) = with_gradient(&s, |s| loss(s, &t)).unwrap();
            assert!(value.dtype() == dtype && gradient.dtype() == dtype && finite(&gradient), "{name}");
            assert_close(&value, &loss(&wide(&s), &wide(&t)).unwrap(), 1e-3, 1e-2)
                .unwrap_or_else(|error| panic!("{name}, {dtype:?}: {error}"));
        }
        let mask = mask(&[3, 2], 3);
        for (name, loss) in OF_SEQUENCES {
            let (s, t) = ((of(1, &[2, 3, 4]) / 200.).unwrap(), (of(2, &[2, 3, 4]) / 200.).unwrap());
            let value = loss(&s, &t, &mask).unwrap();
            assert_eq!(value.dtype(), dtype);
            assert_close(&value, &loss(&wide(&s), &wide(&t), &mask).unwrap(), 1e-3, 1e-2)
                .unwrap_or_else(|error| panic!("{name}, {dtype:?}: {error}"));
        }
        for (name, loss) in OF_ATTENTION {
            let (s, t) = (attention(3, &mask).to_dtype(dtype).unwrap(), attention(4, &mask).to_dtype(dtype).unwrap());
            let value = loss(&s, &t, &mask).unwrap();
            assert_close(&value, &loss(&wide(&s), &wide(&t), &mask).unwrap(), 1e-3, 1e-2)
                .unwrap_or_else(|error| panic!("{name}, {dtype:?}: {error}"));
        }
        // A teacher that was stored in half precision and a student that was not.
        let value = losses::hidden_mse(&wide(&of(1, &[2, 3])), &of(2, &[2, 3])).unwrap();
        assert_eq!(value.dtype(), DType::F64);
    }
}

/// An output of two layers that depends on `seed`.
fn output(seed: u64, layers: usize, width: usize, mask: &Tensor) -> Output {
    let (batch, len) = mask.dims2().unwrap();
    let hidden = (0..=layers as u64).map(|idx| random(seed + idx, (batch, len, width)).unwrap()).collect();
    let attention = (0..layers as u64).map(|idx| attention(seed + 10 + idx, mask)).collect();
    Output { hidden, attention, ..Output::from_logits(random(seed + 20, (batch, 2)).unwrap()) }
}

fn sequence() -> Sequence {
    pad(&[vec![1, 2, 3], vec![4]], device()).unwrap()
}

#[test]
fn projections_learn() {
    let variables = Variables::new(1, DType::F64, device());
    let projection = Projection::new(3, 5, variables.builder()).unwrap();
    let (student, teacher) = (random(1, (4, 3)).unwrap(), random(2, (4, 5)).unwrap());
    for (_, loss) in OF_ROWS {
        let loss = loss(&projection.forward(&student).unwrap(), &teacher).unwrap();
        assert_all_variables_learn(&variables, &loss).unwrap();
    }
    let variables = Variables::new(1, DType::F64, device());
    let pairs = LayerMap::UniformWithEmbeddings.pairs(2, 4).unwrap();
    let matching = LayerByLayer::new(pairs, 3, 5, 1., variables.builder()).unwrap();
    let sequence = sequence();
    let (student, teacher) = (output(1, 2, 3, &sequence.mask), output(50, 4, 5, &sequence.mask));
    let losses = matching.losses(&student, &teacher, &sequence, &sequence.token_rows().unwrap()).unwrap();
    assert_all_variables_learn(&variables, &losses.intermediate().unwrap()).unwrap();
    let names: Vec<_> = variables.named().into_iter().map(|(name, _)| name).collect();
    assert_eq!(names, ["embeddings.weight", "hidden.weight"]);
}

#[test]
fn only_what_is_mapped_is_compared() {
    let sequence = sequence();
    let (student, teacher) = (output(1, 2, 3, &sequence.mask), output(50, 4, 5, &sequence.mask));
    let losses = |pairs: &[(usize, usize)]| {
        let variables = Variables::new(1, DType::F64, device());
        let matching = LayerByLayer::new(pairs.to_vec(), 3, 5, 1., variables.builder()).unwrap();
        (matching.losses(&student, &teacher, &sequence, &sequence.token_rows().unwrap()).unwrap(), variables)
    };
    let (only_embeddings, variables) = losses(&[(0, 0)]);
    assert!(only_embeddings.hidden.is_none() && only_embeddings.attention.is_none());
    assert_all_variables_learn(&variables, &only_embeddings.total().unwrap()).unwrap();
    let (only_layers, variables) = losses(&[(1, 2), (2, 4)]);
    assert!(only_layers.embeddings.is_none());
    assert_all_variables_learn(&variables, &only_layers.total().unwrap()).unwrap();
    // Two layers are the sum of each: the projection is the same.
    let [first, second] = [losses(&[(1, 2)]).0, losses(&[(2, 4)]).0];
    for (both, one, other) in
        [(only_layers.hidden, first.hidden, second.hidden), (only_layers.attention, first.attention, second.attention)]
    {
        let sum = (one.unwrap() + other.unwrap()).unwrap();
        assert_close(&both.unwrap(), &sum, 1e-14, 0.).unwrap();
    }
}

#[test]
fn what_does_not_fit_is_an_error() {
    let x = |shape: &[usize]| random(1, shape).unwrap();
    let message = |result: Result<Tensor>| result.unwrap_err().to_string();
    let masks = mask(&[2], 2);
    let floats = masks.to_dtype(DType::F32).unwrap();
    let ids = Tensor::zeros((2, 2), DType::U32, device()).unwrap();
    let sequence = sequence();
    let (student, teacher) = (output(1, 2, 3, &sequence.mask), output(50, 4, 5, &sequence.mask));
    for (message, expected) in [
        (
            message(losses::hidden_mse(&x(&[2, 3]), &x(&[2, 4]))),
            "hidden_mse: expected two tensors (rows, width) of one",
        ),
        (message(losses::hidden_mse(&x(&[2, 3]), &x(&[2, 4]))), "found [2, 3] and [2, 4]"),
        (message(losses::hidden_cosine(&x(&[0, 3]), &x(&[0, 3]))), "hidden_cosine: expected values, found [0, 3]"),
        (message(losses::hidden_cosine(&x(&[2, 2]), &ids)), "the teacher has dtype U32"),
        (message(losses::relational_distance(&x(&[1, 3]), &x(&[1, 3]))), "expected at least 2 rows, found 1"),
        (message(losses::relational_angle(&x(&[2, 3]), &x(&[2, 3]))), "expected at least 3 rows, found 2"),
        (message(losses::similarity_preserving(&x(&[1, 3]), &x(&[1, 3]))), "expected at least 2 rows, found 1"),
        (message(losses::relational_distance(&x(&[2, 3]), &x(&[3, 3]))), "[2, 3] and [3, 3]"),
        (
            message(losses::attention_mse(&x(&[1, 2, 2, 2]), &x(&[1, 4, 2, 2]), &masks)),
            "found [1, 2, 2, 2] and [1, 4, 2, 2]",
        ),
        (message(losses::attention_kl(&x(&[1, 1, 2, 3]), &x(&[1, 1, 2, 3]), &masks)), "as many queries as keys"),
        (
            message(losses::attention_mse(&x(&[1, 1, 3, 3]), &x(&[1, 1, 3, 3]), &masks)),
            "expected a u8 mask [1, 3], found U8 [1, 2]",
        ),
        (message(OF_SEQUENCES[2].1(&x(&[1, 2, 4]), &x(&[1, 2, 4]), &floats)), "expected a u8 mask [1, 2], found F32"),
        (message(OF_SEQUENCES[2].1(&x(&[1, 2, 4]), &x(&[1, 2, 3]), &masks)), "flow_mse: expected two tensors"),
        (message(OF_SEQUENCES[0].1(&x(&[1, 2, 4]), &x(&[1, 2, 3]), &masks)), "the teacher's width 3, found 2"),
        (message(OF_SEQUENCES[3].1(&x(&[1, 2, 4]), &x(&[1, 3, 4]), &masks)), "each with its own width"),
        (message(losses::first_token_distance(&student, &teacher, &[])), "expected pairs of layers, found none"),
        (
            message(losses::first_token_distance(&student, &student, &[(3, 0)])),
            "the student has 3 hidden states, number 3 (from 0) was asked for",
        ),
    ] {
        assert!(message.contains(expected), "{message} lacks {expected}");
    }
    let variables = Variables::new(1, DType::F64, device());
    let matching = LayerByLayer::new(vec![(1, 2)], 3, 5, 1., variables.builder()).unwrap();
    let silent = Output { attention: vec![], ..student };
    let rows = sequence.token_rows().unwrap();
    let message = matching.losses(&silent, &teacher, &sequence, &rows).unwrap_err().to_string();
    assert!(message.contains("the student has 0 attention maps, number 0"), "{message}");
    assert!(LayerByLayer::new(vec![], 3, 5, 1., variables.builder()).is_err());
}

/// Run by itself in a process of each number of threads, because Candle asks the environment for it.
#[test]
fn bytes_do_not_depend_on_the_number_of_threads() {
    const PRINT: &str = "KD_PRINT_BYTES";
    if std::env::var(PRINT).is_ok() {
        println!("bytes {:?}", bytes().unwrap());
        return;
    }
    let of = |threads: &str| {
        let output = std::process::Command::new(std::env::current_exe().unwrap())
            .args(["--exact", "bytes_do_not_depend_on_the_number_of_threads", "--nocapture"])
            .envs([(PRINT, "1"), ("RAYON_NUM_THREADS", threads)])
            .output()
            .unwrap();
        let text = String::from_utf8(output.stdout).unwrap();
        text.lines().find_map(|line| Some(line[line.find("bytes [")?..].to_string())).expect("the bytes")
    };
    let one = of("1");
    assert!(one.len() > 100);
    for threads in ["2", "4"] {
        assert_eq!(of(threads), one, "{threads} threads");
    }
}

/// Values and sums over gradients' bits of every loss, at sizes that Candle cuts into tasks.
fn bytes() -> Result<Vec<u64>> {
    let of = |seed, shape: &[usize]| random(seed, shape)?.to_dtype(DType::F32);
    let mut all = Vec::new();
    let mut add = |(value, gradient): (Tensor, Tensor)| -> Result<()> {
        for x in [value, gradient] {
            let bits = x.flatten_all()?.to_vec1::<f32>()?.into_iter().map(|x| u64::from(x.to_bits()));
            all.push(bits.fold(0, |hash: u64, bits| (hash ^ bits).wrapping_mul(0x100_0000_01b3)));
        }
        Ok(())
    };
    let (student, teacher) = (of(1, &[96, 64])?, of(2, &[96, 64])?);
    for (_, loss) in OF_ROWS.into_iter().chain(OF_BATCHES) {
        add(with_gradient(&student, |s| loss(s, &teacher))?)?;
    }
    let (student, teacher, mask) = (of(1, &[2, 160, 128])?, of(2, &[2, 160, 128])?, mask(&[160, 131], 160));
    for (_, loss) in OF_SEQUENCES {
        add(with_gradient(&student, |s| loss(s, &teacher, &mask))?)?;
    }
    let maps = |seed| attention(seed, &mask).to_dtype(DType::F32);
    for (_, loss) in OF_ATTENTION {
        add(with_gradient(&maps(3)?, |s| loss(s, &maps(4)?, &mask))?)?;
    }
    Ok(all)
}
