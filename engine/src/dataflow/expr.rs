//! The expressions of `MAP.BIND` and `FILTER.BIND`: one element in, one element or a yes/no out.
//!
//! An expression is CEL over the single variable `x`. Every node evaluates the same bindings over the
//! same elements and must come to the same result, so an expression here is a pure function of the
//! element's bytes: no clock, no randomness, no iteration over hash maps, and always an end. What
//! could recurse, multiply or explode is refused when the expression is compiled; what depends on the
//! element's length is refused per element, before it is evaluated. Nothing is counted at run time.
//!
//! # What `x` is
//!
//! The first of these that fits the element's bytes:
//!
//! 1. an **int**, if they are the canonical decimal of an `i64`: `0`, `42`, `-7`;
//! 2. a **double**, if they are a decimal number in the ordinary notation
//!    `[-] (0 | 1..9 digits) [. digits] [e [+|-] digits]` whose value is finite: `1.5`, `-0.25`, `1e3`,
//!    and integers beyond `i64`. There is no `+` in front, no leading zero, no bare point (`.5`, `1.`),
//!    no `E`, no hex, no `nan` or `inf`; so `007`, `00.5`, `+1`, `1e400` and, by the same rule as `007`,
//!    `-0` are strings (`-0.0` is a double);
//! 3. a **string**, if they are UTF-8; 4. otherwise **bytes**.
//!
//! # Integer literals where `x` is a double
//!
//! CEL does not mix int and double in arithmetic. So that one expression serves the elements `1` and
//! `1.5` alike, integer literals are read as doubles when `x` is a double: `x * 2` of `1.5` is 3. A
//! literal stays an integer where an integer is meant: inside an index `[..]`, as a map key, as an
//! argument of a function, and in arithmetic whose other operand is an integer for certain (`size(..)`,
//! `int(..)`, and arithmetic of these): `size(string(x)) + 1`, `int(x) % 2`. In a part made of
//! literals only the place of the whole part decides: `x * (1 + 2)`. There is no rule the other way:
//! `x * 1.5` fails for the element `2`, `double(x) * 1.5` works for both.
//!
//! # Results
//!
//! int and uint become their decimal; a double its shortest form that reads back as the same double,
//! never with an exponent, integral ones without `.0`, both zeros `0`; a string and bytes are the
//! element as they are; a bool becomes `true` or `false`; a type its name (`type(x)`). NaN, the
//! infinities, null, lists and maps are no elements: an [`EvalError`]. So is integer overflow and
//! integer division by zero.
//!
//! # What can be called
//!
//! `size(v)`, `v.size()`, `s.contains(t)`, `s.startsWith(t)`, `s.endsWith(t)`, the conversions
//! `int uint double string bytes bool dyn` and `type`, the macros `has`, `all`, `exists`,
//! `exists_one`, `map`, `filter`, and all operators of CEL. Strings count and compare by code point;
//! bytes know `size`, `+`, comparison and `string(..)`. There are no regular expressions, no
//! timestamps or durations, no messages and no optional values. A map literal can only be looked
//! into (`{..}[k]`, `{..}.f`, `k in {..}`, `size({..})`), since its order is not defined.
//!
//! # Limits
//!
//! | limit | |
//! | --- | --- |
//! | source | [`MAX_SOURCE`] bytes |
//! | nesting of brackets | [`MAX_NESTING`] |
//! | operators, selections and `?` in one chain, enclosing chains included | [`MAX_CHAIN`] |
//! | nodes of the syntax tree, macros expanded (bounds list literals as well) | [`MAX_NODES`] |
//! | macros with a loop inside each other's body | [`MAX_LOOPS`] |
//! | worst-case cost of an evaluation | [`MAX_COST`] |
//! | element, in and out | [`MAX_ELEMENT`] bytes |
//!
//! The cost is a bound computed from the tree: lists come only from literals, so their lengths are
//! known, and the size of every value is at most linear in the element's length. The bound for an
//! empty element is checked when compiling, the one for a given length before evaluating.

use std::sync::{Arc, LazyLock};

use cel::common::ast::{
    CallExpr, ComprehensionExpr, EntryExpr, Expr, IdedExpr, LiteralValue, SourceInfo, operators,
};
use cel::common::types::{CelBytes, CelDouble, CelInt, CelString};
use cel::common::value::CowVal;
use cel::context::VariableResolver;
use cel::parser::Parser;
use cel::{Context, ExecutionError, Value};

/// Bytes of source an expression may have.
pub const MAX_SOURCE: usize = 4096;
/// Brackets of any kind that may be open at one place of the source.
pub const MAX_NESTING: usize = 32;
/// Operators, selections, indexes and conditionals in one chain, counting the chains around it. A
/// chain ends at `,`, `&&` and `||`.
pub const MAX_CHAIN: usize = 64;
/// Nodes of the syntax tree after macro expansion.
pub const MAX_NODES: usize = 1000;
/// Looping macros (`all`, `exists`, `exists_one`, `map`, `filter`) inside each other's body.
pub const MAX_LOOPS: usize = 2;
/// Bytes of an element, as input and as result.
pub const MAX_ELEMENT: usize = 1 << 20;
/// Worst-case cost of an evaluation: about a byte touched each, a step of the interpreter being 64.
pub const MAX_COST: u64 = 16 << 20;

