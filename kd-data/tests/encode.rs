//! Word pieces on the texts and the tokenizer of `data/`.

use std::collections::HashMap;
use std::path::PathBuf;

use candle_core::{Device, Tensor};
use kd_core::batch::{Rows, Tokens};
use kd_data::conll::{ConllOptions, read_conll};
use kd_data::encode::{Encode, EncodedTexts, EncodedWords, WordPieces};
use kd_data::example::Sentence;

fn path(name: &str) -> PathBuf {
    PathBuf::from(env!("CARGO_MANIFEST_DIR")).join("tests/data").join(name)
}

fn pieces() -> WordPieces {
    WordPieces::from_file(path("tokenizer.json")).unwrap()
}

/// The ids of these pieces, from the file.
fn ids(names: &str) -> Vec<u32> {
    let json: serde_json::Value = serde_json::from_slice(&std::fs::read(path("tokenizer.json")).unwrap()).unwrap();
    let vocabulary: HashMap<String, u32> = serde_json::from_value(json["model"]["vocab"].clone()).unwrap();
    names.split_whitespace().map(|name| vocabulary[name]).collect()
}

fn words(text: &str) -> Vec<String> {
    text.split(' ').map(str::to_string).collect()
}

fn sentences() -> Vec<Sentence> {
    read_conll(path("wnut17.conll"), &ConllOptions::default()).unwrap().examples
}

fn list(tensor: &Tensor) -> Vec<u32> {
    tensor.flatten_all().unwrap().to_vec1().unwrap()
}

/// The id at every row's position.
fn rows(tokens: &Tokens) -> (Vec<u32>, Vec<usize>) {
    let Rows::Words { index, per_example } = &tokens.rows else { panic!("rows of words") };
    let ids = list(&tokens.first.ids);
    (list(index).into_iter().map(|position| ids[position as usize]).collect(), per_example.clone())
}

#[test]
fn each_word_is_tokenised_by_itself_and_has_a_first_piece() {
    // Emoji are not in the vocabulary; a control character leaves nothing, and is unknown too.
    let sentence = pieces().encode_words(&words("Todays party \u{1F602} \u{1} tonight")).unwrap();
    assert_eq!(sentence.ids, ids("[CLS] today ##s party [UNK] [UNK] tonight [SEP]"));
    assert_eq!(sentence.first, [1, 3, 4, 5, 6]);
    let words = [None, Some(0), Some(0), Some(1), Some(2), Some(3), Some(4), None];
    assert_eq!(sentence.word_of_piece, words);
}

#[test]
fn the_files_truncation_and_padding_are_not_obeyed() {
    // The file says 8 pieces, fixed.
    assert_eq!(pieces().encode_words(&words("a b c d e f g h i j")).unwrap().ids.len(), 12);
    assert_eq!(pieces().encode_words(&words("a")).unwrap().ids.len(), 3);
    assert_eq!(pieces().encode_text("a b c d e f g h i j", 512).unwrap().ids.len(), 12);
}

#[test]
fn text_that_looks_like_a_special_token_is_text() {
    let sentence = pieces().encode_words(&words("[SEP] a [CLS]")).unwrap();
    let special = ids("[CLS] [SEP]");
    let inside = &sentence.ids[1..sentence.ids.len() - 1];
    assert!(inside.iter().all(|id| !special.contains(id)), "{inside:?}");
    assert_eq!(sentence.ids[1..3], ids("[ s"));
    assert_eq!(sentence.first.len(), 3);
}

#[test]
fn the_vocabulary_must_fit_the_embedding() {
    pieces().check_vocabulary(332).unwrap();
    pieces().check_vocabulary(400).unwrap();
    let message = pieces().check_vocabulary(331).unwrap_err().to_string();
    let expected = "tokenizer.json: expected ids below 331, the rows of the model's embedding table, \
                    found 332 tokens, the largest 331";
    assert!(message.ends_with(expected), "{message}");
}

