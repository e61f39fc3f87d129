//! The budgets' figures, per CPU-second of the servers, against any kubeconfig.
//!
//! - [`servers`]: CPU time and memory of the measured processes, from `/proc`.
//! - [`load`]: the requests, from many tasks over several connections.
//! - [`scale`]: many objects, many watchers, a greedy user.
//!
//! Clients and servers share the machine, so only "per CPU-second of the server" can be compared; the same
//! command measures upstream's with `--server kube-apiserver --server etcd`.

pub mod load;
pub mod scale;
pub mod servers;
