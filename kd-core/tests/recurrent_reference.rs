//! The bidirectional LSTM and the character CNN against PyTorch, finite differences and their own promises.

use candle_core::{DType, Result, Tensor, Var};
use candle_nn::VarBuilder;
use kd_core::nn::{BiLstm, CharCnn};
use kd_core::ops::char_cnn::char_cnn;
use kd_core::ops::lstm::{LstmWeights, bidirectional};
use kd_core::ops::packed::Precision;
use kd_core::testing::{assert_all_variables_learn, assert_close, check_gradients, device, random};
use kd_core::variables::Variables;
use serde_json::Value;
use std::collections::HashMap;

fn reference() -> Value {
    serde_json::from_str(include_str!("reference/recurrent.json")).unwrap()
}

fn tensor(value: &Value) -> Tensor {
    let shape: Vec<usize> = serde_json::from_value(value["shape"].clone()).unwrap();
    Tensor::from_vec(serde_json::from_value::<Vec<f64>>(value["values"].clone()).unwrap(), shape, device()).unwrap()
}

fn tensors(value: &Value, dtype: DType) -> HashMap<String, Tensor> {
    let entries = value.as_object().unwrap().iter();
    entries.map(|(name, value)| (name.clone(), tensor(value).to_dtype(dtype).unwrap())).collect()
}

fn size(value: &Value) -> usize {
    value.as_u64().unwrap() as usize
}

/// Compares the gradients of `Σ out · weights` with the reference's.
fn check_reference(
    case: &Value,
    variables: &Variables,
    out: &Tensor,
    tolerance: f64,
) -> candle_core::backprop::GradStore {
    let weights = tensor(&case["weights"]).to_dtype(out.dtype()).unwrap();
    let gradients = (out * weights).unwrap().sum_all().unwrap().backward().unwrap();
    let expected = tensors(&case["d_variables"], DType::F64);
    assert_eq!(variables.named().len(), expected.len());
    for (name, variable) in variables.named() {
        let gradient = gradients.get(&variable).unwrap_or_else(|| panic!("`{name}` has no gradient"));
        assert_close(gradient, &expected[&name], tolerance, tolerance)
            .unwrap_or_else(|error| panic!("`{name}`: {error}"));
    }
    gradients
}

#[test]
fn lstm_agrees_with_pytorch() {
    let case = &reference()["lstm"];
    let lengths: Vec<usize> = serde_json::from_value(case["lengths"].clone()).unwrap();
    for (dtype, tolerance) in [(DType::F64, 1e-12), (DType::F32, 2e-6)] {
        let variables = Variables::new(0, dtype, device());
        let lstm = BiLstm::new(size(&case["input"]), size(&case["hidden"]), size(&case["layers"]), variables.builder())
            .unwrap();
        variables.set(&tensors(&case["variables"], dtype)).unwrap();
        let xs = Var::from_tensor(&tensor(&case["xs"]).to_dtype(dtype).unwrap()).unwrap();
        let states = lstm.forward(&xs, &lengths).unwrap();
        assert_close(&states, &tensor(&case["states"]), tolerance, tolerance).unwrap();
        let gradients = check_reference(case, &variables, &states, tolerance);
        assert_close(gradients.get(&xs).unwrap(), &tensor(&case["d_xs"]), tolerance, tolerance).unwrap();
    }
}

#[test]
fn char_cnn_agrees_with_pytorch() {
    for case in reference()["char_cnn"].as_array().unwrap() {
        for (dtype, tolerance) in [(DType::F64, 1e-12), (DType::F32, 2e-6)] {
            let variables = Variables::new(0, dtype, device());
            let [symbols, width, filters, kernel] =
                ["symbols", "width", "filters", "kernel"].map(|name| size(&case[name]));
            let cnn = CharCnn::new(symbols, width, filters, kernel, variables.builder()).unwrap();
            variables.set(&tensors(&case["variables"], dtype)).unwrap();
            let out = cnn.forward(&tensor(&case["chars"]).to_dtype(DType::U32).unwrap()).unwrap();
            assert_close(&out, &tensor(&case["out"]), tolerance, tolerance).unwrap();
            check_reference(case, &variables, &out, tolerance);
        }
    }
}

