//! The tokenizers of every family against transformers, on the tiny ones of `data/tokenizers`.

use std::collections::HashMap;
use std::path::PathBuf;

use candle_core::{Device, Tensor};
use kd_core::batch::Rows;
use kd_data::encode::{Encode, EncodedTexts, EncodedWords, WordPieces};
use serde::Deserialize;

#[derive(Deserialize)]
struct Expected {
    texts: Vec<String>,
    sentences: Vec<Vec<String>>,
    tokenizers: HashMap<String, Cases>,
}

#[derive(Deserialize)]
struct Cases {
    texts: Vec<Text>,
    pairs: Vec<Pair>,
    words: Vec<Words>,
}

#[derive(Deserialize)]
struct Text {
    text: usize,
    max_len: Option<usize>,
    ids: Vec<u32>,
    segments: Vec<u32>,
}

#[derive(Deserialize)]
struct Pair {
    first: usize,
    second: usize,
    max_len: Option<usize>,
    ids: Vec<u32>,
    segments: Vec<u32>,
}

#[derive(Deserialize)]
struct Words {
    ids: Vec<u32>,
    segments: Vec<u32>,
    words: Vec<Option<usize>>,
}

fn folder() -> PathBuf {
    PathBuf::from(env!("CARGO_MANIFEST_DIR")).join("tests/data/tokenizers")
}

fn expected() -> Expected {
    serde_json::from_slice(&std::fs::read(folder().join("expected.json")).unwrap()).unwrap()
}

fn pieces(name: &str) -> WordPieces {
    WordPieces::from_file(folder().join(name)).unwrap()
}

fn list(tensor: &Tensor) -> Vec<u32> {
    tensor.flatten_all().unwrap().to_vec1().unwrap()
}

#[test]
fn texts_have_the_ids_and_segments_of_transformers() {
    let expected = expected();
    assert_eq!(expected.tokenizers.len(), 10);
    for (name, cases) in &expected.tokenizers {
        let pieces = pieces(name);
        for case in &cases.texts {
            let text = &expected.texts[case.text];
            let found = pieces.encode_text(text, case.max_len.unwrap_or(10_000)).unwrap();
            assert_eq!((found.ids, found.segments), (case.ids.clone(), case.segments.clone()), "{name}: {text:?}");
        }
    }
}

#[test]
fn pairs_are_framed_and_cut_as_transformers_does() {
    let expected = expected();
    for (name, cases) in &expected.tokenizers {
        let pieces = pieces(name);
        for case in &cases.pairs {
            let (a, b) = (&expected.texts[case.first], &expected.texts[case.second]);
            let found = pieces.encode_pair(a, b, case.max_len.unwrap_or(10_000)).unwrap();
            let what = format!("{name}: {a:?}, {b:?}, {:?}", case.max_len);
            let whole = pieces.encode_pair(a, b, 10_000).unwrap();
            assert_eq!(found.cut, whole.ids.len() - found.ids.len(), "{what}");
            assert_eq!((found.ids, found.segments), (case.ids.clone(), case.segments.clone()), "{what}");
        }
    }
}

#[test]
fn split_words_have_the_ids_of_transformers() {
    let expected = expected();
    for (name, cases) in &expected.tokenizers {
        let pieces = pieces(name);
        for (sentence, case) in expected.sentences.iter().zip(&cases.words) {
            let found = pieces.encode_words(sentence).unwrap();
            assert_eq!(found.word_of_piece, case.words, "{name}: {sentence:?}");
            let first = (0..sentence.len()).map(|word| case.words.iter().position(|&of| of == Some(word)).unwrap());
            assert_eq!(found.first, first.collect::<Vec<_>>(), "{name}");
            assert_eq!((found.ids, found.segments), (case.ids.clone(), case.segments.clone()), "{name}: {sentence:?}");
        }
    }
}