/// Depth of the syntax tree; macro expansion and balanced `&&`/`||` add to what the source shows.
const MAX_DEPTH: usize = 128;
/// Cost of one step of the interpreter.
const STEP: u64 = 64;
/// Cost of holding a value of fixed size.
const SCALAR: u64 = 16;
/// More than the longest text of a number (`-5e-324` has 327 digits without an exponent).
const NUMBER_TEXT: u64 = 400;

/// A place in the source, both counted from 1, columns in characters.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Position {
    /// Line.
    pub line: usize,
    /// Column.
    pub column: usize,
}

/// Why an expression was refused, and where if that is known. The text has no line breaks.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ExprError {
    /// Where in the source.
    pub position: Option<Position>,
    /// Why.
    pub reason: Refusal,
}

/// The reasons to refuse an expression.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum Refusal {
    /// Not CEL.
    #[error("syntax error: {0}")]
    Syntax(String),
    /// A name that is neither `x`, nor a type, nor bound by a macro.
    #[error("unknown variable '{0}': only x is defined")]
    UnknownVariable(String),
    /// A function or method that does not exist here.
    #[error("unknown function '{0}'")]
    UnknownFunction(String),
    /// A function or method called with another number of arguments than it has.
    #[error("'{name}' takes {takes} argument(s)")]
    Arguments {
        /// Name of the function.
        name: String,
        /// Arguments it takes.
        takes: usize,
    },
    /// A part of CEL that is left out, and which.
    #[error("{0}")]
    Unsupported(&'static str),
    /// More than [`MAX_SOURCE`] bytes.
    #[error("expression is longer than {MAX_SOURCE} bytes")]
    TooLong,
    /// More than [`MAX_NESTING`] brackets or [`MAX_CHAIN`] operators deep.
    #[error(
        "expression is nested too deeply (at most {MAX_NESTING} brackets and {MAX_CHAIN} chained \
         operators)"
    )]
    TooDeep,
    /// More than [`MAX_NODES`] nodes.
    #[error("expression has more than {MAX_NODES} nodes")]
    TooManyNodes,
    /// More than [`MAX_LOOPS`] loops inside each other.
    #[error("more than {MAX_LOOPS} looping macros inside each other")]
    TooManyLoops,
    /// More work than [`MAX_COST`], whatever the element.
    #[error("expression is too costly: it could loop or grow too much")]
    TooCostly,
}

impl std::fmt::Display for ExprError {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        match self.position {
            Some(at) => write!(f, "line {}, column {}: {}", at.line, at.column, self.reason),
            None => self.reason.fmt(f),
        }
    }
}

impl std::error::Error for ExprError {}

/// Why an element has no result. The same at every node for the same element and expression.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum EvalError {
    /// The element, or the one it would become, is longer than [`MAX_ELEMENT`].
    #[error("element is longer than {MAX_ELEMENT} bytes")]
    TooLong,
    /// Evaluating an element of this length could cost more than [`MAX_COST`].
    #[error("expression is too costly for an element of this length")]
    TooCostly,
    /// Integer overflow.
    #[error("integer overflow")]
    Overflow,
    /// Integer division or remainder by zero.
    #[error("division by zero")]
    DivisionByZero,
    /// An operator or function applied to types it is not defined for.
    #[error("operand of the wrong type")]
    WrongType,
    /// An index out of bounds, or a key that a map lacks or has twice.
    #[error("no such index or key")]
    NoSuchKey,
    /// A function refused its argument, e.g. `int('a')`.
    #[error("a function refused its argument")]
    Function,
    /// A filter came to something else than true or false.
    #[error("the filter is not a bool")]
    NotBool,
    /// The result is NaN or infinite.
    #[error("the result is not a finite number")]
    NotFinite,
    /// The result is null, a list or a map.
    #[error("the result is not an element")]
    NotAnElement,
    /// Any other failure of the interpreter.
    #[error("evaluation failed")]
    Other,
}

/// A compiled expression. Cloning shares it; it can be used from several threads.
#[derive(Clone)]
pub struct Expression {
    inner: Arc<Compiled>,
}

struct Compiled {
    source: String,
    /// As written.
    exact: IdedExpr,
    /// For elements that are doubles; `None` where it would be the same.
    doubled: Option<IdedExpr>,
    /// Bound of the cost by the element's length, of the costlier of the two.
    cost: Linear,
}

impl std::fmt::Debug for Expression {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_tuple("Expression").field(&self.inner.source).finish()
    }
}

impl Expression {
    /// Compiles `source`.
    ///
    /// Refused are syntax errors, names and functions that do not exist, and whatever passes the
    /// limits of this module, each with its place where there is one. Takes some ten microseconds,
    /// the first call of a process a few milliseconds; linear in the source but for the parser.
    pub fn compile(source: &str) -> Result<Expression, ExprError> {
        if source.len() > MAX_SOURCE {
            return Err(ExprError { position: None, reason: Refusal::TooLong });
        }
        scan(source)?;
        let (exact, info) = Parser::new().parse_with_source_info(source).map_err(syntax_error)?;
        let mut check =
            Check { source, info: &info, nodes: 0, loops: 0, names: Vec::new(), depth: 0 };
        check.expr(&exact, false)?;
        let mut cost = Linear::default();
        shape_of(&exact, &mut Vec::new(), 1, &mut cost);
        if cost.fixed > MAX_COST {
            return Err(ExprError { position: None, reason: Refusal::TooCostly });
        }
        let mut doubled = exact.clone();
        let changed = read_as_doubles(&mut doubled, true);
        let inner = Compiled {
            source: source.to_owned(),
            exact,
            doubled: changed.then_some(doubled),
            cost,
        };
        Ok(Expression { inner: Arc::new(inner) })
    }

