//! The rule in a route's metadata: `filter_metadata.latchkey {rule, path?}`.

/// A route's metadata, parsed.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum RouteMetadata<'a> {
    /// The route has no metadata for Latchkey.
    Absent,
    /// A rule, and the template that binds a workspace, if there is one.
    Rule {
        /// A word, not parsed yet: an unknown one denies.
        rule: &'a str,
        /// The text of the template, not compiled yet: an invalid one matches no path.
        path: Option<&'a str>,
    },
    /// Metadata for Latchkey without a rule, or that can't be read: the request is denied.
    Unusable,
}

impl<'a> RouteMetadata<'a> {
    /// Reads the metadata in Envoy's encoding of a map: a count, the lengths of each name and value, then each name and
    /// value followed by a zero byte; lengths are `u32` LE. A value that isn't text arrives as the raw bytes of a
    /// number or boolean: it parses as no rule, and the guard after the filter doesn't accept it as text either.
    pub fn read(bytes: Option<&'a [u8]>) -> Self {
        let Some(bytes) = bytes else { return Self::Absent };
        let Some(pairs) = Pairs::read(bytes) else { return Self::Unusable };
        let mut rule = None;
        let mut path = None;
        for pair in pairs {
            match pair {
                Some((b"rule", value)) => rule = Some(value),
                Some((b"path", value)) => path = Some(value),
                Some(_) => {}
                None => return Self::Unusable,
            }
        }
        let text = |bytes: Option<&'a [u8]>| bytes.map(str::from_utf8).transpose();
        match (text(rule), text(path)) {
            (Ok(Some(rule)), Ok(path)) => Self::Rule { rule, path },
            (Ok(None) | Err(_), _) | (_, Err(_)) => Self::Unusable,
        }
    }

    /// The text that the guard after the filter builds from the route that Envoy selected in the end. No two routes
    /// that can be allowed have the same text: rules and templates contain no space, and a template is never empty.
    pub fn guard_text(&self) -> String {
        match self {
            Self::Rule { rule, path: Some("") } => format!("{rule} \"\""),
            Self::Rule { rule, path } => format!("{rule} {}", path.unwrap_or_default()),
            Self::Absent | Self::Unusable => "-".to_owned(),
        }
    }
}

/// The pairs of a map, in their encoded order; `None` is a truncated pair.
struct Pairs<'a> {
    lengths: &'a [[u8; 8]],
    rest: &'a [u8],
}

impl<'a> Pairs<'a> {
    fn read(bytes: &'a [u8]) -> Option<Self> {
        let (count, bytes) = bytes.split_first_chunk::<4>()?;
        let count = usize::try_from(u32::from_le_bytes(*count)).ok()?;
        let (lengths, rest) = bytes.split_at_checked(count.checked_mul(8)?)?;
        Some(Self { lengths: lengths.as_chunks().0, rest })
    }

    fn take(&mut self, length: [u8; 4]) -> Option<&'a [u8]> {
        let length = usize::try_from(u32::from_le_bytes(length)).ok()?;
        let (taken, rest) = self.rest.split_at_checked(length)?;
        let (zero, rest) = rest.split_first()?;
        self.rest = rest;
        (*zero == 0).then_some(taken)
    }
}

impl<'a> Iterator for Pairs<'a> {
    type Item = Option<(&'a [u8], &'a [u8])>;

    fn next(&mut self) -> Option<Self::Item> {
        let ([a, b, c, d, e, f, g, h], lengths) = self.lengths.split_first()?;
        self.lengths = lengths;
        let name = self.take([*a, *b, *c, *d]);
        let value = self.take([*e, *f, *g, *h]);
        Some(name.zip(value))
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::fake_envoy::map;

    #[test]
    fn rule_and_path_are_read_in_place() {
        let read = RouteMetadata::Rule { rule: "reviews:read", path: None };
        let bound = RouteMetadata::Rule { rule: "reviews:read", path: Some("/v1/{workspace}") };
        for (name, pairs, expected) in [
            ("rule", &[("rule", &b"reviews:read"[..])][..], read),
            ("path first", &[("path", b"/v1/{workspace}"), ("rule", b"reviews:read")], bound),
            ("other names are ignored", &[("owner", b"team-a"), ("rule", b"reviews:read")], read),
            ("no rule", &[("path", b"/v1/{workspace}")], RouteMetadata::Unusable),
            ("empty", &[], RouteMetadata::Unusable),
            ("a number's bytes", &[("rule", b"\x00\x00\x00\x00\x00\x00\xf0\xbf")], RouteMetadata::Unusable),
            ("a number's bytes for a path", &[("rule", b"key"), ("path", b"\xf0\x3f")], RouteMetadata::Unusable),
        ] {
            assert_eq!(RouteMetadata::read(Some(&map(pairs))), expected, "{name}");
        }
        assert_eq!(RouteMetadata::read(None), RouteMetadata::Absent);
    }

    #[test]
    fn truncated_metadata_or_a_wrong_length_is_unusable() {
        let whole = map(&[("rule", b"key"), ("path", b"/a")]);
        for length in 0..whole.len() {
            assert_eq!(RouteMetadata::read(Some(&whole[..length])), RouteMetadata::Unusable, "{length} bytes");
        }
        for at in 0..20 {
            let mut corrupted = whole.clone();
            corrupted[at] ^= 0xff;
            assert_eq!(RouteMetadata::read(Some(&corrupted)), RouteMetadata::Unusable, "byte {at}");
        }
    }

    #[test]
    fn the_guard_s_text_names_rule_and_path() {
        let rule = RouteMetadata::Rule { rule: "key", path: None };
        assert_eq!(rule.guard_text(), "key ");
        assert_eq!(RouteMetadata::Rule { rule: "key", path: Some("/{workspace}") }.guard_text(), "key /{workspace}");
        let empty = RouteMetadata::Rule { rule: "key", path: Some("") };
        assert_eq!(empty.guard_text(), "key \"\"", "an empty path denies, unlike no path");
        assert_eq!(RouteMetadata::Absent.guard_text(), "-");
    }
}
