use super::*;

fn read(set: Glue, text: &str) -> Result<(Dataset<TextExample>, Vec<usize>)> {
    let folder = tempfile::tempdir().unwrap();
    std::fs::write(folder.path().join("a.tsv"), text).unwrap();
    read_glue(folder.path().join("a.tsv"), set)
}

fn message(set: Glue, text: &str) -> String {
    let message = read(set, text).unwrap_err().to_string();
    message[message.find("a.tsv").unwrap()..].to_string()
}

/// The only example of a file.
fn example(set: Glue, text: &str) -> TextExample {
    let (data, broken) = read(set, text).unwrap();
    assert!(broken.is_empty());
    let [example] = &data.examples[..] else { panic!("{} examples", data.len()) };
    example.clone()
}

fn expected(first: &str, second: Option<&str>, label: &str, line: usize) -> TextExample {
    let label = if label.is_empty() { Label::None } else { Label::Class(label.to_string()) };
    TextExample { first: first.into(), second: second.map(Into::into), label, line, group: None }
}

#[test]
fn each_set_has_its_columns_and_the_names_of_its_classes() {
    let cases = [
        (Glue::Rte, "index\tsentence1\tsentence2\tlabel\n7\ta\tb\tnot_entailment\n", Some("b"), "not_entailment"),
        // A byte order mark, the label first, and line ends of Windows.
        (
            Glue::Mrpc,
            "\u{feff}Quality\t#1 ID\t#2 ID\t#1 String\t#2 String\r\n1\t3\t4\ta\tb\r\n",
            Some("b"),
            "equivalent",
        ),
        (Glue::Sst2, "sentence\tlabel\na\t0\n", None, "negative"),
        (Glue::Qnli, "index\tquestion\tsentence\tlabel\n0\ta\tb\tentailment\n", Some("b"), "entailment"),
        // Annotators' labels stand beside the gold label.
        (
            Glue::Mnli,
            "index\tgenre\tsentence1\tsentence2\tlabel1\tlabel2\tgold_label\n0\tfiction\ta\tb\tneutral\tneutral\tcontradiction\n",
            Some("b"),
            "contradiction",
        ),
        (Glue::Qqp, "id\tqid1\tqid2\tquestion1\tquestion2\tis_duplicate\n0\t1\t2\ta\tb\t1\n", Some("b"), "duplicate"),
    ];
    for (set, text, second, label) in cases {
        assert_eq!(example(set, text), expected("a", second, label, 2), "{set:?}");
        assert!(set.classes().unwrap().contains(&label.to_string()));
    }
    assert_eq!(Glue::Mrpc.classes().unwrap(), ["not_equivalent", "equivalent"]);
}

#[test]
fn cola_has_no_header_but_in_its_test_file() {
    assert_eq!(
        example(Glue::Cola, "gj04\t0\t*\tThe book sings it.\n"),
        expected("The book sings it.", None, "unacceptable", 1)
    );
    assert_eq!(example(Glue::Cola, "index\tsentence\n0\tIt sings.\n"), expected("It sings.", None, "", 2));
    assert_eq!(
        message(Glue::Cola, "gj04\t0\t*\tIt sings.\ngj04\t1\tIt sings.\n"),
        "a.tsv:2: expected 4 columns as on line 1, found 3 columns"
    );
}

#[test]
fn similarities_are_numbers() {
    let header = "index\tgenre\tsentence1\tsentence2\tscore\n";
    let score = |text: &str| example(Glue::StsB, &format!("{header}0\tnews\ta\tb\t{text}\n")).label;
    assert_eq!(score("3.800"), Label::Score(3.8));
    assert_eq!(Glue::StsB.classes(), None);
    for wrong in ["5.1", "nan", "much"] {
        assert_eq!(
            message(Glue::StsB, &format!("{header}0\tnews\ta\tb\t{wrong}\n")),
            format!("a.tsv:2: expected a number from 0 to 5, found `{wrong}`")
        );
    }
}

#[test]
fn quotes_are_text() {
    let text = "sentence\tlabel\n\"a\t1\nb\"\t0\n";
    let (data, _) = read(Glue::Sst2, text).unwrap();
    let texts: Vec<_> = data.examples.iter().map(|example| example.first.as_str()).collect();
    assert_eq!(texts, ["\"a", "b\""]);
}

#[test]
fn test_files_have_no_labels() {
    assert_eq!(example(Glue::Rte, "index\tsentence1\tsentence2\n0\ta\tb\n"), expected("a", Some("b"), "", 2));
    let mrpc = "index\t#1 ID\t#2 ID\t#1 String\t#2 String\n0\t1\t2\ta\tb\n";
    assert_eq!(example(Glue::Mrpc, mrpc), expected("a", Some("b"), "", 2));
    assert_eq!(example(Glue::Sst2, "index\tsentence\n0\ta\n"), expected("a", None, "", 2));
}

#[test]
fn rows_of_qqp_that_are_broken_in_two_are_left_out_and_listed() {
    let header = "id\tqid1\tqid2\tquestion1\tquestion2\tis_duplicate\n";
    let text = format!("{header}0\t1\t2\ta\nwith a line end\tb\t0\n1\t3\t4\tc\td\t1\n");
    let (data, broken) = read(Glue::Qqp, &text).unwrap();
    assert_eq!(data.examples, [expected("c", Some("d"), "duplicate", 4)]);
    assert_eq!(broken, [2, 3]);
    assert_eq!(
        message(Glue::Qqp, &format!("{header}0\t1\n")),
        "a.tsv: expected at least one example, found 1 broken line"
    );
}

#[test]
fn wrong_lines_are_named() {
    assert_eq!(message(Glue::Rte, ""), "a.tsv: expected a header and examples, found an empty file");
    let header = "index\tsentence1\tsentence2\tlabel\n";
    assert_eq!(message(Glue::Rte, header), "a.tsv: expected at least one example, found a header alone");
    assert_eq!(
        message(Glue::Rte, &format!("{header}0\ta\tb\n")),
        "a.tsv:2: expected 4 columns as on line 1, found 3 columns"
    );
    assert_eq!(
        message(Glue::Rte, &format!("{header}0\ta\tb\tneutral\n")),
        "a.tsv:2: expected one of the labels entailment, not_entailment, found `neutral`"
    );
    assert_eq!(
        message(Glue::Qnli, header),
        "a.tsv:1: expected a column `question`, found the columns `index`, `sentence1`, `sentence2`, `label`"
    );
    assert_eq!(
        message(Glue::Sst2, "sentence\tsentence\tlabel\na\tb\t1\n"),
        "a.tsv:1: expected one column `sentence`, found the columns `sentence`, `sentence`, `label`"
    );
    let folder = tempfile::tempdir().unwrap();
    std::fs::write(folder.path().join("a.tsv"), b"sentence\tlabel\na\xff\t1\n").unwrap();
    let message = read_glue(folder.path().join("a.tsv"), Glue::Sst2).unwrap_err().to_string();
    assert!(
        message.ends_with("a.tsv:2: expected utf-8, found an invalid sequence at byte 16 of the file"),
        "{message}"
    );
}
