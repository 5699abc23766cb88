"""Properties of the maximum length are stored with a small journal and survive a kill. Longer ones close the channel."""

import pika
from pika_client import Collected, connect, wait_until
from server import Server

SMALL_JOURNAL = ["--storage-file-bytes", "256KiB"]
SHORT_PROPERTIES = ["--limits-properties-bytes-max", "64KiB"]


def properties(octets):
    return pika.BasicProperties(delivery_mode=pika.DeliveryMode.Persistent, headers={"long": "x" * octets})


with Server(SMALL_JOURNAL) as server:
    server.must_be_ours_to_kill()
    channel = connect(server).channel()
    channel.queue_declare("long", durable=True)
    channel.confirm_delivery()
    for body in (b"", bytes(2_000), bytes(60_000), bytes(300_000)):
        channel.basic_publish("", "long", body, properties(130_000))
    server.kill()
    server.start()
    connection = connect(server)
    consumer = Collected(connection.channel(), "long", auto_ack=True)
    wait_until(lambda: len(consumer.deliveries) >= 4, connection)
    assert [len(body) for body in consumer.bodies()] == [0, 2_000, 60_000, 300_000]
    assert all(len(properties.headers["long"]) == 130_000 for _, properties, _ in consumer.deliveries)
    connection.close()

with Server(SHORT_PROPERTIES) as server:
    channel = connect(server).channel()
    channel.queue_declare("long", durable=True)
    channel.confirm_delivery()
    channel.basic_publish("", "long", b"", properties(60_000))
    try:
        channel.basic_publish("", "long", b"", properties(70_000))
    except pika.exceptions.ChannelClosedByBroker as closed:
        assert closed.reply_code == 406 and "properties_bytes_max" in closed.reply_text, closed
    else:
        raise AssertionError("the server refused nothing")
