//! Keeps only the healthy addresses of off-cluster databases in their Services' Endpoints.

pub mod config;
pub mod health;
pub mod probe;
