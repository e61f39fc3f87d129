//! `ctl apply`: brings objects to what files say, keeping what others have set.
//!
//! Client-side, the last applied state is kept in an annotation, and the patch is made of three states: last applied, wanted
//! and present. `--server-side` leaves all of that to the server.

use std::io::IsTerminal;

use anyhow::{Context as _, bail};
use clap::{Args, Subcommand};
use keelson_api_types::Gvk;
use keelson_machinery::diff;
use serde_json::{Value, json};

use crate::client::{APPLY_PATCH, Call, MERGE_PATCH, STRATEGIC_PATCH};
use crate::context::Context;
use crate::failure::{self, Failure, on_source};
use crate::files::FileArgs;
use crate::output::{DryRun, DryRunArgs, OutputArgs, Printer};
use crate::resources::{Found, Wanted, from_files};
use crate::value::{go_json, object as as_object, remove, set, text};

/// kubectl's annotation, so that either tool continues what the other began.
pub const LAST_APPLIED: &str = "kubectl.kubernetes.io/last-applied-configuration";
const CLIENT_SIDE_MANAGER: &str = "kubectl-client-side-apply";
/// A conflict means that someone wrote in between; the next try starts from their state.
const MAX_TRIES: usize = 5;

#[derive(Debug, Args)]
#[command(args_conflicts_with_subcommands = true)]
pub struct ApplyArgs {
    #[command(subcommand)]
    command: Option<ApplyCommand>,
    #[command(flatten)]
    files: FileArgs,
    #[command(flatten)]
    output: OutputArgs,
    #[command(flatten)]
    dry_run: DryRunArgs,
    /// Only objects with these labels
    #[arg(short = 'l', long)]
    selector: Option<String>,
    /// Let the server merge and keep track of who owns which field
    #[arg(long)]
    server_side: bool,
    /// With --server-side, take fields over from other managers
    #[arg(long)]
    force_conflicts: bool,
    /// Name under which fields are owned
    #[arg(long)]
    field_manager: Option<String>,
    /// Delete and create again what cannot be patched
    #[arg(long)]
    force: bool,
    /// strict, warn or ignore: what happens with unknown and duplicate fields
    #[arg(long, num_args = 0..=1, require_equals = true, default_missing_value = "strict", default_value = "strict")]
    validate: String,
    /// Write over fields that were changed since they were applied
    #[arg(long, default_value_t = true, action = clap::ArgAction::Set, num_args = 0..=1, require_equals = true, default_missing_value = "true")]
    overwrite: bool,
}

#[derive(Debug, Subcommand)]
enum ApplyCommand {
    /// Show the last applied state of objects
    ViewLastApplied(ViewArgs),
}

#[derive(Debug, Args)]
struct ViewArgs {
    /// TYPE NAME… or TYPE/NAME…
    words: Vec<String>,
    #[command(flatten)]
    files: FileArgs,
    #[command(flatten)]
    selectors: crate::resources::SelectorArgs,
    /// yaml or json
    #[arg(short = 'o', long, default_value = "yaml")]
    output: String,
}

/// The `fieldValidation` parameter for a --validate flag.
pub fn field_validation(flag: &str) -> anyhow::Result<&'static str> {
    match flag {
        "true" | "strict" => Ok("Strict"),
        "warn" => Ok("Warn"),
        "false" | "ignore" => Ok("Ignore"),
        _ => bail!(
            "invalid - validate option {flag:?}; must be one of: strict (or true), warn, ignore (or false)"
        ),
    }
}

pub async fn run(context: &Context, args: ApplyArgs) -> anyhow::Result<()> {
    if let Some(ApplyCommand::ViewLastApplied(view)) = args.command {
        return view_last_applied(context, view).await;
    }
    if args.files.is_empty() {
        bail!("must specify -f with a file, a folder or - for standard input");
    }
    let dry_run = args.dry_run.get()?;
    if args.force_conflicts && !args.server_side {
        bail!("--force-conflicts only works with --server-side");
    }
    if args.server_side && dry_run == DryRun::Client {
        bail!("--dry-run=client doesn't work with --server-side (did you mean --dry-run=server instead?)");
    }
    let printer = args.output.printer()?;
    let selector =
        keelson_api_types::selector::LabelSelector::parse(args.selector.as_deref().unwrap_or_default())
            .context("--selector")?;
    let mut errors = Vec::new();
    for wanted in from_files(context, &args.files).await? {
        let none = serde_json::Map::new();
        if !selector.matches(crate::value::map(&wanted.object, "/metadata/labels").unwrap_or(&none)) {
            continue;
        }
        let applied = if args.server_side {
            server_side(context, &args, &wanted, dry_run).await.map(|object| (object, "serverside-applied"))
        } else {
            client_side(context, &args, &wanted, dry_run).await
        };
        match applied {
            Ok((object, done)) => report(&printer, &wanted, &object, done, dry_run),
            Err(error) => errors.push(error),
        }
    }
    failure::all(errors)
}

