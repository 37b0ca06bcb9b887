use super::*;
use crate::cleaning::Cleaning;
use crate::table::{Layout, Line, Table};
use crate::tokenize::Tokenizer;

fn strings(words: &[&str]) -> Vec<String> {
    words.iter().map(|word| word.to_string()).collect()
}

fn branch(name: &str, columns: &[&str], max_len: Option<usize>) -> Branch {
    Branch { name: name.to_string(), columns: strings(columns), max_len }
}

fn cluster(name: &str, columns: &[&str]) -> Cluster {
    Cluster { name: name.to_string(), columns: strings(columns) }
}

fn target(column: &str, kind: TargetKind) -> Target {
    Target { column: column.to_string(), kind }
}

/// A pair of texts with a class and a score.
fn pairs() -> Reading {
    let places = ["q_text", "p_text", "label", "score"].into_iter().map(str::to_string).zip(0..);
    Reading {
        layout: Layout::new(places).unwrap(),
        header: false,
        branches: vec![branch("q", &["q_text", "q_char"], Some(3)), branch("p", &["p_text"], None)],
        clusters: vec![cluster("word", &["q_text", "p_text"]), cluster("char", &["q_char"])],
        targets: vec![target("label", TargetKind::Class), target("score", TargetKind::Number)],
        tokenizer: Tokenizer::English,
        cleaning: Cleaning::default(),
        boundaries: true,
        passage: None,
    }
}

/// Sentences of words with tags and parts of speech.
fn tags() -> Reading {
    Reading {
        layout: Layout::new(["word", "pos", "tag"].into_iter().map(str::to_string).zip(0..)).unwrap(),
        branches: vec![branch("words", &["word", "word_char", "pos", "place"], None)],
        clusters: vec![
            cluster("word", &["word"]),
            cluster("char", &["word_char"]),
            cluster("postag", &["pos"]),
            cluster("position", &["place"]),
        ],
        targets: vec![target("tag", TargetKind::Tags)],
        boundaries: false,
        ..pairs()
    }
}

fn table(lines: &[&[&str]]) -> Table {
    let line = |(number, columns): (usize, &&[&str])| Line { number, columns: strings(columns) };
    Table { path: "t.tsv".into(), lines: (1..).zip(lines).map(line).collect(), skipped: vec![] }
}

fn of(lines: &[&[&str]], reading: &Reading) -> Features {
    Features::of_table(&table(lines), reading).unwrap()
}

fn message(lines: &[&[&str]], reading: &Reading) -> String {
    Features::of_table(&table(lines), reading).unwrap_err().to_string()
}

fn words(features: &Features, column: usize, example: usize) -> Vec<&str> {
    features.words(column, example).collect()
}

#[test]
fn texts_are_cut_and_get_their_boundaries() {
    let lines: [&[&str]; 2] = [&["Isn't it odd?", "No.", "1", "0.5"], &["", "Why not?", "0", "-1e3"]];
    let features = of(&lines, &pairs());
    assert_eq!((features.len(), &features.lines), (2, &vec![1, 2]));
    // Three words, then the end.
    assert_eq!(words(&features, 0, 0), ["<start>", "Is", "n't", "it", "<eos>"]);
    assert_eq!(words(&features, 2, 0), ["<start>", "No", ".", "<eos>"]);
    // A text without words is one unknown word.
    assert_eq!(words(&features, 0, 1), ["<start>", "", "<eos>"]);
    assert_eq!(features.columns[1].symbols, Symbols::Spelling(0));
    assert_eq!(words(&features, 1, 0), words(&features, 0, 0));
    assert_eq!(features.numbers("score").unwrap(), [0.5, -1000.0]);
}

