//! Expressions of MAP and FILTER: what they give, what they refuse, and that nothing makes them panic,
//! hang or differ.

#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic)]

use std::time::{Duration, Instant};

use lattis_engine::dataflow::expr::{EvalError, ExprError, Expression, MAX_ELEMENT, Refusal};
use proptest::prelude::*;
use proptest::strategy::ValueTree;

fn compile(source: &str) -> Expression {
    Expression::compile(source).unwrap_or_else(|error| panic!("{source}: {error}"))
}

fn map(source: &str, element: impl AsRef<[u8]>) -> Result<String, EvalError> {
    compile(source).map(element.as_ref()).map(|bytes| String::from_utf8(bytes).unwrap())
}

fn ok(source: &str, element: impl AsRef<[u8]>, result: &str) {
    assert_eq!(map(source, element.as_ref()).as_deref(), Ok(result), "{source}");
}

fn refused(source: &str) -> ExprError {
    Expression::compile(source).map(|_| ()).expect_err(source)
}

#[test]
fn x_takes_the_first_type_that_fits() {
    for (element, expected) in [
        ("0", "int"),
        ("42", "int"),
        ("-7", "int"),
        ("9223372036854775807", "int"),
        ("-9223372036854775808", "int"),
        ("9223372036854775808", "double"),
        ("123456789012345678901234567890", "double"),
        ("1.5", "double"),
        ("-0.25", "double"),
        ("-0.0", "double"),
        ("1.50", "double"),
        ("1e3", "double"),
        ("1e+3", "double"),
        ("1.5e-3", "double"),
        ("-1e3", "double"),
        ("0e0", "double"),
        ("1e400", "string"),
        ("007", "string"),
        ("00.5", "string"),
        ("+1", "string"),
        ("-0", "string"),
        ("-", "string"),
        ("", "string"),
        (".5", "string"),
        ("1.", "string"),
        ("1.e3", "string"),
        ("1e", "string"),
        ("1e+", "string"),
        ("1E3", "string"),
        ("0x10", "string"),
        ("nan", "string"),
        ("inf", "string"),
        ("-inf", "string"),
        (" 1", "string"),
        ("1 ", "string"),
        ("1_000", "string"),
        ("--1", "string"),
        ("1.2.3", "string"),
        ("\u{661}", "string"),
        ("héllo", "string"),
    ] {
        let is = compile(&format!("type(x) == {expected}"));
        assert_eq!(is.test(element.as_bytes()), Ok(true), "{element:?} is no {expected}");
    }
    assert_eq!(compile("type(x) == bytes").test(b"\xff\x00"), Ok(true));
    assert_eq!(compile("x").map(b"\xff\x00"), Ok(b"\xff\x00".to_vec()));
    assert_eq!(compile("b'\\x00' + x").map(b"\xff"), Ok(b"\x00\xff".to_vec()));
}

#[test]
fn results_become_elements() {
    ok("x * 2", "123456", "246912");
    ok("x", "-9223372036854775808", "-9223372036854775808");
    ok("18446744073709551615u", "", "18446744073709551615");
    ok("x", "1.50", "1.5");
    ok("x", "1e3", "1000");
    ok("x", "1e22", "10000000000000000000000");
    ok("x", "1e-7", "0.0000001");
    ok("x", "-0.0", "0");
    ok("x * -1.0", "0.0", "0");
    ok("0.1 + 0.2", "", "0.30000000000000004");
    ok("x + '!'", "a b", "a b!");
    ok("x > 3", "4", "true");
    ok("x > 3", "2.5", "false");
    ok("x == 'a' ? 'yes' : 'no'", "a", "yes");
    ok("type(x)", "1.5", "double");
}

