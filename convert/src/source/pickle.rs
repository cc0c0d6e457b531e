//! A pickle interpreter that can build strings, numbers, containers and tensor descriptions, and nothing
//! else.
//!
//! In come the bytes of `data.pkl`, out go the named tensors with their storages' keys. Opcodes and globals
//! outside the lists below are refused by name and offset before anything else happens; a global is a value
//! of [`Global`], there is nothing that could be called.

use std::collections::HashMap;

use super::allowed::{Global, opcode_name};
use super::error::{Error, shown};
use super::limits::{MAX_DIMS, MAX_TENSORS};
use super::values::{Heap, Node, Storage, Tensor, Value};

// A tensor takes some 40 opcodes, 6 objects and 10 memo entries. These caps hold the memory of the worst
// pickle near 200 MB, and a small file cannot come near them.
const MAX_OPS: u64 = 4 << 20;
const MAX_NODES: usize = 1 << 19;
const MAX_STACK: usize = 1 << 16;
const MAX_MEMO: usize = 1 << 19;
const MAX_STRING: usize = 1 << 20;
/// Dicts around a state dict at most, e.g. `{"state_dict": {"module": {...}}}`.
const MAX_WRAPPERS: usize = 4;
/// The names that trainers give a state dict among other things.
const WRAPPERS: [&str; 4] = ["state_dict", "model_state_dict", "model", "module"];

/// What a state dict holds.
#[derive(Debug)]
pub(super) struct StateDict<'a> {
    /// Names and tensors, in their order.
    pub tensors: Vec<(&'a str, Tensor<'a>)>,
    /// Entries that hold something else (a number of steps, a configuration): what they are called.
    pub others: Vec<String>,
}

