//! Random faults, by a seed, against real API servers, and a check of everything that clients saw meanwhile.
//!
//! - [`cluster`]: API servers on the embedded store, or two on one etcd, each behind a [`proxy`].
//! - [`faults`]: what is done to them.
//! - [`clients`]: writers, readers and watchers, who note what they did and saw as a [`history`].
//! - [`check`]: the rules that a history must keep; pure.
//! - [`run`]: one round of all of it.

pub mod check;
pub mod clients;
pub mod cluster;
pub mod faults;
pub mod history;
pub mod proxy;
pub mod run;
