//! What a command works with: the connection, the resource types and the namespace.

use std::sync::Arc;

use keelson_client::kube;
use serde_json::Value;
use tokio::sync::OnceCell;

use crate::client::{Call, Rest};
use crate::kubeconfig::{self, Global};
use crate::mapper::{Mapper, Mapping};

pub struct Context {
    pub rest: Rest,
    /// The namespace by flag or from the kubeconfig.
    pub namespace: String,
    /// Whether it was given by flag.
    pub enforced: bool,
    config: kube::Config,
    mapper: OnceCell<Arc<Mapper>>,
}

impl Context {
    pub async fn connect(global: &Global) -> anyhow::Result<Context> {
        let config = global.config().await?;
        let server = config.cluster_url.clone();
        let client = kubeconfig::client(config.clone(), true)?;
        let namespace = global.namespace.clone().unwrap_or_else(|| config.default_namespace.clone());
        Ok(Context {
            rest: Rest::new(client, &server, global.timeout()?, global.verbosity),
            namespace: if namespace.is_empty() { "default".to_owned() } else { namespace },
            enforced: global.namespace.is_some(),
            config,
            mapper: OnceCell::new(),
        })
    }

    /// A client for exec, attach and port-forward.
    pub fn websockets(&self) -> anyhow::Result<kube::Client> {
        kubeconfig::client(self.config.clone(), false)
    }

    pub async fn mapper(&self) -> anyhow::Result<Arc<Mapper>> {
        let discover = || async { Mapper::discover(&self.rest).await.map(Arc::new) };
        self.mapper.get_or_try_init(discover).await.cloned()
    }

    /// A built-in kind by its plural name and group, such as `pods`, `deployments.apps`.
    pub async fn mapping(&self, word: &str) -> anyhow::Result<Arc<Mapping>> {
        self.mapper().await?.find(word)
    }

    pub async fn get(&self, mapping: &Mapping, namespace: Option<&str>, name: &str) -> anyhow::Result<Value> {
        self.rest.json(Call::get(mapping.object(namespace, name))).await
    }

    /// All objects of a type that selectors leave, page by page.
    pub async fn list(
        &self,
        mapping: &Mapping,
        namespace: Option<&str>,
        labels: &str,
        fields: &str,
    ) -> anyhow::Result<Vec<Value>> {
        let mut items: Vec<Value> = Vec::new();
        let mut next = String::new();
        loop {
            let call = Call::get(mapping.collection(namespace))
                .query("labelSelector", labels)
                .query("fieldSelector", fields)
                .query("limit", "500")
                .query("continue", next);
            let mut page = self.rest.json(call).await?;
            let (api_version, kind) = (mapping.api_version(), &mapping.kind);
            if let Some(Value::Array(page)) = page.get_mut("items").map(Value::take) {
                items.extend(page.into_iter().map(|mut item| {
                    // Members of a typed list carry no type of their own.
                    item["apiVersion"] = api_version.clone().into();
                    item["kind"] = kind.clone().into();
                    item
                }));
            }
            next = crate::value::text(&page, "/metadata/continue").to_owned();
            if next.is_empty() {
                return Ok(items);
            }
        }
    }

    /// Pods that a selector of the API's object form or map form picks.
    pub async fn pods(&self, namespace: &str, labels: &str, fields: &str) -> anyhow::Result<Vec<Value>> {
        let pods = self.mapping("pods").await?;
        self.list(&pods, Some(namespace), labels, fields).await
    }
}