#[test]
fn integer_literals_follow_a_double() {
    ok("x * 2", "1.5", "3");
    ok("x * 2", "3", "6");
    ok("-x + 1", "1.5", "-0.5");
    ok("x * (1 + 2)", "0.5", "1.5");
    ok("7 / 2 * x", "2", "6");
    ok("7 / 2 * x", "2.0", "7");
    ok("x > 1 && x < 2", "1.5", "true");
    ok("x in [1, 2, 3]", "2.0", "true");
    ok("[10, 20, 30][1] + x", "0.5", "20.5");
    ok("['a', 'b'][int(x)]", "1.5", "b");
    ok("size(string(x)) + 1", "1.5", "4");
    ok("string(x).size() * 2 - 1", "1.5", "5");
    ok("int(x) % 2", "7.5", "1");
    ok("{1: 'a', 2: 'b'}[x]", "2.0", "b");
    ok("{1: 7}[1] * x", "0.5", "3.5");
    ok("x > 1 ? 1 : 0", "1.5", "1");
    ok("(x > 1 ? 1 : 0) * x", "1.5", "1.5");
    ok("[1, 2, 3].map(y, y * x)[2]", "0.5", "1.5");
    ok("[1, 2, 3].exists_one(y, y > x)", "2.5", "true");
    ok("[1, 2, 3].filter(y, y > x).size()", "1.5", "2");
    ok("string(x * 2)", "1.5", "3");
    assert_eq!(map("x * 1.5", "2"), Err(EvalError::WrongType));
    ok("double(x) * 1.5", "2", "3");
    ok("double(x) * 1.5", "2.5", "3.75");
}

#[test]
fn what_is_no_element_is_left_out() {
    for source in ["[x]", "null", "[1].map(y, y)", "[[x]]"] {
        assert_eq!(map(source, "1"), Err(EvalError::NotAnElement), "{source}");
    }
    for source in ["double('nan')", "double('inf')", "x / 0", "0.0 / 0.0", "x * 1e308 * 1e308"] {
        assert_eq!(map(source, "1.5"), Err(EvalError::NotFinite), "{source}");
    }
    for source in ["x + 1", "x * 2", "-(-x - 1)", "x - -1"] {
        assert_eq!(map(source, "9223372036854775807"), Err(EvalError::Overflow), "{source}");
    }
    for source in ["-x", "x / -1", "x % -1", "x - 1", "x * -1"] {
        assert_eq!(map(source, "-9223372036854775808"), Err(EvalError::Overflow), "{source}");
    }
    assert_eq!(map("0u - 1u", ""), Err(EvalError::Overflow));
    assert_eq!(map("x / 0", "1"), Err(EvalError::DivisionByZero));
    assert_eq!(map("x % 0", "1"), Err(EvalError::DivisionByZero));
    assert_eq!(map("x / 0u", "1"), Err(EvalError::WrongType));
    assert_eq!(map("x * 2", "a"), Err(EvalError::WrongType));
    assert_eq!(map("x.f", "a"), Err(EvalError::WrongType));
    assert_eq!(map("x[0]", "a"), Err(EvalError::WrongType));
    assert_eq!(map("x.map(y, y)", "a"), Err(EvalError::WrongType));
    assert_eq!(map("[1][x]", "1"), Err(EvalError::NoSuchKey));
    assert_eq!(map("[1][x]", "-1"), Err(EvalError::NoSuchKey));
    assert_eq!(map("{'a': 1}[x]", "b"), Err(EvalError::NoSuchKey));
    assert_eq!(map("{'a': 1, 'a': 2}['a']", ""), Err(EvalError::NoSuchKey));
    assert_eq!(map("int(x)", "abc"), Err(EvalError::Function));
    assert_eq!(map("x && true", "abc"), Err(EvalError::WrongType));
    assert_eq!(compile("string(x)").map(b"\xff"), Err(EvalError::Function));
}

