use super::*;

fn parse(text: &str) -> Result<Dataset<Sentence>> {
    parse_conll(text, Path::new("a.conll"), &ConllOptions::default())
}

fn message(text: &str) -> String {
    parse(text).unwrap_err().to_string()
}

/// Words and tags of each sentence, and its line.
fn read(text: &str) -> Vec<(String, String, usize)> {
    let sentences = parse(text).unwrap().examples;
    sentences.iter().map(|s| (s.words.join("|"), s.tags.join(" "), s.line)).collect()
}

fn sentence(words: &str, tags: &str, line: usize) -> (String, String, usize) {
    (words.to_string(), tags.to_string(), line)
}

#[test]
fn sentences_end_at_empty_lines_documents_and_the_end() {
    let text = "-DOCSTART- -X- O O\n\nEU NNP I-NP I-ORG\nrejects VBZ I-VP O\n\n\nGerman JJ I-NP I-MISC\n-DOCSTART- -X- O O\ncall NN I-NP O";
    let expected = [sentence("EU|rejects", "I-ORG O", 3), sentence("German", "I-MISC", 7), sentence("call", "O", 9)];
    assert_eq!(read(text), expected);
}

#[test]
fn lines_of_tabs_and_blanks_are_empty() {
    let expected = [sentence("a", "O", 1), sentence("b", "B-x", 3), sentence("c", "O", 5)];
    assert_eq!(read("a\tO\n\t\nb\tB-x\n \t \nc\tO\n\t"), expected);
}

#[test]
fn windows_line_ends_are_no_part_of_a_tag() {
    assert_eq!(read("a O\r\nb B-x\r\n\r\nc O\r\n"), [sentence("a|b", "O B-x", 1), sentence("c", "O", 4)]);
}

#[test]
fn emoji_and_odd_blanks_are_words() {
    // U+00A0 and U+3000 are blanks for Unicode; only the tab parts columns here, only U+0020 without tabs.
    assert_eq!(
        read("😀\tO\na\u{a0}b\tB-x\nc d\tO\n\u{3000}\tO\n"),
        [sentence("😀|a\u{a0}b|c d|\u{3000}", "O B-x O O", 1)]
    );
    assert_eq!(read("a\u{a0}b  POS   O \n"), [sentence("a\u{a0}b", "O", 1)]);
}

#[test]
fn columns_can_be_chosen() {
    let options = ConllOptions { word_column: 1, tag_column: TagColumn::At(2) };
    let data = parse_conll("1 EU B-ORG x\n2 is O x\n", Path::new("a"), &options).unwrap();
    assert_eq!((data.examples[0].words.join(" "), data.examples[0].tags.join(" ")), ("EU is".into(), "B-ORG O".into()));
    let options = ConllOptions { tag_column: TagColumn::None, ..ConllOptions::default() };
    let data = parse_conll("EU\nis\n\nit\n", Path::new("a"), &options).unwrap();
    assert_eq!(data.len(), 2);
    assert!(data.examples.iter().all(|sentence| sentence.tags.is_empty()));
}

#[test]
fn a_word_knows_its_line() {
    let data = parse("-DOCSTART- O\n\na O\nb O\n").unwrap();
    assert_eq!((data.examples[0].line_of(0), data.examples[0].line_of(1)), (3, 4));
}

#[test]
fn ragged_lines_are_errors() {
    assert_eq!(message("a x O\nb O\n"), "a.conll:2: expected 3 columns as on line 1, found 2 columns");
    assert_eq!(message("-DOCSTART-\n\na O\n\nb c O\n"), "a.conll:5: expected 2 columns as on line 3, found 3 columns");
    assert_eq!(message("a\tO\nb O\n"), "a.conll:2: expected 2 columns as on line 1, found 1 column");
    assert_eq!(message("a\tO\nb\tO\t\n"), "a.conll:2: expected 2 columns as on line 1, found 3 columns");
    assert_eq!(message("a\tO\n\tO\n"), "a.conll:2: expected a word, found an empty column");
}

#[test]
fn missing_columns_are_errors() {
    let expected = "a.conll:2: expected at least 2 columns (words in column 1, tags in column 2), found 1 column";
    assert_eq!(message("\na\nb\n"), expected);
    let options = ConllOptions { word_column: 3, tag_column: TagColumn::None };
    let error = parse_conll("a O\n", Path::new("a"), &options).unwrap_err();
    assert_eq!(error.to_string(), "a:1: expected at least 4 columns (words in column 4), found 2 columns");
}

#[test]
fn malformed_tags_are_errors() {
    for tag in ["X-", "FOO", "B-", "X-PER", "o", "I"] {
        let expected =
            format!("a.conll:3: expected the tag `O` or one of B, I, E, S, a hyphen and a type, found `{tag}`");
        assert_eq!(message(&format!("a O\n\nb {tag}\n")), expected);
    }
}

#[test]
fn files_without_words_are_errors() {
    assert_eq!(message(""), "a.conll: expected at least one sentence, found an empty file");
    assert_eq!(message("\n-DOCSTART- O\n\n"), "a.conll: expected at least one sentence, found a file without words");
}

#[test]
fn files_are_read_without_their_byte_order_mark() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("bom.conll");
    std::fs::write(&path, "\u{feff}EU B-ORG\r\n").unwrap();
    let data = read_conll(&path, &ConllOptions::default()).unwrap();
    assert_eq!((data.examples[0].words[0].as_str(), data.path.as_path()), ("EU", path.as_path()));
    // A file with nothing but a mark is empty.
    std::fs::write(&path, "\u{feff}").unwrap();
    assert!(read_conll(&path, &ConllOptions::default()).unwrap_err().to_string().ends_with("found an empty file"));
}

#[test]
fn invalid_utf8_is_an_error_with_line_and_byte() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("latin1.conll");
    std::fs::write(&path, b"a O\ncaf\xe9 O\n").unwrap();
    let expected = format!("{}:2: expected utf-8, found an invalid sequence at byte 7 of the file", path.display());
    assert_eq!(read_conll(&path, &ConllOptions::default()).unwrap_err().to_string(), expected);
}

#[test]
fn a_missing_file_is_named() {
    let error = read_conll("no/such/file.conll", &ConllOptions::default()).unwrap_err();
    assert!(error.to_string().starts_with("no/such/file.conll: "), "{error}");
    assert!(matches!(error, Error::Io { cause, .. } if cause.kind() == std::io::ErrorKind::NotFound));
}
