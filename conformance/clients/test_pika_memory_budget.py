"""Who takes memory pays for it: whatever the clients of one user hold, the server stays near its budget, some of that user's
connections are closed, and another user's connection goes on."""

import contextlib
import json
import os
import tempfile
import threading
import time

import pika
from server import Server

BUDGET_MIB = 96
# Above the budget by an eighth nobody who holds much is read. The rest is what is read in one turn, and the journal.
PEAK_MIB = BUDGET_MIB * 9 // 8 + 40
CLOSED = (pika.exceptions.AMQPConnectionError, pika.exceptions.ChannelWrongStateError)


class Peak:
    """Looks at the server's memory again and again."""

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
    """Another user's connection, which sends itself a message again and again."""

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
    """Half-sent messages: 10 MB are announced on each channel, and all but the last bytes come."""
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
    """Open transactions: publishes that nobody commits."""
    channels = [connection.channel() for connection in connections]
    for channel in channels:
        channel.tx_select()
    for _ in range(300):
        for channel in channels:
            with contextlib.suppress(*CLOSED):
                channel.basic_publish("", "nowhere", bytes(100_000))
        yield


def unread_outboxes(connections):
    """Outboxes: consumers that read nothing of what is published to all of them. Bodies this short are copied for each."""
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
    """Long bodies: whole messages that wait in memory until they are on disk."""
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
        # Ends by the watchdog in `server` where none is closed.
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
