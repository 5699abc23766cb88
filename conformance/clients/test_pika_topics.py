"""The calls of the fifth tutorial: a topic exchange, and patterns with `*` for one word and `#` for any number of words."""

from pika_client import Collected, connect, wait_until
from server import Server

SENT = ["kern.critical", "kern.info", "mail.critical", "mail", "kern.disk.critical"]
WANTED = {
    "#": SENT,
    "kern.*": ["kern.critical", "kern.info"],
    "*.critical": ["kern.critical", "mail.critical"],
    "kern.#": ["kern.critical", "kern.info", "kern.disk.critical"],
    "mail.#": ["mail.critical", "mail"],
}

with Server() as server:
    sender = connect(server)
    logs = sender.channel()
    logs.exchange_declare(exchange="topic_logs", exchange_type="topic")

    receiver = connect(server)
    channel = receiver.channel()
    consumers = {}
    for pattern in WANTED:
        queue = channel.queue_declare(queue="", exclusive=True).method.queue
        channel.queue_bind(exchange="topic_logs", queue=queue, routing_key=pattern)
        consumers[pattern] = Collected(channel, queue, auto_ack=True)

    for key in SENT:
        logs.basic_publish(exchange="topic_logs", routing_key=key, body=key)
    total = sum(len(keys) for keys in WANTED.values())
    wait_until(lambda: sum(len(consumer.deliveries) for consumer in consumers.values()) >= total, receiver)
    for pattern, keys in WANTED.items():
        assert consumers[pattern].bodies() == [key.encode() for key in keys], pattern

    receiver.close()
    logs.exchange_delete(exchange="topic_logs")
    sender.close()
