//! A template's text for minijinja: what Jinja2 with transformers' extension reads, and minijinja does not.
//!
//! - Every line break is `\n`, as after Jinja2's reader.
//! - `{% generation %}` marks what the model wrote, for training only: its block becomes `{% with %}`, which
//!   limits the scope of variables in the same way.
//! - Escapes in string literals are those of Python.
//! - `'%s' % x` becomes `'%s'|format(x)`.
//! - The line break after `{% raw %}` stays.
//! - What `set`, `with`, `for`, `macro` and `call` give to names is checked behind the tag, see [`CHECK`].
//!
//! Comments, raw blocks and text outside of tags stay as they are. Tags that would nest too deeply for the
//! stack are refused.

/// The function that checks what tags give to names: a value can be made to hold itself, or itself many
/// times, at the cost of a few instructions, and then no limit on instructions bounds its printing.
pub(super) const CHECK: &str = "huozi_checked_value";
/// The variable that takes what [`CHECK`] returns.
const CHECKED: &str = "huozi_checked";
/// Names and signs of one tag. The longest tags of real templates have some 50; the parser's stack grows with
/// them.
const MAX_TAG: usize = 1000;
/// `elif`s of a template, each inside the one before for the parser. Real templates have some 20.
const MAX_ELIF: usize = 200;

/// The template for minijinja.
///
/// # Errors
/// A tag that is too long, too many `elif`s.
pub(super) fn for_minijinja(source: &str) -> Result<String, String> {
    let mut elifs = 0;
    let source = source.replace("\r\n", "\n").replace('\r', "\n");
    let mut out = String::with_capacity(source.len());
    let mut rest = source.as_str();
    while let Some(at) = rest.find('{') {
        let tag = &rest[at..];
        out.push_str(&rest[..at]);
        let length = match tag.as_bytes().get(1) {
            Some(b'#') => verbatim(tag, tag.find("#}").map_or(tag.len(), |n| n + 2), &mut out),
            Some(b'%') => match raw_block(tag, &mut out) {
                Some(length) => length,
                None => {
                    elifs += usize::from(inner_of(&tag[2..]).starts_with("elif"));
                    code(tag, &mut out)?
                }
            },
            Some(b'{') => code(tag, &mut out)?,
            _ => verbatim(tag, 1, &mut out),
        };
        rest = &tag[length..];
    }
    if elifs > MAX_ELIF {
        return Err(format!("it has {elifs} elif; {MAX_ELIF} are allowed"));
    }
    out.push_str(rest);
    Ok(out)
}

/// Writes the first `length` bytes of `text`; their number.
fn verbatim(text: &str, length: usize, out: &mut String) -> usize {
    out.push_str(&text[..length]);
    length
}

/// Writes the raw block that `text` begins with, if it does; its length.
fn raw_block(text: &str, out: &mut String) -> Option<usize> {
    let begin = named_tag(text, "raw")?;
    out.push_str(&text[..begin - 2]);
    // minijinja takes the line break after it away, Jinja2 does not.
    out.push_str(if text[..begin - 2].ends_with(['-', '+']) { "%}" } else { "+%}" });
    let mut end = begin;
    while let Some(n) = text[end..].find("{%") {
        end += n;
        match named_tag(&text[end..], "endraw") {
            Some(length) => return Some(begin + verbatim(&text[begin..], end + length - begin, out)),
            None => end += 2,
        }
    }
    Some(begin + verbatim(&text[begin..], text.len() - begin, out))
}

/// The length of the tag `{% name %}` that `text` begins with, if it does.
fn named_tag(text: &str, name: &str) -> Option<usize> {
    let inner = text.strip_prefix("{%")?;
    let inner = inner.strip_prefix(['-', '+']).unwrap_or(inner).trim_start();
    let inner = inner.strip_prefix(name)?.trim_start();
    let inner = inner.strip_prefix(['-', '+']).unwrap_or(inner);
    Some(text.len() - inner.strip_prefix("%}")?.len())
}

