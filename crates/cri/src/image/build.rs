//! An OCI image from a directory: one layer, one config, as an archive in the OCI layout that also carries
//! Docker's `manifest.json`.

use super::{CONFIG, INDEX, LAYER, MANIFEST, digest, finish, normalize};
use crate::error::{Error, Result};
use serde_json::json;
use sha2::{Digest, Sha256};
use std::collections::BTreeMap;
use std::fs::File;
use std::io::{self, Read, Seek, SeekFrom, Write};
use std::os::unix::fs::{FileTypeExt, MetadataExt};
use std::path::{Path, PathBuf};

/// What the image says about how to run it.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct ImageConfig {
    /// Name with tag, e.g. `demo:v1`; completed to the full form.
    pub name: String,
    pub entrypoint: Vec<String>,
    pub cmd: Vec<String>,
    /// `KEY=value`
    pub env: Vec<String>,
    pub working_dir: String,
    /// `user[:group]`, names or numbers.
    pub user: String,
    pub labels: BTreeMap<String, String>,
    /// e.g. `8080/tcp`
    pub exposed_ports: Vec<String>,
    /// Directories that become volumes.
    pub volumes: Vec<String>,
    pub stop_signal: String,
    /// Go's word; empty is this machine's.
    pub architecture: String,
}

