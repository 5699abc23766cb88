"""The calls of the fourth tutorial: a direct exchange, and a queue with a binding for each severity."""

from pika_client import Collected, connect, wait_until
from server import Server

with Server() as server:
    sender = connect(server)
    logs = sender.channel()
    logs.exchange_declare(exchange="direct_logs", exchange_type="direct")

    receiver = connect(server)
    channel = receiver.channel()
    consumers = {}
    for name, severities in {"errors": ["error"], "all": ["info", "warning", "error"]}.items():
        queue = channel.queue_declare(queue="", exclusive=True).method.queue
        for severity in severities:
            channel.queue_bind(exchange="direct_logs", queue=queue, routing_key=severity)
        consumers[name] = Collected(channel, queue, auto_ack=True)

    for severity in ["info", "error", "debug", "warning", "error"]:
        logs.basic_publish(exchange="direct_logs", routing_key=severity, body=severity)
    wait_until(lambda: len(consumers["all"].deliveries) >= 4 and len(consumers["errors"].deliveries) >= 2, receiver)
    assert consumers["all"].bodies() == [b"info", b"error", b"warning", b"error"]
    assert consumers["errors"].bodies() == [b"error", b"error"]
    assert [method.routing_key for method, _, _ in consumers["errors"].deliveries] == ["error", "error"]

    receiver.close()
    logs.exchange_delete(exchange="direct_logs")
    sender.close()
