"""The shape of a JSON answer: its keys and JSON types, recursively, and the values that the script determines.

A shape is itself JSON: `"integer"` (or another type, or several: `"null|string"`), `{"key": SHAPE}` for an object,
`[SHAPE]` for a list, where SHAPE is the union of its elements' shapes, and `{"=": VALUE}` where the value itself counts. In a union,
`"key?"` is a key that only some elements have. `number` is a number with a fraction, such as a rate.
"""

import re

# Their values follow from the script. Other values, such as counts, only have a type.
EXACT = frozenset(
    """error reason name user vhost durable auto_delete exclusive internal arguments type source destination destination_type
    routing_key properties_key pattern definition apply-to priority configure write read policy operator_policy
    effective_policy_definition tags tracing description exchange redelivered payload payload_encoding
    payload_bytes routed ack_required consumer_tag prefetch_count page page_size page_count item_count filtered_count
    total_count status component""".split()
)

# Numbers with a fraction, which are sometimes whole.
FRACTIONS = frozenset("rate avg avg_rate consumer_capacity consumer_utilisation".split())

# What is different each time, or on each machine.
VARYING = [
    (re.compile(r"127\.0\.0\.1:\d+"), "127.0.0.1:*"),
    (re.compile(r"\b(rabbit|ferrymq)[\w.-]*@[\w.-]+"), "rabbit@*"),
    (re.compile(r"amq\.gen-[\w-]+"), "amq.gen-*"),
    (re.compile(r"ctag1\.\w+"), "ctag1.*"),
    (re.compile(r"<\d+\.\d+\.\d+>"), "<*>"),
    # RabbitMQ says one or the other, depending on whether it has ever seen the word.
    (re.compile(r"^(unknown|invalid) exchange type"), "unknown exchange type"),
]


def steady(value):
    """The value without what is different each time."""
    if isinstance(value, str):
        for pattern, instead in VARYING:
            value = pattern.sub(instead, value)
        return value
    if isinstance(value, list):
        return [steady(one) for one in value]
    if isinstance(value, dict):
        return {steady(key): steady(one) for key, one in sorted(value.items())}
    return value


def shape(value, exact, key=None):
    if key in exact:
        return {"=": steady(value)}
    if isinstance(value, dict):
        # Sorted, because RabbitMQ's order is not always the same.
        return {steady(name): shape(one, exact, name) for name, one in sorted(value.items())}
    if isinstance(value, list):
        of = [shape(one, exact) for one in value]
        for other in of[1:]:
            of[0] = union(of[0], other)
        return of[:1]
    if key in FRACTIONS and type(value) is int:
        return "number"
    return {bool: "boolean", int: "integer", float: "number", str: "string", type(None): "null"}[type(value)]


def opened(value, keys):
    """The value with empty objects and lists at these keys, so that it does not matter what is in them."""
    if isinstance(value, list):
        return [opened(one, keys) for one in value]
    if isinstance(value, dict):
        return {key: type(one)() if key in keys else opened(one, keys) for key, one in value.items()}
    return value


def is_exact(one):
    return isinstance(one, dict) and list(one) == ["="]


def is_object(one):
    return isinstance(one, dict) and not is_exact(one)


def types(one):
    """The JSON types of a shape, as a set."""
    if is_exact(one):
        return types(shape(one["="], frozenset()))
    if isinstance(one, dict):
        return {"object"}
    if isinstance(one, list):
        return {"list"}
    return set(one.split("|"))


def union(one, other):
    if one == other:
        return one
    if is_object(one) and is_object(other):
        return union_of_objects(one, other)
    if isinstance(one, list) and isinstance(other, list):
        return [union(one[0], other[0])] if one and other else one or other
    return "|".join(sorted(types(one) | types(other)))


def union_of_objects(one, other):
    a, b = ({key.rstrip("?"): (key, value) for key, value in of.items()} for of in (one, other))
    together = {}
    for name in list(a) + [name for name in b if name not in a]:
        if name in a and name in b:
            optional = a[name][0].endswith("?") or b[name][0].endswith("?")
            together[name + "?" * optional] = union(a[name][1], b[name][1])
        else:
            together[name + "?"] = (a.get(name) or b.get(name))[1]
    return together


def differences(recorded, ours, at="body"):
    """What a recorded shape has and ours has not, as texts. More keys are allowed in ours."""
    if is_exact(recorded):
        if not is_exact(ours):
            yield f"{at}: recorded {recorded['=']!r}, ours has the type {'|'.join(sorted(types(ours)))}"
        elif ours["="] != recorded["="]:
            yield f"{at}: recorded {recorded['=']!r}, ours {ours['=']!r}"
        return
    if is_exact(ours):
        ours = shape(ours["="], frozenset())
    allowed = types(recorded) | ({"integer"} if "number" in types(recorded) else set())
    if not types(ours) <= allowed:
        yield f"{at}: recorded {'|'.join(sorted(types(recorded)))}, ours {'|'.join(sorted(types(ours)))}"
    elif is_object(recorded) and is_object(ours):
        yield from differences_of_objects(recorded, ours, at)
    elif isinstance(recorded, list) and recorded:
        if ours:
            yield from differences(recorded[0], ours[0], at + "[]")
        else:
            yield f"{at}: ours is empty"


def differences_of_objects(recorded, ours, at):
    for key, value in recorded.items():
        name = key.rstrip("?")
        if name in ours:
            yield from differences(value, ours[name], f"{at}.{name}")
        elif name + "?" not in ours:
            yield f"{at}.{name}: missing"
        elif key == name:
            yield f"{at}.{name}: missing in some"
        else:
            yield from differences(value, ours[name + "?"], f"{at}.{name}")
