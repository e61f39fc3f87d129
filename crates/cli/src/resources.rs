//! Which objects a command is about: `TYPE NAME…`, `TYPE/NAME…`, `TYPE,TYPE -l …`, `-f FILE`.

use std::sync::Arc;

use anyhow::bail;
use clap::Args;
use serde_json::Value;

use crate::context::Context;
use crate::failure;
use crate::files::FileArgs;
use crate::mapper::{Mapper, Mapping};
use crate::value::text;

/// Selectors, as most commands take them.
#[derive(Debug, Clone, Default, Args)]
pub struct SelectorArgs {
    /// Label selector, such as app=web,tier!=db
    #[arg(short = 'l', long)]
    pub selector: Option<String>,
    /// Field selector, such as status.phase=Running
    #[arg(long)]
    pub field_selector: Option<String>,
    /// Objects of all namespaces
    #[arg(short = 'A', long)]
    pub all_namespaces: bool,
}

impl SelectorArgs {
    pub fn labels(&self) -> &str {
        self.selector.as_deref().unwrap_or_default()
    }

    pub fn fields(&self) -> &str {
        self.field_selector.as_deref().unwrap_or_default()
    }
}

/// One type with the names wanted of it; no names mean all.
#[derive(Clone, Debug, PartialEq)]
pub struct Selection {
    pub mapping: Arc<Mapping>,
    pub names: Vec<String>,
}

/// An object found.
#[derive(Clone, Debug)]
pub struct Found {
    pub mapping: Arc<Mapping>,
    pub namespace: Option<String>,
    pub name: String,
    pub object: Value,
    /// The file it was named in.
    pub source: Option<String>,
}

impl Found {
    pub fn new(mapping: Arc<Mapping>, object: Value) -> Found {
        let namespace = Some(text(&object, "/metadata/namespace").to_owned()).filter(|n| !n.is_empty());
        let name = text(&object, "/metadata/name").to_owned();
        Found { mapping, namespace, name, object, source: None }
    }

    pub fn path(&self) -> String {
        self.mapping.object(self.namespace.as_deref(), &self.name)
    }

    /// `deployment.apps/web`.
    pub fn label(&self) -> String {
        format!("{}/{}", self.mapping.kind_name(), self.name)
    }
}

/// Reads the words after a command.
pub fn parse(mapper: &Mapper, words: &[String]) -> anyhow::Result<Vec<Selection>> {
    let slashed = words.iter().filter(|w| w.contains('/')).count();
    if slashed > 0 {
        if !words[0].contains('/') {
            bail!(
                "there is no need to specify a resource type as a separate argument when passing arguments in resource/name form (e.g. 'ctl get resource/<resource_name>' instead of 'ctl get resource resource/<resource_name>'"
            );
        }
        return words.iter().map(|word| slash_form(mapper, word)).collect();
    }
    let Some((types, names)) = words.split_first() else { return Ok(Vec::new()) };
    let mut selections: Vec<Selection> = Vec::new();
    for word in types.split(',').filter(|w| !w.is_empty()) {
        let members = mapper.category(word);
        let mappings = if members.is_empty() { vec![mapper.find(word)?] } else { members };
        for mapping in mappings {
            if !selections.iter().any(|s| s.mapping == mapping) {
                selections.push(Selection { mapping, names: names.to_vec() });
            }
        }
    }
    Ok(selections)
}

fn slash_form(mapper: &Mapper, word: &str) -> anyhow::Result<Selection> {
    match word.split_once('/') {
        Some((kind, name)) if !kind.is_empty() && !name.is_empty() && !name.contains('/') => {
            Ok(Selection { mapping: mapper.find(kind)?, names: vec![name.to_owned()] })
        }
        Some(_) => bail!("arguments in resource/name form may not have more than one slash"),
        None => bail!(
            "there is no need to specify a resource type as a separate argument when passing arguments in resource/name form: {word:?} has no slash"
        ),
    }
}

/// What a command that works on existing objects was given.
pub struct Wanted<'a> {
    pub words: &'a [String],
    pub files: &'a FileArgs,
    pub selectors: &'a SelectorArgs,
    /// Whether a type without names and selector means all of its objects.
    pub all: bool,
}

