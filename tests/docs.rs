//! Holds the documentation against the code: its examples, its commands, its links, and the names
//! that the reference lists.

#[path = "docs/blocks.rs"]
mod blocks;
#[path = "docs/chart.rs"]
mod chart;
#[path = "docs/commands.rs"]
mod commands;
#[path = "docs/language.rs"]
mod language;
#[path = "docs/links.rs"]
mod links;
#[path = "docs/pages.rs"]
mod pages;
#[path = "docs/reference.rs"]
mod reference;
#[path = "docs/source.rs"]
mod source;
