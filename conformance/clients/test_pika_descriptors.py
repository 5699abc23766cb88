"""A client opens connections until the server has no file descriptors left. The server does not end, and when the
connections are gone, messages can be stored and read again.

The connections need no login. The two cases are those in which storage opens a file while it works: a long body, and a read
from a run.
"""

import os
import resource
import socket

import pika
from pika_client import connect, wait_until
from server import Server

FILES, MESSAGES, MIB = 128, 3_000, 1 << 20
PERSISTENT = pika.BasicProperties(delivery_mode=pika.DeliveryMode.Persistent)
SMALL_JOURNAL = ["--storage-file-bytes", "256KiB"]


def few_files():
    resource.setrlimit(resource.RLIMIT_NOFILE, (FILES, FILES))


def is_turned_away(opened):
    """Whether the server has closed this connection."""
    opened.setblocking(False)
    try:
        return opened.recv(1) == b""
    except BlockingIOError:
        return False
    except OSError:
        return True


def take_all(server, others):
    """Opens sockets until the server has no file descriptors left, or closes new connections to keep some."""
    sockets = [socket.create_connection((server.host, server.port)) for _ in range(FILES + 40)]
    held = f"/proc/{server.process.pid}/fd"
    wait_until(lambda: len(os.listdir(held)) >= FILES or any(map(is_turned_away, sockets)), others)
    return sockets


def drain(channel):
    count = 0
    while channel.basic_get("q", auto_ack=True)[0] is not None:
        count += 1
    return count


with Server(SMALL_JOURNAL, prepare=few_files) as server:
    server.must_be_ours_to_kill()
    channel = connect(server).channel()
    channel.queue_declare("q", durable=True)
    plain = channel.connection.channel()
    sockets = take_all(server, channel.connection)
    plain.basic_publish("", "q", bytes(2 * MIB), PERSISTENT)
    # The reply waits for the disk. So the server has processed the long body that came before it, and it works on.
    channel.queue_declare("other", durable=True)
    assert server.process.poll() is None, "the server has ended"
    for each in sockets:
        each.close()
    channel.confirm_delivery()
    channel.basic_publish("", "q", bytes(2 * MIB), PERSISTENT)
    assert drain(channel) == 2

with Server(SMALL_JOURNAL, prepare=few_files) as server:
    channel = connect(server).channel()
    channel.queue_declare("q", durable=True)
    channel.confirm_delivery()
    plain = channel.connection.channel()
    for number in range(MESSAGES):
        # The publisher waits for every hundredth confirm, and so for all messages before it.
        publisher = channel if number % 100 == 99 else plain
        publisher.basic_publish("", "q", b"%d" % number + bytes(1000), PERSISTENT)
    # No message is in memory any more.
    server.kill()
    server.start()
    channel = connect(server).channel()
    sockets = take_all(server, channel.connection)
    first = channel.basic_get("q", auto_ack=True)[0]
    for each in sockets:
        each.close()
    came = drain(connect(server).channel()) + (first is not None)
    assert came == MESSAGES, f"with file descriptors again, {came} of {MESSAGES} messages come"
