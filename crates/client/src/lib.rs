//! `kube` configured for the daemons: shared informers that hold projections, work queues, backoff, leader election, events.