    /// The source it was compiled from.
    pub fn source(&self) -> &str {
        &self.inner.source
    }

    /// The element that `element` becomes.
    ///
    /// An error leaves the element out. A pure function of the source and the element's bytes; costs
    /// at most [`MAX_COST`].
    pub fn map(&self, element: &[u8]) -> Result<Vec<u8>, EvalError> {
        match self.evaluate(element)? {
            Value::String(text) => bounded(Arc::unwrap_or_clone(text).into_bytes()),
            Value::Int(int) => Ok(int.to_string().into_bytes()),
            Value::Float(double) => double_text(double),
            Value::Bytes(bytes) => bounded(Arc::unwrap_or_clone(bytes)),
            Value::Bool(bool) => Ok(if bool { b"true".to_vec() } else { b"false".to_vec() }),
            Value::UInt(uint) => Ok(uint.to_string().into_bytes()),
            _ => Err(EvalError::NotAnElement),
        }
    }

    /// Whether `element` stays.
    ///
    /// An error leaves the element out; a result that is not a bool is [`EvalError::NotBool`]. A pure
    /// function of the source and the element's bytes; costs at most [`MAX_COST`].
    pub fn test(&self, element: &[u8]) -> Result<bool, EvalError> {
        match self.evaluate(element)? {
            Value::Bool(stays) => Ok(stays),
            _ => Err(EvalError::NotBool),
        }
    }

    fn evaluate(&self, element: &[u8]) -> Result<Value, EvalError> {
        if element.len() > MAX_ELEMENT {
            return Err(EvalError::TooLong);
        }
        let compiled = &*self.inner;
        if compiled.cost.at(element.len() as u64) > MAX_COST {
            return Err(EvalError::TooCostly);
        }
        let x = Element::of(element);
        let expr = match (&x, &compiled.doubled) {
            (Element::Double(_), Some(doubled)) => doubled,
            _ => &compiled.exact,
        };
        let mut scope = root().new_inner_scope();
        scope.set_variable_resolver(&x);
        // Not `resolve_val`: always inlined, it would bring the frames of an unoptimised build here.
        Value::resolve(expr, &scope).map_err(eval_error)
    }
}

/// The functions and types of CEL, built once.
static ROOT: LazyLock<Context<'static, 'static>> = LazyLock::new(Context::default);

fn root<'v>() -> &'v Context<'v, 'v> {
    &ROOT
}

/// An element as the value of `x`.
enum Element<'a> {
    Int(CelInt),
    Double(CelDouble),
    Text(CelString<'a>),
    Bytes(CelBytes<'a>),
}

impl<'a> Element<'a> {
    fn of(bytes: &'a [u8]) -> Element<'a> {
        let Ok(text) = std::str::from_utf8(bytes) else {
            return Element::Bytes(CelBytes::from(bytes));
        };
        match notation(bytes) {
            Some(Notation::Integer) => {
                if let Ok(int) = text.parse::<i64>() {
                    return Element::Int(CelInt::from(int));
                }
            }
            Some(Notation::Decimal) => {}
            None => return Element::Text(CelString::from(text)),
        }
        match text.parse::<f64>() {
            Ok(double) if double.is_finite() => Element::Double(CelDouble::from(double)),
            _ => Element::Text(CelString::from(text)),
        }
    }
}

impl VariableResolver for Element<'_> {
    fn resolve<'b>(&'b self, variable: &str) -> Option<CowVal<'b, 'b>> {
        if variable != "x" {
            return None;
        }
        Some(CowVal::Borrowed(match self {
            Element::Int(int) => int,
            Element::Double(double) => double,
            Element::Text(text) => text,
            Element::Bytes(bytes) => bytes,
        }))
    }
}

enum Notation {
    Integer,
    Decimal,
}

/// Which of the number notations of the module's text the bytes are in.
fn notation(bytes: &[u8]) -> Option<Notation> {
    let digits = |rest: &[u8]| rest.iter().take_while(|b| b.is_ascii_digit()).count();
    let (negative, rest) = match bytes {
        [b'-', rest @ ..] => (true, rest),
        rest => (false, rest),
    };
    let whole = digits(rest);
    let zero = rest.first() == Some(&b'0');
    if whole == 0 || (zero && whole > 1) {
        return None;
    }
    let mut rest = &rest[whole..];
    if rest.is_empty() {
        return if negative && zero { None } else { Some(Notation::Integer) };
    }
    if let [b'.', fraction @ ..] = rest {
        let length = digits(fraction);
        if length == 0 {
            return None;
        }
        rest = &fraction[length..];
    }
    if let [b'e', exponent @ ..] = rest {
        let exponent = match exponent {
            [b'+' | b'-', exponent @ ..] => exponent,
            exponent => exponent,
        };
        let length = digits(exponent);
        if length == 0 {
            return None;
        }
        rest = &exponent[length..];
    }
    rest.is_empty().then_some(Notation::Decimal)
}

fn bounded(bytes: Vec<u8>) -> Result<Vec<u8>, EvalError> {
    if bytes.len() > MAX_ELEMENT {
        return Err(EvalError::TooLong);
    }
    Ok(bytes)
}