impl Wanted<'_> {
    /// Finds the objects; what is missing is said at the end, beside what was found.
    pub async fn find(&self, context: &Context) -> anyhow::Result<(Vec<Found>, Vec<anyhow::Error>)> {
        if !self.files.is_empty() {
            if !self.words.is_empty() {
                bail!("when paths are provided as input, no resource arguments may be given besides -f");
            }
            return self.read_files(context).await;
        }
        if self.words.is_empty() {
            bail!(
                "You must provide one or more resources by argument or filename: TYPE NAME, TYPE/NAME, TYPE -l SELECTOR or -f FILE"
            );
        }
        let mapper = context.mapper().await?;
        let (mut found, mut errors) = (Vec::new(), Vec::new());
        for selection in parse(&mapper, self.words)? {
            match self.resolve(context, &selection).await {
                Ok((some, failed)) => {
                    found.extend(some);
                    errors.extend(failed);
                }
                Err(error) => errors.push(error),
            }
        }
        Ok((found, errors))
    }

    /// As [`Wanted::find`], where anything missing is a failure at once.
    pub async fn find_all(&self, context: &Context) -> anyhow::Result<Vec<Found>> {
        let (found, errors) = self.find(context).await?;
        failure::all(errors)?;
        Ok(found)
    }

    async fn resolve(
        &self,
        context: &Context,
        selection: &Selection,
    ) -> anyhow::Result<(Vec<Found>, Vec<anyhow::Error>)> {
        let mapping = &selection.mapping;
        let namespace = namespace_for(context, mapping, self.selectors.all_namespaces);
        let (labels, fields) = (self.selectors.labels(), self.selectors.fields());
        if selection.names.is_empty() {
            if !self.all && labels.is_empty() && fields.is_empty() {
                bail!("resource(s) were provided, but no name was specified");
            }
            let items = context.list(mapping, namespace.as_deref(), labels, fields).await?;
            return Ok((items.into_iter().map(|o| Found::new(mapping.clone(), o)).collect(), Vec::new()));
        }
        if !labels.is_empty() {
            bail!("name cannot be provided when a selector is specified");
        }
        if self.selectors.all_namespaces && mapping.namespaced {
            bail!("a resource cannot be retrieved by name across all namespaces");
        }
        let (mut found, mut errors) = (Vec::new(), Vec::new());
        for name in &selection.names {
            match context.get(mapping, namespace.as_deref(), name).await {
                Ok(object) => found.push(Found::new(mapping.clone(), object)),
                Err(error) => errors.push(error),
            }
        }
        Ok((found, errors))
    }

    async fn read_files(&self, context: &Context) -> anyhow::Result<(Vec<Found>, Vec<anyhow::Error>)> {
        let (mut found, mut errors) = (Vec::new(), Vec::new());
        for wanted in from_files(context, self.files).await? {
            match context.get(&wanted.mapping, wanted.namespace.as_deref(), &wanted.name).await {
                Ok(object) => found.push(Found { object, ..wanted }),
                Err(error) => errors.push(error),
            }
        }
        Ok((found, errors))
    }
}

/// The namespace to ask in; None for cluster-scoped types and for all namespaces.
pub fn namespace_for(context: &Context, mapping: &Mapping, all: bool) -> Option<String> {
    (mapping.namespaced && !all).then(|| context.namespace.clone())
}

/// The objects of files as they are written there, each with its namespace filled in.
pub async fn from_files(context: &Context, files: &FileArgs) -> anyhow::Result<Vec<Found>> {
    let loaded = files.load()?;
    let mapper = context.mapper().await?;
    let mut found = Vec::new();
    for one in loaded {
        let mapping = mapper
            .for_object(&one.object)
            .map_err(|error| anyhow::anyhow!("unable to recognize {:?}: {error}", one.source))?;
        let mut object = one.object;
        settle_namespace(context, &mapping, &mut object)?;
        found.push(Found { source: Some(one.source), ..Found::new(mapping, object) });
    }
    Ok(found)
}

/// Gives an object the namespace of the command if it has none, and refuses another than the one demanded.
pub fn settle_namespace(context: &Context, mapping: &Mapping, object: &mut Value) -> anyhow::Result<()> {
    if !mapping.namespaced {
        return Ok(());
    }
    let present = text(object, "/metadata/namespace").to_owned();
    if present.is_empty() {
        crate::value::set(object, &["metadata", "namespace"], context.namespace.clone().into());
    } else if context.enforced && present != context.namespace {
        bail!(
            "the namespace from the provided object {present:?} does not match the namespace {:?}. You must pass '--namespace={present}' to perform this operation.",
            context.namespace
        );
    }
    Ok(())
}