#[test]
fn classes_stand_by_frequency_then_first_met() {
    let line = |class| ["a", "b", class, "0"];
    let lines = ["x", "0", "1", "1", "0", "x", "y"].map(line);
    let features = of(&lines.each_ref().map(|line| &line[..]), &pairs());
    assert_eq!(features.class_names("label").unwrap(), ["x", "0", "1", "y"]);
    let classes = Classes::new(features.class_names("label").unwrap()).unwrap();
    let rows = features.class_rows("label", &classes).unwrap();
    assert_eq!(rows.concat(), [0, 1, 2, 2, 1, 0, 3]);
    let fewer = Classes::new(strings(&["x", "0", "1"])).unwrap();
    let message = features.class_rows("label", &fewer).unwrap_err().to_string();
    assert_eq!(message, "t.tsv:7: expected `label` to be one of `x`, `0`, `1`, found `y`");
    let message = features.class_names("score").unwrap_err().to_string();
    assert_eq!(message, "target `score`: expected names of classes, found values of another kind");
    let message = features.numbers("mark").unwrap_err().to_string();
    assert_eq!(message, "labels: expected a target `mark`, found `label`, `score`");
}

#[test]
fn words_with_tags_are_parted_by_blanks() {
    let lines: [&[&str]; 2] = [&["EU isn't .", "NNP VBZ .", "S-ORG O O"], &["We  ran", "PRP VBD", "O O"]];
    let features = of(&lines, &tags());
    assert_eq!(words(&features, 0, 0), ["EU", "isn't", "."]);
    assert_eq!(words(&features, 0, 1), ["We", "ran"]);
    assert_eq!(words(&features, 2, 0), ["NNP", "VBZ", "."]);
    assert_eq!(words(&features, 3, 0), ["0", "1", "2"]);
    assert_eq!(features.class_names("tag").unwrap(), ["O", "S-ORG"]);
    let classes = Classes::new(strings(&["O", "S-ORG"])).unwrap();
    assert_eq!(features.class_rows("tag", &classes).unwrap(), [vec![1, 0, 0], vec![0, 0]]);
    let with = of(&lines, &Reading { boundaries: true, ..tags() });
    assert_eq!(words(&with, 2, 1), ["<start>", "PRP", "VBD", "<eos>"]);
    assert_eq!(with.class_rows("tag", &classes).unwrap(), features.class_rows("tag", &classes).unwrap());
}

#[test]
fn lines_that_are_no_examples_are_skipped_by_number() {
    let good: &[&str] = &["a b", "X Y", "O O"];
    let features = of(&[good, &["a b", "X", "O O"], good, good, &["a b", "X Y", "O"], good, good], &tags());
    let skipped: Vec<String> = features.skipped.iter().map(Skipped::to_string).collect();
    assert_eq!(
        skipped,
        [
            "line 2: expected as many symbols in `pos` as in `word`, 2, found 1",
            "line 5: expected as many tags in `tag` as words, 2, found 1"
        ]
    );
    assert_eq!(features.lines, [1, 3, 4, 6, 7]);
    let pair = |label, score| ["a", "b", label, score];
    let lines = [pair("", "0"), pair("1", "nan"), pair("1", "1"), pair("1", "2"), pair("1", "3"), pair("0", "4")];
    let features = of(&lines.each_ref().map(|line| &line[..]), &pairs());
    let skipped: Vec<String> = features.skipped.iter().map(Skipped::to_string).collect();
    assert_eq!(
        skipped,
        [
            "line 1: expected `label` to be the name of a class, found ``",
            "line 2: expected `score` to be a finite number, found `nan`"
        ]
    );
    let message = message(&[&pair("", "0"), &pair("1", "1")], &pairs());
    assert!(message.contains("at most a third of the lines to be bad, found 1 line of 2 bad, the first on line 1"));
}

#[test]
fn a_dictionary_counts_texts_and_not_words() {
    let line = |first, second| [first, second, "0", "0"];
    let lines = [line("b b b", "a c"), line("a", "d c a"), line("d", "e")];
    let features = of(&lines.each_ref().map(|line| &line[..]), &Reading { boundaries: false, ..pairs() });
    let limits = |min_word_frequency, max_vocabulary, max_building_lines| Limits {
        min_word_frequency,
        max_vocabulary,
        max_building_lines,
    };
    // a in three texts, c and d in two, b and e in one; c was met before d.
    let all = dictionary(&[&features], "word", &limits(1, 100, 100)).unwrap();
    assert_eq!(all, ["a", "c", "d", "b", "e"]);
    assert_eq!(dictionary(&[&features], "word", &limits(2, 100, 100)).unwrap(), ["a", "c", "d"]);
    assert_eq!(dictionary(&[&features], "word", &limits(1, 2, 100)).unwrap(), ["a", "c"]);
    assert_eq!(dictionary(&[&features], "word", &limits(1, 100, 1)).unwrap(), ["b", "a", "c"]);
    // A second set counts too, as long as there are lines left.
    assert_eq!(dictionary(&[&features, &features], "word", &limits(6, 100, 100)).unwrap(), ["a"]);
    assert_eq!(dictionary(&[&features, &features], "word", &limits(3, 100, 4)).unwrap(), ["a", "c"]);
    let message = dictionary(&[&features], "postag", &limits(1, 1, 1)).unwrap_err().to_string();
    assert_eq!(message, "cluster `postag`: expected at least one column of it, found none");
}

