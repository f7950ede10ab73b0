//! The notation of a command's arguments, and the tree that COMMAND DOCS makes of it.
//!
//! It is the notation of Redis's documentation: `key value [NX | XX] [EX seconds | PX milliseconds]`. A word
//! in small letters stands for an argument, one in capitals for itself; `[...]` may be left out, `<...>` only
//! groups, `|` parts alternatives, and a bracket that ends with `...` repeats what stands before it, as
//! `field value [field value ...]`. A group may begin with its name and a colon; else it is called by its
//! parts. What kind of value an argument is follows from its name.

/// What an argument is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Kind {
    /// The name of a key.
    Key,
    /// Bytes.
    String,
    /// An integer of 64 bits.
    Integer,
    /// A glob pattern.
    Pattern,
    /// Seconds or milliseconds since 1970.
    UnixTime,
    /// A word that stands for itself.
    PureToken,
    /// One of its parts.
    OneOf,
    /// All of its parts.
    Block,
}

impl Kind {
    /// What COMMAND DOCS calls it.
    pub fn name(self) -> &'static str {
        match self {
            Kind::Key => "key",
            Kind::String => "string",
            Kind::Integer => "integer",
            Kind::Pattern => "pattern",
            Kind::UnixTime => "unix-time",
            Kind::PureToken => "pure-token",
            Kind::OneOf => "oneof",
            Kind::Block => "block",
        }
    }

    /// The kind of values of that name.
    fn of(name: &str) -> Kind {
        match name {
            "key" | "target" | "source" => Kind::Key,
            "client-id" | "count" | "cursor" | "decrement" | "increment" | "index"
            | "milliseconds" | "port" | "protover" | "seconds" | "timeout" => Kind::Integer,
            "pattern" => Kind::Pattern,
            "unix-time-seconds" | "unix-time-milliseconds" => Kind::UnixTime,
            _ => Kind::String,
        }
    }
}

/// An argument, or a group of them.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Argument {
    /// Its name.
    pub name: String,
    /// What it is.
    pub kind: Kind,
    /// The word that stands before it, or that it is.
    pub token: Option<String>,
    /// It may be left out.
    pub optional: bool,
    /// It may be given several times.
    pub multiple: bool,
    /// Then each time with its token.
    pub multiple_token: bool,
    /// Of a group.
    pub parts: Vec<Argument>,
}

impl Argument {
    fn new(name: &str, kind: Kind, token: Option<String>) -> Argument {
        Argument {
            name: name.to_owned(),
            kind,
            token,
            optional: false,
            multiple: false,
            multiple_token: false,
            parts: Vec::new(),
        }
    }

    fn group(kind: Kind, parts: Vec<Argument>) -> Argument {
        let names: Vec<&str> = parts.iter().map(|part| part.name.as_str()).collect();
        let name = names.join("_");
        Argument { parts, ..Argument::new(&name, kind, None) }
    }
}

/// The arguments that a text describes. The error says what is wrong with it.
pub fn parse(text: &str) -> Result<Vec<Argument>, String> {
    let mut parser = Parser { symbols: symbols(text), at: 0 };
    let arguments = parser.sequence()?;
    match parser.peek() {
        "" => Ok(arguments),
        other => Err(format!("'{other}' where the text should end")),
    }
}

/// Words and signs.
fn symbols(text: &str) -> Vec<&str> {
    let mut found = Vec::new();
    for word in text.split_whitespace() {
        let mut rest = word;
        while let Some(at) = rest.find(['[', ']', '<', '>']) {
            found.extend([&rest[..at], &rest[at..=at]]);
            rest = &rest[at + 1..];
        }
        found.push(rest);
    }
    found.retain(|symbol| !symbol.is_empty());
    found
}

fn is_token(symbol: &str) -> bool {
    symbol.starts_with(|first: char| first.is_ascii_uppercase())
}

fn is_value(symbol: &str) -> bool {
    symbol.starts_with(|first: char| first.is_ascii_lowercase()) && !symbol.ends_with(':')
}

struct Parser<'a> {
    symbols: Vec<&'a str>,
    at: usize,
}

