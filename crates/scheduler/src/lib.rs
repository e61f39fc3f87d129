//! The scheduler daemon: informers, queue with backoff, profiles and plugins, binding through the API.