fn report(printer: &Printer, wanted: &Found, object: &Value, done: &str, dry_run: DryRun) {
    printer.change(&wanted.mapping, object, done, dry_run);
}

fn source(wanted: &Found) -> &str {
    wanted.source.as_deref().unwrap_or("STDIN")
}

async fn server_side(
    context: &Context,
    args: &ApplyArgs,
    wanted: &Found,
    dry_run: DryRun,
) -> anyhow::Result<Value> {
    require_name(wanted)?;
    let call = Call::patch(wanted.path(), APPLY_PATCH, &wanted.object)
        .query("fieldManager", args.field_manager.as_deref().unwrap_or("kubectl"))
        .query("force", if args.force_conflicts { "true" } else { "false" })
        .query("fieldValidation", field_validation(&args.validate)?)
        .query("dryRun", dry_run.parameter());
    context.rest.json(call).await.map_err(|error| {
        if failure::is(&error, "Conflict") {
            explain_conflict(error)
        } else {
            on_source(error, "applying", source(wanted))
        }
    })
}

fn explain_conflict(error: anyhow::Error) -> anyhow::Error {
    anyhow::anyhow!(
        "{error}\nPlease review the fields above--they currently have other managers. Here\nare the ways you can resolve this warning:\n* If you intend to manage all of these fields, please re-run the apply\n  command with the `--force-conflicts` flag.\n* If you do not intend to manage all of the fields, please edit your\n  manifest to remove references to the fields that should keep their\n  current managers.\n* You may co-own fields by updating your manifest to match the existing\n  value; in this case, you'll become the manager if the other manager(s)\n  stop managing the field (remove it from their configuration).\nSee https://kubernetes.io/docs/reference/using-api/server-side-apply/#conflicts"
    )
}

fn require_name(wanted: &Found) -> anyhow::Result<()> {
    if wanted.name.is_empty() {
        if !text(&wanted.object, "/metadata/generateName").is_empty() {
            bail!(
                "from {}: cannot use generate name with apply",
                text(&wanted.object, "/metadata/generateName")
            );
        }
        bail!(
            "error when retrieving current configuration of {:?}: resource name may not be empty",
            source(wanted)
        );
    }
    Ok(())
}

async fn client_side(
    context: &Context,
    args: &ApplyArgs,
    wanted: &Found,
    dry_run: DryRun,
) -> anyhow::Result<(Value, &'static str)> {
    require_name(wanted)?;
    let modified = annotated(&wanted.object);
    for attempt in 1.. {
        let present = match context.get(&wanted.mapping, wanted.namespace.as_deref(), &wanted.name).await {
            Ok(present) => present,
            Err(error) if failure::is(&error, "NotFound") => {
                return Ok((create(context, args, wanted, &modified, dry_run).await?, "created"));
            }
            Err(error) => {
                return Err(on_source(error, "retrieving current configuration of", source(wanted)));
            }
        };
        warn_if_not_applied(wanted, &present);
        let (kind, patch) = patch_for(wanted, &modified, &present)?;
        if patch.as_object().is_some_and(|p| p.is_empty()) {
            return Ok((present, "unchanged"));
        }
        if dry_run == DryRun::Client {
            return Ok((modified, "configured"));
        }
        let call = Call::patch(wanted.path(), kind, &patch)
            .query("fieldManager", args.field_manager.as_deref().unwrap_or(CLIENT_SIDE_MANAGER))
            .query("fieldValidation", field_validation(&args.validate)?)
            .query("dryRun", dry_run.parameter());
        match context.rest.json(call).await {
            Ok(object) => return Ok((object, "configured")),
            Err(error) if failure::is(&error, "Conflict") && attempt < MAX_TRIES => continue,
            Err(error)
                if args.force && (failure::is(&error, "Conflict") || failure::is(&error, "Invalid")) =>
            {
                return Ok((recreate(context, args, wanted, &modified).await?, "configured"));
            }
            Err(error) => return Err(on_source(error, "applying patch", source(wanted))),
        }
    }
    bail!("apply {}: too many conflicts", wanted.label())
}

