use super::*;
use crate::example::Sentence;

fn texts(labels: &[Label], groups: &[&str]) -> Examples {
    let example = |(idx, label): (usize, &Label)| TextExample {
        first: "a".into(),
        label: label.clone(),
        line: idx + 2,
        group: groups.get(idx).map(|group| group.to_string()),
        ..TextExample::default()
    };
    let examples = labels.iter().enumerate().map(example).collect();
    Examples::Texts { data: Dataset { path: "dev.tsv".into(), examples }, left_out: vec![] }
}

fn class(name: &str) -> Label {
    Label::Class(name.into())
}

fn names(names: &[&str]) -> Vec<String> {
    names.iter().map(|name| name.to_string()).collect()
}

/// One row an example.
fn rows(logits: &[&[f32]]) -> Vec<Vec<Vec<f32>>> {
    logits.iter().map(|row| vec![row.to_vec()]).collect()
}

fn values(task: &Task, examples: &Examples, logits: &[Vec<Vec<f32>>]) -> Vec<Option<f64>> {
    let classes = task.classes_of(examples).unwrap();
    task.scores(examples, &classes, logits).unwrap().0.into_iter().map(|(_, value)| value).collect()
}

fn several(separated: &str) -> Task {
    let columns =
        Columns { label: Some("label".into()), kind: LabelKind::Classes { separator: ',' }, ..Columns::text("text") };
    Task::of_columns(separated, columns)
}

#[test]
fn every_name_is_a_task() {
    for name in Task::NAMES {
        let task = Task::named(name).unwrap();
        assert_eq!(task.name, name);
        assert!(!task.metrics.is_empty());
        for part in Part::ALL {
            assert!(!task.file_names(part).is_empty(), "{name} {part:?}");
        }
        // F1 is that of the second of two classes.
        if task.metrics.contains(&Metric::F1) {
            assert_eq!(task.classes.unwrap().len(), 2);
        }
    }
    let message = Task::named("iris").unwrap_err().to_string();
    assert!(message.starts_with("task: expected one of rte, mrpc,") && message.ends_with("found `iris`"), "{message}");
    assert_eq!(Task::named("mnli-mismatched").unwrap().file_names(Part::Dev), ["dev_mismatched.tsv"]);
    assert_eq!(Task::named("mnli-mismatched").unwrap().file_names(Part::Train), ["train.tsv"]);
}

#[test]
fn parts_are_found_by_the_first_name_that_is_there() {
    let folder = tempfile::tempdir().unwrap();
    let snli = Task::named("snli").unwrap();
    let message = snli.read_part(folder.path(), Part::Dev).unwrap_err().to_string();
    let expected =
        "expected `dev.tsv` or `snli_1.0_dev.txt` or `snli_1.0_dev.jsonl`, the dev part of snli, found no such file";
    assert!(message.ends_with(expected), "{message}");
    std::fs::write(
        folder.path().join("snli_1.0_dev.txt"),
        "gold_label\tsentence1\tsentence2\n-\ta\tb\nneutral\tc\td\n",
    )
    .unwrap();
    let Examples::Texts { data, left_out } = snli.read_part(folder.path(), Part::Dev).unwrap() else { panic!() };
    assert_eq!((data.len(), left_out), (1, vec![2]));
}

#[test]
fn intents_and_slots_come_from_the_same_folder() {
    let folder = tempfile::tempdir().unwrap();
    let part = folder.path().join("valid");
    std::fs::create_dir(&part).unwrap();
    for (name, text) in [("seq.in", "play jazz\nhi\n"), ("seq.out", "O I-genre\nO\n"), ("label", "Play\nGreet\n")] {
        std::fs::write(part.join(name), text).unwrap();
    }
    let read = |name: &str| {
        let task = Task::named(name).unwrap();
        let examples = task.read_part(folder.path(), Part::Dev).unwrap();
        (task.classes_of(&examples).unwrap(), examples)
    };
    let (classes, intents) = read("snips-intents");
    assert_eq!(classes, ["Greet", "Play"]);
    let Examples::Texts { data, .. } = &intents else { panic!() };
    assert_eq!((data.examples[0].first.as_str(), data.examples[1].line), ("play jazz", 2));
    let (classes, slots) = read("snips-slots");
    // Both marks of a type, of which only `I` occurs, and tags in IOB2.
    assert_eq!(classes, ["O", "B-genre", "I-genre"]);
    let targets = Task::named("snips-slots").unwrap().targets(&slots, &classes).unwrap();
    assert_eq!(targets, Targets::Classes(vec![vec![0, 1], vec![0]]));
}

