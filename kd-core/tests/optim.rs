//! AdamW with dense and with sparse gradients against PyTorch, and its bytes on one, two and four threads.

use candle_core::{DType, Device, Tensor, Var};
use kd_core::ops::embedding::{SparseGradient, embedding_sparse};
use kd_core::optim::{AdamW, AdamWConfig};
use kd_core::testing::{assert_close, random};
use serde_json::Value;

const CPU: &Device = &Device::Cpu;

fn matrix(value: &Value, dtype: DType) -> Tensor {
    let rows: Vec<Vec<f64>> = serde_json::from_value(value.clone()).unwrap();
    let (height, width) = (rows.len(), rows[0].len());
    Tensor::from_vec(rows.concat(), (height, width), CPU).unwrap().to_dtype(dtype).unwrap()
}

fn adamw(start: &Tensor, lr: f64, weight_decay: f64) -> (Var, AdamW) {
    let table = Var::from_tensor(&start.copy().unwrap()).unwrap();
    let config = AdamWConfig { weight_decay, ..AdamWConfig::with_lr(lr) };
    (table.clone(), AdamW::new(vec![("table".to_string(), table)], config).unwrap())
}

/// The gradients of a loss that depends on nothing, and of `Σ table · gradient`.
fn gradients(table: Option<(&Var, &Tensor)>) -> candle_core::backprop::GradStore {
    match table {
        Some((table, gradient)) => (table.as_tensor() * gradient).unwrap().sum_all().unwrap().backward().unwrap(),
        None => Var::new(0f32, CPU).unwrap().sqr().unwrap().backward().unwrap(),
    }
}

#[test]
fn weights_are_pytorchs() {
    let reference: Value = serde_json::from_str(include_str!("reference/optim.json")).unwrap();
    let lr = reference["lr"].as_f64().unwrap();
    for (dtype, tolerance) in [(DType::F32, 3e-6), (DType::F64, 1e-6)] {
        let start = matrix(&reference["start"], dtype);
        let (sparse, mut lazy) = adamw(&start, lr, 0.0);
        let (dense, mut ordinary) = adamw(&start, lr, reference["adamw"]["weight_decay"].as_f64().unwrap());
        for step in reference["steps"].as_array().unwrap() {
            let ids: Vec<u32> = serde_json::from_value(step["ids"].clone()).unwrap();
            let gradient = SparseGradient::new(ids, matrix(&step["values"], dtype), start.dims()[0]).unwrap();
            lazy.step_sparse(&gradients(None), &[("table", &gradient)], 1.0, 1.0).unwrap();
            let gradient = gradient.to_dense().unwrap();
            ordinary.step(&gradients(Some((&dense, &gradient))), 1.0, 1.0).unwrap();
        }
        // PyTorch's SparseAdam adds eps before the bias correction of the root: 1e-6 of a change at most.
        assert_close(&sparse, &matrix(&reference["sparse_adam"], DType::F64), tolerance, tolerance).unwrap();
        let expected = matrix(&reference["adamw"]["weights"], DType::F64);
        assert_close(&dense, &expected, tolerance.min(3e-6), tolerance).unwrap();
    }
}

#[test]
fn a_row_without_a_gradient_does_not_move() {
    // Row 0 has gradient 2, then none, then 1; row 1 the other way round. lr 0.1, decay 0.5, all weights 1.
    // Step 1: θ₀ = 0.95 - 0.1 (sign-like). Step 2: row 0 rests. Step 3: m̂ = (0.9·0.2 + 0.1·1) / (1 - 0.9³),
    // v̂ = (0.999·0.004 + 0.001·1) / (1 - 0.999³), θ₀ ← 0.95 θ₀ - 0.1 m̂ / √v̂.
    let (m, v) = (0.28 / (1.0 - 0.9f64.powi(3)), 0.004996 / (1.0 - 0.999f64.powi(3)));
    let expected = 0.95 * 0.85 - 0.1 * m / v.sqrt();
    for dtype in [DType::F32, DType::F64] {
        let (table, mut adamw) = adamw(&Tensor::ones((2, 1), dtype, CPU).unwrap(), 0.1, 0.5);
        let value = |row: usize| table.get(row).unwrap().to_dtype(DType::F64).unwrap().to_vec1::<f64>().unwrap()[0];
        let mut step = |row: u32, gradient: f64| {
            let values = Tensor::new(&[[gradient]], CPU).unwrap().to_dtype(dtype).unwrap();
            let gradient = SparseGradient::new(vec![row], values, 2).unwrap();
            adamw.step_sparse(&gradients(None), &[("table", &gradient)], 1.0, 1.0).unwrap();
        };
        step(0, 2.0);
        assert!((value(0) - 0.85).abs() < 1e-6 && value(1) == 1.0);
        let before = value(0);
        step(1, 3.0);
        assert!(value(0) == before && value(1) < 0.9);
        step(0, 1.0);
        let after = value(0);
        assert!((value(0) - expected).abs() < 1e-6, "{} {expected}", value(0));
        let none = SparseGradient::new(vec![], Tensor::zeros((0, 1), dtype, CPU).unwrap(), 2).unwrap();
        adamw.step_sparse(&gradients(None), &[("table", &none)], 1.0, 1.0).unwrap();
        assert!(value(0) == after && adamw.updates() == 4);
    }
}

