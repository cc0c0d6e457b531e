//! Rows of `huozi bench` as JSON, CSV and Markdown.

use super::super::args::{self, Output};
use super::super::printer::{Printer, SCHEMA, bytes};
use super::subject::BenchSubject;
use crate::bench::{self, BenchRow, Bound};
use crate::engine::Engine;
use anyhow::Result;
use huozi_quant::kernels::Isa;
use serde_json::{Value, json};
use std::time::{SystemTime, UNIX_EPOCH};

/// A row as JSON: llama-bench's keys where it has them, and more.
pub fn describe(
    args: &args::BenchCommand,
    subject: &BenchSubject,
    engine: &dyn Engine,
    isa: Isa,
    row: &BenchRow,
) -> Value {
    let (info, test, cost) = (engine.info(), row.test, row.cost);
    let rates = row.rates();
    let (mean, deviation) = bench::mean_deviation(&rates);
    let (least, most) = bench::range(&rates);
    let ns = |s: f64| (s * 1e9).round() as u64;
    let (mean_s, deviation_s) = bench::mean_deviation(&row.seconds);
    let (n_prompt, n_gen) = test.work.tokens();
    let (bound, share) = row.share();
    let file_name =
        if subject.model.is_file() { subject.model.path().display().to_string() } else { String::new() };
    let now = SystemTime::now().duration_since(UNIX_EPOCH).map_or(0, |d| d.as_secs());
    json!({
        "schema": SCHEMA,
        "test": test.to_string(),
        "version": env!("CARGO_PKG_VERSION"),
        "cpu_info": super::super::doctor::cpu_name(),
        "engine": args.engine.unwrap_or_default().name(),
        "runs_on": info.runs_on,
        "isa": isa.name(),
        "uses": bench::compare::used(isa.name(), bench::compare::this_cpu_has),
        "model_filename": file_name,
        "model_name": subject.name,
        "model_type": subject.preset,
        "model_size": cost.model_bytes,
        "model_n_params": cost.n_params,
        "n_threads": info.threads,
        "type_k": info.kv.name(),
        "type_v": info.kv.name(),
        "flash_attn": args.flash_attn.map(|f| f.name()),
        "use_mmap": !args.no_mmap && subject.model.is_file(),
        "use_mlock": args.mlock,
        "n_prompt": n_prompt,
        "n_gen": n_gen,
        "n_depth": test.depth,
        "n_sequences": test.sequences,
        "seed": args.seed,
        "time": now,
        "samples_ns": row.seconds.iter().map(|&s| ns(s)).collect::<Vec<_>>(),
        "samples_ts": rates,
        "avg_ns": ns(mean_s),
        "stddev_ns": ns(deviation_s),
        "avg_ts": mean,
        "stddev_ts": deviation,
        "median_ts": row.rate(),
        "min_ts": least,
        "max_ts": most,
        "bytes_per_s": row.bytes_per_second(),
        "macs_per_s": row.macs_per_second(),
        "floor_read_bytes_per_s": row.floors.read,
        "floor_read_bytes": row.floors.read_bytes,
        "floor_macs_per_s": row.mac_floor().per_second,
        "floor_macs_by": row.mac_floor().how,
        "bound": match bound { Bound::Read => "read", Bound::Macs => "macs" },
        "floor_share": share,
        "peak_rss_bytes": bench::peak_rss(),
    })
}

/// Prints rows as they come.
pub struct RowTable {
    output: Output,
    rows: Vec<Value>,
    begun: bool,
}

impl RowTable {
    /// An empty table.
    pub fn new(output: Output) -> Self {
        Self { output, rows: Vec::new(), begun: false }
    }

