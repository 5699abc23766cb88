"""The server is killed in a sync and started again. Messages that are published and confirmed after that are counted and
delivered.

The publisher sends transactions that are longer than the rest of a journal file, so that a sync comes between two groups of
one unit. A consumer takes deliveries, so that redelivered marks are written at the same time. The server is killed in each of
its first syncs in turn.
"""

import collections
import tempfile

import pika
from dials import Dials
from pika_client import connect
from server import Server

SYNCS, COMMITS, PER_COMMIT, AFTER = 16, 12, 60, 100
PERSISTENT = pika.BasicProperties(delivery_mode=pika.DeliveryMode.Persistent)
ENDED = (pika.exceptions.AMQPError, OSError)


def commit_until_killed(server):
    """Publishes until the server is killed. The consumer takes all deliveries and acks none. Returns how many commits were
    answered."""
    answered = 0
    try:
        consumer, channel = connect(server).channel(), connect(server).channel()
        consumer.basic_consume("t", lambda *_: None)
        channel.tx_select()
        for commit in range(COMMITS):
            for number in range(PER_COMMIT):
                channel.basic_publish("", "t", b"%06d-%03d " % (commit, number) + bytes(1000), PERSISTENT)
            channel.tx_commit()
            answered += 1
            consumer.connection.process_data_events(0)
    except ENDED:
        pass
    return answered


def drain(channel, queue):
    bodies = []
    while (got := channel.basic_get(queue, auto_ack=True))[0] is not None:
        bodies.append(got[2])
    return bodies


def check_after(server, answered, sync):
    channel = connect(server).channel()
    announced = channel.queue_declare("t", durable=True).method.message_count
    there = drain(channel, "t")
    assert len(there) == announced, f"sync {sync}: {announced} are announced, {len(there)} there"
    per_commit = collections.Counter(body[:6] for body in there)
    assert set(per_commit.values()) <= {PER_COMMIT}, f"sync {sync}: half a commit: {per_commit}"
    lost = [commit for commit in range(answered) if b"%06d" % commit not in per_commit]
    assert not lost, f"sync {sync}: commits {lost} were answered and are gone"
    channel.confirm_delivery()
    for number in range(AFTER):
        channel.basic_publish("", "t", b"after %d" % number, PERSISTENT)
    seen = len(drain(channel, "t"))
    assert seen == AFTER, f"sync {sync}: of {AFTER} messages confirmed after it {AFTER - seen} are not seen"


kills = 0
for sync in range(1, SYNCS + 1):
    with tempfile.TemporaryDirectory(prefix="ferrymq-") as folder:
        dials = Dials(folder)
        options = ["--storage-file-bytes", "256KiB", "--threads", "1"]
        with Server(options, environment=dials.environment()) as server:
            server.must_be_ours_to_kill()
            connect(server).channel().queue_declare("t", durable=True)
            dials[Dials.KILL_AT_SYNC] = sync
            answered = commit_until_killed(server)
            kills += answered < COMMITS
            dials[Dials.KILL_AT_SYNC] = 0
            server.kill()
            server.start()
            check_after(server, answered, sync)
assert kills > SYNCS // 2, f"only {kills} of {SYNCS} servers were killed in a sync"
