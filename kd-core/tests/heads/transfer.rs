//! From stage 1 to stage 2: the body exactly, heads where they fit, and a report of both.

use std::collections::BTreeMap;

use candle_core::{DType, Result, Tensor};
use kd_core::batch::Tokens;
use kd_core::model::{Mode, Represent};
use kd_core::nn::{HeadPerTeacher, HeadsOf, Linear};
use kd_core::testing::{assert_close, device};
use kd_core::variables::Variables;

use crate::set;

struct Body(Linear);

impl Represent for Body {
    fn width(&self) -> usize {
        4
    }

    fn represent(&self, tokens: &Tokens, _: Mode) -> Result<Tensor> {
        self.0.forward(&tokens.first.ids.to_dtype(DType::F32)?)
    }
}

fn student(seed: u64, bias: bool, sets: Vec<HeadsOf>) -> (HeadPerTeacher<Body>, Variables) {
    let variables = Variables::new(seed, DType::F32, device());
    let body = Body(Linear::new(2, 4, variables.builder().pp("body")).unwrap());
    (HeadPerTeacher::new(body, sets, bias, 0.1, variables.builder()).unwrap(), variables)
}

fn stage_one() -> BTreeMap<String, Tensor> {
    copies(&student(1, true, vec![set("pretraining", 2, 3, false)]).1)
}

fn copies(variables: &Variables) -> BTreeMap<String, Tensor> {
    variables.tensors().into_iter().map(|(name, tensor)| (name, tensor.copy().unwrap())).collect()
}

fn is_equal(a: &Tensor, b: &Tensor) -> bool {
    assert_close(a, b, 0.0, 0.0).is_ok()
}

/// The names of the heads whose weight is that of `before`.
fn unchanged<'a>(heads: &[&'a str], variables: &Variables, before: &BTreeMap<String, Tensor>) -> Vec<&'a str> {
    let now = variables.tensors();
    let same = |head: &str| {
        ["weight", "bias"].iter().all(|part| {
            let name = format!("{head}.{part}");
            is_equal(&now[&name], &before[&name])
        })
    };
    heads.iter().copied().filter(|head| same(head)).collect()
}

#[test]
fn the_body_is_the_same_and_heads_of_the_same_task_are_kept() {
    let (first, sets) = (stage_one(), vec![set("wikiqa", 2, 2, true), set("rte", 2, 1, true), set("snli", 3, 3, true)]);
    let (student, variables) = student(2, true, sets);
    let start = copies(&variables);
    let keep = [("pretraining", "wikiqa"), ("pretraining", "snli")];
    let transfer = student.start_from(&variables, &first, &keep).unwrap();

    let now = variables.tensors();
    assert_eq!(transfer.body, ["body.bias", "body.weight"]);
    for name in &transfer.body {
        assert!(is_equal(&now[name], &first[name]) && !is_equal(&now[name], &start[name]), "`{name}`");
    }
    for (head, from) in &transfer.kept {
        for part in ["weight", "bias"] {
            assert!(is_equal(&now[&format!("{head}.{part}")], &first[&format!("{from}.{part}")]), "`{head}`");
        }
    }
    // New heads stay as the seed of this student drew them.
    let new: Vec<&str> = transfer.new.iter().map(|new| new.head.as_str()).collect();
    assert_eq!(unchanged(&new, &variables, &start), new);
    assert_eq!(transfer.new.len() + transfer.kept.len(), 9);
    let report = "\
body: 2 variables set
kept: heads.wikiqa.teacher.0 from heads.pretraining.teacher.0
kept: heads.wikiqa.teacher.1 from heads.pretraining.teacher.1
new: heads.wikiqa.gold (there is no `heads.pretraining.gold`)
new: heads.rte.gold (not to be kept)
new: heads.rte.teacher.0 (not to be kept)
new: heads.snli.gold (there is no `heads.pretraining.gold`)
new: heads.snli.teacher.0 (`heads.pretraining.teacher.0` has 2 classes, expected 3)
new: heads.snli.teacher.1 (`heads.pretraining.teacher.1` has 2 classes, expected 3)
new: heads.snli.teacher.2 (`heads.pretraining.teacher.2` has 2 classes, expected 3)
unused: heads.pretraining.teacher.2
";
    assert_eq!(transfer.to_string(), report);
    let json = serde_json::to_value(&transfer).unwrap();
    assert_eq!(json["kept"][1], serde_json::json!(["heads.wikiqa.teacher.1", "heads.pretraining.teacher.1"]));
    assert_eq!(json["new"][0]["head"], "heads.wikiqa.gold");
}

#[test]
fn nothing_is_kept_unless_asked_for() {
    let (student, variables) = student(2, true, vec![set("pretraining", 2, 3, true)]);
    let start = copies(&variables);
    let transfer = student.start_from(&variables, &stage_one(), &[]).unwrap();
    assert!(transfer.kept.is_empty());
    assert_eq!((transfer.new.len(), transfer.unused.len()), (4, 3));
    let heads = ["heads.pretraining.gold", "heads.pretraining.teacher.0", "heads.pretraining.teacher.2"];
    assert_eq!(unchanged(&heads, &variables, &start), heads);
}

#[test]
fn a_head_with_a_bias_is_not_one_without() {
    let (without, variables) = student(2, false, vec![set("qa", 2, 1, false)]);
    let transfer = without.start_from(&variables, &stage_one(), &[("pretraining", "qa")]).unwrap();
    assert_eq!(transfer.new[0].reason, "`heads.pretraining.teacher.0` has a bias");
    let first = copies(&student(1, false, vec![set("pretraining", 2, 3, false)]).1);
    let (with, variables) = student(2, true, vec![set("qa", 2, 1, false)]);
    let transfer = with.start_from(&variables, &first, &[("pretraining", "qa")]).unwrap();
    assert_eq!(transfer.new[0].reason, "`heads.pretraining.teacher.0` has no bias");
}

#[test]
fn what_does_not_fit_is_named_and_changes_nothing() {
    let mut first = stage_one();
    let weight = first.remove("body.bias").unwrap();
    first.insert("body.weight".into(), weight.clone());
    first.insert("pooler.bias".into(), weight);
    let (student, variables) = student(2, true, vec![set("qa", 2, 1, true)]);
    let start = copies(&variables);
    let keep = [("pretraining", "rte"), ("mnli", "qa"), ("pretraining", "qa")];
    let message = student.start_from(&variables, &first, &keep).unwrap_err().to_string();
    for part in [
        "`body.bias` is missing, expected shape [4]",
        "`body.weight` has shape [4], expected [4, 2]",
        "`pooler.bias` belongs to no variable",
        "heads are to be kept for `rte`, and the student has none of that name",
        "heads of `mnli` are to be kept, and there are none",
        "heads are to be kept for `qa` from `pretraining` and from `mnli`",
    ] {
        assert!(message.contains(part), "{message}");
    }
    assert!(variables.tensors().iter().all(|(name, tensor)| is_equal(tensor, &start[name])));
}
