//! Huozi's format as text: its two markers, its default system text, its template.

/// Begins every message of Huozi's format.
pub const BEGIN: &str = "<|beginofutterance|>";
/// Ends every message of Huozi's format.
pub const END: &str = "<|endofutterance|>";

/// A literal for `concat!`, which takes no constants.
macro_rules! huozi_system {
    () => {
        "你是“活字”，由哈尔滨工业大学自然语言处理研究所训练的人工智能助手。请用自然、准确、有条理的语言回答用户的问题，并帮助用户完成任务。"
    };
}

/// The system text of Huozi's format when a conversation has none.
pub const DEFAULT_SYSTEM: &str = huozi_system!();

/// Huozi's format as a Jinja template, for GGUF files: the system message (always), the other messages, the
/// beginning of the answer.
///
/// One line, every newline an escape inside a string: `trim_blocks` and `lstrip_blocks` cannot change the
/// rendered text.
pub const TEMPLATE: &str = concat!(
    "{% if messages and messages[0]['role'] in ['system', '系统'] %}",
    "{% set system = messages[0]['content'] %}{% set turns = messages[1:] %}",
    "{% else %}{% set system = '",
    huozi_system!(),
    "' %}{% set turns = messages %}{% endif %}",
    r"{{ '<|beginofutterance|>系统\n' + system + '<|endofutterance|>\n' }}",
    "{% for message in turns %}",
    "{% if message['role'] in ['user', '用户'] %}{% set role = '用户' %}",
    "{% elif message['role'] in ['assistant', '助手'] %}{% set role = '助手' %}",
    "{% else %}{{ raise_exception('roles are system (first only), user and assistant') }}{% endif %}",
    r"{{ '<|beginofutterance|>' + role + '\n' + message['content'] + '<|endofutterance|>\n' }}",
    "{% endfor %}",
    r"{% if add_generation_prompt %}{{ '<|beginofutterance|>助手\n' }}{% endif %}",
);

/// The metadata key with the texts of a tokenizer's `additional_special_tokens`, for chat templates that use
/// them.
pub const ADDITIONAL_SPECIAL_TOKENS: &str = "huozi.additional_special_tokens";

/// Whether `template` is one that the converter has written for Huozi. Every version has written
/// [`TEMPLATE`]; one that is changed later stays in this list.
pub fn is_own_template(template: &str) -> bool {
    [TEMPLATE].contains(&template)
}

/// The ids of [`BEGIN`] and [`END`] where a vocabulary has both: it is Huozi's.
///
/// `id`: the id of the token with a spelling.
pub fn find(id: impl Fn(&str) -> Option<u32>) -> Option<[u32; 2]> {
    Some([id(BEGIN)?, id(END)?])
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_vocabulary_with_one_marker_is_not_huozi_s() {
        let both = |text: &str| [BEGIN, END].iter().position(|m| *m == text).map(|i| i as u32 + 7);
        assert_eq!(find(both), Some([7, 8]));
        assert_eq!(find(|text| both(text).filter(|_| text == BEGIN)), None);
        assert_eq!(find(|text| both(text).filter(|_| text == END)), None);
    }
}
