//! A head per teacher and its objective: PyTorch, finite differences, and what sets several heads apart from one.

use std::collections::{BTreeMap, HashMap};

use candle_core::{DType, Device, Result, Tensor};
use kd_core::batch::{Batch, Rows, Tokens, pad};
use kd_core::model::{Mode, Output, Represent, Student, mean_logits, mean_probabilities};
use kd_core::nn::{Embedding, HeadPerTeacher, HeadsOf, Linear};
use kd_core::objective::{Objective, Part, PerHead, SoftLoss, WeightedSum};
use kd_core::optim::{AdamWConfig, SgdConfig};
use kd_core::schedule::ValueSchedule;
use kd_core::testing::{assert_all_variables_learn, assert_close, check_gradients, random};
use kd_core::trainer::{Trainer, TrainerConfig};
use kd_core::variables::Variables;
use kd_core::{losses, ops};
use serde_json::Value;

const CPU: &Device = &Device::Cpu;
const WIDTH: usize = 4;

/// `tanh(W e + b)` of the embedding of a text's first token.
struct Body {
    table: Embedding,
    dense: Linear,
}

impl Body {
    fn new(variables: &Variables) -> Self {
        let start = candle_nn::Init::Randn { mean: 0.0, stdev: 1.0 };
        let table = Embedding::new(10, 3, start, variables.builder().pp("body.table")).unwrap();
        Self { table, dense: Linear::new(3, WIDTH, variables.builder().pp("body.dense")).unwrap() }
    }
}

impl Represent for Body {
    fn width(&self) -> usize {
        WIDTH
    }

    fn represent(&self, tokens: &Tokens, _: Mode) -> Result<Tensor> {
        let first = Rows::Examples.select(&self.table.forward(&tokens.first.ids)?)?;
        self.dense.forward(&first)?.tanh()
    }
}

fn set(name: &str, classes: usize, teachers: usize, gold: bool) -> HeadsOf {
    HeadsOf { name: name.to_string(), classes, teachers, gold }
}

fn student(seed: u64, dtype: DType, sets: Vec<HeadsOf>) -> (HeadPerTeacher<Body>, Variables) {
    let variables = Variables::new(seed, dtype, CPU);
    let student = HeadPerTeacher::new(Body::new(&variables), sets, true, 0.2, variables.builder()).unwrap();
    (student, variables)
}

/// Four texts, their labels and what `teachers` teachers of different scales say.
fn batch(task: usize, classes: usize, teachers: usize, dtype: DType) -> Batch {
    let teacher = |idx: usize| {
        let logits = (random(100 + idx as u64, (4, classes)).unwrap() * (1.0 + idx as f64)).unwrap();
        Output::from_logits((logits + idx as f64).unwrap().to_dtype(dtype).unwrap())
    };
    let labels: Vec<u32> = (0..4).map(|row| (row % classes) as u32).collect();
    Batch {
        tokens: Tokens {
            first: pad(&[vec![1, 2], vec![3], vec![4, 5, 6], vec![7]], CPU).unwrap(),
            second: None,
            rows: Rows::Examples,
        },
        labels: Some(Tensor::new(labels, CPU).unwrap()),
        teachers: (0..teachers).map(teacher).collect(),
        weights: None,
        task,
        examples: vec![10, 11, 12, 13],
    }
}

fn names(variables: &Variables) -> Vec<String> {
    variables.named().into_iter().map(|(name, _)| name).filter(|name| name.starts_with("heads.")).collect()
}

/// The gradient of `loss` of every variable, by name.
fn gradients(variables: &Variables, loss: &Tensor) -> BTreeMap<String, Tensor> {
    let gradients = loss.backward().unwrap();
    let named = variables.named().into_iter();
    named.filter_map(|(name, var)| Some((name, gradients.get(&var)?.clone()))).collect()
}

mod reference {
    use super::*;

    fn tensor(value: &Value) -> Tensor {
        let shape: Vec<usize> = serde_json::from_value(value["shape"].clone()).unwrap();
        Tensor::from_vec(serde_json::from_value::<Vec<f64>>(value["values"].clone()).unwrap(), shape, CPU).unwrap()
    }

