"""The HTTP side of the scripts: requests, waiting for an answer, and what is recorded of an answer."""

import base64
import gzip
import http.client
import json
import time
from urllib.parse import quote

from shape import EXACT, opened, shape, steady

WAIT_SECONDS = 60
POLL_SECONDS = 0.1

# The headers of which clients or proxies make use. RabbitMQ's content-security-policy is left out: FerryMQ's is stricter.
HEADERS = """content-type content-encoding content-disposition location vary allow cache-control www-authenticate set-cookie
    access-control-allow-origin access-control-allow-methods""".split()


class Answer:
    def __init__(self, response, octets):
        self.status = response.status
        # What the script has waited for in vain.
        self.never = []
        self.headers = {name.lower(): value for name, value in response.getheaders()}
        self.octets = gzip.decompress(octets) if self.headers.get("content-encoding") == "gzip" else octets

    def json(self):
        try:
            return json.loads(self.octets)
        except ValueError:
            return None

    def at(self, path):
        """The value at a path such as `0.message_stats.publish` or `#` (the length). A missing value is None."""
        value = self.json()
        for key in path.split("."):
            if key == "#":
                return len(value) if isinstance(value, (list, dict)) else None
            if isinstance(value, list) and key.isdigit():
                value = value[int(key)] if int(key) < len(value) else None
            elif isinstance(value, dict) and key in value:
                value = value[key]
            else:
                return None
        return value


class Http:
    """One server, as the script's users see it."""

    def __init__(self, host, port, wait_seconds):
        self.host, self.port, self.wait_seconds = host, port, wait_seconds
        self.values = {}
        self.made = []

    def filled(self, text, encode=lambda value: value):
        """The text with the captured values in the place of `$name`."""
        for name in sorted(self.values, key=len, reverse=True):
            text = text.replace("$" + name, encode(self.values[name]))
        return text

    def ask(self, request):
        """Sends a request once. What it makes is remembered, and deleted at the end of the script."""
        path = self.filled(request.path, lambda value: quote(value, safe=""))
        body = None if request.body is None else self.filled(request.body).encode()
        headers = {"content-type": "application/json"} if body is not None else {}
        if request.user != "-":
            credentials = request.user if ":" in request.user else f"{request.user}:{request.user}"
            credentials = base64.b64encode(credentials.encode()).decode()
            headers["authorization"] = f"Basic {credentials}"
        for header, value in request.headers:
            headers.pop(header, None)
            if value:
                headers[header] = self.filled(value)
        connection = http.client.HTTPConnection(self.host, self.port, timeout=WAIT_SECONDS)
        try:
            connection.request(request.method, path, body, headers)
            response = connection.getresponse()
            answer = Answer(response, response.read())
        finally:
            connection.close()
        if request.method == "PUT" and answer.status == 201:
            self.made.append(path)
        return answer

    def answer(self, request):
        """Sends a request, again and again if the script waits for something in the answer."""
        deadline = time.monotonic() + self.wait_seconds
        while True:
            for before in request.first:
                self.ask(before)
            answer = self.ask(request)
            missing = [wanted for wanted in request.until if not holds(answer, wanted)]
            if not missing:
                break
            if time.monotonic() > deadline:
                answer.never = [f"never {' '.join(wanted)}" for wanted in missing]
                break
            time.sleep(POLL_SECONDS)
        for name, *path in request.captures:
            value = answer.headers.get(path[1]) if path[0] == "header" else answer.at(path[0])
            if value is None:
                raise SystemExit(f"{request.name}: nothing to capture at {path}: {answer.octets[:500]}")
            self.values[name] = str(value)
        return answer


def holds(answer, wanted):
    """Whether `PATH`, `PATH == JSON` or `PATH >= NUMBER` holds."""
    value = answer.at(wanted[0])
    if len(wanted) == 1:
        return value is not None
    limit = json.loads(wanted[2])
    if wanted[1] == "==":
        return value == limit
    return isinstance(value, (int, float)) and value >= limit


def recorded(request, answer, only_status):
    """What is kept of an answer: status, headers, shape, and the rows that the script asks for."""
    step, value = {"step": request.name, "status": answer.status}, answer.json()
    if not only_status:
        step["headers"] = {
            name: steady(answer.headers[name]) for name in HEADERS if name in answer.headers and name not in request.vary
        }
        if value is None and answer.octets and answer.octets != b"null":
            step["text"] = steady(answer.octets.decode(errors="replace")) if len(answer.octets) < 200 else "long"
        elif answer.octets:
            step["body"] = shape(opened(value, request.open), EXACT - request.vary | request.exact)
    if request.rows and answer.status == 200:
        step["rows"] = rows(value["items"] if isinstance(value, dict) else value, request.rows)
    for at, *keys in request.tables:
        step[f"table {at}"] = sorted(rows(answer.at(at) or [], keys), key=json.dumps)
    return step


def rows(items, keys):
    """The values of these keys in each item."""
    return [[steady(item.get(key)) for key in keys] for item in items]