fn double_text(double: f64) -> Result<Vec<u8>, EvalError> {
    if !double.is_finite() {
        return Err(EvalError::NotFinite);
    }
    if double == 0.0 {
        return Ok(b"0".to_vec());
    }
    Ok(double.to_string().into_bytes())
}

fn eval_error(error: ExecutionError) -> EvalError {
    match error {
        ExecutionError::Overflow(..) => EvalError::Overflow,
        ExecutionError::DivisionByZero(_) | ExecutionError::RemainderByZero(_) => {
            EvalError::DivisionByZero
        }
        ExecutionError::NoSuchOverload(_)
        | ExecutionError::UnexpectedType { .. }
        | ExecutionError::UnsupportedBinaryOperator(..)
        | ExecutionError::UnsupportedIndex(..)
        | ExecutionError::UnsupportedKeyType(_)
        | ExecutionError::ValuesNotComparable(..) => EvalError::WrongType,
        ExecutionError::NoSuchKey(_)
        | ExecutionError::IndexOutOfBounds(_)
        | ExecutionError::DuplicateKey(_) => EvalError::NoSuchKey,
        ExecutionError::FunctionError { .. } => EvalError::Function,
        _ => EvalError::Other,
    }
}

// ---------------------------------------------------------------------------------------------
// Before the parser

/// What is open at a bracket: how many operators its current segment has chained.
struct Frame {
    close: u8,
    /// Operators, selections and indexes since the last `,`, `&&`, `||`, `?` or `:`.
    chain: usize,
    /// Conditionals since the last `,`: they nest to the right.
    conditionals: usize,
}

/// Bounds how deep the parser can recurse, and refuses what its lexer would stumble over.
///
/// Reads the source as the lexer does (strings, comments, numbers, names), one pass without
/// recursion. Brackets have to match; a string has to end and to have valid escapes.
fn scan(source: &str) -> Result<(), ExprError> {
    let bytes = source.as_bytes();
    let fail = |at: usize, reason: Refusal| {
        Err(ExprError { position: Some(position(source, at)), reason })
    };
    let syntax = |at: usize, text: &str| fail(at, Refusal::Syntax(text.to_owned()));
    let mut open: Vec<Frame> = Vec::new();
    let mut frame = Frame { close: 0, chain: 0, conditionals: 0 };
    // Sum of all chains and conditionals on the way to this place.
    let mut total = 0;
    let mut at = 0;
    while let Some(&byte) = bytes.get(at) {
        let next = bytes.get(at + 1).copied();
        let start = at;
        at += 1;
        let mut counted = false;
        match byte {
            b' ' | b'\t' | b'\r' | b'\n' | 0x0c => {}
            b'/' if next == Some(b'/') => {
                while bytes.get(at).is_some_and(|b| *b != b'\n') {
                    at += 1;
                }
            }
            b'\'' | b'"' => match end_of_string(bytes, start, false) {
                Ok(end) => at = end,
                Err((place, text)) => return syntax(place, text),
            },
            b'0'..=b'9' => at = end_of_number(bytes, start),
            b'a'..=b'z' | b'A'..=b'Z' | b'_' => {
                while bytes.get(at).is_some_and(|b| b.is_ascii_alphanumeric() || *b == b'_') {
                    at += 1;
                }
                let name = &source[start..at];
                counted = name == "in";
                if matches!(bytes.get(at), Some(b'\'' | b'"')) && !counted {
                    let raw = match name.to_ascii_lowercase().as_str() {
                        "b" => false,
                        "r" | "br" => true,
                        _ => return syntax(at, "a string cannot follow a name"),
                    };
                    match end_of_string(bytes, at, raw) {
                        Ok(end) => at = end,
                        Err((place, text)) => return syntax(place, text),
                    }
                }
            }
            b'(' | b'[' | b'{' => {
                // An index lengthens the chain it stands in.
                if byte == b'[' {
                    frame.chain += 1;
                    total += 1;
                }
                if open.len() >= MAX_NESTING || total > MAX_CHAIN {
                    return fail(start, Refusal::TooDeep);
                }
                let close = match byte {
                    b'(' => b')',
                    b'[' => b']',
                    _ => b'}',
                };
                let inner = Frame { close, chain: 0, conditionals: 0 };
                open.push(std::mem::replace(&mut frame, inner));
            }
            b')' | b']' | b'}' => match open.pop() {
                Some(outer) if frame.close == byte => {
                    total -= frame.chain + frame.conditionals;
                    frame = outer;
                }
                _ => return syntax(start, "this bracket does not match"),
            },
            b',' => {
                total -= frame.chain + frame.conditionals;
                frame.chain = 0;
                frame.conditionals = 0;
            }
            b'&' | b'|' if next == Some(byte) => {
                at += 1;
                total -= frame.chain;
                frame.chain = 0;
            }
            b'?' | b':' => {
                total -= frame.chain;
                frame.chain = 0;
                if byte == b'?' {
                    frame.conditionals += 1;
                    total += 1;
                    if total > MAX_CHAIN {
                        return fail(start, Refusal::TooDeep);
                    }
                }
            }
            b'=' | b'!' | b'<' | b'>' if next == Some(b'=') => {
                at += 1;
                counted = true;
            }
            b'!' | b'<' | b'>' | b'+' | b'-' | b'*' | b'/' | b'%' | b'.' => counted = true,
            _ => return syntax(start, "unexpected character"),
        }
        if counted {
            frame.chain += 1;
            total += 1;
            if total > MAX_CHAIN {
                return fail(start, Refusal::TooDeep);
            }
        }
    }
    if !open.is_empty() {
        return syntax(bytes.len(), "a bracket is not closed");
    }
    Ok(())
}