    fn tensors(value: &Value) -> HashMap<String, Tensor> {
        value.as_object().unwrap().iter().map(|(name, value)| (name.clone(), tensor(value))).collect()
    }

    /// `tanh(W x + b)` of the same rows whatever the tokens.
    struct Rows {
        xs: Tensor,
        dense: Linear,
    }

    impl Represent for Rows {
        fn width(&self) -> usize {
            WIDTH
        }

        fn represent(&self, _: &Tokens, _: Mode) -> Result<Tensor> {
            self.dense.forward(&self.xs)?.tanh()
        }
    }

    #[test]
    fn losses_gradients_and_probabilities_agree_with_pytorch() {
        let file: Value = serde_json::from_str(include_str!("reference/heads.json")).unwrap();
        let cases = file["cases"].as_array().unwrap();
        assert_eq!(cases.len(), 9);
        for case in cases {
            for (dtype, tolerance) in [(DType::F64, 1e-12), (DType::F32, 5e-6)] {
                check(case, dtype, tolerance);
            }
        }
    }

    fn check(case: &Value, dtype: DType, tolerance: f64) {
        let (gold, size) = (case["gold"].as_bool().unwrap(), |name: &str| case[name].as_u64().unwrap() as usize);
        let variables = Variables::new(0, dtype, CPU);
        let xs = tensor(&case["xs"]).to_dtype(dtype).unwrap();
        let body = Rows { dense: Linear::new(3, WIDTH, variables.builder().pp("body")).unwrap(), xs };
        let set = set("set", size("classes"), size("teachers"), gold);
        let student = HeadPerTeacher::new(body, vec![set], true, 0.0, variables.builder()).unwrap();
        variables.set(&tensors(&case["variables"])).unwrap();
        let teachers = case["teacher_logits"].as_array().unwrap().iter();
        let labels: Vec<u32> = serde_json::from_value(case["labels"].clone()).unwrap();
        let batch = Batch {
            labels: Some(Tensor::new(labels, CPU).unwrap()),
            teachers: teachers.map(|logits| Output::from_logits(tensor(logits).to_dtype(dtype).unwrap())).collect(),
            ..batch(0, 2, 0, dtype)
        };
        let temperature = 2.0;
        let name = case["soft"].as_str().unwrap();
        let soft = match name {
            "logit_mse" | "centred" => SoftLoss::LogitMse,
            "prob_mse" => SoftLoss::ProbMse,
            "kl" => SoftLoss::Kl { temperature },
            "reverse_kl" => SoftLoss::ReverseKl { temperature },
            "jensen_shannon" => SoftLoss::JensenShannon { temperature },
            other => panic!("no loss is called {other}"),
        };
        let alpha = case["alpha"].as_f64().unwrap().into();
        let objective = PerHead { alpha, soft, centre: name == "centred", gold };
        let output = student.forward_batch(&batch, Mode::Eval).unwrap();
        let loss = objective.loss(&output, &batch, 0).unwrap();
        let (total, parts) = loss.values().unwrap();
        let mut expected = vec![("loss", total), ("soft_part", parts["soft"])];
        expected.extend(parts.get("hard").map(|&hard| ("hard", hard)));
        assert_eq!(parts.len(), 1 + usize::from(gold));
        for (key, found) in expected {
            let expected = case[key].as_f64().unwrap();
            assert!((found - expected).abs() <= tolerance * (1.0 + expected.abs()), "{name} {key}: {found} {expected}");
        }
        let found = gradients(&variables, &loss.total);
        let expected = tensors(&case["gradients"]);
        assert_eq!(found.len(), expected.len());
        for (variable, gradient) in found {
            assert_close(&gradient, &expected[&variable], tolerance, tolerance)
                .unwrap_or_else(|error| panic!("{name} `{variable}`: {error}"));
        }
        let probs = student.probabilities(&output).unwrap();
        assert_close(&probs, &tensor(&case["probs"]), tolerance, tolerance).unwrap();
    }
}