/// Writes the archive to `out`. Files belong to root and carry time zero, so that the same directory gives the
/// same digests. Returns the digest of the manifest.
pub fn build(rootfs: &Path, config: &ImageConfig, out: &Path) -> Result<String> {
    let name = normalize(&config.name);
    let mut layer = anonymous_file(out)?;
    layer_of(rootfs, &mut layer).map_err(Error::io("pack", rootfs.display()))?;
    let (layer_digest, layer_size) =
        measure(&mut layer).map_err(Error::io("read layer of", rootfs.display()))?;

    let config_bytes = config_json(config, &layer_digest).to_string().into_bytes();
    let manifest = json!({
        "schemaVersion": 2,
        "mediaType": MANIFEST,
        "config": { "mediaType": CONFIG, "digest": digest(&config_bytes), "size": config_bytes.len() },
        "layers": [{ "mediaType": LAYER, "digest": layer_digest, "size": layer_size }],
    });
    let manifest_bytes = manifest.to_string().into_bytes();
    let manifest_digest = digest(&manifest_bytes);
    let index = json!({
        "schemaVersion": 2,
        "mediaType": INDEX,
        "manifests": [{
            "mediaType": MANIFEST,
            "digest": manifest_digest,
            "size": manifest_bytes.len(),
            "annotations": {
                "io.containerd.image.name": name,
                "org.opencontainers.image.ref.name": name.rsplit(':').next(),
            },
        }],
    });
    let docker = json!([{
        "Config": blob_path(&digest(&config_bytes)),
        "RepoTags": [name],
        "Layers": [blob_path(&layer_digest)],
    }]);

    let mut write = || -> io::Result<()> {
        let mut tar = tar::Builder::new(io::BufWriter::new(File::create(out)?));
        add(&mut tar, "oci-layout", br#"{"imageLayoutVersion":"1.0.0"}"#)?;
        add(&mut tar, "index.json", index.to_string().as_bytes())?;
        add(&mut tar, "manifest.json", docker.to_string().as_bytes())?;
        add(&mut tar, &blob_path(&digest(&config_bytes)), &config_bytes)?;
        add(&mut tar, &blob_path(&manifest_digest), &manifest_bytes)?;
        layer.seek(SeekFrom::Start(0))?;
        tar.append_data(&mut header(layer_size, 0o644), blob_path(&layer_digest), &mut layer)?;
        tar.into_inner()?.flush()
    };
    write().map_err(Error::io("write image", out.display()))?;
    Ok(manifest_digest)
}

fn config_json(config: &ImageConfig, layer: &str) -> serde_json::Value {
    let set = |names: &[String]| -> serde_json::Map<_, _> {
        names.iter().map(|n| (n.clone(), json!({}))).collect()
    };
    let mut run = json!({});
    let mut put = |key: &str, value: serde_json::Value, present: bool| {
        if present {
            run[key] = value;
        }
    };
    put("User", json!(config.user), !config.user.is_empty());
    put("ExposedPorts", json!(set(&config.exposed_ports)), !config.exposed_ports.is_empty());
    put("Env", json!(config.env), !config.env.is_empty());
    put("Entrypoint", json!(config.entrypoint), !config.entrypoint.is_empty());
    put("Cmd", json!(config.cmd), !config.cmd.is_empty());
    put("Volumes", json!(set(&config.volumes)), !config.volumes.is_empty());
    put("WorkingDir", json!(config.working_dir), !config.working_dir.is_empty());
    put("Labels", json!(config.labels), !config.labels.is_empty());
    put("StopSignal", json!(config.stop_signal), !config.stop_signal.is_empty());
    let architecture = match config.architecture.as_str() {
        "" => keelson_host::system::architecture(),
        named => named,
    };
    json!({
        "created": "1970-01-01T00:00:00Z",
        "architecture": architecture,
        "os": "linux",
        "config": run,
        "rootfs": { "type": "layers", "diff_ids": [layer] },
        "history": [{ "created": "1970-01-01T00:00:00Z", "created_by": "directory" }],
    })
}

fn blob_path(digest: &str) -> String {
    format!("blobs/{}", digest.replace(':', "/"))
}

/// A file beside `out` that has no name any more: layers may be larger than memory.
fn anonymous_file(out: &Path) -> Result<File> {
    let path = PathBuf::from(format!("{}.layer.{}", out.display(), std::process::id()));
    let file = File::options().read(true).write(true).create(true).truncate(true).open(&path);
    let file = file.map_err(Error::io("create", path.display()))?;
    std::fs::remove_file(&path).map_err(Error::io("remove", path.display()))?;
    Ok(file)
}

fn measure(file: &mut File) -> io::Result<(String, u64)> {
    file.seek(SeekFrom::Start(0))?;
    let mut hasher = Sha256::new();
    let mut buffer = vec![0; 64 << 10];
    let mut size = 0;
    loop {
        let n = file.read(&mut buffer)?;
        if n == 0 {
            return Ok((finish(hasher), size));
        }
        hasher.update(&buffer[..n]);
        size += n as u64;
    }
}

fn header(size: u64, mode: u32) -> tar::Header {
    let mut header = tar::Header::new_gnu();
    header.set_size(size);
    header.set_mode(mode);
    header.set_entry_type(tar::EntryType::Regular);
    header
}

fn add<W: Write>(tar: &mut tar::Builder<W>, name: &str, bytes: &[u8]) -> io::Result<()> {
    tar.append_data(&mut header(bytes.len() as u64, 0o644), name, bytes)
}

fn layer_of(rootfs: &Path, out: &mut File) -> io::Result<()> {
    let mut tar = tar::Builder::new(out);
    walk(rootfs, Path::new(""), &mut tar)?;
    tar.into_inner()?.flush()
}

fn walk<W: Write>(root: &Path, relative: &Path, tar: &mut tar::Builder<W>) -> io::Result<()> {
    let mut entries: Vec<_> = std::fs::read_dir(root.join(relative))?.collect::<io::Result<_>>()?;
    entries.sort_by_key(std::fs::DirEntry::file_name);
    for entry in entries {
        let path = relative.join(entry.file_name());
        let meta = std::fs::symlink_metadata(entry.path())?;
        let kind = meta.file_type();
        let mut header = header(0, meta.mode() & 0o7777);
        if kind.is_dir() {
            header.set_entry_type(tar::EntryType::Directory);
            tar.append_data(&mut header, &path, io::empty())?;
            walk(root, &path, tar)?;
        } else if kind.is_symlink() {
            header.set_entry_type(tar::EntryType::Symlink);
            tar.append_link(&mut header, &path, std::fs::read_link(entry.path())?)?;
        } else if kind.is_file() {
            header.set_size(meta.len());
            tar.append_data(&mut header, &path, File::open(entry.path())?)?;
        } else if !kind.is_socket() && !kind.is_fifo() {
            // Devices come from the runtime, not from images.
            continue;
        }
    }
    Ok(())
}
