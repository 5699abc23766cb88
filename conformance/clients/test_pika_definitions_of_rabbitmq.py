"""The server imports the exports of RabbitMQ 3.10, and they work. The log names exactly what was left out.

Where RabbitMQ 3.10 is installed, it makes the exports now (conformance/definitions/record), and they must be the recorded ones,
except for the salted hashes and the id of the cluster. Elsewhere the recorded exports are used.
"""

import faulthandler
import json
import os
import re
import subprocess
import tempfile

import pika
from pika_client import connect
from server import SKIPPED, Server, watch

RECORDED = os.path.join(os.path.dirname(__file__), "..", "definitions")
RANDOM = r'(?<="password_hash": )".*"|"rabbitmq-cluster-id-.*"'
STREAM = r"queues\[\d\] \('history'.*queue type 'stream' not implemented"
BOUND_STREAM = r"bindings\[\d\] \('ex.direct'.*queue 'history' is not there; add it to queues"
INNER = "exchange 'inner' is not there; add it to exchanges. rabbitmqctl leaves internal exchanges out of what it exports"
OF_PLUGINS = ["parameter 'up' of component 'federation-upstream'", "global parameter 'made_by'"]


def entries(path):
    """The entries of an export in a fixed order, without its random values."""
    with open(path) as file:
        export = json.loads(re.sub(RANDOM, '""', file.read()))
    in_order = {key: sorted(json.dumps(entry, sort_keys=True) for entry in of) for key, of in export.items() if type(of) is list}
    return {**export, **in_order}


def make_exports(folder):
    """Makes the exports with the RabbitMQ of this machine. Returns their folder, or the folder of the recorded exports."""
    if os.environ.get("FERRYMQ_BIN") is None:
        return RECORDED
    # RabbitMQ may need a long time to start on a busy machine. The script has its own limits.
    faulthandler.cancel_dump_traceback_later()
    status = subprocess.run([os.path.join(RECORDED, "record"), folder]).returncode
    watch()
    if status == SKIPPED:
        return RECORDED
    assert status == 0, status
    for name in os.listdir(folder):
        made, recorded = entries(os.path.join(folder, name)), entries(os.path.join(RECORDED, name))
        assert made == recorded, (name, made, recorded)
    return folder


def with_export(exports, name, use, left_out, passed_over):
    """Starts a server with an export, uses it, and compares the lines of its log."""
    with Server() as server:
        server.must_be_ours_to_kill()
        server.options = ["--definitions", os.path.join(exports, name)]
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
    """Checks that a publish closes the channel with this reply code."""
    try:
        channel.confirm_delivery()
        channel.basic_publish(*publish)
    except pika.exceptions.ChannelClosedByBroker as problem:
        assert problem.reply_code == code, problem
    else:
        raise AssertionError(f"the publish was not refused with {code}")


def use(server, has_inner):
    """Logs in as the exported users, and checks the effects of the exported policies, permissions and bindings."""
    connect(server).close()
    app = log_in(server, "app", "pässword")
    try:
        app.channel().queue_declare("secret.queue")
        raise AssertionError("the permission has no effect")
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
    assert waiting("orders.lazy") == has_inner, "through the internal exchange"
    if has_inner:
        refused(403, connection.channel(), "inner", "", b"")


NO_SHOP = "vhost 'shop' is not there; add it to vhosts"
with tempfile.TemporaryDirectory(prefix="ferrymq-") as temporary:
    exports = make_exports(temporary)
    with_export(
        exports,
        "rabbitmq-3.10-api.json",
        lambda server: use(server, True),
        [STREAM, BOUND_STREAM],
        [*OF_PLUGINS, "global parameter 'internal_cluster_id'"],
    )
    with_export(
        exports,
        "rabbitmq-3.10-ctl.json",
        lambda server: use(server, False),
        [STREAM, BOUND_STREAM, *(rf"bindings\[\d\] \('{name}' in vhost 'shop'\): {INNER}" for name in ("events", "inner"))],
        OF_PLUGINS,
    )
    # In the export of one vhost, only policies and parameters name the vhost.
    with_export(
        exports,
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