fn weights(tensors: &[Tensor]) -> LstmWeights {
    let [weight_ih, weight_hh, bias_ih, bias_hh] = [0, 1, 2, 3].map(|idx| tensors[idx].clone());
    LstmWeights { weight_ih, weight_hh, bias_ih, bias_hh }
}

#[test]
fn lstm_gradients_are_right() {
    let (input, hidden) = (3, 2);
    let shapes: [&[usize]; 4] = [&[4 * hidden, input], &[4 * hidden, hidden], &[4 * hidden], &[4 * hidden]];
    // Few sequences at a step and many take different ways; the second list keeps four alive.
    for lengths in [&[3, 0, 1][..], &[4, 4, 3, 4, 2], &[2]] {
        let len = 4;
        let mut inputs = vec![random(1, (lengths.len(), len, input)).unwrap()];
        inputs.extend((0..8).map(|idx| random(2 + idx, shapes[idx as usize % 4]).unwrap()));
        check_gradients(|x| bidirectional(&x[0], lengths, &weights(&x[1..5]), &weights(&x[5..9])), &inputs, 1e-7)
            .unwrap();
        // Inputs and gradients with strides.
        let strided = |x: &[Tensor]| {
            let xs = x[0].transpose(1, 2)?.contiguous()?.transpose(1, 2)?;
            bidirectional(&xs, lengths, &weights(&x[1..5]), &weights(&x[5..9]))?.transpose(0, 2)?.sqr()
        };
        check_gradients(strided, &inputs, 1e-7).unwrap();
    }
}

fn make(seed: u64, dtype: DType) -> (Variables, BiLstm) {
    let variables = Variables::new(seed, dtype, device());
    let lstm = BiLstm::new(5, 4, 2, variables.builder()).unwrap();
    (variables, lstm)
}

/// Gradients of all variables in name order, then of `xs`.
fn gradients(variables: &Variables, xs: &Var, loss: &Tensor) -> Vec<Tensor> {
    let gradients = loss.backward().unwrap();
    let named = variables.named();
    named.iter().map(|(_, variable)| variable).chain([xs]).map(|v| gradients.get(v).unwrap().clone()).collect()
}

#[test]
fn what_stands_at_padding_is_not_read() {
    let (variables, lstm) = make(1, DType::F64);
    let (lengths, len, more) = ([3, 1, 0, 4], 4, 7);
    let xs = random(2, (4, len, 5)).unwrap();
    let mut rubbish = vec![f64::NAN; 4 * more * 5];
    for (sequence, &length) in lengths.iter().enumerate() {
        let row = xs.get(sequence).unwrap().flatten_all().unwrap().to_vec1::<f64>().unwrap();
        rubbish[sequence * more * 5..][..length * 5].copy_from_slice(&row[..length * 5]);
    }
    let short = Var::from_tensor(&xs).unwrap();
    let long = Var::from_vec(rubbish, (4, more, 5), device()).unwrap();
    let (a, b) = (lstm.forward(&short, &lengths).unwrap(), lstm.forward(&long, &lengths).unwrap());
    assert_close(&b.narrow(1, 0, len).unwrap(), &a, 0.0, 0.0).unwrap();
    for (sequence, &length) in lengths.iter().enumerate() {
        let padding = b.get(sequence).unwrap().narrow(0, length, more - length).unwrap();
        assert_close(&padding, &padding.zeros_like().unwrap(), 0.0, 0.0).unwrap();
    }
    let weights = random(3, (4, len, 8)).unwrap();
    let at_padding = random(4, (4, more - len, 8)).unwrap(); // what a careless head would send back
    let loss = |states: &Tensor, weights: &Tensor| (states * weights).unwrap().sum_all().unwrap();
    let a = gradients(&variables, &short, &loss(&a, &weights));
    let b = gradients(&variables, &long, &loss(&b, &Tensor::cat(&[weights, at_padding], 1).unwrap()));
    // On a GPU the products of a longer batch may add in another order.
    let tolerance = if device().is_cpu() { 0.0 } else { 1e-13 };
    for (a, b) in a.iter().zip(&b).take(a.len() - 1) {
        assert_close(b, a, tolerance, tolerance).unwrap();
    }
    let (a, b) = (a.last().unwrap(), b.last().unwrap());
    assert_close(&b.narrow(1, 0, len).unwrap(), a, tolerance, tolerance).unwrap();
    for (sequence, &length) in lengths.iter().enumerate() {
        let padding = b.get(sequence).unwrap().narrow(0, length, more - length).unwrap();
        assert_close(&padding, &padding.zeros_like().unwrap(), 0.0, 0.0).unwrap();
    }
}

