"""Writes the folder of a tuning run that never ran: python3 make_tune_fixture.py DIR"""

import json
import os
import struct
import sys
import zlib


def png(path, width, height, rgb):
    def chunk(kind, data):
        return struct.pack(">I", len(data)) + kind + data + struct.pack(">I", zlib.crc32(kind + data))

    rows = (b"\0" + bytes(rgb) * width) * height
    with open(path, "wb") as f:
        f.write(b"\x89PNG\r\n\x1a\n" + chunk(b"IHDR", struct.pack(">IIBBBBB", width, height, 8, 2, 0, 0, 0)))
        f.write(chunk(b"IDAT", zlib.compress(rows)) + chunk(b"IEND", b""))


def main(folder):
    os.makedirs(folder + "/grids")
    lines = []
    for i in range(41):
        if i > 0:
            lines.append({"event": "round", "round": i, "seconds": 3.0 * i, "reward": 0.6 + 0.008 * i, "reward_std": 0.1, "loss": -0.6 - 0.008 * i,
                          "grad_norm": 0.5 + 0.1 * (i % 3)})
        if i % 10 == 0:
            judge = 0.5 + 0.02 * i - 0.0008 * i * i
            lines.append({"event": "eval", "round": i, "seconds": 3.0 * i + 1, "reward": 0.6 + 0.008 * i, "reward_se": 0.03,
                          "held_out": {"shapes-judge": judge, "a very long name of a reward that is held out=some/folder": 1.5},
                          "held_out_se": {"shapes-judge": 0.04}, "diversity": 0.9 - 0.01 * i, "distance": 0.01 * i, "grid": f"grids/r{i}.png"})
            png(f"{folder}/grids/r{i}.png", 512, 128, (60 + 4 * i, 90, 200 - 4 * i))
    for scale in (0, 0.25, 0.5, 0.75, 1):
        lines.append({"event": "sweep", "round": 40, "scale": scale, "reward": 0.6 + 0.3 * scale, "held_out": {"shapes-judge": 0.5},
                      "diversity": 0.9, "distance": 0.3 * scale, "grid": "grids/r40.png"})
    with open(folder + "/log.jsonl", "w") as f:
        f.write("".join(json.dumps(d) + "\n" for d in lines))
    run = {"kac_run": 1, "version": "0.1.0", "tune": "alignprop", "state": "finished", "n_rounds": 40, "file_round": 40, "n_prompts": 270,
           "n_layers": 56, "n_values": 118272, "rewards": [{"name": "clip=weights/shapes-clip", "weight": 1}], "sampler": "ddim", "n_steps": 25,
           "held_out": [{"name": "shapes-judge", "weight": 1}, {"name": "a very long name of a reward that is held out=some/folder", "weight": 1}],
           "command": ["kac", "tune", "-o", "x"], "options": {"rank": "8", "reward": ["clip"]}, "given": ["rank"], "seconds": {"tuning": 121},
           "grid": {"columns": 8, "rows": 2, "prompts": ["a red circle left of a blue square"] * 16}}
    with open(folder + "/run.json", "w") as f:
        json.dump(run, f)


main(sys.argv[1])
