//! Controllers against a real API server.

mod storage_migration;
