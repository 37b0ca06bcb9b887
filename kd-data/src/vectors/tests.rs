use std::collections::BTreeMap;

use super::*;

const WORD2VEC: &[u8] = include_bytes!("../../tests/reference/vectors/word2vec.bin");
const FASTTEXT: &[u8] = include_bytes!("../../tests/reference/vectors/fasttext.bin");

#[derive(serde::Deserialize)]
struct Reference {
    word2vec: BTreeMap<String, Vec<f32>>,
    fasttext: BTreeMap<String, Vec<f32>>,
}

fn reference() -> Reference {
    serde_json::from_str(include_str!("../../tests/reference/vectors/vectors.json")).unwrap()
}

fn of(bytes: &[u8], format: Format, storage: Storage, width: usize, wanted: fn(&str) -> bool) -> Result<Vectors> {
    let folder = tempfile::tempdir().unwrap();
    std::fs::write(folder.path().join("v.bin"), bytes).unwrap();
    read(folder.path().join("v.bin"), format, storage, width, wanted)
}

fn check(vectors: &Vectors, expected: &BTreeMap<String, Vec<f32>>) {
    assert_eq!(vectors.words.len(), expected.len());
    for (word, values) in vectors.words.iter().zip(vectors.values.chunks(vectors.width)) {
        let close = values.iter().zip(&expected[word]).all(|(a, b)| (a - b).abs() < 1e-6);
        assert!(close && values.len() == expected[word].len(), "{word}: {values:?}, expected {:?}", expected[word]);
    }
}

#[test]
fn word2vec_is_read_as_gensim_reads_it() {
    let vectors = of(WORD2VEC, Format::Word2vec, Storage::Binary, 4, |_| true).unwrap();
    assert_eq!(vectors.words, ["the", "New_York", "café", "的", "a"]);
    check(&vectors, &reference().word2vec);
    let few = of(WORD2VEC, Format::Word2vec, Storage::Binary, 4, |word| word == "的").unwrap();
    assert_eq!((few.words, few.values.len()), (vec!["的".to_string()], 4));
}

#[test]
fn fasttext_is_read_as_gensim_reads_it() {
    let vectors = of(FASTTEXT, Format::Fasttext, Storage::Binary, 3, |_| true).unwrap();
    check(&vectors, &reference().fasttext);
    assert!(vectors.words.contains(&"naïve".to_string()));
}

#[test]
fn text_is_read_in_every_format() {
    for format in [Format::Glove, Format::Word2vec, Format::Fasttext] {
        let vectors = of(b"2 2\na 1 2\nb 3 4\n", format, Storage::Text, 2, |word| word == "b").unwrap();
        assert_eq!((vectors.words, vectors.values), (vec!["b".to_string()], vec![3.0, 4.0]));
    }
}

#[test]
fn files_that_are_none_are_named() {
    let message = |bytes: &[u8], format, width| {
        let message = of(bytes, format, Storage::Binary, width, |_| true).unwrap_err().to_string();
        message.find("v.bin").map_or(message.clone(), |at| message[at..].to_string())
    };
    let short = WORD2VEC.len() - 3;
    assert_eq!(
        message(&WORD2VEC[..short], Format::Word2vec, 4),
        "v.bin: expected 5 words, found 4 and the end of the file"
    );
    assert_eq!(message(WORD2VEC, Format::Word2vec, 3), "v.bin: expected vectors of 3 values, found 4");
    assert_eq!(
        message(b"\x00\n", Format::Word2vec, 3),
        "v.bin:1: expected the number of words and of values, found `\0`"
    );
    let nan = [b"1 1\na ".as_slice(), &f32::NAN.to_le_bytes()].concat();
    assert_eq!(message(&nan, Format::Word2vec, 1), "v.bin: expected finite numbers for `a`, found NaN");
    let magic = "v.bin: expected a fastText model: the number 793712314 and version 11 or 12, found";
    assert_eq!(message(&[1; 20], Format::Fasttext, 3), format!("{magic} the number 16843009 and version 16843009"));
    let whole = "v.bin: expected a whole fastText model, found one that is cut short";
    for length in [0, 30, 70, 100, 200] {
        assert_eq!(message(&FASTTEXT[..length.max(8)], Format::Fasttext, 3), whole, "{length}");
    }
    let glove = message(b"", Format::Glove, 3);
    assert_eq!(glove, "vectors: expected glove as text, or word2vec or fasttext, found glove as binary");
}
