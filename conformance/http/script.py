"""Reads scripts. README.md in this folder describes the format."""

import os
import re
import shlex
from dataclasses import dataclass, field

FOLDER = os.path.dirname(os.path.abspath(__file__))
REQUEST = re.compile(r"(\S+) (GET|HEAD|PUT|POST|DELETE|OPTIONS|PATCH) (\S+)(?: (.*))?$")
TRAFFIC = "connect channel declare publish consume receive get cancel confirm tx close closed".split()


@dataclass
class Request:
    """One request, with what its indented lines say."""

    user: str
    method: str
    path: str
    body: str | None
    name: str = ""
    expected: int | None = None
    headers: list = field(default_factory=list)
    first: list = field(default_factory=list)
    until: list = field(default_factory=list)
    captures: list = field(default_factory=list)
    exact: set = field(default_factory=set)
    vary: set = field(default_factory=set)
    open: set = field(default_factory=set)
    rows: list = field(default_factory=list)
    tables: list = field(default_factory=list)


@dataclass
class Script:
    name: str
    steps: list
    only_status: bool = False
    groups: dict = field(default_factory=dict)


def names():
    return sorted(name[: -len(".script")] for name in os.listdir(FOLDER) if name.endswith(".script"))


def read(name):
    script = Script(name, [])
    path = os.path.join(FOLDER, name + ".script")
    with open(path, encoding="utf-8") as file:
        for number, line in enumerate(file, 1):
            line = line.rstrip("\n")
            if not line.strip() or line.lstrip().startswith("#"):
                continue
            try:
                add(script, line)
            except (ValueError, IndexError) as why:
                raise SystemExit(f"{path}:{number}: {why}: {line}")
    number_repetitions(script)
    return script


def add(script, line):
    words = line.split()
    request = REQUEST.match(line)
    if line.startswith(" "):
        for one in script.last:
            modify(one, words[0], line.split(None, 1)[1] if len(words) > 1 else "")
    elif line == "only status":
        script.only_status = True
    elif words[0] == "group":
        script.groups["@" + words[1]] = words[2:]
    elif request:
        users, method, path, body = request.groups()
        script.last = [Request(user, method, path, body) for user in script.groups.get(users, [users])]
        script.steps += script.last
    elif words[0] == "user":
        script.steps.append(("user", shlex.split(line)[1:]))
    elif words[0] in TRAFFIC:
        script.steps.append((words[0], line.split(None, 2)[1:]))
    else:
        raise ValueError("not a step")


def modify(request, word, rest):
    if word == "expect":
        request.expected = int(rest)
    elif word == "header":
        name, value = rest.split(":", 1)
        request.headers.append((name.lower(), value.strip()))
    elif word == "first":
        user, method, path, body = REQUEST.match(rest).groups()
        request.first.append(Request(user, method, path, body))
    elif word == "until":
        request.until.append(rest.split(None, 2))
    elif word == "capture":
        request.captures.append(rest.split())
    elif word in ("exact", "vary", "open"):
        getattr(request, word).update(rest.split())
    elif word == "rows":
        request.rows = rest.split()
    elif word == "table":
        request.tables.append(rest.split())
    elif word == "crlf":
        request.body = request.body.replace(r"\r\n", "\r\n")
    elif word == "nested":
        request.body = '{"a":' * int(rest) + "1" + "}" * int(rest)
    elif word == "filler":
        request.body = '{"a":"' + "x" * int(rest) + '"}'
    else:
        raise ValueError(f"what is `{word}`?")


def number_repetitions(script):
    """A step is named after its request. The second one of the same request gets ` #2`."""
    seen = {}
    for step in script.steps:
        if isinstance(step, Request):
            name = f"{step.user} {step.method} {step.path}"
            seen[name] = seen.get(name, 0) + 1
            step.name = name if seen[name] == 1 else f"{name} #{seen[name]}"
