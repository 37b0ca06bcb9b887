use std::collections::BTreeMap;

use candle_core::{DType, Device, Tensor, Var};
use serde::Deserialize;

use super::*;
use crate::testing::{assert_close, check_gradient, device, random};
use crate::variables::Variables;

#[derive(Deserialize)]
struct Reference {
    shape: Vec<usize>,
    x: Vec<f64>,
    weights: Vec<f64>,
    cases: BTreeMap<String, Case>,
}

#[derive(Deserialize)]
struct Case {
    values: Vec<f64>,
    gradient: Vec<f64>,
    parameter_gradients: Vec<Vec<f64>>,
}

fn reference() -> Reference {
    serde_json::from_str(include_str!("../../../tests/reference/activations.json")).unwrap()
}

fn name(kind: ActivationKind) -> String {
    serde_json::to_value(kind).unwrap().as_str().unwrap().to_string()
}

fn layer(kind: ActivationKind) -> (Activation, Variables) {
    let variables = Variables::new(1, DType::F64, device());
    (Activation::new(kind, variables.builder()).unwrap(), variables)
}

/// 1 / (1 + e^20) = 2.0611537e-9, where (1 + tanh(-10)) / 2 is 0 in f32, and with it every gradient. PyTorch's binary
/// cross-entropy of it has the slope p - y = -1.
#[test]
fn a_sigmoid_far_from_0_is_small_and_learns() {
    let x = Var::new(&[[-20f32]], device()).unwrap();
    let y = layer(ActivationKind::Sigmoid).0.forward(&x).unwrap();
    let value = y.flatten_all().unwrap().to_vec1::<f32>().unwrap()[0];
    assert!((value / 2.061_153_7e-9 - 1.0).abs() < 1e-5, "{value}");
    let loss = crate::losses::binary_cross_entropy_of_probs_rows(&y, &y.ones_like().unwrap()).unwrap();
    let gradients = loss.sum_all().unwrap().backward().unwrap();
    let slope = gradients.get(&x).unwrap().flatten_all().unwrap().to_vec1::<f32>().unwrap()[0];
    assert!((slope + 1.0).abs() < 1e-5, "{slope}");
}

#[test]
fn values_and_gradients_are_those_of_pytorch() {
    let reference = reference();
    let tensor = |values: &[f64]| Tensor::from_slice(values, reference.shape.as_slice(), device()).unwrap();
    assert_eq!(reference.cases.len(), ActivationKind::ALL.len());
    for kind in ActivationKind::ALL {
        let name = name(kind);
        let case = &reference.cases[&name];
        let (activation, variables) = layer(kind);
        let x = Var::from_tensor(&tensor(&reference.x)).unwrap();
        let y = activation.forward(&x).unwrap();
        // PyTorch's softplus is a line above 20, and near it the two are 2e-9 apart; the values here stay below.
        assert_close(&y, &tensor(&case.values), 1e-12, 1e-12).unwrap_or_else(|error| panic!("{name}: {error}"));
        let gradients = (y * tensor(&reference.weights)).unwrap().sum_all().unwrap().backward().unwrap();
        assert_close(gradients.get(&x).unwrap(), &tensor(&case.gradient), 1e-12, 1e-12)
            .unwrap_or_else(|error| panic!("the gradient of {name}: {error}"));
        let named = variables.named();
        assert_eq!((named.len(), kind.parameters()), (case.parameter_gradients.len(), named.len()), "{name}");
        for ((_, variable), expected) in named.iter().zip(&case.parameter_gradients) {
            let expected = Tensor::from_slice(expected, variable.shape(), device()).unwrap();
            assert_close(gradients.get(variable).unwrap(), &expected, 1e-12, 1e-12).unwrap();
        }
    }
}

#[test]
fn slopes_agree_with_finite_differences() {
    let x = (random(3, (2, 2, 2, 3)).unwrap() * 4.0).unwrap();
    for kind in ActivationKind::ALL {
        let (activation, _) = layer(kind);
        check_gradient(|x| activation.forward(x), &x, 1e-7).unwrap_or_else(|error| panic!("{kind:?}: {error}"));
    }
}

#[test]
fn large_values_give_finite_results_and_slopes() {
    for kind in ActivationKind::ALL {
        let variables = Variables::new(1, DType::F32, &Device::Cpu);
        let activation = Activation::new(kind, variables.builder()).unwrap();
        let x = Var::from_vec(vec![-1e4f32, 1e4, -100.0, 100.0], (1, 2, 2, 1), &Device::Cpu).unwrap();
        let y = activation.forward(&x).unwrap();
        let gradients = y.sum_all().unwrap().backward().unwrap();
        for tensor in [&y, gradients.get(&x).unwrap()] {
            let values: Vec<f32> = tensor.flatten_all().unwrap().to_vec1().unwrap();
            assert!(values.iter().all(|x| x.is_finite()), "{kind:?}: {values:?}");
        }
    }
}

#[test]
fn names_are_pytorchs_and_others_are_refused() {
    let kind: ActivationKind = serde_json::from_str("\"LeakyReLU\"").unwrap();
    assert_eq!(kind, ActivationKind::LeakyReLU);
    let error = serde_json::from_str::<ActivationKind>("\"relu\"").unwrap_err().to_string();
    assert!(error.contains("unknown variant `relu`") && error.contains("`ReLU`"), "{error}");
}

#[test]
fn the_softmax_of_a_map_needs_one() {
    let error = layer(ActivationKind::Softmax2d).0.forward(&random(1, (2, 3)).unwrap()).unwrap_err().to_string();
    assert!(
        error.starts_with("Softmax2d: expected the shape (batch, channels, height, width), found [2, 3]"),
        "{error}"
    );
}
