//! Prints the messages of a channel: `consume --lookupd 127.0.0.1:4161 --topic greetings --channel readers`.

use nsq_net::client::Consumer;
use std::error::Error;
use std::time::Duration;

#[tokio::main]
async fn main() -> Result<(), Box<dyn Error>> {
    let (mut topic, mut channel) = ("greetings".to_string(), "readers".to_string());
    let (mut lookupds, mut nsqds, mut poll) = (Vec::new(), Vec::new(), Duration::from_secs(60));
    let mut args = std::env::args().skip(1);
    while let Some(arg) = args.next() {
        let value = args.next().ok_or_else(|| format!("{arg} needs a value"))?;
        match arg.as_str() {
            "--topic" => topic = value,
            "--channel" => channel = value,
            "--lookupd" => lookupds.push(value),
            "--nsqd" => nsqds.push(value),
            "--poll" => poll = Duration::from_secs(value.parse()?),
            _ => return Err(format!("{arg} is none of --topic, --channel, --lookupd, --nsqd, --poll").into()),
        }
    }
    if lookupds.is_empty() && nsqds.is_empty() {
        lookupds.push("127.0.0.1:4161".to_string());
    }
    let mut builder = Consumer::builder(topic, channel).lookup_poll(poll, 30).on_event(|event| eprintln!("{event}"));
    builder = lookupds.into_iter().fold(builder, |builder, address| builder.lookupd(address));
    builder = nsqds.into_iter().fold(builder, |builder, address| builder.nsqd(address));
    let mut consumer = builder.build()?;
    while let Some(message) = consumer.next().await {
        println!("{} {}", message.nsqd(), String::from_utf8_lossy(message.body()));
        message.finish();
    }
    Ok(())
}
