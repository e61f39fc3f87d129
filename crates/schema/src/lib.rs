//! One schema model for built-in kinds and CRDs alike: fields, types, list kinds and merge keys, defaults, protobuf numbers.
