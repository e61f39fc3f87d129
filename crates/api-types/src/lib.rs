//! What is on the wire: group/version/kind tables, object metadata, quantities, selectors, label and field grammar, `Status` errors. No I/O.