#[test]
fn filters_are_bools() {
    let filter = compile("x.startsWith('user:') && x.size() > 6");
    assert_eq!(filter.test(b"user:42"), Ok(true));
    assert_eq!(filter.test(b"user:4"), Ok(false));
    assert_eq!(filter.test(b"42"), Err(EvalError::WrongType));
    assert_eq!(compile("x").test(b"true"), Err(EvalError::NotBool));
    assert_eq!(compile("1").test(b""), Err(EvalError::NotBool));
    assert_eq!(compile("x.contains('b') || x.endsWith('c')").test(b"ac"), Ok(true));
    assert_eq!(compile("x in ['a', 'b']").test(b"b"), Ok(true));
    assert_eq!(compile("x in {'a': 1}").test(b"b"), Ok(false));
    assert_eq!(compile("has({'a': 1}.a) && {'a': 1}.a == 1").test(b""), Ok(true));
    assert_eq!(compile("x != 'a' // not a\n && x != \"b\"").test(b"c"), Ok(true));
    assert_eq!(compile("x in'a' || true").test(b"c"), Ok(true));
}

#[test]
fn refusals_have_a_place() {
    for (source, text) in [
        ("x + y", "line 1, column 5: unknown variable 'y': only x is defined"),
        ("'é' + y", "line 1, column 7: unknown variable 'y': only x is defined"),
        ("x +\n  y.z", "line 2, column 3: unknown variable 'y': only x is defined"),
        ("y.f(1)", "line 1, column 1: unknown variable 'y': only x is defined"),
        (".x", "line 1, column 2: unknown variable '.x': only x is defined"),
        (
            "[1].map(y, y) == [1] && y == 1",
            "line 1, column 25: unknown variable 'y': only x is defined",
        ),
        ("now()", "line 1, column 4: unknown function 'now'"),
        ("x.matches('a')", "line 1, column 10: unknown function 'matches'"),
        ("timestamp(x)", "line 1, column 10: unknown function 'timestamp'"),
        ("size(x, x)", "line 1, column 5: 'size' takes 1 argument(s)"),
        ("x.contains()", "line 1, column 11: 'contains' takes 1 argument(s)"),
        ("optional.of(x)", "line 1, column 1: unknown variable 'optional': only x is defined"),
        ("(x", "line 1, column 3: syntax error: a bracket is not closed"),
        ("x)", "line 1, column 2: syntax error: this bracket does not match"),
        ("(x]", "line 1, column 3: syntax error: this bracket does not match"),
        ("x + 'a", "line 1, column 5: syntax error: this string is not closed"),
        ("'a\nb'", "line 1, column 1: syntax error: this string is not closed"),
        ("'a\\q'", "line 1, column 3: syntax error: invalid escape sequence"),
        ("'\\u12'", "line 1, column 2: syntax error: invalid escape sequence"),
        ("x # y", "line 1, column 3: syntax error: unexpected character"),
        ("x = 1", "line 1, column 3: syntax error: unexpected character"),
        ("x.`a`", "line 1, column 3: syntax error: unexpected character"),
        ("Msg{a: 1}", "line 1, column 4: there are no messages"),
        (
            "{'a': x}",
            "line 1, column 1: a map can only be looked into, as in {..}[k], k in {..} or size()",
        ),
    ] {
        assert_eq!(refused(source).to_string(), text, "{source}");
    }
    for source in [
        "",
        " ",
        "// c",
        "x +",
        "+ x",
        "x y",
        "1 2",
        "x ? 1",
        "()",
        "[1",
        "for",
        "99999999999999999999",
        "x.?a",
        "x[?0]",
        "[?x]",
        "'\\ud800'",
        "1e999",
        "x..a",
        "0x",
        "1.2.3",
    ] {
        let error = refused(source);
        assert!(matches!(error.reason, Refusal::Syntax(_)), "{source}: {error}");
        assert!(!error.to_string().contains(['\n', '\r']), "{source}: {error}");
    }
    // The order of a map is not defined, so nothing may see it.
    for source in [
        "{1: 2}.map(k, k)",
        "[{1: 2}]",
        "x == 1 ? {1: 2} : {}",
        "dyn({1: 2}).map(k, k)",
        "{1: {2: 3}}[1]",
        "{1: 2} == {1: 2}",
    ] {
        assert!(matches!(refused(source).reason, Refusal::Unsupported(_)), "{source}");
    }
}

