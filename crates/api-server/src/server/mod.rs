//! Accepting connections: TLS with optional client certificates, HTTP/1.1 and HTTP/2, graceful end.
