"""What counts as a difference between a recorded answer and ours."""

from shape import EXACT, differences, shape


def between(recorded, ours):
    return list(differences(shape(recorded, EXACT), shape(ours, EXACT)))


assert between({"count": 1, "rate": 0.5}, {"count": 7, "rate": 2, "more": True}) == []
assert between({"count": 1}, {}) == ["body.count: missing"]
assert between({"count": 1}, {"count": 1.5}) == ["body.count: recorded integer, ours number"]
assert between({"count": 1}, {"count": None}) == ["body.count: recorded integer, ours null"]
assert between({"name": "q"}, {"name": "p"}) == ["body.name: recorded 'q', ours 'p'"]
assert between({"reason": "port 127.0.0.1:80"}, {"reason": "port 127.0.0.1:99"}) == []
assert between({"memory": {"a": 1}}, {"memory": []}) == ["body.memory: recorded object, ours list"]
assert between([], [{"a": 1}]) == []
assert between([{"a": 1}], []) == ["body: ours is empty"]
# A list counts as the union of its elements: `b` is in some, `a` in all.
assert between([{"a": 1}, {"a": 1, "b": 2}], [{"a": 1, "b": 2}]) == []
assert between([{"a": 1}, {"a": 1, "b": 2}], [{"a": 1}]) == ["body[].b: missing"]
assert between([{"a": 1}], [{"a": 1}, {}]) == ["body[].a: missing in some"]
assert between([{"a": 1}, {"a": None}], [{"a": 1}]) == []
assert between([{"a": 1}], [{"a": 1}, {"a": None}]) == ["body[].a: recorded integer, ours integer|null"]
assert between([{"name": "q"}, {"name": "p"}], [{"name": "r"}]) == []
