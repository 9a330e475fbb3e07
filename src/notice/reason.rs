//! The reasons of all Events, each with its action and severity. They are public: people filter by
//! them.

use std::fmt;

use super::Severity;

/// Declares the reasons. A new one is one line here.
macro_rules! reasons {
    ($($(#[$doc:meta])* $reason:ident: $action:ident, $severity:ident;)*) => {
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
        }
    };
}

reasons! {
    /// A target is down.
    TargetDown: Check, Warning;
    /// A target that was down is up.
    TargetUp: Check, Info;
    /// The checks of published addresses have been inconclusive for too long.
    ChecksInconclusive: Decide, Warning;
    /// The checks of all published addresses are conclusive again.
    ChecksConclusive: Check, Info;

    /// More than one target of an `exactlyOne` database passes.
    SplitBrain: Decide, Error;
    /// Fewer targets are healthy than `minHealthy` asks for.
    BelowMinHealthy: Decide, Warning;
    /// A target is suppressed because it has changed state too often.
    Flapping: Decide, Advice;
    /// A freeze holds removals back.
    Frozen: Decide, Warning;
    /// A freeze is over.
    Thawed: Decide, Info;
    /// A target is in maintenance, or its maintenance has another reason or end.
    MaintenanceBegan: Decide, Info;
    /// The maintenance of a target is over.
    MaintenanceEnded: Decide, Info;

    /// A name has other addresses.
    AddressesChanged: Resolve, Info;
    /// A name has had no good answer for a while.
    NameUnresolved: Resolve, Warning;
    /// A name that had no good answer has one again.
    NameResolved: Resolve, Info;
    /// Each answer of a name has another address.
    NameRotates: Resolve, Warning;
    /// An address stays that DNS no longer gives.
    AddressKept: Decide, Warning;
    /// DNS does not answer for most names.
    DnsUnavailable: Resolve, Error;
    /// DNS answers again.
    DnsAvailable: Resolve, Info;

    /// Members were written.
    Published: Publish, Info;
    /// An outside change was undone.
    Repaired: Publish, Warning;
    /// An address of the config may not be published.
    AddressRefused: Publish, Warning;
    /// A traffic policy of the Service keeps clients out.
    LocalTrafficPolicy: Publish, Warning;
    /// Objects of a database that the config no longer has are still there.
    LeftBehind: Publish, Warning;

    /// None of the database's names has resolved yet, and it has no other address.
    WaitingForNames: Publish, Warning;
    /// There is no Service of the database's name.
    WaitingForService: Publish, Warning;
    /// The Service has a selector.
    ServiceHasSelector: Publish, Warning;
    /// The Service is of type ExternalName.
    ServiceIsExternalName: Publish, Warning;
    /// The Service is the API server's own.
    ServiceIsKubernetes: Publish, Warning;
    /// The Endpoints or a slice belong to someone else.
    NotOurs: Publish, Warning;
    /// The database's ports do not match those of the Service.
    PortMismatch: Publish, Warning;
    /// Kubernetes does not mirror the Endpoints as they are.
    NotMirrored: Publish, Warning;
    /// EndpointSlices of Pods that the Service no longer selects are still there.
    SlicesLeftBehind: Publish, Warning;
    /// None of the database's addresses may be published.
    AddressesRefused: Publish, Warning;
    /// A right is missing.
    Forbidden: Publish, Warning;
    /// The API rejects what was written as invalid.
    Rejected: Publish, Warning;

    /// The config file is bad.
    ConfigBad: LoadConfig, Error;
    /// The config file is good again.
    ConfigGood: LoadConfig, Info;
}

impl fmt::Display for Reason {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.as_str())
    }
}
