//! What is derived from all objects of some resources: made when it is first asked for, and made anew when
//! one of the objects has changed.

use std::sync::Arc;

use arc_swap::ArcSwapOption;
use keelson_api_types::Gvr;

use crate::types::Objects;

pub struct Memo<T> {
    sources: Vec<Gvr>,
    slot: ArcSwapOption<(Vec<u64>, Arc<T>)>,
}

impl<T> Memo<T> {
    pub fn of(sources: impl IntoIterator<Item = Gvr>) -> Self {
        Self { sources: sources.into_iter().collect(), slot: ArcSwapOption::empty() }
    }

    pub fn get(&self, objects: &dyn Objects, make: impl FnOnce() -> T) -> Arc<T> {
        // Read before the objects are: a change in between makes it stale at once, and never goes unseen.
        let revisions: Vec<u64> = self.sources.iter().map(|gvr| *objects.changes(gvr).borrow()).collect();
        let slot = self.slot.load();
        if let Some(held) = slot.as_ref().filter(|held| held.0 == revisions) {
            return held.1.clone();
        }
        let made = Arc::new(make());
        self.slot.store(Some(Arc::new((revisions, made.clone()))));
        made
    }
}