#[test]
fn windows_of_a_long_sentence_have_the_frame_of_their_tokenizer() {
    let expected = expected();
    let sentence: Vec<String> = expected.sentences.concat();
    for name in expected.tokenizers.keys() {
        let pieces = pieces(name);
        let encoded = EncodedWords::new(&pieces, [&sentence], 8, &Device::Cpu).unwrap();
        let tokens = encoded.collate(&[0]).unwrap();
        let (windows, len) = tokens.first.ids.dims2().unwrap();
        assert!(windows > 3 && len <= 8, "{name}: {windows} windows of {len}");
        let ids = tokens.first.ids.to_vec2::<u32>().unwrap();
        let lengths = tokens.first.lengths().unwrap();
        let empty = pieces.encode_text("", 8).unwrap();
        let before = usize::from(!name.starts_with("xlnet"));
        for (window, &len) in ids.iter().zip(&lengths) {
            let (start, end) = (&window[..before], &window[len - 2 + before..len]);
            assert_eq!([start, end].concat(), empty.ids, "{name}: {window:?}");
        }
        let Rows::Words { index, .. } = &tokens.rows else { panic!("rows of words") };
        let flat = list(&tokens.first.ids);
        let rows: Vec<u32> = list(index).into_iter().map(|position| flat[position as usize]).collect();
        let first: Vec<u32> = sentence.iter().map(|word| pieces.word(word).unwrap()[0]).collect();
        assert_eq!(rows, first, "{name}");
        // Only XLNet has another segment than 0 in a single text: its `<cls>`, the last real token.
        let segments = tokens.first.segments.as_ref().map(|segments| segments.to_vec2::<u32>().unwrap());
        assert_eq!(segments.is_some(), name.starts_with("xlnet"), "{name}");
        for (segments, &len) in segments.iter().flatten().zip(&lengths) {
            let expected: Vec<u32> = (0..segments.len()).map(|at| if at + 1 == len { 2 } else { 0 }).collect();
            assert_eq!(*segments, expected);
        }
    }
}

#[test]
fn single_texts_of_xlnet_have_segments_in_a_batch() {
    let encoded = EncodedTexts::new(&pieces("xlnet/tokenizer.json"), ["cat", ""], 8, &Device::Cpu).unwrap();
    let tokens = encoded.collate(&[0, 1]).unwrap();
    assert_eq!(tokens.first.lengths().unwrap(), [3, 2]);
    assert_eq!(list(tokens.first.segments.as_ref().unwrap()), [0, 0, 2, 0, 2, 0]);
    let encoded = EncodedTexts::new(&pieces("albert/tokenizer.json"), ["cat"], 8, &Device::Cpu).unwrap();
    assert!(encoded.collate(&[0]).unwrap().first.segments.is_none());
}

#[test]
fn a_word_of_nothing_is_one_piece() {
    for name in expected().tokenizers.keys() {
        for word in ["", "\u{1}", "\u{200b}", " "] {
            let ids = pieces(name).word(word).unwrap();
            assert!(!ids.is_empty(), "{name}: {word:?}");
        }
    }
    // By hand: MPNet's vocabulary holds `<unk>` (3) and `[UNK]` (5); its model names the second.
    assert_eq!(pieces("mpnet/tokenizer.json").word("\u{1}").unwrap(), [5]);
    // RoBERTa's blank is there already: ` a` is the word `a`.
    let roberta = pieces("roberta/tokenizer.json");
    assert_eq!(roberta.word(" a").unwrap(), roberta.word("a").unwrap());
    assert_ne!(roberta.word("a").unwrap(), roberta.encode_text("a", 9).unwrap().ids[1..2]);
}

/// A folder with these files.
fn made(files: &[(&str, &str)]) -> tempfile::TempDir {
    let folder = tempfile::tempdir().unwrap();
    for (name, text) in files {
        std::fs::write(folder.path().join(name), text).unwrap();
    }
    folder
}

fn read(name: &str) -> String {
    std::fs::read_to_string(folder().join(name)).unwrap()
}