impl<'a> Parser<'a> {
    /// The next symbol, empty at the end.
    fn peek(&self) -> &'a str {
        self.symbols.get(self.at).copied().unwrap_or_default()
    }

    fn next(&mut self) -> &'a str {
        let symbol = self.peek();
        self.at += 1;
        symbol
    }

    fn eat(&mut self, symbol: &str) -> bool {
        let there = self.peek() == symbol;
        self.at += usize::from(there);
        there
    }

    /// Arguments one after the other, until something else comes.
    fn sequence(&mut self) -> Result<Vec<Argument>, String> {
        let mut found: Vec<Argument> = Vec::new();
        loop {
            let symbol = self.peek();
            if symbol == "[" {
                self.optional(&mut found)?;
            } else if symbol == "<" || is_value(symbol) {
                found.push(self.one()?);
            } else if is_token(symbol) {
                let token = Some(self.next().to_owned());
                let takes = self.peek() == "<" || is_value(self.peek());
                found.push(match takes {
                    true => Argument { token, ..self.one()? },
                    false => Argument::new(&symbol.to_lowercase(), Kind::PureToken, token),
                });
            } else {
                return Ok(found);
            }
        }
    }

    /// A value or a group in `<...>`.
    fn one(&mut self) -> Result<Argument, String> {
        let symbol = self.next();
        if symbol != "<" {
            return Ok(Argument::new(symbol, Kind::of(symbol), None));
        }
        let label = self.label();
        let first = self.alternative()?;
        self.group(label, first, ">")
    }

    /// What may be left out, or a repetition of what was found before it.
    fn optional(&mut self, found: &mut Vec<Argument>) -> Result<(), String> {
        self.next();
        let label = self.label();
        let first = self.alternative()?;
        if !self.eat("...") {
            let group = self.group(label, first, "]")?;
            found.push(Argument { optional: true, ..group });
            return Ok(());
        }
        if !self.eat("]") {
            return Err(format!("'{}' behind '...'", self.peek()));
        }
        let Some(at) = found.len().checked_sub(first.parts.len()) else {
            return Err("more is repeated than was there".into());
        };
        let mut repeated = join(found.split_off(at), false);
        let again = join(first.parts, false);
        // `ID client-id [client-id ...]` has its token once.
        if repeated != again && (Argument { token: None, ..repeated.clone() }) != again {
            return Err(format!("'{}' is repeated behind '{}'", again.name, repeated.name));
        }
        repeated.multiple = true;
        repeated.multiple_token = again.token.is_some();
        found.push(repeated);
        Ok(())
    }

    /// The name of a group, where it has one.
    fn label(&mut self) -> Option<&'a str> {
        let label = self.peek().strip_suffix(':')?;
        self.at += 1;
        Some(label)
    }

    fn alternative(&mut self) -> Result<Alternative, String> {
        let leads = is_token(self.peek());
        let parts = self.sequence()?;
        if parts.is_empty() {
            return Err(format!("nothing before '{}'", self.peek()));
        }
        Ok(Alternative { parts, leads })
    }

    /// The rest of a group behind its first alternative.
    fn group(
        &mut self,
        label: Option<&str>,
        first: Alternative,
        end: &str,
    ) -> Result<Argument, String> {
        let mut alternatives = vec![join(first.parts, first.leads)];
        while self.eat("|") {
            let next = self.alternative()?;
            alternatives.push(join(next.parts, next.leads));
        }
        if !self.eat(end) {
            return Err(format!("'{}' where '{end}' should be", self.peek()));
        }
        let mut group = match alternatives.len() {
            1 => alternatives.remove(0),
            _ => Argument::group(Kind::OneOf, alternatives),
        };
        if let Some(label) = label {
            if group.parts.is_empty() {
                let token = group.token.take();
                group = Argument { token, ..Argument::group(Kind::Block, vec![group]) };
            }
            group.name = label.to_owned();
        }
        Ok(group)
    }
}

/// One side of a `|`.
struct Alternative {
    parts: Vec<Argument>,
    /// It begins with a token.
    leads: bool,
}

