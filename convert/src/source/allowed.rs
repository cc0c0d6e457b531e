//! What a pickle may name: the globals that describe tensors. And the names of the opcodes that are refused.

/// The element types of `torch.*Storage`: name, type, bytes of an element.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct StorageKind {
    pub class: &'static str,
    pub dtype: &'static str,
    pub bytes: u64,
}

const KINDS: [StorageKind; 10] = {
    const fn kind(class: &'static str, dtype: &'static str, bytes: u64) -> StorageKind {
        StorageKind { class, dtype, bytes }
    }
    [
        kind("FloatStorage", "F32", 4),
        kind("HalfStorage", "F16", 2),
        kind("BFloat16Storage", "BF16", 2),
        // Listed, not readable: position ids, masks.
        kind("DoubleStorage", "F64", 8),
        kind("LongStorage", "I64", 8),
        kind("IntStorage", "I32", 4),
        kind("ShortStorage", "I16", 2),
        kind("CharStorage", "I8", 1),
        kind("ByteStorage", "U8", 1),
        kind("BoolStorage", "BOOL", 1),
    ]
};

/// What a global may be.
#[derive(Clone, Copy, Debug, PartialEq)]
pub(super) enum Global {
    OrderedDict,
    RebuildTensor,
    RebuildParameter,
    Storage(StorageKind),
    /// `torch.Size`, which trainers keep beside the tensors.
    Size,
    /// `torch.device`, the same.
    Device,
    /// `torch.float16` and the like, the same.
    Dtype,
}

/// Types of numbers that a pickle may name.
const DTYPES: [&str; 10] =
    ["bfloat16", "bool", "float16", "float32", "float64", "int16", "int32", "int64", "int8", "uint8"];

impl Global {
    /// The global, if it is one of these.
    pub(super) fn find(module: &str, name: &str) -> Option<Self> {
        match (module, name) {
            ("collections", "OrderedDict") => Some(Global::OrderedDict),
            ("torch._utils", "_rebuild_tensor_v2") => Some(Global::RebuildTensor),
            ("torch._utils", "_rebuild_parameter") => Some(Global::RebuildParameter),
            ("torch", "Size") => Some(Global::Size),
            ("torch", "device") => Some(Global::Device),
            ("torch", name) if DTYPES.contains(&name) => Some(Global::Dtype),
            ("torch", class) => KINDS.iter().find(|k| k.class == class).map(|&k| Global::Storage(k)),
            _ => None,
        }
    }
}

/// The name of an opcode that is not carried out, as Python's `pickletools` writes it.
pub(super) fn opcode_name(op: u8) -> String {
    let name = match op {
        b'0' => "POP",
        b'1' => "POP_MARK",
        b'2' => "DUP",
        b'F' => "FLOAT",
        b'I' => "INT",
        b'L' => "LONG",
        b'P' => "PERSID",
        b'S' => "STRING",
        b'T' => "BINSTRING",
        b'U' => "SHORT_BINSTRING",
        b'V' => "UNICODE",
        b'B' => "BINBYTES",
        b'C' => "SHORT_BINBYTES",
        b'd' => "DICT",
        b'g' => "GET",
        b'i' => "INST",
        b'l' => "LIST",
        b'o' => "OBJ",
        b'p' => "PUT",
        0x80 => "PROTO",
        0x81 => "NEWOBJ",
        0x82 => "EXT1",
        0x83 => "EXT2",
        0x84 => "EXT4",
        0x8b => "LONG4",
        0x8d => "BINUNICODE8",
        0x8e => "BINBYTES8",
        0x8f => "EMPTY_SET",
        0x90 => "ADDITEMS",
        0x91 => "FROZENSET",
        0x92 => "NEWOBJ_EX",
        0x96 => "BYTEARRAY8",
        0x97 => "NEXT_BUFFER",
        0x98 => "READONLY_BUFFER",
        _ => return format!("{op:#04x}, which no pickle has"),
    };
    name.into()
}