#[test]
fn the_order_of_the_batch_changes_nothing() {
    let (variables, lstm) = make(1, DType::F64);
    let (lengths, order) = ([3, 1, 5, 4], [2u32, 0, 3, 1]);
    let xs = random(2, (4, 5, 5)).unwrap();
    let order_tensor = Tensor::new(&order, device()).unwrap();
    let swapped = Var::from_tensor(&xs.index_select(&order_tensor, 0).unwrap()).unwrap();
    let swapped_lengths = order.map(|idx| lengths[idx as usize]);
    let xs = Var::from_tensor(&xs).unwrap();
    let (a, b) = (lstm.forward(&xs, &lengths).unwrap(), lstm.forward(&swapped, &swapped_lengths).unwrap());
    assert_close(&b, &a.index_select(&order_tensor, 0).unwrap(), 1e-14, 0.0).unwrap();
    let loss = |states: &Tensor| states.sqr().unwrap().sum_all().unwrap();
    let mut a = gradients(&variables, &xs, &loss(&a));
    let b = gradients(&variables, &swapped, &loss(&b));
    let d_xs = a.pop().unwrap().index_select(&order_tensor, 0).unwrap();
    a.push(d_xs);
    for (a, b) in a.iter().zip(&b) {
        assert_close(b, a, 1e-13, 1e-13).unwrap();
    }
    // Each sequence by itself: batch 1.
    for (sequence, &length) in lengths.iter().enumerate() {
        let alone = xs.narrow(0, sequence, 1).unwrap().narrow(1, 0, length).unwrap();
        let together = lstm.forward(&xs, &lengths).unwrap().narrow(0, sequence, 1).unwrap();
        let alone = lstm.forward(&alone, &[length]).unwrap();
        assert_close(&alone, &together.narrow(1, 0, length).unwrap(), 1e-14, 0.0).unwrap();
    }
}

#[test]
fn batches_without_tokens_work() {
    let (variables, lstm) = make(1, DType::F32);
    for (batch, len) in [(0, 3), (2, 0), (2, 3)] {
        let xs = Var::zeros((batch, len, 5), DType::F32, device()).unwrap();
        let states = lstm.forward(&xs, &vec![0; batch]).unwrap();
        assert_eq!(states.dims(), [batch, len, 8]);
        assert!(states.flatten_all().unwrap().to_vec1::<f32>().unwrap().iter().all(|&x| x == 0.0));
        if batch * len > 0 {
            for gradient in gradients(&variables, &xs, &states.sum_all().unwrap()) {
                assert_close(&gradient, &gradient.zeros_like().unwrap(), 0.0, 0.0).unwrap();
            }
        }
    }
}

