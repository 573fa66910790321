//! The rule in a route's metadata: `filter_metadata.latchkey {rule, path?}`.

/// What a route's metadata says.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum RouteMetadata<'a> {
    /// The route has no metadata of ours.
    Absent,
    /// A rule, and the template that binds a workspace, if there is one.
    Rule { rule: &'a str, path: Option<&'a str> },
    /// Metadata of ours without a rule, with a value that isn't text, or that can't be read: it denies.
    Unusable,
}

impl<'a> RouteMetadata<'a> {
    /// Reads a serialized `google.protobuf.Struct`, in place.
    pub fn read(bytes: Option<&'a [u8]>) -> Self {
        let Some(bytes) = bytes else { return Self::Absent };
        let mut rule = None;
        let mut path = None;
        let mut fields = Fields { rest: bytes };
        loop {
            match fields.next_entry() {
                Ok(Some(("rule", value))) => rule = Some(value),
                Ok(Some(("path", value))) => path = Some(value),
                Ok(Some(_)) => {}
                Ok(None) => break,
                Err(Unreadable) => return Self::Unusable,
            }
        }
        match (rule, path) {
            (Some(Some(rule)), None) => Self::Rule { rule, path: None },
            (Some(Some(rule)), Some(Some(path))) => Self::Rule { rule, path: Some(path) },
            (None | Some(None), _) | (_, Some(None)) => Self::Unusable,
        }
    }

    /// The text that the guard behind the filter builds from the route that Envoy then took.
    pub fn guard_text(&self) -> String {
        match self {
            Self::Rule { rule, path } => format!("{rule} {}", path.unwrap_or_default()),
            Self::Absent | Self::Unusable => "-".to_owned(),
        }
    }
}

struct Unreadable;

/// The fields of a protobuf message.
struct Fields<'a> {
    rest: &'a [u8],
}

/// A field's value, by its wire type.
enum Field<'a> {
    Bytes(u64, &'a [u8]),
    Other,
}

impl<'a> Fields<'a> {
    /// The next entry of `map<string, Value> fields = 1`: its name, and its value if that is text.
    fn next_entry(&mut self) -> Result<Option<(&'a str, Option<&'a str>)>, Unreadable> {
        loop {
            let entry = match self.next_field()? {
                None => return Ok(None),
                Some(Field::Bytes(1, entry)) => entry,
                Some(Field::Bytes(..) | Field::Other) => continue,
            };
            let mut name = "";
            let mut value = None;
            let mut parts = Fields { rest: entry };
            while let Some(part) = parts.next_field()? {
                match part {
                    Field::Bytes(1, text) => name = str::from_utf8(text).map_err(|_| Unreadable)?,
                    Field::Bytes(2, inner) => value = Fields { rest: inner }.text()?,
                    Field::Bytes(..) | Field::Other => return Err(Unreadable),
                }
            }
            return Ok(Some((name, value)));
        }
    }

    /// The `string_value = 3` of a `Value`, if that is what it holds.
    fn text(mut self) -> Result<Option<&'a str>, Unreadable> {
        let mut text = None;
        while let Some(field) = self.next_field()? {
            text = match field {
                Field::Bytes(3, bytes) => Some(str::from_utf8(bytes).map_err(|_| Unreadable)?),
                Field::Bytes(..) | Field::Other => None,
            };
        }
        Ok(text)
    }

    fn next_field(&mut self) -> Result<Option<Field<'a>>, Unreadable> {
        if self.rest.is_empty() {
            return Ok(None);
        }
        let tag = self.varint()?;
        let number = tag >> 3;
        match tag & 7 {
            0 => self.varint().map(|_| Some(Field::Other)),
            1 => self.take(8).map(|_| Some(Field::Other)),
            2 => {
                let length = usize::try_from(self.varint()?).map_err(|_| Unreadable)?;
                self.take(length).map(|bytes| Some(Field::Bytes(number, bytes)))
            }
            5 => self.take(4).map(|_| Some(Field::Other)),
            _ => Err(Unreadable),
        }
    }

    fn take(&mut self, length: usize) -> Result<&'a [u8], Unreadable> {
        let (taken, rest) = self.rest.split_at_checked(length).ok_or(Unreadable)?;
        self.rest = rest;
        Ok(taken)
    }

    fn varint(&mut self) -> Result<u64, Unreadable> {
        let mut value = 0_u64;
        for shift in (0..64).step_by(7) {
            let (byte, rest) = self.rest.split_first().ok_or(Unreadable)?;
            self.rest = rest;
            value |= u64::from(byte & 0x7f) << shift;
            if byte & 0x80 == 0 {
                return Ok(value);
            }
        }
        Err(Unreadable)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn field(number: u8, content: &[u8]) -> Vec<u8> {
        let mut bytes = vec![number << 3 | 2, u8::try_from(content.len()).unwrap()];
        bytes.extend_from_slice(content);
        bytes
    }

    fn entry(name: &str, value: &[u8]) -> Vec<u8> {
        field(1, &[field(1, name.as_bytes()), field(2, value)].concat())
    }

    fn text(text: &str) -> Vec<u8> {
        field(3, text.as_bytes())
    }

    #[test]
    fn rule_and_path_are_read_in_place() {
        let rule = entry("rule", &text("reviews:read"));
        let path = entry("path", &text("/v1/{workspace}"));
        let other = entry("owner", &text("team-a"));
        for (name, bytes, expected) in [
            ("rule", rule.clone(), RouteMetadata::Rule { rule: "reviews:read", path: None }),
            (
                "path first",
                [path.clone(), rule.clone()].concat(),
                RouteMetadata::Rule { rule: "reviews:read", path: Some("/v1/{workspace}") },
            ),
            (
                "others are left alone",
                [other.clone(), rule].concat(),
                RouteMetadata::Rule { rule: "reviews:read", path: None },
            ),
            ("no rule", path, RouteMetadata::Unusable),
            ("empty", Vec::new(), RouteMetadata::Unusable),
            ("a number for a rule", entry("rule", &[0x11, 0, 0, 0, 0, 0, 0, 0xf0, 0x3f]), RouteMetadata::Unusable),
            ("a truth for a rule", entry("rule", &[0x20, 1]), RouteMetadata::Unusable),
            (
                "a number for a path",
                [entry("rule", &text("key")), entry("path", &[0x20, 1])].concat(),
                RouteMetadata::Unusable,
            ),
            ("not UTF-8", entry("rule", &field(3, &[0xff])), RouteMetadata::Unusable),
        ] {
            assert_eq!(RouteMetadata::read(Some(&bytes)), expected, "{name}");
        }
        assert_eq!(RouteMetadata::read(None), RouteMetadata::Absent);
    }

    #[test]
    fn what_ends_early_is_unusable() {
        let whole = [entry("rule", &text("key")), entry("path", &text("/a"))].concat();
        let ends_of_entries = [0, entry("rule", &text("key")).len()];
        for length in (0..whole.len()).filter(|length| !ends_of_entries.contains(length)) {
            assert_eq!(RouteMetadata::read(Some(&whole[..length])), RouteMetadata::Unusable, "{length} bytes");
        }
    }

    #[test]
    fn the_guard_s_text_names_rule_and_path() {
        let rule = RouteMetadata::Rule { rule: "key", path: None };
        assert_eq!(rule.guard_text(), "key ");
        assert_eq!(RouteMetadata::Rule { rule: "key", path: Some("/{workspace}") }.guard_text(), "key /{workspace}");
        assert_eq!(RouteMetadata::Absent.guard_text(), "-");
    }
}
