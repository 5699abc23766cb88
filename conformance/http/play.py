#!/usr/bin/env python3
"""Plays scripts of HTTP requests and AMQP traffic to a server, and records its answers or compares them with recorded ones.

usage: play.py --http HOST:PORT --amqp HOST:PORT [--record] [--wait SECONDS] [SCRIPT]...

The server must be fresh: only the user `guest` and the vhost `/`. Each script leaves it as it was. README.md says more.
"""

import argparse
import json
import os
import re
import sys

import script as scripts
from http_side import Http, recorded
from script import FOLDER, Request
from shape import differences
from traffic import Traffic

DIFFERENCES = os.path.join(FOLDER, "differences.txt")


class Play:
    """One script on one server."""

    def __init__(self, script, http_at, amqp_at, wait_seconds):
        self.script, self.traffic = script, Traffic(*amqp_at)
        self.http = Http(*http_at, wait_seconds)
        self.steps, self.unexpected, self.unmet = [], [], []

    def run(self):
        try:
            for step in self.script.steps:
                if isinstance(step, Request):
                    self.request(step)
                elif step[0] == "user":
                    self.user(*step[1])
                else:
                    self.traffic.run(step[0], [self.http.filled(arg) for arg in step[1]])
        finally:
            self.traffic.stop()
            self.clean_up()

    def request(self, request):
        answer = self.http.answer(request)
        if request.expected is not None and answer.status != request.expected:
            said = answer.octets[:300].decode(errors="replace")
            self.unexpected.append((request.name, f"status: the script expects {request.expected}, ours {answer.status} {said}"))
        self.unmet += [(request.name, text) for text in answer.never]
        self.steps.append(recorded(request, answer, self.script.only_status))

    def user(self, name, tags, *permissions):
        """user NAME TAGS [VHOST CONFIGURE WRITE READ]: makes a user whose password is its name"""
        self.must("PUT", f"/api/users/{name}", {"password": name, "tags": "" if tags == "-" else tags})
        if permissions:
            vhost, configure, write, read = permissions
            rights = {"configure": configure, "write": write, "read": read}
            self.must("PUT", f"/api/permissions/{vhost.replace('/', '%2F')}/{name}", rights)

    def must(self, method, path, body=None):
        answer = self.http.ask(Request("guest", method, path, None if body is None else json.dumps(body)))
        if answer.status >= 300:
            raise SystemExit(f"{self.script.name}: {method} {path}: {answer.status} {answer.octets}")
        return answer

    def clean_up(self):
        """Deletes what the script has made and has not deleted itself. Then the server must be fresh again."""
        for path in reversed(self.http.made):
            self.http.ask(Request("guest", "DELETE", path, None))
        self.must_be_fresh("the script has left this behind")

    def must_be_fresh(self, why):
        definitions = self.must("GET", "/api/definitions").json()
        users = [user["name"] for user in definitions["users"] if user["name"] != "guest"]
        vhosts = [vhost["name"] for vhost in definitions["vhosts"] if vhost["name"] != "/"]
        kinds = ("queues", "exchanges", "bindings", "policies", "parameters", "topic_permissions")
        left = users + vhosts + [thing for kind in kinds for thing in definitions[kind]]
        left += [queue["name"] for queue in self.must("GET", "/api/queues?columns=name").json()]
        if left:
            raise SystemExit(f"{self.script.name}: {why}: {left}")


def compare(was, now):
    """The differences of one step, as texts."""
    if was["status"] != now["status"]:
        return [f"status: recorded {was['status']}, ours {now['status']}"]
    found = []
    for name, value in was.get("headers", {}).items():
        ours = now["headers"].get(name)
        split = name in ("vary", "allow") and ours is not None
        same = set(re.split(", *", value)) == set(re.split(", *", ours)) if split else value == ours
        if not same:
            found.append(f"{name}: recorded {value!r}, ours {ours!r}")
    if "body" in was and "body" in now:
        found += differences(was["body"], now["body"])
    elif ("body" in was) != ("body" in now):
        found.append(f"body: recorded {'JSON' if 'body' in was else 'no JSON'}, ours {'JSON' if 'body' in now else 'no JSON'}")
    for key in ["text", "rows"] + [key for key in was if key.startswith("table")]:
        if was.get(key) != now.get(key):
            found.append(f"{key}: recorded {was.get(key)!r}, ours {now.get(key)!r}")
    return found


