//! A head per teacher: its variables, its tasks, its probabilities, and its training in turns.

mod objective;
mod reference;
mod transfer;

use std::collections::BTreeMap;

use candle_core::{DType, Result, Tensor};
use kd_core::batch::{Batch, Rows, Tokens, pad};
use kd_core::model::{Mode, Output, Represent, Student, mean_logits, mean_probabilities};
use kd_core::nn::{Embedding, HeadPerTeacher, HeadsOf, Linear};
use kd_core::objective::PerHead;
use kd_core::ops;
use kd_core::optim::SgdConfig;
use kd_core::testing::{assert_close, device, random};
use kd_core::trainer::{Trainer, TrainerConfig};
use kd_core::variables::Variables;

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
    let variables = Variables::new(seed, dtype, device());
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
            first: pad(&[vec![1, 2], vec![3], vec![4, 5, 6], vec![7]], device()).unwrap(),
            second: None,
            more: Vec::new(),
            rows: Rows::Examples,
        },
        labels: Some(Tensor::new(labels, device()).unwrap()),
        targets: vec![],
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

    let variables = Variables::new(1, DType::F32, device());
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
    let variables = Variables::new(1, DType::F32, device());
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
        assert_close(&probs.sum(1).unwrap(), &Tensor::ones(4, DType::F64, device()).unwrap(), 1e-12, 0.0).unwrap();
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
    let two =
        [Tensor::zeros((4, 2), DType::F64, device()).unwrap(), Tensor::zeros((4, 3), DType::F64, device()).unwrap()];
    let message = mean_logits(&two).unwrap_err().to_string();
    assert!(message.contains("the logits of model 0 are [4, 2], those of model 1 [4, 3], expected one shape"));
}

#[test]
fn heads_that_cannot_be_are_refused() {
    let variables = Variables::new(1, DType::F32, device());
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