/// A question and a passage with an answer.
fn reading_comprehension() -> Reading {
    let names = ["question", "passage_text", "start", "end", "answer"].into_iter().map(str::to_string).zip(0..);
    Reading {
        layout: Layout::new(names).unwrap(),
        branches: vec![branch("query", &["question"], None), branch("passage", &["passage_text"], Some(9))],
        clusters: vec![cluster("word", &["question", "passage_text"])],
        targets: vec![
            target("start", TargetKind::SpanStart),
            target("end", TargetKind::SpanEnd),
            target("answer", TargetKind::Text),
        ],
        boundaries: false,
        passage: Some("passage".to_string()),
        ..pairs()
    }
}

#[test]
fn an_answer_becomes_words_and_comes_back() {
    let passage = "Bach was born in Köln (\"Cologne\"). He died there.";
    let (start, end) = (17, 21);
    let line = |start: usize, end: usize, answer| {
        vec!["Where?".to_string(), passage.to_string(), start.to_string(), end.to_string(), String::from(answer)]
    };
    let lines = [line(start, end, "Köln"), line(23, 32, "\"Cologne\""), line(35, 37, "He"), line(17, 32, "x")];
    let lines = (1..).zip(lines).map(|(number, columns)| Line { number, columns }).collect();
    let table = Table { path: "t.tsv".into(), lines, skipped: vec![] };
    let features = Features::of_table(&table, &reading_comprehension()).unwrap();
    // The words: Bach was born in Köln ( " Cologne " ) . He …, of which nine are read; `He` is beyond them.
    assert_eq!(words(&features, 1, 0), ["Bach", "was", "born", "in", "Köln", "(", "\"", "Cologne", "\""]);
    assert_eq!(features.labels("start").unwrap(), &Values::Places(vec![4, 6, 4]));
    assert_eq!(features.labels("end").unwrap(), &Values::Places(vec![4, 8, 8]));
    assert_eq!(features.labels("answer").unwrap(), &Values::Texts(strings(&["Köln", "\"Cologne\"", "x"])));
    let kept = features.passage.as_ref().unwrap();
    assert_eq!((kept.answer(0, 4, 4), kept.answer(1, 6, 8)), ("Köln", "\"Cologne\""));
    assert_eq!(kept.spans[0].len(), 9);
    let expected = "line 3: expected `start` to be a place in the words that are read of the passage, found `35`";
    assert_eq!(features.skipped[0].to_string(), expected);
}

