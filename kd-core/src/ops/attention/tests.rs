use super::*;
use crate::testing::{assert_close, random};
use candle_core::{Device, Var};

fn mask(rows: &[&[u8]]) -> Tensor {
    let len = rows.first().map_or(0, |row| row.len());
    Tensor::from_vec(rows.concat(), (rows.len(), len), &Device::Cpu).unwrap()
}

fn inputs(batch: usize, len: usize, hidden: usize) -> [Var; 3] {
    [1, 2, 3].map(|seed| Var::from_tensor(&(random(seed, (batch, len, hidden)).unwrap() * 2.0).unwrap()).unwrap())
}

/// Output and the three gradients of its sum with fixed weights.
fn all(y: &Tensor, inputs: &[Var; 3]) -> Vec<Tensor> {
    let gradients = (y * random(9, y.shape()).unwrap()).unwrap().sum_all().unwrap().backward().unwrap();
    let mut all = vec![y.detach()];
    all.extend(inputs.iter().map(|input| gradients.get(input).unwrap().clone()));
    all
}

#[test]
fn kernel_and_composition_agree_with_padding_holes_and_dropout() {
    let [q, k, v] = &inputs(4, 5, 6);
    let mask = mask(&[&[1, 1, 1, 1, 1], &[1, 1, 0, 0, 0], &[0, 1, 0, 1, 0], &[0, 0, 0, 0, 0]]);
    for (heads, p) in [(1, 0.0), (3, 0.0), (2, 0.3), (6, 0.5)] {
        let mode = Mode::Train { seed: 4 };
        let fused = attention(q, k, v, heads, &mask, p, mode).unwrap();
        let plain = composed(q, k, v, heads, &mask, Mask::new(p, mode).unwrap()).unwrap();
        let inputs = [q.clone(), k.clone(), v.clone()];
        for (fused, plain) in all(&fused, &inputs).iter().zip(&all(&plain, &inputs)) {
            assert_close(fused, plain, 1e-13, 0.0).unwrap();
        }
        // Without variables nothing is kept and dropout is applied in place.
        let detached = attention(&q.detach(), &k.detach(), &v.detach(), heads, &mask, p, mode).unwrap();
        assert_close(&detached, &fused, 0.0, 0.0).unwrap();
    }
}

#[test]
fn probs_are_those_of_attention() {
    let [q, k, v] = &inputs(2, 3, 4);
    let mask = mask(&[&[1, 1, 1], &[1, 1, 0]]);
    let probs = attention_probs(q, k, 2, &mask).unwrap();
    assert_eq!(probs.dims(), [2, 2, 3, 3]);
    assert_close(&probs.sum(3).unwrap(), &Tensor::ones((2, 2, 3), DType::F64, &Device::Cpu).unwrap(), 1e-14, 0.0)
        .unwrap();
    assert_eq!(probs.get(1).unwrap().narrow(2, 2, 1).unwrap().max_all().unwrap().to_scalar::<f64>().unwrap(), 0.0);
    // The second head reads columns 2 and 3.
    let head =
        probs.narrow(1, 1, 1).unwrap().squeeze(1).unwrap().matmul(&v.narrow(2, 2, 2).unwrap().contiguous().unwrap());
    let y = attention(q, k, v, 2, &mask, 0.0, Mode::Eval).unwrap();
    assert_close(&y.narrow(2, 2, 2).unwrap(), &head.unwrap(), 1e-14, 0.0).unwrap();
    let gradients = (&probs * random(5, probs.shape()).unwrap()).unwrap().sum_all().unwrap().backward().unwrap();
    for x in [q, k] {
        assert!(gradients.get(x).unwrap().sqr().unwrap().sum_all().unwrap().to_scalar::<f64>().unwrap() > 0.0);
    }
}