#[test]
fn a_share_is_what_all_would_be_without_the_rest() {
    let folder = tempfile::tempdir().unwrap();
    let write = |name: &str, text: &str| {
        let path = folder.path().join(name);
        std::fs::write(&path, text).unwrap();
        path
    };
    let columns = Task::of_columns("columns", Columns { second: Some("b".into()), ..Columns::text("a") });
    for (task, path) in [
        (columns.clone(), write("a.tsv", "a\tb\n0\tx\n1\tx\n\"2\tx\n3\tx\n4\tx\n")),
        (columns.clone(), write("a.csv", "b,a\r\nx,0\r\nx,\"1\n\"\r\nx,2\r\n\r\nx,3\r\nx,4\r\n")),
        (
            columns.clone(),
            write("a.jsonl", &(0..5).map(|a| format!("{{\"a\": {a}, \"b\": \"x\"}}\n")).collect::<String>()),
        ),
        (
            Task::named("snli").unwrap(),
            write("b.txt", "gold_label\tsentence1\tsentence2\nneutral\ta\tb\n-\ta\tb\nneutral\tc\td\n"),
        ),
        (Task::named("wnut17").unwrap(), write("a.conll", "a\tO\n\nb\tO\n\nc\tO\n\nd\tO\n\ne\tO\n")),
    ] {
        let all = task.read(&path).unwrap();
        for (share, of) in [(0, 1), (0, 2), (1, 2), (2, 3), (6, 7)] {
            let (mut next, mut selected) = (0, all.clone());
            let found = task.read_where(&path, &mut || {
                next += 1;
                (next - 1) % of == share
            });
            let mut idx = 0..;
            let mut is_in = || idx.next().is_some_and(|idx: usize| idx % of == share);
            match &mut selected {
                Examples::Texts { data, .. } => data.examples.retain(|_| is_in()),
                Examples::Sentences(data) => data.examples.retain(|_| is_in()),
            }
            assert_eq!(found.unwrap(), selected, "{} {share}/{of}", path.display());
            assert_eq!(next, all.len(), "asked once for every example");
        }
    }
    // What is wrong in one share is wrong in all.
    let broken = write("b.tsv", "a\tb\n0\tx\n1\n2\tx\n");
    for share in 0..3 {
        let mut idx = 0..;
        let read = columns.read_where(&broken, &mut || idx.next() == Some(share));
        let message = read.unwrap_err().to_string();
        assert!(message.ends_with("b.tsv:3: expected 2 columns as on line 1, found 1 column"), "{message}");
    }
}

#[test]
fn scores_of_classes_by_hand() {
    // Predicted 1, 1, 0, 0 and gold 1, 0, 1, 0: accuracy 1/2; one of two predicted and of two gold: F1 1/2.
    let gold =
        texts(&[class("equivalent"), class("not_equivalent"), class("equivalent"), class("not_equivalent")], &[]);
    let logits = rows(&[&[0., 1.], &[-1., 0.], &[2., 1.], &[0., 0.]]);
    assert_eq!(values(&Task::named("mrpc").unwrap(), &gold, &logits), [Some(0.5), Some(0.5)]);
    // Matthews of two right and two wrong, balanced, is 0.
    let gold = texts(&[class("acceptable"), class("unacceptable"), class("acceptable"), class("unacceptable")], &[]);
    assert_eq!(values(&Task::named("cola").unwrap(), &gold, &logits), [Some(0.0), Some(0.5)]);
}

#[test]
fn answers_are_ranked_within_their_question() {
    // Question a: the right answer is second, so 1/2; question b: first, so 1; c has no answer and is left out.
    let labels = ["0", "1", "1", "0", "0"].map(class);
    let gold = texts(&labels, &["a", "a", "b", "b", "c"]);
    let logits = rows(&[&[0., 2.], &[0., 1.], &[-3., 0.], &[0., 0.], &[0., 9.]]);
    // Area: of the 2 · 3 pairs of a right and a wrong row, (1 > 0) and (3 > 2), (3 > 0) are in order: margins are
    // right 1, 3 and wrong 2, 0, 9.
    let task = Task::named("wikiqa").unwrap();
    assert_eq!(values(&task, &gold, &logits), [Some(0.75), Some(0.75), Some(0.5)]);
    let without = texts(&labels, &[]);
    let message = task.scores(&without, &names(&["0", "1"]), &logits).unwrap_err().to_string();
    assert_eq!(message, "dev.tsv: expected examples with a group each, to be ranked, found some without");
}

#[test]
fn scores_of_queries_and_passages_by_hand() {
    let task = Task::named("query-passage").unwrap();
    let gold = texts(&[class("1"), class("0"), class("1"), class("0")], &[]);
    // Margins 2, 1, 0.5, -1: of the four pairs of a right and a wrong one three are in order. At 0 and above is class 1: three
    // are of their class.
    let logits = rows(&[&[0., 2.], &[1., 2.], &[0., 0.5], &[1., 0.]]);
    assert_eq!(task.metrics, [Metric::RocAuc, Metric::Accuracy]);
    assert_eq!(values(&task, &gold, &logits), [Some(0.75), Some(0.75)]);
    assert_eq!(task.file_names(Part::Train), ["train.tsv", "train_autotest.tsv"]);
    assert_eq!(task.file_names(Part::Dev), ["valid.tsv"]);
    let folder = tempfile::tempdir().unwrap();
    std::fs::write(folder.path().join("train_autotest.tsv"), "who?\tme\t0.75\t\nwhy?\tno\t0.25\t\n").unwrap();
    let train = task.read_part(folder.path(), Part::Train).unwrap();
    assert_eq!(task.targets(&train, &names(&["0", "1"])).unwrap(), Targets::Classes(vec![vec![1], vec![0]]));
}

