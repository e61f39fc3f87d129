//! Cluster DNS: records of Services and pods, the rest forwarded.