#[test]
fn variables_have_their_names_and_depend_on_seed_and_name_alone() {
    let sets = || vec![set("qa", 2, 2, true), set("nli", 3, 1, false)];
    let (_, variables) = student(1, DType::F32, sets());
    let expected = [
        "heads.nli.teacher.0.bias",
        "heads.nli.teacher.0.weight",
        "heads.qa.gold.bias",
        "heads.qa.gold.weight",
        "heads.qa.teacher.0.bias",
        "heads.qa.teacher.0.weight",
        "heads.qa.teacher.1.bias",
        "heads.qa.teacher.1.weight",
    ];
    assert_eq!(names(&variables), expected);
    let weight = |variables: &Variables| variables.tensors()["heads.qa.teacher.0.weight"].to_vec2::<f32>().unwrap();
    assert_eq!(variables.tensors()["heads.nli.teacher.0.weight"].dims(), [3, WIDTH]);
    // Without the gold head and the other set the rest starts as before.
    let (_, fewer) = student(1, DType::F32, vec![set("qa", 2, 2, false)]);
    assert_eq!(weight(&variables), weight(&fewer));
    assert_ne!(weight(&variables), weight(&student(2, DType::F32, sets()).1));

    let variables = Variables::new(1, DType::F32, CPU);
    let unbiased = HeadPerTeacher::new(Body::new(&variables), sets(), false, 0.2, variables.builder()).unwrap();
    assert_eq!(names(&variables).len(), 4);
    assert_eq!((unbiased.has_bias(), unbiased.dropout(), unbiased.sets()), (false, 0.2, &sets()[..]));
}

#[test]
fn a_batch_is_answered_by_the_heads_of_its_task() {
    let (student, _) = student(1, DType::F32, vec![set("qa", 2, 2, true), set("nli", 3, 1, false)]);
    for (task, shape, heads) in [(0, [4, 2], 3), (1, [4, 3], 1)] {
        let batch = batch(task, shape[1], heads, DType::F32);
        let output = student.forward_batch(&batch, Mode::Eval).unwrap();
        assert_eq!((output.heads.len(), output.heads[0].dims()), (heads, &shape[..]));
        assert_eq!(output.pooled.unwrap().dims(), [4, WIDTH]);
        // The same through a student of that set, whatever the batch's task is.
        let of_set = student.for_set(task);
        for other in
            [of_set.forward(&batch.tokens, Mode::Eval), of_set.forward_batch(&Batch { task: 7, ..batch }, Mode::Eval)]
        {
            for (a, b) in other.unwrap().heads.iter().zip(&output.heads) {
                assert_close(a, b, 0.0, 0.0).unwrap();
            }
        }
    }
    let message = |result: Result<Output>| result.unwrap_err().to_string();
    let batch = batch(2, 2, 0, DType::F32);
    let expected = "expected one of the tasks 0 (qa), 1 (nli), found task 2";
    assert!(message(student.forward_batch(&batch, Mode::Eval)).contains(expected));
    assert!(message(student.for_set(2).forward(&batch.tokens, Mode::Eval)).contains(expected));
    let expected = "the student has the heads of tasks 0 (qa), 1 (nli): tokens alone do not say which";
    assert!(message(student.forward(&batch.tokens, Mode::Eval)).contains(expected));
}

#[test]
fn one_student_of_one_set_needs_no_task() {
    let (student, _) = student(1, DType::F32, vec![set("qa", 2, 2, true)]);
    let batch = batch(0, 2, 2, DType::F32);
    let (one, other) =
        (student.forward(&batch.tokens, Mode::Eval).unwrap(), student.forward_batch(&batch, Mode::Eval).unwrap());
    assert_close(&one.heads[2], &other.heads[2], 0.0, 0.0).unwrap();
    assert!(student.may_be_still().is_empty());
    // A batch of another data set is not taken for this one's.
    let message = student.forward_batch(&Batch { task: 1, ..batch }, Mode::Eval).unwrap_err().to_string();
    assert!(message.contains("expected one of the tasks 0 (qa), found task 1"), "{message}");
}

