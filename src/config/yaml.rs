//! YAML as a tree in which every key and every value knows its place in the text.

pub(crate) mod node;
mod secrets;
mod syntax;
pub(crate) mod tree;
