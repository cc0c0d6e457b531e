//! GGUF: what is written is read, for all types, formats, orders and thread counts.

use huozi_quant::Format;
use huozi_quant::gguf::{Layout, MetaValue, Reader, Rule, TensorSpec, Writer};
use huozi_quant::map::How;
use proptest::prelude::*;

/// One tensor of every format, `rows` rows of 512.
fn all_formats(rows: u64) -> Vec<TensorSpec> {
    let spec = |&format: &Format| TensorSpec { name: format!("t.{format}"), format, dims: vec![512, rows] };
    Format::ALL.iter().map(spec).collect()
}

/// Content without a zero byte.
fn bytes_of(tensor: usize, n: u64) -> Vec<u8> {
    (0..n).map(|i| (i.wrapping_mul(31) + tensor as u64 * 7) as u8 | 1).collect()
}

/// Writes a file in one go.
fn write(meta: &[(String, MetaValue)], tensors: Vec<TensorSpec>) -> tempfile::NamedTempFile {
    let file = tempfile::NamedTempFile::new().unwrap();
    // What was there before must not be seen again, in the padding least of all.
    std::fs::write(file.path(), vec![0xaa; 1 << 18]).unwrap();
    let writer = Writer::create(file.reopen().unwrap(), Layout::new(meta, tensors).unwrap()).unwrap();
    for (i, t) in writer.layout().tensors().iter().enumerate() {
        writer.write_at(i, 0, &bytes_of(i, t.bytes)).unwrap();
    }
    let file_bytes = writer.layout().file_bytes();
    assert_eq!(writer.finish().unwrap().metadata().unwrap().len(), file_bytes);
    file
}

fn meta_of(reader: &Reader) -> Vec<(String, MetaValue)> {
    reader.meta().iter().map(|(k, v)| (k.to_owned(), v.into())).collect()
}

#[test]
fn every_format_comes_back_at_an_aligned_place_with_zeros_between() {
    for (alignment, how) in [(32, How::Map), (32, How::Read), (4096, How::Map)] {
        let meta = vec![("general.alignment".to_owned(), MetaValue::U32(alignment as u32))];
        let file = write(&meta, all_formats(3));
        let reader = Reader::open(file.path(), how).unwrap();
        assert_eq!((reader.version(), reader.alignment()), (3, alignment));
        assert_eq!(reader.tensors().len(), Format::ALL.len());
        let mut content = vec![];
        for (i, (t, &format)) in reader.tensors().iter().zip(Format::ALL).enumerate() {
            assert_eq!((t.format, t.cols(), t.rows()), (format, 512, 3));
            assert_eq!(t.bytes as usize, 3 * format.row_bytes(512).unwrap());
            assert_eq!(t.offset % alignment, 0);
            assert_eq!(*reader.bytes(t), bytes_of(i, t.bytes)[..], "{format}");
            assert_eq!(reader.tensor(&t.name), Some(t));
            content.push(t.offset..t.offset + t.bytes);
        }
        assert_eq!(reader.tensor("t"), None);
        let whole = std::fs::read(file.path()).unwrap();
        assert_eq!(whole.len() as u64 % alignment, 0, "the last tensor is padded too");
        for (i, b) in whole.iter().enumerate().skip(reader.parts()[0].data_offset() as usize) {
            let inside = content.iter().any(|r| r.contains(&(i as u64)));
            assert_eq!(inside, *b != 0, "byte {i}");
        }
    }
}

#[test]
fn an_incomplete_file_is_refused_and_is_no_gguf_file() {
    let file = tempfile::NamedTempFile::new().unwrap();
    std::fs::write(file.path(), vec![0xaa; 100_000]).unwrap();
    let layout = Layout::new(&[], all_formats(1)).unwrap();
    let writer = Writer::create(file.reopen().unwrap(), layout).unwrap();
    for (i, t) in writer.layout().tensors().iter().enumerate() {
        let bytes = bytes_of(i, t.bytes);
        writer.write_at(i, 0, if i == 4 { &bytes[1..] } else { &bytes }).unwrap();
    }
    let error = writer.finish().unwrap_err();
    assert_eq!(error.rule(), Some(Rule::Incomplete), "{error}");
    assert!(error.to_string().contains("t.Q5_0") && error.to_string().contains("351"), "{error}");
    assert_eq!(Reader::open(file.path(), How::Map).unwrap_err().rule(), Some(Rule::Magic));
}

