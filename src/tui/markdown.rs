//! Markdown to rows of at most so many cells.
//!
//! In: text of a model, hostile. Out: styled rows, ready to be shown; a row is never wider than asked for
//! unless one cluster is. A line break of the text stays one: verses are lines.

use super::look::Look;
use super::text::{clean, fit, pad, width, wrap};
use pulldown_cmark::{Alignment, CodeBlockKind, Event, HeadingLevel, Options, Parser, Tag, TagEnd};
use ratatui::style::{Modifier, Style};
use ratatui::text::{Line, Span};
use unicode_segmentation::UnicodeSegmentation;

/// Rows of `text` as it is.
pub fn plain(text: &str, cells: usize, style: Style) -> Vec<Line<'static>> {
    let text = clean(text);
    let rows = wrap(&text, cells);
    rows.into_iter().map(|range| Line::styled(text[range].trim_end_matches(' ').to_owned(), style)).collect()
}

/// Rows of `text` as Markdown.
pub fn rows(text: &str, cells: usize, look: Look) -> Vec<Line<'static>> {
    let text = clean(text);
    let mut page = Page::new(cells.max(4), look);
    let options = Options::ENABLE_TABLES | Options::ENABLE_STRIKETHROUGH | Options::ENABLE_TASKLISTS;
    for event in Parser::new_ext(&text, options) {
        page.event(event);
    }
    page.end_block();
    while page.rows.last().is_some_and(|row| row.spans.is_empty()) {
        page.rows.pop();
    }
    page.rows
}

/// Where the text up to its last finished block ends: what comes before is shown the same whatever follows.
pub fn finished(text: &str) -> usize {
    let mut end = 0;
    let mut fence: Option<&str> = None;
    let mut at = 0;
    let mut plain_block = true;
    for line in text.split_inclusive('\n') {
        let trimmed = line.trim_start();
        let mark = ["```", "~~~"].into_iter().find(|mark| trimmed.starts_with(mark));
        match (fence, mark) {
            (None, Some(mark)) => fence = Some(mark),
            (Some(open), Some(mark)) if open == mark => fence = None,
            _ => {}
        }
        at += line.len();
        // A list, a quotation or indented code goes on after an empty line.
        let first = line.chars().next();
        let starts_plain = first.is_some_and(|c| c.is_alphabetic() || c == '#');
        if line.trim().is_empty() {
            if fence.is_none() && plain_block && line.ends_with('\n') {
                end = at;
            }
        } else if at - line.len() == end {
            plain_block = starts_plain && fence.is_none();
        }
    }
    end
}

/// Text with styles, before it is wrapped.
#[derive(Default)]
struct Inline {
    text: String,
    /// Ends of runs and their styles.
    runs: Vec<(usize, Style)>,
}

impl Inline {
    fn push(&mut self, text: &str, style: Style) {
        self.text.push_str(text);
        match self.runs.last_mut() {
            Some((end, last)) if *last == style => *end = self.text.len(),
            _ => self.runs.push((self.text.len(), style)),
        }
    }

    fn spans(&self, range: std::ops::Range<usize>) -> Vec<Span<'static>> {
        let mut spans = Vec::new();
        let mut start = 0;
        for &(end, style) in &self.runs {
            let (from, to) = (start.max(range.start), end.min(range.end));
            if from < to {
                spans.push(Span::styled(self.text[from..to].to_owned(), style));
            }
            start = end;
        }
        spans
    }
}

struct Table {
    alignment: Vec<Alignment>,
    rows: Vec<Vec<String>>,
    /// The first row is a head.
    cell: String,
}

struct Page {
    cells: usize,
    look: Look,
    rows: Vec<Line<'static>>,
    inline: Inline,
    styles: Vec<Style>,
    /// What stands before every row of the blocks that are open; the first row of an item has its mark
    /// instead.
    prefix: Vec<String>,
    mark: Option<String>,
    lists: Vec<Option<u64>>,
    code: Option<String>,
    table: Option<Table>,
    link: Option<String>,
    heading: Option<HeadingLevel>,
}

impl Page {
    fn new(cells: usize, look: Look) -> Self {
        Self {
            cells,
            look,
            rows: Vec::new(),
            inline: Inline::default(),
            styles: vec![Style::new()],
            prefix: Vec::new(),
            mark: None,
            lists: Vec::new(),
            code: None,
            table: None,
            link: None,
            heading: None,
        }
    }

    fn style(&self) -> Style {
        *self.styles.last().unwrap_or(&Style::new())
    }

