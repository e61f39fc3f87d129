//! `ctl create deployment web --image=nginx` and its like.

use anyhow::{Context as _, bail};
use clap::{Args, Subcommand};
use serde_json::{Value, json};

use super::secrets::{self, ConfigMapArgs, SecretCommand};
use super::{CommonArgs, make, pairs};
use crate::client::Call;
use crate::context::Context;
use crate::value::set;

#[derive(Debug, Subcommand)]
pub enum Generator {
    /// Create a namespace
    #[command(visible_alias = "ns")]
    Namespace(NamedArgs),
    /// Create a service account
    #[command(visible_alias = "sa")]
    Serviceaccount(NamedArgs),
    /// Create a deployment
    #[command(visible_alias = "deploy")]
    Deployment(DeploymentArgs),
    /// Create a config map from files, folders or values
    #[command(visible_alias = "cm")]
    Configmap(ConfigMapArgs),
    /// Create a secret
    #[command(subcommand)]
    Secret(SecretCommand),
    /// Create a service
    #[command(subcommand, visible_alias = "svc")]
    Service(ServiceCommand),
    /// Create a role
    Role(RoleArgs),
    /// Create a cluster role
    Clusterrole(RoleArgs),
    /// Create a role binding
    Rolebinding(BindingArgs),
    /// Create a cluster role binding
    Clusterrolebinding(BindingArgs),
    /// Create a job
    Job(JobArgs),
    /// Create a cron job
    #[command(visible_alias = "cj")]
    Cronjob(CronJobArgs),
    /// Ask for a token of a service account
    Token(TokenArgs),
    /// Create a resource quota
    Quota(QuotaArgs),
    /// Create an ingress
    #[command(visible_alias = "ing")]
    Ingress(IngressArgs),
    /// Create a priority class
    #[command(visible_alias = "pc")]
    Priorityclass(PriorityClassArgs),
    /// Create a pod disruption budget
    #[command(visible_alias = "pdb")]
    Poddisruptionbudget(DisruptionArgs),
}

#[derive(Debug, Args)]
pub struct NamedArgs {
    name: String,
    #[command(flatten)]
    common: CommonArgs,
}

#[derive(Debug, Args)]
pub struct DeploymentArgs {
    name: String,
    /// Image to run; repeat it for several containers
    #[arg(long, required = true, value_delimiter = ',')]
    image: Vec<String>,
    #[arg(short = 'r', long, default_value_t = 1)]
    replicas: u32,
    /// Port that the container listens on
    #[arg(long)]
    port: Option<u16>,
    /// Command after --
    #[arg(last = true)]
    command: Vec<String>,
    #[command(flatten)]
    common: CommonArgs,
}

#[derive(Debug, Subcommand)]
pub enum ServiceCommand {
    /// Reachable inside the cluster
    Clusterip(ServiceArgs),
    /// Reachable at a port of every node
    Nodeport(ServiceArgs),
    /// Reachable through a load balancer
    Loadbalancer(ServiceArgs),
    /// A name for something outside
    Externalname(ServiceArgs),
}

#[derive(Debug, Args)]
pub struct ServiceArgs {
    name: String,
    /// PORT or PORT:TARGETPORT; repeat it for several
    #[arg(long, value_delimiter = ',')]
    tcp: Vec<String>,
    /// The address; None makes the Service headless
    #[arg(long)]
    clusterip: Option<String>,
    /// The port of the nodes
    #[arg(long)]
    node_port: Option<u16>,
    /// The name that an ExternalName Service stands for
    #[arg(long)]
    external_name: Option<String>,
    #[command(flatten)]
    common: CommonArgs,
}

#[derive(Debug, Args)]
pub struct RoleArgs {
    name: String,
    #[arg(long, value_delimiter = ',')]
    verb: Vec<String>,
    /// RESOURCE[.GROUP][/SUBRESOURCE]
    #[arg(long, value_delimiter = ',')]
    resource: Vec<String>,
    #[arg(long, value_delimiter = ',')]
    resource_name: Vec<String>,
    #[arg(long, value_delimiter = ',')]
    non_resource_url: Vec<String>,
    /// For cluster roles: labels of roles whose rules are joined
    #[arg(long)]
    aggregation_rule: Option<String>,
    #[command(flatten)]
    common: CommonArgs,
}

