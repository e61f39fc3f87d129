//! What a cluster's files are, when they change, and who trusts whom.

mod authority;
mod cluster;
mod service_account;
