//! Tests of the clients' machines: scenarios that read like sentences, and a model of a cluster for properties.

mod connection;
mod consumer;
mod discovery;
mod model;
mod producer;
mod properties;
