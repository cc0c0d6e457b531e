//! The values that a pickle can build: numbers into one list of nodes, so that sharing costs nothing, a cycle
//! is harmless, and dropping does not recurse.

use super::allowed::{Global, StorageKind};

/// A tensor as the pickle describes it. Nothing is checked against the archive yet.
#[derive(Clone, Debug, PartialEq)]
pub(super) struct Tensor<'a> {
    /// Offset of the call that builds it.
    pub at: u64,
    pub storage: Storage<'a>,
    /// First element in the storage.
    pub offset: u64,
    pub shape: Vec<u64>,
    pub strides: Vec<u64>,
}

/// A storage: a member of the archive.
#[derive(Clone, Copy, Debug, PartialEq)]
pub(super) struct Storage<'a> {
    /// Offset of the opcode that names it.
    pub at: u64,
    pub kind: StorageKind,
    pub key: &'a str,
    /// Elements.
    pub count: u64,
}

#[derive(Clone, Copy, Debug)]
pub(super) enum Value<'a> {
    None,
    Bool,
    Int(i64),
    Float,
    Str(&'a str),
    Global(Global),
    /// Of type [`Node`], by number.
    Node(usize),
}

/// A value that others refer to by its number.
#[derive(Debug)]
pub(super) enum Node<'a> {
    Tuple(Vec<Value<'a>>),
    List(Vec<Value<'a>>),
    Dict { ordered: bool, items: Vec<(Value<'a>, Value<'a>)> },
    Storage(Storage<'a>),
    Tensor(Box<Tensor<'a>>),
}

/// Every node that was built, by number.
#[derive(Debug)]
pub(super) struct Heap<'a>(pub Vec<Node<'a>>);

impl<'a> Heap<'a> {
    pub fn as_tuple(&self, value: Value<'_>) -> Option<&[Value<'a>]> {
        match value {
            Value::Node(n) => {
                if let Node::Tuple(items) = &self.0[n] {
                    Some(items)
                } else {
                    None
                }
            }
            _ => None,
        }
    }

    pub fn as_dict(&self, value: Value<'_>) -> Option<&[(Value<'a>, Value<'a>)]> {
        match value {
            Value::Node(n) => {
                if let Node::Dict { items, .. } = &self.0[n] {
                    Some(items)
                } else {
                    None
                }
            }
            _ => None,
        }
    }

    pub fn as_tensor(&self, value: Value<'_>) -> Option<&Tensor<'a>> {
        match value {
            Value::Node(n) => {
                if let Node::Tensor(tensor) = &self.0[n] {
                    Some(tensor)
                } else {
                    None
                }
            }
            _ => None,
        }
    }

    /// None or an empty dict.
    pub fn is_nothing(&self, value: Value<'_>) -> bool {
        matches!(value, Value::None) || self.as_dict(value).is_some_and(<[_]>::is_empty)
    }

    pub fn kind(&self, value: Value<'_>) -> &'static str {
        match value {
            Value::None => "None",
            Value::Bool => "a bool",
            Value::Int(_) => "an integer",
            Value::Float => "a float",
            Value::Str(_) => "a string",
            Value::Global(_) => "a global",
            Value::Node(n) => match self.0[n] {
                Node::Tuple(_) => "a tuple",
                Node::List(_) => "a list",
                Node::Dict { ordered: false, .. } => "a dict",
                Node::Dict { ordered: true, .. } => "an OrderedDict",
                Node::Storage(_) => "a storage",
                Node::Tensor(_) => "a tensor",
            },
        }
    }

    pub fn kinds(&self, values: &[Value<'_>]) -> String {
        let mut kinds: Vec<_> = values.iter().take(8).map(|v| self.kind(*v)).collect();
        if values.len() > 8 {
            kinds.push("…");
        }
        format!("({})", kinds.join(", "))
    }
}