#[test]
fn refusals_by_size() {
    let long = format!("'{}'", "a".repeat(4094));
    ok(&long, "", &"a".repeat(4094));
    assert_eq!(refused(&format!("{long} ")).reason, Refusal::TooLong);
    let list = |n: usize| vec!["1"; n].join(",");
    ok(&format!("size([{}])", list(998)), "", "998");
    assert_eq!(refused(&format!("size([{}])", list(999))).reason, Refusal::TooManyNodes);
    let nested = |n: usize| format!("{}x{}", "(".repeat(n), ")".repeat(n));
    ok(&nested(32), "1", "1");
    assert_eq!(refused(&nested(33)).reason, Refusal::TooDeep);
    ok(&vec!["x"; 60].join("+"), "1", "60");
    assert_eq!(refused(&vec!["x"; 70].join("+")).reason, Refusal::TooDeep);
    // Neither alternatives nor arguments are depth.
    ok(&format!("{}false", "x == 1 || ".repeat(200)), "2", "false");
    ok(&format!("x in [{}]", vec!["-1"; 300].join(",")), "-1", "true");
    let source = "[1].map(a, [1].map(b, [1].map(c, c)))";
    assert_eq!(refused(source).reason, Refusal::TooManyLoops);
    ok("[1, 2].map(a, [1, 2].map(b, a * b * x)[1])[1]", "3", "12");
    ok("[1].map(a, a).map(a, a).map(a, a + x)[0]", "3", "4");
}

/// Whatever is repeated, and however the pieces nest: an answer, and no overflow of a small stack.
#[test]
fn deep_sources_are_refused_on_a_small_stack() {
    let run = || {
        let pieces = [
            ("(", ")"),
            ("[", "]"),
            ("{1:", "}[1]"),
            ("!", ""),
            ("-", ""),
            ("- ", ""),
            ("", ".a"),
            ("", "[0]"),
            ("x+", ""),
            ("x<", ""),
            ("x&&", ""),
            ("x||", ""),
            ("x?x:", ""),
            ("x?", ":x"),
            ("x&&x?x:", ""),
            ("f(", ")"),
            ("x.f(", ")"),
            ("size(", ")"),
            ("", ".size()"),
            ("'", ""),
            ("\"", ""),
            ("'''", ""),
            ("r'", "'"),
            ("{", ""),
            ("[", ""),
            ("(", ""),
            ("}", ""),
            (".", ""),
            ("{x:x,", ""),
            ("[x,", ""),
            ("x in ", ""),
            ("-(", ")"),
            ("!(", ")"),
            ("[1].map(y,", ")"),
            ("has(x.", ")"),
            ("x ", ""),
            ("//", ""),
            ("\\", ""),
            ("\n", ""),
            ("1e", ""),
            ("x{", "}"),
            ("x{a:", "}"),
            ("([x].map(y,", ")||!(x))"),
            ("1?(", "):0"),
        ];
        for (before, after) in pieces {
            for count in [1, 31, 32, 33, 60, 64, 65, 100, 300, 1000, 2000, 4000, 10_000] {
                let source = format!("{}x{}", before.repeat(count), after.repeat(count));
                if let Ok(expression) = Expression::compile(&source) {
                    let _ = (expression.map(b"1"), expression.map(b"1.5"), expression.test(b"x"));
                }
            }
        }
        for source in ["(", "!", "-", "["] {
            assert!(Expression::compile(&source.repeat(10_000)).is_err());
            assert!(Expression::compile(&source.repeat(4_000)).is_err());
        }
        for (before, after) in [("(", ")"), ("!", ""), ("-", ""), ("", ".a.a.a"), ("[", "]")] {
            let source = format!("{}x{}", before.repeat(1300), after.repeat(1300));
            let error = Expression::compile(&source).map(|_| ()).unwrap_err();
            assert!(matches!(error.reason, Refusal::TooDeep | Refusal::TooLong), "{error}");
        }
    };
    std::thread::Builder::new().stack_size(1 << 20).spawn(run).unwrap().join().unwrap();
}