#[derive(Debug, Args)]
pub struct BindingArgs {
    name: String,
    #[arg(long)]
    role: Option<String>,
    #[arg(long)]
    clusterrole: Option<String>,
    #[arg(long = "user", value_delimiter = ',')]
    users: Vec<String>,
    #[arg(long, value_delimiter = ',')]
    group: Vec<String>,
    /// NAMESPACE:NAME
    #[arg(long, value_delimiter = ',')]
    serviceaccount: Vec<String>,
    #[command(flatten)]
    common: CommonArgs,
}

#[derive(Debug, Args)]
pub struct JobArgs {
    name: String,
    #[arg(long)]
    image: Option<String>,
    /// Take the pod from a cron job: cronjob/NAME
    #[arg(long)]
    from: Option<String>,
    #[arg(last = true)]
    command: Vec<String>,
    #[command(flatten)]
    common: CommonArgs,
}

#[derive(Debug, Args)]
pub struct CronJobArgs {
    name: String,
    #[arg(long)]
    image: String,
    /// When to run, such as "*/5 * * * *"
    #[arg(long)]
    schedule: String,
    /// OnFailure or Never
    #[arg(long, default_value = "OnFailure")]
    restart: String,
    #[arg(last = true)]
    command: Vec<String>,
    #[command(flatten)]
    common: CommonArgs,
}

#[derive(Debug, Args)]
pub struct TokenArgs {
    /// The service account
    name: String,
    #[arg(long, value_delimiter = ',')]
    audience: Vec<String>,
    /// How long it is to be valid, such as 10m
    #[arg(long)]
    duration: Option<String>,
    #[arg(long)]
    bound_object_kind: Option<String>,
    #[arg(long)]
    bound_object_name: Option<String>,
    #[arg(long)]
    bound_object_uid: Option<String>,
    #[arg(short = 'o', long)]
    output: Option<String>,
}

#[derive(Debug, Args)]
pub struct QuotaArgs {
    name: String,
    /// RESOURCE=QUANTITY, separated by commas
    #[arg(long, value_delimiter = ',')]
    hard: Vec<String>,
    #[arg(long, value_delimiter = ',')]
    scopes: Vec<String>,
    #[command(flatten)]
    common: CommonArgs,
}

#[derive(Debug, Args)]
pub struct IngressArgs {
    name: String,
    /// HOST/PATH=SERVICE:PORT[,tls[=SECRET]]; a path that ends in * is a prefix
    #[arg(long)]
    rule: Vec<String>,
    #[arg(long)]
    class: Option<String>,
    /// SERVICE:PORT for all other requests
    #[arg(long)]
    default_backend: Option<String>,
    /// KEY=VALUE; repeat it for several
    #[arg(long)]
    annotation: Vec<String>,
    #[command(flatten)]
    common: CommonArgs,
}

#[derive(Debug, Args)]
pub struct PriorityClassArgs {
    name: String,
    #[arg(long, allow_negative_numbers = true, default_value_t = 0)]
    value: i64,
    #[arg(long)]
    global_default: bool,
    #[arg(long)]
    description: Option<String>,
    #[arg(long, default_value = "PreemptLowerPriority")]
    preemption_policy: String,
    #[command(flatten)]
    common: CommonArgs,
}

#[derive(Debug, Args)]
pub struct DisruptionArgs {
    name: String,
    #[arg(long)]
    selector: String,
    #[arg(long)]
    min_available: Option<String>,
    #[arg(long)]
    max_unavailable: Option<String>,
    #[command(flatten)]
    common: CommonArgs,
}