    fn with(&mut self, change: impl FnOnce(Style) -> Style) {
        let style = change(self.style());
        self.styles.push(style);
    }

    fn put(&mut self, text: &str, style: Style) {
        match (&mut self.code, &mut self.table) {
            (Some(code), _) => code.push_str(text),
            (None, Some(table)) => table.cell.push_str(&text.replace('\n', " ")),
            (None, None) => self.inline.push(text, style),
        }
    }

    fn event(&mut self, event: Event<'_>) {
        let style = self.style();
        match event {
            Event::Text(text) => self.put(&text, style),
            Event::Code(text) => self.put(&text, style.patch(self.look.code())),
            Event::Html(text) | Event::InlineHtml(text) => self.put(&text, style),
            Event::SoftBreak | Event::HardBreak => self.put("\n", style),
            Event::Rule => {
                self.end_block();
                let line = self.look.rule().repeat(self.room());
                self.row(vec![Span::styled(line, self.look.dim())]);
                self.gap();
            }
            Event::TaskListMarker(done) => self.put(if done { "[x] " } else { "[ ] " }, style),
            Event::Start(tag) => self.start(tag),
            Event::End(tag) => self.end(tag),
            Event::FootnoteReference(text) | Event::InlineMath(text) | Event::DisplayMath(text) => {
                self.put(&text, style);
            }
        }
    }

    fn start(&mut self, tag: Tag<'_>) {
        match tag {
            Tag::Heading { level, .. } => {
                self.end_block();
                self.heading = Some(level);
                let look = self.look;
                self.with(|_| look.heading());
            }
            Tag::BlockQuote(_) => {
                self.end_block();
                self.prefix.push(format!("{} ", self.look.side()));
            }
            Tag::CodeBlock(kind) => {
                self.end_block();
                let label = match &kind {
                    CodeBlockKind::Fenced(label) => label.split_whitespace().next().unwrap_or_default(),
                    CodeBlockKind::Indented => "",
                };
                let rule = self.look.rule();
                let label = fit(label, self.room().saturating_sub(4)).into_owned();
                let head = if label.is_empty() { rule.repeat(4) } else { format!("{rule}{rule} {label}") };
                self.row(vec![Span::styled(head, self.look.dim())]);
                self.code = Some(String::new());
            }
            Tag::List(first) => {
                self.end_block();
                self.lists.push(first);
            }
            Tag::Item => {
                self.end_block();
                let mark = match self.lists.last_mut() {
                    Some(Some(n)) => {
                        *n += 1;
                        format!("{}. ", *n - 1)
                    }
                    _ => format!("{} ", self.look.bullet()),
                };
                self.prefix.push(" ".repeat(width(&mark)));
                self.mark = Some(mark);
            }
            Tag::Table(alignment) => {
                self.end_block();
                self.table = Some(Table { alignment, rows: Vec::new(), cell: String::new() });
            }
            Tag::TableHead | Tag::TableRow => {
                if let Some(table) = &mut self.table {
                    table.rows.push(Vec::new());
                }
            }
            Tag::Emphasis => self.with(|style| style.add_modifier(Modifier::ITALIC)),
            Tag::Strong => self.with(|style| style.add_modifier(Modifier::BOLD)),
            Tag::Strikethrough => self.with(|style| style.add_modifier(Modifier::CROSSED_OUT)),
            Tag::Link { dest_url, .. } | Tag::Image { dest_url, .. } => {
                self.link = Some(dest_url.into_string());
                self.with(|style| style.add_modifier(Modifier::UNDERLINED));
            }
            _ => {}
        }
    }

