#!/usr/bin/env python3
"""A reward in ten lines: how red a picture is.

kac generate "a circle" --reward "command=python3 tools/examples/redness_scorer.py"

Standard output belongs to the protocol; print anything else to sys.stderr. Without "images" in the first line every image has a "path"
of a PNG file instead, for PIL.Image.open(image["path"]).
"""
import base64
import json
import sys

print(json.dumps({"protocol": 1, "images": "rgb_base64"}), flush=True)  # ready
for line in sys.stdin:
    ask, rewards = json.loads(line), []
    for image in ask["images"]:  # image["prompt"], ["width"], ["height"] are there too
        rgb = base64.b64decode(image["rgb_base64"])
        red, others = sum(rgb[0::3]), sum(rgb[1::3]) + sum(rgb[2::3])
        rewards.append((red - others / 2) / (255 * len(rgb) / 3))
    print(json.dumps({"id": ask["id"], "rewards": rewards}), flush=True)
