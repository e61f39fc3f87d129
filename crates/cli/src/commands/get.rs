//! `ctl get`: tables from the server, or objects in the format asked for; once or as they change.

use std::sync::Arc;

use anyhow::bail;
use clap::Args;
use futures::StreamExt;
use serde_json::Value;

use crate::client::{Call, TABLE};
use crate::context::Context;
use crate::failure;
use crate::files::FileArgs;
use crate::jsonpath::Template;
use crate::mapper::Mapping;
use crate::output::table::{Options, TablePrinter};
use crate::output::{Format, OutputArgs, Printer, list_of};
use crate::resources::{Selection, SelectorArgs, Wanted, namespace_for, parse};
use crate::value::{list, text};

#[derive(Debug, Args)]
pub struct GetArgs {
    /// TYPE[,TYPE…] [NAME…] or TYPE/NAME…
    words: Vec<String>,
    #[command(flatten)]
    files: FileArgs,
    #[command(flatten)]
    selectors: SelectorArgs,
    #[command(flatten)]
    output: OutputArgs,
    /// After listing, show changes as they come
    #[arg(short = 'w', long)]
    watch: bool,
    /// Show only changes
    #[arg(long)]
    watch_only: bool,
    /// Tell what happened with each object while watching
    #[arg(long)]
    output_watch_events: bool,
    /// Show labels as the last column
    #[arg(long)]
    show_labels: bool,
    /// Leave the header out
    #[arg(long)]
    no_headers: bool,
    /// Show these labels as columns; repeat it or separate by commas
    #[arg(short = 'L', long, value_delimiter = ',')]
    label_columns: Vec<String>,
    /// Sort by a field, such as .metadata.name
    #[arg(long)]
    sort_by: Option<String>,
    /// Objects that are not there are no failure
    #[arg(long)]
    ignore_not_found: bool,
    /// A path of the server to print as it is
    #[arg(long)]
    raw: Option<String>,
    /// Get this subresource, such as status or scale
    #[arg(long)]
    subresource: Option<String>,
    /// List in pages of this many objects
    #[arg(long, default_value_t = 500)]
    chunk_size: u32,
    /// Name each object's type
    #[arg(long)]
    show_kind: bool,
}

pub async fn run(context: &Context, args: GetArgs) -> anyhow::Result<()> {
    if let Some(path) = &args.raw {
        crate::io::write(&context.rest.bytes(Call::get(path.as_str())).await?);
        return Ok(());
    }
    let printer = args.output.printer()?;
    let selections = selections(context, &args).await?;
    if args.watch || args.watch_only {
        let [selection] = selections.as_slice() else {
            bail!("you may only specify a single resource type to watch");
        };
        return watch(context, &args, &printer, selection).await;
    }
    if printer.prints_objects() {
        objects(context, &args, &printer, &selections).await
    } else {
        tables(context, &args, &printer, &selections).await
    }
}

async fn selections(context: &Context, args: &GetArgs) -> anyhow::Result<Vec<Selection>> {
    if args.files.is_empty() {
        if args.words.is_empty() {
            bail!(
                "You must specify the type of resource to get. Use \"ctl api-resources\" for a complete list of supported resources."
            );
        }
        let selections = parse(&*context.mapper().await?, &args.words)?;
        if selections.iter().any(|s| !s.names.is_empty()) && !args.selectors.labels().is_empty() {
            bail!("name cannot be provided when a selector is specified");
        }
        let scoped = selections.iter().any(|s| !s.names.is_empty() && s.mapping.namespaced);
        if scoped && args.selectors.all_namespaces {
            bail!("a resource cannot be retrieved by name across all namespaces");
        }
        return Ok(selections);
    }
    let wanted = crate::resources::from_files(context, &args.files).await?;
    Ok(wanted.into_iter().map(|f| Selection { mapping: f.mapping, names: vec![f.name] }).collect())
}

/// The objects themselves: one bare when one is named, a List otherwise.
async fn objects(
    context: &Context,
    args: &GetArgs,
    printer: &Printer,
    selections: &[Selection],
) -> anyhow::Result<()> {
    let (mut found, mut errors) = (Vec::new(), Vec::new());
    let single = matches!(selections, [one] if one.names.len() == 1);
    if args.files.is_empty() && args.subresource.is_none() {
        let wanted = Wanted { words: &args.words, files: &args.files, selectors: &args.selectors, all: true };
        (found, errors) = wanted.find(context).await?;
    } else {
        for selection in selections {
            let namespace = namespace_for(context, &selection.mapping, false);
            for name in &selection.names {
                let path = path_of(&selection.mapping, namespace.as_deref(), name, args);
                match context.rest.json(Call::get(path)).await {
                    Ok(object) => found.push(crate::resources::Found::new(selection.mapping.clone(), object)),
                    Err(error) => errors.push(error),
                }
            }
        }
    }
    let mut items: Vec<Value> = Vec::new();
    let mut names = String::new();
    if let Some(path) = &args.sort_by {
        let template = Template::relaxed(path)?;
        found.sort_by(|a, b| super::sort::compare(&template, &a.object, &b.object));
    }
    for one in found {
        names += &format!("{}\n", one.label());
        items.push(one.object);
    }
    if matches!(printer.format, Format::Name) {
        crate::io::print(&names);
    } else if single {
        if let Some(object) = items.first() {
            crate::io::print(&printer.object(object));
        }
    } else if errors.is_empty() || !items.is_empty() {
        crate::io::print(&printer.object(&list_of(items)));
    }
    finish(errors, args)
}

