//! Pickles that are hostile or broken: each is refused with the place, and nothing of it is carried out.

use super::source_hostile::good;
use crate::source_support::*;

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

/// Pickles that run `touch MARK` where Python's `pickle.loads` reads them (all that end in a call were
/// tried with Python 3.11), each with the place where this reader stops: before the call, and so before
/// anything that follows.
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
