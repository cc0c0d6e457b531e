//! `huozi inspect`: metadata and tensors of a GGUF file.

use super::args::InspectCommand;
use super::printer::{Printer, SCHEMA, bytes, escaped, number};
use super::settings::Config;
use crate::open::locate;
use anyhow::Result;
use huozi_quant::gguf::{Array, Reader, Value};
use huozi_quant::map::How;
use serde_json::{Map, json};
use std::collections::BTreeMap;
use std::io::Write;

/// Values of a longer array that are shown.
const SHOWN: usize = 6;
/// Characters of a longer text that are shown.
const SHOWN_CHARS: usize = 200;

/// Runs the command.
///
/// # Errors
/// See [`super::exit`].
pub fn run(args: &InspectCommand, config: &Config, printer: &mut Printer) -> Result<()> {
    let path = locate(&config.model(args.path.as_deref().or(args.model.as_deref()))?)?;
    let reader = Reader::open(&path, How::Map)?;
    let mut types: BTreeMap<&'static str, (usize, u64, u64)> = BTreeMap::new();
    let (mut weights, mut data) = (0u64, 0u64);
    for tensor in reader.tensors() {
        let n: u64 = tensor.dims.iter().product();
        let of = types.entry(tensor.format.name()).or_default();
        *of = (of.0 + 1, of.1 + n, of.2 + tensor.bytes);
        weights += n;
        data += tensor.bytes;
    }
    let bits = |data: u64, weights: u64| if weights > 0 { data as f64 * 8.0 / weights as f64 } else { 0.0 };
    if args.json {
        let metadata: Map<String, serde_json::Value> =
            reader.meta().iter().map(|(key, value)| (key.to_owned(), as_json(&value, args.full))).collect();
        let tensors: Vec<_> = reader
            .tensors()
            .iter()
            .map(|t| {
                json!({
                    "name": t.name, "type": t.format.name(), "dims": t.dims,
                    "part": t.part, "offset": t.offset, "bytes": t.bytes,
                })
            })
            .collect();
        let foreign: Vec<_> = reader
            .foreign()
            .iter()
            .map(|t| json!({ "name": t.name, "type": t.type_name, "dims": t.dims, "part": t.part }))
            .collect();
        let types: Map<String, serde_json::Value> = types
            .iter()
            .map(|(name, (n, weights, bytes))| {
                ((*name).to_owned(), json!({ "tensors": n, "weights": weights, "bytes": bytes }))
            })
            .collect();
        printer.json(&json!({
            "schema": SCHEMA,
            "model": path.display().to_string(),
            "version": reader.version(),
            "alignment": reader.alignment(),
            "bytes": reader.file_bytes(),
            "weights": weights,
            "bits_per_weight": bits(data, weights),
            "types": types,
            "metadata": metadata,
            "tensors": tensors,
            "tensors_not_supported": foreign,
            "parts": reader.parts().iter().map(|part| part.name()).collect::<Vec<_>>(),
        }))?;
        return Ok(());
    }
    let mut out = printer.bulk();
    writeln!(
        out,
        "{}: GGUF {}, {}, {weights} weights, {:.2} bits each",
        escaped(reader.name().as_bytes()),
        reader.version(),
        bytes(reader.file_bytes()),
        bits(data, weights)
    )?;
    if let [_, _, ..] = reader.parts() {
        writeln!(out, "\nparts")?;
        for part in reader.parts() {
            writeln!(out, "  {}  {}", escaped(part.name().as_bytes()), bytes(part.file_bytes()))?;
        }
    }
    writeln!(out, "\nmetadata")?;
    for (key, value) in reader.meta().iter() {
        writeln!(out, "  {} = {}", escaped(key.as_bytes()), as_text(&value, args.full, 0))?;
    }
    writeln!(out, "\ntypes")?;
    for (name, (n, weights, size)) in &types {
        writeln!(
            out,
            "  {name:<8} {n:>4} tensors  {:>12}  {:>6.3} bits per weight",
            bytes(*size),
            bits(*size, *weights)
        )?;
    }
    writeln!(out, "\ntensors (columns x rows)")?;
    for tensor in reader.tensors() {
        let dims = tensor.dims.iter().map(u64::to_string).collect::<Vec<_>>().join(" x ");
        let name = escaped(tensor.name.as_bytes());
        writeln!(out, "  {name:<32} {:<7} {dims:<16} {:>12}", tensor.format.name(), bytes(tensor.bytes))?;
    }
    if !reader.foreign().is_empty() {
        writeln!(out, "\ntensors of types that are not supported")?;
    }
    for tensor in reader.foreign() {
        let dims = tensor.dims.iter().map(u64::to_string).collect::<Vec<_>>().join(" x ");
        let name = escaped(tensor.name.as_bytes());
        writeln!(out, "  {name:<32} {:<7} {dims}", tensor.type_name)?;
    }
    out.flush()?;
    Ok(())
}

fn as_text(value: &Value<'_>, full: bool, depth: usize) -> String {
    match value {
        Value::Str(text) => {
            let cut = text.char_indices().nth(SHOWN_CHARS).filter(|_| !full && depth == 0).map(|(at, _)| at);
            match cut {
                Some(at) => format!("\"{}\"... ({} bytes)", escaped(&text.as_bytes()[..at]), text.len()),
                None => format!("\"{}\"", escaped(text.as_bytes())),
            }
        }
        Value::Array(array) => {
            let shown = if full { array.len() } else { SHOWN.min(array.len()) };
            let items: Vec<String> = array.iter().take(shown).map(|v| as_text(&v, full, depth + 1)).collect();
            let more = if shown < array.len() { ", ..." } else { "" };
            format!("{}[{}] [{}{more}]", array.element_type().name(), array.len(), items.join(", "))
        }
        other => scalar(other).to_string(),
    }
}

fn as_json(value: &Value<'_>, full: bool) -> serde_json::Value {
    let Value::Array(array) = value else { return scalar(value) };
    let items = |array: &Array<'_>, n| array.iter().take(n).map(|v| as_json(&v, full)).collect::<Vec<_>>();
    if full || array.len() <= SHOWN {
        return json!(items(array, array.len()));
    }
    json!({ "type": array.element_type().name(), "len": array.len(), "first": items(array, SHOWN) })
}

fn scalar(value: &Value<'_>) -> serde_json::Value {
    match *value {
        Value::U8(x) => json!(x),
        Value::I8(x) => json!(x),
        Value::U16(x) => json!(x),
        Value::I16(x) => json!(x),
        Value::U32(x) => json!(x),
        Value::I32(x) => json!(x),
        Value::U64(x) => json!(x),
        Value::I64(x) => json!(x),
        Value::F32(x) => number(x),
        Value::F64(x) => json!(x),
        Value::Bool(x) => json!(x),
        Value::Str(x) => json!(x),
        Value::Array(_) => json!(null),
    }
}
