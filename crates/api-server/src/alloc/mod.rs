//! Allocators for cluster IPs and node ports, seeded from the Services that exist.