#[test]
fn files_that_are_no_tokenizer_are_named() {
    let message = |json: &str| WordPieces::from_bytes(json.as_bytes(), "t.json").unwrap_err().to_string();
    assert!(message("{").starts_with("t.json: expected a `tokenizer.json`, found "), "{}", message("{"));
    let json = std::fs::read_to_string(path("tokenizer.json")).unwrap();
    assert_eq!(message(&json.replace("[CLS]", "[XLS]")), "t.json: expected a token `[CLS]` or `<s>`, found neither");
    assert_eq!(message(&json.replace("[SEP]", "[XEP]")), "t.json: expected a token `[SEP]` or `</s>`, found neither");
    let message = WordPieces::from_file("no/tokenizer.json").unwrap_err().to_string();
    assert!(message.starts_with("no/tokenizer.json: "), "{message}");
}

#[test]
fn a_batch_of_sentences_worked_out_by_hand() {
    let sentences = [words("today party tonight"), words("Todays")];
    let encoded = EncodedWords::new(&pieces(), &sentences, 512, &Device::Cpu).unwrap();
    assert_eq!((encoded.lengths(), encoded.rows()), (&[5, 4][..], &[3, 1][..]));
    let tokens = encoded.collate(&[1, 0]).unwrap();
    let expected = [ids("[CLS] today ##s [SEP]"), vec![0], ids("[CLS] today party tonight [SEP]")].concat();
    assert_eq!(list(&tokens.first.ids), expected);
    assert_eq!(tokens.first.lengths().unwrap(), [4, 5]);
    let Rows::Words { index, per_example } = tokens.rows else { panic!("rows of words") };
    assert_eq!((list(&index), per_example), (vec![1, 6, 7, 8], vec![1, 3]));
}

#[test]
fn long_sentences_become_windows_at_the_borders_of_words() {
    // Three pieces a window: todays (2) party (1) | tonight (1), and not todays (2) again | so it opens the third.
    let sentences = [words("party"), words("todays party tonight party todays today")];
    let encoded = EncodedWords::new(&pieces(), &sentences, 5, &Device::Cpu).unwrap();
    assert!(encoded.shortened().is_empty());
    let tokens = encoded.collate(&[1, 0]).unwrap();
    let expected = [
        ids("[CLS] today ##s party [SEP]"),
        ids("[CLS] tonight party [SEP] [PAD]"),
        ids("[CLS] today ##s today [SEP]"),
        ids("[CLS] party [SEP] [PAD] [PAD]"),
    ];
    assert_eq!(list(&tokens.first.ids), expected.concat());
    assert_eq!(rows(&tokens), (ids("today party tonight party today today party"), vec![6, 1]));
}

#[test]
fn every_word_has_its_row_whatever_the_window() {
    let (pieces, sentences) = (pieces(), sentences());
    let order = [7, 59, 0, 31, 8];
    let first_pieces: Vec<u32> = order
        .iter()
        .flat_map(|&example| &sentences[example].words)
        .map(|word: &String| pieces.word(word).unwrap()[0])
        .collect();
    for max_len in [3, 4, 7, 20, 512] {
        let encoded = EncodedWords::new(&pieces, &sentences, max_len, &Device::Cpu).unwrap();
        let tokens = encoded.collate(&order).unwrap();
        let (found, per_example) = rows(&tokens);
        assert_eq!(found, first_pieces, "{max_len}");
        assert_eq!(per_example, order.map(|example| sentences[example].words.len()));
        let lengths = tokens.first.lengths().unwrap();
        assert!(lengths.iter().all(|&len| len <= max_len), "{lengths:?}");
        if max_len == 512 {
            assert_eq!(lengths, order.map(|example| encoded.lengths()[example]));
        }
        let shortened: Vec<_> = sentences
            .iter()
            .enumerate()
            .flat_map(|(id, sentence)| (0..sentence.words.len()).map(move |word| (id, word)))
            .filter(|&(id, word)| pieces.word(&sentences[id].words[word]).unwrap().len() > max_len - 2)
            .collect();
        assert_eq!(encoded.shortened(), shortened);
        assert_eq!(shortened.is_empty(), max_len >= 50, "{max_len}: {}", shortened.len());
    }
}