#[test]
fn bodies_may_be_boxed_or_borrowed() {
    let variables = Variables::new(1, DType::F32, CPU);
    let body = Body::new(&variables);
    let sets = || vec![set("qa", 2, 1, true)];
    let tokens = batch(0, 2, 0, DType::F32).tokens;
    let borrowed = HeadPerTeacher::new(&body, sets(), true, 0.0, variables.builder()).unwrap();
    let expected = borrowed.forward(&tokens, Mode::Eval).unwrap().heads;
    let boxed: Box<dyn Represent> = Box::new(Body::new(&variables));
    let boxed = HeadPerTeacher::new(boxed, sets(), true, 0.0, variables.builder()).unwrap();
    assert_close(&boxed.forward(&tokens, Mode::Eval).unwrap().heads[1], &expected[1], 0.0, 0.0).unwrap();
}

#[test]
fn probabilities_sum_to_one_for_every_number_of_teachers() {
    for (teachers, gold) in [(0, true), (1, true), (2, true), (5, true), (1, false), (4, false)] {
        let (student, _) = student(3, DType::F64, vec![set("qa", 3, teachers, gold)]);
        let output = student.forward(&batch(0, 3, 0, DType::F64).tokens, Mode::Eval).unwrap();
        let probs = student.probabilities(&output).unwrap();
        assert_eq!(probs.dims(), [4, 3]);
        assert_close(&probs.sum(1).unwrap(), &Tensor::ones(4, DType::F64, CPU).unwrap(), 1e-12, 0.0).unwrap();
        // The mean of probabilities, not of logits: head by head.
        let heads = output.heads.iter().map(|head| ops::softmax(head).unwrap());
        let sum = heads.reduce(|a, b| (a + b).unwrap()).unwrap();
        assert_close(&probs, &(sum / output.heads.len() as f64).unwrap(), 1e-15, 0.0).unwrap();
        if output.heads.len() > 1 {
            let of_logits = ops::softmax(&mean_logits(&output.heads).unwrap()).unwrap();
            assert!(assert_close(&probs, &of_logits, 1e-9, 0.0).is_err());
        }
    }
    assert!(mean_probabilities(&[]).unwrap_err().to_string().contains("a mean over the logits of no model"));
    let two = [Tensor::zeros((4, 2), DType::F64, CPU).unwrap(), Tensor::zeros((4, 3), DType::F64, CPU).unwrap()];
    let message = mean_logits(&two).unwrap_err().to_string();
    assert!(message.contains("the logits of model 0 are [4, 2], those of model 1 [4, 3], expected one shape"));
}

#[test]
fn one_teacher_is_plain_logit_matching() {
    let (student, variables) = student(5, DType::F64, vec![set("qa", 3, 1, true)]);
    let batch = batch(0, 3, 1, DType::F64);
    let plain = WeightedSum::new([
        Part::new("labels", 0.1, |output, batch, _| losses::cross_entropy(&output.heads[0], batch.labels()?)),
        Part::new("teacher", 0.9, |output, batch, _| losses::logit_mse(&output.heads[1], batch.teacher_logits(0)?)),
    ])
    .unwrap();
    let output = student.forward_batch(&batch, Mode::Train { seed: 3 }).unwrap();
    let of = |objective: &dyn Objective| gradients(&variables, &objective.loss(&output, &batch, 0).unwrap().total);
    let (found, expected) = (of(&PerHead::default()), of(&plain));
    assert_eq!(found.len(), variables.named().len());
    for (name, gradient) in found {
        assert_close(&gradient, &expected[&name], 1e-14, 1e-12).unwrap_or_else(|error| panic!("`{name}`: {error}"));
    }
}

/// Gives every teacher's head of `qa` the values of teacher 0's.
fn start_equally(variables: &Variables, teachers: usize) {
    let mut tensors: HashMap<String, Tensor> =
        variables.tensors().into_iter().map(|(name, tensor)| (name, tensor.copy().unwrap())).collect();
    for part in ["weight", "bias"] {
        let first = tensors[&format!("heads.qa.teacher.0.{part}")].clone();
        for idx in 1..teachers {
            tensors.insert(format!("heads.qa.teacher.{idx}.{part}"), first.clone());
        }
    }
    variables.set(&tensors).unwrap();
}

