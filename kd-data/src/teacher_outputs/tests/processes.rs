//! Several writers and readers of one store.

use super::*;

#[test]
fn two_writers_fill_one_store_and_a_reader_sees_it() {
    let folder = tempfile::tempdir().unwrap();
    let store = Store::open(folder.path()).unwrap();
    let mut reader = store.teacher(&about()).unwrap();
    let texts: Vec<String> = (0..60).map(|number| format!("text {number}")).collect();
    let logits = |number: usize| tensor(&[[number as f32, 0., 1.]]);
    std::thread::scope(|scope| {
        // The middle third is written by both.
        for range in [0..40, 20..60] {
            let (store, texts) = (&store, &texts);
            scope.spawn(move || {
                let mut outputs = store.teacher(&about()).unwrap();
                for number in range {
                    outputs.append(&[(&texts[number]).into()], &[1], &logits(number)).unwrap();
                }
            });
        }
        while reader.len() < 60 {
            reader.refresh().unwrap(); // also in the middle of a block
            assert_eq!(reader.damage().count(), 0);
        }
    });
    assert_eq!((shards(folder.path()).len(), reader.len()), (2, 60));
    let again = store.teacher(&about()).unwrap();
    for outputs in [&reader, &again] {
        let joined = outputs.join(&texts).unwrap();
        for number in 0..60 {
            assert_eq!(rows(&joined.logits(number).unwrap()), rows(&logits(number)));
        }
    }
}

#[test]
fn parts_of_many_machines_merge_by_copying() {
    let folder = tempfile::tempdir().unwrap();
    let texts: Vec<String> = (0..10).map(|number| format!("text {number}")).collect();
    let merged = Store::open(folder.path().join("merged")).unwrap();
    merged.teacher(&about()).unwrap();
    let home = folder.path().join("merged").join(&about().key()[..32]);
    for machine in 0..3 {
        let path = folder.path().join(format!("machine {machine}"));
        let mut outputs = Store::open(&path).unwrap().teacher(&about()).unwrap();
        for number in (0..10).filter(|number| number % 3 == machine) {
            outputs.append(&[(&texts[number]).into()], &[1], &tensor(&[[number as f32; 3]])).unwrap();
        }
        for shard in shards(&path) {
            let name = home.join(shard.file_name().unwrap());
            assert!(!name.exists(), "names of shards are different");
            fs::copy(shard, name).unwrap();
        }
    }
    let joined = merged.teacher(&about()).unwrap().join(&texts).unwrap();
    for number in 0..10 {
        assert_eq!(rows(&joined.logits(number).unwrap()), [[number as f32; 3]]);
    }
}

#[test]
fn a_shard_is_locked_while_it_is_written() {
    let folder = tempfile::tempdir().unwrap();
    let mut outputs = Store::open(folder.path()).unwrap().teacher(&about()).unwrap();
    fill(&mut outputs);
    let file = fs::File::open(&shards(folder.path())[0]).unwrap();
    assert!(file.try_lock().is_err());
    drop(outputs);
    file.try_lock().unwrap();
}
