//! Identifiers: 16 bytes on the wire, a prefix and 32 hexadecimal digits as text.

use std::fmt;
use std::str::FromStr;

use serde::{Deserialize, Serialize};
use uuid::Uuid;

/// A text that isn't an identifier of the expected kind.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("not an id: expected `{prefix}` and 32 hexadecimal digits in lower case")]
pub struct ParseIdError {
    prefix: &'static str,
}

macro_rules! id {
    ($(#[$doc:meta])* $name:ident, $prefix:literal) => {
        $(#[$doc])*
        #[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
        #[serde(try_from = "String", into = "String")]
        pub struct $name(Uuid);

        impl $name {
            /// What the text starts with.
            pub const PREFIX: &'static str = $prefix;

            /// The id made of these 16 bytes.
            pub const fn from_bytes(bytes: [u8; 16]) -> Self {
                Self(Uuid::from_bytes(bytes))
            }

            /// The length of the text in bytes.
            pub const TEXT_BYTES: usize = Self::PREFIX.len() + 32;

            /// The text, without an allocation.
            pub fn text(&self) -> [u8; Self::TEXT_BYTES] {
                let mut text = [b'0'; Self::TEXT_BYTES];
                let (prefix, digits) = text.split_at_mut(Self::PREFIX.len());
                prefix.copy_from_slice(Self::PREFIX.as_bytes());
                self.0.simple().encode_lower(digits);
                text
            }

            /// The id's 16 bytes, as on the wire.
            pub const fn as_bytes(&self) -> &[u8; 16] {
                self.0.as_bytes()
            }
        }

        impl From<Uuid> for $name {
            fn from(uuid: Uuid) -> Self {
                Self(uuid)
            }
        }

        impl fmt::Display for $name {
            fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                write!(f, "{}{}", Self::PREFIX, self.0.simple())
            }
        }

        impl FromStr for $name {
            type Err = ParseIdError;

            fn from_str(text: &str) -> Result<Self, ParseIdError> {
                parse(text, Self::PREFIX).map(Self)
            }
        }

        impl TryFrom<String> for $name {
            type Error = ParseIdError;

            fn try_from(text: String) -> Result<Self, ParseIdError> {
                text.parse()
            }
        }

        impl From<$name> for String {
            fn from(id: $name) -> Self {
                id.to_string()
            }
        }
    };
}

id!(
    /// Names a key, through all rotations of its secret. Not secret.
    KeyId,
    "key_"
);
id!(
    /// Names a workspace, the tenant that keys belong to.
    WorkspaceId,
    "ws_"
);
id!(
    /// Names an admin token. Not secret.
    AdminTokenId,
    "adt_"
);
id!(
    /// Names an edge token. Not secret.
    EdgeTokenId,
    "edt_"
);
id!(
    /// Names one history of revisions. A restored database starts a new one, so that two histories are never mixed.
    Epoch,
    ""
);

fn parse(text: &str, prefix: &'static str) -> Result<Uuid, ParseIdError> {
    let refused = ParseIdError { prefix };
    let digits = text.strip_prefix(prefix).ok_or(refused.clone())?;
    // Each id has one spelling: `Uuid` alone would also accept hyphens, braces and capitals.
    let one_spelling = digits.len() == 32 && digits.bytes().all(|b| matches!(b, b'0'..=b'9' | b'a'..=b'f'));
    if !one_spelling {
        return Err(refused);
    }
    Uuid::try_parse(digits).map_err(|_| refused)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::fixtures::test;

    #[test]
    fn text_and_bytes_are_inverses() {
        let id = KeyId::from_bytes(*b"0123456789abcdef");
        assert_eq!(id.to_string(), "key_30313233343536373839616263646566");
        assert_eq!(id.to_string().parse(), Ok(id));
        assert_eq!(id.text().as_slice(), id.to_string().as_bytes());
    }

    #[test]
    fn an_id_has_one_spelling() {
        for text in [
            "",
            "key_",
            "30313233343536373839616263646566",
            "ws_30313233343536373839616263646566",
            "key_3031323334353637383961626364656",
            "key_3031323334353637383961626364656F",
            "key_30313233-3435-3637-3839-616263646566",
        ] {
            assert!(text.parse::<KeyId>().is_err(), "{text:?} was accepted as an id");
        }
    }
}
