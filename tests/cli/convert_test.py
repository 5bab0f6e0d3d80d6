#!/usr/bin/env python3
"""kac convert: what goes from layout to layout is the same network, and what cannot go says so and leaves nothing behind."""
import json
import os
import shutil
import struct
import subprocess
import sys
import tempfile

KAC = os.environ["KAC_BINARY"]
SIZES = {"F32": 4, "F16": 2, "BF16": 2, "F64": 8, "I64": 8}
fails = []


def check(ok, what):
    if not ok:
        fails.append(what)
        print("failed:", what)


def kac(*args):
    return subprocess.run([KAC, *args], capture_output=True, text=True)


def write_st(path, tensors):
    """{name: (dtype, shape, bytes)}"""
    header, data = {}, b""
    for name, (dtype, shape, raw) in tensors.items():
        header[name] = {"dtype": dtype, "shape": shape, "data_offsets": [len(data), len(data) + len(raw)]}
        data += raw
    head = json.dumps(header).encode()
    with open(path, "wb") as f:
        f.write(struct.pack("<Q", len(head)) + head + data)


def read_st(path):
    with open(path, "rb") as f:
        all_bytes = f.read()
    n = struct.unpack("<Q", all_bytes[:8])[0]
    header = json.loads(all_bytes[8:8 + n])
    meta = header.pop("__metadata__", {})
    data = all_bytes[8 + n:]
    return {k: (v["dtype"], v["shape"], data[v["data_offsets"][0]:v["data_offsets"][1]]) for k, v in header.items()}, meta


def floats(n, seed):
    state, out = seed, []
    for _ in range(n):
        state = (state * 1103515245 + 12345) % 2**31
        out.append(state / 2**30 - 1)
    return struct.pack("<%df" % n, *out)


def outputs(model, top):
    """The results of every network of a model on the same numbers."""
    found = {}
    cases = {"unet": {"sample": ("F32", [1, 4, 16, 16], floats(1024, 1)), "timestep": ("F32", [1], struct.pack("<f", 500)),
                      "encoder_hidden_states": ("F32", [1, 24, 128], floats(24 * 128, 2))},
             "text_encoder": {"input_ids": ("I64", [1, 24], struct.pack("<24q", *range(24)))},
             "vae.decode": {"z": ("F32", [1, 4, 8, 8], floats(256, 3))}}
    index = json.load(open("weights/shapes-64/unet/config.json"))
    text = json.load(open("weights/shapes-64/text_encoder/config.json"))
    width, n = index["cross_attention_dim"], text["max_position_embeddings"]
    cases["unet"]["encoder_hidden_states"] = ("F32", [1, n, width], floats(n * width, 2))
    cases["text_encoder"]["input_ids"] = ("I64", [1, n], struct.pack("<%dq" % n, *range(n)))
    for name, tensors in cases.items():
        write_st(top + "/in.safetensors", tensors)
        done = kac("run", name, "--model", model, "--in", top + "/in.safetensors", "--out", top + "/out.safetensors")
        check(done.returncode == 0, "run %s of %s: %s" % (name, model, done.stderr))
        found[name] = read_st(top + "/out.safetensors")[0] if done.returncode == 0 else None
    return found


def layouts(top):
    one, folder, again = top + "/one.safetensors", top + "/folder", top + "/again"
    want = outputs("weights/shapes-64", top)
    done = kac("convert", "weights/shapes-64", one, "--json")
    check(done.returncode == 0 and json.loads(done.stdout)["kind"] == "single file", "to one file: " + done.stderr)
    names, meta = read_st(one)
    check("model.diffusion_model.input_blocks.0.0.weight" in names and "first_stage_model.decoder.mid.attn_1.q.weight" in names, "LDM names")
    check(len(names["first_stage_model.decoder.mid.attn_1.q.weight"][1]) == 4, "1x1 convolutions in one file")
    check("kac.config.unet" in meta and meta["format"] == "pt", "metadata")
    check(outputs(one, top) == want, "one file gives the folder's numbers")
    check(kac("convert", one, folder).returncode == 0, "back to a folder")
    check(outputs(folder, top) == want, "the folder made of one file gives the same numbers")
    a = read_st("weights/shapes-64/unet/diffusion_pytorch_model.safetensors")[0]
    check(read_st(folder + "/unet/diffusion_pytorch_model.safetensors")[0] == a, "the same tensors after both ways")
    vocab = json.load(open(folder + "/tokenizer/vocab.json", encoding="utf-8"))
    check(len(vocab) == 49408 and vocab["<|endoftext|>"] == 49407 and vocab["!</w>"] == 256 and vocab["the</w>"] == 518, "vocabulary")
    check(not [f for f in os.listdir(top) if ".part-" in f], "no half-made folder")
    check(kac("convert", "weights/shapes-64", again, "--dtype", "bf16").returncode == 0, "folder to folder")
    b = read_st(again + "/unet/diffusion_pytorch_model.safetensors")[0]
    check(set(a) == set(b) and {v[0] for v in b.values()} == {"BF16"}, "bf16")
    check(open(again + "/tokenizer/merges.txt").read() == open("weights/shapes-64/tokenizer/merges.txt").read(), "tokenizer copied")
    check(kac("info", again).returncode == 0, "info of the result")
    info = kac("info", one, "--json")
    check(info.returncode == 0, "info of one file: " + info.stderr)


