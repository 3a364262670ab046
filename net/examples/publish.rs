//! Publishes its arguments, one message each: `publish --nsqd 127.0.0.1:4150 --topic greetings hello world`.

use nsq_net::client::Producer;
use std::error::Error;

#[tokio::main]
async fn main() -> Result<(), Box<dyn Error>> {
    let (mut builder, mut topic, mut messages) = (Producer::builder(), "greetings".to_string(), Vec::new());
    let (mut args, mut nsqds) = (std::env::args().skip(1), 0);
    while let Some(arg) = args.next() {
        let mut value = || args.next().ok_or_else(|| format!("{arg} needs a value"));
        match arg.as_str() {
            "--nsqd" => (builder, nsqds) = (builder.nsqd(value()?), nsqds + 1),
            "--topic" => topic = value()?,
            _ => messages.push(arg),
        }
    }
    if nsqds == 0 {
        builder = builder.nsqd("127.0.0.1:4150");
    }
    let producer = builder.build()?;
    for message in messages {
        producer.publish(&topic, message.clone()).await?;
        println!("published {message}");
    }
    producer.stop().await;
    Ok(())
}