class Intended:
    """The lines of differences.txt: SCRIPT STEP | DIFFERENCE | REASON, where `*` stands for any text."""

    def __init__(self):
        self.lines = {}
        with open(DIFFERENCES, encoding="utf-8") as file:
            for line in file:
                if line.strip() and not line.startswith("#"):
                    step, difference, reason = (part.strip() for part in line.split(" | "))
                    if not reason:
                        raise SystemExit(f"{DIFFERENCES}: a reason is missing: {line}")
                    pattern = re.escape(f"{step} | {difference}").replace(r"\*", ".*")
                    self.lines[line.strip()] = (step.split()[0], re.compile(pattern, re.S), [])

    def covers(self, found):
        matching = [used for _, pattern, used in self.lines.values() if pattern.fullmatch(found)]
        for used in matching:
            used.append(found)
        return bool(matching)

    def stale(self, played):
        """The lines that have not been needed, although their scripts were played."""
        complete = set(played) == set(scripts.names())
        return [line for line, (name, _, used) in self.lines.items() if not used and (name in played or complete)]


def file_of(name):
    return os.path.join(FOLDER, "recorded", name + ".json")


def compact(value, indent=0):
    """JSON with a line for what fits into one."""
    line = json.dumps(value, ensure_ascii=False)
    if len(line) + indent <= 120 or not isinstance(value, (dict, list)) or not value:
        return line
    inner = " " * (indent + 1)
    if isinstance(value, list):
        return "[\n" + ",\n".join(inner + compact(one, indent + 1) for one in value) + "\n" + " " * indent + "]"
    parts = (f"{inner}{json.dumps(key, ensure_ascii=False)}: {compact(one, indent + 1)}" for key, one in value.items())
    return "{\n" + ",\n".join(parts) + "\n" + " " * indent + "}"


def record(play, server):
    with open(file_of(play.script.name), "w", encoding="utf-8") as file:
        file.write(compact({"server": server, "steps": play.steps}) + "\n")


def against_recording(play, known):
    """What differs in a script, as (step, difference). Steps whose status is known to be wrong are left out."""
    with open(file_of(play.script.name), encoding="utf-8") as file:
        was = json.load(file)["steps"]
    if [step["step"] for step in was] != [step["step"] for step in play.steps]:
        raise SystemExit(f"{play.script.name}: the script has changed since it was recorded")
    pairs = [(before, now) for before, now in zip(was, play.steps) if now["step"] not in known]
    return [(now["step"], text) for before, now in pairs for text in compare(before, now)]


def address(text):
    host, port = text.rsplit(":", 1)
    return host, int(port)


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--http", required=True, type=address)
    parser.add_argument("--amqp", required=True, type=address)
    parser.add_argument("--record", action="store_true")
    parser.add_argument("--wait", type=float, default=60, help="for how many seconds to repeat a request that waits for something")
    parser.add_argument("scripts", nargs="*", metavar="SCRIPT")
    args = parser.parse_args()
    played, intended, failures = args.scripts or scripts.names(), Intended(), 0
    for name in played:
        play = Play(scripts.read(name), args.http, args.amqp, args.wait)
        overview = play.must("GET", "/api/overview").json()
        play.must_be_fresh("the server is not fresh")
        play.run()
        found = play.unexpected
        if args.record and not play.unmet:
            record(play, f"{overview['product_name']} {overview['product_version']}")
        elif args.record:
            found = found + play.unmet
        else:
            found = found + play.unmet + against_recording(play, {step for step, _ in found})
        found = [f"{name} {step} | {text}" for step, text in found]
        unknown = [text for text in found if not intended.covers(text)]
        failures += len(unknown)
        print(f"{name}: {len(play.steps)} steps, {len(found) - len(unknown)} intended differences, {len(unknown)} others")
        for text in unknown:
            print(f"  {text}")
    stale = [] if args.record else intended.stale(played)
    for line in stale:
        print(f"differences.txt: this is no longer so: {line}")
    sys.exit(1 if failures or stale else 0)


if __name__ == "__main__":
    main()
