//! The admission chain between decoding and storing a write.
