"""If the option allows it, a client can stop and resume the deliveries of a channel. By default this is refused."""

import pika
from pika_client import connect
from server import Server

with Server(["--limits-flow-can-stop", "yes"]) as server:
    server.must_be_ours_to_kill()
    connection = connect(server)
    channel, other = connection.channel(), connection.channel()
    channel.queue_declare("flow")
    came = []
    channel.basic_consume("flow", lambda _, method, properties, body: came.append(body), auto_ack=True)
    assert channel.flow(False) is False
    other.confirm_delivery()
    other.basic_publish("", "flow", b"held")
    # The message waits in the queue, even after other replies to this connection.
    assert other.queue_declare("flow", passive=True).method.message_count == 1
    assert came == []
    assert channel.flow(True) is True
    while not came:
        connection.process_data_events(time_limit=1)
    assert came == [b"held"]
    assert other.queue_declare("flow", passive=True).method.message_count == 0

with Server() as server:
    channel = connect(server).channel()
    try:
        channel.flow(False)
    except pika.exceptions.ConnectionClosedByBroker as closed:
        assert closed.reply_code == 540, closed
    else:
        raise AssertionError("the server did not refuse it")
