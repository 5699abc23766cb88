"""The server never takes the body of a message for a part of its own files. With any bodies, it starts again and has its
messages.

The bodies contain groups of journals: the last group of the server's own journal, and the last group of another server with
a longer journal. Each is repeated, so that it is at each position of a block once. The queue of the bodies is deleted before
the server ends.
"""

import os

import pika
from pika_client import connect
from server import Server

BLOCK = 4096
PERSISTENT = pika.BasicProperties(delivery_mode=pika.DeliveryMode.Persistent)
SMALL_JOURNAL = ["--storage-file-bytes", "256KiB"]
# A longer group, repeated for each position of a block, would have its own file and would not be in the journal.
PIECE_BYTES_MAX = 255


def blocks_of(data):
    """The contents of the blocks of a journal, without the zeros at the end. Only short ones with an odd length."""
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
    """Sends a server the blocks of its own journal and of another one, ends it, and starts it again. Returns its messages."""
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
    # Each is a short group.
    publish_all(busy, "busy", (b"short %d" % number for number in range(12)))
    expected = [b"%d" % number for number in range(10)]
    for end in ("stop", "kill"):
        with Server() as victim:
            there = start_again(victim, getattr(victim, end))
            assert there == expected, f"after {end}: {there}"