#[test]
fn readings_that_are_none_are_named() {
    let lines: [&[&str]; 1] = [&["a", "b", "c", "1"]];
    let changed = |change: &dyn Fn(&mut Reading)| {
        let mut reading = pairs();
        change(&mut reading);
        message(&lines, &reading)
    };
    let branches =
        |columns: &'static [&'static str]| changed(&|reading| reading.branches[0] = branch("q", columns, None));
    assert_eq!(branches(&["z"]), "column `z` of branch `q`: expected a cluster that has it, found none");
    assert_eq!(branches(&["q_char"]), "column `q_char` of branch `q`: expected a column of words to spell, found none");
    let missing = changed(&|reading| {
        reading.clusters.push(cluster("postag", &["q_pos"]));
        reading.branches[0].columns.push("q_pos".to_string());
    });
    let file = "`q_text`, `p_text`, `label`, `score`";
    assert_eq!(missing, format!("column `q_pos` of branch `q`: expected a column of the file, found {file}"));
    let target_message = changed(&|reading| reading.targets.push(target("mark", TargetKind::Class)));
    assert_eq!(target_message, format!("target `mark`: expected a column of the file, found {file}"));
    let span = changed(&|reading| reading.targets.push(target("score", TargetKind::SpanEnd)));
    assert_eq!(span, "target `score`: expected a passage in which the answer stands, found none");
    let cut = changed(&|reading| reading.targets = vec![target("label", TargetKind::Tags)]);
    assert_eq!(cut, "target `label`: expected all words of a sentence to be read, found at most 3");
    let passage = changed(&|reading| reading.passage = Some("text".to_string()));
    assert_eq!(passage, "passage: expected a branch, found `text` beside `q`, `p`");
    let stop =
        message(&lines, &Reading { cleaning: Cleaning { remove_stop_words: true, ..Cleaning::default() }, ..tags() });
    assert!(stop.starts_with("cleaning: expected all words to stay"), "{stop}");
    assert_eq!(changed(&|reading| reading.branches.clear()), "branches: expected at least one column, found none");
}

#[test]
fn stop_words_are_removed_and_full_width_letters_read() {
    let cleaning = Cleaning { half_width: true, remove_stop_words: true, fix_unicode: false };
    let reading = Reading { cleaning, boundaries: false, ..pairs() };
    let features = of(&[&["ＷＨＯ is the cat", "The b", "1", "0"]], &reading);
    assert_eq!(words(&features, 0, 0), ["WHO", "cat"]);
    // The list is of words in lower case.
    assert_eq!(words(&features, 2, 0), ["The", "b"]);
}

#[test]
fn kept_features_are_found_and_damaged_ones_made_anew() {
    let folder = tempfile::tempdir().unwrap();
    let (file, cache) = (folder.path().join("t.tsv"), folder.path().join("cache"));
    let texts = "Where?\tIn Köln.\t3\t7\tKöln\nbad\nWho? Me\tBach.\t0\t4\tBach\n";
    std::fs::write(&file, texts).unwrap();
    let reading = reading_comprehension();
    let (made, origin) = read_cached(&file, &reading, Some(&cache)).unwrap();
    let Origin::Kept(kept) = origin else { panic!("{origin:?}") };
    assert_eq!((made.len(), made.skipped.len()), (2, 1));
    let (found, origin) = read_cached(&file, &reading, Some(&cache)).unwrap();
    assert_eq!((found, origin), (made.clone(), Origin::Found(kept.clone())));
    assert_eq!(read_cached(&file, &reading, None).unwrap(), (made.clone(), Origin::Made));

    // A bit that fell over, and a file cut short.
    let bytes = std::fs::read(&kept).unwrap();
    for damage in [
        {
            let mut b = bytes.clone();
            *b.last_mut().unwrap() ^= 1;
            b
        },
        bytes[..20].to_vec(),
        b"x".to_vec(),
    ] {
        std::fs::write(&kept, damage).unwrap();
        let (again, origin) = read_cached(&file, &reading, Some(&cache)).unwrap();
        assert_eq!(again, made);
        assert!(matches!(origin, Origin::Repaired { ref path, .. } if *path == kept), "{origin:?}");
        assert_eq!(std::fs::read(&kept).unwrap(), bytes);
    }
    // Other texts and another reading have other names.
    let other = Reading { tokenizer: Tokenizer::Blanks, ..reading.clone() };
    assert!(matches!(read_cached(&file, &other, Some(&cache)).unwrap().1, Origin::Kept(ref path) if *path != kept));
    std::fs::write(&file, texts.replace("Who", "How")).unwrap();
    let (changed, origin) = read_cached(&file, &reading, Some(&cache)).unwrap();
    assert!(matches!(origin, Origin::Kept(ref path) if *path != kept) && changed != made);
    // The class, number and tag columns come back as well.
    std::fs::write(&file, "a b\tc\tx\t0.1\n\td\ty\t-2\n").unwrap();
    let (made, _) = read_cached(&file, &pairs(), Some(&cache)).unwrap();
    assert_eq!(read_cached(&file, &pairs(), Some(&cache)).unwrap().0, made);
}
