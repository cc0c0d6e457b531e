//! Metadata: typed values in the file's own bytes.
//!
//! A value is found by its key and decoded where it lies; an array is walked in place. The bytes were
//! validated when the file was opened, but a mapped file may be changed by others since, so every length is
//! taken with a check here too: bytes that no longer make sense give empty strings and zeros, never a panic.

use std::ops::Range;

use super::{Error, Place, Rule, limits, shown};

/// The type of a metadata value, with GGUF's number of it.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
#[repr(u32)]
pub enum ValueType {
    /// 8 bits, unsigned.
    U8 = 0,
    /// 8 bits, signed.
    I8 = 1,
    /// 16 bits, unsigned.
    U16 = 2,
    /// 16 bits, signed.
    I16 = 3,
    /// 32 bits, unsigned.
    U32 = 4,
    /// 32 bits, signed.
    I32 = 5,
    /// IEEE single.
    F32 = 6,
    /// One byte, 0 or 1.
    Bool = 7,
    /// UTF-8 with a length of 64 bits.
    Str = 8,
    /// Values of one type.
    Array = 9,
    /// 64 bits, unsigned.
    U64 = 10,
    /// 64 bits, signed.
    I64 = 11,
    /// IEEE double.
    F64 = 12,
}

impl ValueType {
    /// Every type, in the order of GGUF's numbers.
    pub const ALL: [ValueType; 13] = [
        Self::U8,
        Self::I8,
        Self::U16,
        Self::I16,
        Self::U32,
        Self::I32,
        Self::F32,
        Self::Bool,
        Self::Str,
        Self::Array,
        Self::U64,
        Self::I64,
        Self::F64,
    ];

    /// The type with GGUF's number `id`.
    pub fn from_id(id: u32) -> Option<ValueType> {
        Self::ALL.get(usize::try_from(id).ok()?).copied()
    }

    /// GGUF's number.
    pub const fn id(self) -> u32 {
        self as u32
    }

    /// The name as GGUF's tools print it, e.g. `UINT32`.
    pub const fn name(self) -> &'static str {
        match self {
            Self::U8 => "UINT8",
            Self::I8 => "INT8",
            Self::U16 => "UINT16",
            Self::I16 => "INT16",
            Self::U32 => "UINT32",
            Self::I32 => "INT32",
            Self::F32 => "FLOAT32",
            Self::Bool => "BOOL",
            Self::Str => "STRING",
            Self::Array => "ARRAY",
            Self::U64 => "UINT64",
            Self::I64 => "INT64",
            Self::F64 => "FLOAT64",
        }
    }

    /// Bytes of a value of fixed size; `None` for strings and arrays.
    pub const fn fixed_bytes(self) -> Option<usize> {
        match self {
            Self::U8 | Self::I8 | Self::Bool => Some(1),
            Self::U16 | Self::I16 => Some(2),
            Self::U32 | Self::I32 | Self::F32 => Some(4),
            Self::U64 | Self::I64 | Self::F64 => Some(8),
            Self::Str | Self::Array => None,
        }
    }

    /// The fewest bytes a value can have: an empty string is its length, an empty array its type and length.
    pub(super) const fn min_bytes(self) -> u64 {
        match self {
            Self::Str => 8,
            Self::Array => 12,
            _ => match self.fixed_bytes() {
                Some(n) => n as u64,
                None => unreachable!(),
            },
        }
    }
}

impl std::fmt::Display for ValueType {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.pad(self.name())
    }
}

/// A metadata value where it lies in the file.
#[derive(Clone, Copy, Debug)]
#[allow(missing_docs, reason = "each is the value of the type it is named for")]
pub enum Value<'a> {
    U8(u8),
    I8(i8),
    U16(u16),
    I16(i16),
    U32(u32),
    I32(i32),
    F32(f32),
    Bool(bool),
    Str(&'a str),
    Array(Array<'a>),
    U64(u64),
    I64(i64),
    F64(f64),
}

impl Value<'_> {
    /// Its type.
    pub const fn value_type(&self) -> ValueType {
        match self {
            Value::U8(_) => ValueType::U8,
            Value::I8(_) => ValueType::I8,
            Value::U16(_) => ValueType::U16,
            Value::I16(_) => ValueType::I16,
            Value::U32(_) => ValueType::U32,
            Value::I32(_) => ValueType::I32,
            Value::F32(_) => ValueType::F32,
            Value::Bool(_) => ValueType::Bool,
            Value::Str(_) => ValueType::Str,
            Value::Array(_) => ValueType::Array,
            Value::U64(_) => ValueType::U64,
            Value::I64(_) => ValueType::I64,
            Value::F64(_) => ValueType::F64,
        }
    }

    /// For messages: type and value, e.g. `the INT32 -1`.
    pub(super) fn describe(&self) -> String {
        match self {
            Value::Str(s) => format!("the STRING {}", shown(s)),
            Value::Array(a) => format!("an array of {} {}", a.len(), a.element_type()),
            Value::U8(x) => format!("the UINT8 {x}"),
            Value::I8(x) => format!("the INT8 {x}"),
            Value::U16(x) => format!("the UINT16 {x}"),
            Value::I16(x) => format!("the INT16 {x}"),
            Value::U32(x) => format!("the UINT32 {x}"),
            Value::I32(x) => format!("the INT32 {x}"),
            Value::F32(x) => format!("the FLOAT32 {x}"),
            Value::Bool(x) => format!("the BOOL {x}"),
            Value::U64(x) => format!("the UINT64 {x}"),
            Value::I64(x) => format!("the INT64 {x}"),
            Value::F64(x) => format!("the FLOAT64 {x}"),
        }
    }
}

