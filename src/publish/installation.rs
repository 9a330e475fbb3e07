//! Finds out if anything was published yet: a first installation need not wait for a former holder
//! of the Lease.

use std::collections::BTreeSet;
use std::fmt::Debug;

use futures::{StreamExt, TryStreamExt, stream};
use k8s_openapi::NamespaceResourceScope;
use k8s_openapi::api::core::v1::{Endpoints, Service};
use k8s_openapi::api::discovery::v1::EndpointSlice;
use kube::api::ListParams;
use kube::{Api, Client, Resource};
use serde::de::DeserializeOwned;
use tokio::sync::watch;

use super::cache::observed::{Existing, Observed};
use super::cache::orphans::ObjectKind;
use super::ownership;
use crate::api;
use crate::endpoints::{self, slices};
use crate::lease::Installation;

/// Namespaces that are read at once.
const MAX_CONCURRENT: usize = 8;

/// Finds out if any of these Endpoints have addresses, or anything in these namespaces bears our
/// label.
pub(crate) async fn find(
    client: Client,
    observed: Vec<watch::Receiver<Observed>>,
    namespaces: BTreeSet<String>,
) -> Result<Installation, String> {
    for mut observed in observed {
        if serves(&mut observed).await {
            return Ok(Installation::Existing);
        }
    }
    read(client, namespaces).await
}

/// Returns whether Endpoints have addresses, as soon as they have been listed or can't be.
async fn serves(observed: &mut watch::Receiver<Observed>) -> bool {
    let is_known = |observed: &Observed| {
        let existing = Existing::from(observed);
        let watch = existing.watch(ObjectKind::Endpoints);
        watch.synced || watch.error.is_some()
    };
    let Ok(observed) = observed.wait_for(is_known).await else { return false };
    let object = observed.endpoints.object.as_ref();
    object.is_some_and(|endpoints| !endpoints::members(endpoints).is_empty())
}

/// Reads from the API whether anything in these namespaces bears our label. A list that names no
/// version is as new as the call.
async fn read(client: Client, namespaces: BTreeSet<String>) -> Result<Installation, String> {
    let mut found = stream::iter(namespaces)
        .map(|namespace| {
            let client = client.clone();
            async move {
                Ok::<_, String>(
                    has::<Endpoints>(&client, &namespace, endpoints::MANAGED_BY).await?
                        || has::<EndpointSlice>(&client, &namespace, slices::MANAGED_BY).await?
                        || has::<Service>(&client, &namespace, ownership::MANAGED_BY).await?,
                )
            }
        })
        .buffer_unordered(MAX_CONCURRENT);
    while let Some(found) = found.try_next().await? {
        if found {
            return Ok(Installation::Existing);
        }
    }
    Ok(Installation::New)
}

async fn has<K>(client: &Client, namespace: &str, label: &str) -> Result<bool, String>
where
    K: Resource<Scope = NamespaceResourceScope, DynamicType = ()>
        + Clone
        + Debug
        + DeserializeOwned,
{
    let api: Api<K> = Api::namespaced(client.clone(), namespace);
    let params =
        ListParams::default().labels(&format!("{label}={}", endpoints::FIELD_MANAGER)).limit(1);
    let list = api.list_metadata(&params).await;
    list.map(|list| !list.items.is_empty()).map_err(|error| {
        format!("list {} in {namespace}: {}", K::plural(&()), api::error_message(&error))
    })
}

#[cfg(test)]
mod tests {
    use std::sync::Arc;

    use futures::FutureExt as _;

    use super::*;
    use crate::publish::cache::watch_state::NamespaceWatches;
    use crate::publish::decide::next_step::tests::theirs;

    #[test]
    fn endpoints_are_waited_for_until_they_are_listed() {
        for (addresses, expected) in [(&[1][..], true), (&[], false)] {
            let watches = Arc::new(NamespaceWatches::default());
            let (cache, mut observed) = watch::channel(Observed::new(watches.clone()));
            let mut serves = Box::pin(serves(&mut observed));
            assert_eq!(serves.as_mut().now_or_never(), None);
            watches.begin_list(ObjectKind::Endpoints);
            watches.complete_list(ObjectKind::Endpoints);
            cache.send_modify(|observed| {
                observed.endpoints.object = Some(Arc::new(theirs(addresses, None)));
            });
            assert_eq!(serves.as_mut().now_or_never(), Some(expected));
        }
    }
}
