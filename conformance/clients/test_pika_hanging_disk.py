"""While the disk does not answer, publishers are told why they wait, the log and the health check say so, and nothing is
confirmed. When it answers, everything goes on by itself."""

import tempfile

import pika
from dials import Dials
from pika_client import connect, wait_until
from server import Server

HANGS = "the disk does not answer"
PERSISTENT = pika.BasicProperties(delivery_mode=pika.DeliveryMode.Persistent)

with tempfile.TemporaryDirectory(prefix="ferrymq-") as folder:
    dials = Dials(folder)
    with Server(["--listen", "http=127.0.0.1:0"], environment=dials.environment()) as server:
        server.must_be_ours_to_kill()
        connection = connect(server)
        channel = connection.channel()
        channel.queue_declare("q", durable=True)
        told = []
        connection.add_on_connection_blocked_callback(lambda _, blocked: told.append(blocked.method.reason))
        connection.add_on_connection_unblocked_callback(lambda *_: told.append(None))
        confirmed = []
        channel._impl.confirm_delivery(lambda frame: confirmed.append(frame.method))
        channel.basic_publish("", "q", b"before", PERSISTENT)
        wait_until(lambda: len(confirmed) == 1, connection)

        dials[Dials.HOLD_SYNCS] = 1
        channel.basic_publish("", "q", b"meanwhile", PERSISTENT)
        wait_until(lambda: told, connection)
        assert told == [HANGS], told
        assert server.readiness() == {"status": "blocked", "reason": f"publishers wait: {HANGS}"}, server.readiness()
        assert "publishers wait: the disk has not answered for" in server.log()
        # Consumers are served.
        method, _, body = connect(server).channel().basic_get("q", auto_ack=True)
        assert method and body == b"before"
        assert len(confirmed) == 1, confirmed

        dials[Dials.HOLD_SYNCS] = 0
        wait_until(lambda: len(confirmed) == 2 and None in told, connection)
        assert server.readiness() == {"status": "ok"}
        assert "the disk answers again" in server.log()