/// An array of values of one type, in the file's bytes.
#[derive(Clone, Copy)]
pub struct Array<'a> {
    of: ValueType,
    len: usize,
    body: &'a [u8],
}

impl<'a> Array<'a> {
    /// The type of its elements.
    pub const fn element_type(&self) -> ValueType {
        self.of
    }

    /// The number of elements.
    pub const fn len(&self) -> usize {
        self.len
    }

    /// Whether there are none.
    pub const fn is_empty(&self) -> bool {
        self.len == 0
    }

    /// The elements in order.
    pub fn iter(&self) -> Values<'a> {
        Values { of: self.of, left: self.len, rest: self.body }
    }
}

impl<'a> IntoIterator for Array<'a> {
    type Item = Value<'a>;
    type IntoIter = Values<'a>;

    fn into_iter(self) -> Values<'a> {
        self.iter()
    }
}

impl std::fmt::Debug for Array<'_> {
    /// Type and length only: a vocabulary has 250,000 elements.
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "[{}; {}]", self.of, self.len)
    }
}

/// The elements of an [`Array`] in order.
#[derive(Clone)]
pub struct Values<'a> {
    of: ValueType,
    left: usize,
    rest: &'a [u8],
}

impl<'a> Iterator for Values<'a> {
    type Item = Value<'a>;

    fn next(&mut self) -> Option<Value<'a>> {
        self.left = self.left.checked_sub(1)?;
        Some(take_value(self.of, &mut self.rest))
    }

    fn size_hint(&self) -> (usize, Option<usize>) {
        (self.left, Some(self.left))
    }
}

impl ExactSizeIterator for Values<'_> {}

/// An array of strings, walked in place: no allocation per string.
#[derive(Clone)]
pub struct Strings<'a>(Values<'a>);

impl<'a> Strings<'a> {
    /// The number of strings.
    pub fn len(&self) -> usize {
        self.0.left
    }

    /// Whether there are none.
    pub fn is_empty(&self) -> bool {
        self.0.left == 0
    }

    /// The strings in order.
    pub fn iter(&self) -> impl ExactSizeIterator<Item = &'a str> + Clone + use<'a> {
        self.0.clone().map(|v| match v {
            Value::Str(s) => s,
            _ => "",
        })
    }
}

impl std::fmt::Debug for Strings<'_> {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "[STRING; {}]", self.len())
    }
}

/// An array of integers of any type whose values all fit `i64`, walked in place.
#[derive(Clone)]
pub struct Ints<'a>(Values<'a>);

impl<'a> Ints<'a> {
    /// The number of integers.
    pub fn len(&self) -> usize {
        self.0.left
    }

    /// Whether there are none.
    pub fn is_empty(&self) -> bool {
        self.0.left == 0
    }

    /// The integers in order.
    pub fn iter(&self) -> impl ExactSizeIterator<Item = i64> + Clone + use<'a> {
        self.0.clone().map(|v| integer(&v).and_then(|x| i64::try_from(x).ok()).unwrap_or(0))
    }
}

impl std::fmt::Debug for Ints<'_> {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "[{}; {}]", self.0.of, self.len())
    }
}

/// The value of any integer type.
fn integer(value: &Value<'_>) -> Option<i128> {
    Some(match *value {
        Value::U8(x) => x.into(),
        Value::I8(x) => x.into(),
        Value::U16(x) => x.into(),
        Value::I16(x) => x.into(),
        Value::U32(x) => x.into(),
        Value::I32(x) => x.into(),
        Value::U64(x) => x.into(),
        Value::I64(x) => x.into(),
        _ => return None,
    })
}

/// The first `N` bytes; zeros, and nothing left, when there are fewer.
fn take<const N: usize>(rest: &mut &[u8]) -> [u8; N] {
    match rest.split_first_chunk() {
        Some((first, after)) => {
            *rest = after;
            *first
        }
        None => {
            *rest = &[];
            [0; N]
        }
    }
}