/// Writes the tag `{% ... %}` or `{{ ... }}` that `text` begins with; its length.
fn code(text: &str, out: &mut String) -> Result<usize, String> {
    let block = text.starts_with("{%");
    let Some(length) = inside(&text[2..], if block { "%}" } else { "}}" }) else {
        // The parser says what is wrong with a tag without an end.
        return Ok(verbatim(text, text.len(), out));
    };
    if weight(&text[2..2 + length]) > MAX_TAG {
        return Err(format!(
            "a tag has more than {MAX_TAG} names and signs: {:.40}...",
            &text[2..2 + length]
        ));
    }
    let (mut inner, end) = (&text[2..2 + length], &text[2 + length..4 + length]);
    out.push_str(&text[..2]);
    if block {
        let start = inner_of(inner);
        let name = &start[..name_length(start)];
        if name == "do" {
            return Err("unknown tag \"do\" (transformers does not know it either)".into());
        }
        if let Some(prefix) = name.strip_suffix("generation").filter(|prefix| ["", "end"].contains(prefix)) {
            out.push_str(&inner[..inner.len() - start.len()]);
            out.push_str(prefix);
            out.push_str("with");
            inner = &start[name.len()..];
        }
    }
    let names = if block { bound_names(&text[2..2 + length]) } else { String::new() };
    if names.is_empty() {
        expression(inner, out);
        out.push_str(end);
        return Ok(length + 4);
    }
    // The sign for white space at the end of the tag belongs to the tag that follows it.
    let signs = ['-', '+'];
    let (inner, sign) = match inner.strip_suffix(signs) {
        Some(before) => (before, &inner[before.len()..]),
        None => (inner, ""),
    };
    expression(inner, out);
    out.push_str(&format!("%}}{{% set {CHECKED} = {CHECK}(({names})) {sign}%}}"));
    Ok(length + 4)
}

/// The names that the tag with this inside gives values to, as an expression; empty for other tags.
fn bound_names(tag: &str) -> String {
    let inner = inner_of(tag);
    let (name, rest) = inner.split_at(name_length(inner));
    let in_brackets = |rest: &str| {
        let from = rest.find('(')? + 1;
        Some(rest[from..from + inside(&rest[from..], ")")?].to_owned())
    };
    let bindings = match name {
        "set" | "with" => Some(rest.to_owned()),
        "macro" => in_brackets(rest),
        "call" if rest.trim_start().starts_with('(') => in_brackets(rest),
        "for" => return loop_names(rest).trim().to_owned(),
        _ => None,
    };
    let Some(bindings) = bindings else { return String::new() };
    let mut names = Vec::new();
    let mut rest = bindings.as_str();
    while !rest.is_empty() {
        let end = inside(rest, ",").unwrap_or(rest.len());
        let one = &rest[..end];
        let assigned = inside(one, "=");
        match assigned {
            Some(at) => names.push(one[..at].trim()),
            None if name == "set" && inside(rest, "=").is_some() => names.push(one.trim()),
            None if ["macro", "call"].contains(&name) => names.push(one.trim()),
            None => {}
        }
        rest = rest.get(end + 1..).unwrap_or_default();
        if name == "set" && assigned.is_some() {
            break;
        }
    }
    names.retain(|name| !name.is_empty());
    names.join(", ")
}

/// What stands before `in` in a loop's tag.
fn loop_names(tag: &str) -> &str {
    let mut at = 0;
    while let Some(n) = tag[at..].find("in") {
        at += n;
        let before = tag[..at].chars().next_back().is_none_or(|c| !c.is_alphanumeric() && c != '_');
        if before && name_length(&tag[at..]) == 2 {
            return &tag[..at];
        }
        at += 2;
    }
    ""
}

/// How many names and signs a tag has outside of its literals.
fn weight(text: &str) -> usize {
    let (mut at, mut count, mut in_name) = (0, 0, false);
    while let Some(c) = text[at..].chars().next() {
        let name = c.is_alphanumeric() || c == '_';
        count += usize::from(!(c.is_whitespace() || name && in_name));
        in_name = name;
        at += if c == '\'' || c == '"' { literal_length(&text[at..], c) } else { c.len_utf8() };
    }
    count
}

/// The length of what stands in `text` before `end` outside of strings and brackets.
fn inside(text: &str, end: &str) -> Option<usize> {
    let (mut at, mut depth) = (0, 0);
    while let Some(c) = text[at..].chars().next() {
        if depth == 0 && text[at..].starts_with(end) {
            return Some(at);
        }
        match c {
            '\'' | '"' => {
                at += literal_length(&text[at..], c);
                continue;
            }
            '(' | '[' | '{' => depth += 1,
            ')' | ']' | '}' => depth -= 1,
            _ => {}
        }
        at += c.len_utf8();
    }
    None
}

/// What follows the sign for white space with which a tag may begin.
fn inner_of(tag: &str) -> &str {
    tag.strip_prefix(['-', '+']).unwrap_or(tag).trim_start()
}

fn name_length(text: &str) -> usize {
    text.find(|c: char| !c.is_alphanumeric() && c != '_').unwrap_or(text.len())
}