#[test]
fn heads_of_one_teacher_that_start_equal_stay_equal() {
    for same_teacher in [true, false] {
        let (student, variables) = student(5, DType::F32, vec![set("qa", 3, 3, true)]);
        start_equally(&variables, 3);
        let mut batch = batch(0, 3, 3, DType::F32);
        if same_teacher {
            batch.teachers = vec![batch.teachers[1].clone(); 3];
        }
        let config = TrainerConfig { seed: 4, ..TrainerConfig::new(20, AdamWConfig::with_lr(0.05)) };
        let objective = PerHead::default();
        let mut trainer = Trainer::new(&student, &variables, &objective, config).unwrap();
        for _ in 0..20 {
            trainer.step(&batch).unwrap();
        }
        let weight = |idx: usize| variables.tensors()[&format!("heads.qa.teacher.{idx}.weight")].clone();
        for idx in [1, 2] {
            // Dropout is one for all heads, so the same teacher leaves no difference but that of rounding.
            let is_equal = assert_close(&weight(idx), &weight(0), 1e-5, 1e-5).is_ok();
            assert_eq!(is_equal, same_teacher, "head {idx}");
        }
    }
}

/// Trap: with one head that all share, the squared errors to N teachers have the gradient of that to their mean.
#[test]
fn one_shared_head_is_the_mean_teacher_and_several_heads_are_not() {
    let batch = batch(0, 3, 3, DType::F64);
    let teachers: Vec<Tensor> = batch.teachers.iter().map(|teacher| teacher.logits().unwrap().clone()).collect();
    let mean = Batch { teachers: vec![Output::from_logits(mean_logits(&teachers).unwrap())], ..batch.clone() };
    let objective = PerHead { alpha: 1.0.into(), gold: false, ..PerHead::default() };

    // One student with a single head, and three views of that head.
    let (single, variables) = student(6, DType::F64, vec![set("qa", 3, 1, false)]);
    let output = single.forward_batch(&mean, Mode::Eval).unwrap();
    let shared = Output { heads: vec![output.heads[0].clone(); 3], ..output.clone() };
    let of = |variables: &Variables, output: &Output, batch: &Batch| {
        let loss = objective.loss(output, batch, 0).unwrap();
        (loss.values().unwrap().0, gradients(variables, &loss.total))
    };
    let (loss_of_shared, of_shared) = of(&variables, &shared, &batch);
    let (loss_of_mean, of_mean) = of(&variables, &output, &mean);
    // The losses differ by the spread of the teachers, the gradients do not.
    assert!(loss_of_shared > loss_of_mean + 0.1, "{loss_of_shared} {loss_of_mean}");
    for (name, gradient) in &of_shared {
        assert_close(gradient, &of_mean[name], 1e-13, 1e-12).unwrap_or_else(|error| panic!("`{name}`: {error}"));
    }

    // Three heads, even such that are equal: each has its own teacher's gradient.
    let (several, own) = student(6, DType::F64, vec![set("qa", 3, 3, false)]);
    start_equally(&own, 3);
    let (_, of_several) = of(&own, &several.forward_batch(&batch, Mode::Eval).unwrap(), &batch);
    for idx in 0..3 {
        let own = &of_several[&format!("heads.qa.teacher.{idx}.weight")];
        let mean = (&of_mean["heads.qa.teacher.0.weight"] / 3.0).unwrap();
        assert!(assert_close(own, &mean, 1e-2, 1e-2).is_err(), "head {idx}");
    }
    // And heads that are their own, as they are drawn, teach the body something else than one head of the mean teacher does.
    let (several, own) = student(6, DType::F64, vec![set("qa", 3, 3, false)]);
    let (_, of_several) = of(&own, &several.forward_batch(&batch, Mode::Eval).unwrap(), &batch);
    for name in ["body.dense.weight", "body.table.weight"] {
        assert!(assert_close(&of_several[name], &of_mean[name], 1e-2, 1e-2).is_err(), "`{name}`");
    }
}

