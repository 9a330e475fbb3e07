//! The reasons of all Events, each with its action, severity and topic. They are public: people
//! filter by them.

use std::fmt;

use super::Severity;

/// A subject on which notices say what is so now. Of the notices of one topic about the same thing,
/// only the newest is true.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum Topic {
    /// The members that the cluster has, or why it does not have what is planned. There is one for
    /// each database, whatever the key of the notice.
    Members,
    /// The health of a target.
    Health,
    /// The conclusiveness of checks.
    Checks,
    /// The role that a check asks for.
    Role,
    /// The freeze.
    Freeze,
    /// The maintenance of a target.
    Maintenance,
    /// The resolution of a name.
    Name,
    /// The answers of DNS as a whole.
    Dns,
    /// The config file.
    Config,
    /// None: no other reason contradicts this one.
    Alone,
}

/// Declares the reasons. A new one is one line here.
macro_rules! reasons {
    ($($(#[$doc:meta])* $reason:ident: $action:ident, $severity:ident, $topic:ident;)*) => {
        /// The reason of an Event: one word for machines, in PascalCase.
        #[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord)]
        pub enum Reason {
            $($(#[$doc])* $reason,)*
        }

        impl Reason {
            /// All reasons, in the order of their declaration.
            pub const ALL: &'static [Reason] = &[$(Reason::$reason),*];

            /// Returns the reason as Events have it.
            pub const fn as_str(self) -> &'static str {
                match self {
                    $(Reason::$reason => stringify!($reason),)*
                }
            }

            /// Returns the `action` of its Events: the operation that led to the happening.
            pub const fn action(self) -> &'static str {
                match self {
                    $(Reason::$reason => stringify!($action),)*
                }
            }

            /// Returns the severity of a happening with this reason.
            pub const fn severity(self) -> Severity {
                match self {
                    $(Reason::$reason => Severity::$severity,)*
                }
            }

            /// Returns the subject on which a notice with this reason says what is so now.
            pub const fn topic(self) -> Topic {
                match self {
                    $(Reason::$reason => Topic::$topic,)*
                }
            }
        }
    };
}

reasons! {
    /// A target is down.
    TargetDown: Check, Warning, Health;
    /// A target that was down is up.
    TargetUp: Check, Info, Health;
    /// The checks of published addresses have been inconclusive for too long.
    ChecksInconclusive: Decide, Warning, Checks;
    /// The checks of all published addresses are conclusive again.
    ChecksConclusive: Check, Info, Checks;

    /// The server of a target does not let its check log in.
    LoginRefused: Check, Warning, Checks;
    /// No target has the role that its check asks for.
    RoleMissing: Decide, Warning, Role;
    /// A target has the role that its check asks for again.
    RoleFound: Decide, Info, Role;
    /// No target is known to have another role than its check asks for any more, and none has that.
    RoleUnknown: Decide, Info, Role;
    /// More than one target of an `exactlyOne` database passes.
    SplitBrain: Decide, Error, Alone;
    /// Fewer targets are healthy than `minHealthy` asks for.
    BelowMinHealthy: Decide, Warning, Alone;
    /// A target is suppressed because it has changed state too often.
    Flapping: Decide, Advice, Alone;
    /// A freeze holds removals back.
    Frozen: Decide, Warning, Freeze;
    /// A freeze is over.
    Thawed: Decide, Info, Freeze;
    /// A target is in maintenance, or its maintenance has another reason or end.
    MaintenanceBegan: Decide, Info, Maintenance;
    /// The maintenance of a target is over.
    MaintenanceEnded: Decide, Info, Maintenance;

    /// A name has other addresses.
    AddressesChanged: Resolve, Info, Alone;
    /// A name has had no good answer for a while.
    NameUnresolved: Resolve, Warning, Name;
    /// A name that had no good answer has one again.
    NameResolved: Resolve, Info, Name;
    /// Each answer of a name has another address.
    NameRotates: Resolve, Warning, Alone;
    /// An address stays that DNS no longer gives.
    AddressKept: Decide, Warning, Alone;
    /// DNS does not answer for most names.
    DnsUnavailable: Resolve, Error, Dns;
    /// DNS answers again.
    DnsAvailable: Resolve, Info, Dns;

    /// Members were written.
    Published: Publish, Info, Members;
    /// An outside change was undone.
    Repaired: Publish, Warning, Members;
    /// An address of the config may not be published.
    AddressRefused: Publish, Warning, Alone;
    /// A traffic policy of the Service keeps clients out.
    LocalTrafficPolicy: Publish, Warning, Alone;
    /// Objects of a database that the config no longer has are still there.
    LeftBehind: Publish, Warning, Members;

    /// None of the database's names has resolved yet, and it has no other address.
    WaitingForNames: Publish, Warning, Members;
    /// There is no Service of the database's name.
    WaitingForService: Publish, Warning, Members;
    /// The Service has a selector.
    ServiceHasSelector: Publish, Warning, Members;
    /// The Service is of type ExternalName.
    ServiceIsExternalName: Publish, Warning, Members;
    /// The Service is the API server's own.
    ServiceIsKubernetes: Publish, Warning, Members;
    /// The Endpoints or a slice belong to someone else.
    NotOurs: Publish, Warning, Members;
    /// The database's ports do not match those of the Service.
    PortMismatch: Publish, Warning, Members;
    /// Kubernetes does not mirror the Endpoints as they are.
    NotMirrored: Publish, Warning, Members;
    /// EndpointSlices of Pods that the Service no longer selects are still there.
    SlicesLeftBehind: Publish, Warning, Members;
    /// None of the database's addresses may be published.
    AddressesRefused: Publish, Warning, Members;
    /// A right is missing.
    Forbidden: Publish, Warning, Members;
    /// The API rejects what was written as invalid.
    Rejected: Publish, Warning, Members;

    /// The config file is bad.
    ConfigBad: LoadConfig, Error, Config;
    /// The config file is good again.
    ConfigGood: LoadConfig, Info, Config;
}

impl fmt::Display for Reason {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.as_str())
    }
}