/// The end of the string literal whose quote is at `start`, or where and why it is none.
fn end_of_string(bytes: &[u8], start: usize, raw: bool) -> Result<usize, (usize, &'static str)> {
    let quote = bytes[start];
    let is_quote = |at: usize| bytes.get(at) == Some(&quote);
    let triple = is_quote(start + 1) && is_quote(start + 2);
    let mut at = if triple { start + 3 } else { start + 1 };
    while let Some(&byte) = bytes.get(at) {
        if byte == quote && !triple {
            return Ok(at + 1);
        }
        if byte == quote && is_quote(at + 1) && is_quote(at + 2) {
            return Ok(at + 3);
        }
        if matches!(byte, b'\n' | b'\r') && !triple {
            break;
        }
        at += 1;
        if byte == b'\\' && !raw {
            let (hex, octal) = match bytes.get(at) {
                Some(b'a' | b'b' | b'f' | b'n' | b'r' | b't' | b'v') => (0, 0),
                Some(b'"' | b'\'' | b'\\' | b'?' | b'`') => (0, 0),
                Some(b'x' | b'X') => (2, 0),
                Some(b'u') => (4, 0),
                Some(b'U') => (8, 0),
                Some(b'0'..=b'3') => (0, 2),
                _ => return Err((at - 1, "invalid escape sequence")),
            };
            let length = hex + octal;
            let digits = bytes.get(at + 1..at + 1 + length).unwrap_or_default();
            let valid = |b: &u8| match octal {
                0 => b.is_ascii_hexdigit(),
                _ => matches!(b, b'0'..=b'7'),
            };
            if digits.len() < length || !digits.iter().all(valid) {
                return Err((at - 1, "invalid escape sequence"));
            }
            at += 1 + length;
        }
    }
    Err((start, "this string is not closed"))
}

/// The end of the number that begins at `start`. Only its point and its sign matter here.
fn end_of_number(bytes: &[u8], start: usize) -> usize {
    let mut at = start;
    let is_digit = |at: usize| bytes.get(at).is_some_and(u8::is_ascii_digit);
    let hex = bytes[start] == b'0' && bytes.get(start + 1) == Some(&b'x');
    while let Some(&byte) = bytes.get(at) {
        let exponent = matches!(byte, b'e' | b'E') && !hex;
        if exponent && matches!(bytes.get(at + 1), Some(b'+' | b'-')) && is_digit(at + 2) {
            at += 2;
        } else if !(byte.is_ascii_alphanumeric() || (byte == b'.' && is_digit(at + 1))) {
            break;
        } else {
            at += 1;
        }
    }
    at
}

/// The place of byte `at`.
fn position(source: &str, at: usize) -> Position {
    let before = &source.as_bytes()[..at.min(source.len())];
    let line_start = before.iter().rposition(|b| *b == b'\n').map_or(0, |newline| newline + 1);
    let characters = before[line_start..].iter().filter(|b| !matches!(b, 0x80..=0xbf)).count();
    let line = before.iter().filter(|b| **b == b'\n').count() + 1;
    Position { line, column: characters + 1 }
}

/// The first error of the parser, in one line.
fn syntax_error(errors: cel::ParseErrors) -> ExprError {
    let Some(error) = errors.errors.into_iter().next() else {
        let reason = Refusal::Syntax("not an expression".to_owned());
        return ExprError { position: None, reason };
    };
    let text = error.msg.strip_prefix("Syntax error: ").unwrap_or(&error.msg);
    let text = text.chars().map(|c| if c.is_control() { ' ' } else { c }).take(200).collect();
    let position = match (usize::try_from(error.pos.0), usize::try_from(error.pos.1)) {
        (Ok(line @ 1..), Ok(column @ 1..)) => Some(Position { line, column }),
        _ => None,
    };
    ExprError { position, reason: Refusal::Syntax(text) }
}

// ---------------------------------------------------------------------------------------------
// After the parser

/// Type names that can stand for themselves, as in `type(x) == int`.
const TYPES: [&str; 10] =
    ["bool", "bytes", "double", "int", "list", "map", "null_type", "string", "type", "uint"];

/// Functions that can be called as `f(a)`, all of one argument.
const FUNCTIONS: [&str; 9] =
    ["bool", "bytes", "double", "dyn", "int", "size", "string", "type", "uint"];

/// Methods that can be called as `a.f(..)`, and how many arguments they take.
const METHODS: [(&str, usize); 4] =
    [("contains", 1), ("endsWith", 1), ("size", 0), ("startsWith", 1)];

/// What an operator is called in the tree; none of these can be written as a name.
const OPERATORS: [&str; 18] = [
    operators::CONDITIONAL,
    operators::LOGICAL_AND,
    operators::LOGICAL_OR,
    operators::LOGICAL_NOT,
    operators::SUBSTRACT,
    operators::ADD,
    operators::MULTIPLY,
    operators::DIVIDE,
    operators::MODULO,
    operators::EQUALS,
    operators::NOT_EQUALS,
    operators::GREATER_EQUALS,
    operators::LESS_EQUALS,
    operators::GREATER,
    operators::LESS,
    operators::NEGATE,
    operators::INDEX,
    operators::IN,
];

