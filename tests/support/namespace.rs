//! A Kubernetes namespace for one test, with functions for its objects.

use std::fmt::Debug;
use std::net::IpAddr;
use std::sync::atomic::{AtomicU32, Ordering};

use k8s_openapi::NamespaceResourceScope;
use k8s_openapi::api::authentication::v1::{TokenRequest, TokenRequestSpec};
use k8s_openapi::api::core::v1::{Endpoints, Namespace as KubeNamespace, Service, ServiceAccount};
use k8s_openapi::api::discovery::v1::EndpointSlice;
use kube::api::{Api, DeleteParams, ListParams, PostParams};
use kube::{Resource, ResourceExt as _};
use serde::Serialize;
use serde::de::DeserializeOwned;
use serde_json::json;

#[derive(Clone)]
pub(crate) struct Namespace {
    pub name: String,
    pub client: kube::Client,
}

impl Namespace {
    pub(crate) async fn create(client: kube::Client, prefix: &str) -> Namespace {
        static CREATED: AtomicU32 = AtomicU32::new(0);
        let name = format!("{prefix}-{}", CREATED.fetch_add(1, Ordering::Relaxed));
        let all: Api<KubeNamespace> = Api::all(client.clone());
        let object = object(json!({"metadata": {"name": name}}));
        all.create(&PostParams::default(), &object)
            .await
            .unwrap_or_else(|error| panic!("creating namespace {name}: {error}"));
        Namespace { name, client }
    }

    /// Returns the API of one kind in this namespace.
    pub(crate) fn api<K>(&self) -> Api<K>
    where
        K: Resource<Scope = NamespaceResourceScope, DynamicType = ()>,
    {
        Api::namespaced(self.client.clone(), &self.name)
    }

    /// Creates a Service without a selector and with a ClusterIP. An empty port name means no name.
    pub(crate) async fn create_service(&self, name: &str, ports: &[(&str, u16)]) -> Service {
        self.create_object(
            json!({"metadata": {"name": name}, "spec": {"ports": service_ports(ports)}}),
        )
        .await
    }

    /// Creates a Service without a selector and without a ClusterIP.
    pub(crate) async fn create_headless_service(
        &self,
        name: &str,
        ports: &[(&str, u16)],
    ) -> Service {
        let spec = json!({"ports": service_ports(ports), "clusterIP": "None"});
        self.create_object(json!({"metadata": {"name": name}, "spec": spec})).await
    }

    /// Creates Endpoints as a person without this daemon does. An empty port name means no name.
    pub(crate) async fn create_endpoints(
        &self,
        name: &str,
        ips: &[IpAddr],
        ports: &[(&str, u16)],
    ) -> Endpoints {
        let addresses: Vec<_> = ips.iter().map(|ip| json!({"ip": ip})).collect();
        let subsets = json!([{"addresses": addresses, "ports": service_ports(ports)}]);
        self.create_object(json!({"metadata": {"name": name}, "subsets": subsets})).await
    }

    /// Creates any namespaced object from its JSON.
    pub(crate) async fn create_object<K>(&self, value: serde_json::Value) -> K
    where
        K: Resource<Scope = NamespaceResourceScope, DynamicType = ()>
            + Clone
            + DeserializeOwned
            + Serialize
            + Debug,
    {
        let object: K = object(value);
        self.api().create(&PostParams::default(), &object).await.unwrap_or_else(|error| {
            panic!("creating {} {}/{}: {error}", K::kind(&()), self.name, object.name_any())
        })
    }

    /// Deletes an existing object.
    pub(crate) async fn delete<K>(&self, name: &str)
    where
        K: Resource<Scope = NamespaceResourceScope, DynamicType = ()>
            + Clone
            + DeserializeOwned
            + Debug,
    {
        self.api::<K>().delete(name, &DeleteParams::default()).await.unwrap_or_else(|error| {
            panic!("deleting {} {}/{name}: {error}", K::kind(&()), self.name)
        });
    }

    /// Returns the address that clients of a Service connect to.
    pub(crate) async fn cluster_ip(&self, name: &str) -> IpAddr {
        let service = self.api::<Service>().get(name).await.expect("a Service");
        let spec = service.spec.unwrap_or_default();
        let ip = spec.cluster_ip.expect("a ClusterIP");
        ip.parse().unwrap_or_else(|_| panic!("Service {name} has ClusterIP {ip}"))
    }

    pub(crate) async fn endpoints(&self, name: &str) -> Option<Endpoints> {
        self.api().get_opt(name).await.expect("reading Endpoints")
    }

    /// Returns the ready addresses of the Endpoints in their order. The list is empty if there are
    /// no Endpoints.
    pub(crate) async fn endpoint_ips(&self, name: &str) -> Vec<String> {
        let endpoints = self.endpoints(name).await.unwrap_or_default();
        let subsets = endpoints.subsets.unwrap_or_default();
        let addresses = subsets.into_iter().flat_map(|subset| subset.addresses.unwrap_or_default());
        addresses.map(|address| address.ip).collect()
    }

    /// Returns the version of the Endpoints, which every write changes, or none if there are no
    /// Endpoints.
    pub(crate) async fn resource_version(&self, name: &str) -> Option<String> {
        self.endpoints(name).await.and_then(|endpoints| endpoints.resource_version())
    }

    /// Returns all EndpointSlices of a Service.
    pub(crate) async fn slices(&self, service: &str) -> Vec<EndpointSlice> {
        let of_service =
            ListParams::default().labels(&format!("kubernetes.io/service-name={service}"));
        let list = self.api::<EndpointSlice>().list(&of_service).await;
        list.expect("listing EndpointSlices").items
    }

    /// Returns the ready addresses in all EndpointSlices of a Service, sorted.
    pub(crate) async fn slice_ips(&self, service: &str) -> Vec<String> {
        let slices = self.slices(service).await;
        let endpoints = slices.into_iter().flat_map(|slice| slice.endpoints);
        let ready = endpoints.filter(|endpoint| {
            let conditions = endpoint.conditions.as_ref();
            conditions.and_then(|conditions| conditions.ready) != Some(false)
        });
        let mut ips: Vec<String> = ready.flat_map(|endpoint| endpoint.addresses).collect();
        ips.sort();
        ips
    }

    pub(crate) async fn create_service_account(&self, name: &str) {
        self.create_object::<ServiceAccount>(json!({"metadata": {"name": name}})).await;
    }

    /// Creates a token of an existing ServiceAccount.
    pub(crate) async fn token(&self, service_account: &str) -> String {
        let request = TokenRequest { spec: TokenRequestSpec::default(), ..TokenRequest::default() };
        let answer = self
            .api::<ServiceAccount>()
            .create_token_request(service_account, &PostParams::default(), &request)
            .await
            .unwrap_or_else(|error| panic!("a token of {service_account}: {error}"));
        answer.status.expect("a token").token
    }
}

fn object<K: DeserializeOwned>(value: serde_json::Value) -> K {
    serde_json::from_value(value).expect("JSON of the kind")
}

fn service_ports(ports: &[(&str, u16)]) -> serde_json::Value {
    let port = |&(name, port): &(&str, u16)| match name {
        "" => json!({"port": port, "protocol": "TCP"}),
        name => json!({"name": name, "port": port, "protocol": "TCP"}),
    };
    ports.iter().map(port).collect()
}
