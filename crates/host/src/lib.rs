//! Everything that touches the kernel: nft, netlink, cgroups v1 and v2, mounts, conntrack; traits, real backends and fakes. The only crate with `unsafe`.
