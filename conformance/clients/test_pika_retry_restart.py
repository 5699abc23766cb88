"""A message waits for its delayed retry, and the server is killed and started again. The message is due at the same time as
before: the delay does not begin again.

The message becomes due while the server is down. For that the wall clock is set forward.
"""

import tempfile

import pika
from dials import Dials
from pika_client import Collected, connect, wait_until
from server import Server

HOUR = 3600
PERSISTENT = pika.BasicProperties(delivery_mode=pika.DeliveryMode.Persistent)
RETRY = {"x-delayed-retry-type": "all", "x-delayed-retry-min": HOUR * 1000, "x-delayed-retry-max": HOUR * 1000}

with tempfile.TemporaryDirectory(prefix="ferrymq-") as folder:
    dials = Dials(folder)
    with Server(environment=dials.environment()) as server:
        server.must_be_ours_to_kill()
        channel = connect(server).channel()
        channel.queue_declare("retry", durable=True, arguments=RETRY)
        channel.confirm_delivery()
        for body in (b"first", b"second"):
            channel.basic_publish("", "retry", body, PERSISTENT)
        first, _, _ = channel.basic_get("retry")
        channel.basic_reject(first.delivery_tag, requeue=True)
        # A message that was published after it is confirmed, so both are on disk.
        channel.basic_publish("", "retry", b"third", PERSISTENT)
        for hours, ready in ((0, [b"second", b"third"]), (2, [b"first", b"second", b"third"])):
            server.kill()
            dials[Dials.CLOCK] = hours * HOUR
            server.start()
            connection = connect(server)
            consumer = Collected(connection.channel(), "retry")
            wait_until(lambda: len(consumer.deliveries) == len(ready), connection)
            assert consumer.bodies() == ready, consumer.bodies()