/// One argument made of several; a token at the beginning is that of the whole.
fn join(mut parts: Vec<Argument>, leads: bool) -> Argument {
    if parts.len() == 1 {
        return parts.remove(0);
    }
    let token = if leads { parts.first_mut().and_then(|first| first.token.take()) } else { None };
    if token.is_some() && parts.first().is_some_and(|first| first.kind == Kind::PureToken) {
        parts.remove(0);
    }
    Argument { token, ..Argument::group(Kind::Block, parts) }
}

#[cfg(test)]
impl Argument {
    /// How many words of a request it is, at least and at most.
    fn words(&self) -> (usize, Option<usize>) {
        let parts = || self.parts.iter().map(Argument::words);
        let (least, most) = match self.kind {
            Kind::PureToken => (0, Some(0)),
            Kind::Block => count(&self.parts),
            Kind::OneOf => (
                parts().map(|(least, _)| least).min().unwrap_or(0),
                parts().map(|(_, most)| most).try_fold(0, |sum, most| Some(sum.max(most?))),
            ),
            _ => (1, Some(1)),
        };
        let token = usize::from(self.token.is_some());
        let least = if self.optional { 0 } else { least + token };
        (least, most.map(|most| most + token).filter(|_| !self.multiple))
    }
}

/// How many arguments a request has behind the command's name, at least and at most.
#[cfg(test)]
pub(super) fn count(arguments: &[Argument]) -> (usize, Option<usize>) {
    let each = || arguments.iter().map(Argument::words);
    let least = each().map(|(least, _)| least).sum();
    (least, each().map(|(_, most)| most).try_fold(0, |sum, most| Some(sum + most?)))
}

#[cfg(test)]
mod tests {
    use super::*;

    /// A tree on one line: `name:kind(parts)` with token and flags.
    fn show(arguments: &[Argument]) -> String {
        let one = |it: &Argument| {
            let mut text = format!("{}:{}", it.name, it.kind.name());
            if let Some(token) = &it.token {
                text = format!("{token} {text}");
            }
            if !it.parts.is_empty() {
                text.push_str(&format!("({})", show(&it.parts)));
            }
            let flags = [(it.optional, "?"), (it.multiple, "+"), (it.multiple_token, "t")];
            flags.into_iter().filter(|(set, _)| *set).for_each(|(_, flag)| text.push_str(flag));
            text
        };
        arguments.iter().map(one).collect::<Vec<_>>().join(", ")
    }

    #[test]
    fn texts_become_trees() {
        for (text, tree, words) in [
            ("", "", (0, Some(0))),
            ("key [key ...]", "key:key+", (1, None)),
            ("[section [section ...]]", "section:string?+", (0, None)),
            (
                "key field value [field value ...]",
                "key:key, field_value:block(field:string, value:string)+",
                (3, None),
            ),
            ("[GET pattern [GET pattern ...]]", "GET pattern:pattern?+t", (0, None)),
            (
                "[condition: NX | XX] [EX seconds]",
                "condition:oneof(NX nx:pure-token, XX xx:pure-token)?, EX seconds:integer?",
                (0, Some(3)),
            ),
            (
                "[AUTH username password]",
                "AUTH username_password:block(username:string, password:string)?",
                (0, Some(3)),
            ),
            (
                "[TYPE <NORMAL | PUBSUB>] [id: ID client-id [client-id ...]]",
                "TYPE normal_pubsub:oneof(NORMAL normal:pure-token, PUBSUB pubsub:pure-token)?, \
                 ID id:block(client-id:integer+)?",
                (0, None),
            ),
            (
                "<LIB-NAME name | all>",
                "name_all:oneof(LIB-NAME name:string, all:string)",
                (1, Some(2)),
            ),
        ] {
            let parsed = parse(text).unwrap();
            assert_eq!((show(&parsed), count(&parsed)), (tree.to_owned(), words), "{text}");
        }
    }

    #[test]
    fn what_is_no_text_is_told() {
        for text in ["[key", "key]", "[]", "a [b ...]", "[a b ...]", "<a |>", "a | b", "[a ... b]"]
        {
            assert!(parse(text).is_err(), "{text}");
        }
    }
}
