//! GGUF: what is written is read, whatever the types, formats, order and threads.

use huozi_quant::Format;
use huozi_quant::gguf::{Layout, MetaValue, Reader, Rule, TensorSpec, Writer};
use huozi_quant::map::How;

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
        for (i, b) in whole.iter().enumerate().skip(reader.data_offset() as usize) {
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
