//! Tables of pairs as their users make them: whole articles on one side, the same bytes every time, read again by the task.

use std::path::Path;
use std::process::{Command, Output};

use kd_data::columns::{Columns, read_columns};
use kd_data::task::{Part, Task};

const PROGRAM: &str = env!("CARGO_BIN_EXE_question_pairs");

/// Six articles of two paragraphs; half of the questions have an answer.
fn file(folder: &Path) -> std::path::PathBuf {
    let paragraph = |article: &str, animal: &str| {
        let context = format!(
            "The {animal} of {article} sleeps in May. The old {article} wall is blue. Nobody paints a {animal}."
        );
        let answer = serde_json::json!({"text": "blue", "answer_start": context.find("blue").unwrap()});
        let question = |id: &str, text: String, answers: Vec<&serde_json::Value>| serde_json::json!({"id": format!("{article}-{animal}-{id}"), "question": text, "answers": answers});
        serde_json::json!({"context": context, "qas": [
            question("a", format!("What colour is the wall where the {animal} of {article} sleeps?"), vec![&answer]),
            question("b", format!("Who paints a {animal}?"), vec![]),
        ]})
    };
    let article = |title: &str| serde_json::json!({"title": title, "paragraphs": [paragraph(title, "hen"), paragraph(title, "fox")]});
    let articles: Vec<_> = ["Rome", "Oslo", "Riga", "Bonn", "Bern", "Lima"].into_iter().map(article).collect();
    let path = folder.join("squad.json");
    std::fs::write(&path, serde_json::json!({"version": "v2.0", "data": articles}).to_string()).unwrap();
    path
}

fn run(squad: &Path, out: &Path, options: &str) -> Output {
    let mut command = Command::new(PROGRAM);
    // Twice the same file: what overlaps counts once.
    command.arg("--squad").arg(squad).arg(squad).arg("--out").arg(out).args(options.split_whitespace());
    command.output().unwrap()
}

#[test]
fn articles_are_whole_and_the_tables_are_read_by_the_task() {
    let folder = tempfile::tempdir().unwrap();
    let (squad, out) = (file(folder.path()), folder.path().join("out"));
    let output = run(&squad, &out, "--dev 0.2 --test 0.35 --retrieved 2 --seed 3");
    let printed = String::from_utf8(output.stdout).unwrap();
    assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
    let first = "6 articles, 12 paragraphs, 24 questions; 12 paragraphs and 24 questions were there twice\n";
    assert!(printed.starts_with(first), "{printed}");

    // A third of 12 answered questions for test (room for 5: two articles of 2), a sixth for dev (3: one article).
    let task = Task::named("qnli").unwrap();
    let mut titles = Vec::new();
    for (part, articles) in [(Part::Train, 3), (Part::Dev, 1), (Part::Test, 2)] {
        let examples = task.read_part(&out.join("sentences"), part).unwrap();
        assert_eq!(examples.len(), articles * 4, "{part:?}");
        let kd_data::task::Examples::Texts { data, .. } = &examples else { panic!("{examples:?}") };
        let mut of_part: Vec<String> = Vec::new();
        for pair in &data.examples {
            let title = pair.first.rsplit(' ').nth(1).unwrap().to_string();
            let animal = pair.first.rsplit(' ').nth(3).unwrap();
            let expected = match &pair.label {
                kd_data::example::Label::Class(name) if name == "entailment" => {
                    format!("The old {title} wall is blue.")
                }
                _ => format!("The {animal} of {title} sleeps in May."),
            };
            assert_eq!(pair.second.as_deref(), Some(expected.as_str()));
            of_part.push(title);
        }
        of_part.sort_unstable();
        of_part.dedup();
        assert_eq!(of_part.len(), articles, "{of_part:?}");
        titles.push(of_part);
    }
    let mut all = titles.concat();
    all.sort_unstable();
    assert_eq!(all, ["Bern", "Bonn", "Lima", "Oslo", "Riga", "Rome"]);

    let columns = Columns { second: Some("passage".into()), ..Columns::text("question") };
    let unlabelled = read_columns(out.join("unlabelled.tsv"), &columns).unwrap();
    // 6 paragraphs of 2 questions, with its own and 2 more each. "Who paints a hen?" is asked of 3 of them and has the same 3.
    let own = unlabelled.examples.iter().filter(|pair| pair.first.starts_with("What")).count();
    assert_eq!((own, unlabelled.len()), (18, 24));
    assert!(
        unlabelled.examples.iter().all(|pair| titles[0].iter().any(|title| pair
            .second
            .as_ref()
            .unwrap()
            .contains(title)))
    );

    // The seed is all that matters.
    let again = folder.path().join("again");
    run(&squad, &again, "--dev 0.2 --test 0.35 --retrieved 2 --seed 3");
    for name in ["sentences/train.tsv", "sentences/dev.tsv", "sentences/test.tsv", "unlabelled.tsv"] {
        assert_eq!(std::fs::read(out.join(name)).unwrap(), std::fs::read(again.join(name)).unwrap(), "{name}");
    }
}

#[test]
fn a_wrong_file_is_named_and_nothing_is_written() {
    let folder = tempfile::tempdir().unwrap();
    let squad = folder.path().join("squad.json");
    std::fs::write(&squad, r#"{"data": [{"title": "A", "paragraphs": [{"qas": []}]}]}"#).unwrap();
    let output = run(&squad, &folder.path().join("out"), "");
    let printed = String::from_utf8(output.stderr).unwrap();
    assert!(!output.status.success());
    assert!(
        printed.contains("squad.json: expected a text at `data[0].paragraphs[0].context`, found nothing"),
        "{printed}"
    );
    assert!(!folder.path().join("out").exists());
}