def shards(top):
    a, meta = read_st("weights/shapes-64/vae/diffusion_pytorch_model.safetensors")
    os.makedirs(top + "/vae")
    shutil.copy("weights/shapes-64/vae/config.json", top + "/vae/config.json")
    names = sorted(a)
    parts = {"m-1.safetensors": names[::2], "m-2.safetensors": names[1::2]}
    for part, part_names in parts.items():
        write_st(top + "/vae/" + part, {n: a[n] for n in part_names})
    index = {"weight_map": {n: part for part, part_names in parts.items() for n in part_names}}
    json.dump(index, open(top + "/vae/diffusion_pytorch_model.safetensors.index.json", "w"))
    check(kac("convert", top + "/vae", top + "/whole").returncode == 0, "shards into one")
    check(read_st(top + "/whole/diffusion_pytorch_model.safetensors")[0] == a, "all tensors of the shards")
    half = open(top + "/vae/m-2.safetensors", "rb").read()
    open(top + "/vae/m-2.safetensors", "wb").write(half[:len(half) // 2])
    done = kac("convert", top + "/vae", top + "/bad")
    check(done.returncode == 1 and "m-2.safetensors" in done.stderr and done.stderr.count("\n") == 1, "half a shard: " + done.stderr)
    open(top + "/vae/m-2.safetensors", "w").write("version https://git-lfs.github.com/spec/v1\noid sha256:0\nsize 1\n")
    done = kac("convert", top + "/vae", top + "/bad")
    check(done.returncode == 1 and "git lfs pull" in done.stderr, "LFS pointer: " + done.stderr)
    os.remove(top + "/vae/m-2.safetensors")
    done = kac("convert", top + "/vae", top + "/bad")
    check(done.returncode == 1 and "names the shard m-2.safetensors" in done.stderr, "missing shard: " + done.stderr)
    check(not os.path.exists(top + "/bad") and not [f for f in os.listdir(top) if ".part-" in f], "nothing left behind")


def files(top):
    out = top + "/plain.safetensors"
    check(kac("convert", "tests/io/data/torch/plain.pt", out).returncode == 0, ".pt to safetensors")
    got, want = read_st(out)[0], read_st("tests/io/data/torch/twin.safetensors")[0]
    check(got == want, "the tensors of the .pt")
    before = open(out, "rb").read()
    done = kac("convert", "tests/io/data/torch/old.pt", out)
    check(done.returncode == 2 and "--overwrite" in done.stderr and open(out, "rb").read() == before, "not overwritten: " + done.stderr)
    check(kac("convert", "tests/io/data/torch/training.ckpt", out, "--overwrite", "--dtype", "f16").returncode == 0, "overwritten")
    got, meta = read_st(out)
    check(got["w"][0] == "F16" and got["i64"][0] == "I64" and meta["global_step"] == "875000", "f16, numbers, metadata")
    write_st(top + "/large.safetensors", {"large": ("F32", [1], struct.pack("<f", 1e6))})
    done = kac("convert", top + "/large.safetensors", top + "/small.safetensors", "--dtype", "f16")
    check(done.returncode == 1 and "large holds 1e+06" in done.stderr, "overflow: " + done.stderr)
    done = kac("convert", "tests/io/data/torch/module.pt", top + "/small.safetensors")
    check(done.returncode == 1 and "torch.nn.modules.linear.Linear" in done.stderr, "pickle with code: " + done.stderr)
    done = kac("convert", "tests/io/data/torch/plain.pt", top + "/model")
    check(done.returncode == 1 and "no network under the names" in done.stderr, "no checkpoint: " + done.stderr)
    done = kac("convert", top + "/nowhere", top + "/x.safetensors")
    check(done.returncode == 1 and "no file or folder" in done.stderr, "nothing there")
    check(not [f for f in os.listdir(top) if ".part-" in f or f in ("small.safetensors", "model")], "nothing left behind")


def main():
    with tempfile.TemporaryDirectory() as top:
        for part in (files, shards, layouts):
            folder = os.path.join(top, part.__name__)
            os.mkdir(folder)
            part(folder)
    print("%d failed" % len(fails))
    return 1 if fails else 0


if __name__ == "__main__":
    sys.exit(main())