pub async fn run(context: &Context, generator: Generator) -> anyhow::Result<()> {
    match generator {
        Generator::Namespace(args) => make(context, "namespaces", &args.name, &args.common, |_| Ok(())).await,
        Generator::Serviceaccount(args) => {
            make(context, "serviceaccounts", &args.name, &args.common, |_| Ok(())).await
        }
        Generator::Deployment(args) => deployment(context, args).await,
        Generator::Configmap(args) => secrets::config_map(context, args).await,
        Generator::Secret(command) => secrets::secret(context, command).await,
        Generator::Service(command) => service(context, command).await,
        Generator::Role(args) => role(context, "roles", args).await,
        Generator::Clusterrole(args) => role(context, "clusterroles", args).await,
        Generator::Rolebinding(args) => binding(context, "rolebindings", args).await,
        Generator::Clusterrolebinding(args) => binding(context, "clusterrolebindings", args).await,
        Generator::Job(args) => job(context, args).await,
        Generator::Cronjob(args) => cron_job(context, args).await,
        Generator::Token(args) => token(context, args).await,
        Generator::Quota(args) => {
            make(context, "resourcequotas", &args.name, &args.common, |object| {
                object["spec"] = json!({"hard": pairs(args.hard.iter().map(String::as_str))?});
                if !args.scopes.is_empty() {
                    object["spec"]["scopes"] = json!(args.scopes);
                }
                Ok(())
            })
            .await
        }
        Generator::Ingress(args) => ingress(context, args).await,
        Generator::Priorityclass(args) => {
            make(context, "priorityclasses", &args.name, &args.common, |object| {
                object["value"] = args.value.into();
                object["globalDefault"] = args.global_default.into();
                object["description"] = args.description.clone().unwrap_or_default().into();
                object["preemptionPolicy"] = args.preemption_policy.clone().into();
                Ok(())
            })
            .await
        }
        Generator::Poddisruptionbudget(args) => {
            make(context, "poddisruptionbudgets", &args.name, &args.common, |object| {
                let labels = pairs(args.selector.split(','))?;
                object["spec"] = json!({"selector": {"matchLabels": labels}});
                for (field, value) in
                    [("minAvailable", &args.min_available), ("maxUnavailable", &args.max_unavailable)]
                {
                    if let Some(value) = value {
                        object["spec"][field] =
                            value.parse::<i64>().map_or_else(|_| json!(value), |n| json!(n));
                    }
                }
                Ok(())
            })
            .await
        }
    }
}

/// What a container is called that runs an image: `docker.io/library/nginx:1` is `nginx`.
fn container_name(image: &str) -> String {
    let last = image.rsplit('/').next().unwrap_or(image);
    let name = last.split(['@', ':']).next().unwrap_or(last);
    name.chars().map(|c| if c.is_ascii_alphanumeric() { c.to_ascii_lowercase() } else { '-' }).collect()
}

async fn deployment(context: &Context, args: DeploymentArgs) -> anyhow::Result<()> {
    if args.image.len() > 1 && !args.command.is_empty() {
        bail!("cannot specify multiple --image options and command");
    }
    make(context, "deployments.apps", &args.name, &args.common, |object| {
        let mut containers: Vec<Value> =
            args.image.iter().map(|image| json!({"name": container_name(image), "image": image})).collect();
        if !args.command.is_empty() {
            containers[0]["command"] = json!(args.command);
        }
        if let Some(port) = args.port {
            containers[0]["ports"] = json!([{"containerPort": port}]);
        }
        set(object, &["metadata", "labels"], json!({"app": args.name}));
        object["spec"] = json!({
            "replicas": args.replicas,
            "selector": {"matchLabels": {"app": args.name}},
            "template": {"metadata": {"labels": {"app": args.name}}, "spec": {"containers": containers}},
        });
        Ok(())
    })
    .await
}

