//! Connection tracking: removal of entries whose backend is gone.
