"""AMQPStorm's client of RabbitMQ's HTTP API: what it declares and publishes can be consumed over AMQP, and it sees the consumer."""

import urllib.request

import pika
from amqpstorm.management import ApiError, ManagementApi

from server import Server


def ask(server, path, body=None, method=None):
    """Asks the API of a server for something that AMQPStorm has no words for."""
    request = urllib.request.Request(f"http://{server.host}:{server.http_port}/api/{path}", body, method=method)
    request.add_header("authorization", "Basic Z3Vlc3Q6Z3Vlc3Q=")
    request.add_header("content-type", "application/json")
    with urllib.request.urlopen(request) as answer:
        return answer.read()


with Server(["--listen", "http=127.0.0.1:0"]) as server:
    api = ManagementApi(f"http://{server.host}:{server.http_port}", "guest", "guest")
    assert api.overview()["product_name"] == "FerryMQ"
    assert api.aliveness_test("/")["status"] == "ok"

    api.virtual_host.create("shop")
    api.user.create("anna", "secret", tags="management")
    api.user.set_permission("anna", "shop", "^orders", "^orders", "^orders")
    api.queue.declare("orders", virtual_host="shop", durable=True, arguments={"x-max-length": 5})
    api.exchange.declare("orders.in", exchange_type="topic", virtual_host="shop", durable=True)
    api.queue.bind(queue="orders", exchange="orders.in", routing_key="order.*", virtual_host="shop")
    bindings = api.queue.bindings("orders", virtual_host="shop")
    assert [(one["source"], one["properties_key"]) for one in bindings] == [("", "orders"), ("orders.in", "order.%2A")], bindings

    for path, body in [
        ("vhosts/shop", b'{"description": "the shop", "tags": "a,b", "default_queue_type": "quorum"}'),
        ("vhost-limits/shop/max-queues", b'{"value": 9}'),
        ("user-limits/anna/max-channels", b'{"value": 5}'),
        ("topic-permissions/shop/anna", b'{"exchange": "orders.in", "write": ".*", "read": "^order"}'),
        ("policies/shop/short", b'{"pattern": "^o", "definition": {"max-length": 3}, "apply-to": "queues", "priority": 2}'),
        ("operator-policies/shop/most", b'{"pattern": "", "definition": {"message-ttl": 99000}}'),
    ]:
        ask(server, path, body, "PUT")

    # Exported, imported into another server, exported again: the same bytes. Anna's password is right there, too.
    exported = ask(server, "definitions")
    with Server(["--listen", "http=127.0.0.1:0"]) as other:
        ask(other, "definitions", exported)
        assert ask(other, "definitions") == exported, (ask(other, "definitions"), exported)
        there = ManagementApi(f"http://{other.host}:{other.http_port}", "anna", "secret")
        assert there.whoami()["name"] == "anna"

    as_anna = ManagementApi(f"http://{server.host}:{server.http_port}", "anna", "secret")
    sent = {"properties": {"headers": {"n": 1}, "delivery_mode": 2}, "exchange": "orders.in", "virtual_host": "shop"}
    assert as_anna.basic.publish("first", "order.new", **sent)["routed"]
    assert not as_anna.basic.publish("lost", "elsewhere", **sent)["routed"]
    try:
        as_anna.queue.declare("other", virtual_host="shop")
        raise AssertionError("anna has no permission for this name")
    except ApiError as problem:
        assert problem.error_code == 401, problem

    # The same message over AMQP, and the consumer over HTTP.
    login = pika.PlainCredentials("anna", "secret")
    connection = pika.BlockingConnection(pika.ConnectionParameters(server.host, server.port, "shop", login))
    channel = connection.channel()
    channel.basic_qos(prefetch_count=7)
    method, properties, body = next(channel.consume("orders"))
    assert (body, properties.headers, properties.delivery_mode) == (b"first", {"n": 1}, 2), (body, properties)
    (seen,) = api.connection.list()
    assert (seen["user"], seen["vhost"], seen["client_properties"]["product"]) == ("anna", "shop", "Pika Python Client Library"), seen
    (seen,) = api.channel.list()
    assert (seen["consumer_count"], seen["messages_unacknowledged"], seen["prefetch_count"]) == (1, 1, 7), seen
    assert api.queue.get("orders", virtual_host="shop")["messages_unacknowledged"] == 1
    api.connection.close(api.connection.list()[0]["name"])
    try:
        while True:
            connection.process_data_events(time_limit=1)
    except pika.exceptions.ConnectionClosedByBroker as closed:
        assert closed.reply_code == 320, closed

    # What the closed connection held is ready again, and is got with its properties.
    (got,) = api.basic.get("orders", virtual_host="shop", requeue=False, to_dict=True)
    assert (got["payload"], got["properties"]["headers"], got["redelivered"]) == ("first", {"n": 1}, True), got
    api.user.delete("anna")
    api.virtual_host.delete("shop")
    assert [vhost["name"] for vhost in api.virtual_host.list()] == ["/"]
    assert [user["name"] for user in api.user.list()] == ["guest"]
