//! A pickle interpreter that can build strings, numbers, containers and tensor descriptions, and nothing
//! else.
//!
//! In come the bytes of `data.pkl`, out go the named tensors with their storages' keys. Opcodes and globals
//! outside the lists below are refused by name and offset before anything else happens; a global is a value
//! of [`Global`], there is nothing that could be called. Values are numbers into one list of nodes: sharing
//! costs nothing, a cycle is harmless, and dropping does not recurse.

use std::collections::HashMap;

use super::allowed::{Global, StorageKind, opcode_name};
use super::error::{Error, shown};
use super::limits::{MAX_DIMS, MAX_TENSORS};

// A tensor takes some 40 opcodes, 6 objects and 10 memo entries. These caps hold the memory of the worst
// pickle near 200 MB, and a small file cannot come near them.
const MAX_OPS: u64 = 4 << 20;
const MAX_NODES: usize = 1 << 19;
const MAX_STACK: usize = 1 << 16;
const MAX_MEMO: usize = 1 << 19;
const MAX_STRING: usize = 1 << 20;

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
enum Value<'a> {
    None,
    Bool,
    Int(i64),
    Float,
    Str(&'a str),
    Global(Global),
    /// Of type [`Node`], by number.
    Node(usize),
}

#[derive(Debug)]
enum Node<'a> {
    Tuple(Vec<Value<'a>>),
    List(Vec<Value<'a>>),
    Dict { ordered: bool, items: Vec<(Value<'a>, Value<'a>)> },
    Storage(Storage<'a>),
    Tensor(Box<Tensor<'a>>),
}

/// The tensors of a state dict, in its order. `file`: name of the pickle, for messages.
pub(super) fn state_dict<'a>(file: &str, bytes: &'a [u8]) -> Result<Vec<(&'a str, Tensor<'a>)>, Error> {
    let mut machine = Machine {
        file,
        bytes,
        at: 0,
        op: 0,
        stack: Vec::new(),
        marks: Vec::new(),
        memo: HashMap::new(),
        nodes: Vec::new(),
    };
    let top = machine.run()?;
    machine.tensors(top)
}

struct Machine<'a, 'f> {
    file: &'f str,
    bytes: &'a [u8],
    /// Next byte.
    at: usize,
    /// Where the opcode being carried out is.
    op: usize,
    stack: Vec<Value<'a>>,
    /// Heights of the stack.
    marks: Vec<usize>,
    memo: HashMap<u32, Value<'a>>,
    nodes: Vec<Node<'a>>,
}

impl<'a> Machine<'a, '_> {
    fn run(&mut self) -> Result<Value<'a>, Error> {
        let [proto, version] = self.array()?;
        if proto != 0x80 || !(2..=5).contains(&version) {
            return Err(
                self.wrong("a pickle of protocol 2 to 5", format!("bytes {proto:#04x} {version:#04x}"))
            );
        }
        for _ in 0..MAX_OPS {
            self.op = self.at;
            let [op] = self.array()?;
            match op {
                b'.' => return self.stop(),
                // FRAME: a hint about the length of what follows.
                0x95 => {
                    let length = u64::from_le_bytes(self.array()?);
                    let left = (self.bytes.len() - self.at) as u64;
                    if length > left {
                        return Err(
                            self.wrong(format!("a frame of at most {left} bytes"), length.to_string())
                        );
                    }
                }
                b'(' => {
                    if self.marks.len() == MAX_STACK {
                        return Err(self.wrong(format!("at most {MAX_STACK} marks"), "more"));
                    }
                    self.marks.push(self.stack.len());
                }
                b'N' => self.push(Value::None)?,
                0x88 | 0x89 => self.push(Value::Bool)?,
                b'J' => {
                    let n = i32::from_le_bytes(self.array()?);
                    self.push(Value::Int(n.into()))?;
                }
                b'K' => {
                    let [n] = self.array()?;
                    self.push(Value::Int(n.into()))?;
                }
                b'M' => {
                    let n = u16::from_le_bytes(self.array()?);
                    self.push(Value::Int(n.into()))?;
                }
                0x8a => self.long()?,
                b'G' => {
                    let _: [u8; 8] = self.array()?;
                    self.push(Value::Float)?;
                }
                b'X' => {
                    let n = u32::from_le_bytes(self.array()?);
                    let s = self.str(n)?;
                    self.push(Value::Str(s))?;
                }
                0x8c => {
                    let [n] = self.array()?;
                    let s = self.str(n.into())?;
                    self.push(Value::Str(s))?;
                }
                b')' => self.tuple(0)?,
                0x85 => self.tuple(1)?,
                0x86 => self.tuple(2)?,
                0x87 => self.tuple(3)?,
                b't' => {
                    let items = self.since_mark()?;
                    self.push_node(Node::Tuple(items))?;
                }
                b']' => self.push_node(Node::List(Vec::new()))?,
                b'a' => {
                    let item = self.pop()?;
                    self.append(vec![item])?;
                }
                b'e' => {
                    let items = self.since_mark()?;
                    self.append(items)?;
                }
                b'}' => self.push_node(Node::Dict { ordered: false, items: Vec::new() })?,
                b's' => {
                    let value = self.pop()?;
                    let key = self.pop()?;
                    self.set(vec![key, value])?;
                }
                b'u' => {
                    let items = self.since_mark()?;
                    self.set(items)?;
                }
                b'q' => {
                    let [n] = self.array()?;
                    self.put(n.into())?;
                }
                b'r' => {
                    let n = u32::from_le_bytes(self.array()?);
                    self.put(n)?;
                }
                // MEMOIZE
                0x94 => self.put(self.memo.len() as u32)?,
                b'h' => {
                    let [n] = self.array()?;
                    self.get(n.into())?;
                }
                b'j' => {
                    let n = u32::from_le_bytes(self.array()?);
                    self.get(n)?;
                }
                b'c' => {
                    let module = self.line()?;
                    let name = self.line()?;
                    self.global(module, name)?;
                }
                0x93 => {
                    let (name, module) = (self.pop()?, self.pop()?);
                    let (Value::Str(module), Value::Str(name)) = (module, name) else {
                        let found = format!("{} and {}", self.kind(module), self.kind(name));
                        return Err(self.wrong("two strings for a global", found));
                    };
                    self.global(module, name)?;
                }
                b'Q' => self.persistent()?,
                b'R' => self.reduce()?,
                b'b' => self.build()?,
                _ => return Err(self.refused(format!("opcode {}", opcode_name(op)))),
            }
        }
        Err(self.wrong(format!("at most {MAX_OPS} opcodes"), "more"))
    }

    fn wrong(&self, expected: impl Into<String>, found: impl Into<String>) -> Error {
        Error::format(self.file, self.op as u64, expected, found)
    }

    fn refused(&self, what: String) -> Error {
        Error::Refused { file: self.file.into(), at: self.op as u64, what }
    }

    fn take(&mut self, n: usize) -> Result<&'a [u8], Error> {
        let rest = &self.bytes[self.at..];
        let Some(taken) = rest.get(..n) else {
            return Err(
                self.wrong(format!("{n} bytes more"), format!("the end of the pickle after {}", rest.len()))
            );
        };
        self.at += n;
        Ok(taken)
    }

    fn array<const N: usize>(&mut self) -> Result<[u8; N], Error> {
        self.take(N).map(|s| s.try_into().expect("N bytes"))
    }

    fn str(&mut self, n: u32) -> Result<&'a str, Error> {
        if n as usize > MAX_STRING {
            return Err(self.wrong(format!("a string of at most {MAX_STRING} bytes"), n.to_string()));
        }
        let bytes = self.take(n as usize)?;
        std::str::from_utf8(bytes).map_err(|_| self.wrong("a string in UTF-8", "other bytes"))
    }

    /// Up to the next line feed, which is passed over.
    fn line(&mut self) -> Result<&'a str, Error> {
        let rest = &self.bytes[self.at..];
        let Some(n) = rest.iter().take(1024).position(|&b| b == b'\n') else {
            return Err(self.wrong("the name of a global in a line", "no end of line"));
        };
        let line = self.str(n as u32)?;
        self.at += 1;
        Ok(line)
    }

    /// LONG1: two's complement of n bytes.
    fn long(&mut self) -> Result<(), Error> {
        let [n] = self.array()?;
        if n > 8 {
            return Err(self.wrong("an integer of at most 8 bytes", n.to_string()));
        }
        let bytes = self.take(n.into())?;
        let fill = if bytes.last().is_some_and(|b| b & 0x80 != 0) { 0xff } else { 0 };
        let mut wide = [fill; 8];
        wide[..bytes.len()].copy_from_slice(bytes);
        self.push(Value::Int(i64::from_le_bytes(wide)))
    }

    fn push(&mut self, value: Value<'a>) -> Result<(), Error> {
        if self.stack.len() == MAX_STACK {
            return Err(self.wrong(format!("a stack of at most {MAX_STACK}"), "more"));
        }
        self.stack.push(value);
        Ok(())
    }

    fn push_node(&mut self, node: Node<'a>) -> Result<(), Error> {
        if self.nodes.len() == MAX_NODES {
            return Err(self.wrong(format!("at most {MAX_NODES} objects"), "more"));
        }
        self.nodes.push(node);
        self.push(Value::Node(self.nodes.len() - 1))
    }

    /// What lies above the last mark is in reach, no more.
    fn pop(&mut self) -> Result<Value<'a>, Error> {
        if self.stack.len() <= self.marks.last().copied().unwrap_or(0) {
            return Err(self.wrong("a value on the stack", "none above the last mark"));
        }
        Ok(self.stack.pop().expect("not empty"))
    }

    fn top(&self) -> Result<Value<'a>, Error> {
        let floor = self.marks.last().copied().unwrap_or(0);
        self.stack[floor..].last().copied().ok_or_else(|| self.wrong("a value on the stack", "none"))
    }

    fn since_mark(&mut self) -> Result<Vec<Value<'a>>, Error> {
        let Some(mark) = self.marks.pop() else {
            return Err(self.wrong("a mark on the stack", "none"));
        };
        Ok(self.stack.split_off(mark))
    }

    fn tuple(&mut self, n: usize) -> Result<(), Error> {
        let mut items = Vec::with_capacity(n);
        for _ in 0..n {
            items.push(self.pop()?);
        }
        items.reverse();
        self.push_node(Node::Tuple(items))
    }

    fn append(&mut self, new: Vec<Value<'a>>) -> Result<(), Error> {
        let top = self.top()?;
        if let Value::Node(n) = top
            && let Node::List(items) = &mut self.nodes[n]
        {
            items.extend(new);
            return Ok(());
        }
        Err(self.wrong("a list to append to", self.kind(top)))
    }

    fn set(&mut self, new: Vec<Value<'a>>) -> Result<(), Error> {
        let top = self.top()?;
        if !new.len().is_multiple_of(2) {
            return Err(self.wrong("pairs of key and value", format!("{} values", new.len())));
        }
        if let Value::Node(n) = top
            && let Node::Dict { items, .. } = &mut self.nodes[n]
        {
            items.extend(new.chunks_exact(2).map(|pair| (pair[0], pair[1])));
            return Ok(());
        }
        Err(self.wrong("a dict to set keys of", self.kind(top)))
    }

    fn put(&mut self, n: u32) -> Result<(), Error> {
        let value = self.top()?;
        if self.memo.len() == MAX_MEMO && !self.memo.contains_key(&n) {
            return Err(self.wrong(format!("a memo of at most {MAX_MEMO}"), "more"));
        }
        self.memo.insert(n, value);
        Ok(())
    }

    fn get(&mut self, n: u32) -> Result<(), Error> {
        let value = self.memo.get(&n).copied();
        self.push(value.ok_or_else(|| self.wrong("a memo entry that was stored", format!("number {n}")))?)
    }

    fn global(&mut self, module: &str, name: &str) -> Result<(), Error> {
        match Global::find(module, name) {
            Some(global) => self.push(Value::Global(global)),
            None => Err(self.refused(format!("global {}.{}", shown(module), shown(name)))),
        }
    }

    /// BINPERSID of ('storage', torch.XStorage, key, device, elements).
    fn persistent(&mut self) -> Result<(), Error> {
        let id = self.pop()?;
        let expected = "a storage ('storage', torch type, key, device, elements)";
        if let Some(
            [
                Value::Str("storage"),
                Value::Global(Global::Storage(kind)),
                Value::Str(key),
                Value::Str(_),
                Value::Int(count),
            ],
        ) = self.as_tuple(id)
            && let Ok(count) = u64::try_from(*count)
        {
            let storage = Storage { at: self.op as u64, kind: *kind, key, count };
            return self.push_node(Node::Storage(storage));
        }
        Err(self.wrong(expected, self.kind(id)))
    }

    fn reduce(&mut self) -> Result<(), Error> {
        let (args, callee) = (self.pop()?, self.pop()?);
        let Value::Global(global) = callee else {
            return Err(self.refused(format!("a call of {}", self.kind(callee))));
        };
        let Some(items) = self.as_tuple(args) else {
            return Err(self.wrong("a tuple of arguments", self.kind(args)));
        };
        match global {
            Global::OrderedDict if items.is_empty() => {
                self.push_node(Node::Dict { ordered: true, items: Vec::new() })
            }
            Global::OrderedDict => Err(self.wrong("OrderedDict()", self.kinds(items))),
            Global::RebuildTensor => {
                let tensor = self.rebuild_tensor(items).ok_or_else(|| {
                    let expected =
                        "_rebuild_tensor_v2(storage, offset, size, stride, requires_grad, no hooks)";
                    self.wrong(expected, self.kinds(items))
                })?;
                self.push_node(Node::Tensor(Box::new(tensor)))
            }
            Global::RebuildParameter => match *items {
                [data, Value::Bool, hooks] if self.as_tensor(data).is_some() && self.is_nothing(hooks) => {
                    self.push(data)
                }
                _ => {
                    Err(self.wrong("_rebuild_parameter(tensor, requires_grad, no hooks)", self.kinds(items)))
                }
            },
            Global::Storage(kind) => Err(self.refused(format!("a call of torch.{}", kind.class))),
        }
    }

    fn rebuild_tensor(&self, args: &[Value<'a>]) -> Option<Tensor<'a>> {
        let (fixed, metadata) = args.split_at_checked(6)?;
        let [storage, Value::Int(offset), size, stride, Value::Bool, hooks] = *fixed else { return None };
        let Value::Node(storage) = storage else { return None };
        let Node::Storage(storage) = &self.nodes[storage] else { return None };
        let no_metadata = match *metadata {
            [] => true,
            [value] => self.is_nothing(value),
            _ => false,
        };
        if !self.is_nothing(hooks) || !no_metadata {
            return None;
        }
        let (shape, strides) = (self.sizes(size)?, self.sizes(stride)?);
        let offset = u64::try_from(offset).ok()?;
        Some(Tensor { at: self.op as u64, storage: *storage, offset, shape, strides })
    }

    /// A tuple of integers that are not negative, as many as a tensor may have dimensions.
    fn sizes(&self, value: Value<'a>) -> Option<Vec<u64>> {
        let items = self.as_tuple(value).filter(|items| items.len() <= MAX_DIMS)?;
        let size = |v: &Value<'_>| if let Value::Int(n) = v { u64::try_from(*n).ok() } else { None };
        items.iter().map(size).collect()
    }

    /// The attributes of a state dict (`_metadata`: versions of modules) are built and forgotten.
    fn build(&mut self) -> Result<(), Error> {
        let state = self.pop()?;
        let target = self.top()?;
        let is_dict = |value, must: bool| {
            let Value::Node(n) = value else { return false };
            matches!(self.nodes[n], Node::Dict { ordered, .. } if ordered || !must)
        };
        if is_dict(target, true) && is_dict(state, false) {
            return Ok(());
        }
        Err(self.refused(format!("setting the state of {} from {}", self.kind(target), self.kind(state))))
    }

    fn stop(&mut self) -> Result<Value<'a>, Error> {
        let top = self.pop()?;
        if !self.stack.is_empty() || !self.marks.is_empty() {
            return Err(self.wrong("an empty stack at the end", format!("{} values", self.stack.len())));
        }
        if self.at != self.bytes.len() {
            return Err(
                self.wrong("the end of the pickle", format!("{} bytes more", self.bytes.len() - self.at))
            );
        }
        Ok(top)
    }

    /// Names and tensors of the dict `top`, or of the state dict one level below it.
    fn tensors(&self, top: Value<'a>) -> Result<Vec<(&'a str, Tensor<'a>)>, Error> {
        let expected = "a dict of tensors (a state dict)";
        let Some(mut items) = self.as_dict(top) else {
            return Err(self.wrong(expected, self.kind(top)));
        };
        if !items.iter().any(|(_, value)| self.as_tensor(*value).is_some()) {
            let wrappers = items.iter().filter_map(|(key, value)| match key {
                Value::Str("state_dict" | "model" | "module") => self.as_dict(*value),
                _ => None,
            });
            let wrapped: Vec<_> = wrappers.collect();
            match wrapped[..] {
                [one] => items = one,
                [] => {}
                _ => return Err(self.wrong(expected, format!("{} state dicts in one", wrapped.len()))),
            }
        }
        // Before anything is copied: one description may stand under any number of names.
        if items.len() > MAX_TENSORS {
            let expected = format!("at most {} tensors", MAX_TENSORS);
            return Err(self.wrong(expected, items.len().to_string()));
        }
        let mut seen = std::collections::HashSet::new();
        let mut out = Vec::with_capacity(items.len());
        for (key, value) in items {
            let (Value::Str(name), Some(tensor)) = (key, self.as_tensor(*value)) else {
                let key = if let Value::Str(name) = key { shown(name) } else { self.kind(*key).into() };
                return Err(self.wrong(expected, format!("{} under {key}", self.kind(*value))));
            };
            if !seen.insert(*name) {
                return Err(self.wrong("each tensor once", format!("{} twice", shown(name))));
            }
            out.push((*name, tensor.clone()));
        }
        Ok(out)
    }

    fn as_tuple(&self, value: Value<'_>) -> Option<&[Value<'a>]> {
        match value {
            Value::Node(n) => {
                if let Node::Tuple(items) = &self.nodes[n] {
                    Some(items)
                } else {
                    None
                }
            }
            _ => None,
        }
    }

    fn as_dict(&self, value: Value<'_>) -> Option<&[(Value<'a>, Value<'a>)]> {
        match value {
            Value::Node(n) => {
                if let Node::Dict { items, .. } = &self.nodes[n] {
                    Some(items)
                } else {
                    None
                }
            }
            _ => None,
        }
    }

    fn as_tensor(&self, value: Value<'_>) -> Option<&Tensor<'a>> {
        match value {
            Value::Node(n) => {
                if let Node::Tensor(tensor) = &self.nodes[n] {
                    Some(tensor)
                } else {
                    None
                }
            }
            _ => None,
        }
    }

    /// None or an empty dict.
    fn is_nothing(&self, value: Value<'_>) -> bool {
        matches!(value, Value::None) || self.as_dict(value).is_some_and(<[_]>::is_empty)
    }

    fn kind(&self, value: Value<'_>) -> &'static str {
        match value {
            Value::None => "None",
            Value::Bool => "a bool",
            Value::Int(_) => "an integer",
            Value::Float => "a float",
            Value::Str(_) => "a string",
            Value::Global(_) => "a global",
            Value::Node(n) => match self.nodes[n] {
                Node::Tuple(_) => "a tuple",
                Node::List(_) => "a list",
                Node::Dict { ordered: false, .. } => "a dict",
                Node::Dict { ordered: true, .. } => "an OrderedDict",
                Node::Storage(_) => "a storage",
                Node::Tensor(_) => "a tensor",
            },
        }
    }

    fn kinds(&self, values: &[Value<'_>]) -> String {
        let mut kinds: Vec<_> = values.iter().take(8).map(|v| self.kind(*v)).collect();
        if values.len() > 8 {
            kinds.push("…");
        }
        format!("({})", kinds.join(", "))
    }
}