#[test]
fn scores_of_numbers_by_hand() {
    let gold = texts(&[Label::Score(1.0), Label::Score(2.0), Label::Score(3.0)], &[]);
    let task = Task::named("stsb").unwrap();
    assert_eq!(task.classes_of(&gold).unwrap(), ["score"]);
    for value in values(&task, &gold, &rows(&[&[-1.], &[0.], &[1.]])) {
        assert!((value.unwrap() - 1.0).abs() < 1e-12, "{value:?}");
    }
    // A constant has no correlation.
    let scores = task.scores(&gold, &names(&["score"]), &rows(&[&[1.], &[1.], &[1.]])).unwrap();
    assert!(scores.first().is_nan());
    assert_eq!(serde_json::to_string(&scores).unwrap(), r#"{"pearson":null,"spearman":null}"#);
}

#[test]
fn scores_of_several_labels_by_hand() {
    // Gold {blue}, {blue, red}, {}; predicted {blue}, {red}, {red}: 2 right of 3 gold and 3 predicted; 1 of 3 exact.
    let set = |names_of: &[&str]| Label::Classes(names(names_of));
    let gold = texts(&[set(&["blue"]), set(&["red", "blue"]), set(&[])], &[]);
    let task = several("colours");
    assert_eq!(task.classes_of(&gold).unwrap(), ["blue", "red"]);
    assert_eq!(
        task.targets(&gold, &names(&["blue", "red"])).unwrap(),
        Targets::Sets(vec![vec![0], vec![0, 1], vec![]])
    );
    let scores = values(&task, &gold, &rows(&[&[1., 0.], &[-1., 2.], &[-1., 0.5]]));
    assert_eq!(scores, [Some(2.0 * 2.0 / 6.0), Some(1.0 / 3.0)]);
}

#[test]
fn scores_of_tags_are_those_of_whole_entities() {
    let sentence = |tags: &[&str]| Sentence {
        words: names(&vec!["w"; tags.len()]),
        tags: names(tags),
        line: 1,
        ..Sentence::default()
    };
    let data = Dataset { path: "a.conll".into(), examples: vec![sentence(&["B-X", "I-X"]), sentence(&["O"])] };
    let (task, examples) = (Task::named("conll2003").unwrap(), Examples::Sentences(data));
    assert_eq!(task.classes_of(&examples).unwrap(), ["O", "B-X", "I-X"]);
    // The entity whole, and one where there is none: 1 right of 1 gold and 2 predicted.
    let logits = vec![vec![vec![0., 1., 0.], vec![0., 0., 1.]], vec![vec![0., 1., 0.]]];
    assert_eq!(values(&task, &examples, &logits), [Some(2.0 / 3.0)]);
}

#[test]
fn labels_of_another_kind_and_unknown_classes_are_named() {
    let rte = Task::named("rte").unwrap();
    let classes = rte.classes.clone().unwrap();
    let message = |task: &Task, label: Label, classes: &[String]| {
        task.targets(&texts(&[label], &[]), classes).unwrap_err().to_string()
    };
    assert_eq!(
        message(&rte, class("neutral"), &classes),
        "dev.tsv:2: expected one of the classes entailment, not_entailment, found `neutral`"
    );
    assert_eq!(
        message(&rte, Label::None, &classes),
        "dev.tsv:2: expected a class, as the task rte has it, found no label"
    );
    assert_eq!(
        message(&Task::named("stsb").unwrap(), class("x"), &names(&["score"])),
        "dev.tsv:2: expected a number, as the task stsb has it, found a class"
    );
    assert_eq!(
        message(&several("colours"), Label::Score(1.0), &names(&["red"])),
        "dev.tsv:2: expected several classes, as the task colours has it, found a number"
    );
    let unlabelled = texts(&[Label::None], &[]);
    assert!(!unlabelled.is_labelled());
    assert_eq!(
        Task::named("snips-intents").unwrap().classes_of(&unlabelled).unwrap_err().to_string(),
        "dev.tsv: expected examples with classes, found none"
    );
}

#[test]
fn logits_that_do_not_belong_to_the_labels_are_refused() {
    let (rte, gold) = (Task::named("rte").unwrap(), texts(&[class("entailment")], &[]));
    let classes = rte.classes.clone().unwrap();
    let message = |logits: &[&[f32]]| rte.scores(&gold, &classes, &rows(logits)).unwrap_err().to_string();
    assert_eq!(message(&[]), "logits: expected 1 rows of 1 examples, found 0 rows of 0 examples");
    assert_eq!(message(&[&[1.]]), "logits: expected 2 numbers a row, found [1.0]");
    assert_eq!(message(&[&[1., f32::NAN]]), "logits: expected 2 numbers a row, found [1.0, NaN]");
}
