//! Reads the objects to import: from the cluster, or from manifests.

use std::path::Path;

use anyhow::{anyhow, bail};
use k8s_openapi::NamespaceResourceScope;
use k8s_openapi::api::core::v1::{Endpoints, Service};
use k8s_openapi::api::discovery::v1::EndpointSlice;
use kube::api::{ApiResource, DynamicObject, ListParams};
use kube::core::GroupVersionKind;
use kube::{Api, Resource};
use serde::de::DeserializeOwned;
use serde_json::Value;

use super::endpoints::Objects;
use crate::api::{ApiError, Call, ErrorKind};
use crate::cli::cluster::{Cluster, Namespaces};
use crate::config::{self, ReadError};

/// The objects in one page of a list.
const PAGE_SIZE: u32 = 500;

/// A kind of custom resource.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct CustomKind {
    pub(super) kind: &'static str,
    pub(super) plural: &'static str,
    pub(super) version: &'static str,
    /// The groups that have had it.
    pub(super) groups: &'static [&'static str],
}

/// Reads the Services, Endpoints and EndpointSlices of the cluster.
pub(super) async fn cluster_objects(
    cluster: &Cluster,
    namespaces: &Namespaces,
) -> Result<Objects, ApiError> {
    Ok(Objects {
        services: list::<Service>(cluster, namespaces).await?,
        endpoints: list::<Endpoints>(cluster, namespaces).await?,
        slices: list::<EndpointSlice>(cluster, namespaces).await?,
    })
}

async fn list<K>(cluster: &Cluster, namespaces: &Namespaces) -> Result<Vec<K>, ApiError>
where
    K: Resource<Scope = NamespaceResourceScope, DynamicType = ()>
        + Clone
        + std::fmt::Debug
        + DeserializeOwned,
{
    let client = cluster.client.clone();
    let (api, namespace): (Api<K>, &str) = match namespaces {
        Namespaces::All => (Api::all(client), ""),
        Namespaces::One(namespace) => (Api::namespaced(client, namespace), namespace),
    };
    list_all(cluster, &api, &K::plural(&()), namespace).await
}

/// Reads all pages of a list.
async fn list_all<K>(
    cluster: &Cluster,
    api: &Api<K>,
    plural: &str,
    namespace: &str,
) -> Result<Vec<K>, ApiError>
where
    K: Clone + std::fmt::Debug + DeserializeOwned,
{
    let call = Call { verb: "list", plural, namespace, name: None };
    let mut params = ListParams::default().limit(PAGE_SIZE);
    let mut all = Vec::new();
    loop {
        let page = cluster.call(call, api.list(&params)).await?;
        all.extend(page.items);
        match page.metadata.continue_.filter(|token| !token.is_empty()) {
            Some(token) => params = params.continue_token(&token),
            None => return Ok(all),
        }
    }
}

/// Reads the objects of a custom resource from the cluster, in all groups that have had it.
pub(super) async fn cluster_custom_objects(
    cluster: &Cluster,
    namespaces: &Namespaces,
    kind: CustomKind,
) -> anyhow::Result<Vec<Value>> {
    let mut objects = Vec::new();
    let mut is_known = false;
    for group in kind.groups {
        let gvk = GroupVersionKind::gvk(group, kind.version, kind.kind);
        let resource = ApiResource::from_gvk_with_plural(&gvk, kind.plural);
        let client = cluster.client.clone();
        let (api, namespace): (Api<DynamicObject>, &str) = match namespaces {
            Namespaces::All => (Api::all_with(client, &resource), ""),
            Namespaces::One(namespace) => {
                (Api::namespaced_with(client, namespace, &resource), namespace)
            }
        };
        match list_all(cluster, &api, kind.plural, namespace).await {
            Ok(page) => {
                is_known = true;
                for object in page {
                    objects.push(serde_json::to_value(&object)?);
                }
            }
            // The cluster does not have this group.
            Err(error) if error.kind == ErrorKind::NotFound => {}
            Err(error) => return Err(error.into()),
        }
    }
    if !is_known {
        bail!("the cluster has no {} ({})", kind.plural, kind.groups.join(", "));
    }
    Ok(objects)
}

/// Reads the documents of a file, and the items of its lists. `-` is standard input.
pub(super) fn documents(path: &Path) -> anyhow::Result<Vec<Value>> {
    let text = text(path)?;
    let parsed: Vec<Value> = serde_saphyr::from_multiple(&text)
        .map_err(|error| anyhow!("{}: {error}", path.display()))?;
    let items = |document: Value| match document {
        Value::Object(mut list) if is_list(&list) => match list.remove("items") {
            Some(Value::Array(items)) => items,
            _ => Vec::new(),
        },
        Value::Null => Vec::new(),
        other => vec![other],
    };
    Ok(parsed.into_iter().flat_map(items).collect())
}

fn is_list(object: &serde_json::Map<String, Value>) -> bool {
    let kind = object.get("kind").and_then(Value::as_str);
    kind.is_some_and(|kind| kind.ends_with("List")) && object.contains_key("items")
}

/// Reads a file as text. `-` is standard input.
pub(super) fn text(path: &Path) -> anyhow::Result<String> {
    let path = if path == Path::new("-") { Path::new("/dev/stdin") } else { path };
    let name = path.display();
    let bytes = config::read_file(path).map_err(|error| match error {
        ReadError::TooLarge => anyhow!("{name}: is larger than 10 MiB; import it in parts"),
        other => anyhow!("{name}: {other}"),
    })?;
    let text = String::from_utf8(bytes)
        .map_err(|_| anyhow!("{name}: is not UTF-8; save the file as UTF-8"))?;
    // A file from Windows may begin with a byte order mark, which is not part of the text.
    Ok(text.strip_prefix('\u{feff}').map(str::to_owned).unwrap_or(text))
}

/// Returns the objects of a kind among the documents of a file.
pub(super) fn of_kind<'a>(documents: &'a [Value], kind: &str) -> Vec<&'a Value> {
    documents.iter().filter(|document| document["kind"] == kind).collect()
}

/// Reads the Services, Endpoints and EndpointSlices among the documents of a file. `namespace` is
/// for objects that name none.
pub(super) fn objects(documents: &[Value], namespace: &str) -> anyhow::Result<Objects> {
    Ok(Objects {
        services: typed(documents, "Service", namespace)?,
        endpoints: typed(documents, "Endpoints", namespace)?,
        slices: typed(documents, "EndpointSlice", namespace)?,
    })
}

fn typed<K>(documents: &[Value], kind: &str, namespace: &str) -> anyhow::Result<Vec<K>>
where
    K: Resource<DynamicType = ()> + DeserializeOwned,
{
    let read = |document: &Value| {
        let name = document["metadata"]["name"].as_str().unwrap_or_default();
        let mut object =
            K::deserialize(document).map_err(|error| anyhow!("{kind} {name}: {error}"))?;
        object.meta_mut().namespace.get_or_insert_with(|| namespace.to_owned());
        Ok(object)
    };
    of_kind(documents, kind).into_iter().map(read).collect()
}