/// The first `n` bytes; all of them when there are fewer.
fn take_slice<'a>(rest: &mut &'a [u8], n: u64) -> &'a [u8] {
    let n = usize::try_from(n).unwrap_or(usize::MAX).min(rest.len());
    let (first, after) = rest.split_at(n);
    *rest = after;
    first
}

/// Decodes the value at the start of `rest` and steps over it.
fn take_value<'a>(of: ValueType, rest: &mut &'a [u8]) -> Value<'a> {
    match of {
        ValueType::U8 => Value::U8(u8::from_le_bytes(take(rest))),
        ValueType::I8 => Value::I8(i8::from_le_bytes(take(rest))),
        ValueType::U16 => Value::U16(u16::from_le_bytes(take(rest))),
        ValueType::I16 => Value::I16(i16::from_le_bytes(take(rest))),
        ValueType::U32 => Value::U32(u32::from_le_bytes(take(rest))),
        ValueType::I32 => Value::I32(i32::from_le_bytes(take(rest))),
        ValueType::F32 => Value::F32(f32::from_le_bytes(take(rest))),
        ValueType::U64 => Value::U64(u64::from_le_bytes(take(rest))),
        ValueType::I64 => Value::I64(i64::from_le_bytes(take(rest))),
        ValueType::F64 => Value::F64(f64::from_le_bytes(take(rest))),
        ValueType::Bool => Value::Bool(take::<1>(rest) != [0]),
        ValueType::Str => {
            let len = u64::from_le_bytes(take(rest));
            Value::Str(std::str::from_utf8(take_slice(rest, len)).unwrap_or(""))
        }
        ValueType::Array => {
            let of = ValueType::from_id(u32::from_le_bytes(take(rest)));
            let len = u64::from_le_bytes(take(rest));
            let whole = of.and_then(|of| {
                let len = usize::try_from(len).ok()?;
                Some((of, len, body_bytes(of, len, rest, limits::MAX_ARRAY_DEPTH)?))
            });
            let (of, len, bytes) = whole.unwrap_or((ValueType::U8, 0, 0));
            Value::Array(Array { of, len, body: take_slice(rest, bytes as u64) })
        }
    }
}

/// Bytes of `len` elements at the start of `bytes`; `None` when they are not there.
fn body_bytes(of: ValueType, len: usize, bytes: &[u8], depth: usize) -> Option<usize> {
    if let Some(size) = of.fixed_bytes() {
        return len.checked_mul(size).filter(|&n| n <= bytes.len());
    }
    let mut rest = bytes;
    for _ in 0..len {
        let n = if of == ValueType::Str {
            let (n, after) = rest.split_first_chunk()?;
            rest = after;
            usize::try_from(u64::from_le_bytes(*n)).ok()?
        } else {
            let ((inner, n), depth) = ((take(&mut rest), rest.split_first_chunk()?), depth.checked_sub(1)?);
            rest = n.1;
            let inner = ValueType::from_id(u32::from_le_bytes(inner))?;
            body_bytes(inner, usize::try_from(u64::from_le_bytes(*n.0)).ok()?, rest, depth)?
        };
        rest = rest.get(n..)?;
    }
    Some(bytes.len() - rest.len())
}

/// Where a value lies.
#[derive(Clone, Debug)]
pub(super) enum Held {
    /// A scalar or string.
    One(ValueType, Range<usize>),
    /// An array: element type, length, where the elements lie.
    Many(ValueType, usize, Range<usize>),
}

/// A metadata entry: the key, and where the value lies.
#[derive(Clone, Debug)]
pub(super) struct Entry {
    pub key: String,
    pub held: Held,
}

/// The metadata of a file.
#[derive(Debug, Default)]
pub(super) struct Table {
    /// In file order.
    pub entries: Vec<Entry>,
    /// Indices of `entries`, sorted by key.
    pub by_key: Vec<u32>,
}

/// The metadata of an open file.
#[derive(Clone, Copy)]
pub struct Meta<'a> {
    file: &'a str,
    bytes: &'a [u8],
    table: &'a Table,
}

impl<'a> Meta<'a> {
    pub(super) fn new(file: &'a str, bytes: &'a [u8], table: &'a Table) -> Self {
        Meta { file, bytes, table }
    }

    fn value(&self, entry: &'a Entry) -> Value<'a> {
        let at = |range: &Range<usize>| self.bytes.get(range.clone()).unwrap_or_default();
        match &entry.held {
            Held::One(of, range) => take_value(*of, &mut at(range)),
            Held::Many(of, len, range) => Value::Array(Array { of: *of, len: *len, body: at(range) }),
        }
    }

    /// The number of entries.
    pub fn len(&self) -> usize {
        self.table.entries.len()
    }

    /// Whether there are none.
    pub fn is_empty(&self) -> bool {
        self.table.entries.is_empty()
    }

    /// Keys and values in file order.
    pub fn iter(&self) -> impl ExactSizeIterator<Item = (&'a str, Value<'a>)> + use<'a> {
        let meta = *self;
        self.table.entries.iter().map(move |entry| (entry.key.as_str(), meta.value(entry)))
    }