#[test]
fn every_variable_learns() {
    for dtype in [DType::F32, DType::F64] {
        let (variables, lstm) = make(1, dtype);
        let names: Vec<_> = variables.named().into_iter().map(|(name, _)| name).collect();
        assert_eq!(names.len(), 16);
        for name in ["weight_ih_l0", "weight_hh_l0_reverse", "bias_ih_l1", "bias_hh_l1_reverse"] {
            assert!(names.iter().any(|other| other == name), "{names:?}");
        }
        for (name, variable) in variables.named() {
            let largest = variable.abs().unwrap().flatten_all().unwrap().max(0).unwrap().to_dtype(DType::F64).unwrap();
            let largest: f64 = largest.to_scalar().unwrap();
            assert!((0.3..=0.5).contains(&largest), "`{name}` reaches {largest}, expected 1 / √4 at most");
        }
        let xs = random(2, (3, 4, 5)).unwrap().to_dtype(dtype).unwrap();
        let states = lstm.forward(&xs, &[4, 2, 3]).unwrap();
        assert_all_variables_learn(&variables, &states.sqr().unwrap().sum_all().unwrap()).unwrap();

        let variables = Variables::new(1, dtype, device());
        let cnn = CharCnn::new(9, 4, 5, 3, variables.builder()).unwrap();
        let chars = Tensor::new(&[[[1u32, 2, 3, 4], [5, 6, 0, 0]], [[7, 8, 2, 0], [0; 4]]], device()).unwrap();
        let words = cnn.forward(&chars).unwrap();
        assert_all_variables_learn(&variables, &words.sqr().unwrap().sum_all().unwrap()).unwrap();
    }
}

#[test]
fn the_number_of_threads_changes_no_byte() {
    let variables = Variables::new(1, DType::F32, device());
    let lstm = BiLstm::new(96, 64, 1, variables.builder().pp("lstm")).unwrap();
    let cnn = CharCnn::new(60, 16, 96, 3, variables.builder().pp("cnn")).unwrap();
    let lengths: Vec<usize> = (0..17).map(|idx| idx * 5 % 14).collect();
    let ids = (0..17 * 13).flat_map(|word| {
        (0..11).map(move |t| if t < word * 3 % 12 { ((word * 7 + t * t) % 59 + 1) as u32 } else { 0 })
    });
    let chars = Tensor::from_vec(ids.collect::<Vec<_>>(), (17, 13, 11), device()).unwrap();
    let run = |threads| {
        let pool = rayon::ThreadPoolBuilder::new().num_threads(threads).build().unwrap();
        pool.install(|| {
            let states = lstm.forward(&cnn.forward(&chars).unwrap(), &lengths).unwrap();
            let gradients = states.sqr().unwrap().sum_all().unwrap().backward().unwrap();
            let named = variables.named();
            let gradients = named.iter().map(|(_, variable)| gradients.get(variable).unwrap());
            let all: Vec<Vec<f32>> =
                gradients.chain([&states]).map(|t| t.flatten_all().unwrap().to_vec1().unwrap()).collect();
            all
        })
    };
    let expected = run(1);
    for threads in [2, 4] {
        assert!(run(threads) == expected, "{threads} threads");
    }
}

/// The same variables, without a graph.
fn frozen(variables: &Variables) -> VarBuilder<'static> {
    let tensors = variables.tensors().into_iter().map(|(name, tensor)| (name, tensor.detach())).collect();
    VarBuilder::from_tensors(tensors, DType::F32, device())
}

