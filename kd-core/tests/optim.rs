//! The optimisers with dense and with sparse gradients against PyTorch, what they leave alone, and their bytes on
//! one, two and four threads.

use candle_core::backprop::GradStore;
use candle_core::{DType, Tensor, Var};
use kd_core::ops::embedding::{SparseGradient, embedding_sparse};
use kd_core::optim::{
    AdadeltaConfig, AdagradConfig, AdamConfig, AdamW, AdamWConfig, AdamaxConfig, Group, NAdamConfig, Optimizer,
    OptimizerConfig, RAdamConfig, RmsPropConfig, SgdConfig,
};
use kd_core::testing::{assert_close, device, random};
use serde_json::Value;

fn matrix(value: &Value, dtype: DType) -> Tensor {
    let rows: Vec<Vec<f64>> = serde_json::from_value(value.clone()).unwrap();
    let (height, width) = (rows.len(), rows[0].len());
    Tensor::from_vec(rows.concat(), (height, width), device()).unwrap().to_dtype(dtype).unwrap()
}

/// Every optimiser and its variants, with weight decay.
fn configs() -> Vec<OptimizerConfig> {
    let sgd = |momentum, nesterov| SgdConfig { lr: 0.1, momentum, nesterov, weight_decay: 0.1 };
    let rms_prop = |momentum, centered| {
        RmsPropConfig { weight_decay: 0.1, alpha: 0.9, momentum, centered, ..RmsPropConfig::with_lr(0.1) }.into()
    };
    vec![
        AdamWConfig { weight_decay: 0.1, ..AdamWConfig::with_lr(0.1) }.into(),
        sgd(0.0, false).into(),
        sgd(0.9, false).into(),
        sgd(0.9, true).into(),
        AdamaxConfig { weight_decay: 0.1, ..AdamaxConfig::with_lr(0.1) }.into(),
        AdamConfig { weight_decay: 0.1, ..AdamConfig::with_lr(0.1) }.into(),
        AdamConfig::with_lr(0.1).into(),
        NAdamConfig { weight_decay: 0.1, ..NAdamConfig::with_lr(0.1) }.into(),
        NAdamConfig { weight_decay: 0.1, decoupled_weight_decay: true, ..NAdamConfig::with_lr(0.1) }.into(),
        RAdamConfig { weight_decay: 0.1, ..RAdamConfig::with_lr(0.1) }.into(),
        AdagradConfig { weight_decay: 0.1, lr_decay: 0.1, ..AdagradConfig::with_lr(0.1) }.into(),
        AdadeltaConfig { weight_decay: 0.1, ..AdadeltaConfig::with_lr(1.0) }.into(),
        rms_prop(0.0, false),
        rms_prop(0.9, false),
        rms_prop(0.0, true),
        rms_prop(0.9, true),
    ]
}

fn build(start: &Tensor, config: OptimizerConfig) -> (Var, Box<dyn Optimizer>) {
    let table = Var::from_tensor(&start.copy().unwrap()).unwrap();
    let optimizer = config.build(vec![("table".to_string(), table.clone())], &[]).unwrap();
    (table, optimizer)
}

fn adamw(start: &Tensor, lr: f64, weight_decay: f64) -> (Var, Box<dyn Optimizer>) {
    build(start, AdamWConfig { weight_decay, ..AdamWConfig::with_lr(lr) }.into())
}

/// The gradients of a loss that depends on nothing, and of `Σ table · gradient`.
fn gradients(table: Option<(&Var, &Tensor)>) -> GradStore {
    match table {
        Some((table, gradient)) => (table.as_tensor() * gradient).unwrap().sum_all().unwrap().backward().unwrap(),
        None => Var::new(0f32, device()).unwrap().sqr().unwrap().backward().unwrap(),
    }
}

/// The bytes of a tensor, in f64, which holds every value of the other dtypes.
fn bits(tensor: &Tensor) -> Vec<u64> {
    let values: Vec<f64> = tensor.to_dtype(DType::F64).unwrap().flatten_all().unwrap().to_vec1().unwrap();
    values.into_iter().map(f64::to_bits).collect()
}

