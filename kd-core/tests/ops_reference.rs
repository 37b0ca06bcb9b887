//! The operations against PyTorch's values and gradients, in `f64` and in `f32`.
//!
//! The cases, extreme values and padding among them, are made by `reference/ops.py`.

use candle_core::{DType, Result, Tensor, Var};
use kd_core::model::Mode;
use kd_core::ops;
use kd_core::ops::encoder_layer::{Affine, EncoderLayer};
use kd_core::testing::{assert_close, device};
use serde_json::Value;

fn read(value: &Value) -> Tensor {
    let shape: Vec<usize> =
        value["shape"].as_array().unwrap().iter().map(|dim| dim.as_u64().unwrap() as usize).collect();
    let number = |value: &Value| value.as_f64().unwrap_or(f64::NEG_INFINITY); // the string "-inf"
    let values: Vec<f64> = value["values"].as_array().unwrap().iter().map(number).collect();
    Tensor::from_vec(values, shape, device()).unwrap()
}

fn run(case: &Value, inputs: &dyn Fn(&str) -> Option<Tensor>) -> Result<Tensor> {
    let get = |name: &str| inputs(name).unwrap();
    let activation = || match case["activation"].as_str() {
        Some("gelu") | None => ops::Activation::Gelu,
        Some("gelu_tanh") => ops::Activation::GeluTanh,
        Some("tanh") => ops::Activation::Tanh,
        Some("relu") => ops::Activation::Relu,
        Some(other) => panic!("no activation {other}"),
    };
    match case["op"].as_str().unwrap() {
        "linear" => ops::linear(&get("x"), &get("weight"), inputs("bias").as_ref()),
        "layer_norm" => ops::layer_norm(&get("x"), &get("gamma"), &get("beta"), case["eps"].as_f64().unwrap()),
        "softmax" => ops::softmax(&get("x")),
        "log_softmax" => ops::log_softmax(&get("x")),
        "gelu" => ops::gelu(&get("x")),
        "embedding" => ops::embedding(&get("table"), &read(&case["ids"]).to_dtype(DType::U32)?),
        "attention" => {
            let mask = read(&case["mask"]).to_dtype(DType::U8)?;
            let heads = case["heads"].as_u64().unwrap() as usize;
            ops::attention(&get("q"), &get("k"), &get("v"), heads, &mask, 0.0, Mode::Eval)
        }
        "masked_softmax" => {
            let mask = read(&case["mask"]).to_dtype(DType::U8)?;
            ops::masked_softmax(&get("scores"), case["scale"].as_f64().unwrap(), &mask, 0.0, Mode::Eval)
        }
        "layer_norm_residual" => {
            let (x, residual, eps) = (get("x"), get("residual"), case["eps"].as_f64().unwrap());
            ops::layer_norm_residual(&x, &residual, &get("gamma"), &get("beta"), eps, 0.0, Mode::Eval)
        }
        "linear_activation" => ops::linear_activation(&get("x"), &get("weight"), &get("bias"), activation()),
        "encoder_layer" => {
            let affine =
                |name: &str| Affine { weight: get(&format!("{name}_weight")), bias: get(&format!("{name}_bias")) };
            let (weight, bias) =
                (get("self_attn_in_proj_weight").chunk(3, 0)?, get("self_attn_in_proj_bias").chunk(3, 0)?);
            let projection = |idx: usize| Affine { weight: weight[idx].clone(), bias: bias[idx].clone() };
            let layer = EncoderLayer {
                query: projection(0),
                key: projection(1),
                value: projection(2),
                output: affine("self_attn_out_proj"),
                attention_norm: affine("norm1"),
                inner: affine("linear1"),
                activation: activation(),
                outer: affine("linear2"),
                norm: affine("norm2"),
                heads: 2,
                eps: 1e-5,
                attention_dropout: 0.0,
                output_dropout: 0.0,
                hidden_dropout: 0.0,
            };
            let mask = read(&case["mask"]);
            let y = ops::encoder_layer(&get("x"), &mask.to_dtype(DType::U8)?, &layer, Mode::Eval)?;
            y.broadcast_mul(&mask.unsqueeze(2)?.to_dtype(y.dtype())?)
        }
        other => panic!("no operation {other}"),
    }
}

/// Checks every case with `tolerance` times the largest value of the compared tensor; returns how many there were.
fn check(dtype: DType, tolerance: f64) -> usize {
    let cases: Value = serde_json::from_str(include_str!("reference/ops.json")).unwrap();
    let cases = cases.as_array().unwrap();
    for case in cases {
        let inputs: Vec<(String, Var)> = case["inputs"]
            .as_object()
            .unwrap()
            .iter()
            .map(|(name, value)| (name.clone(), Var::from_tensor(&read(value).to_dtype(dtype).unwrap()).unwrap()))
            .collect();
        let find = |wanted: &str| {
            inputs.iter().find(|(name, _)| name == wanted).map(|(_, variable)| variable.as_tensor().clone())
        };
        let output = run(case, &find).unwrap();
        assert_eq!(output.dtype(), dtype);
        let near = |found: &Tensor, expected: &Tensor, what: &str| {
            let values: Vec<f64> = expected.flatten_all().unwrap().to_vec1().unwrap();
            let largest = values.iter().filter(|x| x.is_finite()).fold(1e-3f64, |max, x| max.max(x.abs()));
            if let Err(error) = assert_close(found, expected, tolerance * largest, tolerance) {
                panic!("{} in {dtype:?}, {what}: {error}", case["op"]);
            }
        };
        near(&output, &read(&case["output"]), "output");
        let weights = read(&case["weights"]).to_dtype(dtype).unwrap();
        let loss = &output;
        let gradients = (loss * weights).unwrap().sum_all().unwrap().backward().unwrap();
        for (name, variable) in &inputs {
            near(gradients.get(variable).unwrap(), &read(&case["gradients"][name]), name);
        }
    }
    cases.len()
}

#[test]
fn values_and_gradients_are_pytorchs_in_f64() {
    assert_eq!(check(DType::F64, 1e-11), 18);
}

#[test]
fn values_and_gradients_are_pytorchs_in_f32() {
    assert_eq!(check(DType::F32, 2e-5), 18);
}