fn path_of(mapping: &Mapping, namespace: Option<&str>, name: &str, args: &GetArgs) -> String {
    let path = mapping.object(namespace, name);
    match &args.subresource {
        Some(subresource) => format!("{path}/{subresource}"),
        None => path,
    }
}

fn finish(mut errors: Vec<anyhow::Error>, args: &GetArgs) -> anyhow::Result<()> {
    if args.ignore_not_found {
        errors.retain(|error| !failure::is(error, "NotFound"));
    }
    failure::all(errors)
}

async fn tables(
    context: &Context,
    args: &GetArgs,
    printer: &Printer,
    selections: &[Selection],
) -> anyhow::Result<()> {
    let many = selections.len() > 1 && selections.iter().any(|s| s.mapping != selections[0].mapping);
    let (mut errors, mut shown, mut last) = (Vec::new(), 0, None::<(Arc<Mapping>, TablePrinter)>);
    for selection in selections {
        let table = match table(context, args, selection).await {
            Ok((table, failed)) => {
                errors.extend(failed);
                table
            }
            Err(error) => {
                errors.push(error);
                continue;
            }
        };
        if list(&table, "/rows").is_empty() {
            continue;
        }
        // Objects named one by one of the same type share a table.
        if last.as_ref().is_none_or(|(mapping, _)| *mapping != selection.mapping) {
            if last.is_some() {
                crate::outln!();
            }
            let options = options(args, printer, &selection.mapping, many);
            last = Some((selection.mapping.clone(), TablePrinter::new(options)));
        }
        shown += list(&table, "/rows").len();
        if let Some((_, lines)) = &mut last {
            crate::io::print(&lines.lines(&table, ""));
        }
    }
    if shown == 0 && errors.is_empty() && !args.ignore_not_found {
        nothing_found(context, args, selections);
    }
    finish(errors, args)
}

fn nothing_found(context: &Context, args: &GetArgs, selections: &[Selection]) {
    let namespaced = selections.iter().any(|s| s.mapping.namespaced);
    if namespaced && !args.selectors.all_namespaces {
        eprintln!("No resources found in {} namespace.", context.namespace);
    } else {
        eprintln!("No resources found");
    }
}

fn options(args: &GetArgs, printer: &Printer, mapping: &Mapping, many: bool) -> Options {
    Options {
        wide: matches!(printer.format, Format::Wide),
        no_headers: args.no_headers,
        with_namespace: args.selectors.all_namespaces && mapping.namespaced,
        show_labels: args.show_labels,
        label_columns: args.label_columns.clone(),
        kind_prefix: (many || args.show_kind).then(|| mapping.kind_name()),
        with_event: args.output_watch_events,
    }
}

/// One table of all pages, or of all objects named.
async fn table(
    context: &Context,
    args: &GetArgs,
    selection: &Selection,
) -> anyhow::Result<(Value, Vec<anyhow::Error>)> {
    let mapping = &selection.mapping;
    let namespace = namespace_for(context, mapping, args.selectors.all_namespaces);
    let (mut whole, mut errors) = (Value::Null, Vec::new());
    if selection.names.is_empty() {
        let mut next = String::new();
        loop {
            let call = list_call(args, mapping, namespace.as_deref())
                .query("limit", args.chunk_size.to_string())
                .query("continue", next);
            let page = as_table(context.rest.json(call).await?);
            next = text(&page, "/metadata/continue").to_owned();
            append(&mut whole, page);
            if next.is_empty() {
                break;
            }
        }
    }
    for name in &selection.names {
        let path = path_of(mapping, namespace.as_deref(), name, args);
        let call = with_object(Call::get(path).accept(TABLE), args);
        match context.rest.json(call).await {
            Ok(table) => append(&mut whole, as_table(table)),
            Err(error) => errors.push(error),
        }
    }
    if let Some(path) = &args.sort_by {
        let template = Template::relaxed(path)?;
        if let Some(rows) = whole.get_mut("rows").and_then(Value::as_array_mut) {
            rows.sort_by(|a, b| super::sort::compare(&template, &a["object"], &b["object"]));
        }
    }
    Ok((whole, errors))
}

