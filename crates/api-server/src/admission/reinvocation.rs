//! The second round of mutation: what has run, saw the object before others changed it, and asked for it
//! (`reinvocationPolicy: IfNeeded`) runs once more.

use std::collections::HashSet;

use serde_json::Value;

#[derive(Debug, Default)]
pub struct Reinvocation {
    /// This is the second round.
    pub again: bool,
    /// A second round is due.
    pub wanted: bool,
    pub webhooks: Eligible,
    pub policies: Eligible,
}

/// The members of one plug-in, by key.
#[derive(Debug, Default)]
pub struct Eligible {
    /// Have run, want to run again, and nothing has changed since.
    ran: HashSet<String>,
    stale: HashSet<String>,
    /// What the plug-in left, to see whether the built-in ones change it afterwards.
    output: Option<Value>,
}

impl Eligible {
    /// Before the plug-in's members: in the second round, a changed object makes all who ran before stale.
    pub fn begin(&mut self, again: bool, object: Option<&Value>) {
        if again && self.output.as_ref() != object {
            self.changed();
        }
    }

    /// The object is another one than those saw that ran before.
    pub fn changed(&mut self) {
        self.stale.extend(self.ran.drain());
    }

    pub fn ran(&mut self, key: &str) {
        self.ran.insert(key.to_owned());
    }

    /// Whether a member runs in this round; none does for the first time in the second one.
    pub fn runs(&self, again: bool, key: &str) -> bool {
        !again || self.stale.contains(key)
    }

    /// After the plug-in's members.
    pub fn end(&mut self, object: Option<&Value>) {
        self.output = object.filter(|_| !self.ran.is_empty()).cloned();
    }
}
