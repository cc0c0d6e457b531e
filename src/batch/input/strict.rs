//! JSON without what readers understand in different ways: two values of one name in an object. Lone
//! surrogates, NaN, numbers beyond what a float holds and deep nesting are refused by `serde_json` itself.

use serde::de::{self, DeserializeSeed, Deserializer, MapAccess, SeqAccess, Visitor};
use serde_json::{Map, Value};
use std::cell::Cell;
use std::fmt;

/// Most values in one record: they take far more memory than their text.
const MAX_VALUES: usize = 1 << 20;

/// The value that `text` is.
///
/// # Errors
/// What is wrong, and in which column.
pub(super) fn read(text: &str) -> Result<Value, String> {
    let left = Cell::new(MAX_VALUES);
    let mut from = serde_json::Deserializer::from_str(text);
    let value = Strict { left: &left }.deserialize(&mut from).and_then(|value| {
        from.end()?;
        Ok(value)
    });
    value.map_err(|error| {
        let told = error.to_string();
        // A record of JSON lines is one line.
        let what = told.rsplit_once(" at line ").map_or(told.as_str(), |(what, _)| what);
        let what = match what {
            "unexpected end of hex escape" | "lone leading surrogate in hex escape" => {
                "a \\u escape that is cut off or half of a surrogate pair"
            }
            what => what,
        };
        format!("{what} (at byte {} of the line)", error.column())
    })
}

#[derive(Clone, Copy)]
struct Strict<'c> {
    left: &'c Cell<usize>,
}

impl<'de> DeserializeSeed<'de> for Strict<'_> {
    type Value = Value;

    fn deserialize<D: Deserializer<'de>>(self, from: D) -> Result<Value, D::Error> {
        match self.left.get().checked_sub(1) {
            Some(left) => self.left.set(left),
            None => return Err(de::Error::custom(format_args!("more than {MAX_VALUES} values"))),
        }
        from.deserialize_any(self)
    }
}

impl<'de> Visitor<'de> for Strict<'_> {
    type Value = Value;

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("a JSON value")
    }

    fn visit_bool<E>(self, value: bool) -> Result<Value, E> {
        Ok(value.into())
    }

    fn visit_i64<E>(self, value: i64) -> Result<Value, E> {
        Ok(value.into())
    }

    fn visit_u64<E>(self, value: u64) -> Result<Value, E> {
        Ok(value.into())
    }

    fn visit_f64<E>(self, value: f64) -> Result<Value, E> {
        Ok(value.into())
    }

    fn visit_str<E>(self, value: &str) -> Result<Value, E> {
        Ok(value.into())
    }

    fn visit_string<E>(self, value: String) -> Result<Value, E> {
        Ok(value.into())
    }

    fn visit_unit<E>(self) -> Result<Value, E> {
        Ok(Value::Null)
    }

    fn visit_seq<A: SeqAccess<'de>>(self, mut items: A) -> Result<Value, A::Error> {
        let mut values = Vec::new();
        while let Some(value) = items.next_element_seed(self)? {
            values.push(value);
        }
        Ok(values.into())
    }

    fn visit_map<A: MapAccess<'de>>(self, mut items: A) -> Result<Value, A::Error> {
        let mut values = Map::new();
        while let Some(name) = items.next_key::<String>()? {
            if values.contains_key(&name) {
                return Err(de::Error::custom(format_args!("{name:?} is there twice")));
            }
            let value = items.next_value_seed(self)?;
            values.insert(name, value);
        }
        Ok(values.into())
    }
}