#[test]
fn the_gradient_of_every_head_agrees_with_finite_differences() {
    let temperature = 2.0;
    let losses = [
        SoftLoss::LogitMse,
        SoftLoss::ProbMse,
        SoftLoss::Kl { temperature },
        SoftLoss::ReverseKl { temperature },
        SoftLoss::JensenShannon { temperature },
    ];
    for soft in losses {
        for (gold, centre) in [(true, false), (false, true)] {
            let alpha = if gold { 0.7 } else { 1.0 };
            let objective = PerHead { alpha: alpha.into(), soft, centre, gold };
            let batch = batch(0, 3, 2, DType::F64);
            let heads: Vec<Tensor> =
                (0..2 + u64::from(gold)).map(|idx| (random(idx, (4, 3)).unwrap() * 2.0).unwrap()).collect();
            let loss = |heads: &[Tensor]| {
                let output = Output { heads: heads.to_vec(), ..Output::default() };
                Ok(objective.loss(&output, &batch, 0)?.total)
            };
            check_gradients(loss, &heads, 1e-7).unwrap_or_else(|error| panic!("{objective:?}: {error}"));
        }
    }
}

#[test]
fn only_a_squared_error_sees_a_constant_and_centring_takes_it_away() {
    let output = Output { heads: vec![random(1, (4, 3)).unwrap()], ..Output::default() };
    let batch = batch(0, 3, 1, DType::F64);
    let shifted = (batch.teacher_logits(0).unwrap() + 7.0).unwrap();
    let shifted = Batch { teachers: vec![Output::from_logits(shifted)], ..batch.clone() };
    let of = |soft, centre, batch: &Batch| {
        let objective = PerHead { soft, centre, ..PerHead::TEACHERS_ONLY };
        objective.loss(&output, batch, 0).unwrap().values().unwrap().0
    };
    let close = |a: f64, b: f64| (a - b).abs() < 1e-12 * (1.0 + b.abs());
    assert!(of(SoftLoss::LogitMse, false, &shifted) > 10.0 + of(SoftLoss::LogitMse, false, &batch));
    assert!(close(of(SoftLoss::LogitMse, true, &shifted), of(SoftLoss::LogitMse, true, &batch)));
    for soft in [SoftLoss::ProbMse, SoftLoss::Kl { temperature: 3.0 }] {
        for centre in [false, true] {
            assert!(close(of(soft, centre, &shifted), of(soft, false, &batch)), "{soft:?}");
        }
    }
}

#[test]
fn half_precision_is_close() {
    let (batch, heads) = (batch(0, 3, 2, DType::F64), [1, 2, 3].map(|idx| random(idx, (4, 3)).unwrap()));
    let of = |dtype: DType| {
        let convert = |tensor: &Tensor| tensor.to_dtype(dtype).unwrap();
        let teachers = batch.teachers.iter().map(|teacher| Output::from_logits(convert(&teacher.heads[0])));
        let batch = Batch { teachers: teachers.collect(), ..batch.clone() };
        let output = Output { heads: heads.iter().map(convert).collect(), ..Output::default() };
        let loss = PerHead::default().loss(&output, &batch, 0).unwrap();
        assert_eq!(loss.total.dtype(), dtype);
        loss.values().unwrap().0
    };
    let expected = of(DType::F64);
    for (dtype, tolerance) in [(DType::F32, 1e-6), (DType::F16, 5e-3), (DType::BF16, 3e-2)] {
        assert!((of(dtype) - expected).abs() < tolerance * expected, "{dtype:?}");
    }
}

