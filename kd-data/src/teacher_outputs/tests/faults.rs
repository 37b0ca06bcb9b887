//! Kills, damage and full disks.

use super::*;

/// A store with one shard of two blocks, and that shard's bytes.
fn written() -> (tempfile::TempDir, Store, PathBuf, Vec<u8>) {
    let folder = tempfile::tempdir().unwrap();
    let store = Store::open(folder.path()).unwrap();
    fill(&mut store.teacher(&about()).unwrap());
    let path = shards(folder.path()).remove(0);
    let bytes = fs::read(&path).unwrap();
    (folder, store, path, bytes)
}

/// Asks for everything; how many examples were there. A wrong row fails.
fn right_or_missing(store: &Store) -> Result<usize> {
    let outputs = store.teacher(&about())?;
    let sentences = sentences();
    let mut there = 0;
    for (content, expected) in contents(&sentences).into_iter().zip(EXPECTED) {
        if outputs.contains(content) {
            let joined = outputs.join([content])?;
            assert_eq!(rows(&joined.logits(0)?), *expected);
            there += 1;
        }
    }
    Ok(there)
}

#[test]
fn a_store_killed_at_any_byte_has_whole_batches_and_goes_on() {
    let (folder, store, path, bytes) = written();
    let mut seen = Vec::new();
    for length in 0..=bytes.len() {
        fs::write(&path, &bytes[..length]).unwrap();
        let there = right_or_missing(&store).unwrap();
        assert!(seen.last().is_none_or(|&before| before <= there));
        seen.push(there);
        assert_eq!(store.teacher(&about()).unwrap().damage().count(), 0, "cut off at {length} is not damage");
        // Whoever goes on writes a file of its own.
        if length % 40 == 7 {
            fill(&mut store.teacher(&about()).unwrap());
            assert_eq!(right_or_missing(&store).unwrap(), 3);
            for other in shards(folder.path()).into_iter().filter(|other| *other != path) {
                fs::remove_file(other).unwrap();
            }
        }
    }
    // All of the first batch, then all of the second.
    seen.dedup();
    assert_eq!(seen, [0, 2, 3]);
}

#[test]
fn a_flipped_byte_never_makes_a_wrong_row() {
    let (_folder, store, path, bytes) = written();
    let (mut missing, mut errors) = (0, 0);
    for byte in 0..bytes.len() {
        for flip in [1, 0x80, 0xff] {
            let mut damaged = bytes.clone();
            damaged[byte] ^= flip;
            fs::write(&path, &damaged).unwrap();
            match right_or_missing(&store) {
                Ok(there) => {
                    assert!(there < 3, "byte {byte} is not under a checksum");
                    missing += 1;
                }
                Err(error) => {
                    let message = error.to_string();
                    assert!(message.starts_with(&path.display().to_string()), "{message}");
                    assert!(message.contains("the block at byte "), "{message}");
                    errors += 1;
                }
            }
        }
    }
    assert!(missing > 0 && errors > 0, "{missing} {errors}");
}

