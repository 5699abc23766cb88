"""Publishers are held up while a sync takes long, and not only once it is over: what they send meanwhile would be in memory.

All syncs are held back, as on a disk that is shared or mends itself, and one publisher sends as fast as it may: first bodies far
below those that have a file of their own, then such.
"""

import tempfile
import threading
import time

import pika
from dials import Dials
from pika_client import connect
from server import Server

MIB = 1 << 20
SENT_MAX, WAITING_MAX = 800 * MIB, 400  # bytes; MiB more than at the start
PERSISTENT = pika.BasicProperties(delivery_mode=pika.DeliveryMode.Persistent)


def publish(server, body_bytes, sent):
    channel, body = connect(server).channel(), bytes(body_bytes)
    try:
        while sent[0] < SENT_MAX:
            channel.basic_publish("", "q", body, PERSISTENT)
            sent[0] += body_bytes
    except (pika.exceptions.AMQPError, OSError):
        pass  # the server has been killed


def hold_up(body_bytes):
    with tempfile.TemporaryDirectory(prefix="ferrymq-") as folder:
        dials = Dials(folder)
        with Server(environment=dials.environment()) as server:
            server.must_be_ours_to_kill()
            connect(server).channel().queue_declare("q", durable=True)
            start, sent = server.memory_mib(), [0]
            dials[Dials.HOLD_SYNCS] = 1
            publisher = threading.Thread(target=publish, args=(server, body_bytes, sent))
            publisher.start()
            # Until the server says that publishers wait, or more waits than may.
            while "publishers wait" not in server.log() and publisher.is_alive():
                more = server.memory_mib() - start
                assert more < WAITING_MAX, f"{sent[0] // MIB} MiB are taken, and {more} MiB wait in memory"
                time.sleep(0.01)
            assert publisher.is_alive(), "a publisher sent all it had, and no sync has ended"
            dials[Dials.HOLD_SYNCS] = 0
            server.kill()
            publisher.join()


for body_bytes in (100_000, 4 * MIB):
    hold_up(body_bytes)
