//! Config maps and secrets from files and literals.

use std::path::{Path, PathBuf};

use anyhow::{Context as _, bail};
use base64::Engine;
use base64::engine::general_purpose::STANDARD as BASE64;
use clap::{Args, Subcommand};
use serde_json::{Map, Value, json};

use super::{CommonArgs, make};
use crate::context::Context;

/// Where data comes from.
#[derive(Debug, Args)]
pub struct DataArgs {
    /// [KEY=]FILE, or a folder whose files become keys; repeat it for several
    #[arg(long)]
    from_file: Vec<String>,
    /// KEY=VALUE; repeat it for several
    #[arg(long)]
    from_literal: Vec<String>,
    /// File of KEY=VALUE lines
    #[arg(long)]
    from_env_file: Vec<PathBuf>,
}

#[derive(Debug, Args)]
pub struct ConfigMapArgs {
    name: String,
    #[command(flatten)]
    data: DataArgs,
    #[command(flatten)]
    common: CommonArgs,
}

#[derive(Debug, Subcommand)]
pub enum SecretCommand {
    /// A secret from files, folders or values
    Generic(GenericArgs),
    /// Credentials for an image registry
    DockerRegistry(DockerArgs),
    /// A certificate and its key
    Tls(TlsArgs),
}

#[derive(Debug, Args)]
pub struct GenericArgs {
    name: String,
    #[command(flatten)]
    data: DataArgs,
    /// The secret's type [default: Opaque]
    #[arg(long = "type")]
    kind: Option<String>,
    #[command(flatten)]
    common: CommonArgs,
}

#[derive(Debug, Args)]
pub struct DockerArgs {
    name: String,
    #[arg(long, default_value = "https://index.docker.io/v1/")]
    docker_server: String,
    #[arg(long, default_value = "")]
    docker_username: String,
    #[arg(long, default_value = "")]
    docker_password: String,
    #[arg(long, default_value = "")]
    docker_email: String,
    #[arg(long)]
    from_file: Option<PathBuf>,
    #[command(flatten)]
    common: CommonArgs,
}

#[derive(Debug, Args)]
pub struct TlsArgs {
    name: String,
    #[arg(long)]
    cert: PathBuf,
    #[arg(long)]
    key: PathBuf,
    #[command(flatten)]
    common: CommonArgs,
}

impl DataArgs {
    /// All keys with their bytes; a key given twice is an error.
    fn read(&self) -> anyhow::Result<Vec<(String, Vec<u8>)>> {
        let mut data: Vec<(String, Vec<u8>)> = Vec::new();
        for source in &self.from_file {
            match source.split_once('=') {
                Some((key, path)) => data.push((key.to_owned(), read(Path::new(path))?)),
                None => data.extend(file_or_folder(Path::new(source))?),
            }
        }
        for literal in &self.from_literal {
            let (key, value) = literal
                .split_once('=')
                .with_context(|| format!("invalid literal source {literal}, expected key=value"))?;
            data.push((key.to_owned(), value.trim_matches('"').as_bytes().to_vec()));
        }
        for path in &self.from_env_file {
            data.extend(env_file(&String::from_utf8_lossy(&read(path)?)));
        }
        for (index, (key, _)) in data.iter().enumerate() {
            if data[..index].iter().any(|(other, _)| other == key) {
                bail!("cannot add key {key:?}, another key by that name already exists");
            }
        }
        Ok(data)
    }
}

fn read(path: &Path) -> anyhow::Result<Vec<u8>> {
    std::fs::read(path).with_context(|| format!("error reading {}", path.display()))
}

fn file_or_folder(path: &Path) -> anyhow::Result<Vec<(String, Vec<u8>)>> {
    let name = |path: &Path| path.file_name().unwrap_or_default().to_string_lossy().into_owned();
    if !path.is_dir() {
        return Ok(vec![(name(path), read(path)?)]);
    }
    let mut found = Vec::new();
    for entry in std::fs::read_dir(path).with_context(|| format!("error reading {}", path.display()))? {
        let path = entry?.path();
        if path.is_file() {
            found.push((name(&path), read(&path)?));
        }
    }
    found.sort();
    Ok(found)
}

