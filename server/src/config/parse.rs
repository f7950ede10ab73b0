//! Values of options as texts, with the errors of Redis.

use std::net::IpAddr;

pub(super) fn number(text: &str, min: u64, max: u64) -> Result<u64, String> {
    let value: i128 = text.parse().map_err(|_| "argument couldn't be parsed into an integer")?;
    u64::try_from(value)
        .ok()
        .filter(|value| (min..=max).contains(value))
        .ok_or_else(|| format!("argument must be between {min} and {max} inclusive"))
}

pub(super) fn memory(text: &str, min: u64, max: u64) -> Result<u64, String> {
    bytes(text)
        .ok_or_else(|| String::from("argument must be a memory value"))
        .and_then(|value| number(&value.to_string(), min, max))
}

/// A size as redis.conf writes it: `100`, `1k` (1000), `1kb` (1024), `1m`, `1mb`, `1g`, `1gb`.
pub fn bytes(text: &str) -> Option<u64> {
    let digits = text.bytes().take_while(u8::is_ascii_digit).count();
    let (number, unit) = text.split_at(digits);
    let factor: u64 = match unit.to_ascii_lowercase().as_str() {
        "" | "b" => 1,
        "k" => 1000,
        "kb" => 1 << 10,
        "m" => 1_000_000,
        "mb" => 1 << 20,
        "g" => 1_000_000_000,
        "gb" => 1 << 30,
        _ => return None,
    };
    number.parse::<u64>().ok()?.checked_mul(factor)
}

pub(super) fn choice(text: &str, choices: &[&str]) -> Result<usize, String> {
    choices
        .iter()
        .position(|choice| choice.eq_ignore_ascii_case(text))
        .ok_or_else(|| format!("argument(s) must be one of the following: {}", choices.join(", ")))
}

pub(super) fn word(text: &str) -> Result<String, String> {
    let good = |b: u8| b.is_ascii_alphanumeric() || matches!(b, b'-' | b'_' | b'.');
    if text.is_empty() || text.len() > 64 || !text.bytes().all(good) {
        return Err("argument must be 1 to 64 letters, digits, '-', '_' or '.'".into());
    }
    Ok(text.into())
}

pub(super) fn addresses(text: &str) -> Result<Vec<(IpAddr, bool)>, String> {
    let mut list = Vec::new();
    for word in text.split_whitespace() {
        let (name, optional) = word.strip_prefix('-').map_or((word, false), |name| (name, true));
        let name = if name == "localhost" { "127.0.0.1" } else { name };
        let name = if name == "*" { "0.0.0.0" } else { name };
        let ip: IpAddr = name.parse().map_err(|_| format!("'{name}' is not an IP address"))?;
        list.push((ip, optional));
    }
    if list.is_empty() { Err("at least one address is needed".into()) } else { Ok(list) }
}

/// An IP address; one of version 6 may stand in brackets.
pub(super) fn ip(text: &str) -> Result<IpAddr, String> {
    let bare = text.strip_prefix('[').and_then(|text| text.strip_suffix(']')).unwrap_or(text);
    let bare = if bare == "localhost" { "127.0.0.1" } else { bare };
    bare.parse().map_err(|_| format!("'{text}' is not an IP address"))
}

/// `host` or `host:port`, as it is; a host of version 6 stands in brackets if a port follows.
pub(super) fn host(text: &str) -> Result<(), String> {
    let host = match text.rsplit_once(':') {
        _ if ip(text).is_ok() => text,
        Some((host, port)) => {
            port.parse::<u16>().ok().filter(|port| *port > 0).ok_or("that is no port")?;
            host
        }
        None => text,
    };
    let fits = |byte: u8| byte.is_ascii_alphanumeric() || b"-._:[]".contains(&byte);
    match !host.is_empty() && host.len() <= 255 && host.bytes().all(fits) {
        true => Ok(()),
        false => Err(format!("'{text}' is not host or host:port")),
    }
}

/// `yes` or `no`.
pub(super) fn yes(text: &str) -> Result<bool, String> {
    choice(text, &["yes", "no"])
        .map(|at| at == 0)
        .map_err(|_| "argument must be 'yes' or 'no'".into())
}

/// The rights of a file, in octal.
pub(super) fn mode(text: &str) -> Result<u32, String> {
    u32::from_str_radix(text, 8)
        .ok()
        .filter(|mode| *mode <= 0o777)
        .ok_or_else(|| "argument couldn't be parsed into an octal number".into())
}

pub(super) fn peer_list(text: &str) -> Result<(), String> {
    for word in text.split_whitespace() {
        let port = word.rsplit_once(':').and_then(|(host, port)| {
            (!host.is_empty()).then_some(port)?.parse::<u16>().ok().filter(|port| *port > 0)
        });
        if port.is_none() {
            return Err(format!("'{word}' is not host:port"));
        }
    }
    Ok(())
}

pub(super) fn output_limit(text: &str) -> Result<usize, String> {
    let words: Vec<&str> = text.split_whitespace().collect();
    if words.is_empty() || !words.len().is_multiple_of(4) {
        return Err("Wrong number of arguments in buffer limit configuration.".into());
    }
    let mut normal = None;
    for class in words.chunks(4) {
        let [name, hard, soft, seconds] = class else { continue };
        if !["normal", "slave", "replica", "pubsub"].contains(name) {
            return Err("Invalid client class specified in buffer limit configuration.".into());
        }
        let limits = (bytes(hard), bytes(soft), seconds.parse::<u32>());
        let (Some(hard), Some(_), Ok(_)) = limits else {
            return Err(
                "Error in hard, soft or soft_seconds setting in buffer limit configuration.".into(),
            );
        };
        if *name == "normal" {
            normal = usize::try_from(hard).ok();
        }
    }
    normal.ok_or_else(|| "Only the class 'normal' has a limit here.".into())
}
