//! The readers on the excerpts of real files in `data/`, from file to labels and back to disk.

use std::path::PathBuf;

use candle_core::{Device, Tensor};
use kd_data::conll::{ConllOptions, read_conll};
use kd_data::example::{Dataset, Sentence};
use kd_data::sample;
use kd_data::snips::read_snips;
use kd_data::tags::{Classes, TagScheme, convert_all};
use kd_data::teacher_outputs::{About, Store};

fn path(name: &str) -> PathBuf {
    PathBuf::from(env!("CARGO_MANIFEST_DIR")).join("tests/data").join(name)
}

fn wnut() -> Dataset<Sentence> {
    read_conll(path("wnut17.conll"), &ConllOptions::default()).unwrap()
}

#[test]
fn the_wnut_excerpt_is_read_whole() {
    let data = wnut();
    // Counted with `grep -c` on lines with and without a tag.
    assert_eq!((data.len(), data.examples.iter().map(|s| s.words.len()).sum::<usize>()), (60, 932));
    assert_eq!(TagScheme::detect(data.examples.iter().map(|s| &s.tags[..])), (TagScheme::Iob2, 0));
    let classes = Classes::from_sentences(&data.examples).unwrap();
    assert_eq!((classes.len(), classes.names()[0].as_str()), (12, "O")); // no I-product in the excerpt
    assert!(data.examples.iter().any(|s| s.words.iter().any(|word| word == "😭")));
    let labels = classes.encode(&data).unwrap();
    assert!(labels.iter().zip(&data.examples).all(|(labels, s)| labels.len() == s.words.len()));
    // The file's own line of the last word, found again through its sentence.
    let text = std::fs::read_to_string(path("wnut17.conll")).unwrap();
    let last = data.examples.last().unwrap();
    let line = text.lines().nth(last.line_of(last.words.len() - 1) - 1).unwrap();
    assert_eq!(line.split('\t').next(), last.words.last().map(String::as_str));
}

#[test]
fn schemes_come_back_after_a_round() {
    let original = wnut();
    let mut data = original.clone();
    for scheme in [TagScheme::Bioes, TagScheme::Iob1, TagScheme::Iob2] {
        convert_all(&mut data, scheme).unwrap();
        assert_eq!(TagScheme::detect(data.examples.iter().map(|s| &s.tags[..])), (scheme, 0));
    }
    assert_eq!(data, original);
}

#[test]
fn the_snips_excerpt_is_read_whole() {
    let data = read_snips(path("snips")).unwrap();
    assert_eq!(data.len(), 100);
    let intents = Classes::from_names(data.examples.iter().map(|utterance| utterance.intent.as_str())).unwrap();
    let expected = "AddToPlaylist BookRestaurant GetWeather PlayMusic RateBook SearchCreativeWork SearchScreeningEvent";
    assert_eq!(intents.names().join(" "), expected);
    let slots = data.slots();
    assert_eq!(Classes::from_sentences(&slots.examples).unwrap().encode(&slots).unwrap().len(), 100);
    assert_eq!(TagScheme::detect(slots.examples.iter().map(|s| &s.tags[..])), (TagScheme::Iob2, 0));
}

#[test]
fn a_draw_keeps_labels_of_few_and_outputs_are_kept_for_all() {
    let data = wnut();
    let (labelled, rest) = sample::draw(data.len(), 10, 3).unwrap();
    let few = data.select(&labelled);
    assert_eq!((few.len(), rest.len()), (10, 50));
    let classes = Classes::from_sentences(&data.examples).unwrap();

    let folder = tempfile::tempdir().unwrap();
    let about = About::named("teacher", "weights", classes.names().to_vec());
    let mut outputs = Store::open(folder.path()).unwrap().teacher(&about).unwrap();
    let rows: Vec<usize> = data.examples.iter().map(|sentence| sentence.words.len()).collect();
    let logits = |example: usize| {
        let n = rows[example];
        let logits: Vec<f32> = (0..n * classes.len()).map(|idx| (example * 31 + idx * 17 % 101) as f32).collect();
        Tensor::from_vec(logits, (n, classes.len()), &Device::Cpu).unwrap()
    };
    for (example, sentence) in data.examples.iter().enumerate().rev() {
        outputs.append(&[sentence.into()], &[rows[example]], &logits(example)).unwrap();
    }
    drop(outputs);

    // Whoever reads the sentences in another order, or fewer of them, finds each one's outputs.
    let outputs = Store::open(folder.path()).unwrap().find("teacher").unwrap();
    outputs.join(&data.examples).unwrap().check_rows(&rows).unwrap();
    let joined = outputs.join(&few.examples).unwrap();
    let batch = joined.collate(&[5, 2], classes.names(), &Device::Cpu).unwrap();
    let expected = Tensor::cat(&[logits(labelled[5]), logits(labelled[2])], 0).unwrap();
    assert_eq!(batch.logits().unwrap().to_vec2::<f32>().unwrap(), expected.to_vec2::<f32>().unwrap());
}
