//! The node agent: pods through the Container Runtime Interface, probes, volumes, logs, streams, node status.
