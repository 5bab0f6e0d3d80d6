#!/usr/bin/env python3
"""A scorer of tests/reward/outside_test.sh: rewards are checksums of the PNG files, so that each picture has its own. The first argument
says how it behaves; COUNT and FILE are where it notes things."""
import base64
import json
import os
import signal
import sys
import time
import zlib

how, note = sys.argv[1], sys.argv[2] if len(sys.argv) > 2 else ""


def say(value):
    print(value if isinstance(value, str) else json.dumps(value), flush=True)


def rewards_of(ask):
    data = []
    for image in ask["images"]:
        data.append(open(image["path"], "rb").read() if "path" in image else base64.b64decode(image["png_base64"]))
    return [zlib.crc32(d) % 1000 / 1000 for d in data]


hello = {"protocol": 1, "name": "checksum", "more": [1]}
if how == "base64":
    hello["images"] = "png_base64"
if how == "one":
    hello["batch"] = 1
if how == "slow-start":
    time.sleep(1)
if how == "late-start":
    time.sleep(60)
if how == "early-exit":
    sys.exit("no model here")
if how == "silent-exit":
    sys.exit(3)
if how == "chatty":
    say("Loading model...")
if how == "protocol":
    hello["protocol"] = 2
if how == "images":
    hello["images"] = "jpeg"
if how == "batch":
    hello["batch"] = 0
if how == "list":
    hello = [1]
if how == "files":  # what is open besides the three streams
    print("open:", sorted(set(os.listdir("/proc/self/fd")) - {"0", "1", "2"}), file=sys.stderr)
say(hello)
if how == "children":  # one that would outlive it
    if os.fork() == 0:
        time.sleep(60)
    open(note, "w").write(str(os.getpgrp()))
for n, line in enumerate(sys.stdin, 1):
    ask = json.loads(line)
    if note and how not in ("children", "crash-at"):
        with open(note, "a") as f:
            f.write("%d\n" % len(ask["images"]))
    if how == "crash-at" and n == 3 and not os.path.exists(note):  # once only
        open(note, "w").close()
        raise ValueError("out of luck")
    if how == "signal":
        os.kill(os.getpid(), signal.SIGSEGV)
    if how == "hang":
        print("thinking", file=sys.stderr, flush=True)
        signal.signal(signal.SIGTERM, signal.SIG_IGN)
        time.sleep(60)
    if how == "close":
        os.close(1)
        time.sleep(60)
    if how == "error":
        say({"id": ask["id"], "error": "the picture is ugly"})
        continue
    answer = {"id": ask["id"], "rewards": rewards_of(ask), "seconds": 0}
    if how == "count":
        answer["rewards"].append(1)
    if how == "id":
        answer["id"] += 1
    if how == "no-id":
        del answer["id"]
    if how == "nan":
        answer["rewards"][0] = float("nan")
    if how == "huge":
        say(json.dumps(answer).replace("[", "[1e999, ").replace("1e999, " + str(answer["rewards"][0]), "1e999"))
        continue
    if how == "text":
        answer["rewards"][0] = "good"
    if how == "null":
        answer["rewards"] = None
    if how == "garbage":
        say("\x1b[31m{not json\x00")
        continue
    if how == "long":
        sys.stdout.write("x" * (3 << 20))
        sys.stdout.flush()
        time.sleep(60)
    if how == "stderr":
        print("y" * (1 << 20), file=sys.stderr, flush=True)
    say(answer)
