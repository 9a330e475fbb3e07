//! A call to the API, as error messages and access control describe it.

use std::fmt;

/// The words for the account of the daemon in what access control denied.
pub(crate) const DAEMON_ACCOUNT: &str = "this daemon's ServiceAccount";

/// A call to the API.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Call<'a> {
    pub verb: &'static str,
    /// The plural name of the resource, such as `endpoints`.
    pub plural: &'a str,
    pub namespace: &'a str,
    /// The name of the object; none for calls that are about all of a namespace.
    pub name: Option<&'a str>,
}

impl Call<'_> {
    /// Names what access control denied, and the Role that would allow it.
    pub(super) fn forbidden(&self, reply: &str) -> String {
        let Call { verb, plural, namespace, name } = self;
        let object = name.map(|name| format!(" {name}")).unwrap_or_default();
        let (group, rule) = (self.group(), self.rule());
        let alternative = match *plural {
            "leases" => ", or use --no-leader-election for one replica",
            _ => "",
        };
        format!(
            "may not {verb} {plural}{object} in namespace {namespace}; allow it there with a Role \
             whose rules have {{apiGroups: [\"{group}\"], {rule}}}, bound to \
             {DAEMON_ACCOUNT}{alternative} (the API says: {reply})"
        )
    }

    fn group(&self) -> &'static str {
        match self.plural {
            "endpointslices" => "discovery.k8s.io",
            "leases" => "coordination.k8s.io",
            _ => "",
        }
    }

    /// Returns the resources and verbs of the rule, limited to the object's name where possible.
    fn rule(&self) -> String {
        let Call { verb, plural, .. } = *self;
        let (name, verbs) = match (self.name, plural, verb) {
            (_, "events", _) => (None, "list, create, patch"),
            (Some(name), "leases", _) => (Some(name), "get, create, update"),
            // A right to create can't be limited to a name.
            (_, _, "create") => (None, "create"),
            (Some(name), "endpoints" | "services", "delete") => (Some(name), "delete"),
            (Some(name), "endpoints", _) => (Some(name), "get, create, patch"),
            (Some(name), "endpointslices", _) => (Some(name), "get, create, patch, delete"),
            // Objects of these kinds are read one by one only by the rules with their names.
            (_, "endpoints" | "endpointslices", _) => (None, "list, watch"),
            _ => (None, "get, list, watch"),
        };
        let name = name.map(|name| format!(", resourceNames: [{name}]")).unwrap_or_default();
        format!("resources: [{plural}]{name}, verbs: [{verbs}]")
    }
}

/// Shows `patch endpoints in prod`.
impl fmt::Display for Call<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self.namespace {
            "" => write!(f, "{} {} in all namespaces", self.verb, self.plural),
            namespace => write!(f, "{} {} in {namespace}", self.verb, self.plural),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_call_says_where_it_is() {
        let call = |namespace| Call { verb: "list", plural: "services", namespace, name: None };
        assert_eq!(call("prod").to_string(), "list services in prod");
        assert_eq!(call("").to_string(), "list services in all namespaces");
    }

    #[test]
    fn a_missing_right_comes_with_its_rule() {
        let rule = |verb, plural, name| Call { verb, plural, namespace: "prod", name }.rule();
        let table = [
            (
                rule("patch", "endpoints", Some("a")),
                "resources: [endpoints], resourceNames: [a], verbs: [get, create, patch]",
            ),
            (
                rule("patch", "endpointslices", Some("a")),
                "resources: [endpointslices], resourceNames: [a], \
                 verbs: [get, create, patch, delete]",
            ),
            (
                rule("delete", "endpoints", Some("a")),
                "resources: [endpoints], resourceNames: [a], verbs: [delete]",
            ),
            (
                rule("delete", "services", Some("a")),
                "resources: [services], resourceNames: [a], verbs: [delete]",
            ),
            (rule("create", "services", Some("a")), "resources: [services], verbs: [create]"),
            (rule("list", "services", None), "resources: [services], verbs: [get, list, watch]"),
            (rule("list", "endpoints", None), "resources: [endpoints], verbs: [list, watch]"),
            (
                rule("watch", "endpointslices", None),
                "resources: [endpointslices], verbs: [list, watch]",
            ),
            (
                rule("update", "leases", Some("a")),
                "resources: [leases], resourceNames: [a], verbs: [get, create, update]",
            ),
            (rule("create", "events", None), "resources: [events], verbs: [list, create, patch]"),
        ];
        for (rule, expected) in table {
            assert_eq!(rule, expected);
        }
    }

    #[test]
    fn forbidden_names_verb_resource_namespace_and_role() {
        let call =
            Call { verb: "patch", plural: "endpoints", namespace: "prod", name: Some("mysql") };
        assert_eq!(
            call.forbidden("no way"),
            "may not patch endpoints mysql in namespace prod; allow it there with a Role whose \
             rules have {apiGroups: [\"\"], resources: [endpoints], resourceNames: [mysql], \
             verbs: [get, create, patch]}, bound to this daemon's ServiceAccount (the API says: \
             no way)"
        );
        let lease =
            Call { verb: "update", plural: "leases", namespace: "prod", name: Some("lease") };
        let forbidden = lease.forbidden("no way");
        assert!(forbidden.contains("{apiGroups: [\"coordination.k8s.io\"], resources: [leases]"));
        assert!(forbidden.contains("ServiceAccount, or use --no-leader-election for one replica"));
    }
}
