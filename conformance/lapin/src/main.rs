//! Tests the server with lapin, a Rust client: confirms, returns, all settlements, and recovery of a lost connection.
//!
//! It runs like the Python programs in `conformance/clients`: FERRYMQ_BIN names a binary to start, or FERRYMQ_AT a
//! running server. The second part kills its server, so it runs only with a binary.

use std::collections::BTreeMap;
use std::path::Path;

use async_rs::traits::Executor;
use async_rs::{Runtime, TokioRuntime};
use ferrymq_conformance::Served;
use futures_lite::StreamExt;
use lapin::message::Delivery;
use lapin::options::{
    BasicAckOptions, BasicConsumeOptions, BasicGetOptions, BasicNackOptions, BasicPublishOptions, BasicRejectOptions,
    ConfirmSelectOptions, QueueDeclareOptions, QueueDeleteOptions,
};
use lapin::types::FieldTable;
use lapin::{BasicProperties, Channel, Connection, ConnectionProperties, Consumer};

type Outcome = Result<(), Box<dyn std::error::Error>>;

const QUEUE: &str = "lapin";

fn main() -> Outcome {
    let runtime = Runtime::tokio()?;
    let binary = std::env::var("FERRYMQ_BIN").ok();
    match (binary, std::env::var("FERRYMQ_AT")) {
        (Some(binary), _) => {
            let mut served = Served::start(Path::new(&binary))?;
            let played = runtime.block_on(async {
                settlements(&runtime, served.address()).await?;
                recovery(&runtime, &mut served).await
            });
            played.inspect_err(|_| eprintln!("--- the server's log\n{}---", served.log()))
        }
        (None, Ok(address)) => runtime.block_on(settlements(&runtime, &address)),
        (None, Err(_)) => Err("set FERRYMQ_BIN=PATH or FERRYMQ_AT=HOST:PORT".into()),
    }
}

/// Confirms, returns, a consumer, and all ways to settle.
async fn settlements(runtime: &TokioRuntime, address: &str) -> Outcome {
    let connection = connect(runtime, address, ConnectionProperties::default()).await?;
    let publishing = connection.create_channel().await?;
    declare(&publishing).await?;
    publishing.confirm_select(ConfirmSelectOptions::default()).await?;
    for body in ["ack", "nack", "reject", "drop"] {
        publish_confirmed(&publishing, body).await?;
    }

    let mandatory = BasicPublishOptions { mandatory: true, ..BasicPublishOptions::default() };
    let nowhere = publishing.basic_publish(
        "".into(),
        "nobody listens here".into(),
        mandatory,
        b"returned",
        BasicProperties::default(),
    );
    let confirmation = nowhere.await?.await?;
    assert!(confirmation.is_ack(), "an unroutable message is confirmed");
    let returned = confirmation.take_message().ok_or("no message was returned")?;
    assert_eq!((returned.reply_code, returned.delivery.data.as_slice()), (312, b"returned".as_slice()));

    let consuming = connection.create_channel().await?;
    let mut consumer = consume(&consuming).await?;
    for expected in ["ack", "nack", "reject", "drop"] {
        let delivery = next(&mut consumer).await?;
        assert_eq!((text(&delivery), delivery.redelivered), (expected.to_owned(), false));
        match expected {
            "ack" => delivery.ack(BasicAckOptions::default()).await?,
            "nack" => delivery.nack(BasicNackOptions { requeue: true, ..BasicNackOptions::default() }).await?,
            "reject" => delivery.reject(BasicRejectOptions { requeue: true }).await?,
            _ => delivery.nack(BasicNackOptions { requeue: false, ..BasicNackOptions::default() }).await?,
        };
    }
    let mut again = Vec::new();
    for _ in 0..2 {
        let delivery = next(&mut consumer).await?;
        assert!(delivery.redelivered, "a requeued message is marked when it comes again");
        again.push(text(&delivery));
        delivery.ack(BasicAckOptions::default()).await?;
    }
    again.sort();
    assert_eq!(again, ["nack", "reject"]);

    assert!(consuming.basic_get(QUEUE.into(), BasicGetOptions::default()).await?.is_none(), "all messages are settled");
    publishing.queue_delete(QUEUE.into(), QueueDeleteOptions::default()).await?;
    Ok(connection.close(200, "bye".into()).await?)
}

/// A publisher and a consumer work while the server is killed and restarted. They recover, and no message is lost.
async fn recovery(runtime: &TokioRuntime, served: &mut Served) -> Outcome {
    let properties = ConnectionProperties::default().enable_auto_recover();
    let connection = connect(runtime, served.address(), properties).await?;
    let publishing = connection.create_channel().await?;
    declare(&publishing).await?;
    publishing.confirm_select(ConfirmSelectOptions::default()).await?;
    let consuming = connection.create_channel().await?;
    let mut consumer = consume(&consuming).await?;

    for number in 0..20 {
        publish_confirmed(&publishing, &number.to_string()).await?;
    }
    let mut seen = BTreeMap::<String, usize>::new();
    for _ in 0..5 {
        let delivery = next(&mut consumer).await?;
        *seen.entry(text(&delivery)).or_default() += 1;
        delivery.ack(BasicAckOptions::default()).await?;
    }
    served.kill_and_restart()?;

    for number in 20..40 {
        while let Err(lost) = publish_confirmed(&publishing, &number.to_string()).await {
            publishing.wait_for_recovery(lost).await?;
        }
    }
    while seen.len() < 40 {
        match consumer.next().await.ok_or("the consumer ended")? {
            Ok(delivery) => {
                let times = seen.entry(text(&delivery)).or_default();
                *times += 1;
                assert!(
                    *times == 1 || delivery.redelivered,
                    "{} came twice without a redelivered mark",
                    text(&delivery)
                );
                // A delivery tag from before the kill is not valid any more, and lapin returns an error for it.
                let _ = delivery.ack(BasicAckOptions::default()).await;
            }
            Err(lost) => consuming.wait_for_recovery(lost).await?,
        }
    }
    Ok(connection.close(200, "bye".into()).await?)
}

async fn connect(runtime: &TokioRuntime, address: &str, properties: ConnectionProperties) -> lapin::Result<Connection> {
    let uri = format!("amqp://guest:guest@{address}/%2f");
    Connection::connect_with_runtime(&uri, properties, runtime.clone()).await
}

async fn declare(channel: &Channel) -> lapin::Result<()> {
    channel.queue_declare(QUEUE.into(), QueueDeclareOptions::durable(), FieldTable::default()).await.map(drop)
}

async fn consume(channel: &Channel) -> lapin::Result<Consumer> {
    channel.basic_consume(QUEUE.into(), "".into(), BasicConsumeOptions::default(), FieldTable::default()).await
}

async fn publish_confirmed(channel: &Channel, body: &str) -> lapin::Result<()> {
    let persistent = BasicProperties::default().with_delivery_mode(2);
    let options = BasicPublishOptions::default();
    let confirmation =
        channel.basic_publish("".into(), QUEUE.into(), options, body.as_bytes(), persistent).await?.await?;
    assert!(confirmation.is_ack(), "{body} was not confirmed");
    Ok(())
}

async fn next(consumer: &mut Consumer) -> Result<Delivery, Box<dyn std::error::Error>> {
    Ok(consumer.next().await.ok_or("the consumer ended")??)
}

fn text(delivery: &Delivery) -> String {
    String::from_utf8_lossy(&delivery.data).into_owned()
}
