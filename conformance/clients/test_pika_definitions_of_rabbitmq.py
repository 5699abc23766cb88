"""What RabbitMQ 3.10 exports (conformance/definitions/record makes the files) is imported and works; the log names exactly
what was left out."""

import os
import re

import pika
from pika_client import connect
from server import Server

EXPORTS = os.path.join(os.path.dirname(__file__), "..", "definitions")
STREAM = r"queues\[\d\] \('history'.*queue type 'stream' not implemented"
BOUND_STREAM = r"bindings\[\d\] \('ex.direct'.*queue 'history' is not there; add it to queues"
INNER = "exchange 'inner' is not there; add it to exchanges. rabbitmqctl leaves internal exchanges out of what it exports"
OF_PLUGINS = ["parameter 'up' of component 'federation-upstream'", "global parameter 'made_by'"]


def with_export(name, use, left_out, passed_over):
    """Starts a server with an export, uses it, and compares what its log says."""
    with Server() as server:
        server.must_be_ours_to_kill()
        server.options = ["--definitions", os.path.join(EXPORTS, name)]
        assert server.stop() == 0
        os.truncate(os.path.join(server.folder.name, "log"), 0)
        server.start()
        use(server)
        said = re.findall(rf"definitions \S*{name}: (.*)", server.log())
        found = [line.removeprefix("left out: ") for line in said if line.startswith("left out: ")]
        assert len(found) == len(left_out), found
        for pattern in left_out:
            assert any(re.match(pattern, line) for line in found), (pattern, found)
        others = [line for line in said if not line.startswith(("left out: ", "imported: "))]
        assert len(others) == len(passed_over), others
        for text in passed_over:
            assert any(line.startswith(text) for line in others), (text, others)


def log_in(server, user, password, vhost="shop"):
    credentials = pika.PlainCredentials(user, password)
    return pika.BlockingConnection(pika.ConnectionParameters(server.host, server.port, vhost, credentials))


def refused(code, channel, *publish):
    """Publishes what must close the channel."""
    try:
        channel.confirm_delivery()
        channel.basic_publish(*publish)
    except pika.exceptions.ChannelClosedByBroker as problem:
        assert problem.reply_code == code, problem
    else:
        raise AssertionError(f"it was not refused with {code}")


def use(server, has_inner):
    """Logs in as the exported users, and looks at what the exported policies, permissions and bindings do."""
    connect(server).close()
    app = log_in(server, "app", "pässword")
    try:
        app.channel().queue_declare("secret.queue")
        raise AssertionError("its permission does not hold")
    except pika.exceptions.ChannelClosedByBroker as problem:
        assert problem.reply_code == 403, problem
    refused(403, app.channel(), "events", "boss.order", b"")
    connection = log_in(server, "boss", "boss")
    channel = connection.channel()
    channel.confirm_delivery()

    def waiting(queue):
        return channel.queue_declare(queue, passive=True).method.message_count

    for number in range(5):
        channel.basic_publish("dead", "", b"%d" % number)
    assert waiting("dead.letters") == 3, "the operator policy keeps three"
    for number in range(3):
        channel.basic_publish("events", "order.made", b"", mandatory=True)
    try:
        channel.basic_publish("ex.headers", "", b"", pika.BasicProperties(headers={"kind": "new", "count": 3}))
        raise AssertionError("x-overflow is reject-publish")
    except pika.exceptions.NackError:
        assert waiting("orders.new") == 3
    channel.basic_publish("ex.x-consistent-hash", "any", b"", pika.BasicProperties(delivery_mode=2), mandatory=True)
    assert waiting("orders.quorum") == 1
    channel.basic_publish("events", "audit.login", b"")
    assert waiting("orders.lazy") == has_inner, "over the internal exchange"
    if has_inner:
        refused(403, connection.channel(), "inner", "", b"")


NO_SHOP = "vhost 'shop' is not there; add it to vhosts"
with_export(
    "rabbitmq-3.10-api.json",
    lambda server: use(server, True),
    [STREAM, BOUND_STREAM],
    [*OF_PLUGINS, "global parameter 'internal_cluster_id'"],
)
with_export(
    "rabbitmq-3.10-ctl.json",
    lambda server: use(server, False),
    [STREAM, BOUND_STREAM, *(rf"bindings\[\d\] \('{name}' in vhost 'shop'\): {INNER}" for name in ("events", "inner"))],
    OF_PLUGINS,
)
# The export of one vhost names the vhost of its policies and parameters only.
with_export(
    "rabbitmq-3.10-vhost.json",
    lambda server: connect(server).channel().queue_declare("orders.new", passive=True),
    [
        STREAM,
        BOUND_STREAM,
        *(rf"policies\[\d\] \('{name}' in vhost 'shop'\): {NO_SHOP}" for name in ("dead", "federated")),
        *(rf"parameters\[\d\] \('{name}' in vhost 'shop'\): {NO_SHOP}" for name in ("bounded", "limits")),
    ],
    [OF_PLUGINS[0], "entries without the key 'vhost' (26) are for vhost '/'"],
)
