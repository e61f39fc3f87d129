//! Wire formats of the exec, attach and port-forward streams: WebSocket channels v1 to v5 and SPDY/3.1, server and client.