/// The length of the literal in `quote`s that `text` begins with.
fn literal_length(text: &str, quote: char) -> usize {
    let mut escaped = false;
    for (at, c) in text.char_indices().skip(1) {
        if c == quote && !escaped {
            return at + 1;
        }
        escaped = c == '\\' && !escaped;
    }
    text.len()
}

/// Writes the inside of a tag: the escapes of its literals decoded, `'...' % x` as a filter.
fn expression(text: &str, out: &mut String) {
    let mut at = 0;
    // Where operands end that need a bracket.
    let mut ends = Vec::new();
    loop {
        while ends.pop_if(|end| *end <= at).is_some() {
            out.push(')');
        }
        let Some(c) = text[at..].chars().next() else { return };
        if c != '\'' && c != '"' {
            out.push(c);
            at += c.len_utf8();
            continue;
        }
        let length = literal_length(&text[at..], c);
        literal(&text[at..at + length], c, out);
        at += length;
        let Some(operand) = text[at..].trim_start().strip_prefix('%').map(str::trim_start) else { continue };
        while ends.pop_if(|end| *end <= at).is_some() {
            out.push(')');
        }
        at = text.len() - operand.len();
        let length = operand_length(operand);
        let is_group =
            operand.starts_with('(') && inside(near(&operand[1..]), ")").map(|n| n + 2) == Some(length);
        out.push_str("|format");
        if !is_group {
            out.push('(');
            ends.push(at + length);
        }
    }
}

/// The beginning of `text`: operands of `%` are short, and templates come from outside.
fn near(text: &str) -> &str {
    &text[..text.floor_char_boundary(1000)]
}

/// The length of the operand that `text` begins with: a name, a literal or a group, and what is got from it.
fn operand_length(text: &str) -> usize {
    let text = near(text);
    let mut at = match text.chars().next() {
        Some(quote @ ('\'' | '"')) => literal_length(text, quote),
        _ => name_length(text),
    };
    while let Some(c) = text[at..].chars().next() {
        let close = match c {
            '.' => {
                at += 1 + name_length(&text[at + 1..]);
                continue;
            }
            '(' => ")",
            '[' => "]",
            '{' if at == 0 => "}",
            _ => break,
        };
        at += inside(&text[at + 1..], close).map_or(text.len() - at, |length| length + 2);
    }
    at
}

/// Writes a literal in `quote`s with its escapes decoded.
fn literal(text: &str, quote: char, out: &mut String) {
    let inner = text[1..].strip_suffix(quote).unwrap_or(&text[1..]);
    out.push(quote);
    let mut chars = inner.chars();
    while let Some(c) = chars.next() {
        let c = if c == '\\' { escape(&mut chars) } else { Some(c) };
        match c {
            Some(c) if c == quote || c == '\\' => out.extend(['\\', c]),
            Some(c) => out.push(c),
            None => {}
        }
    }
    out.push(quote);
}

/// The character that Python reads after a backslash, which stays one itself before others; none for a line
/// that goes on.
fn escape(chars: &mut std::str::Chars<'_>) -> Option<char> {
    let after = chars.as_str();
    let first = after.chars().next()?;
    let number = |skip: usize, digits: usize, radix: u32| {
        let text = after.get(skip..)?;
        let length = text.chars().take(digits).take_while(|c| c.is_digit(radix)).count();
        // All of them in base 16, as many as there are in base 8.
        let whole = radix == 8 || length == digits;
        let code = u32::from_str_radix(&text[..length], radix).ok().filter(|_| whole)?;
        // A surrogate is no character.
        Some((char::from_u32(code).unwrap_or(char::REPLACEMENT_CHARACTER), &text[length..]))
    };
    let coded = match first {
        'x' => number(1, 2, 16),
        'u' => number(1, 4, 16),
        'U' => number(1, 8, 16),
        '0'..='7' => number(0, 3, 8),
        _ => None,
    };
    if let Some((c, rest)) = coded {
        *chars = rest.chars();
        return Some(c);
    }
    let c = match first {
        'a' => Some('\u{7}'),
        'b' => Some('\u{8}'),
        'f' => Some('\u{c}'),
        'n' => Some('\n'),
        'r' => Some('\r'),
        't' => Some('\t'),
        'v' => Some('\u{b}'),
        '\\' | '\'' | '"' => Some(first),
        '\n' => None,
        _ => return Some('\\'),
    };
    chars.next();
    c
}

#[cfg(test)]
mod tests {
    use super::for_minijinja;

