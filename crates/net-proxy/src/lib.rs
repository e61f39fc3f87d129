//! The net proxy: Services into one nftables table, changed by the difference.