/// Walks the tree once: are all names known, and is it within its limits?
struct Check<'a> {
    source: &'a str,
    info: &'a SourceInfo,
    nodes: usize,
    depth: usize,
    loops: usize,
    /// Names bound by the macros around, innermost last.
    names: Vec<&'a str>,
}

impl<'a> Check<'a> {
    fn refuse<T>(&self, expr: &IdedExpr, reason: Refusal) -> Result<T, ExprError> {
        let at = self.info.offset_for(expr.id);
        let position = at.map(|(start, _)| position(self.source, start as usize));
        Err(ExprError { position, reason })
    }

    /// `looked_into`: the operand of something that only looks into a map.
    fn expr(&mut self, expr: &'a IdedExpr, looked_into: bool) -> Result<(), ExprError> {
        self.nodes += 1;
        if self.nodes > MAX_NODES {
            return self.refuse(expr, Refusal::TooManyNodes);
        }
        if self.depth >= MAX_DEPTH {
            return self.refuse(expr, Refusal::TooDeep);
        }
        self.depth += 1;
        match &expr.expr {
            Expr::Literal(_) => {}
            Expr::Ident(name) => {
                let name = name.as_str();
                if name != "x" && !self.names.contains(&name) && !TYPES.contains(&name) {
                    return self.refuse(expr, Refusal::UnknownVariable(name.to_owned()));
                }
            }
            Expr::Call(call) => self.call(expr, call)?,
            Expr::Select(select) => self.expr(&select.operand, true)?,
            Expr::List(list) => {
                for element in &list.elements {
                    self.expr(element, false)?;
                }
            }
            Expr::Map(map) => {
                if !looked_into {
                    let text = "a map can only be looked into, as in {..}[k], k in {..} or size()";
                    return self.refuse(expr, Refusal::Unsupported(text));
                }
                for entry in &map.entries {
                    let EntryExpr::MapEntry(entry) = &entry.expr else {
                        return self.refuse(expr, Refusal::Unsupported("not a map"));
                    };
                    self.expr(&entry.key, false)?;
                    self.expr(&entry.value, false)?;
                }
            }
            Expr::Comprehension(comprehension) => self.comprehension(expr, comprehension)?,
            Expr::Struct(_) => {
                return self.refuse(expr, Refusal::Unsupported("there are no messages"));
            }
            Expr::Unspecified => {
                return self.refuse(expr, Refusal::Syntax("not an expression".to_owned()));
            }
        }
        self.depth -= 1;
        Ok(())
    }

    fn call(&mut self, expr: &'a IdedExpr, call: &'a CallExpr) -> Result<(), ExprError> {
        let name = call.func_name.as_str();
        let given = call.args.len();
        let takes = match &call.target {
            Some(_) => METHODS.iter().find(|(method, _)| *method == name).map(|(_, takes)| *takes),
            None if FUNCTIONS.contains(&name) => Some(1),
            None if OPERATORS.contains(&name) || name == operators::NOT_STRICTLY_FALSE => {
                Some(given)
            }
            None => None,
        };
        let Some(takes) = takes else {
            // The target first: in `y.f()` it is `y` that is not known.
            if let Some(target) = &call.target {
                self.expr(target, true)?;
            }
            return self.refuse(expr, Refusal::UnknownFunction(name.to_owned()));
        };
        if takes != given {
            return self.refuse(expr, Refusal::Arguments { name: name.to_owned(), takes });
        }
        let size = name == "size";
        if let Some(target) = &call.target {
            self.expr(target, size)?;
        }
        for (at, argument) in call.args.iter().enumerate() {
            let looked_into = match at {
                0 => (size && call.target.is_none()) || name == operators::INDEX,
                _ => name == operators::IN,
            };
            self.expr(argument, looked_into)?;
        }
        Ok(())
    }

    fn comprehension(
        &mut self,
        expr: &'a IdedExpr,
        comprehension: &'a ComprehensionExpr,
    ) -> Result<(), ExprError> {
        self.expr(&comprehension.iter_range, false)?;
        self.expr(&comprehension.accu_init, false)?;
        if comprehension.iter_var2.is_some() {
            return self.refuse(expr, Refusal::Unsupported("a loop has one variable"));
        }
        if self.loops >= MAX_LOOPS {
            return self.refuse(expr, Refusal::TooManyLoops);
        }
        self.loops += 1;
        self.names.push(&comprehension.iter_var);
        self.names.push(&comprehension.accu_var);
        self.expr(&comprehension.loop_cond, false)?;
        self.expr(&comprehension.loop_step, false)?;
        self.expr(&comprehension.result, false)?;
        self.names.pop();
        self.names.pop();
        self.loops -= 1;
        Ok(())
    }
}

// ---------------------------------------------------------------------------------------------
// Integer literals for elements that are doubles

/// What is known of an expression's number.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Number {
    /// Made of integer literals only: int or double, as its place asks for.
    Literal,
    /// An int whatever `x` is.
    Int,
    /// Anything else.
    Other,
}

fn is_arithmetic(name: &str) -> bool {
    matches!(
        name,
        operators::ADD
            | operators::SUBSTRACT
            | operators::MULTIPLY
            | operators::DIVIDE
            | operators::MODULO
    )
}

