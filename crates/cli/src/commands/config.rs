//! `ctl config`: reads and changes kubeconfig files.

use std::io::Write;
use std::path::Path;

use anyhow::{Context as _, bail};
use clap::{Args, Subcommand};
use serde_json::{Value, json};

use crate::kubeconfig::Global;
use crate::tabs;
use crate::value::{list, text};

#[derive(Debug, Subcommand)]
pub enum ConfigCommand {
    /// Show the merged kubeconfig
    View(ViewArgs),
    /// List the contexts
    GetContexts(ContextsArgs),
    /// List the clusters
    GetClusters,
    /// List the users
    GetUsers,
    /// Show which context is used
    CurrentContext,
    /// Choose the context to use
    #[command(visible_alias = "use")]
    UseContext {
        /// The context
        name: String,
    },
    /// Change or add a context: --namespace, --cluster, --user
    SetContext(SetContextArgs),
    /// Remove a context
    DeleteContext {
        /// The context
        name: String,
    },
    /// Give a context another name
    RenameContext {
        /// The present name
        from: String,
        /// The new name
        to: String,
    },
}

#[derive(Debug, Args)]
pub struct ViewArgs {
    /// Only what the current context uses
    #[arg(long)]
    minify: bool,
    /// Show certificates and secrets
    #[arg(long)]
    raw: bool,
    /// Certificates in the text instead of their files' names
    #[arg(long)]
    flatten: bool,
    #[command(flatten)]
    output: crate::output::OutputArgs,
}

#[derive(Debug, Args)]
pub struct ContextsArgs {
    /// Only these
    names: Vec<String>,
    /// name prints only names
    #[arg(short = 'o', long)]
    output: Option<String>,
    #[arg(long)]
    no_headers: bool,
}

#[derive(Debug, Args)]
pub struct SetContextArgs {
    /// The context
    name: Option<String>,
    /// The context that is used
    #[arg(long)]
    current: bool,
    /// The user of the context
    #[arg(long)]
    user: Option<String>,
}

pub fn run(global: &Global, command: ConfigCommand) -> anyhow::Result<()> {
    let merged = serde_json::to_value(global.load()?).context("read the kubeconfig")?;
    match command {
        ConfigCommand::View(args) => view(global, merged, &args),
        ConfigCommand::GetContexts(args) => contexts(&merged, &args),
        ConfigCommand::GetClusters => names(&merged, "clusters"),
        ConfigCommand::GetUsers => names(&merged, "users"),
        ConfigCommand::CurrentContext => match text(&merged, "/current-context") {
            "" => bail!("current-context is not set"),
            name => {
                crate::outln!("{name}");
                Ok(())
            }
        },
        ConfigCommand::UseContext { name } => {
            if !list(&merged, "/contexts").iter().any(|c| text(c, "/name") == name) {
                bail!("no context exists with the name: {name:?}");
            }
            change(global, |file| {
                file["current-context"] = name.clone().into();
                Ok(())
            })?;
            crate::outln!("Switched to context {name:?}.");
            Ok(())
        }
        ConfigCommand::SetContext(args) => set_context(global, &merged, &args),
        ConfigCommand::DeleteContext { name } => {
            let path = change(global, |file| {
                let contexts = file["contexts"].as_array_mut().context("the file has no contexts")?;
                let before = contexts.len();
                contexts.retain(|c| text(c, "/name") != name);
                if contexts.len() == before {
                    bail!("cannot delete context {name}, not in the kubeconfig");
                }
                Ok(())
            })?;
            crate::outln!("deleted context {name} from {path}");
            Ok(())
        }
        ConfigCommand::RenameContext { from, to } => {
            change(global, |file| {
                if text(file, "/current-context") == from {
                    file["current-context"] = to.clone().into();
                }
                let contexts = file["contexts"].as_array_mut().context("the file has no contexts")?;
                let Some(context) = contexts.iter_mut().find(|c| text(c, "/name") == from) else {
                    bail!("cannot rename the context {from:?}, it's not in the kubeconfig");
                };
                context["name"] = to.clone().into();
                Ok(())
            })?;
            crate::outln!("Context {from:?} renamed to {to:?}.");
            Ok(())
        }
    }
}

