//! `ctl edit`: objects in the user's editor.

use std::io::Write;
use std::process::Command;

use anyhow::{Context as _, bail};
use clap::Args;
use keelson_api_types::Gvk;
use keelson_machinery::diff;
use serde_json::Value;

use crate::client::{Call, MERGE_PATCH, STRATEGIC_PATCH};
use crate::context::Context;
use crate::failure;
use crate::files::FileArgs;
use crate::output::{DryRun, OutputArgs};
use crate::resources::{Found, SelectorArgs, Wanted};
use crate::value::{go_json_pretty, remove};

const HEADER: &str = "# Please edit the object below. Lines beginning with a '#' will be ignored,\n# and an empty file will abort the edit. If an error occurs while saving this file will be\n# reopened with the relevant failures.\n#\n";

#[derive(Debug, Args)]
pub struct EditArgs {
    /// TYPE NAME or TYPE/NAME
    words: Vec<String>,
    #[command(flatten)]
    files: FileArgs,
    #[command(flatten)]
    selectors: SelectorArgs,
    /// yaml or json
    #[arg(short = 'o', long, default_value = "yaml")]
    output: String,
    /// Edit this subresource, such as status
    #[arg(long)]
    subresource: Option<String>,
    #[arg(long)]
    show_managed_fields: bool,
}

pub async fn run(context: &Context, args: EditArgs) -> anyhow::Result<()> {
    let wanted = Wanted { words: &args.words, files: &args.files, selectors: &args.selectors, all: true };
    let found = wanted.find_all(context).await?;
    if found.is_empty() {
        bail!("no objects found to edit");
    }
    for one in found {
        edit(context, &args, one).await?;
    }
    Ok(())
}

async fn edit(context: &Context, args: &EditArgs, mut found: Found) -> anyhow::Result<()> {
    if !args.show_managed_fields {
        remove(&mut found.object, &["metadata", "managedFields"]);
    }
    let json = args.output == "json";
    let shown =
        if json { go_json_pretty(&found.object) + "\n" } else { crate::yaml::to_string(&found.object) };
    let suffix = if json { ".json" } else { ".yaml" };
    let mut file =
        tempfile::Builder::new().prefix("ctl-edit-").suffix(suffix).tempfile().context("a file to edit")?;
    let mut problem = String::new();
    let mut content = shown.clone();
    loop {
        let header = if json { String::new() } else { format!("{HEADER}{problem}") };
        std::fs::write(file.path(), format!("{header}{content}")).context("write the file to edit")?;
        open_editor(file.path())?;
        let edited = without_comments(&std::fs::read_to_string(file.path()).context("read the edited file")?);
        if edited.trim().is_empty() {
            crate::outln!("Edit cancelled, saved file was empty.");
            return Ok(());
        }
        if edited == shown {
            crate::outln!("Edit cancelled, no changes made.");
            return Ok(());
        }
        // The same content refused twice would be refused for ever.
        if edited == content && !problem.is_empty() {
            let kept = file.as_file_mut().flush().and_then(|()| Ok(file.keep()?));
            let path = kept.map(|(_, path)| path.display().to_string()).unwrap_or_default();
            bail!(
                "Edit cancelled, no valid changes were saved.\nA copy of your changes has been stored to {path:?}"
            );
        }
        match save(context, args, &found, &edited).await {
            Ok(object) => {
                OutputArgs::default().printer()?.change(&found.mapping, &object, "edited", DryRun::None);
                return Ok(());
            }
            Err(error) => {
                let text = failure::explain(&error);
                eprintln!("{text}");
                problem = text.lines().map(|line| format!("# {line}\n")).collect::<String>() + "#\n";
                content = edited;
            }
        }
    }
}

fn without_comments(text: &str) -> String {
    text.lines().filter(|line| !line.starts_with('#')).map(|line| format!("{line}\n")).collect()
}

async fn save(context: &Context, args: &EditArgs, found: &Found, edited: &str) -> anyhow::Result<Value> {
    let (new, _) = keelson_machinery::decode::yaml(edited.as_bytes()).context("read the edited file")?;
    let mapping = &found.mapping;
    let gvk =
        Gvk { group: mapping.group.clone(), version: mapping.version.clone(), kind: mapping.kind.clone() };
    let (kind, patch) = match keelson_schema::builtin().for_gvk(&gvk) {
        Some(ty) => (STRATEGIC_PATCH, diff::two_way_strategic(ty, &found.object, &new)?),
        None => (MERGE_PATCH, diff::two_way_merge(&found.object, &new)),
    };
    for field in ["apiVersion", "kind"] {
        if patch.get(field).is_some() {
            bail!("{field} may not be changed");
        }
    }
    if patch.pointer("/metadata/name").is_some() {
        bail!("metadata.name may not be changed");
    }
    let path = match &args.subresource {
        Some(subresource) => format!("{}/{subresource}", found.path()),
        None => found.path(),
    };
    let call = Call::patch(path, kind, &patch).query("fieldManager", "kubectl-edit");
    context.rest.json(call.query("fieldValidation", "Strict")).await
}

fn open_editor(path: &std::path::Path) -> anyhow::Result<()> {
    let editor = ["KUBE_EDITOR", "EDITOR", "VISUAL"]
        .iter()
        .filter_map(|name| std::env::var(name).ok())
        .find(|editor| !editor.trim().is_empty())
        .unwrap_or_else(|| "vi".to_owned());
    // An editor may come with arguments, so a shell takes it apart.
    let status = Command::new("sh")
        .arg("-c")
        .arg(format!("{editor} \"$0\""))
        .arg(path)
        .status()
        .with_context(|| format!("start the editor {editor:?}"))?;
    if !status.success() {
        bail!("there was a problem with the editor {editor:?}");
    }
    Ok(())
}