#[test]
fn growth_is_bounded_before_it_happens() {
    // Doubling chains, squares and cubes: refused, or over before anyone waits.
    let double = "y + y + y + y + y + y + y + y";
    let mut chain = "[x]".to_owned();
    for _ in 0..12 {
        chain = format!("{chain}.map(y, {double})");
        let started = Instant::now();
        if let Ok(expression) = Expression::compile(&format!("{chain}[0]")) {
            let _ = expression.map(&vec![b'a'; 10_000]);
            let _ = expression.map(b"a");
        }
        assert!(started.elapsed() < Duration::from_secs(5), "{chain}");
    }
    assert_eq!(refused(&format!("{chain}[0]")).reason, Refusal::TooCostly);
    let list = vec!["1"; 200].join(",");
    let square = format!("[{list}].map(a, [{list}].map(b, a + b))");
    let started = Instant::now();
    let _ = Expression::compile(&format!("size({square})")).map(|e| e.map(b"1"));
    assert!(started.elapsed() < Duration::from_secs(5));
    let squares = format!("[{list}].all(a, [{list}].all(b, a == b))");
    assert_eq!(refused(&squares).reason, Refusal::TooCostly);
    // Bounds that depend on the element's length are checked for it.
    let many = compile(&vec!["x"; 40].join("+"));
    assert_eq!(many.map(b"ab").map(|bytes| bytes.len()), Ok(80));
    assert_eq!(many.map(&vec![b'a'; 1 << 19]), Err(EvalError::TooCostly));
}

#[test]
fn elements_are_bounded() {
    let element = vec![b'a'; MAX_ELEMENT];
    assert_eq!(compile("x").map(&element), Ok(element.clone()));
    assert_eq!(compile("x + 'a'").map(&element), Err(EvalError::TooLong));
    assert_eq!(compile("size(x)").map(&element), Ok(b"1048576".to_vec()));
    let element = vec![b'a'; MAX_ELEMENT + 1];
    assert_eq!(compile("1").map(&element), Err(EvalError::TooLong));
    assert_eq!(compile("true").test(&element), Err(EvalError::TooLong));
    // A long number is a number.
    let element = vec![b'9'; 300];
    assert_eq!(compile("type(x) == double").test(&element), Ok(true));
}

#[test]
fn expressions_are_shared_between_threads() {
    fn shared<T: Send + Sync + Clone>(_: &T) {}
    let expression = compile("x * 2");
    shared(&expression);
    assert_eq!(expression.clone().source(), "x * 2");
    assert_eq!(format!("{expression:?}"), "Expression(\"x * 2\")");
    let handles: Vec<_> = (0..4)
        .map(|n: u8| {
            let expression = expression.clone();
            std::thread::spawn(move || expression.map(n.to_string().as_bytes()))
        })
        .collect();
    for (n, handle) in handles.into_iter().enumerate() {
        assert_eq!(handle.join().unwrap(), Ok((n * 2).to_string().into_bytes()));
    }
}

const OPERATORS: [&str; 14] =
    ["+", "-", "*", "/", "%", "==", "!=", "<", "<=", ">", ">=", "in", "&&", "||"];

const FUNCTIONS: [&str; 11] =
    ["size", "int", "uint", "double", "string", "bytes", "bool", "dyn", "type", "-", "!"];

