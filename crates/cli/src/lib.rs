//! `ctl`: the command line for the cluster's objects and for the cluster itself.