    /// The value of `key`.
    pub fn get(&self, key: &str) -> Option<Value<'a>> {
        let entries = &self.table.entries;
        let at = self.table.by_key.binary_search_by(|&i| entries[i as usize].key.as_str().cmp(key)).ok()?;
        Some(self.value(&entries[self.table.by_key[at] as usize]))
    }

    /// The string under `key`; `None` when the key is absent.
    ///
    /// # Errors
    /// [`Rule::WrongType`] for a value of another type.
    pub fn str(&self, key: &str) -> Result<Option<&'a str>, Error> {
        self.typed(key, "a string", |v| match v {
            Value::Str(s) => Some(s),
            _ => None,
        })
    }

    /// The integer under `key`, of any integer type; `None` when the key is absent.
    ///
    /// # Errors
    /// [`Rule::WrongType`] for a value of another type, or a negative one.
    pub fn uint(&self, key: &str) -> Result<Option<u64>, Error> {
        self.typed(key, "an integer of at least 0", |v| integer(&v).and_then(|x| u64::try_from(x).ok()))
    }

    /// The number under `key`, `FLOAT32` or `FLOAT64`; `None` when the key is absent.
    ///
    /// # Errors
    /// [`Rule::WrongType`] for a value of another type.
    pub fn float(&self, key: &str) -> Result<Option<f64>, Error> {
        self.typed(key, "a floating-point number", |v| match v {
            Value::F32(x) => Some(x.into()),
            Value::F64(x) => Some(x),
            _ => None,
        })
    }

    /// The truth value under `key`; `None` when the key is absent.
    ///
    /// # Errors
    /// [`Rule::WrongType`] for a value of another type.
    pub fn bool(&self, key: &str) -> Result<Option<bool>, Error> {
        self.typed(key, "a BOOL", |v| match v {
            Value::Bool(x) => Some(x),
            _ => None,
        })
    }

    /// The array of strings under `key`; `None` when the key is absent.
    ///
    /// # Errors
    /// [`Rule::WrongType`] for a value of another type.
    pub fn strings(&self, key: &str) -> Result<Option<Strings<'a>>, Error> {
        self.typed(key, "an array of STRING", |v| match v {
            Value::Array(a) if a.of == ValueType::Str => Some(Strings(a.iter())),
            _ => None,
        })
    }

    /// The array of integers under `key`, of any integer type; `None` when the key is absent.
    ///
    /// # Errors
    /// [`Rule::WrongType`] for a value of another type, or an element above `i64::MAX`.
    pub fn ints(&self, key: &str) -> Result<Option<Ints<'a>>, Error> {
        use ValueType::{I8, I16, I32, I64, U8, U16, U32, U64};
        self.typed(key, "an array of integers below 2^63", |v| match v {
            Value::Array(a) => {
                let fits = |v: Value<'_>| integer(&v).is_some_and(|x| i64::try_from(x).is_ok());
                let integers = match a.of {
                    U8 | I8 | U16 | I16 | U32 | I32 | I64 => true,
                    U64 => a.iter().all(fits),
                    _ => false,
                };
                integers.then(|| Ints(a.iter()))
            }
            _ => None,
        })
    }

    fn typed<T>(
        &self,
        key: &str,
        expected: &str,
        get: impl FnOnce(Value<'a>) -> Option<T>,
    ) -> Result<Option<T>, Error> {
        let Some(value) = self.get(key) else { return Ok(None) };
        match get(value) {
            Some(x) => Ok(Some(x)),
            None => Err(self.error(Rule::WrongType, key, expected, &value.describe())),
        }
    }

    /// The error for a value that has the right type and makes no sense, for code that knows what `key`
    /// means.
    pub fn refuse(&self, key: &str, expected: impl Into<String>, found: impl Into<String>) -> Error {
        self.error(Rule::Value, key, &expected.into(), &found.into())
    }

    /// The error for an absent `key`; `expected` says what it should hold.
    pub fn missing(&self, key: &str, expected: impl Into<String>) -> Error {
        self.error(Rule::Missing, key, &expected.into(), "no such key")
    }

    pub(super) fn error(&self, rule: Rule, key: &str, expected: &str, found: &str) -> Error {
        Error::malformed(rule, self.file, Place::Key(key.to_owned()), None, expected, found)
    }
}

impl std::fmt::Debug for Meta<'_> {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_map().entries(self.iter()).finish()
    }
}
