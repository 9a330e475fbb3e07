//! The registry of check kinds: one line a kind.
//!
//! A new kind takes two files and one line. `kinds/NAME.rs` has its keys with their help and
//! defaults, the checked form, and the way from one to the other and back. `probe/NAME.rs` has its
//! prober. The line stands below. The compiler asks for what is missing there. Tests ask for the
//! place of both files in `tests/layers.rs`, an example of every key, random checks for the round
//! trip through `explain`, and the generated files. `docs/contributing/architecture.md` has all
//! steps.

use std::net::IpAddr;

pub(crate) mod kind;
pub(crate) mod login;
pub(crate) mod role;
pub(crate) mod tls;

/// Calls a macro with one line for each kind: `MODULE => RECORD(CHECK)`. The name of the module is
/// the key in the config, the record has the keys as they are written, and the check is the form
/// that the prober gets.
macro_rules! check_kinds {
    ($callback:ident) => {
        $callback! {
            tcp => Tcp(TcpCheck),
            http => Http(HttpCheck),
            exec => Exec(ExecCheck),
            postgres => Postgres(PostgresCheck),
            redis => Redis(RedisCheck),
            mongodb => Mongodb(MongodbCheck),
            mysql => Mysql(MysqlCheck),
            grpc => Grpc(GrpcCheck),
        }
    };
}
pub(crate) use check_kinds;

/// Declares the modules of the kinds and the enum over them.
macro_rules! declare_kinds {
    ($($module:ident => $record:ident($check:ident),)*) => {
        $(
            pub(crate) mod $module;
            pub use $module::$check;
        )*

        /// The kind of a check with its own settings.
        #[derive(Debug, Clone, PartialEq, Eq)]
        pub enum CheckKind {
            $(
                #[doc = concat!("The kind `", stringify!($module), "`.")]
                $record($check),
            )*
        }

        /// The keys of all kinds, in the order of the registry.
        pub const CHECK_KINDS: &[&str] = &[$(stringify!($module)),*];

        impl CheckKind {
            /// Returns the key of the kind in the config.
            pub fn name(&self) -> &'static str {
                match self {
                    $(CheckKind::$record(_) => stringify!($module),)*
                }
            }

            /// Returns the check of an address in a few words, without what may be secret.
            pub(crate) fn summary(&self, ip: IpAddr) -> String {
                let host = match ip {
                    IpAddr::V4(ip) => ip.to_string(),
                    IpAddr::V6(ip) => format!("[{ip}]"),
                };
                match self {
                    $(CheckKind::$record(check) => $module::$record::summary(check, &host),)*
                }
            }

            /// Returns the values that may be secrets.
            pub(crate) fn values(&self) -> Vec<&ValueSource> {
                match self {
                    $(CheckKind::$record(check) => $module::$record::values(check),)*
                }
            }
        }

        /// Returns the example of each kind, for the docs.
        pub(crate) fn examples() -> Vec<(&'static str, &'static str)> {
            vec![$((stringify!($module), $module::$record::EXAMPLE)),*]
        }
    };
}

use self::kind::KindRecord as _;
use crate::config::language::value::ValueSource;

check_kinds!(declare_kinds);
