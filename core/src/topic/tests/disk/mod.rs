//! The topic on a disk: scenarios and properties on a model of one that lies.

mod edges;
mod faults;
mod files;
mod hostile;
mod properties;
mod rot;
mod scenarios;
mod world;