    fn end(&mut self, tag: TagEnd) {
        match tag {
            TagEnd::Paragraph => {
                self.end_block();
                self.gap();
            }
            TagEnd::Heading(_) => {
                self.end_block();
                self.styles.pop();
                self.heading = None;
                self.gap();
            }
            TagEnd::BlockQuote(_) => {
                self.end_block();
                self.prefix.pop();
                self.gap();
            }
            TagEnd::CodeBlock => {
                let code = self.code.take().unwrap_or_default();
                let code = code.strip_suffix('\n').unwrap_or(&code);
                // Code is not folded at words: every cell of it counts.
                for line in code.split('\n') {
                    for row in hard_rows(line, self.room()) {
                        self.row(vec![Span::styled(row.to_owned(), self.look.code())]);
                    }
                }
                self.row(vec![Span::styled(self.look.rule().repeat(4), self.look.dim())]);
                self.gap();
            }
            TagEnd::List(_) => {
                self.end_block();
                self.lists.pop();
                self.gap();
            }
            TagEnd::Item => {
                self.end_block();
                self.prefix.pop();
                self.mark = None;
                // Items of a tight list follow each other.
                while self.rows.last().is_some_and(|row| row.width() == 0) {
                    self.rows.pop();
                }
            }
            TagEnd::TableCell => {
                if let Some(table) = &mut self.table {
                    let cell = std::mem::take(&mut table.cell);
                    if let Some(row) = table.rows.last_mut() {
                        row.push(cell);
                    }
                }
            }
            TagEnd::Table => {
                if let Some(table) = self.table.take() {
                    self.table(&table);
                    self.gap();
                }
            }
            TagEnd::Emphasis | TagEnd::Strong | TagEnd::Strikethrough => {
                self.styles.pop();
            }
            TagEnd::Link | TagEnd::Image => {
                self.styles.pop();
                if let Some(url) = self.link.take()
                    && !url.is_empty()
                    && !self.inline.text.ends_with(&url)
                {
                    let (url, dim) = (format!(" ({url})"), self.look.dim());
                    self.put(&url, dim);
                }
            }
            TagEnd::HtmlBlock => {
                self.end_block();
                self.gap();
            }
            _ => {}
        }
    }

    /// Cells that the marks of open blocks leave; where they leave nearly none the marks are left out.
    fn room(&self) -> usize {
        let used: usize = self.prefix.iter().map(|p| width(p)).sum();
        if used + 4 > self.cells { self.cells } else { self.cells - used }
    }

    fn row(&mut self, spans: Vec<Span<'static>>) {
        let mut all = Vec::new();
        if self.room() < self.cells || self.prefix.is_empty() {
            let mark = self.mark.take();
            let (last, outer) = match self.prefix.split_last() {
                Some((last, outer)) => (Some(last), outer),
                None => (None, &[][..]),
            };
            let before = outer.concat() + mark.as_ref().or(last).map_or("", String::as_str);
            if !before.is_empty() {
                all.push(Span::styled(before, self.look.dim()));
            }
        }
        all.extend(spans);
        self.rows.push(Line::from(all));
    }

    /// An empty row, unless there is one.
    fn gap(&mut self) {
        if self.rows.last().is_some_and(|row| !row.spans.is_empty()) {
            self.rows.push(Line::default());
        }
    }

    /// Wraps what was gathered.
    fn end_block(&mut self) {
        let inline = std::mem::take(&mut self.inline);
        if inline.text.is_empty() {
            return;
        }
        let room = self.room();
        for range in wrap(inline.text.trim_end_matches('\n'), room) {
            let shown = inline.text[range.clone()].trim_end_matches(' ').len();
            self.row(inline.spans(range.start..range.start + shown));
        }
        if self.heading == Some(HeadingLevel::H1) {
            let under = self.look.rule().repeat(width(inline.text.trim_end()).min(room));
            self.row(vec![Span::styled(under, self.look.dim())]);
        }
    }

    fn table(&mut self, table: &Table) {
        let columns = table.rows.iter().map(Vec::len).max().unwrap_or(0);
        if columns == 0 {
            return;
        }
        let side = format!(" {} ", self.look.side());
        let room = self.room().saturating_sub(3 * (columns - 1)).max(columns);
        let widest = |c: usize| table.rows.iter().filter_map(|row| row.get(c)).map(|cell| width(cell)).max();
        let mut widths: Vec<usize> = (0..columns).map(|c| widest(c).unwrap_or(0).max(1)).collect();
        // The widest column gives until all fit.
        while widths.iter().sum::<usize>() > room {
            let Some(widest) = widths.iter_mut().max() else { return };
            if *widest <= 1 {
                break;
            }
            *widest -= 1;
        }
        for (r, row) in table.rows.iter().enumerate() {
            let cells: Vec<Vec<String>> = (0..columns)
                .map(|c| {
                    let cell = row.get(c).map_or("", String::as_str);
                    wrap(cell, widths[c]).into_iter().map(|range| cell[range].trim().to_owned()).collect()
                })
                .collect();
            let height = cells.iter().map(Vec::len).max().unwrap_or(1);
            let style = if r == 0 { Style::new().add_modifier(Modifier::BOLD) } else { Style::new() };
            for line in 0..height {
                let mut spans = Vec::new();
                for (c, cell) in cells.iter().enumerate() {
                    if c > 0 {
                        spans.push(Span::styled(side.clone(), self.look.dim()));
                    }
                    let text = cell.get(line).map_or("", String::as_str);
                    let missing = widths[c].saturating_sub(width(text));
                    let left = match table.alignment.get(c) {
                        Some(Alignment::Right) => missing,
                        Some(Alignment::Center) => missing / 2,
                        _ => 0,
                    };
                    spans.push(Span::styled(pad(&(" ".repeat(left) + text), widths[c]), style));
                }
                self.row(spans);
            }
            if r == 0 {
                let all = widths.iter().sum::<usize>() + 3 * (columns - 1);
                self.row(vec![Span::styled(self.look.rule().repeat(all.min(self.cells)), self.look.dim())]);
            }
        }
    }
}

