//! The contrast with a memory bank: its values written out, its state by hand, saved and restored; and it teaches.

use std::collections::{BTreeMap, HashMap};

use candle_core::{DType, Result, Tensor};
use candle_nn::VarBuilder;
use kd_core::losses::{Contrastive, ContrastiveConfig, MemoryBank};
use kd_core::testing::{assert_all_variables_learn, assert_close, check_gradients, device, random};
use kd_core::variables::Variables;

fn config() -> ContrastiveConfig {
    ContrastiveConfig { examples: 10, width: 3, negatives: 4, temperature: 0.5, momentum: 0.25, seed: 7 }
}

fn bank() -> MemoryBank {
    MemoryBank::new(config(), DType::F64, device()).unwrap()
}

fn contrast(seed: u64) -> (Contrastive, Variables) {
    let variables = Variables::new(seed, DType::F64, device());
    (Contrastive::new(5, 6, 3, variables.builder()).unwrap(), variables)
}

fn inputs(seed: u64) -> (Tensor, Tensor) {
    (random(seed, (2, 5)).unwrap(), random(seed + 1, (2, 6)).unwrap())
}

/// `x Wᵀ + b`, each row of length 1.
fn projected(variables: &Variables, owner: &str, x: &Tensor) -> Vec<Vec<f64>> {
    let tensors = variables.tensors();
    let get = |name: &str| tensors[&format!("{owner}.{name}")].clone();
    let y = x.matmul(&get("weight").t().unwrap()).unwrap().broadcast_add(&get("bias")).unwrap();
    y.to_vec2::<f64>().unwrap().into_iter().map(|row| unit(&row)).collect()
}

fn unit(x: &[f64]) -> Vec<f64> {
    let length = dot(x, x).sqrt();
    x.iter().map(|x| x / length).collect()
}

fn dot(a: &[f64], b: &[f64]) -> f64 {
    a.iter().zip(b).map(|(a, b)| a * b).sum()
}

#[test]
fn values_and_state_are_those_of_the_formula() {
    let (examples, config) = ([7, 2], config());
    let (mut bank, (contrast, variables)) = (bank(), contrast(1));
    let mut fixed: Option<[f64; 2]> = None;
    for step in 0..3 {
        let (student, teacher) = inputs(10 + 2 * step);
        let before = bank.tensors().unwrap();
        let drawn: Vec<Vec<u32>> = bank.draw(&examples, step).unwrap().chunks(5).map(<[u32]>::to_vec).collect();
        let found = contrast.rows(&mut bank, &student, &teacher, &examples, step).unwrap();
        // Against the other's memory, each with its own constant.
        let sides = [("student", &student, "teacher"), ("teacher", &teacher, "student")];
        let exponentials = sides.map(|(owner, x, other)| {
            let memory = before[other].to_vec2::<f64>().unwrap();
            let row = |(u, drawn): (Vec<f64>, &Vec<u32>)| -> Vec<f64> {
                drawn.iter().map(|&j| (dot(&memory[j as usize], &u) / config.temperature).exp()).collect()
            };
            projected(&variables, owner, x).into_iter().zip(&drawn).map(row).collect::<Vec<_>>()
        });
        let mean = |rows: &[Vec<f64>]| rows.concat().iter().sum::<f64>() / 10.;
        let z = *fixed.get_or_insert_with(|| [0, 1].map(|side| 10. * mean(&exponentials[side])));
        let expected: Vec<f64> = (0..2)
            .map(|row| {
                let of = |side: usize| {
                    let h = |e: f64| (e / z[side]) / (e / z[side] + 4. / 10.);
                    let e: &[f64] = &exponentials[side][row];
                    -h(e[0]).ln() - e[1..].iter().map(|&e| (1. - h(e)).ln()).sum::<f64>()
                };
                of(0) + of(1)
            })
            .collect();
        assert_close(&found, &Tensor::new(expected, device()).unwrap(), 1e-12, 1e-12).unwrap();
        // Only the batch's memories have changed: a quarter of the old and three quarters of the new.
        let after = bank.tensors().unwrap();
        for (owner, x, _) in sides {
            let mut expected = before[owner].to_vec2::<f64>().unwrap();
            for (&example, new) in examples.iter().zip(projected(&variables, owner, x)) {
                let old = &expected[example];
                expected[example] = unit(&old.iter().zip(&new).map(|(a, b)| 0.25 * a + 0.75 * b).collect::<Vec<_>>());
            }
            let expected = Tensor::new(expected, device()).unwrap();
            assert_close(&after[owner], &expected, 1e-14, 1e-14).unwrap();
        }
        let normalisers = after["log_normalisers"].to_vec1::<f64>().unwrap();
        assert!(normalisers.iter().zip(z).all(|(a, b)| (a - b.ln()).abs() < 1e-12), "fixed by the first batch");
    }
}