#[test]
fn a_schedule_drops_a_part_whose_weight_is_zero() {
    let objective = PerHead { alpha: ValueSchedule::linear(0.0, 1.0, 4), ..PerHead::default() };
    let (student, _) = student(1, DType::F64, vec![set("qa", 2, 2, true)]);
    let whole = batch(0, 2, 2, DType::F64);
    let output = student.forward_batch(&whole, Mode::Eval).unwrap();
    let parts = |batch: &Batch, step| {
        objective.loss(&output, batch, step).map(|loss| loss.parts.keys().cloned().collect::<Vec<_>>())
    };
    assert_eq!(parts(&whole, 2).unwrap(), ["hard", "soft"]);
    // Nothing that has no weight is asked for.
    assert_eq!(parts(&Batch { teachers: vec![], ..whole.clone() }, 0).unwrap(), ["hard"]);
    assert_eq!(parts(&Batch { labels: None, ..whole.clone() }, 4).unwrap(), ["soft"]);
    let half = objective.loss(&output, &whole, 2).unwrap().values().unwrap();
    assert!((half.0 - (half.1["hard"] + half.1["soft"]) / 2.0).abs() < 1e-12);
}

#[test]
fn what_is_missing_is_named() {
    let (student, _) = student(1, DType::F64, vec![set("qa", 2, 2, true)]);
    let whole = batch(0, 2, 2, DType::F64);
    let output = student.forward_batch(&whole, Mode::Eval).unwrap();
    let message = |objective: PerHead, batch: &Batch| objective.loss(&output, batch, 3).unwrap_err().to_string();
    let check = |objective: PerHead, batch: &Batch, expected: &str| {
        let message = message(objective, batch);
        assert!(message.contains(expected), "{message}");
    };
    let stage_two = PerHead::default();
    check(
        stage_two,
        &Batch { labels: None, ..whole.clone() },
        "loss part `hard`: the batch of examples [10, 11, 12, 13]",
    );
    for (teachers, found) in [(0, "of 0 teachers"), (1, "of 1 teachers"), (3, "of 3 teachers")] {
        let other = batch(0, 2, teachers, DType::F64);
        check(stage_two, &other, "loss part `soft`: the output has 2 heads of teachers, the batch of examples [10,");
        check(stage_two, &other, found);
    }
    let mut classes = whole.clone();
    classes.teachers[1] = batch(0, 3, 2, DType::F64).teachers[1].clone();
    let expected = "the head of teacher 1 has (rows, classes) [4, 2], the teacher's logits of examples [10, 11, 12, 13] have \
                    [4, 3]";
    check(stage_two, &classes, expected);
    classes.teachers[1].heads.clear();
    check(stage_two, &classes, "loss part `soft`: the output has no head");
    let with = |alpha: ValueSchedule, gold| PerHead { alpha, gold, ..PerHead::default() };
    check(with(0.5.into(), false), &whole, "expected alpha 1 without a gold head, found 0.5 to 0.5");
    check(with(1.0.into(), true), &whole, "expected alpha below 1 with a gold head, found 1");
    check(with(1.5.into(), true), &whole, "expected alpha from 0 to 1, found 1.5 at step 3");
    check(with(f64::NAN.into(), true), &whole, "expected alpha from 0 to 1, found NaN at step 3");
    // Three heads, the gold one among them, for two teachers.
    check(PerHead::TEACHERS_ONLY, &whole, "the output has 3 heads of teachers");
}

#[test]
fn an_objective_reads_back_what_it_wrote() {
    let json = r#"{"alpha":0.9,"soft":"logit_mse","centre":false,"gold":true}"#;
    assert_eq!(serde_json::to_string(&PerHead::default()).unwrap(), json);
    assert_eq!(serde_json::from_str::<PerHead>(json).unwrap(), PerHead::default());
    let other = PerHead { soft: SoftLoss::Kl { temperature: 2.0 }, ..PerHead::TEACHERS_ONLY };
    let described = other.describe();
    assert_eq!(described["per_head"]["soft"]["kl"]["temperature"], 2.0);
    assert_eq!(serde_json::from_value::<PerHead>(described["per_head"].clone()).unwrap(), other);
}