#[test]
fn weights_are_pytorchs_after_every_step() {
    let reference: Value = serde_json::from_str(include_str!("reference/optim.json")).unwrap();
    for case in reference["cases"].as_array().unwrap() {
        let config: OptimizerConfig = serde_json::from_value(case["config"].clone()).unwrap();
        for (dtype, tolerance) in [(DType::F32, 3e-6), (DType::F64, 1e-12)] {
            let (table, mut optimizer) = build(&matrix(&reference["start"], dtype), config);
            let steps = reference["steps"].as_array().unwrap();
            for (idx, (step, weights)) in steps.iter().cycle().zip(case["weights"].as_array().unwrap()).enumerate() {
                let ids: Vec<u32> = serde_json::from_value(step["ids"].clone()).unwrap();
                let rows = SparseGradient::new(ids, matrix(&step["values"], dtype), table.dims()[0]).unwrap();
                let gradient = rows.to_dense().unwrap();
                optimizer.step(&gradients(Some((&table, &gradient))), step["factor"].as_f64().unwrap(), 1.0).unwrap();
                let expected = matrix(weights, DType::F64);
                assert_close(&table, &expected, tolerance, tolerance)
                    .unwrap_or_else(|error| panic!("{config:?} {dtype:?}, step {idx}: {error}"));
            }
        }
    }
}