async fn service(context: &Context, command: ServiceCommand) -> anyhow::Result<()> {
    let (kind, args) = match command {
        ServiceCommand::Clusterip(args) => ("ClusterIP", args),
        ServiceCommand::Nodeport(args) => ("NodePort", args),
        ServiceCommand::Loadbalancer(args) => ("LoadBalancer", args),
        ServiceCommand::Externalname(args) => ("ExternalName", args),
    };
    let headless = args.clusterip.as_deref() == Some("None");
    if args.tcp.is_empty() && kind != "ExternalName" && !headless {
        bail!("at least one tcp port specifier must be provided");
    }
    make(context, "services", &args.name, &args.common, |object| {
        let mut ports = args.tcp.iter().map(|spec| service_port(spec)).collect::<anyhow::Result<Vec<_>>>()?;
        if let (Some(port), Some(first)) = (args.node_port, ports.first_mut()) {
            first["nodePort"] = port.into();
        }
        set(object, &["metadata", "labels"], json!({"app": args.name}));
        object["spec"] = json!({"type": kind, "selector": {"app": args.name}});
        if !ports.is_empty() {
            object["spec"]["ports"] = ports.into();
        }
        if let Some(address) = &args.clusterip {
            object["spec"]["clusterIP"] = address.clone().into();
        }
        if kind == "ExternalName" {
            let name = args.external_name.clone().context("required flag --external-name not set")?;
            object["spec"]["externalName"] = name.into();
        }
        Ok(())
    })
    .await
}

fn service_port(spec: &str) -> anyhow::Result<Value> {
    let (port, target) = spec.split_once(':').unwrap_or((spec, spec));
    let number: u16 = port.parse().with_context(|| format!("--tcp: {port:?} is no port"))?;
    let target = target.parse::<u16>().map_or_else(|_| json!(target), |n| json!(n));
    let name = spec.replace(':', "-");
    Ok(json!({"name": name, "port": number, "protocol": "TCP", "targetPort": target}))
}

async fn role(context: &Context, word: &str, args: RoleArgs) -> anyhow::Result<()> {
    let mut rules = Vec::new();
    if args.verb.is_empty() && args.aggregation_rule.is_none() {
        bail!("at least one verb must be specified");
    }
    let mut by_group: Vec<(String, Vec<String>)> = Vec::new();
    for resource in &args.resource {
        let (name, subresource) =
            resource.split_once('/').map_or((resource.as_str(), None), |(n, s)| (n, Some(s)));
        let (group, plural) = if name == "*" {
            ("*".to_owned(), "*".to_owned())
        } else {
            let mapping = context.mapping(name).await?;
            (mapping.group.clone(), mapping.resource.clone())
        };
        let full = subresource.map_or(plural.clone(), |s| format!("{plural}/{s}"));
        match by_group.iter_mut().find(|(g, _)| *g == group) {
            Some((_, resources)) => resources.push(full),
            None => by_group.push((group, vec![full])),
        }
    }
    for (group, resources) in by_group {
        let mut rule = json!({"apiGroups": [group], "resources": resources, "verbs": args.verb});
        if !args.resource_name.is_empty() {
            rule["resourceNames"] = json!(args.resource_name);
        }
        rules.push(rule);
    }
    if !args.non_resource_url.is_empty() {
        rules.push(json!({"nonResourceURLs": args.non_resource_url, "verbs": args.verb}));
    }
    if rules.is_empty() && args.aggregation_rule.is_none() {
        bail!("at least one resource must be specified");
    }
    make(context, word, &args.name, &args.common, |object| {
        object["rules"] = rules.into();
        if let Some(labels) = &args.aggregation_rule {
            let labels = pairs(labels.split(','))?;
            object["aggregationRule"] = json!({"clusterRoleSelectors": [{"matchLabels": labels}]});
        }
        Ok(())
    })
    .await
}

async fn binding(context: &Context, word: &str, args: BindingArgs) -> anyhow::Result<()> {
    const GROUP: &str = "rbac.authorization.k8s.io";
    let role = match (&args.role, &args.clusterrole) {
        (Some(role), None) => json!({"apiGroup": GROUP, "kind": "Role", "name": role}),
        (None, Some(role)) => json!({"apiGroup": GROUP, "kind": "ClusterRole", "name": role}),
        _ => bail!("exactly one of --role or --clusterrole must be specified"),
    };
    make(context, word, &args.name, &args.common, |object| {
        let mut subjects: Vec<Value> = Vec::new();
        subjects.extend(args.users.iter().map(|u| json!({"apiGroup": GROUP, "kind": "User", "name": u})));
        subjects.extend(args.group.iter().map(|g| json!({"apiGroup": GROUP, "kind": "Group", "name": g})));
        for account in &args.serviceaccount {
            let (namespace, name) =
                account.split_once(':').context("serviceaccount must be <namespace>:<name>")?;
            subjects.push(json!({"kind": "ServiceAccount", "namespace": namespace, "name": name}));
        }
        object["roleRef"] = role;
        object["subjects"] = subjects.into();
        Ok(())
    })
    .await
}

