"""Messages that wait in an exchange of type x-delayed-message come when they are due, each once, and survive SIGKILL."""

import random
import time

import pika
from pika_client import Collected, connect, wait_until
from server import Server

random.seed(68)


def declare(channel):
    channel.exchange_declare(
        "delayed", "x-delayed-message", durable=True, arguments={"x-delayed-type": "direct"}
    )
    channel.queue_declare("hello", durable=True)
    channel.queue_bind("hello", "delayed", "hello")


def publish(channel, delay_ms, body):
    """Publishes a persistent message. Returns the earliest time at which it can be due."""
    properties = pika.BasicProperties(
        delivery_mode=pika.DeliveryMode.Persistent, headers={"x-delay": delay_ms}
    )
    channel.basic_publish("delayed", "hello", body, properties, mandatory=True)
    return time.time() + delay_ms / 1000


with Server() as server:
    server.must_be_ours_to_kill()
    sender = connect(server)
    channel = sender.channel()
    channel.confirm_delivery()
    declare(channel)

    # The message with the longer delay is published first. It must come last.
    late = publish(channel, 2500, b"late")
    early = publish(channel, 1200, b"early")
    publish(channel, 0, b"now")
    channel.basic_publish("delayed", "hello", b"without")
    consumer = Collected(channel, "hello", auto_ack=True)
    wait_until(lambda: len(consumer.deliveries) >= 3, sender)
    assert time.time() >= early - 0.1, "a message came before its time"
    wait_until(lambda: len(consumer.deliveries) >= 4, sender)
    assert time.time() >= late - 0.1, "a message came before its time"
    assert consumer.bodies() == [b"now", b"without", b"early", b"late"], consumer.bodies()
    waited = [properties.headers and properties.headers.get("x-delay") for _, properties, _ in consumer.deliveries]
    assert waited == [0, None, -1200, -2500], waited
    sender.close()

    # The server is killed while messages become due, and again right after the restart.
    sender = connect(server)
    channel = sender.channel()
    channel.confirm_delivery()
    expected = []
    for number in range(300):
        delay_ms = random.randint(1, 3000)
        publish(channel, delay_ms, str(number).encode())
        expected.append(str(number).encode())
    for pause in (0.4, 0.1, 0.5):
        time.sleep(pause)
        server.kill()
        server.start()
    receiver = connect(server)
    channel = receiver.channel()
    consumer = Collected(channel, "hello", auto_ack=True)
    wait_until(lambda: len(consumer.deliveries) >= len(expected), receiver)
    assert sorted(consumer.bodies()) == sorted(expected), "each message comes once"

    # The waiting messages of an exchange are deleted with it.
    publish(channel, 1000, b"gone")
    channel.exchange_delete("delayed")
    declare(channel)
    publish(channel, 1500, b"stays")
    wait_until(lambda: len(consumer.deliveries) > len(expected), receiver)
    assert consumer.bodies()[len(expected) :] == [b"stays"], consumer.bodies()[len(expected) :]
    receiver.close()