#[test]
fn a_frame_that_nothing_tells_is_an_error() {
    let json = |name: &str, processor: &str| {
        let mut value: serde_json::Value = serde_json::from_str(&read(name)).unwrap();
        value["post_processor"] = serde_json::from_str(processor).unwrap();
        value.to_string()
    };
    let frame = |text: &str| {
        WordPieces::from_bytes(text.as_bytes(), "t.json").map(|pieces| pieces.encode_text("a", 9).unwrap().ids)
    };
    let message = |text: &str| frame(text).unwrap_err().to_string();
    // The names tell of BERT and RoBERTa, a byte-level post-processor adds nothing; MPNet has the names of both.
    assert_eq!(frame(&json("bert/tokenizer.json", "null")).unwrap(), frame(&read("bert/tokenizer.json")).unwrap());
    let byte_level = r#"{"type": "ByteLevel", "add_prefix_space": true, "trim_offsets": false, "use_regex": true}"#;
    let roberta = frame(&read("roberta/tokenizer.json")).unwrap();
    assert_eq!(frame(&json("roberta/tokenizer.json", byte_level)).unwrap(), roberta);
    let expected =
        "t.json: expected a post-processor with the special tokens around texts, found none, and a vocabulary with ";
    let mpnet = message(&json("mpnet/tokenizer.json", "null"));
    assert_eq!(mpnet, format!("{expected}`[CLS]`, `[SEP]` and `<s>`, `</s>`"));
    let xlnet = message(&json("xlnet/tokenizer.json", "null"));
    assert_eq!(xlnet, format!("{expected}`<s>`, `</s>` and `<cls>`, `<sep>`"));
    // A template in a sequence is read, one that names an unknown token is not.
    let template = |special: &str| {
        format!(
            r#"{{"type": "TemplateProcessing", "single": [{{"Sequence": {{"id": "A", "type_id": 0}}}},
               {{"SpecialToken": {{"id": "x", "type_id": 2}}}}], "pair": [{{"Sequence": {{"id": "A", "type_id": 0}}}},
               {{"Sequence": {{"id": "B", "type_id": 1}}}}], "special_tokens": {{{special}}}}}"#
        )
    };
    let known = template(r#""x": {"id": "x", "ids": [7, 8], "tokens": ["y", "z"]}"#);
    let sequence = format!(r#"{{"type": "Sequence", "processors": [{byte_level}, {known}]}}"#);
    let pieces = WordPieces::from_bytes(json("bert/tokenizer.json", &sequence).as_bytes(), "t.json").unwrap();
    let text = pieces.encode_text("a", 9).unwrap();
    assert_eq!((text.ids, text.segments), (vec![5, 7, 8], vec![0, 2, 2]));
    let none = "t.json: expected special tokens around a pair of texts in the post-processor, found none";
    assert_eq!(pieces.encode_pair("a", "b", 9).unwrap_err().to_string(), none);
    let unknown = message(&json("bert/tokenizer.json", &template("")));
    assert!(unknown.contains("found the piece {\"SpecialToken\":{\"id\":\"x\""), "{unknown}");
}

#[test]
fn vocabulary_files_are_chosen_by_their_name() {
    // Both files of a BPE stand for it.
    let (json, txt) = (pieces("roberta-files/vocab.json"), pieces("roberta-files/merges.txt"));
    assert_eq!(json.digest(), txt.digest());
    // An option changes the ids, so it changes the digest.
    let vocab = read("bert-cased/vocab.txt");
    let folders = [made(&[("vocab.txt", &vocab)]), made(&[("vocab.txt", &vocab), ("tokenizer_config.json", "{}")])];
    let digests = folders
        .each_ref()
        .map(|folder| WordPieces::from_file(folder.path().join("vocab.txt")).unwrap().digest().to_string());
    assert_eq!(digests[0], digests[1]);
    assert_ne!(digests[0], pieces("bert-cased/vocab.txt").digest());

    let message = |files: &[(&str, &str)]| {
        let folder = made(files);
        let message = WordPieces::from_file(folder.path().join(files[0].0)).unwrap_err().to_string();
        message.strip_prefix(&format!("{}/", folder.path().display())).unwrap_or(&message).to_string()
    };
    for model in ["spiece.model", "sentencepiece.bpe.model"] {
        let message = message(&[(model, "\n\u{1}")]);
        let expected =
            format!("{model}: expected a `tokenizer.json`, found a SentencePiece model; convert it with Python");
        assert!(message.starts_with(&expected), "{message}");
    }
    assert_eq!(message(&[("vocab.txt", "[UNK]\na\n")]), "vocab.txt: expected a piece `[CLS]`, found none among 2");
    let config = r#"{"do_lower_case": "no"}"#;
    let wrong = message(&[("vocab.txt", &vocab), ("tokenizer_config.json", config)]);
    assert_eq!(wrong, "tokenizer_config.json: expected `do_lower_case`, true or false, found \"no\"");
    let vocab = r#"{"<s>": 0, "</s>": 1, "<unk>": 2, "a": 3, "b": 4, "ab": 5}"#;
    let wrong = message(&[("vocab.json", vocab), ("merges.txt", "#version: 0.2\na b\nab\n")]);
    assert_eq!(wrong, "merges.txt:3: expected two pieces with a blank between, found \"ab\"");
    assert!(message(&[("vocab.json", vocab)]).starts_with("merges.txt: "));
    assert!(message(&[("vocab.json", "[]")]).starts_with("vocab.json: expected a JSON object"));
}
