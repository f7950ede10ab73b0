//! Redis's glob patterns: `*`, `?`, `[a-z]`, `[^a]`, and `\` before a literal.
//!
//! Redis's own matcher tries every position for every star, which takes exponential time on patterns
//! like `a*a*a*b`. A match of the part behind a star never needs an earlier star to be tried again,
//! so this one goes back to the last star only: its cost is at most pattern times text.

/// Whether the whole text matches the pattern.
pub fn matches(pattern: &[u8], text: &[u8]) -> bool {
    search(pattern, text, false)
}

/// The same for names, whose case does not matter.
pub fn matches_ignoring_case(pattern: &[u8], text: &[u8]) -> bool {
    search(pattern, text, true)
}

fn search(pattern: &[u8], text: &[u8], nocase: bool) -> bool {
    let (mut p, mut t) = (0, 0);
    let mut star: Option<(usize, usize)> = None;
    loop {
        let stepped = match (pattern.get(p), text.get(t)) {
            (Some(b'*'), _) => {
                while pattern.get(p) == Some(&b'*') {
                    p += 1;
                }
                if p == pattern.len() {
                    return true;
                }
                star = Some((p, t));
                continue;
            }
            (None, None) => return true,
            (_, None) => return false,
            (None, Some(_)) => None,
            (Some(_), Some(byte)) => step(pattern, p, *byte, nocase),
        };
        match (stepped, &mut star) {
            (Some(next), _) => {
                p = next;
                t += 1;
            }
            (None, Some((behind, from))) => {
                *from += 1;
                p = *behind;
                t = *from;
            }
            (None, None) => return false,
        }
    }
}

/// Matches one byte against the item at `p`; where the next item begins.
fn step(pattern: &[u8], p: usize, byte: u8, nocase: bool) -> Option<usize> {
    let fold = |b: u8| if nocase { b.to_ascii_lowercase() } else { b };
    let byte = fold(byte);
    match *pattern.get(p)? {
        b'?' => Some(p + 1),
        b'[' => {
            let (hit, next) = class(pattern, p + 1, byte, &fold);
            hit.then_some(next)
        }
        b'\\' if p + 1 < pattern.len() => (fold(*pattern.get(p + 1)?) == byte).then_some(p + 2),
        literal => (fold(literal) == byte).then_some(p + 1),
    }
}

/// Matches the class whose first item is at `p`. As in Redis, one that is never closed ends with the
/// pattern, and an empty one matches nothing.
fn class(pattern: &[u8], mut p: usize, byte: u8, fold: &dyn Fn(u8) -> u8) -> (bool, usize) {
    let negated = pattern.get(p) == Some(&b'^');
    if negated {
        p += 1;
    }
    let mut hit = false;
    loop {
        match (pattern.get(p), pattern.get(p + 1), pattern.get(p + 2)) {
            (None, _, _) => break,
            (Some(b'\\'), Some(escaped), _) => {
                hit |= *escaped == byte;
                p += 2;
            }
            (Some(b']'), _, _) => {
                p += 1;
                break;
            }
            (Some(low), Some(b'-'), Some(high)) => {
                let (low, high) = (fold(*low.min(high)), fold(*low.max(high)));
                hit |= (low..=high).contains(&byte);
                p += 3;
            }
            (Some(literal), _, _) => {
                hit |= fold(*literal) == byte;
                p += 1;
            }
        }
    }
    (hit != negated, p)
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn glob(pattern: &str, text: &str) -> bool {
        matches(pattern.as_bytes(), text.as_bytes())
    }

    #[test]
    fn items() {
        assert!(glob("h?llo", "hello") && !glob("h?llo", "hllo"));
        assert!(glob("h*llo", "hllo") && glob("h*llo", "heeeello") && !glob("h*llo", "hell"));
        assert!(glob("h[ae]llo", "hallo") && !glob("h[ae]llo", "hillo"));
        assert!(glob("h[^e]llo", "hallo") && !glob("h[^e]llo", "hello"));
        assert!(
            glob("h[a-b]llo", "hbllo") && glob("h[b-a]llo", "hbllo") && !glob("h[a-b]llo", "hcllo")
        );
        assert!(glob(r"\*", "*") && !glob(r"\*", "x") && glob(r"[\]]", "]") && glob(r"a\", r"a\"));
        assert!(glob("", "") && !glob("", "a") && glob("*", "") && glob("**a**", "bab"));
        assert!(glob("[a", "a") && !glob("[]", "a") && glob("a*c", "abcbc"));
        assert!(matches_ignoring_case(b"MAX*[M-P]", b"maxmemo") && !matches(b"MAX*", b"maxmemo"));
    }

    #[test]
    fn pathological_patterns_end() {
        let pattern = "a*".repeat(1000) + "b";
        assert!(!glob(&pattern, &"a".repeat(5000)));
    }

    /// Redis's `stringmatchlen`, word for word.
    fn reference(mut p: &[u8], mut s: &[u8]) -> bool {
        while !p.is_empty() && !s.is_empty() {
            match p[0] {
                b'*' => {
                    while p.len() > 1 && p[1] == b'*' {
                        p = &p[1..];
                    }
                    if p.len() == 1 {
                        return true;
                    }
                    while !s.is_empty() {
                        if reference(&p[1..], s) {
                            return true;
                        }
                        s = &s[1..];
                    }
                    return false;
                }
                b'?' => s = &s[1..],
                b'[' => {
                    p = &p[1..];
                    let not = p.first() == Some(&b'^');
                    if not {
                        p = &p[1..];
                    }
                    let mut hit = false;
                    loop {
                        if p.len() >= 2 && p[0] == b'\\' {
                            p = &p[1..];
                            hit |= p[0] == s[0];
                        } else if p.first().is_none_or(|byte| *byte == b']') {
                            break;
                        } else if p.len() >= 3 && p[1] == b'-' {
                            let (a, b) = (p[0].min(p[2]), p[0].max(p[2]));
                            p = &p[2..];
                            hit |= (a..=b).contains(&s[0]);
                        } else {
                            hit |= p[0] == s[0];
                        }
                        p = &p[1..];
                    }
                    if hit == not {
                        return false;
                    }
                    s = &s[1..];
                }
                c => {
                    let mut literal = c;
                    if c == b'\\' && p.len() >= 2 {
                        p = &p[1..];
                        literal = p[0];
                    }
                    if literal != s[0] {
                        return false;
                    }
                    s = &s[1..];
                }
            }
            p = p.get(1..).unwrap_or_default();
            if s.is_empty() {
                while p.first() == Some(&b'*') {
                    p = &p[1..];
                }
                break;
            }
        }
        p.is_empty() && s.is_empty()
    }

    fn letters() -> impl Strategy<Value = Vec<u8>> {
        let letter = proptest::sample::select(b"ab*?[]^-\\".to_vec());
        proptest::collection::vec(letter, 0..8)
    }

    proptest! {
        #[test]
        fn agrees_with_redis(pattern in letters(), text in letters()) {
            // An empty text is never looked at by Redis's loop, so only stars match it there.
            prop_assume!(!text.is_empty());
            prop_assert_eq!(matches(&pattern, &text), reference(&pattern, &text));
        }
    }
}