/// What sources are made of, and some of what they are not.
const TOKENS: &[&str] = &[
    "x", "y", "(", ")", "[", "]", "{", "}", ",", ":", "?", ".", "+", "-", "*", "/", "%", "!", "==",
    "!=", "<", ">", "<=", ">=", "&&", "||", "in", "1", "0", "1.5", "2u", "0x1f", "'a'", "\"b\"",
    "b'c'", "r'\\'", "'''d'''", "true", "null", "map", "filter", "all", "exists", "has", "size",
    "int", "string", "//", "\n", " ", "é", "\\", "'", "\"", "e", "_", "@", "`", "\0", "=", "&",
];

/// Sources that mostly compile and of which many evaluate.
fn source() -> impl Strategy<Value = String> {
    let leaf = prop_oneof![
        4 => Just("x".to_owned()),
        2 => prop_oneof![Just("y".to_owned()), Just("a".to_owned())],
        2 => any::<i64>().prop_map(|n| n.to_string()),
        2 => (-3i64..4).prop_map(|n| n.to_string()),
        1 => any::<u64>().prop_map(|n| format!("{n}u")),
        1 => any::<f64>().prop_filter("finite", |n| n.is_finite()).prop_map(|n| format!("{n:?}")),
        1 => prop_oneof![Just("true"), Just("false"), Just("null"), Just("int")]
            .prop_map(str::to_owned),
        2 => "[a-c0-9é]{0,4}".prop_map(|s| format!("'{s}'")),
        1 => Just("b'\\xff\\x00'".to_owned()),
    ];
    leaf.prop_recursive(5, 40, 4, |inner| {
        let operator = prop::sample::select(OPERATORS.to_vec());
        let function = prop::sample::select(FUNCTIONS.to_vec());
        let method = prop::sample::select(vec!["contains", "startsWith", "endsWith"]);
        let looping = prop::sample::select(vec!["all", "exists", "exists_one", "map", "filter"]);
        let list = prop::collection::vec(inner.clone(), 0..4);
        let map = prop::collection::vec((inner.clone(), inner.clone()), 0..3);
        prop_oneof![
            4 => (inner.clone(), operator, inner.clone())
                .prop_map(|(a, o, b)| format!("({a} {o} {b})")),
            2 => (function, inner.clone()).prop_map(|(f, a)| format!("{f}({a})")),
            1 => (inner.clone(), method, inner.clone())
                .prop_map(|(a, m, b)| format!("{a}.{m}({b})")),
            1 => (inner.clone(), inner.clone(), inner.clone())
                .prop_map(|(a, b, c)| format!("({a} ? {b} : {c})")),
            1 => prop::collection::vec(inner.clone(), 0..4)
                .prop_map(|l| format!("[{}]", l.join(", "))),
            1 => (inner.clone(), inner.clone()).prop_map(|(a, b)| format!("{a}[{b}]")),
            2 => (list, looping, prop_oneof![Just("y"), Just("a"), Just("x")], inner.clone())
                .prop_map(|(l, m, v, b)| format!("[{}].{m}({v}, {b})", l.join(", "))),
            1 => (map, inner.clone()).prop_map(|(l, k)| {
                let entries: Vec<_> = l.into_iter().map(|(k, v)| format!("{k}: {v}")).collect();
                format!("{{{}}}[{k}]", entries.join(", "))
            }),
            1 => inner.prop_map(|a| format!("has({a}.f)")),
        ]
    })
}

fn element() -> impl Strategy<Value = Vec<u8>> {
    prop_oneof![
        prop::collection::vec(any::<u8>(), 0..12),
        any::<i64>().prop_map(|n| n.to_string().into_bytes()),
        (-3i64..4).prop_map(|n| n.to_string().into_bytes()),
        any::<f64>().prop_map(|n| n.to_string().into_bytes()),
        (-3i64..4).prop_map(|n| format!("{n}.5").into_bytes()),
        "[-+.e0-9]{0,8}".prop_map(String::into_bytes),
        "[a-c0-9é]{0,4}".prop_map(String::into_bytes),
        Just(i64::MIN.to_string().into_bytes()),
        Just(i64::MAX.to_string().into_bytes()),
    ]
}

