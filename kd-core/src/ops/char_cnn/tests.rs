use candle_core::{DType, Device, Tensor, Var};

use super::words::Words;
use super::{CharTable, char_cnn, composed};
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
fn the_table_of_fixed_weights_gives_the_same_values() {
    // 45 words, some without characters, and filters that fill no, one and several groups of lanes.
    let ids: Vec<u32> = (0..45 * 6).map(|i| if i % 6 < i / 6 % 7 { 1 + (i * i) % 29 } else { 0 }).collect();
    let chars = Tensor::from_slice(&ids, (5, 9, 6), &Device::Cpu).unwrap();
    for (filters, kernel) in [(1, 1), (16, 3), (50, 3), (33, 5), (0, 3)] {
        let weights = [(1, vec![30, 4]), (2, vec![filters, 4, kernel]), (3, vec![filters])]
            .map(|(seed, shape)| random(seed, shape).unwrap().to_dtype(DType::F32).unwrap());
        let [table, weight, bias] = &weights;
        let expected = char_cnn(&chars, table, weight, bias).unwrap();
        let char_table = CharTable::new(table, weight, bias).unwrap();
        let found = char_table.forward(&chars).unwrap();
        assert_close(&found, &expected, 1e-6, 1e-6).unwrap();
        let mut out = vec![f32::NAN; 45 * filters];
        if filters > 0 {
            char_table.write(&ids, 6, &mut out).unwrap();
            assert_eq!(out, found.flatten_all().unwrap().to_vec1::<f32>().unwrap());
            assert!(char_table.write(&ids[1..], 6, &mut out).unwrap_err().to_string().contains("found 269"));
        }
    }
}

#[test]
fn words_are_packed_without_padding() {
    let mut words = Words::new(&[7, 3, 0, 0, 0, 0, 3, 3, 9], 3, 3, 10).unwrap();
    assert_eq!((words.word(0), words.word(1), words.word(2)), (&[7, 3][..], &[][..], &[3, 3, 9][..]));
    assert_eq!(words.rename(10), [3, 7, 9]);
    assert_eq!((words.word(0), words.word(2)), (&[1, 0][..], &[0, 0, 2][..]));
    assert_eq!(Words::new(&[], 2, 0, 10).unwrap().word(1), [0usize; 0]);
}
