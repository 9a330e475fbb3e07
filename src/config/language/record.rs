//! The macro that declares a record: a mapping of the config with known keys.

/// A mapping with known keys.
pub(crate) trait Record {
    /// Returns the built-in defaults, which are the lowest layer of every record.
    fn built_in() -> Self;
}

/// Declares a record in one place: its keys with their help, type and default.
///
/// The macro makes the struct, the reading of it, the layering of one over another, the built-in
/// defaults and the JSON Schema. `requires` lists the keys that must be written, and `one_of` those
/// of which one is expected, as the kind of a check is. The help is the doc comment of a key. It is
/// shown by editors, which take it from the schema, and in docs/reference/config.md.
macro_rules! record {
    (
        $(#[$meta:meta])*
        $name:ident requires [$($required:literal),*] $(one_of [$($alternative:expr),*])? {
            $($(#[$field_meta:meta])* $field:ident: $type:ty $(= $default:expr)?,)*
        }
    ) => {
        #[derive(Debug, Clone, Default, PartialEq, serde::Serialize, schemars::JsonSchema)]
        $(#[$meta])*
        #[serde(rename_all = "camelCase", deny_unknown_fields, default)]
        #[schemars(extend("required" = [$($required),*]))]
        pub(crate) struct $name {
            $(
                $(#[$field_meta])*
                $(#[schemars(extend("default" = $default))])?
                #[serde(skip_serializing_if = "Field::is_absent")]
                pub $field: Field<$type>,
            )*
        }

        impl $crate::config::language::record::Record for $name {
            fn built_in() -> Self {
                Self {
                    $($field: Field::Absent $(.or_new($default))?,)*
                }
            }
        }

        impl $crate::config::language::reader::FromNode for $name {
            fn from_node(
                node: &$crate::config::yaml::node::Node,
                reader: &mut $crate::config::language::reader::Reader,
            ) -> Result<Self, $crate::config::problem::Reported> {
                let shape = $crate::config::language::hints::Shape {
                    keys: Self::keys(),
                    required: &[$($required),*],
                    one_of: &[$($($alternative),*)?],
                    inner_keys: &[$(<$type>::keys()),*],
                };
                let mut record = Self::default();
                reader.record(node, &shape, |reader, index, entry| {
                    let mut fields = 0..;
                    $(
                        if fields.next() == Some(index) {
                            record.$field = match entry {
                                Some(entry) => reader.field(&entry.value, entry.key_span),
                                None => Field::Invalid,
                            };
                        }
                    )*
                })?;
                Ok(record)
            }

            fn keys() -> &'static [String] {
                static KEYS: std::sync::LazyLock<Vec<String>> = std::sync::LazyLock::new(|| {
                    vec![$($crate::config::language::record::camel_case(stringify!($field))),*]
                });
                &KEYS
            }

            fn overlay(&self, lower: &Self) -> Self {
                Self { $($field: self.$field.overlay(&lower.$field),)* }
            }

            fn intersect(&self, other: &Self) -> Self {
                Self { $($field: self.$field.intersect(&other.$field),)* }
            }
        }
    };
}
pub(crate) use record;

/// Returns the spelling of a field in the file: `unhealthyThreshold` for `unhealthy_threshold`.
pub(crate) fn camel_case(field: &str) -> String {
    let mut words = field.split('_');
    let mut key = words.next().unwrap_or_default().to_string();
    for word in words {
        key.push_str(&word[..1].to_uppercase());
        key.push_str(&word[1..]);
    }
    key
}