/// Twice with one expression and once with another: always the same.
fn same(source: &str, elements: &[Vec<u8>]) -> Result<bool, TestCaseError> {
    let one = Expression::compile(source);
    let other = Expression::compile(source);
    let (one, other) = match (one, other) {
        (Ok(one), Ok(other)) => (one, other),
        (Err(one), Err(other)) => {
            prop_assert_eq!(&one, &other);
            prop_assert!(!one.to_string().contains(['\n', '\r']));
            return Ok(false);
        }
        _ => return Err(TestCaseError::fail("compiled only once")),
    };
    let started = Instant::now();
    for element in elements {
        let result = one.map(element);
        prop_assert_eq!(&result, &one.map(element));
        prop_assert_eq!(&result, &other.map(element));
        let test = one.test(element);
        prop_assert_eq!(test, one.test(element));
        prop_assert_eq!(test, other.test(element));
        match (test, result) {
            (Ok(stays), result) => prop_assert_eq!(result, Ok(stays.to_string().into_bytes())),
            (Err(EvalError::NotBool), _) => {}
            (Err(error), result) => prop_assert_eq!(result, Err(error)),
        }
    }
    prop_assert!(started.elapsed() < Duration::from_secs(2), "took {:?}", started.elapsed());
    Ok(true)
}

/// The random sources are worth something: many compile, and many of these give a result.
#[test]
fn random_expressions_mostly_compile() {
    let mut runner = proptest::test_runner::TestRunner::deterministic();
    let (mut compiled, mut results, mut doubles) = (0, 0, 0);
    for _ in 0..300 {
        let source = source().new_tree(&mut runner).unwrap().current();
        if let Ok(expression) = Expression::compile(&source) {
            compiled += 1;
            results += usize::from(expression.map(b"2").is_ok() || expression.map(b"a").is_ok());
            doubles += usize::from(expression.map(b"2.5").is_ok());
        }
    }
    assert!(compiled > 90 && results > 30 && doubles > 20, "{compiled} {results} {doubles}");
}

/// How many random cases; PROPTEST_CASES raises it.
fn config() -> ProptestConfig {
    let mut config = ProptestConfig::default();
    if std::env::var_os("PROPTEST_CASES").is_none() {
        config.cases = 500;
    }
    config.failure_persistence = None;
    config
}

proptest! {
    #![proptest_config(config())]

    #[test]
    fn random_expressions_are_deterministic(
        source in source(),
        elements in prop::collection::vec(element(), 1..6),
    ) {
        same(&source, &elements)?;
    }

    #[test]
    fn random_text_never_panics(
        source in "\\PC{0,60}",
        elements in prop::collection::vec(element(), 1..3),
    ) {
        same(&source, &elements)?;
    }

    #[test]
    fn random_tokens_never_panic(
        tokens in prop::collection::vec(
            prop::sample::select(TOKENS.to_vec()),
            0..25,
        ),
        spaced in any::<bool>(),
        elements in prop::collection::vec(element(), 1..3),
    ) {
        same(&tokens.join(if spaced { " " } else { "" }), &elements)?;
    }

    /// A valid source with some of it deleted, doubled or overwritten.
    #[test]
    fn broken_expressions_never_panic(
        source in source(),
        edits in prop::collection::vec((any::<prop::sample::Index>(), 0u8..3, any::<char>()), 1..4),
        elements in prop::collection::vec(element(), 1..3),
    ) {
        let mut text: Vec<char> = source.chars().collect();
        for (place, edit, character) in edits {
            let at = place.index(text.len() + 1);
            match edit {
                0 if at < text.len() => drop(text.remove(at)),
                1 if at < text.len() => { let c = text[at]; text.insert(at, c); }
                _ => text.insert(at, character),
            }
        }
        same(&text.into_iter().collect::<String>(), &elements)?;
    }
}
