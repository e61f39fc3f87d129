//! Pure planning of the Service network: Services and endpoints in, the nftables table and its smallest change out.
