//! The pod network's configuration for the CNI plugins: bridge, host-local addresses, port mappings.

use crate::error::{Error, Result};
use serde_json::json;
use std::path::{Path, PathBuf};

/// Name of the one file that we keep in the configuration directory.
pub const FILE: &str = "10-keelson.conflist";

#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Network {
    /// Name of the network and prefix of its address store.
    pub name: String,
    /// At most 15 characters, the kernel's limit on interface names.
    pub bridge: String,
    /// The node's share of the cluster's pod addresses.
    pub pod_cidrs: Vec<String>,
    /// Masquerading by the plugin itself; off where the service proxy does it.
    pub masquerade: bool,
    /// 0 leaves the plugin's choice.
    pub mtu: u32,
    /// Where host-local keeps the addresses in use.
    pub data_dir: PathBuf,
}

/// The list of plugins as JSON.
pub fn render(network: &Network) -> String {
    let ranges: Vec<_> = network.pod_cidrs.iter().map(|cidr| json!([{ "subnet": cidr }])).collect();
    let routes: Vec<_> = network
        .pod_cidrs
        .iter()
        .map(|cidr| json!({ "dst": if cidr.contains(':') { "::/0" } else { "0.0.0.0/0" } }))
        .collect();
    let mut bridge = json!({
        "type": "bridge",
        "bridge": network.bridge,
        "isGateway": true,
        "ipMasq": network.masquerade,
        "hairpinMode": true,
        "ipam": {
            "type": "host-local",
            "dataDir": network.data_dir,
            "ranges": ranges,
            "routes": routes,
        },
    });
    if network.mtu > 0 {
        bridge["mtu"] = json!(network.mtu);
    }
    let list = json!({
        "cniVersion": "0.4.0",
        "name": network.name,
        "plugins": [bridge, { "type": "portmap", "capabilities": { "portMappings": true }, "snat": true }],
    });
    format!("{list:#}\n")
}

/// Writes the list into `dir`, whole or not at all; says whether anything changed.
pub fn install(dir: &Path, network: &Network) -> Result<bool> {
    let file = dir.join(FILE);
    let text = render(network);
    if std::fs::read_to_string(&file).is_ok_and(|present| present == text) {
        return Ok(false);
    }
    std::fs::create_dir_all(dir).map_err(Error::io("create", dir.display()))?;
    // The runtime reads every *.conflist here: the temporary name must not end so.
    let temporary = dir.join(format!(".{FILE}.new"));
    std::fs::write(&temporary, text).map_err(Error::io("write", temporary.display()))?;
    std::fs::rename(&temporary, &file).map_err(Error::io("rename to", file.display()))?;
    Ok(true)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_list_holds_the_bridge_with_the_nodes_range() {
        let network = Network {
            name: "keelson".into(),
            bridge: "kl-keelson".into(),
            pod_cidrs: vec!["10.244.0.0/24".into()],
            masquerade: false,
            mtu: 1400,
            data_dir: "/var/lib/cni".into(),
        };
        let list: serde_json::Value = serde_json::from_str(&render(&network)).expect("JSON");
        assert_eq!(list["plugins"][0]["bridge"], "kl-keelson");
        assert_eq!(list["plugins"][0]["ipam"]["ranges"][0][0]["subnet"], "10.244.0.0/24");
        assert_eq!(list["plugins"][0]["mtu"], 1400);
        assert_eq!(list["plugins"][1]["type"], "portmap");
    }

    #[test]
    fn installing_twice_changes_nothing_the_second_time() {
        let dir = tempfile::tempdir().expect("temporary directory");
        let network = Network {
            name: "n".into(),
            bridge: "b".into(),
            pod_cidrs: vec![],
            masquerade: false,
            mtu: 0,
            data_dir: "/d".into(),
        };
        assert!(install(dir.path(), &network).expect("first"));
        assert!(!install(dir.path(), &network).expect("second"));
    }
}