async fn create(
    context: &Context,
    args: &ApplyArgs,
    wanted: &Found,
    modified: &Value,
    dry_run: DryRun,
) -> anyhow::Result<Value> {
    if dry_run == DryRun::Client {
        return Ok(modified.clone());
    }
    let call = Call::post(wanted.mapping.collection(wanted.namespace.as_deref()), modified)
        .query("fieldManager", args.field_manager.as_deref().unwrap_or(CLIENT_SIDE_MANAGER))
        .query("fieldValidation", field_validation(&args.validate)?)
        .query("dryRun", dry_run.parameter());
    context.rest.json(call).await.map_err(|error| on_source(error, "creating", source(wanted)))
}

async fn recreate(
    context: &Context,
    args: &ApplyArgs,
    wanted: &Found,
    modified: &Value,
) -> anyhow::Result<Value> {
    let options = json!({"propagationPolicy": "Background"});
    context.rest.json(Call::delete(wanted.path(), &options)).await?;
    super::wait::gone(context, wanted, std::time::Duration::from_secs(300)).await?;
    create(context, args, wanted, modified, DryRun::None).await
}

fn warn_if_not_applied(wanted: &Found, present: &Value) {
    if keelson_api_types::meta::annotation(present, LAST_APPLIED).is_none() {
        eprintln!(
            "Warning: resource {}/{} is missing the {LAST_APPLIED} annotation which is required by ctl apply. ctl apply should only be used on resources created declaratively by either ctl create --save-config or ctl apply. The missing annotation will be patched automatically.",
            wanted.mapping.resource, wanted.name
        );
    }
}

/// The object with itself in the annotation, as it is to be applied.
pub fn annotated(object: &Value) -> Value {
    let mut plain = object.clone();
    remove(&mut plain, &["metadata", "annotations", LAST_APPLIED]);
    if plain.pointer("/metadata/annotations").is_none_or(Value::is_null) {
        set(&mut plain, &["metadata", "annotations"], json!({}));
    }
    let last_applied = go_json(&plain) + "\n";
    set(&mut plain, &["metadata", "annotations", LAST_APPLIED], last_applied.into());
    plain
}

/// What kind of patch brings the present state to the wanted one, and the patch.
pub fn patch_for(wanted: &Found, modified: &Value, present: &Value) -> anyhow::Result<(&'static str, Value)> {
    let original = match keelson_api_types::meta::annotation(present, LAST_APPLIED) {
        Some(text) => serde_json::from_str(text).context("read the last applied configuration")?,
        None => Value::Null,
    };
    let mapping = &wanted.mapping;
    let gvk =
        Gvk { group: mapping.group.clone(), version: mapping.version.clone(), kind: mapping.kind.clone() };
    let (kind, mut patch) = match keelson_schema::builtin().for_gvk(&gvk) {
        Some(ty) => {
            let patch = diff::three_way_strategic(ty, &original, modified, present)
                .with_context(|| format!("compare {} with the server's", wanted.label()))?;
            (STRATEGIC_PATCH, patch)
        }
        None => (MERGE_PATCH, diff::three_way_merge(&original, modified, present)),
    };
    // The server's own fields are not for a patch to change.
    remove(&mut patch, &["metadata", "creationTimestamp"]);
    remove(&mut patch, &["status"]);
    if patch.get("metadata").and_then(Value::as_object).is_some_and(|m| m.is_empty()) {
        as_object(&mut patch).remove("metadata");
    }
    Ok((kind, patch))
}

async fn view_last_applied(context: &Context, args: ViewArgs) -> anyhow::Result<()> {
    let wanted = Wanted { words: &args.words, files: &args.files, selectors: &args.selectors, all: true };
    for found in wanted.find_all(context).await? {
        let Some(applied) = keelson_api_types::meta::annotation(&found.object, LAST_APPLIED) else {
            bail!("no last-applied-configuration annotation found on resource: {}", found.name);
        };
        let value: Value = serde_json::from_str(applied).context("read the last applied configuration")?;
        match args.output.as_str() {
            "json" => crate::outln!("{}", crate::value::go_json_pretty(&value)),
            _ => crate::io::print(&crate::yaml::to_string(&value)),
        }
    }
    Ok(())
}

#[derive(Debug, Args)]
pub struct DiffArgs {
    #[command(flatten)]
    files: FileArgs,
    /// Compare with what a server-side apply would make
    #[arg(long)]
    server_side: bool,
    #[arg(long)]
    force_conflicts: bool,
    #[arg(long)]
    field_manager: Option<String>,
    /// Show managedFields
    #[arg(long)]
    show_managed_fields: bool,
}

