//! Clients of NSQ: a [`Producer`] that fails over between nsqds, and a [`Consumer`] that finds them.
//!
//! ```no_run
//! use nsq_net::client::{Consumer, Producer};
//!
//! # async fn example() -> Result<(), Box<dyn std::error::Error>> {
//! let producer = Producer::builder().nsqd("127.0.0.1:4150").build()?;
//! producer.publish("greetings", "hello").await?;
//!
//! let mut consumer = Consumer::builder("greetings", "readers").lookupd("127.0.0.1:4161").build()?;
//! while let Some(message) = consumer.next().await {
//!     println!("{}", String::from_utf8_lossy(message.body()));
//!     message.finish();
//! }
//! # Ok(())
//! # }
//! ```
//!
//! Both work in the background, on tasks of the tokio runtime that they are built in, and tell how they are doing by
//! [`Event`]s. What they decide is decided in [`nsq_core::client`]; here are only sockets and time. [`plain`] has
//! clients that decide nothing at all.

mod clock;
mod consumer;
mod consumer_builder;
mod error;
mod events;
mod identity;
mod line;
mod lookup;
mod message;
pub mod plain;
mod producer;
mod producer_builder;

pub use consumer::{Consumer, Stopper};
pub use consumer_builder::ConsumerBuilder;
pub use error::{BuildError, PublishError};
pub use message::Message;
pub use nsq_core::client::Notice as Event;
pub use nsq_core::message::MessageId;
pub use producer::Producer;
pub use producer_builder::ProducerBuilder;
