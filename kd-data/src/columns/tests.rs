use super::*;

fn pair() -> Columns {
    Columns {
        second: Some("answer".into()),
        label: Some("label".into()),
        group: Some("id".into()),
        ..Columns::text("question")
    }
}

fn read(name: &str, text: &str, columns: &Columns) -> Result<Dataset<TextExample>> {
    let folder = tempfile::tempdir().unwrap();
    std::fs::write(folder.path().join(name), text).unwrap();
    read_columns(folder.path().join(name), columns)
}

fn message(name: &str, text: &str, columns: &Columns) -> String {
    let message = read(name, text, columns).unwrap_err().to_string();
    message[message.rfind(&format!("/{name}")).unwrap() + 1..].to_string()
}

fn expected(first: &str, second: &str, label: &str, line: usize) -> TextExample {
    TextExample {
        first: first.into(),
        second: Some(second.into()),
        label: Label::Class(label.into()),
        line,
        group: Some("7".into()),
    }
}

#[test]
fn the_formats_say_the_same_of_the_same_table() {
    let tsv = "id\tquestion\tlabel\tanswer\r\n7\twho \"he?\tyes\tme, him\r\n7\twhy?\tno\t\r\n";
    let expected = [expected("who \"he?", "me, him", "yes", 2), expected("why?", "", "no", 3)];
    assert_eq!(read("a.tsv", tsv, &pair()).unwrap().examples, expected);
    let csv = "id,question,label,answer\r\n7,\"who \"\"he?\",yes,\"me, him\"\r\n7,why?,no,\r\n";
    assert_eq!(read("a.csv", csv, &pair()).unwrap().examples, expected);
    let json = r#"{"id": 7, "question": "who \"he?", "label": "yes", "answer": "me, him", "more": [1]}

{"id": "7", "question": "why?", "label": "no", "answer": ""}
"#;
    let lines = read("a.jsonl", json, &pair()).unwrap().examples;
    assert_eq!(lines.iter().map(|example| example.line).collect::<Vec<_>>(), [1, 3]);
    for (found, expected) in lines.into_iter().zip(expected) {
        assert_eq!(found, TextExample { line: found.line, ..expected });
    }
}

#[test]
fn a_quoted_value_may_hold_line_ends() {
    let columns = Columns { label: Some("b".into()), ..Columns::text("a") };
    let data = read("a.csv", "a,b\n\"one\ntwo\",x\nthree,y\n", &columns).unwrap();
    assert_eq!(data.examples[0].first, "one\ntwo");
    assert_eq!((data.examples[0].line, data.examples[1].line), (2, 4));
}