/// `ctl diff`: what an apply would change; exit code 1 when there is something.
pub async fn diff(context: &Context, args: DiffArgs) -> anyhow::Result<()> {
    if args.files.is_empty() {
        bail!("must specify -f with a file, a folder or - for standard input");
    }
    let mut differs = false;
    for wanted in from_files(context, &args.files).await? {
        let present = match context.get(&wanted.mapping, wanted.namespace.as_deref(), &wanted.name).await {
            Ok(present) => Some(present),
            Err(error) if failure::is(&error, "NotFound") => None,
            Err(error) => return Err(error),
        };
        let mut merged = would_be(context, &args, &wanted, present.as_ref()).await?;
        let mut present = present.unwrap_or(Value::Null);
        if !args.show_managed_fields {
            remove(&mut present, &["metadata", "managedFields"]);
            remove(&mut merged, &["metadata", "managedFields"]);
        }
        let name = format!(
            "{}.{}.{}.{}",
            wanted.mapping.api_version().replace('/', "."),
            wanted.mapping.kind,
            wanted.namespace.as_deref().unwrap_or_default(),
            wanted.name
        );
        let before = if present.is_null() { String::new() } else { crate::yaml::to_string(&present) };
        let after = crate::yaml::to_string(&merged);
        if before != after {
            differs = true;
            print_diff(&name, &before, &after);
        }
    }
    if differs { Err(Failure::Exit(1).into()) } else { Ok(()) }
}

async fn would_be(
    context: &Context,
    args: &DiffArgs,
    wanted: &Found,
    present: Option<&Value>,
) -> anyhow::Result<Value> {
    let call = if args.server_side {
        Call::patch(wanted.path(), APPLY_PATCH, &wanted.object)
            .query("fieldManager", args.field_manager.as_deref().unwrap_or("kubectl"))
            .query("force", if args.force_conflicts { "true" } else { "false" })
    } else {
        let modified = annotated(&wanted.object);
        match present {
            None => Call::post(wanted.mapping.collection(wanted.namespace.as_deref()), &modified),
            Some(present) => {
                let (kind, patch) = patch_for(wanted, &modified, present)?;
                Call::patch(wanted.path(), kind, &patch)
            }
        }
    };
    context.rest.json(call.query("dryRun", "All")).await
}

fn print_diff(name: &str, before: &str, after: &str) {
    let text = similar::TextDiff::from_lines(before, after)
        .unified_diff()
        .context_radius(3)
        .header(&format!("LIVE/{name}"), &format!("MERGED/{name}"))
        .to_string();
    let color = std::io::stdout().is_terminal();
    for line in text.lines() {
        let code = match line.as_bytes().first() {
            Some(b'+') if color => "32",
            Some(b'-') if color => "31",
            Some(b'@') if color => "36",
            _ => {
                crate::outln!("{line}");
                continue;
            }
        };
        crate::outln!("\x1b[{code}m{line}\x1b[0m");
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::mapper::Mapping;
    use std::sync::Arc;

    fn deployment(object: Value) -> Found {
        let mapping = Mapping {
            group: "apps".into(),
            version: "v1".into(),
            kind: "Deployment".into(),
            resource: "deployments".into(),
            namespaced: true,
            ..Mapping::default()
        };
        Found::new(Arc::new(mapping), object)
    }

    #[test]
    fn applying_the_same_again_changes_nothing() {
        let object = json!({"apiVersion": "apps/v1", "kind": "Deployment", "metadata": {"name": "web", "namespace": "a"}, "spec": {"replicas": 2}});
        let modified = annotated(&object);
        let mut present = modified.clone();
        set(&mut present, &["spec", "progressDeadlineSeconds"], json!(600));
        let (kind, patch) = patch_for(&deployment(object), &modified, &present).expect("a patch");
        assert_eq!((kind, patch), (STRATEGIC_PATCH, json!({})));
    }

    #[test]
    fn what_is_no_longer_said_is_removed() {
        let before =
            json!({"metadata": {"name": "web", "labels": {"a": "1", "b": "2"}}, "spec": {"paused": true}});
        let after = json!({"metadata": {"name": "web", "labels": {"a": "1"}}, "spec": {}});
        let modified = annotated(&after);
        let (_, patch) = patch_for(&deployment(after), &modified, &annotated(&before)).expect("a patch");
        assert_eq!(patch["metadata"]["labels"], json!({"b": null}));
        assert_eq!(patch["spec"], json!({"paused": null}));
    }

    #[test]
    fn the_annotation_is_kubectls() {
        let object = json!({"kind": "A", "apiVersion": "v1", "metadata": {"name": "x"}, "data": {"a": "<"}});
        let annotated = annotated(&object);
        let text = keelson_api_types::meta::annotation(&annotated, LAST_APPLIED).expect("annotation");
        assert_eq!(
            text,
            "{\"apiVersion\":\"v1\",\"data\":{\"a\":\"\\u003c\"},\"kind\":\"A\",\"metadata\":{\"annotations\":{},\"name\":\"x\"}}\n"
        );
    }
}
