//! Stable short names for what a template says.

use serde_json::Value;

/// Letters and digits that form no words and no numbers that a YAML reader mistakes.
const ALPHABET: &[u8] = b"bcdfghjklmnpqrstvwxz2456789";

/// A name of ten characters at most for a value: the same for equal values, whatever the order of their keys.
/// `collisions` makes another one where two values share it.
pub fn short(value: &Value, collisions: Option<i32>) -> String {
    let mut hash = Fnv::new();
    hash.value(value);
    if let Some(collisions) = collisions {
        hash.bytes(&collisions.to_le_bytes());
    }
    let folded = (hash.0 >> 32) as u32 ^ hash.0 as u32;
    folded.to_string().bytes().map(|digit| ALPHABET[usize::from(digit) % ALPHABET.len()] as char).collect()
}

/// FNV-1a over 64 bits: small, stable over versions and machines.
struct Fnv(u64);

impl Fnv {
    fn new() -> Fnv {
        Fnv(0xcbf2_9ce4_8422_2325)
    }

    fn bytes(&mut self, bytes: &[u8]) {
        for byte in bytes {
            self.0 = (self.0 ^ u64::from(*byte)).wrapping_mul(0x0000_0100_0000_01b3);
        }
    }

    fn value(&mut self, value: &Value) {
        match value {
            Value::Object(map) => {
                let mut keys: Vec<&String> = map.keys().filter(|k| !map[*k].is_null()).collect();
                keys.sort_unstable();
                self.bytes(b"{");
                for key in keys {
                    self.bytes(key.as_bytes());
                    self.bytes(b":");
                    self.value(&map[key]);
                    self.bytes(b",");
                }
                self.bytes(b"}");
            }
            Value::Array(items) => {
                self.bytes(b"[");
                for item in items {
                    self.value(item);
                    self.bytes(b",");
                }
                self.bytes(b"]");
            }
            other => self.bytes(other.to_string().as_bytes()),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    #[test]
    fn equal_templates_share_a_name_and_collisions_part_them() {
        let a = short(&json!({"a": 1, "b": [1, 2]}), None);
        assert_eq!(a, short(&serde_json::from_str(r#"{"b":[1,2],"a":1,"c":null}"#).unwrap(), None));
        assert_ne!(a, short(&json!({"a": 1, "b": [2, 1]}), None));
        assert_ne!(a, short(&json!({"a": 1, "b": [1, 2]}), Some(1)));
        assert!(a.len() <= 10 && a.bytes().all(|b| ALPHABET.contains(&b)), "{a}");
    }
}