#[test]
fn labels_are_of_the_kind_that_was_asked_for() {
    let label = |kind, name: &str, text: &str| {
        let columns = Columns { label: Some("y".into()), kind, ..Columns::text("x") };
        read(name, text, &columns).unwrap().examples[0].label.clone()
    };
    assert_eq!(label(LabelKind::Score, "a.tsv", "x\ty\na\t-1.5e1\n"), Label::Score(-15.0));
    assert_eq!(label(LabelKind::Score, "a.jsonl", r#"{"x": "a", "y": 2.5}"#), Label::Score(2.5));
    assert_eq!(label(LabelKind::Score, "a.jsonl", r#"{"x": "a", "y": 2}"#), Label::Score(2.0));
    assert_eq!(label(LabelKind::Class, "a.jsonl", r#"{"x": "a", "y": 2}"#), Label::Class("2".into()));
    assert_eq!(label(LabelKind::Class, "a.jsonl", r#"{"x": "a", "y": true}"#), Label::Class("true".into()));
    let several = LabelKind::Classes { separator: '|' };
    let classes = |names: &[&str]| Label::Classes(names.iter().map(|name| name.to_string()).collect());
    assert_eq!(label(several, "a.tsv", "x\ty\na\tred | blue\n"), classes(&["red", "blue"]));
    assert_eq!(label(several, "a.csv", "x,y\na,\n"), classes(&[]));
    assert_eq!(label(several, "a.jsonl", r#"{"x": "a", "y": ["red", "blue"]}"#), classes(&["red", "blue"]));
    let unlabelled = read("a.tsv", "x\ty\na\tb\n", &Columns::text("y")).unwrap();
    assert_eq!(unlabelled.examples[0], TextExample { first: "b".into(), line: 2, ..TextExample::default() });
}

#[test]
fn wrong_tables_are_named_with_their_line() {
    let columns = pair();
    for end in ["tsv", "csv"] {
        let name = format!("a.{end}");
        let message = |text: &str| message(&name, &text.replace('|', if end == "tsv" { "\t" } else { "," }), &columns);
        assert_eq!(message(""), format!("{name}: expected a header, found an empty file"));
        assert_eq!(message("id|question|answer|label\n"), format!("{name}: expected at least one row, found none"));
        assert_eq!(
            message("id|question|label\n7|a|b\n"),
            format!("{name}:1: expected a column `answer`, found the columns `id`, `question`, `label`")
        );
        assert_eq!(
            message("id|question|answer|label\n7|a|b|c\n7|a|b\n"),
            format!("{name}:3: expected 4 columns as on line 1, found 3 columns")
        );
        assert_eq!(
            message("id|question|answer|label\n7|a|b|\n"),
            format!("{name}:2: expected the name of a class in column `label`, found ``")
        );
    }
    let scores = Columns { kind: LabelKind::Score, ..pair() };
    assert_eq!(
        message("a.tsv", "id\tquestion\tanswer\tlabel\n7\ta\tb\tinf\n", &scores),
        "a.tsv:2: expected a finite number, found `inf`"
    );
    let json = |text: &str| message("a.jsonl", text, &columns);
    assert!(json("{\n").starts_with("a.jsonl:1: expected a JSON object, found EOF"));
    assert_eq!(json(r#"{"question": "a"}"#), "a.jsonl:1: expected a key `answer`, found the keys `question`");
    assert_eq!(
        json(r#"{"question": "a", "answer": null}"#),
        "a.jsonl:1: expected a text in column `answer`, found null"
    );
    let found = json(r#"{"question": "a", "answer": "b", "id": "7", "label": [1]}"#);
    assert_eq!(found, "a.jsonl:1: expected the name of a class in column `label`, found the list [1]");
    assert_eq!(
        message("a.xls", "", &columns),
        "a.xls: expected a name that ends in .tsv, .txt, .csv, .jsonl or .parquet, found `.xls`"
    );
    #[cfg(not(feature = "parquet"))]
    assert_eq!(
        message("a.parquet", "", &columns),
        "a.parquet: expected a build with the feature `parquet` of kd-data, found one without"
    );
}

#[test]
fn rows_come_one_after_the_other_until_one_is_wrong() {
    let folder = tempfile::tempdir().unwrap();
    let columns = Columns { label: Some("b".into()), ..Columns::text("a") };
    for (name, text) in [
        ("a.tsv", "a\tb\n1\tx\n2\tx\n3\t\n4\tx\n"),
        ("a.csv", "a,b\n1,x\n2,x\n3,\n4,x\n"),
        (
            "a.jsonl",
            "\n{\"a\": 1, \"b\": \"x\"}\n{\"a\": 2, \"b\": \"x\"}\n{\"a\": 3, \"b\": \"\"}\n{\"a\": 4, \"b\": \"x\"}\n",
        ),
    ] {
        let path = folder.path().join(name);
        std::fs::write(&path, text).unwrap();
        let mut rows = Rows::open(&path, &columns).unwrap();
        for (first, line) in [("1", 2), ("2", 3)] {
            let row = rows.next().unwrap().unwrap();
            assert_eq!((row.first.as_str(), row.line), (first, line), "{name}");
        }
        let expected = format!("{name}:4: expected the name of a class in column `b`, found ``");
        let error = rows.next().unwrap().unwrap_err().to_string();
        assert!(error.ends_with(&expected), "{error}");
        assert!(rows.next().is_none(), "{name}: something behind an error");
        assert!(read_columns(&path, &columns).unwrap_err().to_string().ends_with(&expected));
        // What is no text is found when its line is read.
        let mut bytes = text.as_bytes().to_vec();
        let (byte, line) = (text.find('2').unwrap(), 3);
        bytes[byte] = 0xff;
        std::fs::write(&path, bytes).unwrap();
        let mut rows = Rows::open(&path, &columns).unwrap();
        assert!(rows.next().unwrap().is_ok(), "{name}");
        let expected = format!("{name}:{line}: expected utf-8, found an invalid sequence at byte {byte} of the file");
        let error = rows.next().unwrap().unwrap_err().to_string();
        assert!(error.ends_with(&expected), "{error}");
    }
}

#[cfg(feature = "parquet")]
mod parquet {
    use super::*;

    fn file() -> std::path::PathBuf {
        Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/data/columns.parquet")
    }

    #[test]
    fn texts_numbers_and_lists_are_read() {
        let columns = Columns { second: Some("second".into()), group: Some("id".into()), ..Columns::text("first") };
        let of = |label: &str, kind| {
            let columns = Columns { label: Some(label.into()), kind, ..columns.clone() };
            read_columns(file(), &columns).unwrap().examples
        };
        let classes = of("class", LabelKind::Class);
        let first = TextExample {
            first: "a \"b".into(),
            second: Some("c".into()),
            label: Label::Class("1".into()),
            line: 1,
            group: Some("q1".into()),
        };
        assert_eq!((classes.len(), &classes[0], classes[1].line), (2, &first, 2));
        assert_eq!(of("score", LabelKind::Score)[1].label, Label::Score(-0.5));
        let several = of("several", LabelKind::Classes { separator: '|' });
        assert_eq!(several[0].label, Label::Classes(vec!["red".into(), "blue".into()]));
        assert_eq!(several[1].label, Label::Classes(vec![]));
    }

    #[test]
    fn what_is_wrong_names_the_row() {
        let columns = Columns { label: Some("broken".into()), ..Columns::text("first") };
        let message = read_columns(file(), &columns).unwrap_err().to_string();
        assert!(
            message.ends_with("columns.parquet:2: expected the name of a class in column `broken`, found null"),
            "{message}"
        );
        let message = read_columns(file(), &Columns::text("third")).unwrap_err().to_string();
        assert!(
            message.contains("columns.parquet:1: expected a column `third`, found the columns `first`, `second`"),
            "{message}"
        );
        assert!(
            self::message("a.parquet", "no table", &columns).starts_with("a.parquet: expected a Parquet file, found")
        );
    }
}

mod write {
    use super::*;

    #[test]
    fn what_is_written_is_read_again() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("a.tsv");
        let examples = [expected("who \"he?", "me, him", "yes", 2), expected("why?", "", "no", 3)];
        write_tsv(&path, &pair(), &examples).unwrap();
        let text = std::fs::read_to_string(&path).unwrap();
        assert_eq!(text, "id\tquestion\tanswer\tlabel\n7\twho \"he?\tme, him\tyes\n7\twhy?\t\tno\n");
        assert_eq!(read_columns(&path, &pair()).unwrap().examples, examples);
        let unlabelled = Columns { second: Some("answer".into()), ..Columns::text("question") };
        write_tsv(&path, &unlabelled, &examples).unwrap();
        assert_eq!(std::fs::read_to_string(&path).unwrap(), "question\tanswer\nwho \"he?\tme, him\nwhy?\t\n");
        for (kind, label) in [
            (LabelKind::Score, Label::Score(-0.1)),
            (LabelKind::Classes { separator: '|' }, Label::Classes(vec!["a".into(), "b".into()])),
            (LabelKind::Classes { separator: '|' }, Label::Classes(vec![])),
        ] {
            let columns = Columns { kind, label: Some("label".into()), ..Columns::text("x") };
            let example = TextExample { first: "a".into(), label, line: 2, ..TextExample::default() };
            write_tsv(&path, &columns, std::slice::from_ref(&example)).unwrap();
            assert_eq!(read_columns(&path, &columns).unwrap().examples, [example]);
        }
    }

    #[test]
    fn what_does_not_fit_is_named() {
        let folder = tempfile::tempdir().unwrap();
        let message = |example: TextExample| {
            let message = write_tsv(folder.path().join("a.tsv"), &pair(), &[example]).unwrap_err().to_string();
            message[message.find("a.tsv").unwrap()..].to_string()
        };
        let example = || expected("a", "b", "yes", 2);
        assert_eq!(
            message(TextExample { second: Some("b\tc".into()), ..example() }),
            "a.tsv:2: expected texts without tabs and line ends, found \"b\\tc\""
        );
        assert_eq!(
            message(TextExample { second: None, ..example() }),
            "a.tsv:2: expected a value for column `answer`, found none"
        );
        assert_eq!(
            message(TextExample { group: None, ..example() }),
            "a.tsv:2: expected a value for column `id`, found none"
        );
        assert_eq!(
            message(TextExample { label: Label::Score(1.0), ..example() }),
            "a.tsv:2: expected a label that fits column `label`, found a number"
        );
    }
}
