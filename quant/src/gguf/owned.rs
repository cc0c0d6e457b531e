//! Owned metadata values, and their bytes in a file.

use super::{Array, Value, ValueType};

/// An owned metadata value, for writing.
#[derive(Clone, Debug, PartialEq)]
#[allow(missing_docs, reason = "each is the value, or the array of values, of the type it is named for")]
pub enum MetaValue {
    U8(u8),
    I8(i8),
    U16(u16),
    I16(i16),
    U32(u32),
    I32(i32),
    F32(f32),
    Bool(bool),
    Str(String),
    U64(u64),
    I64(i64),
    F64(f64),
    U8s(Vec<u8>),
    I8s(Vec<i8>),
    U16s(Vec<u16>),
    I16s(Vec<i16>),
    U32s(Vec<u32>),
    I32s(Vec<i32>),
    F32s(Vec<f32>),
    Bools(Vec<bool>),
    Strings(Vec<String>),
    U64s(Vec<u64>),
    I64s(Vec<i64>),
    F64s(Vec<f64>),
    /// An array of arrays: every element must itself be one of the array variants.
    Arrays(Vec<MetaValue>),
}

impl From<Value<'_>> for MetaValue {
    fn from(value: Value<'_>) -> MetaValue {
        /// The elements that `get` knows: all of them, the array being of that type.
        fn all<'a, T>(array: Array<'a>, get: impl Fn(Value<'a>) -> Option<T>) -> Vec<T> {
            array.iter().filter_map(get).collect()
        }
        macro_rules! array {
            ($array:ident, $($of:ident => $many:ident,)*) => {
                match $array.element_type() {
                    $(
                        ValueType::$of => MetaValue::$many(all($array, |v| match v {
                            Value::$of(x) => Some(x),
                            _ => None,
                        })),
                    )*
                    ValueType::Str => MetaValue::Strings(all($array, |v| match v {
                        Value::Str(x) => Some(x.to_owned()),
                        _ => None,
                    })),
                    ValueType::Array => MetaValue::Arrays(all($array, |v| Some(v.into()))),
                }
            };
        }
        match value {
            Value::U8(x) => MetaValue::U8(x),
            Value::I8(x) => MetaValue::I8(x),
            Value::U16(x) => MetaValue::U16(x),
            Value::I16(x) => MetaValue::I16(x),
            Value::U32(x) => MetaValue::U32(x),
            Value::I32(x) => MetaValue::I32(x),
            Value::F32(x) => MetaValue::F32(x),
            Value::Bool(x) => MetaValue::Bool(x),
            Value::Str(x) => MetaValue::Str(x.to_owned()),
            Value::U64(x) => MetaValue::U64(x),
            Value::I64(x) => MetaValue::I64(x),
            Value::F64(x) => MetaValue::F64(x),
            Value::Array(a) => array! {
                a, U8 => U8s, I8 => I8s, U16 => U16s, I16 => I16s, U32 => U32s, I32 => I32s,
                F32 => F32s, Bool => Bools, U64 => U64s, I64 => I64s, F64 => F64s,
            },
        }
    }
}

impl MetaValue {
    /// Its type; [`ValueType::Array`] for every kind of array.
    pub const fn value_type(&self) -> ValueType {
        match self {
            Self::U8(_) => ValueType::U8,
            Self::I8(_) => ValueType::I8,
            Self::U16(_) => ValueType::U16,
            Self::I16(_) => ValueType::I16,
            Self::U32(_) => ValueType::U32,
            Self::I32(_) => ValueType::I32,
            Self::F32(_) => ValueType::F32,
            Self::Bool(_) => ValueType::Bool,
            Self::Str(_) => ValueType::Str,
            Self::U64(_) => ValueType::U64,
            Self::I64(_) => ValueType::I64,
            Self::F64(_) => ValueType::F64,
            _ => ValueType::Array,
        }
    }

    /// Appends the value as it lies in a file. `Err`: the type of an element of [`Arrays`](Self::Arrays) that
    /// is no array.
    pub(super) fn encode(&self, out: &mut Vec<u8>) -> Result<(), ValueType> {
        fn head(of: ValueType, len: usize, out: &mut Vec<u8>) {
            out.extend(of.id().to_le_bytes());
            out.extend((len as u64).to_le_bytes());
        }
        macro_rules! numbers {
            ($of:ident, $values:ident) => {{
                head(ValueType::$of, $values.len(), out);
                $values.iter().for_each(|x| out.extend(x.to_le_bytes()));
            }};
        }
        match self {
            Self::U8(x) => out.extend(x.to_le_bytes()),
            Self::I8(x) => out.extend(x.to_le_bytes()),
            Self::U16(x) => out.extend(x.to_le_bytes()),
            Self::I16(x) => out.extend(x.to_le_bytes()),
            Self::U32(x) => out.extend(x.to_le_bytes()),
            Self::I32(x) => out.extend(x.to_le_bytes()),
            Self::F32(x) => out.extend(x.to_le_bytes()),
            Self::Bool(x) => out.push(u8::from(*x)),
            Self::Str(x) => encode_string(x, out),
            Self::U64(x) => out.extend(x.to_le_bytes()),
            Self::I64(x) => out.extend(x.to_le_bytes()),
            Self::F64(x) => out.extend(x.to_le_bytes()),
            Self::U8s(x) => numbers!(U8, x),
            Self::I8s(x) => numbers!(I8, x),
            Self::U16s(x) => numbers!(U16, x),
            Self::I16s(x) => numbers!(I16, x),
            Self::U32s(x) => numbers!(U32, x),
            Self::I32s(x) => numbers!(I32, x),
            Self::F32s(x) => numbers!(F32, x),
            Self::U64s(x) => numbers!(U64, x),
            Self::I64s(x) => numbers!(I64, x),
            Self::F64s(x) => numbers!(F64, x),
            Self::Bools(x) => {
                head(ValueType::Bool, x.len(), out);
                out.extend(x.iter().map(|&b| u8::from(b)));
            }
            Self::Strings(x) => {
                head(ValueType::Str, x.len(), out);
                x.iter().for_each(|s| encode_string(s, out));
            }
            Self::Arrays(x) => {
                head(ValueType::Array, x.len(), out);
                for inner in x {
                    match inner.value_type() {
                        ValueType::Array => inner.encode(out)?,
                        other => return Err(other),
                    }
                }
            }
        }
        Ok(())
    }
}

/// Appends length and bytes.
pub(super) fn encode_string(s: &str, out: &mut Vec<u8>) {
    out.extend((s.len() as u64).to_le_bytes());
    out.extend(s.as_bytes());
}