#[test]
fn a_text_is_cut_at_its_end_and_counted() {
    let pieces = pieces();
    let text = pieces.encode_text("today Party tonight", 4).unwrap();
    assert_eq!((text.ids, text.cut), (ids("[CLS] today party [SEP]"), 1));
    let encoded = EncodedTexts::new(&pieces, ["today", "today party tonight"], 4, &Device::Cpu).unwrap();
    assert_eq!(encoded.shortened(), [(1, 1)]);
    let tokens = encoded.collate(&[0, 1]).unwrap();
    assert_eq!(list(&tokens.first.ids), [ids("[CLS] today [SEP] [PAD]"), ids("[CLS] today party [SEP]")].concat());
    assert!(matches!(tokens.rows, Rows::Examples) && tokens.first.segments.is_none());
    assert_eq!(encoded.rows(), [1, 1]);
}

#[test]
fn a_pair_has_segments_and_is_cut_at_the_longer_text() {
    let pieces = pieces();
    let pair = pieces.encode_pair("today party tonight", "so", 512).unwrap();
    assert_eq!(pair.ids, ids("[CLS] today party tonight [SEP] so [SEP]"));
    assert_eq!((pair.segments, pair.cut), (vec![0, 0, 0, 0, 0, 1, 1], 0));
    let pair = pieces.encode_pair("today party tonight", "so", 6).unwrap();
    assert_eq!((pair.ids, pair.cut), (ids("[CLS] today party [SEP] so [SEP]"), 1));
    let encoded = EncodedTexts::pairs(&pieces, [("today party", "so"), ("a", "b")], 512, &Device::Cpu).unwrap();
    let tokens = encoded.collate(&[1, 0]).unwrap();
    assert_eq!(list(tokens.first.segments.as_ref().unwrap()), [0, 0, 0, 1, 1, 0, 0, 0, 0, 0, 1, 1]);
    assert_eq!(tokens.first.lengths().unwrap(), [5, 6]);
}

#[test]
fn pairs_follow_the_names_of_the_special_tokens() {
    let json = std::fs::read_to_string(path("tokenizer.json")).unwrap();
    let json = json.replace("[CLS]", "<s>").replace("[SEP]", "</s>").replace("[UNK]", "<unk>");
    let pieces = WordPieces::from_bytes(json.as_bytes(), "t.json").unwrap();
    let pair = pieces.encode_pair("today party tonight", "so", 7).unwrap();
    assert_eq!(pair.ids, ids("[CLS] today party [SEP] [SEP] so [SEP]"));
    assert_eq!((pair.segments, pair.cut), (vec![0; 7], 1));
}

#[test]
fn wrong_arguments_are_errors() {
    let pieces = pieces();
    let message = |result: kd_data::Result<EncodedWords>| result.unwrap_err().to_string();
    let encode = |sentences: &[Vec<String>], max_len| EncodedWords::new(&pieces, sentences, max_len, &Device::Cpu);
    assert_eq!(message(encode(&[words("a")], 2)), "max_len: expected at least 3, found 2");
    assert_eq!(message(encode(&[words("a"), vec![]], 9)), "sentence 1: expected at least one word, found none");
    assert_eq!(pieces.encode_text("a", 2).unwrap_err().to_string(), "max_len: expected at least 3, found 2");
    assert_eq!(pieces.encode_pair("a", "b", 5).unwrap_err().to_string(), "max_len: expected at least 6, found 5");
    let encoded = encode(&[words("a")], 9).unwrap();
    let message = encoded.collate(&[1]).unwrap_err().to_string();
    assert!(message.starts_with("collate: expected example ids below 1, found 1"), "{message}");
}
