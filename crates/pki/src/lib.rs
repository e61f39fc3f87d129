//! Certificate authority: issuing, rotation and service-account keys.