#[test]
fn a_byte_is_written_once_and_inside_its_tensor() {
    let spec = |name: &str| TensorSpec { name: name.into(), format: Format::F32, dims: vec![8] };
    let layout = Layout::new(&[], vec![spec("a"), spec("b")]).unwrap();
    let writer = Writer::create(tempfile::tempfile().unwrap(), layout).unwrap();
    let rule = |tensor, offset, n| writer.write_at(tensor, offset, &vec![1; n]).err().and_then(|e| e.rule());
    assert_eq!(rule(0, 0, 33), Some(Rule::WriteRange));
    assert_eq!(rule(0, 32, 1), Some(Rule::WriteRange));
    assert_eq!(rule(0, u64::MAX, 2), Some(Rule::WriteRange));
    assert_eq!(rule(2, 0, 1), Some(Rule::WriteRange));
    assert_eq!(rule(0, 32, 0), None);
    assert_eq!(rule(0, 8, 8), None);
    assert_eq!(rule(0, 15, 1), Some(Rule::WrittenTwice));
    assert_eq!(rule(0, 0, 32), Some(Rule::WrittenTwice));
    // More calls than needed, but one byte of 32 is missing.
    assert_eq!((rule(0, 0, 8), rule(0, 16, 15)), (None, None));
    assert_eq!(rule(1, 0, 32), None);
    let error = writer.finish().unwrap_err();
    assert_eq!(error.rule(), Some(Rule::Incomplete), "{error}");
}

#[test]
fn meta_is_found_by_key_in_file_order() {
    let meta = vec![("z".to_owned(), MetaValue::I32(-4)), ("a".to_owned(), MetaValue::Str("活字".into()))];
    let file = write(&meta, vec![]);
    let reader = Reader::open(file.path(), How::Map).unwrap();
    assert_eq!(meta_of(&reader), meta);
    assert_eq!(reader.meta().str("a").unwrap(), Some("活字"));
    assert_eq!(reader.meta().str("b").unwrap(), None);
    assert_eq!(reader.meta().uint("z").unwrap_err().rule(), Some(Rule::WrongType));
}

/// Any value a file can hold, arrays nested up to the cap.
fn any_value() -> impl Strategy<Value = MetaValue> {
    use proptest::collection::vec;
    let text = "[ a-z活字\\PC]{0,12}";
    let scalar = prop_oneof![
        any::<u8>().prop_map(MetaValue::U8),
        any::<i8>().prop_map(MetaValue::I8),
        any::<u16>().prop_map(MetaValue::U16),
        any::<i16>().prop_map(MetaValue::I16),
        any::<u32>().prop_map(MetaValue::U32),
        any::<i32>().prop_map(MetaValue::I32),
        any::<f32>().prop_map(MetaValue::F32),
        any::<bool>().prop_map(MetaValue::Bool),
        text.prop_map(MetaValue::Str),
        any::<u64>().prop_map(MetaValue::U64),
        any::<i64>().prop_map(MetaValue::I64),
        any::<f64>().prop_map(MetaValue::F64),
    ];
    let array = prop_oneof![
        vec(any::<u8>(), 0..5).prop_map(MetaValue::U8s),
        vec(any::<i8>(), 0..5).prop_map(MetaValue::I8s),
        vec(any::<u16>(), 0..5).prop_map(MetaValue::U16s),
        vec(any::<i16>(), 0..5).prop_map(MetaValue::I16s),
        vec(any::<u32>(), 0..5).prop_map(MetaValue::U32s),
        vec(any::<i32>(), 0..5).prop_map(MetaValue::I32s),
        vec(any::<f32>(), 0..5).prop_map(MetaValue::F32s),
        vec(any::<bool>(), 0..5).prop_map(MetaValue::Bools),
        vec(text, 0..5).prop_map(MetaValue::Strings),
        vec(any::<u64>(), 0..5).prop_map(MetaValue::U64s),
        vec(any::<i64>(), 0..5).prop_map(MetaValue::I64s),
        vec(any::<f64>(), 0..5).prop_map(MetaValue::F64s),
    ];
    // 3 levels around a plain array: depth 4 in all.
    let nested = array.prop_recursive(3, 24, 4, |inner| vec(inner, 0..4).prop_map(MetaValue::Arrays));
    prop_oneof![scalar, nested]
}

proptest! {
    #![proptest_config(ProptestConfig { failure_persistence: None, ..ProptestConfig::with_cases(128) })]

    #[test]
    fn what_is_written_is_read(
        values in proptest::collection::vec(any_value(), 0..12),
        shapes in proptest::collection::vec(
            (0..Format::ALL.len(), 1u64..3, proptest::collection::vec(1u64..4, 0..4)),
            0..6,
        ),
        alignment in proptest::option::of(3u32..=16),
    ) {
        let mut meta: Vec<_> = values.into_iter().enumerate().map(|(i, v)| (format!("键.{i}"), v)).collect();
        if let Some(bits) = alignment {
            meta.push(("general.alignment".to_owned(), MetaValue::U32(1 << bits)));
        }
        let specs: Vec<_> = shapes.into_iter().enumerate().map(|(i, (f, blocks, rest))| {
            let format = Format::ALL[f];
            let dims = [&[blocks * format.block_weights() as u64], &rest[..]].concat();
            TensorSpec { name: format!("blk.{i}.weight"), format, dims: dims[..dims.len().min(4)].to_vec() }
        }).collect();
        let file = write(&meta, specs.clone());
        let reader = Reader::open(file.path(), How::Map).unwrap();
        // By bytes, not by ==: a NaN must keep its bits too.
        let header =
            |meta: &[(String, MetaValue)]| Layout::new(meta, specs.clone()).unwrap().header().to_vec();
        prop_assert_eq!(header(&meta_of(&reader)), header(&meta));
        prop_assert_eq!(reader.alignment(), alignment.map_or(32, |bits| 1 << bits));
        prop_assert_eq!(reader.tensors().len(), specs.len());
        for (i, (t, spec)) in reader.tensors().iter().zip(&specs).enumerate() {
            prop_assert_eq!((&t.name, t.format, &t.dims), (&spec.name, spec.format, &spec.dims));
            prop_assert_eq!(&*reader.bytes(t), &bytes_of(i, t.bytes)[..]);
        }
        // Version 2 has the same layout.
        let mut old = std::fs::read(file.path()).unwrap();
        old[4] = 2;
        let old = Reader::from_bytes("old", old).unwrap();
        prop_assert_eq!((old.version(), old.tensors()), (2, reader.tensors()));
        prop_assert_eq!(header(&meta_of(&old)), header(&meta));
    }
}

