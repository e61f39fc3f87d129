//! The objects that an informer knows, by key and by what the daemon looks for.

use crate::{Key, Projected};
use std::collections::{BTreeMap, HashMap, HashSet};
use std::hash::{Hash, Hasher};
use std::sync::Arc;

pub(crate) type IndexFn<P> = Box<dyn Fn(&P) -> Vec<String> + Send + Sync>;

/// Objects by key, in the order of namespaces and names, and any number of secondary indexes.
pub(crate) struct Objects<P> {
    by_key: BTreeMap<Key, Arc<P>>,
    indexes: Vec<Index<P>>,
}

struct Index<P> {
    name: &'static str,
    values: IndexFn<P>,
    entries: HashMap<Box<str>, HashSet<ByAddress<P>>>,
}

/// Objects are told apart by their address: an entry costs one pointer, and no comparison of names.
struct ByAddress<P>(Arc<P>);

impl<P> PartialEq for ByAddress<P> {
    fn eq(&self, other: &ByAddress<P>) -> bool {
        Arc::ptr_eq(&self.0, &other.0)
    }
}

impl<P> Eq for ByAddress<P> {}

impl<P> Hash for ByAddress<P> {
    fn hash<H: Hasher>(&self, state: &mut H) {
        Arc::as_ptr(&self.0).hash(state);
    }
}

impl<P: Projected> Objects<P> {
    pub(crate) fn new(indexes: Vec<(&'static str, IndexFn<P>)>) -> Objects<P> {
        let indexes = indexes
            .into_iter()
            .map(|(name, values)| Index { name, values, entries: HashMap::new() })
            .collect();
        Objects { by_key: BTreeMap::new(), indexes }
    }

    pub(crate) fn get(&self, key: &Key) -> Option<&Arc<P>> {
        self.by_key.get(key)
    }

    pub(crate) fn len(&self) -> usize {
        self.by_key.len()
    }

    pub(crate) fn iter(&self) -> impl Iterator<Item = (&Key, &Arc<P>)> {
        self.by_key.iter()
    }

    pub(crate) fn namespace(&self, namespace: &str) -> impl Iterator<Item = &Arc<P>> {
        let from = Key::new(namespace, "");
        self.by_key
            .range(from..)
            .take_while(move |(key, _)| key.namespace == namespace)
            .map(|(_, object)| object)
    }

    /// The objects for which the index has `value`, in no order. An index that was not asked for when the
    /// informer was built is a mistake in the program.
    pub(crate) fn by_index(&self, index: &str, value: &str) -> impl Iterator<Item = &Arc<P>> {
        let index = self.indexes.iter().find(|i| i.name == index);
        let index = index.unwrap_or_else(|| panic!("the informer of {} has no such index", P::PLURAL));
        index.entries.get(value).into_iter().flatten().map(|entry| &entry.0)
    }

    /// Returns what was there before.
    pub(crate) fn insert(&mut self, key: Key, object: Arc<P>) -> Option<Arc<P>> {
        for index in &mut self.indexes {
            for value in (index.values)(&object) {
                index.entries.entry(value.into()).or_default().insert(ByAddress(object.clone()));
            }
        }
        let old = self.by_key.insert(key, object);
        if let Some(old) = &old {
            self.unindex(old);
        }
        old
    }

    pub(crate) fn remove(&mut self, key: &Key) -> Option<Arc<P>> {
        let old = self.by_key.remove(key)?;
        self.unindex(&old);
        Some(old)
    }

    fn unindex(&mut self, object: &Arc<P>) {
        for index in &mut self.indexes {
            for value in (index.values)(object) {
                if let Some(entry) = index.entries.get_mut(value.as_str()) {
                    entry.remove(&ByAddress(object.clone()));
                    if entry.is_empty() {
                        index.entries.remove(value.as_str());
                    }
                }
            }
        }
    }
}