#[test]
fn heads_that_cannot_be_are_refused() {
    let variables = Variables::new(1, DType::F32, CPU);
    let message = |sets: Vec<HeadsOf>, dropout: f64| {
        let body = Body::new(&variables);
        HeadPerTeacher::new(body, sets, true, dropout, variables.builder()).map(|_| ()).unwrap_err().to_string()
    };
    for (sets, dropout, expected) in [
        (vec![], 0.1, "expected the heads of at least one data set, found none"),
        (
            vec![set("", 2, 1, true)],
            0.1,
            "the name of data set 0: expected one without dots that is not empty, found ``",
        ),
        (vec![set("a.b", 2, 1, true)], 0.1, "without dots that is not empty, found `a.b`"),
        (vec![set("a", 2, 1, true), set("a", 3, 1, true)], 0.1, "data set 1 is called `a`, and so is one before it"),
        (vec![set("a", 0, 1, true)], 0.1, "data set `a`: expected at least one class"),
        (vec![set("a", 2, 0, false)], 0.1, "found 2 classes, 0 teachers and no gold head"),
        (vec![set("a", 2, 1, true)], 1.0, "the heads' dropout: expected a number from 0 to below 1, found 1"),
    ] {
        let message = message(sets, dropout);
        assert!(message.contains(expected), "{message}");
    }
}

#[test]
fn every_variable_learns_in_training() {
    for (sets, objective) in [
        (set("qa", 3, 2, true), PerHead::default()),
        (set("qa", 3, 2, false), PerHead::TEACHERS_ONLY),
        (set("qa", 3, 0, true), PerHead::LABELS_ONLY),
    ] {
        let (student, variables) = student(1, DType::F64, vec![sets.clone()]);
        let batch = batch(0, 3, sets.teachers, DType::F64);
        let output = student.forward_batch(&batch, Mode::Train { seed: 2 }).unwrap();
        assert_all_variables_learn(&variables, &objective.loss(&output, &batch, 0).unwrap().total).unwrap();
    }
}

/// Batches of two data sets in turn, the second only from step 3 on.
#[test]
fn a_trainer_trains_heads_whose_task_comes_later() {
    let sets = || vec![set("qa", 2, 1, true), set("nli", 3, 2, true)];
    let source = |step: usize| {
        let task = usize::from(step >= 3 && step % 2 == 1);
        batch(task, 2 + task, 1 + task, DType::F32)
    };
    let config = TrainerConfig { seed: 4, ..TrainerConfig::new(8, SgdConfig::with_lr(0.1)) };
    let objective = PerHead::default();
    let (model, variables) = student(5, DType::F32, sets());
    assert_eq!(model.may_be_still(), ["heads.*"]);

    // Without saying so, heads without a gradient at the first update are named.
    let mut trainer = Trainer::new(&model, &variables, &objective, config.clone()).unwrap();
    let error = trainer.step(&source(0)).unwrap_err().to_string();
    assert!(error.contains("`heads.nli.gold.bias` has no gradient"), "{error}");
    assert!(!error.contains("heads.qa"), "{error}");

    let config = TrainerConfig { may_be_still: model.may_be_still(), ..config };
    let mut trainer = Trainer::new(&model, &variables, &objective, config).unwrap();
    let of_nli = |name: &String| name.starts_with("heads.nli.");
    let start =
        variables.tensors().into_iter().map(|(name, tensor)| (name, tensor.copy().unwrap())).collect::<Vec<_>>();
    let changed = || {
        let now = variables.tensors();
        let is_changed = |(name, before): &&(String, Tensor)| assert_close(&now[name], before, 0.0, 0.0).is_err();
        start.iter().filter(is_changed).map(|(name, _)| name.clone()).collect::<Vec<_>>()
    };
    for step in 0..3 {
        trainer.step(&source(step)).unwrap();
    }
    let first = changed();
    assert!(!first.iter().any(of_nli) && first.contains(&"heads.qa.gold.bias".to_string()), "{first:?}");
    for step in 3..8 {
        let report = trainer.step(&source(step)).unwrap();
        assert!(report.part("hard").is_some() && report.part("soft").is_some());
    }
    assert_eq!(changed().len(), variables.named().len());
}
