//! Pure scheduling decisions: a snapshot of nodes and pods in, a placement or the reasons against it out.
