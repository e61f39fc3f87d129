//! Whether they may: RBAC, the Node authorizer, `system:masters`.