#[test]
fn weights_without_a_graph_give_the_same_bytes_and_no_graph() {
    let (variables, lstm) = make(1, DType::F32);
    let xs = random(2, (3, 4, 5)).unwrap().to_dtype(DType::F32).unwrap();
    let fast = BiLstm::new(5, 4, 2, frozen(&variables)).unwrap().forward(&xs, &[4, 0, 3]).unwrap();
    assert!(!fast.track_op());
    let expected = lstm.forward(&xs, &[4, 0, 3]).unwrap();
    assert_close(&fast, &expected, 0.0, 0.0).unwrap();

    let variables_of_cnn = Variables::new(1, DType::F32, device());
    let cnn = CharCnn::new(9, 4, 5, 3, variables_of_cnn.builder()).unwrap();
    let chars = Tensor::new(&[[[1u32, 2, 3, 4], [5, 6, 0, 0]], [[7, 8, 2, 0], [0; 4]]], device()).unwrap();
    let mut without_graph = CharCnn::new(9, 4, 5, 3, frozen(&variables_of_cnn)).unwrap();
    let fast = without_graph.forward(&chars).unwrap();
    assert!(!fast.track_op());
    assert_close(&fast, &cnn.forward(&chars).unwrap(), 0.0, 0.0).unwrap();
    if !device().is_cpu() {
        return; // packed weights are for the CPU
    }
    without_graph.freeze().unwrap();
    let fast = without_graph.forward(&chars).unwrap();
    assert!(!fast.track_op());
    assert_close(&fast, &cnn.forward(&chars).unwrap(), 1e-6, 0.0).unwrap();

    let mut packed = lstm.clone();
    packed.freeze(Precision::F32).unwrap();
    let fast = packed.forward(&xs, &[4, 0, 3]).unwrap();
    assert!(!fast.track_op());
    assert_close(&fast, &expected, 0.0, 0.0).unwrap();
    let mut rounded = lstm.clone();
    // Weights below 1/2 and inputs of about 1, rounded to 2⁻⁸ of themselves, or of their row's largest, in two layers.
    for (precision, tolerance) in [(Precision::Bf16, 0.02), (Precision::Int8, 0.03)] {
        rounded.freeze(precision).unwrap();
        let found = rounded.forward(&xs, &[4, 0, 3]).unwrap();
        assert_close(&found, &expected, tolerance, 0.0).unwrap();
        assert!(assert_close(&found, &expected, 0.0, 0.0).is_err(), "nothing was rounded");
        let padding = found.get(2).unwrap().get(3).unwrap();
        assert_eq!(padding.to_vec1::<f32>().unwrap(), [0.0; 8]);
    }
    for (_, variable) in variables.named() {
        variable.set(&variable.zeros_like().unwrap()).unwrap();
    }
    assert_close(&packed.forward(&xs, &[4, 0, 3]).unwrap(), &expected, 0.0, 0.0).unwrap();
    assert!(packed.forward(Var::from_tensor(&xs).unwrap().as_tensor(), &[4, 0, 3]).is_err());
}

#[test]
fn char_cnn_gradients_are_right() {
    // "aaaaa" has equal windows, where a difference quotient moves all of them: not among these words.
    let chars = Tensor::new(&[[[1u32, 2, 3, 1, 4], [4, 0, 0, 0, 0]], [[3, 3, 5, 0, 0], [0; 5]]], device()).unwrap();
    for kernel in [1, 3, 7] {
        let inputs = [random(1, (6, 3)).unwrap(), random(2, (4, 3, kernel)).unwrap(), random(3, 4).unwrap()];
        check_gradients(|x| char_cnn(&chars, &x[0], &x[1], &x[2]), &inputs, 1e-7).unwrap();
    }
}

#[test]
fn the_first_of_equal_windows_gets_the_gradient() {
    // One filter of kernel 1 with weight 2 and bias 1 on "aba", embeddings a = 3, b = 1: windows 7, 3, 7.
    let var = |values: &[f64], shape: &[usize]| {
        Var::from_tensor(&Tensor::from_slice(values, shape, device()).unwrap()).unwrap()
    };
    let run = |chars: &[u32], weight: &[f64]| {
        let (table, bias) = (var(&[9.0, 3.0, 1.0], &[3, 1]), var(&[1.0], &[1]));
        let weight = var(weight, &[1, 1, weight.len()]);
        let out = char_cnn(&Tensor::new(chars, device()).unwrap().reshape((1, 1, ())).unwrap(), &table, &weight, &bias)
            .unwrap();
        let gradients = out.sum_all().unwrap().backward().unwrap();
        let all = [&table, &weight, &bias]
            .map(|v| gradients.get(v).unwrap().flatten_all().unwrap().to_vec1::<f64>().unwrap());
        (out.flatten_all().unwrap().to_vec1::<f64>().unwrap()[0], all)
    };
    assert_eq!(run(&[1, 2, 1], &[2.0]), (7.0, [vec![0.0, 2.0, 0.0], vec![3.0], vec![1.0]]));
    // Weight (2, 0, 0) reads the character before: the windows of "aaa" are 1, 7, 7. The second has characters on both
    // sides, the third has none after it, so which of them won shows in the weight's gradient (3, 3, 3), not (3, 3, 0).
    assert_eq!(run(&[1, 1, 1], &[2.0, 0.0, 0.0]), (7.0, [vec![0.0, 2.0, 0.0], vec![3.0, 3.0, 3.0], vec![1.0]]));
}