#[test]
fn with_a_gradient_for_every_row_lazy_and_dense_are_the_same() {
    for dtype in [DType::F32, DType::F64] {
        let start = random(1, (50, 7)).unwrap().to_dtype(dtype).unwrap();
        let ((lazy_table, mut lazy), (table, mut dense)) = (adamw(&start, 0.1, 0.1), adamw(&start, 0.1, 0.1));
        for seed in 0..3 {
            let gradient = random(2 + seed, (50, 7)).unwrap().to_dtype(dtype).unwrap();
            let sparse = SparseGradient::new((0..50).collect(), gradient.clone(), 50).unwrap();
            lazy.step_sparse(&gradients(None), &[("table", &sparse)], 0.5, 0.3).unwrap();
            dense.step(&gradients(Some((&table, &gradient))), 0.5, 0.3).unwrap();
        }
        assert_close(&lazy_table, &table, 0.0, 0.0).unwrap();
        for (name, moment) in dense.state().unwrap() {
            assert_close(&lazy.state().unwrap()[&name], &moment, 0.0, 0.0).unwrap();
        }
    }
}

#[test]
fn a_state_that_was_taken_does_not_change_with_later_steps() {
    for dtype in [DType::F32, DType::F64] {
        let (_, mut adamw) = adamw(&Tensor::ones((2, 1), dtype, CPU).unwrap(), 0.1, 0.0);
        let state = adamw.state().unwrap();
        let gradient = SparseGradient::new(vec![1], Tensor::ones((1, 1), dtype, CPU).unwrap(), 2).unwrap();
        adamw.step_sparse(&gradients(None), &[("table", &gradient)], 1.0, 1.0).unwrap();
        assert_close(&state["table.m"], &Tensor::zeros((2, 1), DType::F64, CPU).unwrap(), 0.0, 0.0).unwrap();
    }
}

#[test]
fn what_does_not_fit_is_an_error_and_changes_nothing() {
    let (table, mut adamw) = adamw(&Tensor::ones((3, 2), DType::F32, CPU).unwrap(), 0.1, 0.1);
    let gradient = |rows| SparseGradient::new(vec![1], Tensor::ones((1, 2), DType::F32, CPU).unwrap(), rows).unwrap();
    let ones = Tensor::ones((3, 2), DType::F32, CPU).unwrap();
    let dense = gradients(Some((&table, &ones)));
    let mut message = |name, rows, gradients: &_| {
        adamw.step_sparse(gradients, &[(name, &gradient(rows))], 1.0, 1.0).unwrap_err().to_string()
    };
    assert!(message("other", 3, &gradients(None)).contains("no variable `other`"));
    assert!(message("table", 4, &gradients(None)).contains("shape [3, 2], found a gradient for [4, 2]"));
    assert!(message("table", 3, &dense).contains("a sparse and a dense gradient"));
    assert_eq!(adamw.updates(), 0);
    assert_close(&table, &ones, 0.0, 0.0).unwrap();
}

#[test]
fn the_number_of_threads_changes_no_byte() {
    let start = random(1, (3000, 33)).unwrap().to_dtype(DType::F32).unwrap();
    let ids = Tensor::from_vec((0..4000u32).map(|i| i * 7 % 2500).collect::<Vec<_>>(), 4000, CPU).unwrap();
    let run = |threads| {
        rayon::ThreadPoolBuilder::new().num_threads(threads).build().unwrap().install(|| {
            let (table, mut adamw) = adamw(&start, 0.1, 0.1);
            for _ in 0..2 {
                let (found, rows) = embedding_sparse(&table, &ids).unwrap();
                let store = found.sqr().unwrap().sum_all().unwrap().backward().unwrap();
                let gradient = rows.gradient(&store).unwrap();
                adamw.step_sparse(&store, &[("table", &gradient)], 1.0, 1.0).unwrap();
                let store = table.sqr().unwrap().sum_all().unwrap().backward().unwrap();
                adamw.step(&store, 1.0, 1.0).unwrap();
            }
            table.flatten_all().unwrap().to_vec1::<f32>().unwrap()
        })
    };
    let expected = run(1);
    assert!(run(2) == expected && run(4) == expected);
}
