//! The watch cache: all of the store's objects in memory, kept current by one watch of the store.
//!
//! One feed for all resources gives one order: once the feed has applied revision N, every cache
//! holds the state at N. Reads prove their freshness by that number alone.

pub mod entry;
mod feed;
pub mod json;
pub mod resource;
pub mod select;
pub mod sparse;
mod texts;

pub use entry::{CacheEvent, ChangeKind, Entry, Labels, encode_frame, replace_revision, splice_revision};
pub use feed::{Caches, Index, Indexer, PREFIX, entry_of, split_key, storage_error};
pub use json::Json;
pub use resource::{ResourceCache, Snapshot, TooOld};
pub use select::{Selection, unsupported_field};
pub use sparse::Wanted;
pub use texts::Texts;
