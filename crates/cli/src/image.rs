//! `ctl image`: images from folders of files, into the cluster's container runtime.

use std::path::{Path, PathBuf};

use anyhow::Context;
use clap::{Args, Subcommand};
use keelson_cri::image::{ImageConfig, build, import};
use keelson_cri::{Client, Runtime};

use crate::cluster::RootArg;
use crate::cluster::settings::Settings;

#[derive(Debug, Subcommand)]
pub enum ImageCommand {
    /// Make an OCI image from a folder of files
    Build(BuildArgs),
    /// Import images from an archive (OCI layout or `docker save`)
    Import(ImportArgs),
    /// List the images that the cluster's runtime has
    Ls(RootArg),
}

#[derive(Debug, Args)]
pub struct BuildArgs {
    /// The folder that becomes the image's root
    folder: PathBuf,
    /// Name of the image, such as localhost/app:1
    #[arg(short, long)]
    tag: String,
    /// What the container runs; repeat it for arguments
    #[arg(long)]
    entrypoint: Vec<String>,
    /// Default arguments; repeat it for several
    #[arg(long)]
    cmd: Vec<String>,
    /// NAME=VALUE
    #[arg(long)]
    env: Vec<String>,
    /// User or UID, with an optional :group
    #[arg(long, default_value = "")]
    user: String,
    #[arg(long, default_value = "/")]
    workdir: String,
    /// Where to write the archive
    #[arg(short, long)]
    output: Option<PathBuf>,
    /// Import the image into the cluster's runtime
    #[arg(long)]
    import: bool,
    #[command(flatten)]
    root: RootArg,
}

#[derive(Debug, Args)]
pub struct ImportArgs {
    /// The archive
    file: PathBuf,
    #[command(flatten)]
    root: RootArg,
}

pub async fn run(command: ImageCommand) -> anyhow::Result<()> {
    match command {
        ImageCommand::Build(args) => build_image(args).await,
        ImageCommand::Import(args) => {
            for image in import(&runtime_socket(&args.root)?, &args.file).await.context("import")? {
                println!("{} {}", image.name, image.digest);
            }
            Ok(())
        }
        ImageCommand::Ls(root) => list(&runtime_socket(&root)?).await,
    }
}

fn runtime_socket(root: &RootArg) -> anyhow::Result<PathBuf> {
    let layout = root.layout();
    Ok(Settings::load(&layout)?.runtime_socket(&layout))
}

async fn build_image(args: BuildArgs) -> anyhow::Result<()> {
    if !args.import && args.output.is_none() {
        anyhow::bail!("say where the image goes: --output FILE, --import, or both");
    }
    let config = ImageConfig {
        name: args.tag.clone(),
        entrypoint: args.entrypoint,
        cmd: args.cmd,
        env: args.env,
        user: args.user,
        working_dir: args.workdir,
        ..ImageConfig::default()
    };
    if let Some(output) = &args.output {
        build(&args.folder, &config, output).context("build the image")?;
    }
    if args.import {
        build_and_import(&args.folder, &config, &runtime_socket(&args.root)?).await?;
    }
    println!("{}", args.tag);
    Ok(())
}

/// Builds an image into a temporary archive and hands it to the runtime.
pub async fn build_and_import(folder: &Path, config: &ImageConfig, socket: &Path) -> anyhow::Result<()> {
    let temporary = tempfile::tempdir().context("a folder for the archive")?;
    let archive = temporary.path().join("image.tar");
    build(folder, config, &archive).with_context(|| format!("build image {}", config.name))?;
    import(socket, &archive).await.with_context(|| format!("import image {}", config.name))?;
    Ok(())
}

async fn list(socket: &Path) -> anyhow::Result<()> {
    let runtime = Client::connect(socket).await.with_context(|| format!("reach {}", socket.display()))?;
    println!("{:<60} {:>12}  ID", "IMAGE", "SIZE");
    for image in runtime.list_images().await.context("list images")? {
        let id = image.id.trim_start_matches("sha256:");
        let short = id.get(..12).unwrap_or(id);
        for name in
            image.repo_tags.iter().chain(image.repo_digests.iter().filter(|_| image.repo_tags.is_empty()))
        {
            println!("{name:<60} {:>9.1} MB  {short}", image.size as f64 / 1e6);
        }
    }
    Ok(())
}
