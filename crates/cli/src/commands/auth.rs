//! `ctl auth`: who one is and what one may do.

use anyhow::bail;
use clap::{Args, Subcommand};
use serde_json::{Value, json};

use crate::client::Call;
use crate::context::Context;
use crate::failure::Failure;
use crate::output::OutputArgs;
use crate::tabs;
use crate::value::{flag, list, map, text};

#[derive(Debug, Subcommand)]
pub enum AuthCommand {
    /// Whether an action is allowed
    CanI(CanIArgs),
    /// Who the server takes one for
    Whoami(WhoamiArgs),
}

#[derive(Debug, Args)]
pub struct CanIArgs {
    /// VERB TYPE, VERB TYPE/NAME or VERB /PATH
    words: Vec<String>,
    /// List all that is allowed
    #[arg(long)]
    list: bool,
    /// In any namespace
    #[arg(short = 'A', long)]
    all_namespaces: bool,
    /// Say it by the exit code alone
    #[arg(short = 'q', long)]
    quiet: bool,
    /// The subresource, such as log
    #[arg(long)]
    subresource: Option<String>,
    #[arg(long)]
    no_headers: bool,
}

#[derive(Debug, Args)]
pub struct WhoamiArgs {
    #[command(flatten)]
    output: OutputArgs,
}

pub async fn run(context: &Context, command: AuthCommand) -> anyhow::Result<()> {
    match command {
        AuthCommand::CanI(args) if args.list => rules(context, &args).await,
        AuthCommand::CanI(args) => can_i(context, args).await,
        AuthCommand::Whoami(args) => whoami(context, args).await,
    }
}

async fn can_i(context: &Context, args: CanIArgs) -> anyhow::Result<()> {
    let [verb, what, rest @ ..] = args.words.as_slice() else {
        bail!("you must specify two arguments: verb resource or verb resource/resourceName");
    };
    let namespace = if args.all_namespaces { "" } else { context.namespace.as_str() };
    let spec = if what.starts_with('/') {
        json!({"nonResourceAttributes": {"path": what, "verb": verb}})
    } else {
        let (kind, name) = what.split_once('/').unwrap_or((what, rest.first().map_or("", String::as_str)));
        let (group, resource, namespaced) = resource(context, kind).await;
        json!({"resourceAttributes": {
            "verb": verb, "group": group, "resource": resource, "name": name,
            "namespace": if namespaced { namespace } else { "" },
            "subresource": args.subresource.clone().unwrap_or_default(),
        }})
    };
    let review =
        json!({"apiVersion": "authorization.k8s.io/v1", "kind": "SelfSubjectAccessReview", "spec": spec});
    let path = "/apis/authorization.k8s.io/v1/selfsubjectaccessreviews";
    let answer = context.rest.json(Call::post(path, &review)).await?;
    let allowed = flag(&answer, "/status/allowed");
    if !args.quiet {
        let mut said = if allowed { "yes" } else { "no" }.to_owned();
        for (field, title) in [("reason", ""), ("evaluationError", "")] {
            let detail = text(&answer, &format!("/status/{field}"));
            if !detail.is_empty() && !allowed {
                said += &format!(" - {title}{detail}");
            }
        }
        crate::outln!("{said}");
    }
    if allowed { Ok(()) } else { Err(Failure::Exit(1).into()) }
}

/// What the server does not serve may still be in someone's rules.
async fn resource(context: &Context, word: &str) -> (String, String, bool) {
    if word == "*" {
        return ("*".to_owned(), "*".to_owned(), true);
    }
    match context.mapping(word).await {
        Ok(mapping) => {
            if !mapping.namespaced {
                eprintln!("Warning: resource '{}' is not namespace scoped\n", mapping.resource);
            }
            (mapping.group.clone(), mapping.resource.clone(), mapping.namespaced)
        }
        Err(_) => {
            eprintln!("Warning: the server doesn't have a resource type '{word}'\n");
            let (name, group) = word.split_once('.').unwrap_or((word, ""));
            (group.to_owned(), name.to_owned(), true)
        }
    }
}

async fn rules(context: &Context, args: &CanIArgs) -> anyhow::Result<()> {
    let review = json!({"apiVersion": "authorization.k8s.io/v1", "kind": "SelfSubjectRulesReview",
        "spec": {"namespace": context.namespace}});
    let path = "/apis/authorization.k8s.io/v1/selfsubjectrulesreviews";
    let answer = context.rest.json(Call::post(path, &review)).await?;
    let words = |rule: &Value, field: &str| {
        let items: Vec<&str> = list(rule, field).iter().filter_map(Value::as_str).collect();
        format!("[{}]", items.join(" "))
    };
    let mut lines = String::new();
    if !args.no_headers {
        lines += "Resources\tNon-Resource URLs\tResource Names\tVerbs\n";
    }
    for rule in list(&answer, "/status/resourceRules") {
        for group in list(rule, "/apiGroups").iter().filter_map(Value::as_str) {
            for resource in list(rule, "/resources").iter().filter_map(Value::as_str) {
                let name = crate::mapper::qualified(resource, group);
                lines +=
                    &format!("{name}\t[]\t{}\t{}\n", words(rule, "/resourceNames"), words(rule, "/verbs"));
            }
        }
    }
    for rule in list(&answer, "/status/nonResourceRules") {
        lines += &format!("\t{}\t[]\t{}\n", words(rule, "/nonResourceURLs"), words(rule, "/verbs"));
    }
    crate::io::print(&tabs::TABLE.align(&lines));
    Ok(())
}

async fn whoami(context: &Context, args: WhoamiArgs) -> anyhow::Result<()> {
    let review = json!({"apiVersion": "authentication.k8s.io/v1", "kind": "SelfSubjectReview"});
    let answer =
        context.rest.json(Call::post("/apis/authentication.k8s.io/v1/selfsubjectreviews", &review)).await?;
    let printer = args.output.printer()?;
    if printer.prints_objects() {
        crate::io::print(&printer.object(&answer));
        return Ok(());
    }
    let mut lines = "ATTRIBUTE\tVALUE\n".to_owned();
    let join = |items: &[Value]| {
        format!("[{}]", items.iter().filter_map(Value::as_str).collect::<Vec<_>>().join(" "))
    };
    for (title, field) in [("Username", "username"), ("UID", "uid")] {
        let value = text(&answer, &format!("/status/userInfo/{field}"));
        if !value.is_empty() {
            lines += &format!("{title}\t{value}\n");
        }
    }
    let groups = list(&answer, "/status/userInfo/groups");
    if !groups.is_empty() {
        lines += &format!("Groups\t{}\n", join(groups));
    }
    for (key, values) in map(&answer, "/status/userInfo/extra").into_iter().flatten() {
        lines +=
            &format!("Extra: {key}\t{}\n", join(values.as_array().map(Vec::as_slice).unwrap_or_default()));
    }
    crate::io::print(&tabs::TABLE.align(&lines));
    Ok(())
}