#[test]
fn sparse_adam_is_pytorchs() {
    let reference: Value = serde_json::from_str(include_str!("reference/optim.json")).unwrap();
    for (dtype, tolerance) in [(DType::F32, 3e-6), (DType::F64, 1e-6)] {
        let start = matrix(&reference["start"], dtype);
        let (table, mut lazy) = adamw(&start, reference["lr"].as_f64().unwrap(), 0.0);
        for step in reference["steps"].as_array().unwrap() {
            let ids: Vec<u32> = serde_json::from_value(step["ids"].clone()).unwrap();
            let gradient = SparseGradient::new(ids, matrix(&step["values"], dtype), start.dims()[0]).unwrap();
            lazy.step_sparse(&gradients(None), &[("table", &gradient)], 1.0, 1.0).unwrap();
        }
        // PyTorch's SparseAdam adds eps before the bias correction of the root: 1e-6 of a change at most.
        assert_close(&table, &matrix(&reference["sparse_adam"], DType::F64), tolerance, tolerance).unwrap();
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
        let (table, mut adamw) = adamw(&Tensor::ones((2, 1), dtype, device()).unwrap(), 0.1, 0.5);
        let value = |row: usize| table.get(row).unwrap().to_dtype(DType::F64).unwrap().to_vec1::<f64>().unwrap()[0];
        let mut step = |row: u32, gradient: f64| {
            let values = Tensor::new(&[[gradient]], device()).unwrap().to_dtype(dtype).unwrap();
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
        let none = SparseGradient::new(vec![], Tensor::zeros((0, 1), dtype, device()).unwrap(), 2).unwrap();
        adamw.step_sparse(&gradients(None), &[("table", &none)], 1.0, 1.0).unwrap();
        assert!(value(0) == after && adamw.updates() == 4);
    }
}

#[test]
fn of_a_large_table_the_other_rows_are_not_even_read() {
    // Their moments are NaN, which any pass over the table would bring into the weights.
    let (rows, width) = (30_000, 300);
    let start = random(1, (rows, width)).unwrap().to_dtype(DType::F32).unwrap();
    let ids = [0u32, 7, 54, 29_999];
    let values = random(2, (ids.len(), width)).unwrap().to_dtype(DType::F32).unwrap();
    let gradient = SparseGradient::new(ids.to_vec(), values, rows).unwrap();
    for config in configs() {
        let (table, mut optimizer) = build(&start, config);
        let mut state = optimizer.state().unwrap();
        for moment in state.values_mut() {
            let mut values = vec![f32::NAN; rows * width];
            ids.iter().for_each(|&id| values[id as usize * width..][..width].fill(0.0));
            *moment = Tensor::from_vec(values, (rows, width), device()).unwrap();
        }
        optimizer.restore(&state, 0).unwrap();
        optimizer.step_sparse(&gradients(None), &[("table", &gradient)], 1.0, 1.0).unwrap();
        let [before, after] = [&start, table.as_tensor()].map(|tensor| tensor.to_vec2::<f32>().unwrap());
        for (row, (before, after)) in before.iter().zip(&after).enumerate() {
            let moved = before.iter().zip(after).filter(|(before, after)| before.to_bits() != after.to_bits()).count();
            assert!(after.iter().all(|x| x.is_finite()), "{config:?}, row {row}");
            assert_eq!(moved > width / 2, ids.contains(&(row as u32)), "{config:?}, row {row}: {moved} moved");
            assert!(moved == 0 || ids.contains(&(row as u32)), "{config:?}, row {row}");
        }
    }
}

#[test]
fn with_a_gradient_for_every_row_lazy_and_dense_are_the_same() {
    for (config, dtype) in with_dtypes() {
        let start = random(1, (50, 7)).unwrap().to_dtype(dtype).unwrap();
        let ((lazy_table, mut lazy), (table, mut dense)) = (build(&start, config), build(&start, config));
        for seed in 0..3 {
            let gradient = random(2 + seed, (50, 7)).unwrap().to_dtype(dtype).unwrap();
            let sparse = SparseGradient::new((0..50).collect(), gradient.clone(), 50).unwrap();
            lazy.step_sparse(&gradients(None), &[("table", &sparse)], 0.5, 0.3).unwrap();
            dense.step(&gradients(Some((&table, &gradient))), 0.5, 0.3).unwrap();
        }
        // On a GPU a kernel makes the dense update, and Candle's operations the other: the same but for rounding.
        let tolerance = match dtype {
            _ if device().is_cpu() => 0.0,
            DType::F64 => 1e-14,
            DType::F32 => 1e-6,
            _ => 0.01,
        };
        let same = |a: &Tensor, b: &Tensor, name: &str| {
            assert_close(a, b, tolerance, tolerance)
                .unwrap_or_else(|error| panic!("{config:?} {dtype:?} {name}: {error}"));
        };
        same(&lazy_table, &table, "weights");
        let lazy = lazy.state().unwrap();
        for (name, moment) in dense.state().unwrap() {
            same(&lazy[&name], &moment, &name);
        }
    }
}

fn with_dtypes() -> Vec<(OptimizerConfig, DType)> {
    let dtypes = [DType::F32, DType::F64, DType::BF16, DType::F16];
    configs().into_iter().flat_map(|config| dtypes.map(|dtype| (config, dtype))).collect()
}

#[test]
fn restored_state_goes_on_with_the_same_bytes() {
    for (config, dtype) in with_dtypes() {
        let run = |cut: usize| {
            let (table, mut optimizer) = build(&random(1, (5, 3)).unwrap().to_dtype(dtype).unwrap(), config);
            for step in 0..5 {
                if step == cut {
                    let (state, updates) = (optimizer.state().unwrap(), optimizer.updates());
                    optimizer = config.build(vec![("table".to_string(), table.clone())], &[]).unwrap();
                    optimizer.restore(&state, updates).unwrap();
                }
                let gradients = table.sqr().unwrap().sum_all().unwrap().backward().unwrap();
                optimizer.step(&gradients, 1.0, 1.0).unwrap();
            }
            bits(&table)
        };
        assert_eq!(run(3), run(usize::MAX), "{config:?} {dtype:?}");
    }
}

#[test]
fn a_state_that_was_taken_does_not_change_with_later_steps() {
    for (config, dtype) in with_dtypes() {
        let (table, mut optimizer) = build(&Tensor::ones((2, 1), dtype, device()).unwrap(), config);
        let state = optimizer.state().unwrap();
        let gradient = SparseGradient::new(vec![1], Tensor::ones((1, 1), dtype, device()).unwrap(), 2).unwrap();
        optimizer.step_sparse(&gradients(None), &[("table", &gradient)], 1.0, 1.0).unwrap();
        optimizer.step(&table.sqr().unwrap().sum_all().unwrap().backward().unwrap(), 1.0, 1.0).unwrap();
        for (name, moment) in &state {
            assert_eq!(bits(moment), [0, 0], "{config:?} {dtype:?} {name}");
        }
        // And one that was given back is not changed by them.
        optimizer.restore(&state, 0).unwrap();
        optimizer.step_sparse(&gradients(None), &[("table", &gradient)], 1.0, 1.0).unwrap();
        for (name, moment) in &state {
            assert_eq!(bits(moment), [0, 0], "{config:?} {dtype:?} {name}");
        }
    }
}

#[test]
fn moments_of_half_precision_are_f32() {
    // The gradient 1 + 2⁻⁷ is a bf16, its square and its product with 1 - β are not: in bf16 the moments would be
    // others by thousandths.
    let gradient = Tensor::new(&[[1.0078125f32]], device()).unwrap();
    for config in configs() {
        let moments = |dtype| {
            let (table, mut optimizer) = build(&Tensor::ones((1, 1), dtype, device()).unwrap(), config);
            let gradients = gradients(Some((&table, &gradient.to_dtype(dtype).unwrap())));
            optimizer.step(&gradients, 1.0, 1.0).unwrap();
            assert_eq!(table.dtype(), dtype);
            (optimizer.state().unwrap(), table)
        };
        let ((half, half_table), (full, table)) = (moments(DType::BF16), moments(DType::F32));
        assert!(half.values().all(|moment| moment.dtype() == DType::F32));
        for (name, moment) in full {
            assert_close(&half[&name], &moment, 0.0, 5e-7).unwrap();
        }
        // A bf16 has 8 bits.
        assert_close(&half_table, &table, 0.0, 1.0 / 256.0).unwrap();
    }
}

#[test]
fn groups_have_rates_and_decay_of_their_own_and_frozen_variables_no_state() {
    // SGD at lr 0.5 from 1 with gradient 1 and decay 0.5: 1 - 0.5 · f · (1 + λ).
    let var = || Var::ones((1, 1), DType::F32, device()).unwrap();
    let named: Vec<_> = ["a", "b", "c", "d", "bias"].into_iter().map(|name| (name.to_string(), var())).collect();
    let groups = [
        Group::frozen("a"),
        Group::with_lr_factor("b*", 0.5),
        Group { weight_decay: Some(0.0), ..Group::with_lr_factor("c", 1.0) },
    ];
    let config = SgdConfig { lr: 0.5, momentum: 0.5, nesterov: false, weight_decay: 0.5 };
    let mut optimizer = OptimizerConfig::Sgd(config).build(named.clone(), &groups).unwrap();
    assert_eq!(optimizer.frozen(), ["a"]);
    assert_eq!(optimizer.named().map(|(name, _)| name).collect::<Vec<_>>(), ["b", "c", "d", "bias"]);
    let sum = named.iter().map(|(_, var)| var.as_tensor().clone()).reduce(|a, b| (a + b).unwrap()).unwrap();
    let gradients = sum.sum_all().unwrap().backward().unwrap();
    // Four trained variables with a gradient of 1, and the frozen one's that does not count.
    assert_eq!(optimizer.gradient_norm(&gradients, &[]).unwrap(), 2.0);
    optimizer.step(&gradients, 1.0, 1.0).unwrap();
    let values: Vec<f32> = named.iter().map(|(_, var)| var.to_vec2::<f32>().unwrap()[0][0]).collect();
    // `bias` is in b's group, where it has half the rate but no decay.
    assert_eq!(values, [1.0, 1.0 - 0.25 * 1.5, 0.5, 1.0 - 0.5 * 1.5, 0.75]);
    let state = optimizer.state().unwrap();
    let names: Vec<_> = state.keys().map(String::as_str).collect();
    assert_eq!(names, ["b.momentum", "bias.momentum", "c.momentum", "d.momentum"]);
    // A state with moments of a variable that is frozen now belongs to another run.
    let mut other = OptimizerConfig::Sgd(config).build(named, &[Group::frozen("a"), Group::frozen("b*")]).unwrap();
    let message = other.restore(&state, 1).unwrap_err().to_string();
    assert!(message.contains("`b.momentum`, `bias.momentum`, which belong to no trained variable"), "{message}");
}

#[test]
fn a_frozen_tables_gradients_are_left_alone() {
    let table = Var::ones((3, 1), DType::F32, device()).unwrap();
    let named = vec![("table".to_string(), table.clone())];
    let mut adamw = AdamW::with_groups(named, AdamWConfig::with_lr(0.1), &[Group::frozen("*")]).unwrap();
    let rows = SparseGradient::new(vec![1], Tensor::ones((1, 1), DType::F32, device()).unwrap(), 3).unwrap();
    assert_eq!(adamw.gradient_norm(&gradients(None), &[("table", &rows)]).unwrap(), 0.0);
    adamw.step_sparse(&gradients(None), &[("table", &rows)], 1.0, 1.0).unwrap();
    assert_eq!(table.to_vec2::<f32>().unwrap(), [[1.0]; 3]);
    assert!(adamw.state().unwrap().is_empty());
}

#[test]
fn the_norm_spans_dense_and_sparse_gradients() {
    for dtype in [DType::F32, DType::F64, DType::BF16] {
        let [table, dense] = [3, 1].map(|rows| Var::ones((rows, 1), dtype, device()).unwrap());
        let named = vec![("table".to_string(), table), ("dense".to_string(), dense.clone())];
        let adamw = AdamW::new(named, AdamWConfig::with_lr(0.1)).unwrap();
        let values = Tensor::new(&[[2f32], [4.0]], device()).unwrap().to_dtype(dtype).unwrap();
        let rows = SparseGradient::new(vec![0, 2], values, 3).unwrap();
        let gradients = gradients(Some((&dense, &Tensor::new(&[[4f32]], device()).unwrap().to_dtype(dtype).unwrap())));
        // √(2² + 4² + 4²)
        assert_eq!(adamw.gradient_norm(&gradients, &[("table", &rows)]).unwrap(), 6.0);
    }
}

#[test]
fn what_does_not_fit_is_an_error_and_changes_nothing() {
    for config in configs() {
        let (table, mut optimizer) = build(&Tensor::ones((3, 2), DType::F32, device()).unwrap(), config);
        let gradient =
            |rows| SparseGradient::new(vec![1], Tensor::ones((1, 2), DType::F32, device()).unwrap(), rows).unwrap();
        let ones = Tensor::ones((3, 2), DType::F32, device()).unwrap();
        let dense = gradients(Some((&table, &ones)));
        let mut transposed = gradients(None);
        transposed.insert(table.as_tensor(), Tensor::ones((2, 3), DType::F32, device()).unwrap());
        let mut message = |name, rows, gradients: &_| {
            optimizer.step_sparse(gradients, &[(name, &gradient(rows))], 1.0, 1.0).unwrap_err().to_string()
        };
        assert!(message("other", 3, &gradients(None)).contains("no variable `other`"));
        assert!(message("table", 4, &gradients(None)).contains("shape [3, 2], found a gradient for [4, 2]"));
        assert!(message("table", 3, &dense).contains("a sparse and a dense gradient"));
        let error = optimizer.step(&transposed, 1.0, 1.0).unwrap_err().to_string();
        assert!(error.contains("shape [3, 2], found a gradient of [2, 3]"), "{error}");
        assert_eq!(optimizer.updates(), 0);
        assert_close(&table, &ones, 0.0, 0.0).unwrap();
    }
}

#[test]
fn a_state_that_does_not_fit_changes_nothing() {
    let (_, mut adamw) = adamw(&Tensor::ones((3, 2), DType::F32, device()).unwrap(), 0.1, 0.1);
    let state = adamw.state().unwrap();
    let ones = |shape| Tensor::ones(shape, DType::F32, device()).unwrap();
    let mut message = |name: &str, moment: Option<Tensor>| {
        let mut state = state.clone();
        match moment {
            Some(moment) => state.insert(name.to_string(), moment),
            None => state.remove(name),
        };
        adamw.restore(&state, 3).unwrap_err().to_string()
    };
    assert!(message("table.v", None).starts_with("`table.v` is missing"));
    assert!(message("table.v", Some(ones((2, 3)))).starts_with("`table.v` has shape [2, 3], expected [3, 2]"));
    assert!(message("other.m", Some(ones((3, 2)))).contains("the state has `other.m`, which belong to no"));
    assert_eq!(adamw.updates(), 0);
}

#[test]
fn settings_are_read_by_name_and_unknown_ones_refused() {
    for config in configs() {
        let json = serde_json::to_string(&config).unwrap();
        assert_eq!(serde_json::from_str::<OptimizerConfig>(&json).unwrap(), config);
        let other = config.with_lr(0.25);
        assert!(other.lr() == 0.25 && other.with_lr(config.lr()) == config && config.lr() != 0.25);
    }
    let read = |json| serde_json::from_str::<OptimizerConfig>(json).map_err(|error| error.to_string());
    assert_eq!(read(r#"{"name": "sgd", "lr": 0.5}"#), Ok(SgdConfig::with_lr(0.5).into()));
    let message = read(r#"{"name": "sgd", "lr": 0.5, "beta1": 0.9}"#).unwrap_err();
    assert!(message.contains("unknown field `beta1`"), "{message}");
    let message = read(r#"{"name": "lion", "lr": 0.5}"#).unwrap_err();
    assert!(message.contains("unknown variant `lion`, expected one of `adamw`, `sgd`, `adamax`"), "{message}");
}

#[test]
fn the_number_of_threads_changes_no_byte() {
    let start = random(1, (3000, 33)).unwrap().to_dtype(DType::F32).unwrap();
    let ids = Tensor::from_vec((0..4000u32).map(|i| i * 7 % 2500).collect::<Vec<_>>(), 4000, device()).unwrap();
    for config in configs() {
        let run = |threads| {
            rayon::ThreadPoolBuilder::new().num_threads(threads).build().unwrap().install(|| {
                let (table, mut optimizer) = build(&start, config);
                for _ in 0..2 {
                    let (found, rows) = embedding_sparse(&table, &ids).unwrap();
                    let store = found.sqr().unwrap().sum_all().unwrap().backward().unwrap();
                    let gradient = rows.gradient(&store).unwrap();
                    optimizer.step_sparse(&store, &[("table", &gradient)], 1.0, 1.0).unwrap();
                    let store = table.sqr().unwrap().sum_all().unwrap().backward().unwrap();
                    optimizer.step(&store, 1.0, 1.0).unwrap();
                }
                bits(&table)
            })
        };
        let expected = run(1);
        assert!(run(2) == expected && run(4) == expected, "{config:?}");
    }
}