fn number_of(expr: &IdedExpr) -> Number {
    let joined = |a: &IdedExpr, b: &IdedExpr| match (number_of(a), number_of(b)) {
        (Number::Literal, Number::Literal) => Number::Literal,
        (Number::Other, _) | (_, Number::Other) => Number::Other,
        _ => Number::Int,
    };
    match &expr.expr {
        Expr::Literal(LiteralValue::Int(_)) => Number::Literal,
        Expr::Call(call) => match (call.func_name.as_str(), call.args.as_slice()) {
            ("size" | "int", _) => Number::Int,
            (operators::NEGATE, [operand]) => number_of(operand),
            (operators::CONDITIONAL, [_, yes, no]) => joined(yes, no),
            (name, [left, right]) if is_arithmetic(name) => joined(left, right),
            _ => Number::Other,
        },
        _ => Number::Other,
    }
}

/// Turns the integer literals of `expr` into doubles where the rule of the module's text says so.
/// `wanted`: whether a literal in this very place becomes a double. Returns whether any did.
fn read_as_doubles(expr: &mut IdedExpr, wanted: bool) -> bool {
    // Where a part is a number for certain that decides, else the place does.
    let number = number_of(expr);
    let inside = match number {
        Number::Literal => wanted,
        Number::Int => false,
        Number::Other => true,
    };
    match &mut expr.expr {
        Expr::Literal(literal) => {
            if let (LiteralValue::Int(int), true) = (&*literal, wanted) {
                *literal = LiteralValue::Double(CelDouble::from(*int.inner() as f64));
                return true;
            }
            false
        }
        Expr::Call(call) => {
            let CallExpr { func_name, target, args } = call;
            let name = func_name.as_str();
            let mut changed = match target {
                Some(target) => read_as_doubles(target, true),
                None => false,
            };
            let function = target.is_some() || FUNCTIONS.contains(&name);
            for (at, argument) in args.iter_mut().enumerate() {
                let wanted = match (name, at) {
                    _ if function => false,
                    (operators::INDEX, 0) => wanted,
                    (operators::INDEX, _) => false,
                    (operators::CONDITIONAL, 0) => true,
                    (operators::CONDITIONAL | operators::NEGATE, _) => inside,
                    (name, _) if is_arithmetic(name) => inside,
                    _ => true,
                };
                changed |= read_as_doubles(argument, wanted);
            }
            changed
        }
        Expr::Select(select) => read_as_doubles(&mut select.operand, wanted),
        Expr::List(list) => {
            let mut changed = false;
            for element in &mut list.elements {
                changed |= read_as_doubles(element, wanted);
            }
            changed
        }
        Expr::Map(map) => {
            let mut changed = false;
            for entry in &mut map.entries {
                if let EntryExpr::MapEntry(entry) = &mut entry.expr {
                    changed |= read_as_doubles(&mut entry.key, false);
                    changed |= read_as_doubles(&mut entry.value, wanted);
                }
            }
            changed
        }
        Expr::Comprehension(comprehension) => {
            let mut changed = read_as_doubles(&mut comprehension.iter_range, wanted);
            for part in [
                &mut comprehension.accu_init,
                &mut comprehension.loop_cond,
                &mut comprehension.loop_step,
                &mut comprehension.result,
            ] {
                changed |= read_as_doubles(part, true);
            }
            changed
        }
        Expr::Ident(_) | Expr::Struct(_) | Expr::Unspecified => false,
    }
}

// ---------------------------------------------------------------------------------------------
// Worst-case cost

/// A bound that is linear in the element's length. Saturates.
#[derive(Clone, Copy, Default)]
struct Linear {
    fixed: u64,
    per_byte: u64,
}

impl Linear {
    fn fixed(fixed: u64) -> Linear {
        Linear { fixed, per_byte: 0 }
    }

    fn plus(self, other: Linear) -> Linear {
        Linear {
            fixed: self.fixed.saturating_add(other.fixed),
            per_byte: self.per_byte.saturating_add(other.per_byte),
        }
    }

    fn times(self, factor: u64) -> Linear {
        Linear {
            fixed: self.fixed.saturating_mul(factor),
            per_byte: self.per_byte.saturating_mul(factor),
        }
    }

    fn max(self, other: Linear) -> Linear {
        Linear { fixed: self.fixed.max(other.fixed), per_byte: self.per_byte.max(other.per_byte) }
    }

    fn at(self, length: u64) -> u64 {
        self.fixed.saturating_add(self.per_byte.saturating_mul(length))
    }
}

/// How large a value can be: itself, and if it is a list how many items of what size. A map counts
/// as the list of its values.
#[derive(Clone)]
struct Shape {
    own: Linear,
    items: u64,
    item: Option<Box<Shape>>,
}

impl Shape {
    fn scalar(own: u64) -> Shape {
        Shape { own: Linear::fixed(own), items: 0, item: None }
    }

    fn size(&self) -> Linear {
        match &self.item {
            Some(item) => self.own.plus(item.size().times(self.items)),
            None => self.own,
        }
    }

    /// Either of the two.
    fn or(self, other: Shape) -> Shape {
        Shape {
            own: self.own.max(other.own),
            items: self.items.max(other.items),
            item: Shape::either(self.item, other.item),
        }
    }

    /// The two concatenated.
    fn plus(self, other: Shape) -> Shape {
        Shape {
            own: self.own.plus(other.own),
            items: self.items.saturating_add(other.items),
            item: Shape::either(self.item, other.item),
        }
    }

    fn either(a: Option<Box<Shape>>, b: Option<Box<Shape>>) -> Option<Box<Shape>> {
        match (a, b) {
            (Some(a), Some(b)) => Some(Box::new(a.or(*b))),
            (a, b) => a.or(b),
        }
    }

