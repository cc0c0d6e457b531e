//! Thousands of damaged files: no panic, no long wait, no memory that the file's size does not justify.
//!
//! One test in a binary of its own: it watches the peak of the process's address space.

mod hostile_support;
mod source_support;

use std::time::{Duration, Instant};

use hostile_support::damage::{damage, peak_kib};
use huozi_quant::random::Random;
use source_support::*;

#[test]
fn damaged_files_give_errors() {
    let state = pickle(dict(&[
        ("a", tensor(storage("FloatStorage", "0", 12), 0, &[3, 4], &[4, 1])),
        ("b", tensor(storage("FloatStorage", "0", 12), 1, &[2, 2], &[1, 3])),
    ]));
    let data = || member("a/data/0", f32s((0..12).map(|i| i as f32)));
    let plain = zip(&[member("a/data.pkl", state.clone()), data()]);
    let wide =
        zip(&[Member { wide: true, ..member("a/data.pkl", state.clone()) }, Member { wide: true, ..data() }]);
    let header = concat!(
        r#"{"a":{"dtype":"F32","shape":[2,2],"data_offsets":[0,16]},"#,
        r#""b":{"dtype":"BF16","shape":[1],"data_offsets":[16,18]}}"#
    );
    let st = safetensors(header, &[0; 18]);
    let index = br#"{"metadata":{},"weight_map":{"a":"s","b":"s"}}"#.to_vec();
    type Make<'a> = Box<dyn Fn(Vec<u8>) -> Vec<(&'static str, Vec<u8>)> + 'a>;
    let kinds: [(&str, &[u8], usize, Make<'_>); 5] = [
        ("safetensors", &st, 6000, Box::new(|x| vec![("model.safetensors", x)])),
        ("zip", &plain, 4000, Box::new(|x| vec![("pytorch_model.bin", x)])),
        ("zip64", &wide, 4000, Box::new(|x| vec![("pytorch_model.bin", x)])),
        // The sum is right again, so that the damage reaches the interpreter.
        ("pickle", &state, 10_000, Box::new(|x| vec![("pytorch_model.bin", bin(x))])),
        ("index", &index, 3000, Box::new(|x| vec![("model.safetensors.index.json", x), ("s", st.clone())])),
    ];
    // Warm: what the process takes once is not the parser's.
    for (what, bytes, _, make) in &kinds {
        assert!(open(&make(bytes.to_vec())).is_ok(), "{what}");
    }
    let before = peak_kib();
    for (what, bytes, count, make) in &kinds {
        let mut random = Random::new(1);
        let (mut opened, mut failed, mut slowest) = (0, 0, Duration::ZERO);
        for _ in 0..*count {
            let files = make(damage(&mut random, bytes, usize::MAX));
            let start = Instant::now();
            match open(&files) {
                Err(e) => {
                    assert!(!e.to_string().is_empty());
                    failed += 1;
                }
                Ok(checkpoint) => {
                    opened += 1;
                    for (i, t) in checkpoint.tensors().iter().enumerate() {
                        assert!(t.dtype.format().is_none() || t.bytes <= 4096, "{what}: {t:?}");
                        if t.dtype.format().is_some() {
                            let mut out = vec![0.0; (t.rows() * t.cols()) as usize];
                            checkpoint.read_rows(i, 0..t.rows(), &mut out).unwrap();
                        }
                    }
                }
            }
            slowest = slowest.max(start.elapsed());
        }
        eprintln!("{what}: {opened} opened, {failed} refused, slowest {slowest:?}");
        assert!(failed > count / 2 && opened > 0, "{what}: the damage does not reach the parser");
        assert!(slowest < Duration::from_secs(1), "{what}: {slowest:?}");
    }
    let grown = peak_kib() - before;
    eprintln!("address space grew by {grown} KiB");
    assert!(grown < 64 << 10, "address space grew by {grown} KiB");
}
