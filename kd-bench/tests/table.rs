//! The table as a program, where there is no Python.

use std::process::{Command, Output};

use serde_json::Value;

fn table(args: &[&str]) -> Output {
    let mut command = Command::new(env!("CARGO_BIN_EXE_kd-bench"));
    command.args(["table", "--python", "/nowhere/python"]).args(args).output().unwrap()
}

#[test]
fn without_python_the_table_holds_ours_alone_and_says_so() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("table.json");
    let output = table(&["--filter", "crf 32x40, 9 tags", "--runs", "7", "--json", path.to_str().unwrap()]);
    assert!(output.status.success(), "{output:?}");
    let text = String::from_utf8(output.stdout).unwrap();
    assert!(text.contains("ours alone: `/nowhere/python` cannot be started"), "{text}");
    assert!(text.starts_with("row "), "{text}");

    let json: Value = serde_json::from_slice(&std::fs::read(&path).unwrap()).unwrap();
    assert!(json["machine"]["threads"] == 2 && json["machine"]["versions"].is_object(), "{json}");
    let rows = json["rows"].as_array().unwrap();
    assert_eq!(rows.len(), 4);
    for row in rows {
        let fields: Vec<&String> = row.as_object().unwrap().keys().collect();
        assert_eq!(
            fields,
            ["name", "ours_ms", "pytorch_ms", "ratio", "target", "threads", "rounds", "pytorch_threads_wait"]
        );
        assert!(row["ours_ms"].as_f64().unwrap() > 0.0, "{row}");
        assert!(row["pytorch_ms"].is_null() && row["ratio"].is_null() && row["rounds"] == 7, "{row}");
    }
    let fixed = |name: &str| &rows.iter().find(|row| row["name"] == name).unwrap()["threads"];
    assert_eq!(fixed("crf 32x40, 9 tags, forward"), 2);
    assert_eq!(fixed("crf 32x40, 9 tags, forward, 1 thread"), 1);
    let row = rows.iter().find(|row| row["name"] == "crf 32x40, 9 tags, forward + backward").unwrap();
    assert_eq!(row["target"], 0.2);
}

#[test]
fn rows_are_listed_and_a_filter_that_meets_none_is_an_error() {
    let list = String::from_utf8(table(&["--list", "--filter", "bilstm"]).stdout).unwrap();
    assert_eq!(list.lines().count(), 18);
    let output = table(&["--filter", "no such row"]);
    assert!(!output.status.success());
    assert!(String::from_utf8(output.stderr).unwrap().contains("no row's name contains `no such row`"));
}
