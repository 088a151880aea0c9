//! The key of a call that changes something: its caller's word that two attempts are one call.

use std::fmt;
use std::str::FromStr;

/// Where it stands in a call's metadata.
pub const KEY_HEADER: &str = "holdfast-key";

/// 128 random bits, as 32 lower-case hex digits.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub struct Key([u8; 16]);

/// What was given is no key.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("bad {KEY_HEADER}: a key is 32 lower-case hex digits, at random")]
pub struct KeyError;

impl Key {
    /// The caller brings the randomness.
    pub fn from_random(bits: [u8; 16]) -> Self {
        Self(bits)
    }

    /// As it is stored.
    pub fn bytes(&self) -> &[u8; 16] {
        &self.0
    }
}

impl FromStr for Key {
    type Err = KeyError;
    fn from_str(text: &str) -> Result<Self, KeyError> {
        let legal = |b: u8| b.is_ascii_digit() || (b'a'..=b'f').contains(&b);
        if text.len() != 32 || !text.bytes().all(legal) {
            return Err(KeyError);
        }
        u128::from_str_radix(text, 16).map(|bits| Self(bits.to_be_bytes())).map_err(|_| KeyError)
    }
}

impl fmt::Display for Key {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{:032x}", u128::from_be_bytes(self.0))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn keys_are_32_lower_case_hex_digits() {
        let key = Key::from_random([0, 1, 2, 3, 4, 5, 6, 7, 8, 9, 10, 11, 12, 13, 14, 255]);
        assert_eq!(key.to_string(), "000102030405060708090a0b0c0d0eff");
        assert_eq!(key.to_string().parse(), Ok(key));
        for bad in ["", "0", &"0".repeat(31), &"0".repeat(33), &"F".repeat(32), &format!("+{}", "0".repeat(31))] {
            assert_eq!(bad.parse::<Key>(), Err(KeyError), "{bad:?}");
        }
    }
}
