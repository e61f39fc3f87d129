//! Random access to the entries of an image archive, in the OCI layout or as `docker save` writes it.

use super::{CONFIG, LAYER, LAYER_GZIP, MANIFEST, digest, finish, normalize};
use crate::error::{Error, Result};
use serde::Deserialize;
use serde_json::{Value, json};
use sha2::{Digest, Sha256};
use std::collections::HashMap;
use std::fs::File;
use std::io::{self, Read, Seek, SeekFrom};
use std::path::Path;

/// Bytes that go into the content store: in the archive, or made here.
#[derive(Debug, Clone)]
pub(super) enum Source {
    Entry { offset: u64 },
    Bytes(Vec<u8>),
}

#[derive(Debug, Clone)]
pub(super) struct Blob {
    pub digest: String,
    pub size: u64,
    pub source: Source,
    /// What this one refers to, by digest: configs, layers, manifests.
    pub children: Vec<String>,
}

#[derive(Debug, Clone)]
pub(super) struct Image {
    pub name: String,
    pub media_type: String,
    pub digest: String,
    pub size: u64,
}

pub(super) struct Archive {
    file: File,
    name: String,
    /// Path without leading `./` → offset and size of the data.
    entries: HashMap<String, (u64, u64)>,
}

#[derive(Deserialize)]
#[serde(rename_all = "PascalCase")]
struct DockerImage {
    config: String,
    #[serde(default)]
    repo_tags: Option<Vec<String>>,
    layers: Vec<String>,
}

impl Archive {
    pub fn open(path: &Path) -> Result<Self> {
        let name = path.display().to_string();
        let mut file = File::open(path).map_err(Error::io("open image archive", &name))?;
        let mut magic = [0; 2];
        if file.read_exact(&mut magic).is_ok() && magic == [0x1f, 0x8b] {
            return Err(Error::Archive { archive: name, problem: "is compressed: gunzip it first".into() });
        }
        file.seek(SeekFrom::Start(0)).map_err(Error::io("read image archive", &name))?;
        let mut links = Vec::new();
        let mut entries = HashMap::new();
        let mut tar = tar::Archive::new(&file);
        let mut index = || -> io::Result<()> {
            for entry in tar.entries()? {
                let entry = entry?;
                let path = clean(&entry.path()?.to_string_lossy());
                match entry.header().entry_type() {
                    // Older `docker save` links equal layers to one another.
                    t if t.is_symlink() || t.is_hard_link() => {
                        if let Some(target) = entry.link_name()? {
                            links.push((path, target.to_string_lossy().into_owned()));
                        }
                    }
                    t if t.is_file() => {
                        entries.insert(path, (entry.raw_file_position(), entry.size()));
                    }
                    _ => {}
                }
            }
            Ok(())
        };
        index().map_err(Error::io("read image archive", &name))?;
        for (path, target) in links {
            let beside = Path::new(&path).parent().unwrap_or(Path::new("")).join(&target);
            let target = normal_path(&beside.to_string_lossy());
            if let Some(found) = entries.get(&target).copied() {
                entries.insert(path, found);
            }
        }
        Ok(Self { file, name, entries })
    }

    /// The images of the archive and every blob, children before parents.
    pub fn contents(&mut self) -> Result<(Vec<Image>, Vec<Blob>)> {
        if self.entries.contains_key("index.json") { self.oci() } else { self.docker() }
    }

    pub fn read_at(&mut self, offset: u64, buffer: &mut [u8]) -> io::Result<()> {
        self.file.seek(SeekFrom::Start(offset))?;
        self.file.read_exact(buffer)
    }

    fn problem(&self, problem: impl Into<String>) -> Error {
        Error::Archive { archive: self.name.clone(), problem: problem.into() }
    }

    fn read(&mut self, path: &str) -> Result<Vec<u8>> {
        let (offset, size) =
            *self.entries.get(path).ok_or_else(|| self.problem(format!("holds no {path}")))?;
        let mut bytes = vec![0; size as usize];
        self.read_at(offset, &mut bytes).map_err(Error::io("read image archive", &self.name))?;
        Ok(bytes)
    }

    fn json(&mut self, path: &str) -> Result<Value> {
        let bytes = self.read(path)?;
        serde_json::from_slice(&bytes).map_err(|e| self.problem(format!("{path} is no JSON: {e}")))
    }