/// `line` in pieces of at most `cells`.
fn hard_rows(line: &str, cells: usize) -> Vec<&str> {
    let mut rows = Vec::new();
    let (mut start, mut used) = (0, 0);
    for (at, grapheme) in line.grapheme_indices(true) {
        let w = super::text::cells(grapheme);
        if used + w > cells && at > start {
            rows.push(&line[start..at]);
            (start, used) = (at, 0);
        }
        used += w;
    }
    rows.push(&line[start..]);
    rows
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::tui::look::Theme;
    use proptest::prelude::*;

    const LOOK: Look = Look { theme: Theme::Plain, ascii: true };

    fn page(text: &str, cells: usize) -> String {
        let rows: Vec<String> = rows(text, cells, LOOK).iter().map(ToString::to_string).collect();
        rows.join("\n")
    }

    #[test]
    fn blocks() {
        let text = "# 题目\n\n床前明月光，疑是地上霜。\n举头**望**明月。\n\n- one\n- two\n  - 三\n\n\
                    1. x\n2. y\n\n> 引用\n\n```rust\nfn main() {}\n```\n---\n[a](http://b)";
        assert_eq!(
            page(text, 20),
            "题目\n----\n\n床前明月光，疑是地上\n霜。\n举头望明月。\n\n* one\n* two\n  * 三\n\n1. x\n2. y\n\n| 引用\n\n\
             -- rust\nfn main() {}\n----\n\n--------------------\n\na (http://b)"
        );
    }

    #[test]
    fn tables_are_as_wide_as_their_cells_or_the_room() {
        let table = "|名|词|\n|---|--:|\n|春眠不觉晓|1|\n|a|22|";
        assert_eq!(page(table, 30), "名         | 词\n---------------\n春眠不觉晓 |  1\na          | 22");
        assert_eq!(page(table, 10), "名    | 词\n----------\n春眠  |  1\n不觉  |   \n晓    |   \na     | 22");
    }

    #[test]
    fn control_characters_are_signs() {
        let shown = page("a\u{1b}[31mb `c\u{7}`\n\n```\u{1b}]0;\n\u{1b}c\n```", 40);
        assert!(!shown.chars().any(|c| c.is_control() && c != '\n'), "{shown:?}");
        assert!(shown.contains("a␛[31mb c␇"), "{shown:?}");
    }

    #[test]
    fn a_finished_part_is_shown_alone_as_in_the_whole() {
        let text = "段一\n句二\n\nsecond *x*\n\n```\na\n\nb\n```\n\n- i\n\n- j\n\nend\n\nlast";
        let mut seen = 0;
        for at in (0..=text.len()).filter(|&at| text.is_char_boundary(at)) {
            let cut = finished(&text[..at]);
            assert!(cut >= seen, "{at}");
            seen = cut;
            let whole = page(&text[..at], 30);
            let parts = [page(&text[..cut], 30), page(&text[cut..at], 30)];
            let parts: Vec<&str> = parts.iter().map(String::as_str).filter(|p| !p.is_empty()).collect();
            assert_eq!(parts.join("\n\n"), whole, "{:?}", &text[..at]);
        }
        assert!(seen > 0);
    }

    proptest! {
        #[test]
        fn no_row_is_too_wide(text in "[-#*>|`~_\\[\\]()a1. 床，\u{301}\n\u{1b}]{0,80}", cells in 4usize..30) {
            for row in rows(&text, cells, LOOK) {
                let shown = row.to_string();
                let fits = width(&shown) <= cells.max(4) || shown.graphemes(true).count() <= 2;
                prop_assert!(fits, "{shown:?} in {cells}");
                prop_assert!(!shown.chars().any(char::is_control));
            }
        }
    }
}
