//! GGUF: a file written by gguf-py (`fixtures/make_gguf_py.py`) is read value for value.

use std::path::PathBuf;

use huozi_quant::Format;
use huozi_quant::gguf::{Layout, MetaValue, Reader, TensorSpec};
use huozi_quant::map::How;

fn fixture() -> PathBuf {
    PathBuf::from(env!("CARGO_MANIFEST_DIR")).join("tests/fixtures/gguf-py.gguf")
}

fn f32s(bytes: &[u8]) -> Vec<f32> {
    bytes.as_chunks().0.iter().map(|b| f32::from_le_bytes(*b)).collect()
}

/// The metadata that the script writes, after `general.architecture`.
fn expected() -> Vec<(&'static str, MetaValue)> {
    vec![
        ("general.architecture", MetaValue::Str("bloom".into())),
        ("t.u8", MetaValue::U8(200)),
        ("t.i8", MetaValue::I8(-100)),
        ("t.u16", MetaValue::U16(60000)),
        ("t.i16", MetaValue::I16(-30000)),
        ("t.u32", MetaValue::U32(4_000_000_000)),
        ("t.i32", MetaValue::I32(-2_000_000_000)),
        ("t.f32", MetaValue::F32(0.15625)),
        ("t.bool", MetaValue::Bool(true)),
        ("t.str", MetaValue::Str("活字 é\n".into())),
        ("t.u64", MetaValue::U64(u64::MAX)),
        ("t.i64", MetaValue::I64(i64::MIN)),
        ("t.f64", MetaValue::F64(0.1)),
        ("t.strs", MetaValue::Strings(vec!["".into(), "Ġa".into(), "掬".into()])),
        ("t.i32s", MetaValue::I32s(vec![1, -2, 3])),
        ("t.u8s", MetaValue::U8s(vec![1, 2, 255])),
        ("t.f32s", MetaValue::F32s(vec![0.5, -0.25])),
        ("t.bools", MetaValue::Bools(vec![true, false])),
        ("t.u64s", MetaValue::U64s(vec![1 << 63, 7])),
    ]
}

#[test]
fn metadata_of_every_type_is_what_gguf_py_wrote() {
    for how in [How::Map, How::Read] {
        let reader = Reader::open(&fixture(), how).unwrap();
        assert_eq!((reader.version(), reader.alignment()), (3, 32));
        let found: Vec<_> = reader.meta().iter().map(|(k, v)| (k, MetaValue::from(v))).collect();
        assert_eq!(found, expected());
    }
}

#[test]
fn tensors_are_what_gguf_py_wrote() {
    let reader = Reader::open(&fixture(), How::Map).unwrap();
    let x: Vec<f32> = (0..512).map(|i| (i as f32 - 200.0) / 64.0).collect();
    let tensor = |name: &str| reader.tensor(name).unwrap_or_else(|| panic!("no {name}"));
    assert_eq!(tensor("w.f32").dims, [256, 2], "columns first");
    assert_eq!(f32s(&reader.bytes(tensor("w.f32"))), x);
    assert_eq!(f32s(&reader.bytes(tensor("v.f32"))), [1.0, 2.0, 3.0]);
    assert_eq!((tensor("v.f32").cols(), tensor("v.f32").rows()), (3, 1));
    assert_eq!((tensor("c.f32").dims.as_slice(), tensor("c.f32").rows()), (&[4, 3, 2][..], 6));
    assert_eq!(f32s(&reader.bytes(tensor("c.f32"))), (0..24).map(|i| i as f32).collect::<Vec<_>>());

    let halves = reader.bytes(tensor("w.f16"));
    let halves: Vec<f32> =
        halves.as_chunks().0.iter().map(|b| half::f16::from_le_bytes(*b).to_f32()).collect();
    assert_eq!(halves, x);
    let formats = [Format::BF16, Format::Q4_0, Format::Q4_1, Format::Q5_0, Format::Q5_1, Format::Q8_0];
    for format in formats {
        let t = tensor(&format!("w.{}", format.name().to_lowercase()));
        assert_eq!((t.format, t.cols(), t.rows()), (format, 256, 2));
        assert_eq!(t.bytes as usize, 2 * format.row_bytes(256).unwrap());
        assert!(reader.bytes(t).iter().any(|&b| b != 0), "{format}");
    }
    // The scale of the first Q8_0 block: the largest magnitude, 200 / 64, over 127.
    let block = reader.bytes(tensor("w.q8_0")).slice(..34);
    let d = half::f16::from_le_bytes([block[0], block[1]]);
    assert_eq!(d, half::f16::from_f32(200.0 / 64.0 / 127.0));
    assert_eq!(block[2] as i8, -127);
}

#[test]
fn our_header_for_the_same_content_is_byte_for_byte_gguf_py_s() {
    let reader = Reader::open(&fixture(), How::Read).unwrap();
    let meta: Vec<_> = expected().into_iter().map(|(k, v)| (k.to_owned(), v)).collect();
    let spec = |t: &huozi_quant::gguf::TensorInfo| TensorSpec {
        name: t.name.clone(),
        format: t.format,
        dims: t.dims.clone(),
    };
    let layout = Layout::new(&meta, reader.tensors().iter().map(spec).collect()).unwrap();
    let file = std::fs::read(fixture()).unwrap();
    assert_eq!(layout.header(), &file[..layout.header().len()]);
    assert_eq!(layout.tensors(), reader.tensors());
    assert_eq!(layout.file_bytes(), file.len() as u64);
}
