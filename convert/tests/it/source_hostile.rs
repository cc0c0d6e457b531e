//! Hostile and unusual files: each gives an error that says where, or the right numbers. Nothing is ever
//! carried out.

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
        "s":{"dtype":"F32","shape":[],"data_offsets":[0,4]},"e":{"dtype":"F16","shape":[3,0],"data_offsets":[14,14]}}"#;
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

fn good() -> Vec<u8> {
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
fn pickles_that_want_to_run_something() {
    let call = |g: Vec<u8>| pickle([g, tuple(&[text("echo pwned")]), b"R".to_vec()].concat());
    let dup_bomb = {
        let mut b = b"]".to_vec();
        for _ in 0..64 {
            b.extend(b"2\x86");
        }
        pickle(b)
    };
    let cases: Vec<(&str, Vec<u8>, &[&str])> = vec![
        ("REDUCE", call(global("os", "system")), &["refused at byte 2", "global os.system", "data.pkl"]),
        ("posix", call(global("posix", "system")), &["global posix.system"]),
        ("eval", call(global("builtins", "eval")), &["global builtins.eval"]),
        (
            "STACK_GLOBAL",
            call([text("os"), text("system"), vec![0x93]].concat()),
            &["refused at byte 20", "global os.system"],
        ),
        (
            "nested module",
            call(global("torch", "serialization.os.system")),
            &["torch.serialization.os.system"],
        ),
        (
            "nested module",
            call(global("torch.serialization", "os.system")),
            &["torch.serialization.os.system"],
        ),
        ("torch.load", call(global("torch", "load")), &["global torch.load"]),
        ("storage called", call(global("torch", "FloatStorage")), &["a call of torch.FloatStorage"]),
        ("string called", pickle([text("x"), b")R".to_vec()].concat()), &["a call of a string"]),
        ("escape", call(global("o\u{1b}[2Js", "x")), &["refused"]),
        ("rebuild v3", call(global("torch._utils", "_rebuild_tensor_v3")), &["_rebuild_tensor_v3"]),
        ("INST", pickle(b"(ios\nsystem\n".to_vec()), &["refused at byte 3", "INST"]),
        (
            "OBJ",
            pickle([b"(".to_vec(), global("collections", "OrderedDict"), b"o".to_vec()].concat()),
            &["OBJ"],
        ),
        ("NEWOBJ", pickle([global("collections", "OrderedDict"), b")\x81".to_vec()].concat()), &["NEWOBJ"]),
        (
            "NEWOBJ_EX",
            pickle([global("collections", "OrderedDict"), b")}\x92".to_vec()].concat()),
            &["NEWOBJ_EX"],
        ),
        ("EXT1", pickle(b"\x82\x01".to_vec()), &["EXT1"]),
        ("EXT2", pickle(b"\x83\x01\0".to_vec()), &["EXT2"]),
        ("EXT4", pickle(b"\x84\x01\0\0\0".to_vec()), &["EXT4"]),
        ("PERSID", pickle(b"Pxyz\n".to_vec()), &["PERSID"]),
        ("BINBYTES", pickle(b"B\x01\0\0\0x".to_vec()), &["BINBYTES"]),
        ("LONG4", pickle(b"\x8b\xff\xff\xff\x7f".to_vec()), &["LONG4"]),
        ("BINUNICODE8", pickle([&[0x8d][..], &u64::MAX.to_le_bytes()].concat()), &["BINUNICODE8"]),
        ("dup bomb", dup_bomb, &["DUP"]),
        ("no opcode", pickle(b"\xff".to_vec()), &["0xff"]),
        ("second PROTO", pickle(b"\x80\x02".to_vec()), &["PROTO"]),
        ("BUILD of a dict", pickle(b"}}b".to_vec()), &["setting the state of a dict"]),
        ("BUILD of a tensor", pickle([good(), b"}b".to_vec()].concat()), &["state of a tensor"]),
        (
            "BUILD from a tuple",
            pickle([global("collections", "OrderedDict"), b")R)b".to_vec()].concat()),
            &["from a tuple"],
        ),
    ];
    for (what, pickle, says) in cases {
        refused(what, open_pickle(pickle), says);
    }
}

#[test]
fn pickles_that_are_broken() {
    let od = || global("collections", "OrderedDict");
    let rebuild = |args: &[Vec<u8>]| {
        pickle(dict(&[(
            "w",
            [global("torch._utils", "_rebuild_tensor_v2"), tuple(args), b"R".to_vec()].concat(),
        )]))
    };
    let s = || storage("FloatStorage", "0", 12);
    let hooked = [od(), b")R".to_vec(), text("k"), int(1), b"s".to_vec()].concat();
    let one = || (ints(&[12]), ints(&[1]));
    let weights = |t: Vec<u8>| pickle(dict(&[("w", t)]));
    let persid = |parts: &[Vec<u8>]| pickle([tuple(parts), b"Q".to_vec()].concat());
    let cases: Vec<(&str, Vec<u8>, &[&str])> = vec![
        ("protocol 1", b"\x80\x01.".to_vec(), &["protocol 2 to 5"]),
        ("protocol 6", b"\x80\x06.".to_vec(), &["protocol 2 to 5"]),
        ("text", b"not a pickle".to_vec(), &["protocol 2 to 5"]),
        ("empty", vec![], &["end of the pickle"]),
        ("only a header", b"\x80\x02".to_vec(), &["at byte 2", "end of the pickle"]),
        ("huge string", pickle(b"X\xff\xff\xff\xffx".to_vec()), &["a string of at most", "4294967295"]),
        ("string past the end", pickle(b"X\xff\x00\x00\x00x".to_vec()), &["255 bytes more"]),
        ("string not UTF-8", pickle(b"X\x01\0\0\0\xff".to_vec()), &["UTF-8"]),
        ("LONG1 of 9 bytes", pickle([&[0x8a, 9][..], &[1; 9]].concat()), &["at most 8 bytes"]),
        (
            "frame past the end",
            pickle([&[0x95][..], &u64::MAX.to_le_bytes()].concat()),
            &["a frame of at most 1"],
        ),
        ("global without a line", pickle(b"cos".to_vec()), &["a line"]),
        ("memo not there", pickle(b"h\x07".to_vec()), &["memo", "number 7"]),
        ("empty stack", pickle(b"0".to_vec()), &["POP"]),
        ("TUPLE2 of one", pickle(b"N\x86".to_vec()), &["a value on the stack"]),
        ("TUPLE without a mark", pickle(b"Nt".to_vec()), &["a mark"]),
        ("below the mark", pickle(b"N(\x85".to_vec()), &["above the last mark"]),
        ("APPEND to an int", pickle(b"K\x01Na".to_vec()), &["a list to append to", "an integer"]),
        ("SETITEM of an int", pickle(b"K\x01NNs".to_vec()), &["a dict"]),
        ("SETITEMS, odd", pickle(b"}(Nu".to_vec()), &["pairs"]),
        ("two values at the end", pickle(b"}}".to_vec()), &["an empty stack"]),
        ("a mark at the end", b"\x80\x02(}.".to_vec(), &["empty stack"]),
        ("bytes after the end", b"\x80\x02}.x".to_vec(), &["1 bytes more"]),
        ("no dict", pickle(b"N".to_vec()), &["a dict of tensors", "None"]),
        ("a tensor", pickle(good()), &["a dict of tensors", "a tensor"]),
        ("not a tensor", weights(int(1)), &["an integer under w"]),
        (
            "a key that is no string",
            pickle([b"}".to_vec(), int(1), good(), b"s".to_vec()].concat()),
            &["under an integer"],
        ),
        ("a tensor twice", pickle(dict(&[("w", good()), ("w", good())])), &["w twice"]),
        ("a dict in itself", b"\x80\x02}q\x00X\x05\0\0\0modelh\0s.".to_vec(), &["a dict under model"]),
        (
            "OrderedDict of something",
            pickle([od(), tuple(&[int(1)]), b"R".to_vec()].concat()),
            &["OrderedDict()"],
        ),
        ("arguments in a list", pickle([od(), b"]R".to_vec()].concat()), &["a tuple of arguments"]),
        ("five arguments", rebuild(&[s(), int(0), one().0, one().1, vec![0x89]]), &["_rebuild_tensor_v2("]),
        ("hooks", rebuild(&[s(), int(0), one().0, one().1, vec![0x89], hooked]), &["_rebuild_tensor_v2("]),
        (
            "negative offset",
            rebuild(&[s(), int(-1), one().0, one().1, vec![0x89], b"N".to_vec()]),
            &["_rebuild_tensor_v2("],
        ),
        ("negative size", weights(tensor(s(), 0, &[-1], &[1])), &["_rebuild_tensor_v2("]),
        ("negative stride", weights(tensor(s(), 11, &[12], &[-1])), &["_rebuild_tensor_v2("]),
        ("nine dimensions", weights(tensor(s(), 0, &[1; 9], &[1; 9])), &["_rebuild_tensor_v2("]),
        (
            "no storage",
            rebuild(&[int(0), int(0), one().0, one().1, vec![0x89], b"N".to_vec()]),
            &["_rebuild_tensor_v2("],
        ),
        (
            "parameter of nothing",
            pickle(
                [
                    global("torch._utils", "_rebuild_parameter"),
                    tuple(&[b"N".to_vec(), vec![0x89], b"N".to_vec()]),
                    b"R".to_vec(),
                ]
                .concat(),
            ),
            &["_rebuild_parameter("],
        ),
        ("persistent id", persid(&[text("module"), int(1)]), &["a storage ("]),
        (
            "storage of no type",
            persid(&[text("storage"), text("FloatStorage"), text("0"), text("cpu"), int(12)]),
            &["a storage ("],
        ),
        (
            "storage of -1",
            persid(&[text("storage"), global("torch", "FloatStorage"), text("0"), text("cpu"), int(-1)]),
            &["a storage ("],
        ),
        ("strides missing", weights(tensor(s(), 0, &[3, 4], &[1])), &["tensor w", "2 strides"]),
        ("past the storage", weights(tensor(s(), 1, &[12], &[1])), &["tensor w", "a storage of 12", "[12]"]),
        ("far strides", weights(tensor(s(), 0, &[2, 2], &[i64::MAX, 1])), &["a storage of 12"]),
        ("overflow", weights(tensor(s(), 0, &[i64::MAX, i64::MAX], &[0, 0])), &["64 bits"]),
        (
            "more elements than the storage",
            weights(tensor(s(), 0, &[1 << 40, 1], &[0, 0])),
            &["a storage of 12"],
        ),
        (
            "storage too short",
            weights(tensor(storage("FloatStorage", "0", 13), 0, &[12], &[1])),
            &["13 x 4 bytes", "data/0 of 48"],
        ),
        (
            "storage too long",
            weights(tensor(storage("FloatStorage", "0", 11), 0, &[11], &[1])),
            &["11 x 4 bytes"],
        ),
        (
            "storage overflow",
            weights(tensor(storage("DoubleStorage", "0", i64::MAX), 0, &[1], &[1])),
            &["x 8 bytes"],
        ),
        (
            "no member",
            weights(tensor(storage("FloatStorage", "1", 12), 0, &[12], &[1])),
            &["member below data/", "found 1"],
        ),
        (
            "key upwards",
            weights(tensor(storage("FloatStorage", "../data.pkl", 12), 0, &[12], &[1])),
            &["member below data/"],
        ),
        (
            "empty key",
            weights(tensor(storage("FloatStorage", "", 12), 0, &[12], &[1])),
            &["member below data/"],
        ),
    ];
    for (what, pickle, says) in cases {
        refused(what, open_pickle(pickle), says);
    }
    let whole = weights(good());
    for n in 0..whole.len() {
        refused(&format!("the first {n} bytes"), open_pickle(whole[..n].to_vec()), &["data.pkl", "at byte"]);
    }
}

/// Tuples of tuples by memo: 2^200 leaves if anyone walked them, 400 opcodes here. And depth that recursion
/// would not survive.
#[test]
fn pickle_bombs_cost_nothing() {
    let laughs = [b"]q\x00".to_vec(), b"h\x00\x86q\x00".repeat(200)].concat();
    refused("laughs", open_pickle(pickle(dict(&[("w", laughs)]))), &["a tuple under w"]);
    refused(
        "depth",
        open_pickle(pickle([b")".to_vec(), vec![0x85; 400_000]].concat())),
        &["a dict of tensors", "a tuple"],
    );
    refused(
        "objects",
        open_pickle(pickle([b")".to_vec(), vec![0x85; 600_000]].concat())),
        &["at most 524288 objects"],
    );
    refused("stack", open_pickle(pickle(vec![b'N'; 70_000])), &["a stack of at most 65536"]);
    refused("marks", open_pickle(pickle(vec![b'('; 70_000])), &["at most 65536 marks"]);
    refused(
        "opcodes",
        open_pickle(pickle([b"]".to_vec(), b"Na".repeat(2_200_000)].concat())),
        &["at most 4194304 opcodes"],
    );
    let memo = (0..600_000u32).flat_map(|i| [&b"r"[..], &i.to_le_bytes()].concat());
    refused(
        "memo",
        open_pickle(pickle([b"N".to_vec(), memo.collect()].concat())),
        &["a memo of at most 524288"],
    );
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

/// Pickles that run `touch MARK` where Python's `pickle.loads` reads them (all that end in a call were tried
/// with Python
/// 3.11), each with the place where this reader stops: before the call, and so before anything that follows.
#[test]
fn malicious_pickles_run_nothing() {
    let dir = tempfile::tempdir().unwrap();
    let mark = dir.path().join("mark");
    let command = text(&format!("touch {}", mark.display()));
    let after = |prefix: &[Vec<u8>]| 2 + prefix.concat().len();
    let put = |n: u8| vec![b'q', n];
    let get = |n: u8| vec![b'h', n];
    let call = || [command.clone(), b"\x85R".to_vec()].concat();
    let stack_global = vec![0x93];
    let od = || global("collections", "OrderedDict");
    // (what, everything up to the opcode that names the function, the rest, the name)
    type Opcodes = Vec<Vec<u8>>;
    let cases: Vec<(&str, Opcodes, Opcodes, &str)> = vec![
        ("REDUCE", vec![], vec![global("os", "system"), call()], "os.system"),
        ("as os is called inside", vec![], vec![global("posix", "system"), call()], "posix.system"),
        (
            "between tensors",
            vec![b"}".to_vec(), text("w"), good(), b"s".to_vec(), text("x")],
            vec![global("os", "system"), call(), b"s".to_vec()],
            "os.system",
        ),
        (
            "and thrown away",
            vec![b"}".to_vec()],
            vec![global("os", "system"), call(), b"0".to_vec()],
            "os.system",
        ),
        // A module reached through a harmless one.
        (
            "a nested module",
            vec![],
            vec![global("torch._utils", "sys.modules"), b"0".to_vec()],
            "torch._utils.sys.modules",
        ),
        (
            "a nested module by STACK_GLOBAL",
            vec![text("torch.serialization"), text("os.system")],
            vec![stack_global.clone(), call()],
            "torch.serialization.os.system",
        ),
        ("a function that gives functions", vec![], vec![global("builtins", "getattr")], "builtins.getattr"),
        // The harmless name is memorised, the other is put under its number, and the number is called.
        (
            "a memo written over",
            vec![od(), put(0), b")R".to_vec()],
            vec![global("os", "system"), put(0), get(0), call()],
            "os.system",
        ),
        // The name is never in one piece in the file: module and function come out of the memo.
        (
            "names out of the memo",
            vec![b"}".to_vec(), text("os"), put(1), text("system"), put(2), b"s".to_vec(), get(1), get(2)],
            vec![stack_global.clone(), call(), b"0".to_vec()],
            "os.system",
        ),
        ("INST", vec![b"(".to_vec(), command.clone()], vec![b"ios\nsystem\n".to_vec()], "opcode INST"),
        (
            "OBJ",
            vec![b"(".to_vec()],
            vec![global("os", "system"), command.clone(), b"o".to_vec()],
            "os.system",
        ),
    ];
    for (what, before, rest, name) in cases {
        let at = after(&before);
        let whole = pickle([before.concat(), rest.concat()].concat());
        refused(what, open_pickle(whole), &["a/data.pkl", &format!("refused at byte {at}:"), name]);
    }
    assert!(!mark.exists());
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
        refused("cut", huozi_convert::source::Checkpoint::open(dir.path()), &["is the file complete?"]);
    }
}
