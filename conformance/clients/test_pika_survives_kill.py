"""After SIGKILL, confirmed persistent messages of a durable queue are there, each once and in order. Acked ones are not."""

import pika
from pika_client import Collected, connect, wait_until
from server import Server

PERSISTENT = pika.BasicProperties(delivery_mode=pika.DeliveryMode.Persistent)

with Server() as server:
    server.must_be_ours_to_kill()
    sender = connect(server)
    channel = sender.channel()
    channel.queue_declare(queue="hello", durable=True)
    channel.confirm_delivery()
    for number in range(100):
        channel.basic_publish("", "hello", f"Hello World! {number}".encode(), PERSISTENT)
    server.kill()
    server.start()

    receiver = connect(server)
    channel = receiver.channel()
    declared = channel.queue_declare(queue="hello", durable=True, passive=True)
    assert declared.method.message_count == 100, declared
    consumer = Collected(channel, "hello")
    wait_until(lambda: len(consumer.deliveries) >= 100, receiver)
    assert consumer.bodies() == [f"Hello World! {number}".encode() for number in range(100)]

    # The first fifty are settled. A message that is published after that and confirmed shows that this is on disk.
    channel.basic_ack(consumer.deliveries[49][0].delivery_tag, multiple=True)
    channel.queue_declare(queue="hello", durable=True, passive=True)
    confirming = receiver.channel()
    confirming.confirm_delivery()
    confirming.basic_publish("", "hello", b"last", PERSISTENT)
    server.kill()
    server.start()

    receiver = connect(server)
    consumer = Collected(receiver.channel(), "hello", auto_ack=True)
    wait_until(lambda: len(consumer.deliveries) >= 51, receiver)
    expected = [f"Hello World! {number}".encode() for number in range(50, 100)] + [b"last"]
    assert consumer.bodies() == expected, consumer.bodies()
    redelivered = [method.redelivered for method, _, _ in consumer.deliveries]
    assert all(redelivered[:50]), "messages that were delivered before the kill are marked as redelivered"
    receiver.close()