    #[test]
    fn only_the_tag_is_rewritten() {
        for same in [
            "generation {{ generation }} {% if generation == 1 %}",
            "{# {% generation %} #}",
            "{% raw -%}{% generation %}{%- endraw -%}",
            "{{ '{% generation %}' }}",
            "{{ {'a': {'b': '}}'}} }}{",
            "{% if x %}{{ y",
        ] {
            assert_eq!(for_minijinja(same).unwrap(), same);
        }
        for (source, want) in [
            ("{%- generation -%}a{%+endgeneration+%}", "{%- with -%}a{%+endwith+%}"),
            ("{%generation%}{%  endgeneration %}", "{%with%}{%  endwith %}"),
            ("{%raw%}{%generation%}{%endraw%}{%generation%}", "{%raw+%}{%generation%}{%endraw%}{%with%}"),
            ("{% raw %}{% generation %}", "{% raw +%}{% generation %}"),
            ("a\r\nb\rc", "a\nb\nc"),
        ] {
            assert_eq!(for_minijinja(source).unwrap(), want);
        }
    }

    #[test]
    fn what_gets_a_name_is_checked() {
        for (tag, names) in [
            ("{% set x = 1 %}", "x"),
            ("{%- set n.x = [n, a == b] -%}", "n.x"),
            ("{% set a, b = c, d %}", "a, b"),
            ("{%set(a,b)=c+%}", "(a,b)"),
            ("{% with a = [1, 2], b = 'x, y = z' %}", "a, b"),
            ("{% for k, v in x.items() %}", "k, v"),
            ("{% for inner\nin[1, 2] recursive -%}", "inner"),
            ("{% macro f(a, b=[1, 2]) %}", "a, b"),
            ("{% call(user) f() %}", "user"),
            ("{% set x %}", ""),
            ("{% call f(a) %}", ""),
            ("{% macro f() %}", ""),
            ("{%- with -%}", ""),
            ("{% if a == b %}", ""),
        ] {
            let written = for_minijinja(tag).unwrap();
            let check = written.split_once("checked_value((").map_or("", |(_, rest)| rest);
            assert_eq!(check.split_once(")) ").map_or("", |(names, _)| names), names, "{written}");
            assert_eq!(written.contains("%}{% set huozi_checked"), !names.is_empty(), "{written}");
            assert_eq!(written.ends_with("-%}"), tag.ends_with("-%}"), "{written}");
        }
    }

    #[test]
    fn a_remainder_of_a_string_is_a_format() {
        for (source, want) in [
            ("{{ '%s' % x }}", "{{ '%s'|format(x) }}"),
            ("{{ '%s' % x.y[0]('a') + '' }}", "{{ '%s'|format(x.y[0]('a')) + '' }}"),
            ("{{'%s%%'%('\\n', 2)~a}}", "{{'%s%%'|format('\n', 2)~a}}"),
            ("{% if '%d' %(1)%}", "{% if '%d'|format(1)%}"),
            ("{{ '%s' % (a)[0] }}", "{{ '%s'|format((a)[0]) }}"),
            ("{% if a == 'x' %}{{ 7 % 3 }}{% endif %}", "{% if a == 'x' %}{{ 7 % 3 }}{% endif %}"),
            ("{% if a == 'x' -%}", "{% if a == 'x' -%}"),
        ] {
            assert_eq!(for_minijinja(source).unwrap(), want);
        }
    }

    #[test]
    fn what_would_nest_too_deeply_is_refused() {
        for long in [
            format!("{{{{ 1{} }}}}", "+1".repeat(500)),
            format!("{{{{ {}1 }}}}", "not ".repeat(1001)),
            format!("{{% if a %}}{}{{% endif %}}", "{%- elif b %}".repeat(201)),
        ] {
            assert!(for_minijinja(&long).is_err(), "{long:.40}");
        }
        assert!(for_minijinja(&format!("{{{{ '{}' }}}}", "a + ".repeat(2000))).is_ok());
    }

    #[test]
    fn escapes_are_those_of_python() {
        for (source, want) in [
            (r"{{ '\n\t\\n\'' }}", "{{ '\n\t\\\\n\\'' }}"),
            (r#"{{ "\x41\u4e2d\U0001F600\101\0" }}"#, "{{ \"A中😀A\0\" }}"),
            (r"{{ '\d\/\x4\u12' }}", r"{{ '\\d\\/\\x4\\u12' }}"),
            ("{{ 'a\\\nb' }}", "{{ 'ab' }}"),
            (r"\n{{ '\", r"\n{{ '\"),
        ] {
            assert_eq!(for_minijinja(source).unwrap(), want);
        }
    }
}