    fn oci(&mut self) -> Result<(Vec<Image>, Vec<Blob>)> {
        let index = self.json("index.json")?;
        let (mut images, mut blobs) = (Vec::new(), Vec::new());
        for descriptor in index["manifests"].as_array().into_iter().flatten() {
            self.descend(descriptor, &mut blobs)?;
            let annotation = |key: &str| descriptor["annotations"][key].as_str();
            let name = annotation("io.containerd.image.name").or_else(|| {
                annotation("org.opencontainers.image.ref.name").filter(|n| n.contains(['/', ':']))
            });
            let digest = descriptor["digest"].as_str().unwrap_or_default().to_owned();
            images.push(Image {
                name: name.map_or_else(|| format!("import@{digest}"), normalize),
                media_type: descriptor["mediaType"].as_str().unwrap_or(MANIFEST).to_owned(),
                size: descriptor["size"].as_u64().unwrap_or(0),
                digest,
            });
        }
        if images.is_empty() {
            return Err(self.problem("its index lists no image"));
        }
        Ok((images, blobs))
    }

    fn descend(&mut self, descriptor: &Value, blobs: &mut Vec<Blob>) -> Result<bool> {
        let digest = descriptor["digest"].as_str().unwrap_or_default().to_owned();
        if blobs.iter().any(|b| b.digest == digest) {
            return Ok(true);
        }
        let path = format!("blobs/{}", digest.replace(':', "/"));
        let Some((offset, size)) = self.entries.get(&path).copied() else {
            // An index may name platforms that the archive does not hold.
            return Ok(false);
        };
        let mut children = Vec::new();
        let media_type = descriptor["mediaType"].as_str().unwrap_or_default();
        if media_type.contains("manifest") || media_type.contains("index") {
            let body = self.json(&path)?;
            let listed = ["manifests", "layers"].iter().filter_map(|k| body[*k].as_array()).flatten();
            for child in listed.chain(body.get("config")) {
                if self.descend(child, blobs)? {
                    children.push(child["digest"].as_str().unwrap_or_default().to_owned());
                }
            }
        }
        blobs.push(Blob { digest, size, source: Source::Entry { offset }, children });
        Ok(true)
    }

    fn docker(&mut self) -> Result<(Vec<Image>, Vec<Blob>)> {
        let list = self.read("manifest.json")?;
        let list: Vec<DockerImage> = serde_json::from_slice(&list)
            .map_err(|e| self.problem(format!("manifest.json is not what docker writes: {e}")))?;
        let (mut images, mut blobs) = (Vec::new(), Vec::<Blob>::new());
        for image in list {
            let config = self.entry_blob(&clean(&image.config))?;
            let mut layers = Vec::new();
            for layer in &image.layers {
                let path = clean(layer);
                let blob = self.entry_blob(&path)?;
                let media_type = if self.is_gzip(&path)? { LAYER_GZIP } else { LAYER };
                layers.push(json!({ "mediaType": media_type, "digest": blob.digest, "size": blob.size }));
                blobs.push(blob);
            }
            let manifest = json!({
                "schemaVersion": 2,
                "mediaType": MANIFEST,
                "config": { "mediaType": CONFIG, "digest": config.digest, "size": config.size },
                "layers": layers,
            });
            let bytes = manifest.to_string().into_bytes();
            let children = layers.iter().filter_map(|l| l["digest"].as_str()).chain([config.digest.as_str()]);
            let blob = Blob {
                digest: digest(&bytes),
                size: bytes.len() as u64,
                children: children.map(str::to_owned).collect(),
                source: Source::Bytes(bytes),
            };
            for tag in image.repo_tags.unwrap_or_default() {
                images.push(Image {
                    name: normalize(&tag),
                    media_type: MANIFEST.into(),
                    digest: blob.digest.clone(),
                    size: blob.size,
                });
            }
            blobs.extend([config, blob]);
        }
        Ok((images, blobs))
    }

    fn entry_blob(&mut self, path: &str) -> Result<Blob> {
        let (offset, size) =
            *self.entries.get(path).ok_or_else(|| self.problem(format!("holds no {path}")))?;
        let mut hasher = Sha256::new();
        let mut buffer = vec![0; 64 << 10];
        let mut done = 0;
        while done < size {
            let n = (size - done).min(buffer.len() as u64) as usize;
            self.read_at(offset + done, &mut buffer[..n])
                .map_err(Error::io("read image archive", &self.name))?;
            hasher.update(&buffer[..n]);
            done += n as u64;
        }
        Ok(Blob { digest: finish(hasher), size, source: Source::Entry { offset }, children: Vec::new() })
    }

    fn is_gzip(&mut self, path: &str) -> Result<bool> {
        let (offset, size) = self.entries[path];
        let mut magic = [0; 2];
        if size < 2 {
            return Ok(false);
        }
        self.read_at(offset, &mut magic).map_err(Error::io("read image archive", &self.name))?;
        Ok(magic == [0x1f, 0x8b])
    }
}

fn clean(path: &str) -> String {
    path.trim_start_matches("./").to_owned()
}

fn normal_path(path: &str) -> String {
    let mut parts: Vec<&str> = Vec::new();
    for part in path.split('/') {
        match part {
            "" | "." => {}
            ".." => {
                parts.pop();
            }
            name => parts.push(name),
        }
    }
    parts.join("/")
}
