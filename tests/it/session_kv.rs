//! Keys and values of a conversation on disk.

use crate::session_support::{World, world};
use huozi::session::kv_cache::KvCache;

/// A conversation of some 300 positions.
fn long_talk() -> World {
    let mut w = world(|s| {
        s.sampling.temperature = 1.0;
        s.max_new = 100;
    });
    let questions = ["写一首关于月的诗。", "再写一首。", "写一首关于雪的诗，要长一些。"];
    for question in questions {
        w.say(question);
    }
    w
}

/// The same conversation in a session that has read nothing.
fn reopened(w: &World) -> World {
    let mut fresh = world(|s| *s = w.session.settings().clone());
    fresh.session.restore(w.session.turns().to_vec());
    fresh
}

#[test]
fn keys_and_values_kept_on_disk_go_on_bit_for_bit() {
    let dir = tempfile::tempdir().unwrap();
    let cache = || KvCache::new(dir.path().join("kv"), 1 << 30);
    let file = dir.path().join("kv").join("talk.kv");
    let mut w = long_talk();
    let mut kept = cache();
    // Stopped after a record because work waits, it goes on from there.
    let asked = std::cell::Cell::new(0);
    let one = || asked.replace(asked.get() + 1) < 1;
    let stopped = kept.save("talk", "model", &w.session, &one).unwrap_err();
    assert_eq!((stopped.kind(), asked.get()), (std::io::ErrorKind::Interrupted, 2));
    let some = cache().load("talk", "model", &mut reopened(&w).session).unwrap();
    assert!(some > 0 && some < 200, "{some}");
    kept.save("talk", "model", &w.session, &|| true).unwrap();
    let first = std::fs::read(&file).unwrap();
    let mut fresh = reopened(&w);
    let positions = cache().load("talk", "model", &mut fresh.session).unwrap();
    assert!(positions > 200, "{positions}");
    // The next turn is the same, and reads as little.
    let (expected, got) = (w.say("最后一首"), fresh.say("最后一首"));
    assert_eq!(got.ids, expected.ids);
    assert_eq!(got.stats.reused_tokens, expected.stats.reused_tokens);
    assert_eq!(got.stats.prompt_tokens, expected.stats.prompt_tokens);
    // Saved again, whole records stay as they are.
    kept.save("talk", "model", &w.session, &|| true).unwrap();
    let second = std::fs::read(&file).unwrap();
    assert!(second.len() > first.len());
    let same = first.iter().zip(&second).take_while(|(a, b)| a == b).count();
    assert!(same > first.len() / 2, "{same} of {}", first.len());
    // Another model, another type of cache, another conversation: nothing.
    assert_eq!(cache().load("talk", "other", &mut reopened(&w).session).unwrap(), 0);
    assert_eq!(cache().load("walk", "model", &mut reopened(&w).session).unwrap(), 0);
    #[cfg(unix)]
    {
        use std::os::unix::fs::PermissionsExt;
        assert_eq!(std::fs::metadata(&file).unwrap().permissions().mode() & 0o777, 0o600);
    }
    kept.remove("talk");
    assert!(!file.exists());
}

#[test]
fn a_damaged_file_of_keys_and_values_is_used_up_to_the_damage() {
    let dir = tempfile::tempdir().unwrap();
    let file = dir.path().join("talk.kv");
    let w = long_talk();
    KvCache::new(dir.path().into(), 1 << 30).save("talk", "model", &w.session, &|| true).unwrap();
    let whole = std::fs::read(&file).unwrap();
    let load = |bytes: &[u8]| {
        std::fs::write(&file, bytes).unwrap();
        let mut fresh = reopened(&w);
        let n = KvCache::new(dir.path().into(), 1 << 30).load("talk", "model", &mut fresh.session).unwrap();
        (n, fresh)
    };
    let all = load(&whole).0;
    let records = all.div_ceil(64);
    let start = 20 + u32::from_le_bytes(whole[16..20].try_into().unwrap()) as usize;
    let record = (whole.len() - start) / records;
    assert_eq!(start + records * record, whole.len());
    for i in 0..records {
        // One bit, anywhere in record `i`.
        for at in [0, 5, 9, 300, record / 2, record - 1] {
            let mut bytes = whole.clone();
            bytes[start + i * record + at] ^= 4;
            assert_eq!(load(&bytes).0, 64 * i, "byte {at} of record {i}");
        }
        assert_eq!(load(&whole[..start + i * record + 1000]).0, 64 * i);
    }
    // Records that changed places are none.
    let mut bytes = whole.clone();
    let (a, b) = bytes[start..].split_at_mut(record);
    a.swap_with_slice(&mut b[..record]);
    assert_eq!(load(&bytes).0, 0);
    for cut in [0, 7, 8, 19, 20, start - 1] {
        assert_eq!(load(&whole[..cut]).0, 0, "{cut} bytes");
    }
    // The number of dropped exchanges has no hash: it hides nothing where it does not fit.
    for bytes in [&whole[..], &whole[..start]] {
        let mut bytes = bytes.to_vec();
        bytes[8] = 2;
        assert_eq!(load(&bytes).1.session.dropped(), 0);
    }
    // What is missing is read, and the file is whole again.
    let (_, mut fresh) = load(&whole[..start + record]);
    let mut cache = KvCache::new(dir.path().into(), 1 << 30);
    assert_eq!(cache.load("talk", "model", &mut fresh.session).unwrap(), 64);
    fresh.session.warm(&fresh.go, &mut |_| {}).unwrap();
    cache.save("talk", "model", &fresh.session, &|| true).unwrap();
    assert!(std::fs::metadata(&file).unwrap().len() >= whole.len() as u64);
}