async fn job(context: &Context, args: JobArgs) -> anyhow::Result<()> {
    let mut annotations = json!({});
    let mut owner = Value::Null;
    let spec = match (&args.image, &args.from) {
        (Some(image), None) => {
            let mut container = json!({"name": args.name, "image": image});
            if !args.command.is_empty() {
                container["command"] = json!(args.command);
            }
            json!({"template": {"spec": {"containers": [container], "restartPolicy": "Never"}}})
        }
        (None, Some(from)) => {
            let name = from.strip_prefix("cronjob/").or_else(|| from.strip_prefix("cj/"));
            let name = name.context("from must be an existing cronjob: cronjob/NAME")?;
            let cron = context.mapping("cronjobs.batch").await?;
            let object = context.get(&cron, Some(&context.namespace), name).await?;
            annotations =
                object.pointer("/spec/jobTemplate/metadata/annotations").cloned().unwrap_or(json!({}));
            annotations["cronjob.kubernetes.io/instantiate"] = "manual".into();
            owner = json!([{"apiVersion": "batch/v1", "kind": "CronJob", "name": name,
                "uid": object.pointer("/metadata/uid"), "controller": true}]);
            object.pointer("/spec/jobTemplate/spec").cloned().unwrap_or_default()
        }
        _ => bail!("either --image or --from must be specified"),
    };
    make(context, "jobs.batch", &args.name, &args.common, |object| {
        if !owner.is_null() {
            set(object, &["metadata", "annotations"], annotations);
            set(object, &["metadata", "ownerReferences"], owner);
        }
        object["spec"] = spec;
        Ok(())
    })
    .await
}

async fn cron_job(context: &Context, args: CronJobArgs) -> anyhow::Result<()> {
    make(context, "cronjobs.batch", &args.name, &args.common, |object| {
        let mut container = json!({"name": args.name, "image": args.image});
        if !args.command.is_empty() {
            container["command"] = json!(args.command);
        }
        let pod = json!({"containers": [container], "restartPolicy": args.restart});
        object["spec"] = json!({"schedule": args.schedule,
            "jobTemplate": {"metadata": {"name": args.name}, "spec": {"template": {"spec": pod}}}});
        Ok(())
    })
    .await
}

async fn token(context: &Context, args: TokenArgs) -> anyhow::Result<()> {
    let mut spec = json!({});
    if !args.audience.is_empty() {
        spec["audiences"] = json!(args.audience);
    }
    if let Some(duration) = &args.duration {
        let nanos = keelson_api_types::duration::parse_go(duration)
            .with_context(|| format!("--duration: invalid duration {duration:?}"))?;
        spec["expirationSeconds"] = (nanos / 1_000_000_000).into();
    }
    if let Some(kind) = &args.bound_object_kind {
        spec["boundObjectRef"] = json!({"kind": kind, "apiVersion": "v1", "name": args.bound_object_name, "uid": args.bound_object_uid});
    }
    let request = json!({"apiVersion": "authentication.k8s.io/v1", "kind": "TokenRequest", "spec": spec});
    let path = format!("/api/v1/namespaces/{}/serviceaccounts/{}/token", context.namespace, args.name);
    let answer = context.rest.json(Call::post(path, &request)).await?;
    match args.output.as_deref() {
        Some("json") => crate::outln!("{}", crate::value::go_json_pretty(&answer)),
        Some("yaml") => crate::io::print(&crate::yaml::to_string(&answer)),
        _ => crate::outln!("{}", crate::value::text(&answer, "/status/token")),
    }
    Ok(())
}

