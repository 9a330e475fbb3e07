//! The building blocks of the config language: records with known keys, scalars, and values that
//! may be secrets.

pub(crate) mod bytes;
pub(crate) mod hex;
pub(crate) mod hints;
pub(crate) mod reader;
pub(crate) mod record;
pub(crate) mod scalars;
pub(crate) mod spanned;
pub(crate) mod templates;
pub(crate) mod value;