fn list_call(args: &GetArgs, mapping: &Mapping, namespace: Option<&str>) -> Call {
    let call = Call::get(mapping.collection(namespace))
        .query("labelSelector", args.selectors.labels())
        .query("fieldSelector", args.selectors.fields());
    with_object(call.accept(TABLE), args)
}

/// Sorting needs the whole object beside its row.
fn with_object(call: Call, args: &GetArgs) -> Call {
    call.query("includeObject", if args.sort_by.is_some() { "Object" } else { "" })
}

/// A server that makes no table for a type answers with the object: name and age say the least.
fn as_table(answer: Value) -> Value {
    if text(&answer, "/kind") == "Table" {
        return answer;
    }
    let items: Vec<Value> = match answer.get("items").and_then(Value::as_array) {
        Some(items) => items.clone(),
        None => vec![answer.clone()],
    };
    let rows: Vec<Value> = items
        .into_iter()
        .map(|item| {
            let age = super::age(text(&item, "/metadata/creationTimestamp"));
            serde_json::json!({"cells": [text(&item, "/metadata/name"), age], "object": item})
        })
        .collect();
    serde_json::json!({
        "columnDefinitions": [{"name": "Name", "priority": 0}, {"name": "Age", "priority": 0}],
        "rows": rows, "metadata": answer["metadata"],
    })
}

fn append(whole: &mut Value, mut page: Value) {
    if whole.is_null() {
        *whole = page;
        return;
    }
    if let (Some(rows), Some(Value::Array(more))) =
        (whole.get_mut("rows").and_then(Value::as_array_mut), page.get_mut("rows").map(Value::take))
    {
        rows.extend(more);
    }
    whole["metadata"] = page["metadata"].take();
}

async fn watch(
    context: &Context,
    args: &GetArgs,
    printer: &Printer,
    selection: &Selection,
) -> anyhow::Result<()> {
    let mapping = &selection.mapping;
    if selection.names.len() > 1 {
        bail!("you may only watch a single resource by name");
    }
    let namespace = namespace_for(context, mapping, args.selectors.all_namespaces);
    let mut lines = TablePrinter::new(options(args, printer, mapping, false));
    let mut first = true;
    let mut call = list_call(args, mapping, namespace.as_deref());
    if let Some(name) = selection.names.first() {
        call = call.query("fieldSelector", format!("metadata.name={name}"));
    }
    if printer.prints_objects() {
        call = call.accept(crate::client::JSON);
    }
    let mut version = String::from("0");
    if let Some(name) = selection.names.first() {
        // An object that is not there is a failure, not something to wait for.
        context.rest.json(Call::get(mapping.object(namespace.as_deref(), name))).await?;
    }
    let listed = context.rest.json(call.clone()).await?;
    version.replace_range(.., text(&listed, "/metadata/resourceVersion"));
    if !args.watch_only {
        print_listed(printer, &mut lines, mapping, &listed, &mut first);
    }
    loop {
        let watch = call.clone().query("watch", "true").query("resourceVersion", version.as_str());
        let mut events = context.rest.watch(watch).await?;
        while let Some(event) = events.next().await {
            let event = event?;
            let kind = text(&event, "/type");
            let object = &event["object"];
            if kind == "ERROR" {
                return Err(failure::Failure::Status(Box::new(object.clone())).into());
            }
            let seen = if printer.prints_objects() {
                text(object, "/metadata/resourceVersion")
            } else {
                text(object, "/rows/0/object/metadata/resourceVersion")
            };
            if !seen.is_empty() {
                version = seen.to_owned();
            }
            if kind == "BOOKMARK" {
                continue;
            }
            if printer.prints_objects() {
                print_watched(printer, mapping, object, first);
                first = false;
            } else {
                crate::io::print(&lines.lines(object, kind));
            }
        }
        // The server ends a watch now and then; the next goes on where it stopped.
    }
}

fn print_listed(
    printer: &Printer,
    lines: &mut TablePrinter,
    mapping: &Mapping,
    listed: &Value,
    first: &mut bool,
) {
    if !printer.prints_objects() {
        if !list(listed, "/rows").is_empty() {
            crate::io::print(&lines.lines(listed, "ADDED"));
        }
        return;
    }
    for item in list(listed, "/items") {
        let mut item = item.clone();
        item["apiVersion"] = mapping.api_version().into();
        item["kind"] = mapping.kind.clone().into();
        print_watched(printer, mapping, &item, std::mem::take(first));
    }
}

fn print_watched(printer: &Printer, mapping: &Mapping, object: &Value, first: bool) {
    if matches!(printer.format, Format::Name) {
        crate::outln!("{}/{}", mapping.kind_name(), text(object, "/metadata/name"));
    } else {
        crate::io::print(&printer.next_object(object, first));
    }
}
