//! `CRF`: classes of neighbouring tokens that depend on each other.

use std::ops::RangeInclusive;

use candle_core::{Result, Tensor};
use candle_nn::{Init, VarBuilder};
use kd_core::model::Mode;
use serde::Deserialize;

use super::{Block, BlockConfig, Shape, Site, Value};

/// A linear-chain CRF over the classes of a text, `(batch, len, classes)` → the same: the emissions pass through, with the
/// scores of transitions in [`Value::transitions`] for a loss and for [`viterbi`](kd_core::ops::crf::viterbi), which know
/// where a text ends (Lample et al. 2016, §2.2).
///
/// Its variable is `transitions`, `(classes + 2, classes)`: from class to class, from the start, to the end; zero at first, as
/// published. The published table has rows for start, end and padding among the classes and forbids them with -10000; here
/// they are no classes.
#[derive(Debug, Clone, PartialEq, Default, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct CrfConfig {}

impl BlockConfig for CrfConfig {
    /// Names of tags that are no classes here.
    fn ignored() -> &'static [&'static str] {
        &["START_TAG", "STOP_TAG"]
    }

    fn arity(&self) -> RangeInclusive<usize> {
        1..=1
    }

    fn infer(&self, inputs: &[Shape], _: &Site) -> std::result::Result<Shape, String> {
        inputs[0].expect_rank([3])?;
        inputs[0].width()?;
        Ok(inputs[0].clone())
    }

    fn build(&self, inputs: &[Shape], _: &Site, vb: VarBuilder<'_>) -> crate::Result<Box<dyn Block>> {
        let classes = inputs[0].width().map_err(candle_core::Error::msg)?;
        Ok(Box::new(Crf(vb.get_with_hints((classes + 2, classes), "transitions", Init::Const(0.0))?)))
    }
}

#[derive(Debug)]
struct Crf(Tensor);

impl Block for Crf {
    fn forward(&self, inputs: &[Value], _: Mode) -> Result<Value> {
        Ok(Value { transitions: Some(self.0.clone()), ..inputs[0].clone() })
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::blocks::checks::{LEN, refused, run_with};
    use candle_core::{DType, Device};
    use kd_core::batch::Rows;
    use kd_core::ops::crf;
    use kd_core::testing::{assert_all_variables_learn, assert_close, random};
    use kd_core::variables::Variables;

    /// All paths of `len` steps through 3 classes.
    fn paths(len: usize) -> Vec<Vec<usize>> {
        (0..3usize.pow(len as u32)).map(|path| (0..len).map(|at| path / 3usize.pow(at as u32) % 3).collect()).collect()
    }

    #[test]
    fn partition_and_best_path_are_those_of_all_paths_with_padding() {
        let (emissions, transitions) = (random(1, (2, 4, 3)).unwrap(), random(2, (5, 3)).unwrap());
        let lengths = [4, 2];
        let mask = Tensor::new(&[[1u8, 1, 1, 1], [1, 1, 0, 0]], &Device::Cpu).unwrap();
        let input = Value::masked(emissions.clone(), Some(mask));
        let value = run_with(&CrfConfig {}, &[input], &[("transitions", transitions.clone())]).unwrap();
        assert_eq!(value.lengths().unwrap(), lengths);
        let index = Tensor::new(&[0u32, 1, 2, 3, 4, 5], &Device::Cpu).unwrap();
        let rows = Rows::Words { index, per_example: lengths.to_vec() }.select(&value.tensor).unwrap();
        let found = value.transitions.unwrap();
        let partition = crf::log_partition(&rows, &found, &lengths).unwrap();
        let best = crf::viterbi(&rows, &found, &lengths).unwrap();

        let (e, t) = (emissions.to_vec3::<f64>().unwrap(), transitions.to_vec2::<f64>().unwrap());
        let (mut partitions, mut expected) = (Vec::new(), Vec::new());
        for (text, &len) in lengths.iter().enumerate() {
            let score = |path: &Vec<usize>| {
                let emitted: f64 = path.iter().enumerate().map(|(at, &class)| e[text][at][class]).sum();
                let passed: f64 = path.windows(2).map(|pair| t[pair[0]][pair[1]]).sum();
                t[3][path[0]] + emitted + passed + t[4][path[len - 1]]
            };
            let paths = paths(len);
            partitions.push(paths.iter().map(|path| score(path).exp()).sum::<f64>().ln());
            let best = paths.into_iter().max_by(|a, b| score(a).total_cmp(&score(b))).unwrap();
            expected.extend(best.into_iter().map(|class| class as u32));
        }
        assert_close(&partition, &Tensor::new(partitions, &Device::Cpu).unwrap(), 1e-12, 1e-12).unwrap();
        assert_eq!(best, expected);
    }

    #[test]
    fn transitions_start_at_zero_and_learn() {
        let variables = Variables::new(1, DType::F64, &Device::Cpu);
        let block = CrfConfig {}.build(&[Shape::sequence(LEN, 3)], &Site::default(), variables.builder()).unwrap();
        let value = block.forward(&[Value::new(random(1, (1, 4, 3)).unwrap())], Mode::Eval).unwrap();
        let transitions = value.transitions.unwrap();
        assert_eq!(transitions.to_vec2::<f64>().unwrap(), [[0.0; 3]; 5]);
        let labels = Tensor::new(&[0u32, 2, 1, 1], &Device::Cpu).unwrap();
        let rows = value.tensor.squeeze(0).unwrap();
        let loss = crf::negative_log_likelihood(&rows, &transitions, &labels, &[4]).unwrap();
        assert_all_variables_learn(&variables, &loss).unwrap();
    }

    #[test]
    fn classes_are_those_of_the_input_whatever_the_first_target_has() {
        let (site, words) = (Site { classes: Some(4), ..Site::default() }, Shape::sequence(LEN, 3));
        assert_eq!(CrfConfig {}.infer(std::slice::from_ref(&words), &site), Ok(words));
        assert!(refused(&CrfConfig {}, &[Shape::vector(3)]).starts_with("expected an input of rank 3"));
    }
}
