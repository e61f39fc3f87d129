//! Volumes: what pods mount, what claims ask for, and the storage group's kinds.

pub mod claim;
pub mod classes;
pub mod defaults;
pub mod volume;
pub mod volumes;

pub const ACCESS_MODES: &[&str] = &["ReadOnlyMany", "ReadWriteMany", "ReadWriteOnce", "ReadWriteOncePod"];
pub const VOLUME_MODES: &[&str] = &["Block", "Filesystem"];
