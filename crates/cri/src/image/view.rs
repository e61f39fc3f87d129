//! An image's files as a read-only view, for volumes made of images: a snapshot of containerd's over the image's layers.
//! The interface has no call for it that containerd before 2.1 answers.

use super::import::scoped;
use crate::error::{Error, Result};
use containerd_client::services::v1::snapshots::snapshots_client::SnapshotsClient;
use containerd_client::services::v1::snapshots::{
    ListSnapshotsRequest, MountsRequest, RemoveSnapshotRequest, ViewSnapshotRequest,
};
use std::collections::HashMap;
use tonic::Code;
use tonic::transport::Channel;

/// The interface's plug-in unpacks images into this one.
const SNAPSHOTTER: &str = "overlayfs";
/// Whose view it is.
const OWNER: &str = "keelson.io/pod-uid";

/// One mount that makes a view visible, in the words of mount(8).
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ViewMount {
    pub kind: String,
    pub source: String,
    pub options: Vec<String>,
}

/// Makes a view of the layers up to `chain`, or finds the one that is there.
pub(crate) async fn make(channel: Channel, chain: &str, owner: &str, name: &str) -> Result<Vec<ViewMount>> {
    let mut snapshots = SnapshotsClient::new(channel);
    let (snapshotter, key) = (SNAPSHOTTER.to_owned(), format!("keelson-volume-{owner}-{name}"));
    // containerd's collector keeps what is labelled a root, whatever becomes of the image.
    let labels = [("containerd.io/gc.root", "volume"), (OWNER, owner)];
    let view = ViewSnapshotRequest {
        snapshotter: snapshotter.clone(),
        key: key.clone(),
        parent: chain.to_owned(),
        labels: labels.map(|(k, v)| (k.to_owned(), v.to_owned())).into(),
    };
    let mounts = match snapshots.view(scoped(view, None)).await {
        Ok(made) => made.into_inner().mounts,
        Err(status) if status.code() == Code::AlreadyExists => {
            let request = MountsRequest { snapshotter, key: key.clone() };
            let found = snapshots.mounts(scoped(request, None)).await;
            found.map_err(Error::call("read the mounts of", &key))?.into_inner().mounts
        }
        Err(status) => return Err(Error::call("view", &key)(status)),
    };
    let mount = |m: containerd_client::types::Mount| ViewMount {
        kind: m.r#type,
        source: m.source,
        options: m.options,
    };
    Ok(mounts.into_iter().map(mount).collect())
}

/// Removes all views of an owner.
pub(crate) async fn release(channel: Channel, owner: &str) -> Result<()> {
    let mut snapshots = SnapshotsClient::new(channel);
    let filters = vec![format!("labels.{OWNER:?}=={owner:?}")];
    let list = ListSnapshotsRequest { snapshotter: SNAPSHOTTER.into(), filters };
    let failed = || Error::call("list the views of", owner);
    let mut parts = snapshots.list(scoped(list, None)).await.map_err(failed())?.into_inner();
    let mut keys = Vec::new();
    while let Some(part) = parts.message().await.map_err(failed())? {
        keys.extend(part.info.into_iter().map(|info| info.name));
    }
    for key in keys {
        let remove = RemoveSnapshotRequest { snapshotter: SNAPSHOTTER.into(), key: key.clone() };
        match snapshots.remove(scoped(remove, None)).await {
            Err(status) if status.code() != Code::NotFound => {
                return Err(Error::call("remove view", &key)(status));
            }
            _ => {}
        }
    }
    Ok(())
}

/// The identity of an image's layers together, from what the interface's plug-in tells of it beside the image.
pub(crate) fn chain(info: &HashMap<String, String>) -> Option<String> {
    let info: serde_json::Value = serde_json::from_str(info.get("info")?).ok()?;
    info["chainID"].as_str().filter(|id| !id.is_empty()).map(str::to_owned)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_chain_is_read_from_what_is_told_beside_the_image() {
        let told = |info: &str| HashMap::from([("info".to_owned(), info.to_owned())]);
        assert_eq!(chain(&told(r#"{"chainID":"sha256:00","imageSpec":{}}"#)).as_deref(), Some("sha256:00"));
        for none in ["", "{}", r#"{"chainID":""}"#] {
            assert_eq!(chain(&told(none)), None, "{none}");
        }
    }
}
