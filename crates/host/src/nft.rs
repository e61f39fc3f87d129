//! nftables: the one table that holds the Service rules.
