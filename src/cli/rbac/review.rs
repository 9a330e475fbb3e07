//! Asks the API which of the rights are there, by a SubjectAccessReview for each.

use futures::{StreamExt as _, TryStreamExt as _};
use k8s_openapi::api::authorization::v1::{
    ResourceAttributes, SubjectAccessReview, SubjectAccessReviewSpec,
};
use k8s_openapi::api::rbac::v1::PolicyRule;
use kube::Api;
use kube::api::PostParams;

use super::rules::RulesByNamespace;
use crate::api::{ApiError, Call};
use crate::cli::args::ServiceAccountName;
use crate::cli::cluster::Cluster;

/// The reviews that are asked for at the same time.
const MAX_CONCURRENT: usize = 16;

/// One verb on one resource, or on one object of it.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) struct Right {
    pub namespace: String,
    pub verb: String,
    group: String,
    pub resource: String,
    /// The name of the object; empty for all.
    pub name: String,
}

impl Right {
    /// Returns the words `patch endpoints mysql`.
    pub(crate) fn describe(&self) -> String {
        let Self { verb, resource, name, .. } = self;
        let space = if name.is_empty() { "" } else { " " };
        format!("{verb} {resource}{space}{name}")
    }
}

/// Splits rules into single rights.
pub(crate) fn rights(rules: &RulesByNamespace) -> Vec<Right> {
    let mut rights: Vec<Right> = rules
        .iter()
        .flat_map(|(namespace, rules)| rules.iter().flat_map(|rule| of_rule(namespace, rule)))
        .collect();
    rights.sort();
    rights.dedup();
    rights
}

fn of_rule(namespace: &str, rule: &PolicyRule) -> Vec<Right> {
    let all = [String::new()];
    let names = rule.resource_names.as_deref().unwrap_or(&all);
    let mut rights = Vec::new();
    for group in rule.api_groups.iter().flatten() {
        for resource in rule.resources.iter().flatten() {
            for name in names {
                rights.extend(rule.verbs.iter().map(|verb| Right {
                    namespace: namespace.to_owned(),
                    verb: verb.clone(),
                    group: group.clone(),
                    resource: resource.clone(),
                    name: name.clone(),
                }));
            }
        }
    }
    rights
}

/// Returns those of the rights that a ServiceAccount does not have. The caller needs the right to
/// create SubjectAccessReviews.
pub(crate) async fn missing(
    cluster: &Cluster,
    account: &ServiceAccountName,
    rights: Vec<Right>,
) -> Result<Vec<Right>, ApiError> {
    let reviews = futures::stream::iter(rights).map(async |right| {
        let allowed = is_allowed(cluster, account, &right).await?;
        Ok::<_, ApiError>((!allowed).then_some(right))
    });
    let answers: Vec<Option<Right>> = reviews.buffered(MAX_CONCURRENT).try_collect().await?;
    Ok(answers.into_iter().flatten().collect())
}

async fn is_allowed(
    cluster: &Cluster,
    account: &ServiceAccountName,
    right: &Right,
) -> Result<bool, ApiError> {
    let ServiceAccountName { namespace, name } = account;
    let review = SubjectAccessReview {
        spec: SubjectAccessReviewSpec {
            user: Some(format!("system:serviceaccount:{namespace}:{name}")),
            groups: Some(vec![
                "system:serviceaccounts".to_owned(),
                format!("system:serviceaccounts:{namespace}"),
                "system:authenticated".to_owned(),
            ]),
            resource_attributes: Some(ResourceAttributes {
                namespace: Some(right.namespace.clone()),
                verb: Some(right.verb.clone()),
                group: Some(right.group.clone()),
                resource: Some(right.resource.clone()),
                name: Some(right.name.clone()),
                ..ResourceAttributes::default()
            }),
            ..SubjectAccessReviewSpec::default()
        },
        ..SubjectAccessReview::default()
    };
    let reviews: Api<SubjectAccessReview> = Api::all(cluster.client.clone());
    let (plural, namespace) = ("subjectaccessreviews", &*right.namespace);
    let call = Call { verb: "create", plural, namespace, name: None };
    let answer = cluster.call(call, reviews.create(&PostParams::default(), &review)).await?;
    Ok(answer.status.is_some_and(|status| status.allowed))
}
