//! A few short texts in one piece of memory.

use std::fmt;

/// What comes before each: its length. A u16 would do for labels, but not for the fields that a definition may select by.
const LENGTH: usize = size_of::<u32>();

/// Texts that are looked through from the first on. Many objects have some, so they are one allocation.
#[derive(Clone, Default, PartialEq, Eq)]
pub struct Texts(Box<[u8]>);

impl Texts {
    pub fn iter(&self) -> impl Iterator<Item = &str> {
        let mut rest = &*self.0;
        std::iter::from_fn(move || {
            let (length, after) = rest.split_first_chunk::<LENGTH>()?;
            let (text, after) = after.split_at_checked(u32::from_le_bytes(*length) as usize)?;
            rest = after;
            std::str::from_utf8(text).ok()
        })
    }

    pub fn get(&self, at: usize) -> Option<&str> {
        self.iter().nth(at)
    }

    pub fn is_empty(&self) -> bool {
        self.0.is_empty()
    }
}

impl<T: AsRef<str>> FromIterator<T> for Texts {
    fn from_iter<I: IntoIterator<Item = T>>(texts: I) -> Self {
        let mut all = Vec::new();
        for text in texts {
            let text = text.as_ref();
            // Objects are far smaller than 4 GiB.
            all.extend_from_slice(&(text.len() as u32).to_le_bytes());
            all.extend_from_slice(text.as_bytes());
        }
        Self(all.into())
    }
}

impl fmt::Debug for Texts {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_list().entries(self.iter()).finish()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn texts_come_back_in_their_order() {
        let long = "x".repeat(70_000);
        let given = ["a", "", "ä€", &long, ""];
        let texts: Texts = given.into_iter().collect();
        assert!(texts.iter().eq(given));
        assert_eq!((texts.get(2), texts.get(5)), (Some("ä€"), None));
        assert!(Texts::default().is_empty() && Texts::default().get(0).is_none() && !texts.is_empty());
    }
}
