//! `ctl events`.

use clap::Args;
use futures::StreamExt;
use serde_json::Value;

use crate::client::Call;
use crate::context::Context;
use crate::describe::{event_age, last_seen};
use crate::output::{OutputArgs, list_of};
use crate::tabs;
use crate::value::text;

#[derive(Debug, Args)]
pub struct EventsArgs {
    /// Events of all namespaces
    #[arg(short = 'A', long)]
    all_namespaces: bool,
    /// Only of this object: TYPE/NAME
    #[arg(long = "for")]
    object: Option<String>,
    /// Only of these types, such as Warning
    #[arg(long, value_delimiter = ',')]
    types: Vec<String>,
    /// Go on as events come
    #[arg(short = 'w', long)]
    watch: bool,
    /// Leave the header out
    #[arg(long)]
    no_headers: bool,
    #[command(flatten)]
    output: OutputArgs,
}

pub async fn run(context: &Context, args: EventsArgs) -> anyhow::Result<()> {
    let printer = args.output.printer()?;
    let mapping = context.mapping("events").await?;
    let namespace = (!args.all_namespaces).then_some(context.namespace.as_str());
    let fields = match &args.object {
        None => String::new(),
        Some(word) => {
            let words = [word.clone()];
            let selections = crate::resources::parse(&*context.mapper().await?, &words)?;
            let selection = selections.first();
            let kind = selection.map(|s| s.mapping.kind.clone()).unwrap_or_default();
            let name = selection.and_then(|s| s.names.first().cloned()).unwrap_or_default();
            format!("involvedObject.kind={kind},involvedObject.name={name}")
        }
    };
    let wanted = |event: &Value| {
        args.types.is_empty() || args.types.iter().any(|t| t.eq_ignore_ascii_case(text(event, "/type")))
    };
    let call = Call::get(mapping.collection(namespace)).query("fieldSelector", fields.as_str());
    let version = match args.watch {
        true => {
            text(&context.rest.json(call.clone().query("limit", "1")).await?, "/metadata/resourceVersion")
                .to_owned()
        }
        false => String::new(),
    };
    let mut events = context.list(&mapping, namespace, "", &fields).await?;
    events.retain(wanted);
    events.sort_by_key(|event| last_seen(event).to_owned());
    if printer.prints_objects() {
        crate::io::print(&printer.object(&list_of(events)));
        return Ok(());
    }
    if events.is_empty() && !args.watch {
        match namespace {
            Some(namespace) => eprintln!("No events found in {namespace} namespace."),
            None => eprintln!("No events found."),
        }
        return Ok(());
    }
    let mut lines = String::new();
    if !args.no_headers {
        let place = if args.all_namespaces { "NAMESPACE\t" } else { "" };
        lines += &format!("{place}LAST SEEN\tTYPE\tREASON\tOBJECT\tMESSAGE\n");
    }
    events.iter().for_each(|event| lines += &line(event, args.all_namespaces));
    crate::io::print(&tabs::TABLE.align(&lines));
    if args.watch {
        let mut coming =
            context.rest.watch(call.query("watch", "true").query("resourceVersion", version)).await?;
        while let Some(event) = coming.next().await {
            let event = event?;
            if text(&event, "/type") != "DELETED" && wanted(&event["object"]) {
                crate::io::print(&tabs::TABLE.align(&line(&event["object"], args.all_namespaces)));
            }
        }
    }
    Ok(())
}

fn line(event: &Value, with_namespace: bool) -> String {
    let place = match with_namespace {
        true => format!("{}\t", text(event, "/metadata/namespace")),
        false => String::new(),
    };
    format!(
        "{place}{}\t{}\t{}\t{}/{}\t{}\n",
        event_age(event),
        text(event, "/type"),
        text(event, "/reason"),
        text(event, "/involvedObject/kind"),
        text(event, "/involvedObject/name"),
        text(event, "/message").trim().replace(['\n', '\t'], " ")
    )
}
