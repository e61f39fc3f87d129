//! The labels and annotations by which sandboxes and containers in the runtime are known as a pod's. Other
//! tools read them too, so the names are the field's.

pub const POD_NAME: &str = "io.kubernetes.pod.name";
pub const POD_NAMESPACE: &str = "io.kubernetes.pod.namespace";
pub const POD_UID: &str = "io.kubernetes.pod.uid";
pub const CONTAINER_NAME: &str = "io.kubernetes.container.name";

pub const RESTART_COUNT: &str = "io.kubernetes.container.restartCount";
pub const HASH: &str = "io.kubernetes.container.hash";
pub const MESSAGE_PATH: &str = "io.kubernetes.container.terminationMessagePath";
pub const MESSAGE_POLICY: &str = "io.kubernetes.container.terminationMessagePolicy";
pub const GRACE: &str = "io.kubernetes.pod.terminationGracePeriod";
/// Where on the host the termination message of this very container is; ours alone.
pub const MESSAGE_FILE: &str = "io.keelson.container.terminationMessageFile";
/// Which cluster's agent made a sandbox, where several share one runtime.
pub const NODE: &str = "io.keelson.node";
