//! The SHA-256 of a secret as text, as imports and reports of usage have it.

use sha2::{Digest as _, Sha256};

/// 64 hexadecimal digits, as in a line of an import.
pub fn hexadecimal(secret: &str) -> String {
    Sha256::digest(secret).iter().map(|byte| format!("{byte:02x}")).collect()
}

/// The first 8 of them, which distinguish a key's secrets in a report of usage.
pub fn mark(secret: &str) -> String {
    hexadecimal(secret)[..8].to_owned()
}