#[test]
fn others_are_drawn_evenly_and_never_the_example_itself() {
    let bank = bank();
    let mut counts = [0usize; 10];
    for step in 0..2000 {
        let drawn = bank.draw(&[3, 9], step).unwrap();
        assert_eq!((drawn.len(), drawn[0], drawn[5]), (10, 3, 9));
        assert!(!drawn[1..5].contains(&3) && !drawn[6..].contains(&9));
        drawn[1..5].iter().for_each(|&other| counts[other as usize] += 1);
    }
    assert_eq!(counts[3], 0);
    // 8000 draws of 9: four standard errors of 889 are 4 · √(8000 · 1/9 · 8/9) = 112.
    for (example, count) in counts.iter().enumerate().filter(|(example, _)| *example != 3) {
        assert!(count.abs_diff(889) < 112, "{example}: {count}");
    }
    assert_eq!(bank.draw(&[3, 9], 5).unwrap(), bank.draw(&[3, 9], 5).unwrap());
    assert_ne!(bank.draw(&[3, 9], 5).unwrap(), bank.draw(&[3, 9], 6).unwrap());
    let drawn = bank.draw(&[3, 3], 5).unwrap();
    assert_ne!(drawn[..5], drawn[5..], "each row has its own");
    let other = MemoryBank::new(ContrastiveConfig { seed: 8, ..config() }, DType::F64, device()).unwrap();
    assert_ne!(bank.draw(&[3, 9], 5).unwrap(), other.draw(&[3, 9], 5).unwrap());
}

#[test]
fn a_new_bank_depends_on_its_seed_and_is_of_length_one_on_average() {
    let config = ContrastiveConfig { examples: 400, width: 16, ..config() };
    let make = |seed| {
        let bank = MemoryBank::new(ContrastiveConfig { seed, ..config.clone() }, DType::F32, device()).unwrap();
        bank.tensors().unwrap()
    };
    let (one, same, other) = (make(1), make(1), make(2));
    assert_eq!(one.keys().collect::<Vec<_>>(), ["student", "teacher"]);
    let values = |tensors: &BTreeMap<String, Tensor>, name: &str| tensors[name].to_vec2::<f32>().unwrap();
    assert_eq!(values(&one, "student"), values(&same, "student"));
    assert_ne!(values(&one, "student"), values(&other, "student"));
    assert_ne!(values(&one, "student"), values(&one, "teacher"));
    let squares: f32 = values(&one, "student").concat().iter().map(|x| x * x).sum();
    // The variance of u² is 4/45 · bound⁴ = 4/45 · 9/256; four standard errors of the mean of 400 · 16 are 0.045 of the whole.
    assert!((squares / 400. - 1.).abs() < 0.045, "{squares}");
}

#[test]
fn a_restored_bank_goes_on_in_the_same_bytes() {
    let (contrast, _) = contrast(1);
    let run = |bank: &mut MemoryBank, steps: std::ops::Range<u64>| -> Vec<f64> {
        let of = |step| {
            let (student, teacher) = inputs(step);
            contrast.rows(bank, &student, &teacher, &[step as usize, 9], step).unwrap().to_vec1::<f64>().unwrap()
        };
        steps.flat_map(of).collect()
    };
    let mut whole = bank();
    let expected = run(&mut whole, 0..6);
    let mut first = bank();
    run(&mut first, 0..3);
    let saved = first.tensors().unwrap();
    let rest = run(&mut first, 3..6);
    assert_eq!(rest, expected[6..]);
    let mut restored = MemoryBank::from_tensors(config(), &saved, device()).unwrap();
    // What was saved is a copy: the first bank's later steps did not reach it.
    assert_eq!(run(&mut restored, 3..6), expected[6..]);
    for (name, tensor) in restored.tensors().unwrap() {
        assert_close(&tensor, &whole.tensors().unwrap()[&name], 0., 0.).unwrap();
    }
}

