//! Revisioned key-value store with watch: the trait, its contract tests, and the embedded (redb) and etcd backends.