fn names(merged: &Value, kind: &str) -> anyhow::Result<()> {
    crate::outln!("NAME");
    list(merged, &format!("/{kind}")).iter().for_each(|one| crate::outln!("{}", text(one, "/name")));
    Ok(())
}

fn view(global: &Global, mut merged: Value, args: &ViewArgs) -> anyhow::Result<()> {
    merged["apiVersion"] = "v1".into();
    merged["kind"] = "Config".into();
    let current = global.context.clone().unwrap_or_else(|| text(&merged, "/current-context").to_owned());
    if args.minify {
        minify(&mut merged, &current)?;
    }
    if args.flatten {
        embed(&mut merged)?;
    }
    if !args.raw {
        redact(&mut merged);
    }
    let printer = args.output.printer()?;
    match printer.prints_objects() {
        true => crate::io::print(&printer.object(&merged)),
        false => crate::io::print(&crate::yaml::to_string(&merged)),
    }
    Ok(())
}

fn minify(merged: &mut Value, current: &str) -> anyhow::Result<()> {
    let context = list(merged, "/contexts").iter().find(|c| text(c, "/name") == current).cloned();
    let context = context.with_context(|| format!("cannot locate context {current}"))?;
    let keep = |merged: &mut Value, kind: &str, name: &str| {
        if let Some(all) = merged.get_mut(kind).and_then(Value::as_array_mut) {
            all.retain(|one| text(one, "/name") == name);
        }
    };
    keep(merged, "contexts", current);
    keep(merged, "clusters", text(&context, "/context/cluster"));
    keep(merged, "users", text(&context, "/context/user"));
    merged["current-context"] = current.into();
    Ok(())
}

/// Files become data.
fn embed(merged: &mut Value) -> anyhow::Result<()> {
    use base64::Engine;
    let fields = ["certificate-authority", "client-certificate", "client-key"];
    for (kind, inner) in [("clusters", "cluster"), ("users", "user")] {
        for one in merged.get_mut(kind).and_then(Value::as_array_mut).into_iter().flatten() {
            let Some(map) = one.get_mut(inner).and_then(Value::as_object_mut) else { continue };
            for field in fields {
                if let Some(path) = map.remove(field).and_then(|p| p.as_str().map(str::to_owned)) {
                    let bytes = std::fs::read(&path).with_context(|| format!("read {path}"))?;
                    let data = base64::engine::general_purpose::STANDARD.encode(bytes);
                    map.insert(format!("{field}-data"), data.into());
                }
            }
        }
    }
    Ok(())
}

fn redact(merged: &mut Value) {
    for (kind, inner) in [("clusters", "cluster"), ("users", "user")] {
        for one in merged.get_mut(kind).and_then(Value::as_array_mut).into_iter().flatten() {
            for (field, value) in one.get_mut(inner).and_then(Value::as_object_mut).into_iter().flatten() {
                if field.ends_with("-data") {
                    *value = "DATA+OMITTED".into();
                } else if matches!(field.as_str(), "token" | "password") {
                    *value = "REDACTED".into();
                }
            }
        }
    }
}

fn contexts(merged: &Value, args: &ContextsArgs) -> anyhow::Result<()> {
    let current = text(merged, "/current-context");
    let mut lines = String::new();
    if !args.no_headers && args.output.as_deref() != Some("name") {
        lines += "CURRENT\tNAME\tCLUSTER\tAUTHINFO\tNAMESPACE\n";
    }
    for name in &args.names {
        if !list(merged, "/contexts").iter().any(|c| text(c, "/name") == name) {
            bail!("context {name} not found");
        }
    }
    let mut all: Vec<&Value> = list(merged, "/contexts").iter().collect();
    all.sort_by_key(|c| text(c, "/name"));
    for context in all {
        let name = text(context, "/name");
        if !args.names.is_empty() && !args.names.iter().any(|n| n == name) {
            continue;
        }
        lines += &match args.output.as_deref() {
            Some("name") => format!("{name}\n"),
            _ => format!(
                "{}\t{name}\t{}\t{}\t{}\n",
                if name == current { "*" } else { "" },
                text(context, "/context/cluster"),
                text(context, "/context/user"),
                text(context, "/context/namespace")
            ),
        };
    }
    crate::io::print(&tabs::TABLE.align(&lines));
    Ok(())
}