#[test]
fn threads_write_pieces_in_any_order() {
    let specs = all_formats(64);
    let whole = std::fs::read(write(&[], specs.clone()).path()).unwrap();
    let file = tempfile::NamedTempFile::new().unwrap();
    let writer = Writer::create(file.reopen().unwrap(), Layout::new(&[], specs).unwrap()).unwrap();
    // Pieces of 1000 bytes, dealt out to 4 threads, each from its last to its first.
    let mut pieces = vec![];
    for (i, t) in writer.layout().tensors().iter().enumerate() {
        let bytes = bytes_of(i, t.bytes);
        pieces.extend(bytes.chunks(1000).enumerate().map(|(k, c)| (i, k as u64 * 1000, c.to_vec())));
    }
    std::thread::scope(|scope| {
        for thread in 0..4 {
            let (writer, pieces) = (&writer, &pieces);
            scope.spawn(move || {
                for (i, offset, data) in pieces.iter().rev().skip(thread).step_by(4) {
                    writer.write_at(*i, *offset, data).unwrap();
                }
            });
        }
    });
    writer.finish().unwrap();
    assert!(std::fs::read(file.path()).unwrap() == whole);
}

#[test]
fn a_layout_that_no_reader_would_take_is_refused() {
    let good = || TensorSpec { name: "t".into(), format: Format::Q4_0, dims: vec![32, 2] };
    let layout = |meta: &[(&str, MetaValue)], tensors| {
        let meta: Vec<_> = meta.iter().map(|(k, v)| ((*k).to_owned(), v.clone())).collect();
        Layout::new(&meta, tensors).err().and_then(|e| e.rule())
    };
    assert_eq!(layout(&[], vec![good()]), None);
    let named = |name: String| vec![TensorSpec { name, ..good() }];
    let sized = |dims: &[u64]| vec![TensorSpec { dims: dims.to_vec(), ..good() }];
    assert_eq!(layout(&[], named("n".repeat(63))), None);
    assert_eq!(layout(&[], named("n".repeat(64))), Some(Rule::TensorName));
    assert_eq!(layout(&[], named("字".repeat(22))), Some(Rule::TensorName), "bytes, not characters");
    assert_eq!(layout(&[], named(String::new())), Some(Rule::TensorName));
    assert_eq!(layout(&[], vec![good(), good()]), Some(Rule::TensorTwice));
    assert_eq!(layout(&[], sized(&[33])), Some(Rule::Block));
    assert_eq!(layout(&[], sized(&[])), Some(Rule::DimCount));
    assert_eq!(layout(&[], sized(&[32; 5])), Some(Rule::DimCount));
    assert_eq!(layout(&[], sized(&[32, 0])), Some(Rule::DimZero));
    assert_eq!(layout(&[], sized(&[1 << 32, 1 << 32])), Some(Rule::TensorSize));
    let huge = |name: &str| TensorSpec { name: name.into(), format: Format::F32, dims: vec![1 << 60] };
    assert_eq!(layout(&[], vec![huge("a"), huge("b")]), Some(Rule::TensorSize), "2^63 bytes together");
    assert_eq!(layout(&[("k", MetaValue::U8(1)), ("k", MetaValue::U8(1))], vec![]), Some(Rule::KeyTwice));
    assert_eq!(layout(&[("", MetaValue::U8(1))], vec![]), Some(Rule::KeyName));
    assert_eq!(layout(&[("general.alignment", MetaValue::U32(3))], vec![good()]), Some(Rule::Alignment));
    assert_eq!(layout(&[("general.alignment", MetaValue::U64(32))], vec![good()]), Some(Rule::Alignment));
    let mixed = MetaValue::Arrays(vec![MetaValue::U8s(vec![]), MetaValue::U8(1)]);
    assert_eq!(layout(&[("k", mixed)], vec![]), Some(Rule::ValueType));
    let deep = (0..4).fold(MetaValue::U8s(vec![]), |inner, _| MetaValue::Arrays(vec![inner]));
    assert_eq!(layout(&[("k", deep)], vec![]), Some(Rule::ArrayDepth));
}
