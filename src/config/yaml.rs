//! YAML as a tree in which every key and every value knows its place in the text.

pub(crate) mod syntax;
pub(crate) mod tree;
