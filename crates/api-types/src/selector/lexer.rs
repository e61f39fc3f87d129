//! Tokens of the label selector grammar.

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Token {
    End,
    Open,
    Close,
    Comma,
    Bang,
    Equals,
    NotEquals,
    Greater,
    Less,
    In,
    NotIn,
    Word,
    Unknown,
}

/// What separates words, and nothing else does: a form feed is part of a word.
const SPACE: [char; 4] = [' ', '\t', '\r', '\n'];

/// Splits a selector into tokens with their text; the last is always `End`.
pub(super) fn tokens(text: &str) -> Vec<(Token, &str)> {
    let mut out = Vec::new();
    let mut rest = text;
    loop {
        rest = rest.trim_start_matches(SPACE);
        let Some(first) = rest.chars().next() else { break };
        let len = if is_special(first) {
            rest.find(|c: char| !is_special(c) || matches!(c, '(' | ')' | ','))
                .map_or(rest.len(), |n| n.max(1))
        } else {
            rest.find(|c: char| is_special(c) || SPACE.contains(&c)).unwrap_or(rest.len())
        };
        let (word, token) = if is_special(first) { symbol(&rest[..len]) } else { word(&rest[..len]) };
        rest = &rest[word.len()..];
        out.push((token, word));
    }
    out.push((Token::End, ""));
    out
}

/// The longest operator at the start of a run of special characters.
fn symbol(run: &str) -> (&str, Token) {
    const SYMBOLS: [(&str, Token); 9] = [
        ("==", Token::Equals),
        ("!=", Token::NotEquals),
        ("=", Token::Equals),
        ("!", Token::Bang),
        (">", Token::Greater),
        ("<", Token::Less),
        ("(", Token::Open),
        (")", Token::Close),
        (",", Token::Comma),
    ];
    SYMBOLS
        .iter()
        .find(|(s, _)| run.starts_with(s))
        .map_or((run, Token::Unknown), |(s, t)| (&run[..s.len()], *t))
}

fn word(word: &str) -> (&str, Token) {
    let token = match word {
        "in" => Token::In,
        "notin" => Token::NotIn,
        _ => Token::Word,
    };
    (word, token)
}

fn is_special(c: char) -> bool {
    matches!(c, '=' | '!' | '(' | ')' | ',' | '>' | '<')
}