fn set_context(global: &Global, merged: &Value, args: &SetContextArgs) -> anyhow::Result<()> {
    let name = match (&args.name, args.current) {
        (Some(name), false) => name.clone(),
        (None, true) => text(merged, "/current-context").to_owned(),
        _ => bail!("you must specify a non-empty context name or --current"),
    };
    if name.is_empty() {
        bail!("no current context is set");
    }
    let mut created = false;
    change(global, |file| {
        if !file["contexts"].is_array() {
            file["contexts"] = json!([]);
        }
        let contexts = file["contexts"].as_array_mut().context("the file has no contexts")?;
        let position = contexts.iter().position(|c| text(c, "/name") == name).unwrap_or_else(|| {
            created = true;
            contexts.push(json!({"name": name, "context": {"cluster": "", "user": ""}}));
            contexts.len() - 1
        });
        let fields = [("namespace", &global.namespace), ("cluster", &global.cluster), ("user", &args.user)];
        for (field, value) in fields {
            if let Some(value) = value {
                contexts[position]["context"][field] = value.clone().into();
            }
        }
        Ok(())
    })?;
    crate::outln!("Context {name:?} {}.", if created { "created" } else { "modified" });
    Ok(())
}

/// Changes the first file; it is replaced as a whole, so that nobody reads half of it. Gives its path.
fn change(global: &Global, edit: impl FnOnce(&mut Value) -> anyhow::Result<()>) -> anyhow::Result<String> {
    let files = global.files();
    let path = files.iter().find(|p| p.exists()).or(files.first()).context("no kubeconfig file is named")?;
    let mut file = match std::fs::read_to_string(path) {
        Ok(content) => {
            let (value, _) = keelson_machinery::decode::yaml(content.as_bytes())
                .with_context(|| format!("error loading config file {path:?}"))?;
            value
        }
        Err(error) if error.kind() == std::io::ErrorKind::NotFound => {
            json!({"apiVersion": "v1", "kind": "Config"})
        }
        Err(error) => return Err(error).with_context(|| format!("read {}", path.display())),
    };
    edit(&mut file)?;
    let folder = path.parent().filter(|p| !p.as_os_str().is_empty()).unwrap_or(Path::new("."));
    std::fs::create_dir_all(folder).with_context(|| format!("make {}", folder.display()))?;
    // A temporary file is readable by its owner only, as secrets should be.
    let mut new =
        tempfile::NamedTempFile::new_in(folder).with_context(|| format!("write in {}", folder.display()))?;
    new.write_all(crate::yaml::to_string(&file).as_bytes()).context("write the kubeconfig")?;
    new.persist(path).with_context(|| format!("replace {}", path.display()))?;
    Ok(path.display().to_string())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn contexts_are_chosen_and_changed_in_the_file() {
        let folder = tempfile::tempdir().expect("a folder");
        let path = folder.path().join("config");
        let content = "apiVersion: v1\nkind: Config\ncurrent-context: a\ncontexts:\n- name: a\n  context: {cluster: c, user: u}\n- name: b\n  context: {cluster: c, user: u}\n";
        std::fs::write(&path, content).expect("a file");
        let global = Global { kubeconfig: Some(path), namespace: Some("ns".into()), ..Global::default() };
        run(&global, ConfigCommand::UseContext { name: "b".into() }).expect("switched");
        run(&global, ConfigCommand::SetContext(SetContextArgs { name: None, current: true, user: None }))
            .expect("set");
        let loaded = serde_json::to_value(global.load().expect("loaded")).expect("a value");
        assert_eq!(text(&loaded, "/current-context"), "b");
        assert_eq!(text(&loaded, "/contexts/1/context/namespace"), "ns");
        assert!(run(&global, ConfigCommand::UseContext { name: "z".into() }).is_err());
    }
}
