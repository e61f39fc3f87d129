//! What a fresh cluster holds: RBAC rules, system namespaces, priority classes, the `kubernetes` Service.