    /// Prints a row; `described` is [`describe`] of it.
    ///
    /// # Errors
    /// Those of standard output.
    pub fn row(&mut self, printer: &mut Printer, row: &BenchRow, described: &Value) -> Result<()> {
        let first = !std::mem::replace(&mut self.begun, true);
        match self.output {
            Output::Markdown => {
                if first {
                    let macs = row.mac_floor();
                    printer.line(&format!(
                        "{}; read floor {:.1} GB/s over {}, {} {:.0} GMAC/s\n",
                        text(&described["runs_on"]),
                        row.floors.read / 1e9,
                        bytes(row.floors.read_bytes as u64),
                        macs.how,
                        macs.per_second / 1e9,
                    ))?;
                    printer.line(MARKDOWN_HEAD)?;
                    printer.line("| --- | ---: | ---: | ---: | --- | ---: | ---: | ---: | ---: |")?;
                }
                printer.line(&markdown(row, described))?;
            }
            Output::Csv => {
                if first {
                    printer.line(&csv_head(described))?;
                }
                printer.line(&csv_row(described))?;
            }
            Output::JsonLines => printer.json(described)?,
            Output::Json => self.rows.push(described.clone()),
        }
        Ok(())
    }

    /// Prints what is printed after the last row.
    ///
    /// # Errors
    /// Those of standard output.
    pub fn end(&mut self, printer: &mut Printer) -> Result<()> {
        if self.output == Output::Json {
            printer.json(&Value::Array(std::mem::take(&mut self.rows)))?;
        }
        Ok(())
    }
}

const MARKDOWN_HEAD: &str = "| model | size | params | threads | test | t/s | range | rate | floor |";

fn markdown(row: &BenchRow, described: &Value) -> String {
    let (least, most) = bench::range(&row.rates());
    let (bound, share) = row.share();
    let rate = match (bound, row.bytes_per_second()) {
        (Bound::Read, Some(rate)) => format!("{:.1} GB/s", rate / 1e9),
        _ => format!("{:.1} GMAC/s", row.macs_per_second() / 1e9),
    };
    format!(
        "| {} {} | {} | {} | {} | {} | {:.2} | {least:.2} .. {most:.2} | {rate} | {:.0} % |",
        text(&described["model_name"]),
        text(&described["model_type"]),
        bytes(row.cost.model_bytes),
        params(row.cost.n_params),
        described["n_threads"],
        row.test,
        row.rate(),
        share * 100.0,
    )
}

/// `7.07 B`, as llama-bench shows it.
fn params(n: u64) -> String {
    let n = n as f64;
    if n >= 1e9 { format!("{:.2} B", n / 1e9) } else { format!("{:.2} M", n / 1e6) }
}

/// A JSON text without its quotes, or nothing.
pub fn text(value: &Value) -> &str {
    value.as_str().unwrap_or("")
}

/// The keys as the head of a CSV table.
pub fn csv_head(described: &Value) -> String {
    let keys = described.as_object().into_iter().flatten().map(|(key, _)| csv_field(key));
    keys.collect::<Vec<_>>().join(",")
}

/// The values in the order of the keys; items of lists separated by blanks, absent values empty.
pub fn csv_row(described: &Value) -> String {
    let show = |value: &Value| match value {
        Value::Null => String::new(),
        Value::String(s) => csv_field(s),
        Value::Array(list) => {
            let list: Vec<String> =
                list.iter().map(|v| v.as_str().map_or_else(|| v.to_string(), str::to_owned)).collect();
            csv_field(&list.join(" "))
        }
        other => csv_field(&other.to_string()),
    };
    described.as_object().into_iter().flatten().map(|(_, value)| show(value)).collect::<Vec<_>>().join(",")
}

/// A field by RFC 4180: quoted where it holds a comma or a quote, quotes doubled. Line breaks become blanks.
fn csv_field(text: &str) -> String {
    let text = text.replace(['\n', '\r'], " ");
    if text.contains([',', '"']) { format!("\"{}\"", text.replace('"', "\"\"")) } else { text }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn csv_fields_are_quoted_where_they_must_be() {
        assert_eq!(csv_field("plain 1.5"), "plain 1.5");
        assert_eq!(csv_field("a,b"), "\"a,b\"");
        assert_eq!(csv_field("say \"x\"\n"), "\"say \"\"x\"\" \"");
        let value = json!({ "a": [1, 2.5], "b": null, "c": ["x", "y,z"], "d": true });
        assert_eq!((csv_head(&value), csv_row(&value)), ("a,b,c,d".into(), "1 2.5,,\"x y,z\",true".into()));
    }

    #[test]
    fn params_as_llama_bench() {
        assert_eq!((params(7_069_016_064), params(559_214_592)), ("7.07 B".into(), "559.21 M".into()));
    }
}
