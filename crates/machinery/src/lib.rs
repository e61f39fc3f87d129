//! Pure functions on objects, driven by the schema: prune, strict field checks, patches, server-side apply, codecs, Table printing.