/// The tensors of a state dict. `file`: name of the pickle, for messages.
pub(super) fn state_dict<'a>(file: &str, bytes: &'a [u8]) -> Result<StateDict<'a>, Error> {
    let mut machine = Machine {
        file,
        bytes,
        at: 0,
        op: 0,
        stack: Vec::new(),
        marks: Vec::new(),
        memo: HashMap::new(),
        heap: Heap(Vec::new()),
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
    heap: Heap<'a>,
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
                        let found = format!("{} and {}", self.heap.kind(module), self.heap.kind(name));
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
        if self.heap.0.len() == MAX_NODES {
            return Err(self.wrong(format!("at most {MAX_NODES} objects"), "more"));
        }
        self.heap.0.push(node);
        self.push(Value::Node(self.heap.0.len() - 1))
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
            && let Node::List(items) = &mut self.heap.0[n]
        {
            items.extend(new);
            return Ok(());
        }
        Err(self.wrong("a list to append to", self.heap.kind(top)))
    }

    fn set(&mut self, new: Vec<Value<'a>>) -> Result<(), Error> {
        let top = self.top()?;
        if !new.len().is_multiple_of(2) {
            return Err(self.wrong("pairs of key and value", format!("{} values", new.len())));
        }
        if let Value::Node(n) = top
            && let Node::Dict { items, .. } = &mut self.heap.0[n]
        {
            items.extend(new.chunks_exact(2).map(|pair| (pair[0], pair[1])));
            return Ok(());
        }
        Err(self.wrong("a dict to set keys of", self.heap.kind(top)))
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
        ) = self.heap.as_tuple(id)
            && let Ok(count) = u64::try_from(*count)
        {
            let storage = Storage { at: self.op as u64, kind: *kind, key, count };
            return self.push_node(Node::Storage(storage));
        }
        Err(self.wrong(expected, self.heap.kind(id)))
    }

    fn reduce(&mut self) -> Result<(), Error> {
        let (args, callee) = (self.pop()?, self.pop()?);
        let Value::Global(global) = callee else {
            return Err(self.refused(format!("a call of {}", self.heap.kind(callee))));
        };
        let Some(items) = self.heap.as_tuple(args) else {
            return Err(self.wrong("a tuple of arguments", self.heap.kind(args)));
        };
        match global {
            Global::OrderedDict if items.is_empty() => {
                self.push_node(Node::Dict { ordered: true, items: Vec::new() })
            }
            Global::OrderedDict => Err(self.wrong("OrderedDict()", self.heap.kinds(items))),
            Global::RebuildTensor => {
                let tensor = self.rebuild_tensor(items).ok_or_else(|| {
                    let expected =
                        "_rebuild_tensor_v2(storage, offset, size, stride, requires_grad, no hooks)";
                    self.wrong(expected, self.heap.kinds(items))
                })?;
                self.push_node(Node::Tensor(Box::new(tensor)))
            }
            Global::RebuildParameter => match *items {
                [data, Value::Bool, hooks]
                    if self.heap.as_tensor(data).is_some() && self.heap.is_nothing(hooks) =>
                {
                    self.push(data)
                }
                _ => {
                    Err(self
                        .wrong("_rebuild_parameter(tensor, requires_grad, no hooks)", self.heap.kinds(items)))
                }
            },
            // A shape is the tuple it is made of; a device says nothing about a tensor here.
            Global::Size => match *items {
                [sizes] if self.heap.as_tuple(sizes).is_some() => self.push(sizes),
                _ => Err(self.wrong("torch.Size(a tuple)", self.heap.kinds(items))),
            },
            Global::Device => self.push(Value::None),
            Global::Dtype => Err(self.refused("a call of a type of numbers".into())),
            Global::Storage(kind) => Err(self.refused(format!("a call of torch.{}", kind.class))),
        }
    }

    fn rebuild_tensor(&self, args: &[Value<'a>]) -> Option<Tensor<'a>> {
        let (fixed, metadata) = args.split_at_checked(6)?;
        let [storage, Value::Int(offset), size, stride, Value::Bool, hooks] = *fixed else { return None };
        let Value::Node(storage) = storage else { return None };
        let Node::Storage(storage) = &self.heap.0[storage] else { return None };
        let no_metadata = match *metadata {
            [] => true,
            [value] => self.heap.is_nothing(value),
            _ => false,
        };
        if !self.heap.is_nothing(hooks) || !no_metadata {
            return None;
        }
        let (shape, strides) = (self.sizes(size)?, self.sizes(stride)?);
        let offset = u64::try_from(offset).ok()?;
        Some(Tensor { at: self.op as u64, storage: *storage, offset, shape, strides })
    }

    /// A tuple of integers that are not negative, as many as a tensor may have dimensions.
    fn sizes(&self, value: Value<'a>) -> Option<Vec<u64>> {
        let items = self.heap.as_tuple(value).filter(|items| items.len() <= MAX_DIMS)?;
        let size = |v: &Value<'_>| if let Value::Int(n) = v { u64::try_from(*n).ok() } else { None };
        items.iter().map(size).collect()
    }

    /// The attributes of a state dict (`_metadata`: versions of modules) are built and forgotten.
    fn build(&mut self) -> Result<(), Error> {
        let state = self.pop()?;
        let target = self.top()?;
        let is_dict = |value, must: bool| {
            let Value::Node(n) = value else { return false };
            matches!(self.heap.0[n], Node::Dict { ordered, .. } if ordered || !must)
        };
        if is_dict(target, true) && is_dict(state, false) {
            return Ok(());
        }
        Err(self.refused(format!(
            "setting the state of {} from {}",
            self.heap.kind(target),
            self.heap.kind(state)
        )))
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

    /// The dicts under the names that trainers give a state dict: at most one a name.
    fn wrapped(&self, items: &[(Value<'a>, Value<'a>)]) -> Vec<&[(Value<'a>, Value<'a>)]> {
        let under = |name: &&str| items.iter().rfind(|(key, _)| matches!(key, Value::Str(s) if s == name));
        let dict = |name: &&str| self.heap.as_dict(under(name)?.1);
        WRAPPERS.iter().filter_map(dict).collect()
    }

    /// Whether a dict has tensors, itself or in a state dict in it.
    fn leads_to_tensors(&self, items: &[(Value<'a>, Value<'a>)], depth: usize) -> bool {
        let tensor = |(_, value): &(Value<'a>, Value<'a>)| self.heap.as_tensor(*value).is_some();
        let inner = || self.wrapped(items).into_iter().any(|dict| self.leads_to_tensors(dict, depth + 1));
        items.iter().any(tensor) || (depth < MAX_WRAPPERS && inner())
    }

    /// Names and tensors of the dict `top`, or of a state dict in it that a trainer saved with other things.
    fn tensors(&self, top: Value<'a>) -> Result<StateDict<'a>, Error> {
        let expected = "a dict of tensors (a state dict)";
        let Some(mut items) = self.heap.as_dict(top) else {
            return Err(self.wrong(expected, self.heap.kind(top)));
        };
        for _ in 0..MAX_WRAPPERS {
            // Tensors beside a state dict are not the model's: the state of a random number generator.
            let inner = self.wrapped(items).into_iter();
            let wrapped: Vec<_> = inner.filter(|dict| self.leads_to_tensors(dict, 1)).collect();
            match wrapped[..] {
                [one] => items = one,
                [] => break,
                _ => return Err(self.wrong(expected, format!("{} state dicts in one", wrapped.len()))),
            }
        }
        // Before anything is copied: one description may stand under any number of names.
        if items.len() > MAX_TENSORS {
            let expected = format!("at most {} tensors", MAX_TENSORS);
            return Err(self.wrong(expected, items.len().to_string()));
        }
        let mut seen = std::collections::HashSet::new();
        let mut out = StateDict { tensors: Vec::with_capacity(items.len()), others: Vec::new() };
        for (key, value) in items {
            let (Value::Str(name), Some(tensor)) = (key, self.heap.as_tensor(*value)) else {
                let key = if let Value::Str(name) = key { shown(name) } else { self.heap.kind(*key).into() };
                out.others.push(format!("{} under {key}", self.heap.kind(*value)));
                continue;
            };
            if !seen.insert(*name) {
                return Err(self.wrong("each tensor once", format!("{} twice", shown(name))));
            }
            out.tensors.push((*name, tensor.clone()));
        }
        match out.others.first() {
            Some(other) if out.tensors.is_empty() => Err(self.wrong(expected, other)),
            _ => Ok(out),
        }
    }
}
