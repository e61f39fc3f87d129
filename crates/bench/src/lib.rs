//! `make bench`: the budgets' figures, per CPU-second of the servers, against any kubeconfig.