#[test]
fn padding_gets_nothing_and_gives_nothing() {
    let [q, k, v] = &inputs(2, 4, 4);
    let mask = mask(&[&[1, 1, 0, 0], &[0, 0, 0, 0]]);
    let y = attention(q, k, v, 2, &mask, 0.0, Mode::Eval).unwrap();
    // An example without keys gives zeros, and NaN on padding changes nothing.
    assert_close(&y.get(1).unwrap(), &y.get(1).unwrap().zeros_like().unwrap(), 0.0, 0.0).unwrap();
    let spoil = |x: &Var| {
        let nan = Tensor::full(f64::NAN, (2, 2, 4), &Device::Cpu).unwrap();
        Tensor::cat(&[&x.narrow(1, 0, 2).unwrap(), &nan], 1).unwrap()
    };
    let spoilt = attention(q, &spoil(k), &spoil(v), 2, &mask, 0.0, Mode::Eval).unwrap();
    assert_close(&spoilt.get(0).unwrap(), &y.get(0).unwrap(), 0.0, 0.0).unwrap();
    let gradients = y.sum_all().unwrap().backward().unwrap();
    for x in [k, v] {
        let gradient = gradients.get(x).unwrap();
        let padding = gradient.get(0).unwrap().narrow(0, 2, 2).unwrap();
        assert_close(&padding, &padding.zeros_like().unwrap(), 0.0, 0.0).unwrap();
        assert_close(&gradient.get(1).unwrap(), &padding.zeros_like().unwrap().repeat((2, 1)).unwrap(), 0.0, 0.0)
            .unwrap();
    }
}

#[test]
fn more_padding_changes_nothing() {
    let [q, k, v] = &inputs(2, 7, 6);
    let short = |x: &Var| x.narrow(1, 0, 3).unwrap();
    let y = attention(&short(q), &short(k), &short(v), 3, &mask(&[&[1, 1, 1], &[1, 1, 0]]), 0.0, Mode::Eval).unwrap();
    let padded = mask(&[&[1, 1, 1, 0, 0, 0, 0], &[1, 1, 0, 0, 0, 0, 0]]);
    let long = attention(q, k, v, 3, &padded, 0.0, Mode::Eval).unwrap();
    assert_close(&long.narrow(1, 0, 3).unwrap(), &y, 1e-15, 0.0).unwrap();
}

#[test]
fn a_second_backward_gives_the_same() {
    let inputs = inputs(1, 3, 4);
    let [q, k, v] = &inputs;
    let y = attention(q, k, v, 2, &mask(&[&[1, 1, 1]]), 0.5, Mode::Train { seed: 1 }).unwrap();
    for (first, second) in all(&y, &inputs).iter().zip(&all(&y, &inputs)) {
        assert_close(first, second, 0.0, 0.0).unwrap();
    }
}

#[test]
fn empty_batches_and_lengths() {
    for (batch, len) in [(0, 3), (2, 0)] {
        let inputs = inputs(batch, len, 4);
        let [q, k, v] = &inputs;
        let mask = Tensor::zeros((batch, len), DType::U8, &Device::Cpu).unwrap();
        let y = attention(q, k, v, 2, &mask, 0.1, Mode::Train { seed: 1 }).unwrap();
        assert!(all(&y, &inputs).iter().all(|x| x.dims() == [batch, len, 4]));
    }
}

#[test]
fn errors_name_what_was_found() {
    let [q, k, v] = &inputs(2, 3, 4);
    let good = mask(&[&[1, 1, 1], &[1, 1, 1]]);
    for (heads, mask, part) in [
        (3, &good, "hidden size 4, found 3"),
        (0, &good, "found 0"),
        (2, &mask(&[&[1, 1], &[1, 1]]), "[2, 3], found U8 [2, 2]"),
        (2, &good.to_dtype(DType::F32).unwrap(), "found F32"),
    ] {
        let message = attention(q, k, v, heads, mask, 0.0, Mode::Eval).unwrap_err().to_string();
        assert!(message.contains(part), "{message}");
    }
    let message = attention(q, &k.narrow(1, 0, 2).unwrap(), v, 2, &good, 0.0, Mode::Eval).unwrap_err().to_string();
    assert!(message.contains("[2, 2, 4]"), "{message}");
}