async fn ingress(context: &Context, args: IngressArgs) -> anyhow::Result<()> {
    if args.rule.is_empty() && args.default_backend.is_none() {
        bail!(
            "not enough information provided: every ingress has to either specify a default-backend (which catches all traffic) or a list of rules (which catch specific paths)"
        );
    }
    make(context, "ingresses.networking.k8s.io", &args.name, &args.common, |object| {
        let (mut rules, mut tls): (Vec<Value>, Vec<Value>) = (Vec::new(), Vec::new());
        for rule in &args.rule {
            ingress_rule(rule, &mut rules, &mut tls)?;
        }
        object["spec"] = json!({});
        if !rules.is_empty() {
            object["spec"]["rules"] = rules.into();
        }
        if !tls.is_empty() {
            object["spec"]["tls"] = tls.into();
        }
        if let Some(class) = &args.class {
            object["spec"]["ingressClassName"] = class.clone().into();
        }
        if let Some(backend) = &args.default_backend {
            object["spec"]["defaultBackend"] = backend_of(backend)?;
        }
        if !args.annotation.is_empty() {
            set(
                object,
                &["metadata", "annotations"],
                pairs(args.annotation.iter().map(String::as_str))?.into(),
            );
        }
        Ok(())
    })
    .await
}

fn backend_of(text: &str) -> anyhow::Result<Value> {
    let (service, port) = text.split_once(':').context("a backend is SERVICE:PORT")?;
    let port = port.parse::<u16>().map_or_else(|_| json!({"name": port}), |n| json!({"number": n}));
    Ok(json!({"service": {"name": service, "port": port}}))
}

fn ingress_rule(rule: &str, rules: &mut Vec<Value>, tls: &mut Vec<Value>) -> anyhow::Result<()> {
    let mut parts = rule.split(',');
    let main = parts.next().unwrap_or_default();
    let (place, backend) =
        main.split_once('=').with_context(|| format!("rule {rule:?} is not HOST/PATH=SERVICE:PORT"))?;
    let (host, path) = place.split_once('/').unwrap_or((place, ""));
    let (path, kind) = match path.strip_suffix('*') {
        Some(prefix) => (format!("/{prefix}"), "Prefix"),
        None => (format!("/{path}"), "Exact"),
    };
    let http = json!({"path": path, "pathType": kind, "backend": backend_of(backend)?});
    match rules.iter_mut().find(|r| r["host"].as_str().unwrap_or_default() == host) {
        Some(known) => {
            if let Some(paths) = known["http"]["paths"].as_array_mut() {
                paths.push(http);
            }
        }
        None if host.is_empty() => rules.push(json!({"http": {"paths": [http]}})),
        None => rules.push(json!({"host": host, "http": {"paths": [http]}})),
    }
    for part in parts.filter(|p| *p == "tls" || p.starts_with("tls=")) {
        let mut entry = json!({});
        if !host.is_empty() {
            entry["hosts"] = json!([host]);
        }
        if let Some(secret) = part.strip_prefix("tls=").filter(|s| !s.is_empty()) {
            entry["secretName"] = secret.into();
        }
        tls.push(entry);
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn containers_are_named_after_their_image() {
        for (image, name) in [
            ("nginx", "nginx"),
            ("docker.io/library/nginx:1.2", "nginx"),
            ("a/b_c@sha256:1", "b-c"),
            ("host:5000/x:1", "x"),
        ] {
            assert_eq!(container_name(image), name);
        }
    }

    #[test]
    fn ports_and_rules_are_read() {
        assert_eq!(
            service_port("80:8080").expect("a port"),
            json!({"name": "80-8080", "port": 80, "protocol": "TCP", "targetPort": 8080})
        );
        assert_eq!(service_port("80:web").expect("a port")["targetPort"], json!("web"));
        let (mut rules, mut tls) = (Vec::new(), Vec::new());
        ingress_rule("a.com/x*=svc:80,tls=cert", &mut rules, &mut tls).expect("a rule");
        assert_eq!(rules[0]["http"]["paths"][0]["pathType"], "Prefix");
        assert_eq!(tls[0], json!({"hosts": ["a.com"], "secretName": "cert"}));
    }
}