#[test]
fn an_undone_exchange_leaves_the_file_and_a_dropped_one_is_known() {
    let dir = tempfile::tempdir().unwrap();
    let cache = || KvCache::new(dir.path().into(), 1 << 30);
    let mut w = long_talk();
    let mut kept = cache();
    kept.save("talk", "model", &w.session, &|| true).unwrap();
    w.session.undo();
    // Nothing is loaded that the prompt can not use: the file, which can not be opened now, is not asked for.
    let (file, aside) = (dir.path().join("talk.kv"), dir.path().join("aside"));
    std::fs::rename(&file, &aside).unwrap();
    std::os::unix::fs::symlink(&file, &file).unwrap();
    assert!(kept.load("talk", "model", &mut w.session).unwrap() > 128);
    std::fs::rename(&aside, &file).unwrap();
    w.say("写一首关于山的诗。");
    kept.save("talk", "model", &w.session, &|| true).unwrap();
    let mut fresh = reopened(&w);
    cache().load("talk", "model", &mut fresh.session).unwrap();
    let (expected, got) = (w.say("再来"), fresh.say("再来"));
    assert_eq!((&got.ids, got.stats.reused_tokens), (&expected.ids, expected.stats.reused_tokens));
    // A short context: the first exchanges leave the prompt.
    let mut w = world(|s| (s.n_ctx, s.max_new) = (448, 40));
    for _ in 0..9 {
        w.say("写一首关于月的诗，要长一些，再长一些。");
    }
    assert!(w.session.dropped() > 0);
    kept.another_session();
    kept.save("talk", "model", &w.session, &|| true).unwrap();
    let mut fresh = reopened(&w);
    assert!(cache().load("talk", "model", &mut fresh.session).unwrap() >= 128);
    assert_eq!(fresh.session.dropped(), w.session.dropped());
    let (expected, got) = (w.say("再来"), fresh.say("再来"));
    assert_eq!((&got.ids, got.stats.reused_tokens), (&expected.ids, expected.stats.reused_tokens));
}

#[test]
fn the_oldest_keys_and_values_make_room() {
    let dir = tempfile::tempdir().unwrap();
    let w = long_talk();
    let path = |name: &str| dir.path().join(format!("{name}.kv"));
    KvCache::new(dir.path().into(), 1 << 30).save("a", "model", &w.session, &|| true).unwrap();
    let bytes = std::fs::metadata(path("a")).unwrap().len();
    let mut cache = KvCache::new(dir.path().into(), 2 * bytes + bytes / 2);
    let mut time = std::time::SystemTime::UNIX_EPOCH;
    for name in ["b", "c", "d"] {
        cache.save(name, "model", &w.session, &|| true).unwrap();
        time += std::time::Duration::from_secs(9);
        std::fs::File::open(path(name)).unwrap().set_modified(time).unwrap();
    }
    let there = ["a", "b", "c", "d"].map(|name| path(name).exists());
    assert_eq!(there.iter().filter(|there| **there).count(), 2, "{there:?}");
    assert!(path("d").exists());
    // One alone is cut to whole records, or not kept at all.
    let mut small = KvCache::new(dir.path().into(), bytes * 3 / 4);
    small.save("e", "model", &w.session, &|| true).unwrap();
    assert!(std::fs::metadata(path("e")).unwrap().len() <= bytes * 3 / 4);
    assert!(!path("d").exists());
    KvCache::new(dir.path().into(), 0).save("f", "model", &w.session, &|| true).unwrap();
    assert!(!path("f").exists());
}
