//! Hostile and unusual files: each gives an error that names the place, or the right numbers.

use crate::source_support::*;

fn st(header: &str, data: usize) -> Result<huozi_convert::source::Checkpoint, huozi_convert::source::Error> {
    open(&[("model.safetensors", safetensors(header, &vec![0; data]))])
}

#[test]
fn safetensors_headers() {
    let t = |name: &str, dtype: &str, shape: &str, from: u64, to: u64| {
        format!(r#""{name}":{{"dtype":"{dtype}","shape":{shape},"data_offsets":[{from},{to}]}}"#)
    };
    let a = t("a", "F32", "[2]", 0, 8);
    let cases: Vec<(&str, String, usize, &[&str])> = vec![
        ("beyond the end", format!("{{{a}}}"), 4, &["inside 0..4", "0..8"]),
        ("overlap", format!("{{{a},{}}}", t("b", "F32", "[1]", 4, 8)), 8, &["tensor b", "overlaps"]),
        ("hole", format!("{{{a},{}}}", t("b", "F32", "[1]", 12, 16)), 16, &["tensor b", "hole"]),
        ("after the last", format!("{{{a}}}"), 12, &["end of the file", "4 bytes more"]),
        ("size", format!("{{{}}}", t("a", "F32", "[3]", 0, 8)), 8, &["F32 [3]", "8 bytes"]),
        ("reversed", format!("{{{}}}", t("a", "F32", "[0]", 8, 0)), 8, &["8..0"]),
        ("overflow", format!("{{{}}}", t("a", "F32", "[4294967296,4294967296]", 0, 8)), 8, &["64 bits"]),
        ("overflow of bytes", format!("{{{}}}", t("a", "F32", "[4611686018427387904]", 0, 0)), 0, &["F32"]),
        ("dimensions", format!("{{{}}}", t("a", "F32", "[1,1,1,1,1,1,1,1,1]", 0, 4)), 4, &["8 dimensions"]),
        ("negative", format!("{{{}}}", t("a", "F32", "[-1]", 0, 4)), 4, &["at byte"]),
        ("twice", format!("{{{a},{a}}}"), 8, &["tensor a twice"]),
        ("a list", "[1]".into(), 0, &["at byte"]),
        ("no JSON", "{\"a".into(), 0, &["at byte", "JSON"]),
        ("two values", format!("{{{a}}}{{}}"), 8, &["JSON"]),
        ("no shape", r#"{"a":{"dtype":"F32","data_offsets":[0,8]}}"#.into(), 8, &["shape"]),
        ("deep", "[".repeat(100_000), 0, &["at byte"]),
        ("escapes in a name", format!("{{{}}}", t("\\u001b[2J", "F32", "[3]", 0, 8)), 8, &["tensor"]),
    ];
    for (what, header, data, says) in cases {
        refused(what, st(&header, data), says);
    }
    for (what, bytes) in [
        ("length past the end", [&100u64.to_le_bytes()[..], b"{}"].concat()),
        ("length past everything", u64::MAX.to_le_bytes().to_vec()),
        ("short", vec![0; 7]),
        ("empty", vec![]),
    ] {
        refused(
            what,
            open(&[("model.safetensors", bytes)]),
            &["model.safetensors", "at byte", "end of the file"],
        );
    }
}

#[test]
fn a_header_over_the_cap() {
    // Sparse: 101 MB that take no room.
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("model.safetensors");
    std::fs::write(&path, 100_000_001u64.to_le_bytes()).unwrap();
    std::fs::OpenOptions::new().write(true).open(&path).unwrap().set_len(101_000_000).unwrap();
    refused("cap", huozi_convert::source::Checkpoint::open(dir.path()), &["at most 100000000"]);
}

#[test]
fn too_many_tensors() {
    const MOST: usize = 65_536;
    let header = |names: std::ops::Range<usize>| {
        let one = |i| format!(r#""{i}":{{"dtype":"F32","shape":[0],"data_offsets":[0,0]}}"#);
        format!("{{{}}}", names.map(one).collect::<Vec<_>>().join(","))
    };
    assert_eq!(st(&header(0..MOST), 0).unwrap().tensors().len(), MOST);
    refused("a header", st(&header(0..MOST + 1), 0), &["more than 65536 tensors"]);
    let shards = [
        ("model-00001-of-00002.safetensors", safetensors(&header(0..MOST), &[])),
        ("model-00002-of-00002.safetensors", safetensors(&header(MOST..MOST + 1), &[])),
    ];
    refused("shards", open(&shards), &["at most 65536 tensors", "65537"]);
    // One tensor under many names.
    let names = |n: usize| {
        let rest = (1..n).flat_map(|i| [text(&i.to_string()), b"h\x00s".to_vec()].concat());
        pickle([b"}".to_vec(), text("0"), good(), b"q\x00s".to_vec(), rest.collect()].concat())
    };
    assert_eq!(open_pickle(names(MOST)).unwrap().tensors().len(), MOST);
    refused("a pickle", open_pickle(names(MOST + 1)), &["at most 65536 tensors", "65537"]);
}

#[test]
fn safetensors_oddities_that_are_right() {
    let header = r#"{"__metadata__":{"format":"pt"},"i":{"dtype":"I64","shape":[1],"data_offsets":[4,12]},
        "new":{"dtype":"F3_X","shape":[7],"data_offsets":[12,14]},
        "s":{"dtype":"F32","shape":[],"data_offsets":[0,4]},
        "e":{"dtype":"F16","shape":[3,0],"data_offsets":[14,14]}}"#;
    let c = st(header, 14).unwrap();
    assert_eq!(values(&c, "s"), [0.0]);
    assert_eq!(values(&c, "e"), [0.0; 0]);
    for (name, dtype) in [("i", "I64"), ("new", "F3_X")] {
        let i = c.find(name).unwrap();
        let mut out = vec![0.0; c.tensors()[i].cols() as usize];
        let error = c.read_rows(i, 0..1, &mut out).unwrap_err().to_string();
        assert!(error.contains(dtype) && error.contains(name), "{error}");
    }
}

pub fn good() -> Vec<u8> {
    tensor(storage("FloatStorage", "0", 12), 0, &[3, 4], &[4, 1])
}

#[test]
fn torch_layouts_that_are_right() {
    let twelve: Vec<f32> = (0..12).map(|i| i as f32).collect();
    let parameter = [
        global("torch._utils", "_rebuild_parameter"),
        tuple(&[good(), vec![0x88], [global("collections", "OrderedDict"), b")R".to_vec()].concat()]),
        b"R".to_vec(),
    ]
    .concat();
    let metadata = {
        // OrderedDict with items, then BUILD with {"_metadata": OrderedDict}.
        let state = dict(&[("_metadata", [global("collections", "OrderedDict"), b")R".to_vec()].concat())]);
        let items = [b"(".to_vec(), text("w"), good(), b"u".to_vec()].concat();
        [global("collections", "OrderedDict"), b")R".to_vec(), items, state, b"b".to_vec()].concat()
    };
    let stack_global = {
        let g = |m: &str, n: &str| [text(m), text(n), vec![0x93]].concat();
        let id = tuple(&[text("storage"), g("torch", "FloatStorage"), text("0"), text("cpu"), int(12)]);
        let args = tuple(&[
            [id, b"Q".to_vec()].concat(),
            int(0),
            ints(&[12]),
            ints(&[1]),
            vec![0x89],
            b"N".to_vec(),
        ]);
        let body = [
            &[0x95][..],
            &5u64.to_le_bytes(),
            b"}",
            &text("w"),
            &g("torch._utils", "_rebuild_tensor_v2"),
            &args,
            b"Rs",
        ]
        .concat();
        [b"\x80\x04".to_vec(), body, b".".to_vec()].concat()
    };
    for (what, pickle) in [
        ("plain", pickle(dict(&[("w", good())]))),
        ("parameter", pickle(dict(&[("w", parameter)]))),
        ("metadata", pickle(metadata)),
        ("protocol 4", stack_global),
        ("state_dict", pickle(dict(&[("epoch", int(3)), ("state_dict", dict(&[("w", good())]))]))),
        ("model", pickle(dict(&[("model", dict(&[("w", good())]))]))),
        (
            "module",
            pickle(dict(&[("lr", b"G\0\0\0\0\0\0\0\0".to_vec()), ("module", dict(&[("w", good())]))])),
        ),
    ] {
        let c = open_pickle(pickle).unwrap_or_else(|e| panic!("{what}: {e}"));
        assert_eq!(values(&c, "w"), twelve, "{what}");
    }
    // Shared storage, views, any strides.
    let s = || storage("FloatStorage", "0", 12);
    let c = open_pickle(pickle(dict(&[
        ("view", tensor(s(), 4, &[2, 3], &[3, 1])),
        ("transposed", tensor(s(), 0, &[4, 3], &[1, 4])),
        ("every second", tensor(s(), 1, &[5], &[2])),
        ("3d", tensor(s(), 0, &[2, 2, 3], &[1, 6, 2])),
        ("3d cut", tensor(s(), 0, &[2, 2, 2], &[6, 2, 1])),
        ("expanded", tensor(s(), 5, &[3, 4], &[0, 0])),
        ("expanded rows", tensor(s(), 5, &[3, 4], &[0, 1])),
        ("expanded columns", tensor(s(), 5, &[3, 4], &[1, 0])),
        ("4d", tensor(s(), 0, &[2, 3, 1, 2], &[1, 2, 9, 6])),
        ("scalar", tensor(s(), 11, &[], &[])),
        ("empty", tensor(s(), 12, &[0, 4], &[4, 1])),
        ("empty, far", tensor(s(), 99, &[4, 0], &[1, 1])),
    ])))
    .unwrap();
    let want: [(&str, &[f32]); 12] = [
        ("view", &[4., 5., 6., 7., 8., 9.]),
        ("transposed", &[0., 4., 8., 1., 5., 9., 2., 6., 10., 3., 7., 11.]),
        ("every second", &[1., 3., 5., 7., 9.]),
        ("3d", &[0., 2., 4., 6., 8., 10., 1., 3., 5., 7., 9., 11.]),
        ("3d cut", &[0., 1., 2., 3., 6., 7., 8., 9.]),
        ("expanded", &[5.; 12]),
        ("expanded rows", &[5., 6., 7., 8., 5., 6., 7., 8., 5., 6., 7., 8.]),
        ("expanded columns", &[5., 5., 5., 5., 6., 6., 6., 6., 7., 7., 7., 7.]),
        ("4d", &[0., 6., 2., 8., 4., 10., 1., 7., 3., 9., 5., 11.]),
        ("scalar", &[11.]),
        ("empty", &[]),
        ("empty, far", &[]),
    ];
    for (name, want) in want {
        assert_eq!(values(&c, name), want, "{name}");
    }
    // The stride of a dimension of one may be any number.
    let far = i64::MAX;
    let c2 = open_pickle(pickle(dict(&[
        ("one column", tensor(s(), 0, &[4, 1], &[2, far])),
        ("one row", tensor(s(), 1, &[1, 3], &[far, 2])),
    ])))
    .unwrap();
    assert_eq!(values(&c2, "one column"), [0., 2., 4., 6.]);
    assert_eq!(values(&c2, "one row"), [1., 3., 5.]);
    let mut out = [0.0; 1];
    c2.read_rows(c2.find("one column").unwrap(), 2..3, &mut out).unwrap();
    assert_eq!(out, [4.]);
    // Rows out of the middle, across the boundary of a block of rows.
    let mut out = [0.0; 6];
    c.read_rows(c.find("3d").unwrap(), 1..3, &mut out).unwrap();
    assert_eq!(out, [6., 8., 10., 1., 3., 5.]);
    let mut out = [0.0; 6];
    c.read_rows(c.find("transposed").unwrap(), 1..3, &mut out).unwrap();
    assert_eq!(out, [1., 5., 9., 2., 6., 10.]);
}

#[test]
fn strided_tensors_larger_than_the_scratch() {
    let (rows, cols) = (700i64, 900i64);
    let n = rows * cols;
    let data = f32s((0..n).map(|i| i as f32));
    let s = || storage("FloatStorage", "0", n);
    let pickle = pickle(dict(&[
        ("t", tensor(s(), 0, &[cols, rows], &[1, cols])),
        ("plain", tensor(s(), 0, &[rows, cols], &[cols, 1])),
        ("third", tensor(s(), 2, &[n / 3], &[3])),
        ("far", tensor(s(), 7, &[rows - 1], &[cols])),
    ]));
    let c = open(&[("pytorch_model.bin", zip(&[member("a/data.pkl", pickle), member("a/data/0", data)]))])
        .unwrap();
    let t = values(&c, "t");
    assert!((0..n).all(|i| t[i as usize] == ((i % rows) * cols + i / rows) as f32));
    assert!(values(&c, "plain").iter().enumerate().all(|(i, &x)| x == i as f32));
    assert!(values(&c, "third").iter().enumerate().all(|(i, &x)| x == (3 * i + 2) as f32));
    assert!(values(&c, "far").iter().enumerate().all(|(i, &x)| x == (900 * i + 7) as f32));
}

#[test]
fn other_types_are_listed_but_not_read() {
    let c = open_pickle(pickle(dict(&[
        ("w", good()),
        ("ids", tensor(storage("LongStorage", "0", 6), 0, &[6], &[1])),
    ])))
    .unwrap();
    let i = c.find("ids").unwrap();
    assert_eq!((c.tensors()[i].dtype.name(), c.tensors()[i].bytes), ("I64", 48));
    let error = c.read_rows(i, 0..1, &mut [0.0; 6]).unwrap_err().to_string();
    assert!(error.contains("ids") && error.contains("I64"), "{error}");
}

#[test]
fn archives() {
    let pkl = || member("a/data.pkl", pickle(dict(&[("w", good())])));
    let data = || member("a/data/0", f32s((0..12).map(|i| i as f32)));
    let bin = |bytes: Vec<u8>| open(&[("pytorch_model.bin", bytes)]);
    let with = |m: Member| bin(zip(&[pkl(), data(), m]));
    let twelve: Vec<f32> = (0..12).map(|i| i as f32).collect();

    // zip64: all records wide, with and without need.
    let wide: Vec<_> = [pkl(), data()].into_iter().map(|m| Member { wide: true, ..m }).collect();
    assert_eq!(values(&bin(zip(&wide)).unwrap(), "w"), twelve);
    assert_eq!(values(&bin(zip_with(&[pkl(), data()], true)).unwrap(), "w"), twelve);
    assert!(with(member("a/byteorder", "little")).is_ok());
    let commented = [&zip(&[pkl(), data()])[..], b"hello"].concat();
    let mut right = commented.clone();
    let n = right.len();
    right[n - 7] = 5;
    assert!(bin(right).is_ok());

    let cases: Vec<(&str, Result<_, _>, &[&str])> = vec![
        ("big endian", with(member("a/byteorder", "big")), &["byteorder", "expected little"]),
        ("deflated", with(Member { method: 8, ..member("a/x", "x") }), &["stored", "deflated"]),
        ("bzip2", with(Member { method: 12, ..member("a/x", "x") }), &["method 12"]),
        ("encrypted", with(Member { flags: 1, ..member("a/x", "x") }), &["encrypted"]),
        ("upwards", with(member("a/../x", "x")), &["plain member name", "a/../x"]),
        ("absolute", with(member("/etc/passwd", "x")), &["plain member name"]),
        ("backslash", with(member("a\\x", "x")), &["plain member name"]),
        ("drive", with(member("C:x", "x")), &["plain member name"]),
        ("directory", with(member("a/b/", "")), &["plain member name"]),
        ("no name", with(member("", "x")), &["plain member name"]),
        ("control character", with(member("a/\u{1b}[2J", "x")), &["plain member name"]),
        ("duplicate", with(data()), &["each member once", "a/data/0"]),
        (
            "another name inside",
            with(Member { local_name: Some("a/y".into()), ..member("a/x", "x") }),
            &["the name a/x", "a/y"],
        ),
        (
            "size past the end",
            with(Member { size: 1 << 20, ..member("a/x", "x") }),
            &["before byte", "1048576 bytes"],
        ),
        (
            "wide size past the end",
            with(Member { size: u64::MAX, wide: true, ..member("a/x", "x") }),
            &["before byte"],
        ),
        ("overlap", bin(zip(&[Member { size: 60, ..member("a/x", "x") }, pkl(), data()])), &["overlaps"]),
        ("wrong sum", bin(zip(&[Member { crc: 1, ..pkl() }, data()])), &["CRC-32 00000001"]),
        ("no pickle", bin(zip(&[data()])), &["one member NAME/data.pkl"]),
        ("two pickles", with(member("b/data.pkl", "x")), &["one member NAME/data.pkl"]),
        ("pickle at the top", bin(zip(&[member("data.pkl", "x")])), &["one member NAME/data.pkl"]),
        ("no members", bin(zip(&[])), &["one member NAME/data.pkl"]),
        (
            "bytes before",
            bin([b"PK\x03\x04".to_vec(), zip(&[pkl(), data()])].concat()),
            &["zip directory that ends at"],
        ),
        ("bytes after", bin(commented), &["a zip end record"]),
        (
            "old format",
            bin(b"\x80\x02\x8a\x0al\xfc\x9cF\xf9 j\xa8P\x19.".to_vec()),
            &["PyTorch 1.6", "save it again"],
        ),
        ("empty file", bin(vec![]), &["PyTorch 1.6"]),
    ];
    for (what, result, says) in cases {
        refused(what, result, says);
    }
    for zip in [zip(&[pkl(), data()]), zip(&wide)] {
        for n in 0..zip.len() {
            refused(
                &format!("the first {n} bytes"),
                bin(zip[..n].to_vec()),
                &["pytorch_model.bin", "at byte"],
            );
        }
    }
}

/// A storage of 4 GiB and a bit, and one behind it: sizes and offsets that 32 bits do not hold. Sparse: no
/// room is taken.
#[test]
fn archives_over_4_gib() {
    use std::os::unix::fs::FileExt;
    const LARGE: u64 = (4 << 30) + 64;
    let n = (LARGE / 4) as i64;
    let pickle = pickle(dict(&[
        ("large", tensor(storage("FloatStorage", "0", n), 0, &[n / 16, 16], &[16, 1])),
        ("view", tensor(storage("FloatStorage", "0", n), n - 16, &[16], &[1])),
        ("w", tensor(storage("FloatStorage", "1", 12), 0, &[3, 4], &[4, 1])),
    ]));
    let large = Member { size: LARGE, wide: true, hole: LARGE, ..member("a/data/0", "") };
    let behind = Member { wide: true, ..member("a/data/1", f32s((0..12).map(|i| i as f32))) };
    let dir = tempfile::tempdir().unwrap();
    let file = std::fs::File::create(dir.path().join("pytorch_model.bin")).unwrap();
    let pieces = zip_pieces(&[member("a/data.pkl", pickle), large, behind], true);
    for (at, bytes) in &pieces {
        file.write_all_at(bytes, *at).unwrap();
    }
    // The last 16 numbers of the large one, just before the next member.
    let last: Vec<f32> = (1..=16).map(|i| i as f32).collect();
    file.write_all_at(&f32s(last.clone()), pieces[2].0 - 64).unwrap();
    let c = huozi_convert::source::Checkpoint::open(dir.path()).unwrap();
    let rows = LARGE / 64;
    let mut out = [f32::NAN; 32];
    c.read_rows(c.find("large").unwrap(), rows - 2..rows, &mut out).unwrap();
    assert_eq!((&out[..16], &out[16..]), (&[0.0; 16][..], &last[..]));
    assert_eq!(values(&c, "view"), last);
    assert_eq!(values(&c, "w"), (0..12).map(|i| i as f32).collect::<Vec<_>>());
    // Cut short by a byte of its end, or by its last GiB.
    let len = file.metadata().unwrap().len();
    for cut in [len - 1, len - (1 << 30)] {
        file.set_len(cut).unwrap();
        refused("cut", huozi_convert::source::Checkpoint::open(dir.path()), &["the file is cut short"]);
    }
}
