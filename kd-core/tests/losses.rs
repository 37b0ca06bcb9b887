//! The losses against PyTorch's values, finite differences, and what must not change them.

use candle_core::{Device, Result, Tensor, Var};
use kd_core::losses;
use kd_core::testing::{assert_close, check_gradient};
use serde::Deserialize;

#[derive(Deserialize)]
struct Case {
    loss: String,
    student: Vec<Vec<f64>>,
    rows: Vec<f64>,
    mean: f64,
    gradient: Vec<Vec<f64>>,
    labels: Option<Vec<u32>>,
    teacher: Option<Vec<Vec<f64>>>,
    probs: Option<Vec<Vec<f64>>>,
    temperature: Option<f64>,
}

fn tensor(rows: &[Vec<f64>]) -> Tensor {
    Tensor::from_vec(rows.concat(), (rows.len(), rows[0].len()), &Device::Cpu).unwrap()
}

impl Case {
    fn rows_of(&self, student: &Tensor) -> Result<Tensor> {
        let temperature = self.temperature.unwrap_or(1.0);
        match self.loss.as_str() {
            "cross_entropy" => {
                let labels = Tensor::new(self.labels.as_deref().unwrap(), &Device::Cpu)?;
                losses::cross_entropy_rows(student, &labels)
            }
            "logit_mse" => losses::logit_mse_rows(student, &tensor(self.teacher.as_ref().unwrap())),
            "kl_divergence" => {
                losses::kl_divergence_rows(student, &tensor(self.teacher.as_ref().unwrap()), temperature)
            }
            "soft_cross_entropy" => {
                losses::soft_cross_entropy_rows(student, &tensor(self.probs.as_ref().unwrap()), temperature)
            }
            other => panic!("no loss `{other}`"),
        }
    }
}

fn cases() -> Vec<Case> {
    serde_json::from_str(include_str!("reference/losses.json")).unwrap()
}

#[test]
fn rows_means_and_gradients_are_pytorchs() {
    for case in cases() {
        let student = Var::from_tensor(&tensor(&case.student)).unwrap();
        let rows = case.rows_of(student.as_tensor()).unwrap();
        let expected = Tensor::new(case.rows.as_slice(), &Device::Cpu).unwrap();
        assert_close(&rows, &expected, 1e-10, 1e-10).unwrap();
        let mean = rows.mean_all().unwrap();
        assert!((mean.to_scalar::<f64>().unwrap() - case.mean).abs() <= 1e-10 * (1.0 + case.mean.abs()));
        let gradients = mean.backward().unwrap();
        assert_close(gradients.get(&student).unwrap(), &tensor(&case.gradient), 1e-10, 1e-10).unwrap();
    }
}

#[test]
fn gradients_agree_with_finite_differences() {
    // The extreme logits of the reference file leave no room for differences of f64.
    for case in cases().iter().filter(|case| case.student.concat().iter().all(|x| x.abs() < 30.)) {
        check_gradient(|student| case.rows_of(student), &tensor(&case.student), 1e-6).unwrap();
    }
}

#[test]
fn the_teacher_gets_no_gradient() {
    let student = Var::new(&[[0.5f64, -0.2], [0.1, 0.9]], &Device::Cpu).unwrap();
    let teacher = Var::new(&[[0.3f64, 0.7], [0.6, 0.4]], &Device::Cpu).unwrap();
    let losses = [
        losses::kl_divergence(&student, &teacher, 2.),
        losses::soft_cross_entropy(&student, &teacher, 2.),
        losses::logit_mse(&student, &teacher),
        losses::kl_from_log_probs(&student, &teacher),
    ];
    for loss in losses {
        let gradients = loss.unwrap().backward().unwrap();
        assert!(gradients.get(&student).is_some());
        assert!(gradients.get(&teacher).is_none());
    }
}

#[test]
fn a_constant_on_a_row_and_an_order_of_classes_change_nothing() {
    for case in cases().iter().filter(|case| case.loss == "kl_divergence" && case.student[0][0].abs() < 30.) {
        let (student, teacher) = (tensor(&case.student), tensor(case.teacher.as_ref().unwrap()));
        let temperature = case.temperature.unwrap();
        let expected = losses::kl_divergence_rows(&student, &teacher, temperature).unwrap();
        let shifted = losses::kl_divergence_rows(&(&student + 7.).unwrap(), &(&teacher - 3.).unwrap(), temperature);
        assert_close(&shifted.unwrap(), &expected, 1e-10, 1e-10).unwrap();
        let order: Vec<u32> = (0..student.dim(1).unwrap() as u32).rev().collect();
        let order = Tensor::new(order, &Device::Cpu).unwrap();
        let permuted = losses::kl_divergence_rows(
            &student.index_select(&order, 1).unwrap(),
            &teacher.index_select(&order, 1).unwrap(),
            temperature,
        );
        assert_close(&permuted.unwrap(), &expected, 1e-10, 1e-10).unwrap();
    }
}

#[test]
fn what_does_not_fit_is_an_error() {
    let two = Tensor::zeros((2, 2), candle_core::DType::F64, &Device::Cpu).unwrap();
    let three = Tensor::zeros((3, 2), candle_core::DType::F64, &Device::Cpu).unwrap();
    let none = Tensor::zeros((0, 2), candle_core::DType::F64, &Device::Cpu).unwrap();
    let message = |result: Result<Tensor>| result.unwrap_err().to_string();
    assert!(message(losses::kl_divergence(&two, &three, 1.)).contains("[2, 2] and [3, 2]"));
    assert!(message(losses::kl_divergence(&two, &two, 0.)).contains("temperature 0"));
    assert!(message(losses::kl_divergence(&none, &none, 1.)).contains("no rows"));
    let labels = Tensor::new(&[0u32, 2], &Device::Cpu).unwrap();
    assert!(message(losses::cross_entropy(&two, &labels)).contains("label 2 with 2 classes"));
}