#[test]
fn damage_is_named_and_mended_by_asking_again() {
    let (folder, store, path, bytes) = written();
    let sentences = sentences();
    // The last byte is one of the last block's numbers.
    let mut damaged = bytes.clone();
    *damaged.last_mut().unwrap() ^= 1;
    fs::write(&path, &damaged).unwrap();
    let mut outputs = store.teacher(&about()).unwrap();
    assert!(outputs.contains("text"));
    let offset = outputs.verify()[0].offset;
    assert!(outputs.contains(&sentences.0) && !outputs.contains("text"));
    let message = outputs.join(["text"]).unwrap_err().to_string();
    let place = format!("damaged: {} at byte {offset}: the checksum of a block's numbers differs", path.display());
    assert!(message.ends_with(&place), "{message}");
    outputs.append(&["text".into()], &[1], &tensor(&[[7., 9., 8.]])).unwrap();
    drop(outputs);
    assert_eq!(right_or_missing(&store).unwrap(), 3, "also after opening it again");
    // What is stored anew stands last, whatever the clock of whoever stored the damaged block said.
    let mended = shards(folder.path()).pop().unwrap();
    assert_ne!(mended, path);
    let ahead = path.with_file_name("7fffffffffffffff-0000000000000000.shard");
    fs::rename(&path, &ahead).unwrap();
    fs::remove_file(mended).unwrap();
    let mut outputs = store.teacher(&about()).unwrap();
    outputs.verify();
    outputs.append(&["text".into()], &[1], &tensor(&[[7., 9., 8.]])).unwrap();
    drop(outputs);
    assert_eq!(right_or_missing(&store).unwrap(), 3);
    fs::rename(&ahead, &path).unwrap();

    // A block's head: what comes after it is missing, and said to be.
    let mut damaged = bytes.clone();
    damaged[offset as usize + 9] ^= 1;
    fs::write(&path, &damaged).unwrap();
    let mut outputs = store.teacher(&about()).unwrap();
    let found: Vec<String> = outputs.damage().map(Damage::to_string).collect();
    let expected = format!("{} at byte {offset}: the checksum of a block's head differs", path.display());
    assert_eq!(found, [expected]);
    assert!(outputs.contains("text"), "from the other shard");
    // Mended while it is open.
    fs::write(&path, &bytes).unwrap();
    outputs.refresh().unwrap();
    assert_eq!(outputs.damage().count(), 0);
}

#[test]
fn numbers_that_verify_found_damaged_are_read_from_another_shard_only_after_it() {
    let (_folder, store, path, bytes) = written();
    let mut damaged = bytes;
    *damaged.last_mut().unwrap() ^= 1;
    fs::write(path.with_file_name("z.shard"), &damaged).unwrap();
    let mut outputs = store.teacher(&about()).unwrap();
    assert!(outputs.join(["text"]).unwrap().logits(0).is_err());
    assert_eq!(outputs.verify().len(), 1);
    assert_eq!(rows(&outputs.join(["text"]).unwrap().logits(0).unwrap()), EXPECTED[2]);
}

#[test]
fn a_shard_of_another_teacher_is_refused() {
    let (folder, store, path, _) = written();
    let other = About { max_len: 8, ..about() };
    store.teacher(&other).unwrap();
    let copied = folder.path().join(&other.key()[..32]).join("copied.shard");
    fs::copy(&path, &copied).unwrap();
    let message = store.teacher(&other).unwrap_err().to_string();
    let (expected, found) = (other.key(), about().key());
    let expected = format!("{}: expected outputs made under the key {expected}, found {found}", copied.display());
    assert_eq!(message, expected);
}

#[cfg(target_os = "linux")]
#[test]
fn a_full_disk_is_an_error_and_loses_nothing() {
    let (_folder, store, _, _) = written();
    let mut outputs = store.teacher(&about()).unwrap();
    outputs.append(&["more".into()], &[1], &tensor(&[[1.; 3]])).unwrap();
    outputs.break_file(fs::OpenOptions::new().write(true).open("/dev/full").unwrap());
    let message = outputs.append(&["full".into()], &[1], &tensor(&[[2.; 3]])).unwrap_err().to_string();
    assert!(message.contains(".shard: No space left"), "{message}");
    assert!(!outputs.contains("full"));
    assert_eq!(rows(&outputs.join(["more"]).unwrap().logits(0).unwrap()), [[1.; 3]]);
    // There is room again.
    outputs.append(&["full".into()], &[1], &tensor(&[[2.; 3]])).unwrap();
    drop(outputs);
    let outputs = store.teacher(&about()).unwrap();
    assert_eq!(rows(&outputs.join(["more", "full"]).unwrap().logits(1).unwrap()), [[2.; 3]]);
    assert_eq!(right_or_missing(&store).unwrap(), 3);
}
