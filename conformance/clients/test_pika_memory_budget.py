"""The clients of one user take more memory than the budget, in several ways. The server stays near its budget: it closes some
of that user's connections, and the connection of another user goes on."""

import contextlib
import json
import os
import tempfile
import threading
import time

import pika
from server import Server

BUDGET_MIB = 96
# At an eighth over the budget, the server reads from no connection that holds much. The rest is for the input of one turn,
# and for the journal.
PEAK_MIB = BUDGET_MIB * 9 // 8 + 40
CLOSED = (pika.exceptions.AMQPConnectionError, pika.exceptions.ChannelWrongStateError)


class Peak:
    """Measures the server's memory again and again."""

    def __init__(self, server):
        self.server, self.mib, self.over = server, 0, threading.Event()
        self.thread = threading.Thread(target=self.watch)
        self.thread.start()

    def watch(self):
        while not self.over.wait(0.01):
            self.mib = max(self.mib, self.server.memory_mib())

    def end(self):
        self.over.set()
        self.thread.join()
        return self.mib


class Other:
    """The connection of another user. It sends messages to itself again and again."""

    def __init__(self, connection):
        self.channel = connection.channel()
        self.queue = self.channel.queue_declare("", exclusive=True).method.queue

    def echo(self):
        self.channel.basic_publish("", self.queue, b"echo")
        while self.channel.basic_get(self.queue, auto_ack=True)[0] is None:
            pass


def connect(server, user):
    credentials = pika.PlainCredentials(user, user)
    return pika.BlockingConnection(pika.ConnectionParameters(server.host, server.port, credentials=credentials))


def half_sent(connections):
    """Incomplete messages: each channel sends all but the last bytes of a message of 10 MB."""
    channels = [connection.channel() for connection in connections for _ in range(4)]
    for channel in channels:
        impl, number = channel.connection._impl, channel.channel_number
        impl._send_frame(pika.frame.Method(number, pika.spec.Basic.Publish(routing_key="nowhere")))
        impl._send_frame(pika.frame.Header(number, 10_000_000, pika.BasicProperties()))
    for _ in range(90):
        for channel in channels:
            with contextlib.suppress(*CLOSED):
                channel.connection._impl._send_frame(pika.frame.Body(channel.channel_number, bytes(100_000)))
        yield


def transactions(connections):
    """Open transactions: publishes without a commit."""
    channels = [connection.channel() for connection in connections]
    for channel in channels:
        channel.tx_select()
    for _ in range(300):
        for channel in channels:
            with contextlib.suppress(*CLOSED):
                channel.basic_publish("", "nowhere", bytes(100_000))
        yield


def unread_outboxes(connections):
    """Outboxes: messages go to many consumers that do not read. Such short bodies are copied for each consumer."""
    publisher, *consumers = [connection.channel() for connection in connections]
    for channel in consumers:
        queue = channel.queue_declare("", exclusive=True).method.queue
        channel.queue_bind(queue, "amq.fanout")
        channel.basic_consume(queue, lambda *_: None, auto_ack=True)
    for _ in range(100):
        for _ in range(100):
            publisher.basic_publish("amq.fanout", "", bytes(2_000))
        yield


def long_bodies(connections):
    """Long bodies: complete messages that are in memory until they are on disk."""
    channels = [connection.channel() for connection in connections]
    queue = channels[0].queue_declare("", exclusive=True).method.queue
    for _ in range(6):
        for channel in channels:
            with contextlib.suppress(*CLOSED):
                channel.basic_publish("", queue, bytes(4 << 20))
        yield


def is_open(connection):
    if connection.is_open:
        with contextlib.suppress(*CLOSED):
            connection.process_data_events(time_limit=0)
    return connection.is_open


def attack(server, other, name, clients, work, must_close):
    print(name)
    connections = [connect(server, "greedy") for _ in range(clients)]
    peak = Peak(server)
    try:
        for _ in work(connections):
            other.echo()
        # If the server closes no connection, the watchdog in `server` ends the program.
        while must_close and all(is_open(connection) for connection in connections):
            other.echo()
            time.sleep(0.01)
    finally:
        mib = peak.end()
    print(f"  peak {mib:.0f} MiB")
    assert mib <= PEAK_MIB, f"{name}: {mib} MiB"
    for connection in connections:
        with contextlib.suppress(Exception):
            connection.close()


def definitions():
    users = [{"name": name, "password": name, "tags": ""} for name in ("greedy", "other")]
    all_of = {"vhost": "/", "configure": ".*", "write": ".*", "read": ".*"}
    return {"users": users, "permissions": [{"user": user["name"], **all_of} for user in users]}


with tempfile.TemporaryDirectory() as folder:
    file = os.path.join(folder, "definitions.json")
    with open(file, "w") as out:
        json.dump(definitions(), out)
    with Server(["--definitions", file, "--limits-memory-bytes-max", f"{BUDGET_MIB}MiB"]) as server:
        server.must_be_ours_to_kill()
        other = Other(connect(server, "other"))
        attack(server, other, "half-sent messages", 8, half_sent, must_close=True)
        attack(server, other, "open transactions", 8, transactions, must_close=True)
        attack(server, other, "outboxes that are not read", 40, unread_outboxes, must_close=False)
        attack(server, other, "long bodies", 8, long_bodies, must_close=False)
        other.echo()
