"""The import of a definitions file is reported in events at once, without a user. The definitions work, also those that are
special in RabbitMQ's files: look-around in patterns, settings of plugins, and arguments as a list."""

import json
import os

import pika
from pika_client import connect
from server import Server

MAY_ALL = {"configure": ".*", "write": ".*", "read": ".*"}
DEFINITIONS = {
    "users": [
        {"name": "guest", "password": "guest", "tags": ["administrator"]},
        {"name": "app", "password": "app", "tags": ""},
    ],
    "permissions": [
        {"user": "guest", "vhost": "/", **MAY_ALL},
        {"user": "app", "vhost": "/", **dict.fromkeys(MAY_ALL, r"^(?!secret).*")},
    ],
    "exchanges": [{"name": "from-file", "vhost": "/", "type": "topic", "durable": True, "arguments": {}}],
    "queues": [{"name": "from-file", "vhost": "/", "durable": True, "auto_delete": False, "arguments": []}],
    "policies": [
        {
            "vhost": "/",
            "name": "short",
            "pattern": r"^(?!amq\.).*-file",
            "apply-to": "queues",
            "definition": {"max-length": 1, "ha-sync-batch-size": 10, "federation-upstream": "u"},
        }
    ],
}

with Server(["--events", "yes"]) as server:
    server.must_be_ours_to_kill()
    channel = connect(server).channel()
    channel.queue_declare("events", durable=True)
    channel.queue_bind("events", "amq.rabbitmq.event", "#.created")
    assert server.stop() == 0

    file = os.path.join(server.folder.name, "definitions.json")
    with open(file, "w") as out:
        json.dump(DEFINITIONS, out)
    server.options = ["--events", "yes", "--definitions", file, "--definitions-strict"]
    server.start()
    channel = connect(server).channel()
    told = {}
    while (event := channel.basic_get("events", auto_ack=True))[0]:
        delivery, properties, _ = event
        if properties.headers.get("name") == "from-file":
            told[delivery.routing_key] = properties.headers["user_who_performed_action"]
    assert told == {"exchange.created": "rmq-internal", "queue.created": "rmq-internal"}, told

    channel.confirm_delivery()
    channel.basic_publish("", "from-file", b"1")
    channel.basic_publish("", "from-file", b"2")
    assert channel.queue_declare("from-file", durable=True, passive=True).method.message_count == 1

    at = pika.ConnectionParameters(server.host, server.port, credentials=pika.PlainCredentials("app", "app"))
    channel = pika.BlockingConnection(at).channel()
    channel.queue_declare("mine")
    try:
        channel.queue_declare("secret.queue")
        raise AssertionError("the permission has no effect")
    except pika.exceptions.ChannelClosedByBroker as problem:
        assert problem.reply_code == 403, problem
