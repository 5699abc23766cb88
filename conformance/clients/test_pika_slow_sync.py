"""A sync takes long. The server makes publishers wait during the sync, because their messages would be in memory.

All syncs are delayed, as on a slow disk that other programs use, too. One publisher sends as fast as it can: first bodies that
stay in the journal, then bodies with their own files. When the syncs end, the publisher goes on.
"""

import tempfile
import threading

import pika
from dials import Dials
from pika_client import connect, wait_until
from server import Server

MIB = 1 << 20
SENT_MAX, WAITING_MAX = 1200 * MIB, 400  # bytes; MiB more than at the start
# While another client gets this many replies, a client from which the server reads sends at least some bytes.
ROUND_TRIPS = 500
PERSISTENT = pika.BasicProperties(delivery_mode=pika.DeliveryMode.Persistent)


class Publisher(threading.Thread):
    def __init__(self, server, body_bytes):
        super().__init__(daemon=True)
        self.channel, self.body = connect(server).channel(), bytes(body_bytes)
        self.sent, self.is_over = 0, False

    def run(self):
        try:
            while self.sent < SENT_MAX and not self.is_over:
                self.channel.basic_publish("", "q", self.body, PERSISTENT)
                self.sent += len(self.body)
        except (pika.exceptions.AMQPError, OSError):
            assert self.is_over


def hold_up(body_bytes):
    with tempfile.TemporaryDirectory(prefix="ferrymq-") as folder:
        dials = Dials(folder)
        with Server(environment=dials.environment()) as server:
            server.must_be_ours_to_kill()
            other = connect(server)
            channel = other.channel()
            channel.queue_declare("q", durable=True)
            # A passive declaration is answered without the disk.
            channel.queue_declare("beside", exclusive=True)
            start = server.memory_mib()
            dials[Dials.HOLD_SYNCS] = 1
            publisher = Publisher(server, body_bytes)
            publisher.start()
            before, unchanged = 0, 0
            while unchanged < ROUND_TRIPS or before == 0:
                channel.queue_declare("beside", passive=True)
                unchanged = unchanged + 1 if publisher.sent == before else 0
                before = publisher.sent
                more = server.memory_mib() - start
                assert more < WAITING_MAX, f"the server has read {before // MIB} MiB, and {more} MiB wait in memory"
            assert before < SENT_MAX, "the publisher sent all its messages, and no sync has ended"
            dials[Dials.HOLD_SYNCS] = 0
            wait_until(lambda: publisher.sent > before + 16 * MIB or publisher.sent >= SENT_MAX, other)
            publisher.is_over = True
            server.kill()
            publisher.join()


for body_bytes in (100_000, 4 * MIB):
    hold_up(body_bytes)
