//! What every daemon needs once: config, logging, metrics, health, TLS reload, signals, drain, exit codes.
