"""What a client puts into a body is never taken for a part of the server's files: whatever it is, the server starts again and has
its messages.

The bodies are groups of journals: the last one of the server's own, and the last one of another server that was busier. Each is
repeated so often that it stands at each place of a block once, and their queue is deleted before the server ends.
"""

import os

import pika
from pika_client import connect
from server import Server

BLOCK = 4096
PERSISTENT = pika.BasicProperties(delivery_mode=pika.DeliveryMode.Persistent)
SMALL_JOURNAL = ["--storage-file-bytes", "256KiB"]
# What is longer, repeated once for each place of a block, has a file of its own and does not stand in the journal.
PIECE_BYTES_MAX = 255


def blocks_of(data):
    """What stands in the blocks of a journal, without the zeros behind it; of odd length, and short ones only."""
    journal = os.path.join(data, "journal")
    for name in sorted(os.listdir(journal)):
        with open(os.path.join(journal, name), "rb") as file:
            while block := file.read(BLOCK):
                piece = block.rstrip(b"\0")
                piece += bytes(1 - len(piece) % 2)
                if 1 < len(piece) <= PIECE_BYTES_MAX:
                    yield piece


def publish_all(channel, queue, bodies):
    for body in bodies:
        channel.basic_publish("", queue, body, PERSISTENT)


def start_again(server, how):
    """Ends a server after it was sent what its own journal and another one have; what it then has."""
    channel = connect(server).channel()
    channel.confirm_delivery()
    channel.queue_declare("victim", durable=True)
    publish_all(channel, "victim", (b"%d" % number for number in range(10)))
    channel.queue_declare("attacker", durable=True)
    own, newer = [*blocks_of(server.data)], [piece for piece in blocks_of(other.data) if b"short " in piece]
    publish_all(channel, "attacker", (piece * BLOCK for piece in (own[-1], newer[-1])))
    channel.queue_delete("attacker")
    how()
    server.start()
    channel = connect(server).channel()
    there = []
    while (got := channel.basic_get("victim", auto_ack=True))[0] is not None:
        there.append(got[2])
    return there


with Server(SMALL_JOURNAL) as other:
    other.must_be_ours_to_kill()
    busy = connect(other).channel()
    busy.confirm_delivery()
    busy.queue_declare("busy", durable=True)
    publish_all(busy, "busy", (bytes([number % 256]) * 20_000 for number in range(200)))
    # Each is a short group of its own.
    publish_all(busy, "busy", (b"short %d" % number for number in range(12)))
    expected = [b"%d" % number for number in range(10)]
    for end in ("stop", "kill"):
        with Server() as victim:
            there = start_again(victim, getattr(victim, end))
            assert there == expected, f"after {end}: {there}"
