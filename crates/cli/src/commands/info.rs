//! What the server is and serves: `api-resources`, `api-versions`, `version`, `cluster-info`.

use anyhow::bail;
use clap::Args;
use serde_json::{Value, json};

use crate::client::Call;
use crate::context::Context;
use crate::mapper::Mapping;
use crate::tabs;
use crate::value::{list, number, text};

#[derive(Debug, Args)]
pub struct ApiResourcesArgs {
    /// Only of this API group
    #[arg(long)]
    api_group: Option<String>,
    /// Only with (true) or without (false) namespace
    #[arg(long, num_args = 0..=1, require_equals = true, default_missing_value = "true")]
    namespaced: Option<bool>,
    /// Only with these verbs
    #[arg(long, value_delimiter = ',')]
    verbs: Vec<String>,
    /// Only in these categories
    #[arg(long, value_delimiter = ',')]
    categories: Vec<String>,
    /// name or kind
    #[arg(long)]
    sort_by: Option<String>,
    /// name or wide
    #[arg(short = 'o', long)]
    output: Option<String>,
    #[arg(long)]
    no_headers: bool,
    /// Accepted for kubectl's sake; nothing is cached
    #[arg(long, hide = true)]
    cached: bool,
}

pub async fn api_resources(context: &Context, args: ApiResourcesArgs) -> anyhow::Result<()> {
    let mapper = context.mapper().await?;
    let mut shown: Vec<&Mapping> = Vec::new();
    for mapping in mapper.all() {
        let first = !shown.iter().any(|m| m.group == mapping.group && m.resource == mapping.resource);
        let group = args.api_group.as_ref().is_none_or(|g| *g == mapping.group);
        let scope = args.namespaced.is_none_or(|n| n == mapping.namespaced);
        let verbs = args.verbs.iter().all(|v| mapping.can(v));
        let categories = args.categories.iter().all(|c| mapping.categories.contains(c));
        if first && group && scope && verbs && categories && !mapping.verbs.is_empty() {
            shown.push(mapping);
        }
    }
    match args.sort_by.as_deref() {
        None => shown.sort_by(|a, b| (&a.group, &a.resource).cmp(&(&b.group, &b.resource))),
        Some("name") => shown.sort_by(|a, b| a.resource.cmp(&b.resource)),
        Some("kind") => shown.sort_by(|a, b| a.kind.cmp(&b.kind)),
        Some(_) => bail!("--sort-by accepts only name or kind"),
    }
    let wide = match args.output.as_deref() {
        None | Some("") => false,
        Some("wide") => true,
        Some("name") => {
            shown.iter().for_each(|m| crate::outln!("{}", m.resource_name()));
            return Ok(());
        }
        Some(other) => {
            bail!("--output {other} is not available in ctl api-resources: name or wide is expected")
        }
    };
    let mut lines = String::new();
    if !args.no_headers {
        lines += "NAME\tSHORTNAMES\tAPIVERSION\tNAMESPACED\tKIND";
        lines += if wide { "\tVERBS\tCATEGORIES\n" } else { "\n" };
    }
    for m in shown {
        lines += &format!(
            "{}\t{}\t{}\t{}\t{}",
            m.resource,
            m.short_names.join(","),
            m.api_version(),
            m.namespaced,
            m.kind
        );
        lines += &if wide {
            format!("\t{}\t{}\n", m.verbs.join(","), m.categories.join(","))
        } else {
            "\n".into()
        };
    }
    crate::io::print(&tabs::TABLE.align(&lines));
    Ok(())
}

pub async fn api_versions(context: &Context) -> anyhow::Result<()> {
    let mut versions = context.mapper().await?.api_versions.clone();
    versions.sort();
    versions.iter().for_each(|version| crate::outln!("{version}"));
    Ok(())
}

#[derive(Debug, Args)]
pub struct VersionArgs {
    /// Do not ask the server
    #[arg(long)]
    pub client: bool,
    /// json or yaml
    #[arg(short = 'o', long)]
    output: Option<String>,
}

/// This program's version alone, or with the server's.
pub async fn version(context: Option<&Context>, args: &VersionArgs) -> anyhow::Result<()> {
    let own = env!("CARGO_PKG_VERSION");
    let mut whole = json!({"clientVersion": {"gitVersion": format!("v{own}"), "platform": format!("{}/{}", std::env::consts::OS, std::env::consts::ARCH)}});
    let server = match context {
        Some(context) => Some(context.rest.json(Call::get("/version")).await?),
        None => None,
    };
    match args.output.as_deref() {
        None => {
            crate::outln!("Client Version: v{own}");
            if let Some(server) = &server {
                crate::outln!("Server Version: {}", text(server, "/gitVersion"));
            }
        }
        Some(format) => {
            if let Some(server) = server {
                whole["serverVersion"] = server;
            }
            match format {
                "json" => crate::outln!("{}", crate::value::go_json_pretty(&whole)),
                "yaml" => crate::io::print(&crate::yaml::to_string(&whole)),
                _ => bail!("--output must be 'yaml' or 'json'"),
            }
        }
    }
    Ok(())
}

pub async fn cluster_info(context: &Context) -> anyhow::Result<()> {
    crate::outln!("Kubernetes control plane is running at {}", context.rest.server());
    let services = context.mapping("services").await?;
    let labels = "kubernetes.io/cluster-service=true";
    for service in context.list(&services, Some("kube-system"), labels, "").await? {
        let name = match text(&service, "/metadata/labels/kubernetes.io~1name") {
            "" => text(&service, "/metadata/name"),
            name => name,
        };
        let port = list(&service, "/spec/ports").first().map(port_name).unwrap_or_default();
        let path = format!(
            "/api/v1/namespaces/kube-system/services/{}{port}/proxy",
            text(&service, "/metadata/name")
        );
        crate::outln!("{name} is running at {}{path}", context.rest.server());
    }
    crate::outln!("\nTo further debug and diagnose cluster problems, use 'ctl cluster status'.");
    Ok(())
}

fn port_name(port: &Value) -> String {
    match text(port, "/name") {
        "" => format!(":{}", number(port, "/port")),
        name => format!(":{name}"),
    }
}