#[test]
fn gradients_agree_with_finite_differences_and_the_teacher_has_none() {
    let (first, variables) = contrast(1);
    let mut bank = bank();
    let (student, teacher) = inputs(3);
    first.rows(&mut bank, &student, &teacher, &[1, 2], 0).unwrap(); // fixes the constants
    let saved = bank.tensors().unwrap();
    let names: Vec<String> = variables.named().into_iter().map(|(name, _)| name).collect();
    let mut inputs: Vec<Tensor> = names.iter().map(|name| variables.tensors()[name].copy().unwrap()).collect();
    inputs.push(student);
    let loss = |x: &[Tensor], teacher: &Tensor| -> Result<Tensor> {
        let weights: HashMap<String, Tensor> = names.iter().cloned().zip(x.iter().cloned()).collect();
        let contrast = Contrastive::new(5, 6, 3, VarBuilder::from_tensors(weights, DType::F64, device()))?;
        let mut bank = MemoryBank::from_tensors(config(), &saved, device()).unwrap();
        contrast.rows(&mut bank, &x[x.len() - 1], teacher, &[4, 1], 1)
    };
    check_gradients(|x| loss(x, &teacher), &inputs, 1e-6).unwrap();
    let teacher = candle_core::Var::from_tensor(&teacher).unwrap();
    let gradients = loss(&inputs, &teacher).unwrap().sum_all().unwrap().backward().unwrap();
    assert!(gradients.get(&teacher).is_none());
}

#[test]
fn both_projections_learn() {
    let (contrast, variables) = contrast(1);
    let (student, teacher) = inputs(3);
    let loss = contrast.loss(&mut bank(), &student, &teacher, &[1, 2], 0).unwrap();
    assert_all_variables_learn(&variables, &loss).unwrap();
}

#[test]
fn it_teaches_which_example_is_which() {
    let config = ContrastiveConfig { examples: 8, width: 4, negatives: 6, momentum: 0.5, temperature: 0.2, seed: 3 };
    let mut bank = MemoryBank::new(config, DType::F64, device()).unwrap();
    let variables = Variables::new(4, DType::F64, device());
    let contrast = Contrastive::new(8, 6, 4, variables.builder()).unwrap();
    // The student knows an example by its index alone.
    let (student, teacher) = (Tensor::eye(8, DType::F64, device()).unwrap(), random(2, (8, 6)).unwrap());
    let nearest = || -> usize {
        let [u, v] = [("student", &student), ("teacher", &teacher)].map(|(owner, x)| projected(&variables, owner, x));
        let own = |(idx, u): (usize, &Vec<f64>)| v.iter().all(|other| dot(u, other) <= dot(u, &v[idx]) + 1e-12);
        u.iter().enumerate().filter(|&x| own(x)).count()
    };
    let before = nearest();
    for step in 0..300 {
        let loss = contrast.loss(&mut bank, &student, &teacher, &[0, 1, 2, 3, 4, 5, 6, 7], step).unwrap();
        let gradients = loss.backward().unwrap();
        for (_, variable) in variables.named() {
            let gradient = gradients.get(&variable).unwrap();
            variable.set(&(variable.as_tensor() - (gradient * 0.3).unwrap()).unwrap()).unwrap();
        }
    }
    assert!(before <= 4, "before: {before} of 8");
    assert_eq!(nearest(), 8);
}

