//! gRPC client for the Container Runtime Interface, containerd's own services, and a fake runtime.
