//! Paths from a generator with fixed seeds: ordinary ones, mixed with everything that some server reads differently.

use fastrand::Rng;

/// Paths of the generator, each from its own seed.
const PATHS: u64 = 20_000;

const STARTS: [&str; 9] = [
    "/healthz",
    "/healthz/live",
    "/v1/reviews",
    "/v1/reviews/1",
    "/v1/webhooks",
    "/v1/workspaces/acme",
    "/v1/workspaces/acme/members",
    "/v1",
    "",
];
/// Where an attacker wants to get.
const TARGETS: [&str; 7] = [
    "v1/reviews/1",
    "v1/webhooks/1",
    "webhooks/1",
    "healthz",
    "v1/workspaces/other/members",
    "other/members",
    "nowhere",
];
const WORDS: [&str; 14] = [
    "healthz",
    "v1",
    "reviews",
    "webhooks",
    "workspaces",
    "acme",
    "other",
    "1",
    "a.b",
    "caf%c3%a9",
    "~x",
    "x%20y",
    "...",
    "a..b",
];

const SLASHES: [&str; 15] = [
    "//",
    "/./",
    "///",
    "\\",
    "%2f",
    "%2F",
    "%5c",
    "%5C",
    "%252f",
    "%25252F",
    "%c0%af",
    "%c1%9c",
    "%e0%80%af",
    "%u002f",
    "%ef%bc%8f",
];
const DOTS: [&str; 17] = [
    "..",
    ".",
    "...",
    "%2e%2e",
    "%2E.",
    ".%2e",
    "%2e",
    "%252e%252e",
    ".%25252e",
    "%c0%ae%c0%ae",
    "%c0%ae.",
    "%e0%80%ae.",
    "%f0%80%80%ae.",
    "%u002e%u002e",
    ".%00.",
    ".%ff.",
    ".%0a.",
];
/// Text in or after a segment that some server cuts, trims, drops or refuses.
const EXTRAS: [&str; 44] = [
    ";",
    ";x",
    ";x=1",
    ";/",
    "%3b",
    "%3Bx",
    "%253b",
    "%00",
    "%01",
    "%09",
    "%0a",
    "%0d",
    "%0D%0A",
    "%1f",
    "%7f",
    "%20",
    "%20%20",
    "%c2%a0",
    "%e3%80%80",
    "+",
    ".",
    "..",
    "%2e",
    "%3f",
    "%3Fx",
    "%23",
    "%2523",
    "%253f",
    "%",
    "%2",
    "%zz",
    "%%",
    "%25",
    "%u0000",
    "%ff",
    "%c0",
    "%c3",
    "%ed%a0%80",
    "%f8%80%80%80%af",
    "%61",
    "%77",
    "%2d",
    "-",
    "~",
];
/// Bytes that HTTP/1.1 allows in a request line, or nearly. Envoy refuses most of them, and closes the connection.
const RAW: [&[u8]; 8] = [b"\t", b"\x01", b"\x7f", b"\xff", b"\xc3\xa9", b"\xc0\xaf", b"\xc2\xa0", b"\"<>^`{|}"];

/// All of them, in an order that is always the same.
pub fn all() -> Vec<Vec<u8>> {
    (0..PATHS).map(|seed| path(&mut Rng::with_seed(seed))).collect()
}

fn path(random: &mut Rng) -> Vec<u8> {
    let mut path = match random.u8(..10) {
        0..5 => traversal(random),
        5..8 => mixed(random),
        _ => escaped(random),
    };
    if random.u8(..40) == 0 {
        let at = random.usize(1..=path.len());
        let raw = pick(random, &RAW);
        path.splice(at..at, raw.iter().copied());
    }
    if random.u8(..12) == 0 {
        path.extend(pick(random, &["?", "?a=1", "?/../v1/reviews", "?;%2e%2e"]).bytes());
    }
    path
}

fn pick<T: Copy>(random: &mut Rng, from: &[T]) -> T {
    from[random.usize(..from.len())]
}

/// Mostly `/`, otherwise something that some server takes for it.
fn slash(random: &mut Rng) -> &'static str {
    if random.u8(..3) > 0 { "/" } else { pick(random, &SLASHES) }
}

/// Up from a prefix by dot segments of any spelling, and down to another one.
fn traversal(random: &mut Rng) -> Vec<u8> {
    let mut path = pick(random, &STARTS).to_owned();
    for _ in 0..random.usize(1..=3) {
        path.push_str(slash(random));
        path.push_str(pick(random, &DOTS));
        if random.bool() {
            path.push_str(pick(random, &EXTRAS));
        }
    }
    path.push_str(slash(random));
    path.push_str(pick(random, &TARGETS));
    rooted(path)
}

/// An ordinary path with a few insertions anywhere.
fn mixed(random: &mut Rng) -> Vec<u8> {
    let mut path = pick(random, &STARTS).to_owned();
    for _ in 0..random.usize(..4) {
        path.push_str(slash(random));
        path.push_str(pick(random, &WORDS));
    }
    for _ in 0..random.usize(..3) {
        // All of it is ASCII.
        let at = random.usize(..=path.len());
        let extra = match random.u8(..4) {
            0 => pick(random, &SLASHES),
            1 => pick(random, &DOTS),
            _ => pick(random, &EXTRAS),
        };
        path.insert_str(at, extra);
    }
    rooted(path)
}

/// Some bytes of a path, with or without dots, percent-encoded once or more.
fn escaped(random: &mut Rng) -> Vec<u8> {
    let mut path = pick(random, &STARTS).to_owned();
    if random.bool() {
        path.push_str("/..");
        path.push_str(pick(random, &["", "/..", ";", "/", "%09"]));
    }
    path.push('/');
    path.push_str(pick(random, &TARGETS));
    let (rounds, chance) = (random.u8(1..4), random.u8(2..30));
    for _ in 0..rounds {
        let encode =
            |byte: char| if random.u8(..chance) == 0 { format!("%{:02x}", u32::from(byte)) } else { byte.into() };
        path = path.chars().map(encode).collect();
    }
    rooted(path)
}

/// In origin form.
fn rooted(path: String) -> Vec<u8> {
    if path.starts_with('/') { path.into_bytes() } else { format!("/{path}").into_bytes() }
}
