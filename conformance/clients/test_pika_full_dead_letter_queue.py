"""A dead letter or a delayed message goes to a full queue, and that queue dead-letters the messages that it refuses. Then the
message is in the third queue at once, without another event. It is still there after a stop and after a kill.
"""

import pika
from pika_client import Collected, connect, wait_until
from server import Server

PERSISTENT = pika.DeliveryMode.Persistent
TTL_MS = 1


def dead_letters_to(queue, **more):
    return {"x-dead-letter-exchange": "", "x-dead-letter-routing-key": queue, **more}


def declare(channel):
    channel.queue_declare("rejecting", durable=True, arguments=dead_letters_to("full"))
    channel.queue_declare("expiring", durable=True, arguments=dead_letters_to("full", **{"x-message-ttl": TTL_MS}))
    limit = {"x-max-length": 1, "x-overflow": "reject-publish-dlx"}
    channel.queue_declare("full", durable=True, arguments=dead_letters_to("last", **limit))
    channel.queue_declare("last", durable=True)
    channel.exchange_declare("later", "x-delayed-message", durable=True, arguments={"x-delayed-type": "direct"})
    channel.queue_bind("full", "later", "full")


def ready(channel, queue):
    return channel.queue_declare(queue, passive=True).method.message_count


with Server() as server:
    server.must_be_ours_to_kill()
    connection = connect(server)
    channel = connection.channel()
    channel.confirm_delivery()
    declare(channel)
    properties = pika.BasicProperties(delivery_mode=PERSISTENT)
    channel.basic_publish("", "full", b"fills it", properties)
    moved = 0
    for end in (server.stop, server.kill):
        # The consumer acks nothing, so that nothing else wakes the server.
        watching = connect(server)
        watcher = Collected(watching.channel(), "last")
        channel.basic_publish("", "rejecting", b"rejected", properties)
        delivery, _, _ = channel.basic_get("rejecting")
        channel.basic_publish("", "expiring", b"expired", properties)
        delayed = pika.BasicProperties(delivery_mode=PERSISTENT, headers={"x-delay": 1})
        channel.basic_publish("later", "full", b"delayed", delayed)
        channel.basic_reject(delivery.delivery_tag, requeue=False)
        moved += 3
        wait_until(lambda: len(watcher.deliveries) == moved, watching)
        # A message that was published after it is confirmed, so both are on disk.
        channel.basic_publish("", "last", b"behind", properties)
        moved += 1
        end()
        server.start()
        connection = connect(server)
        channel = connection.channel()
        channel.confirm_delivery()
        assert ready(channel, "last") == moved, (ready(channel, "last"), moved)
        assert ready(channel, "full") == 1