fn env_file(content: &str) -> Vec<(String, Vec<u8>)> {
    let lines = content.lines().map(str::trim_start).filter(|l| !l.is_empty() && !l.starts_with('#'));
    lines
        .map(|line| match line.split_once('=') {
            Some((key, value)) => (key.to_owned(), value.as_bytes().to_vec()),
            // A bare name takes its value from the environment.
            None => (line.to_owned(), std::env::var(line).unwrap_or_default().into_bytes()),
        })
        .collect()
}

pub async fn config_map(context: &Context, args: ConfigMapArgs) -> anyhow::Result<()> {
    let (mut text, mut binary) = (Map::new(), Map::new());
    for (key, bytes) in args.data.read()? {
        match String::from_utf8(bytes) {
            Ok(value) => text.insert(key, value.into()),
            Err(error) => binary.insert(key, BASE64.encode(error.as_bytes()).into()),
        };
    }
    make(context, "configmaps", &args.name, &args.common, |object| {
        if !text.is_empty() {
            object["data"] = text.into();
        }
        if !binary.is_empty() {
            object["binaryData"] = binary.into();
        }
        Ok(())
    })
    .await
}

pub async fn secret(context: &Context, command: SecretCommand) -> anyhow::Result<()> {
    let (name, kind, data, common) = match command {
        SecretCommand::Generic(args) => {
            (args.name, args.kind.unwrap_or_else(|| "Opaque".to_owned()), args.data.read()?, args.common)
        }
        SecretCommand::Tls(args) => {
            let data =
                vec![("tls.crt".to_owned(), read(&args.cert)?), ("tls.key".to_owned(), read(&args.key)?)];
            (args.name, "kubernetes.io/tls".to_owned(), data, args.common)
        }
        SecretCommand::DockerRegistry(args) => {
            let config = match &args.from_file {
                Some(path) => read(path)?,
                None => docker_config(&args)?.to_string().into_bytes(),
            };
            let kind = "kubernetes.io/dockerconfigjson".to_owned();
            (args.name, kind, vec![(".dockerconfigjson".to_owned(), config)], args.common)
        }
    };
    let data: Map<String, Value> =
        data.into_iter().map(|(key, bytes)| (key, BASE64.encode(bytes).into())).collect();
    make(context, "secrets", &name, &common, |object| {
        if !data.is_empty() {
            object["data"] = data.into();
        }
        object["type"] = kind.into();
        Ok(())
    })
    .await
}

fn docker_config(args: &DockerArgs) -> anyhow::Result<Value> {
    if args.docker_username.is_empty() || args.docker_password.is_empty() {
        bail!(
            "either --from-file or the combination of --docker-username, --docker-password and --docker-server is required"
        );
    }
    let auth = BASE64.encode(format!("{}:{}", args.docker_username, args.docker_password));
    let mut entry = json!({"username": args.docker_username, "password": args.docker_password, "auth": auth});
    if !args.docker_email.is_empty() {
        entry["email"] = args.docker_email.clone().into();
    }
    let mut servers = Map::new();
    servers.insert(args.docker_server.clone(), entry);
    Ok(json!({"auths": servers}))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn data_comes_from_files_folders_and_literals() {
        let folder = tempfile::tempdir().expect("a folder");
        std::fs::write(folder.path().join("a.txt"), "A").expect("a file");
        std::fs::write(folder.path().join("e.env"), "# no\nK=v\n").expect("a file");
        let path = folder.path().display();
        let mut args = DataArgs {
            from_file: vec![format!("key={path}/a.txt"), format!("{path}/a.txt")],
            from_literal: vec!["l=1=2".into()],
            from_env_file: vec![folder.path().join("e.env")],
        };
        let data = args.read().expect("data");
        let keys: Vec<&str> = data.iter().map(|(k, _)| k.as_str()).collect();
        assert_eq!(keys, ["key", "a.txt", "l", "K"]);
        assert_eq!(data[2].1, b"1=2");
        args.from_literal.push("l=x".into());
        assert!(args.read().is_err());
    }
}