#[test]
fn row_0_and_padding_are_never_read() {
    let chars = |ids: &[u32], shape: (usize, usize, usize)| Tensor::from_slice(ids, shape, device()).unwrap();
    let table = random(1, (5, 3)).unwrap();
    let nan = Tensor::full(f64::NAN, (1, 3), device()).unwrap();
    let table = Var::from_tensor(&Tensor::cat(&[nan, table.narrow(0, 1, 4).unwrap()], 0).unwrap()).unwrap();
    let (weight, bias) = (random(2, (6, 3, 3)).unwrap(), random(3, 6).unwrap());
    let tight = char_cnn(&chars(&[1, 2, 3, 4, 2, 0], (1, 2, 3)), &table, &weight, &bias).unwrap();
    let loose_ids = [1, 2, 3, 0, 0, 4, 2, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0];
    let loose = char_cnn(&chars(&loose_ids, (2, 3, 5)), &table, &weight, &bias).unwrap();
    assert_close(&loose.get(0).unwrap().narrow(0, 0, 2).unwrap(), &tight.get(0).unwrap(), 0.0, 0.0).unwrap();
    let rest = loose.reshape((6, 6)).unwrap().narrow(0, 2, 4).unwrap();
    assert_close(&rest, &rest.zeros_like().unwrap(), 0.0, 0.0).unwrap();
    let gradients = loose.sqr().unwrap().sum_all().unwrap().backward().unwrap();
    let rows = gradients.get(&table).unwrap().to_vec2::<f64>().unwrap();
    assert_eq!(rows[0], [0.0; 3]);
    assert!(rows[1..].iter().flatten().all(|x| x.is_finite()));

    let variables = Variables::new(1, DType::F32, device());
    CharCnn::new(5, 3, 2, 3, variables.builder()).unwrap();
    let table = variables.tensors()["embedding.weight"].to_vec2::<f32>().unwrap();
    assert!(table[0] == [0.0; 3] && table[1..].iter().flatten().all(|&x| x != 0.0));
}

#[test]
fn no_words_and_no_characters_work() {
    let variables = Variables::new(1, DType::F32, device());
    let cnn = CharCnn::new(5, 3, 2, 3, variables.builder()).unwrap();
    for shape in [(0, 2, 3), (2, 0, 3), (2, 3, 0), (2, 3, 4)] {
        let words = cnn.forward(&Tensor::zeros(shape, DType::U32, device()).unwrap()).unwrap();
        assert_eq!(words.dims(), [shape.0, shape.1, 2]);
        assert!(words.flatten_all().unwrap().to_vec1::<f32>().unwrap().iter().all(|&x| x == 0.0));
    }
}

#[test]
fn errors_name_what_does_not_fit() {
    let message = |result: Result<Tensor>| result.unwrap_err().to_string();
    let (_, lstm) = make(1, DType::F32);
    let xs = Tensor::zeros((2, 3, 5), DType::F32, device()).unwrap();
    assert!(message(lstm.forward(&xs, &[3])).contains("lengths of 2 sequences, found 1"));
    assert!(message(lstm.forward(&xs, &[3, 4])).contains("sequence 1 has length 4, expected at most 3"));
    assert!(message(lstm.forward(&xs.narrow(2, 0, 4).unwrap(), &[3, 3])).contains("[16, 4]"));
    let variables = Variables::new(0, DType::F32, device());
    assert!(BiLstm::new(3, 0, 1, variables.builder()).is_err());
    assert!(CharCnn::new(5, 3, 2, 4, variables.builder()).unwrap_err().to_string().contains("odd kernel, found 4"));
    let cnn = CharCnn::new(5, 3, 2, 3, variables.builder()).unwrap();
    if !device().is_cpu() {
        return; // what stands on a GPU is not read back to be checked
    }
    let run = |ids: [u32; 3]| cnn.forward(&Tensor::new(&[[[1u32, 2, 3], ids]], device()).unwrap());
    assert!(message(run([1, 5, 0])).contains("word 1 has character 5 at 1, expected less than 5"));
    assert!(message(run([1, 0, 2])).contains("word 1 has character 2 behind padding, at 2"));
}
