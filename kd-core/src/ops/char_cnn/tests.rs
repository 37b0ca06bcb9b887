use candle_core::{Device, Tensor, Var};

use super::words::Words;
use super::{char_cnn, composed};
use crate::testing::{assert_close, random};

#[test]
fn the_composed_op_agrees_with_the_fused_one() {
    // Among the words one of equal characters, one of a single character, and none at all.
    let chars = [[1u32, 2, 3, 4, 1], [4, 4, 4, 4, 4], [5, 0, 0, 0, 0], [0; 5], [2, 5, 0, 0, 0], [3, 1, 2, 0, 0]];
    let chars = Tensor::new(&[chars], &Device::Cpu).unwrap();
    for kernel in [1, 3, 5] {
        let inputs = [random(1, (6, 3)).unwrap(), random(2, (4, 3, kernel)).unwrap(), random(3, 4).unwrap()];
        let run = |f: &dyn Fn(&Tensor, &Tensor, &Tensor) -> Tensor| {
            let vars: Vec<_> = inputs.iter().map(|input| Var::from_tensor(input).unwrap()).collect();
            let out = f(&vars[0], &vars[1], &vars[2]).reshape((6, 4)).unwrap();
            let gradients = (&out * random(4, (6, 4)).unwrap()).unwrap().sum_all().unwrap().backward().unwrap();
            let gradients = vars.iter().map(|variable| gradients.get(variable).unwrap().clone());
            [out.clone()].into_iter().chain(gradients).collect::<Vec<_>>()
        };
        let fused = run(&|t, w, b| char_cnn(&chars, t, w, b).unwrap());
        let composed = run(&|t, w, b| composed::char_cnn(&chars, t, w, b).unwrap());
        for (fused, composed) in fused.iter().zip(&composed) {
            assert_close(composed, fused, 1e-13, 1e-13).unwrap();
        }
    }
}

#[test]
fn words_are_packed_without_padding() {
    let words = Words::new(&[7, 3, 0, 0, 0, 0, 3, 3, 9], 3, 3, 10).unwrap();
    assert_eq!((words.padded, words.places.as_slice()), (3, &[0, 2][..]));
    assert_eq!(words.symbols, [3, 7, 9]);
    assert_eq!(words.letters, [1, 0, 0, 0, 2]);
    assert_eq!((words.range(0), words.range(1)), (0..2, 2..5));
}
