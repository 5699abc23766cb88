"""A step of the wall clock does not change timeouts: none becomes shorter or longer.

After a step of two hours forward, a queue with an expiry of one hour stays, and so does a consumer with a consumer timeout of
100 s. After a step of three hours back, a message with a short time to live still expires.
"""

import tempfile

import pika
from dials import Dials
from pika_client import Collected, connect, wait_until
from server import Server

HOUR = 3600
PERSISTENT = pika.BasicProperties(delivery_mode=pika.DeliveryMode.Persistent)


def wait_for_an_expiry(connection):
    """Waits until a message expires. So the server has checked everything that is due."""
    channel = connection.channel()
    expired = Collected(channel, "expired", auto_ack=True)
    channel.basic_publish("", "short", b"short", pika.BasicProperties(expiration="20"))
    wait_until(lambda: expired.deliveries, connection)
    channel.close()


with tempfile.TemporaryDirectory(prefix="ferrymq-") as folder:
    dials = Dials(folder)
    with Server(["--limits-consumer-timeout-ms", "100000"], environment=dials.environment()) as server:
        server.must_be_ours_to_kill()
        connection = connect(server)
        channel = connection.channel()
        letters = {"x-dead-letter-exchange": "", "x-dead-letter-routing-key": "expired"}
        channel.queue_declare("short", arguments=letters)
        channel.queue_declare("expired")
        channel.queue_declare("lease", durable=True, arguments={"x-expires": HOUR * 1000})
        channel.queue_declare("held", durable=True)
        channel.confirm_delivery()
        for queue in ("lease", "held"):
            channel.basic_publish("", queue, b"confirmed", PERSISTENT)
        consumer = connection.channel()
        held, _, _ = consumer.basic_get("held")

        dials[Dials.CLOCK] = 2 * HOUR
        wait_for_an_expiry(connection)
        assert connection.channel().queue_declare("lease", passive=True).method.message_count == 1
        consumer.basic_ack(held.delivery_tag)
        assert consumer.queue_declare("held", passive=True).method.message_count == 0

        dials[Dials.CLOCK] = -3 * HOUR
        wait_for_an_expiry(connection)
        connection.close()
