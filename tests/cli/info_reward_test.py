"""kac info on reward models, and what the program says about folders that are none; a classifier from end to end."""
import json
import os
import pathlib
import struct
import subprocess
import tempfile

KAC = os.environ["KAC_BINARY"]
failed = 0


def check(condition, what):
    global failed
    if not condition:
        failed += 1
        print("failed:", what)


def kac(*args):
    done = subprocess.run([KAC, *map(str, args)], capture_output=True, text=True, timeout=60)
    return done.returncode, done.stdout, done.stderr


def write(path, **tensors):
    """A safetensors file; a tensor is (shape, numbers)."""
    header, data = {}, b""
    for name, (shape, numbers) in sorted(tensors.items()):
        raw = struct.pack(f"<{len(numbers)}f", *numbers)
        header[name] = {"dtype": "F32", "shape": shape, "data_offsets": [len(data), len(data) + len(raw)]}
        data += raw
    text = json.dumps(header).encode()
    text += b" " * (-len(text) % 8)
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_bytes(struct.pack("<Q", len(text)) + text + data)


with tempfile.TemporaryDirectory() as name:
    here = pathlib.Path(name)
    # two layers without activation: w = [1 2] [[1 0 0] [0 1 1]] = [1 2 2], b = 1·0.5 + 2·0.25 + 3 = 4
    write(here / "head/head.safetensors", **{"layers.0.weight": ([2, 3], [1, 0, 0, 0, 1, 1]), "layers.0.bias": ([2], [0.5, 0.25]),
                                             "layers.2.weight": ([1, 2], [1, 2]), "layers.2.bias": ([1], [3])})
    for path in (here / "head", here / "head/head.safetensors"):
        code, out, err = kac("info", path, "--json")
        about = json.loads(out) if code == 0 else {}
        check("aesthetic" in about.get("reward", "") and about.get("embedding") == 3, f"info {path}: {out}{err}")
    code, out, err = kac("info", "weights/shapes-clip", "--json")
    about = json.loads(out) if code == 0 else {}
    check("clipscore" in about.get("reward", "") and about.get("picture_size") == 64, f"info shapes-clip: {out[:300]}{err}")

    write(here / "other/x.safetensors", **{"conv_in.weight": ([1, 1], [1])})
    code, out, err = kac("info", here / "other")
    check(code == 1 and "no reward model: it holds 1 tensors such as conv_in.weight" in err and err.count("\n") == 1, f"other: {err}")
    (here / "empty").mkdir()
    code, out, err = kac("info", here / "empty")
    check(code == 1 and "holds no weights" in err, f"empty: {err}")

    # one linear layer over the grey of a 1 × 1 picture: logits [g, 0.5]
    folder = here / "grey"
    write(folder / "model.safetensors", **{"c.weight": ([2, 1], [1, 0]), "c.bias": ([2], [0, 0.5])})
    config = {"model_type": "kac-cnn", "input": {"size": 1, "channels": 1}, "layers": [{"linear": "c"}], "labels": ["bright", "2nd"]}
    (folder / "config.json").write_text(json.dumps(config))
    picture = "tests/reward/data/emoji_u1f600.png"
    code, out, err = kac("score", picture, "--reward", f"classifier={folder}:bright", "--reward", f'classifier="{folder}:1"', "--json")
    check(code == 0, f"classifier: {err}")
    if code == 0:
        import math
        values = list(json.loads(out)["images"][0]["rewards"].values())
        check(abs(math.exp(values[0]) + math.exp(values[1]) - 1) < 1e-6, f"classifier: {values}")
    code, out, err = kac("score", picture, "--reward", f"classifier={folder}:2nd", "--json")
    check(code == 0 and json.loads(out)["rewards"][0]["weight"] == 1, f"a label that begins like a number is no weight: {out}{err}")
    code, out, err = kac("score", picture, "--reward", f"classifier={folder}:bright+2nd", "--json")
    check(code == 0 and list(json.loads(out)["images"][0]["rewards"].values())[0] == max(values), f"the likeliest of two labels: {out}{err}")
    for spec, words in ((f"classifier={folder}:bright+blue", 'no label "blue"'), (f"classifier={folder}:bright+", 'no label ""'), (f"classifier={folder}:blue", 'no label "blue" among the 2: bright, 2nd'), (f"classifier={folder}:7", "names no label"),
                        (f'classifier="{folder}:7"', 'no label "7"'), (f"clip={folder}", "is a classifier (reward classifier); wanted is a CLIP"),
                        (f"aesthetic={here / 'head'}", "DIR+HEAD"),
                        (f"aesthetic=weights/shapes-clip+{here / 'head'}", "made for another CLIP"),
                        (f"aesthetic=weights/shapes-clip+{folder}", "wanted is the head")):
        code, out, err = kac("score", picture, "--reward", spec)
        check(code in (1, 2) and words in err and err.count("\n") == 1, f"{spec}: {code} {err}")

raise SystemExit(failed != 0)