    /// What looking into it gives.
    fn into_item(self) -> Shape {
        self.item.map_or_else(|| Shape::scalar(SCALAR), |item| *item)
    }
}

/// The shape of what `expr` evaluates to. Adds to `cost` what evaluating it `times` times costs.
fn shape_of<'a>(
    expr: &'a IdedExpr,
    names: &mut Vec<(&'a str, Shape)>,
    times: u64,
    cost: &mut Linear,
) -> Shape {
    let mut pay = |amount: Linear| {
        *cost = cost.plus(amount.plus(Linear::fixed(STEP)).times(times));
    };
    match &expr.expr {
        Expr::Literal(literal) => {
            let length = match literal {
                LiteralValue::String(text) => text.inner().len(),
                LiteralValue::Bytes(bytes) => bytes.inner().len(),
                _ => 0,
            };
            pay(Linear::default());
            Shape::scalar(SCALAR + length as u64)
        }
        Expr::Ident(name) => {
            pay(Linear::default());
            match names.iter().rev().find(|(bound, _)| bound == name) {
                Some((_, shape)) => shape.clone(),
                None if name == "x" => {
                    let own = Linear { fixed: SCALAR, per_byte: 1 };
                    Shape { own, items: 0, item: None }
                }
                None => Shape::scalar(SCALAR),
            }
        }
        Expr::Select(select) => {
            let operand = shape_of(&select.operand, names, times, cost);
            *cost = cost.plus(operand.size().plus(Linear::fixed(STEP)).times(times));
            if select.test { Shape::scalar(SCALAR) } else { operand.into_item() }
        }
        Expr::List(list) => {
            let mut item = None;
            for element in &list.elements {
                let element = shape_of(element, names, times, cost);
                item = Shape::either(item, Some(Box::new(element)));
            }
            let items = list.elements.len() as u64;
            let shape = Shape { own: Linear::fixed(SCALAR), items, item };
            *cost = cost.plus(shape.size().plus(Linear::fixed(STEP)).times(times));
            shape
        }
        Expr::Map(map) => {
            let mut own = Linear::fixed(SCALAR);
            let mut item = None;
            for entry in &map.entries {
                if let EntryExpr::MapEntry(entry) = &entry.expr {
                    own = own.plus(shape_of(&entry.key, names, times, cost).size());
                    let value = shape_of(&entry.value, names, times, cost);
                    item = Shape::either(item, Some(Box::new(value)));
                }
            }
            let items = map.entries.len() as u64;
            let shape = Shape { own, items, item };
            let hashing = Linear::fixed(STEP.saturating_mul(items + 1));
            *cost = cost.plus(shape.size().plus(hashing).times(times));
            shape
        }
        Expr::Call(call) => {
            let mut operands = Vec::new();
            if let Some(target) = &call.target {
                operands.push(shape_of(target, names, times, cost));
            }
            for argument in &call.args {
                operands.push(shape_of(argument, names, times, cost));
            }
            let name = call.func_name.as_str();
            let mut touched = Linear::fixed(STEP);
            if !matches!(
                name,
                operators::CONDITIONAL
                    | operators::LOGICAL_AND
                    | operators::LOGICAL_OR
                    | operators::LOGICAL_NOT
                    | operators::NOT_STRICTLY_FALSE
            ) {
                for operand in &operands {
                    touched = touched.plus(operand.size());
                }
            }
            let mut operands = operands.into_iter();
            let (first, second, third) = (operands.next(), operands.next(), operands.next());
            let shape = match (name, first, second, third) {
                (operators::CONDITIONAL, _, Some(yes), Some(no)) => yes.or(no),
                (operators::ADD, Some(left), Some(right), _) => left.plus(right),
                (operators::INDEX, Some(container), _, _) => container.into_item(),
                ("dyn", Some(value), _, _) => value,
                ("string" | "bytes", Some(value), _, _) => {
                    let own = value.size().plus(Linear::fixed(NUMBER_TEXT));
                    Shape { own, items: 0, item: None }
                }
                _ => Shape::scalar(SCALAR),
            };
            *cost = cost.plus(touched.plus(shape.size()).times(times));
            shape
        }
        Expr::Comprehension(comprehension) => {
            let range = shape_of(&comprehension.iter_range, names, times, cost);
            let start = shape_of(&comprehension.accu_init, names, times, cost);
            let rounds = range.items;
            let inner = times.saturating_mul(rounds);
            let item = range.into_item();
            // Binding the item copies it.
            *cost = cost.plus(item.size().plus(Linear::fixed(4 * STEP)).times(inner));
            *cost = cost.plus(Linear::fixed(4 * STEP).times(times));
            let collects = matches!(comprehension.accu_init.expr, Expr::List(_));
            names.push((&comprehension.iter_var, item));
            names.push((&comprehension.accu_var, start));
            shape_of(&comprehension.loop_cond, names, inner, cost);
            let step = shape_of(&comprehension.loop_step, names, inner, cost);
            shape_of(&comprehension.result, names, times, cost);
            names.pop();
            names.pop();
            if !collects {
                return Shape::scalar(SCALAR);
            }
            // Every round appends what one round appends to an empty list.
            let items = step.items.saturating_mul(rounds);
            let shape = Shape { own: Linear::fixed(SCALAR), items, item: step.item };
            *cost = cost.plus(shape.size().times(times));
            shape
        }
        Expr::Struct(_) | Expr::Unspecified => Shape::scalar(SCALAR),
    }
}