#[test]
fn of_an_example_that_stands_there_twice_the_last_row_is_kept() {
    let (contrast, _) = contrast(1);
    let (student, teacher) = inputs(3);
    let (mut twice, mut once) = (bank(), bank());
    contrast.rows(&mut twice, &student, &teacher, &[6, 6], 0).unwrap();
    let last = |x: &Tensor| x.narrow(0, 1, 1).unwrap();
    contrast.rows(&mut once, &last(&student), &last(&teacher), &[6], 0).unwrap();
    for name in ["student", "teacher"] {
        let [twice, once] = [&twice, &once].map(|bank| bank.tensors().unwrap()[name].clone());
        assert_close(&twice, &once, 1e-15, 0.).unwrap();
    }
}

#[test]
fn half_precision_is_remembered_in_f32() {
    let variables = Variables::new(1, DType::BF16, device());
    let contrast = Contrastive::new(5, 6, 3, variables.builder()).unwrap();
    let mut bank = MemoryBank::new(config(), DType::F32, device()).unwrap();
    let (student, teacher) = inputs(3);
    let rows = contrast.rows(&mut bank, &student.to_dtype(DType::BF16).unwrap(), &teacher, &[1, 2], 0).unwrap();
    assert_eq!((rows.dtype(), bank.tensors().unwrap()["student"].dtype()), (DType::BF16, DType::F32));
    assert_all_variables_learn(&variables, &rows).unwrap();
}

#[test]
fn what_does_not_fit_is_an_error() {
    let (contrast, _) = contrast(1);
    let (student, teacher) = inputs(3);
    let mut bank = bank();
    let before = bank.tensors().unwrap();
    let message = contrast.rows(&mut bank, &student, &teacher, &[1, 10], 0).unwrap_err().to_string();
    assert!(message.contains("example 10 with a memory bank of 10 examples"), "{message}");
    let message = contrast.rows(&mut bank, &student, &teacher, &[1], 0).unwrap_err().to_string();
    assert!(message.contains("an example for each of 2 rows, found 1"), "{message}");
    let mut single = MemoryBank::new(config(), DType::F32, device()).unwrap();
    let message = contrast.rows(&mut single, &student, &teacher, &[1, 2], 0).unwrap_err().to_string();
    assert!(message.contains("width 3 and dtype F32") && message.contains("found 3 and F64"), "{message}");
    let after = bank.tensors().unwrap();
    assert_eq!(after.len(), 2, "no constant is fixed");
    assert_close(&after["student"], &before["student"], 0., 0.).unwrap();

    for (config, part) in [
        (ContrastiveConfig { examples: 1, ..config() }, "examples: expected 2 to 2^32 - 1, found 1"),
        (ContrastiveConfig { width: 0, ..config() }, "width: expected at least 1, found 0"),
        (ContrastiveConfig { negatives: 0, ..config() }, "negatives: expected at least 1, found 0"),
        (ContrastiveConfig { temperature: 0., ..config() }, "temperature: expected a finite value above 0, found 0"),
        (ContrastiveConfig { momentum: 1., ..config() }, "momentum: expected a value in [0, 1), found 1"),
    ] {
        let message = MemoryBank::new(config, DType::F64, device()).unwrap_err().to_string();
        assert!(message.contains(part), "{message}");
    }
    let message = MemoryBank::new(config(), DType::BF16, device()).unwrap_err().to_string();
    assert!(message.contains("expected f32 or f64, found BF16"), "{message}");

    let restored = |tensors: &BTreeMap<String, Tensor>| {
        MemoryBank::from_tensors(config(), tensors, device()).unwrap_err().to_string()
    };
    let mut tensors = before.clone();
    tensors.remove("teacher");
    assert!(restored(&tensors).contains("`teacher` of shape [10, 3] is missing"));
    tensors.insert("teacher".to_string(), random(1, (9, 3)).unwrap());
    assert!(restored(&tensors).contains("`teacher`: expected [10, 3] of f32 or f64, found [9, 3] of F64"));
    let mut tensors = before;
    tensors.insert("other".to_string(), random(1, 1).unwrap());
    assert!(restored(&tensors).contains("`other` belongs to no memory bank"));
    let unknown = r#"{"examples":10,"width":3,"negatives":4,"temperature":0.5,"momentum":0.25,"seed":7,"bank":1}"#;
    assert!(serde_json::from_str::<ContrastiveConfig>(unknown).unwrap_err().to_string().contains("bank"));
}
