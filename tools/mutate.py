#!/usr/bin/env python3
"""Mutation check of the steering methods: mistakes that published codes have made (and some of the same kind), put in one at a time.

    python3 tools/mutate.py              all; a table of which test caught what; exit 1 when one survives or fits no more
    python3 tools/mutate.py systematic   those whose description has this word
    python3 tools/mutate.py --list
    python3 tools/mutate.py --fits       only whether every line is still there, in an instant

The source is copied to a temporary folder; a mutation is one line of a file replaced by another. Only the methods, src/base and the
named tests are compiled, so it takes minutes. A mutation whose line is not there any more must be written anew, not dropped: the
mistake is still possible."""
import argparse
import concurrent.futures
import glob
import os
import re
import shlex
import shutil
import subprocess
import sys
import tempfile

ROOT = os.path.dirname(os.path.dirname(os.path.abspath(__file__)))
S = "samplers/"

# (what, file, line or part of it that occurs once, what it becomes, tests in the order of trying)
MUTATIONS = [
    # ---- published: FK steering's code
    ("weights dropped where nothing is resampled, though the previous reward moves on", S + "swarm.c",
     "if (!s->resampled[g]) continue;",
     "if (!s->resampled[g]) { if (threshold > 0.0) memset(log_w, 0, (size_t)k * sizeof(double)); continue; }",
     "chain twist"),
    ("the last potential of max and sum takes the accumulated reward", S + "fk.c",
     "log_g = f->lambda * r - s->log_product[i];",
     "log_g = f->lambda * (f->kind == MAX ? fmax(before, r) : before + r) - s->log_product[i];", "steer chain"),
    ("max starts at 0: negative rewards select nothing", S + "fk.c",
     "s->memory[i] = f->kind == MAX ? -INFINITY : 0.0;", "s->memory[i] = 0.0;", "steer"),
    ("weights clamped at 1e10", S + "fk.c", "s->log_w[i] += log_g;", "s->log_w[i] += fmin(log_g, log(1e10));", "steer"),
    ("the last weights are thrown away", S + "fk.c", "    weigh(f, true);", "", "chain steer"),
    ("a resampling at the end, by effective sample size", S + "fk.c",
     "KAC_TRY(kac_swarm_resample(s, n_steps, 0.0, f->scheme));",
     "KAC_TRY(kac_swarm_resample(s, n_steps, 0.5, f->scheme));", "steer"),
    ("the product takes a factor only where something was resampled", S + "fk.c", "s->log_product[i] += log_g;",
     "s->log_product[i] += s->resampled[i / s->n_per_group] ? log_g : 0.0;", "steer chain"),
    ("the previous reward of difference never moves on", S + "fk.c", "            s->memory[i] = r;", "", "steer chain"),
    # ---- published: DAS
    ("the previous twist stays behind when particles move", S + "swarm.c",
     "double *const doubles[] = {s->memory + first, s->log_product + first};",
     "double *const doubles[] = {s->log_product + first};", "chain"),
    ("the product of potentials stays behind when particles move", S + "swarm.c",
     "double *const doubles[] = {s->memory + first, s->log_product + first};",
     "double *const doubles[] = {s->memory + first};", "chain"),
    ("the gradient stays behind when particles move", S + "guidance.c",
     "const int from = i - i % s->n_per_group + s->ancestors[i];", "const int from = i;", "guidance"),
    ("log Z over all prompts together", S + "swarm.c", "kac_log_weights_log_mean(log_w, k);",
     "kac_log_weights_log_mean(s->log_w, s->n);", "steer"),
    ("the best of all prompts instead of one's own", S + "candidates.c",
     "for (int i = 1; i < n; i++)", "for (int i = 1; i < s->n - first; i++)", "steer"),
    # ---- published: trees
    ("log-sum-exp instead of log-mean-exp as a node's value", S + "tree.c",
     "(sum - log(n)) / t->lambda;", "sum / t->lambda;", "tree"),
    ("a tree's paths weigh nothing", S + "tree.c", "*log_w -= log(n * (1.0 - epsilon) * share + epsilon);",
     "*log_w -= 0.0 * log(n * (1.0 - epsilon) * share + epsilon);", "tree"),
    ("a tree's weights leave out how many children there are", S + "tree.c",
     "*log_w -= log(n * (1.0 - epsilon) * share + epsilon);", "*log_w -= log((1.0 - epsilon) * share + epsilon);",
     "tree"),
    ("children of one node draw the same noise", S + "tree.c", "(uint64_t)(node->level + 1)) + (uint64_t)index);",
     "(uint64_t)(node->level + 1)) + 0 * (uint64_t)index);", "tree"),
    # ---- published: SVDD, TDS, importance sampling
    ("svdd takes the best candidate, and weighs as if it had drawn", S + "svdd.c", "v->best ? NULL : log_w",
     "NULL", "chain"),
    ("svdd forgets the chain's weight", S + "svdd.c", "v->carry ? s->log_w[i] + value - s->memory[i] : value",
     "v->carry ? value - s->memory[i] : value", "chain twist"),
    ("log-sum-exp instead of log-mean-exp as an estimate of Z", S + "weights.c",
     "kac_log_sum_exp(log_w, k) - log((double)k)", "kac_log_sum_exp(log_w, k)", "steer"),
    ("importance weights of the wrong sign", S + "best_of_n.c", "s->log_w[i] += lambda * s->rewards[i];",
     "s->log_w[i] -= lambda * s->rewards[i];", "steer"),
    ("p / q upside down", S + "swarm.c", "s->log_w[i] += s->weights_before[i];", "s->log_w[i] -= s->weights_before[i];",
     "twist"),
    ("p / q left out", S + "swarm.c", "s->log_w[i] += s->weights_before[i];",
     "s->log_w[i] += 0.0 * s->weights_before[i];", "twist"),
    ("the density of a shifted step of the wrong sign", S + "mixture.c",
     "ratio -= (2.0 * s * (double)z[i] + d) * d / (2.0 * s * s);",
     "ratio += (2.0 * s * (double)z[i] + d) * d / (2.0 * s * s);", "guidance"),
    ("the density of a shifted step without the square of the shift", S + "mixture.c",
     "(2.0 * s * (double)z[i] + d) * d / (2.0 * s * s)", "2.0 * s * (double)z[i] * d / (2.0 * s * s)", "guidance"),
    ("a twist is not remembered", S + "twisted.c", "        s->memory[i] = twist;", "", "chain"),
    # ---- published: Psi-Sampler
    ("ancestors of an earlier resampling where there was none", S + "swarm.c",
     "for (int i = 0; i < s->n; i++) s->ancestors[i] = i % k;", "", "steer guidance"),
    ("a chain takes every proposal", S + "psi.c", "if (!(log(u) < log_ratio)) return;",
     "if (isnan(log(u) + log_ratio)) return;", "psi"),
    ("a chain's acceptance upside down", S + "psi.c", "if (!(log(u) < log_ratio)) return;",
     "if (!(log(u) < -log_ratio)) return;", "psi"),
    # ---- bookkeeping
    ("weights are kept after a resampling", S + "swarm.c", "        memset(log_w, 0, (size_t)k * sizeof(double));", "",
     "chain twist"),
    ("a resampling adds nothing to log Z", S + "swarm.c", "        s->log_z[g] = s->running_log_z[g];", "", "chain twist"),
    ("a resampling is not made where the weights say so", S + "swarm.c", "s->ess[g] < threshold * k", "s->ess[g] < threshold",
     "steer"),
    ("effective sample size without its square", S + "weights.c", "return sum * sum / squares;", "return sum / squares;",
     "steer"),
    ("ancestors of ancestors are lost", S + "swarm.c", "s->eves[first + i] = s->counts[ancestors[i]];",
     "s->eves[first + i] = s->counts[i];", "steer"),
    ("a reward that is no number passes", S + "swarm.c", "if (isfinite(s->rewards[slot])) return KAC_OK;",
     "if (slot >= 0) return KAC_OK;", "steer"),
    ("memory is missing from checkpoints", S + "swarm.c", '(kac_blob){"memory", s->memory, per_slot}',
     '(kac_blob){"memory", s->memory, 0}', "steer"),
    # ---- resampling
    ("systematic: index off by one", S + "resample.c", "while (i < k - 1 && sums[i] <= position) i++;",
     "while (i < k - 1 && sums[i + 1] <= position) i++;", "resample"),
    ("systematic: no common offset", S + "resample.c", "const double common = kac_rng_uniform(key, group, 0);",
     "const double common = 0.5 + 0 * kac_rng_uniform(key, group, 0);", "resample"),
    ("multinomial: never the first", S + "resample.c", "int low = 0, high = k - 1;", "int low = k > 1, high = k - 1;",
     "resample"),
    ("residual: the rest is drawn by whole weights", S + "resample.c",
     "    cumulate(rest, rest, k);\n    count_multinomial(counts, rest, k, n, key, group);",
     "    cumulate(rest, weights, k);\n    count_multinomial(counts, rest, k, n, key, group);", "resample"),
    ("ssp: the wrong one grows", S + "resample.c", "* (give + take) < give)", "* (give + take) > give)", "resample"),
    # ---- code, dsearch, rbf
    ("code: a block is compared one step late", S + "code.c", "i_step % c->block == 0", "i_step % c->block == 1", "steer"),
    ("dsearch: beams lose their prompts", S + "dsearch.c", "return (int64_t)(beam / k * 2 + (i_step + 1) % 2) * k + beam % k;",
     "return (int64_t)((i_step + 1) % 2) * k + beam % k;", "candidates"),
    ("dsearch: the worst candidate goes on", S + "dsearch.c", "<= d->child_value[beam]) continue;",
     "> d->child_value[beam] && d->child_value[beam] > -INFINITY) continue;", "candidates"),
    ("dsearch: the best beams are dropped", S + "dsearch.c",
     "d->child_value[first + d->order[first + at - 1]] < d->child_value[first + i]",
     "d->child_value[first + d->order[first + at - 1]] > d->child_value[first + i]", "candidates"),
    ("dsearch: all candidates of a pass share one noise", S + "dsearch.c", "d->keys[n++] = (uint64_t)candidate;",
     "d->keys[n++] = (uint64_t)first;", "candidates"),
    ("rbf: nothing rolls over", S + "rbf.c", "(rolls ? c->quota - f->drawn[g] : 0)", "(rolls ? 0 : 0)", "candidates"),
    ("rbf: the end does not spend the rest", S + "rbf.c", "c->quota = n_left <= 1 ? all", "c->quota = n_left < 1 ? all",
     "candidates"),
    ("rbf: a candidate behind the winner goes on", S + "rbf.c", "        if (f->done[group]) continue;", "", "candidates"),
]


def sh(command, **more):
    return subprocess.run(command, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True, **more)


class Build:
    """Objects of the methods and src/base in a copy of the tree; a test is one program."""

    def __init__(self, folder):
        self.folder = folder
        for part in ("samplers", "src", "include", "tests"):
            shutil.copytree(os.path.join(ROOT, part), os.path.join(folder, part), ignore=shutil.ignore_patterns("golden"))
        flags = sh(["pkg-config", "--cflags", "libcjson"]).stdout.split()
        self.libs = sh(["pkg-config", "--libs", "libcjson"]).stdout.split() + ["-lm", "-lz", "-lpthread"]
        self.compiler = shlex.split(os.environ.get("CC", "cc"))
        self.flags = ["-std=c11", "-O1", "-w", "-D_GNU_SOURCE", '-DKAC_VERSION="mutated"', "-I.", "-Iinclude", "-Isrc", "-Itests",
                      "-Itests/samplers"] + flags
        os.mkdir(os.path.join(folder, "objects"))
        self.sources = [os.path.relpath(p, folder) for part in ("samplers", "src/base")
                        for p in sorted(glob.glob(os.path.join(folder, part, "*.c")))]

    def object_of(self, source):
        return os.path.join("objects", source.replace("/", "_") + ".o")

    def compile(self, source):
        made = sh(self.compiler + self.flags + ["-c", source, "-o", self.object_of(source)], cwd=self.folder)
        return made.stdout if made.returncode != 0 else None

    def compile_all(self, tests):
        sources = self.sources + ["tests/samplers/%s_test.c" % t for t in tests]
        with concurrent.futures.ThreadPoolExecutor(os.cpu_count()) as pool:
            for source, error in zip(sources, pool.map(self.compile, sources)):
                if error:
                    sys.exit("%s does not compile:\n%s" % (source, error))

    def run(self, test):
        """None when the test passes, else its first complaint."""
        objects = [self.object_of(s) for s in self.sources + ["tests/samplers/%s_test.c" % test]]
        program = "./" + test
        made = sh(self.compiler + objects + ["-o", program] + self.libs, cwd=self.folder)
        if made.returncode != 0:
            sys.exit("%s does not link:\n%s" % (test, made.stdout))
        try:
            ran = sh([program], cwd=self.folder, timeout=300)
        except subprocess.TimeoutExpired:
            return "it does not end"
        if ran.returncode == 0:
            return None
        found = re.search(r"(\w+\.[ch]:\d+): (.*)", ran.stdout)
        return found.group(1) if found else "it stops with %d" % ran.returncode


def try_one(build, mutation):
    what, path, before, after, tests = mutation
    full = os.path.join(build.folder, path)
    if not os.path.exists(full):
        return "no such file"
    with open(full) as f:
        text = f.read()
    if text.count(before) != 1:
        return "FITS NO MORE: its line is there %d times" % text.count(before)
    with open(full, "w") as f:
        f.write(text.replace(before, after))
    try:
        error = build.compile(path)
        if error:
            return "DOES NOT COMPILE: " + error.splitlines()[0]
        for test in tests.split():
            said = build.run(test)
            if said:
                return "%s: %s" % (test, said)
        return "SURVIVES"
    finally:
        with open(full, "w") as f:
            f.write(text)
        build.compile(path)


def fits(mutations):
    bad = 0
    for what, path, before, _, tests in mutations:
        with open(os.path.join(ROOT, path)) as f:
            n = f.read().count(before)
        missing = [t for t in tests.split() if not os.path.exists(os.path.join(ROOT, "tests/samplers/%s_test.c" % t))]
        if n != 1 or missing:
            bad += 1
            print("tools/mutate.py, '%s': %s" % (what, "no test " + missing[0] if missing else
                                                 "its line is in %s %d times; say it as it is now:\n    %s" % (path, n, before)))
    print("%d mutations, %d to be written anew" % (len(mutations), bad))
    return 1 if bad else 0


def main():
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("word", nargs="?", default="", help="only mutations whose description or file has it")
    parser.add_argument("--list", action="store_true")
    parser.add_argument("--fits", action="store_true")
    args = parser.parse_args()
    chosen = [m for m in MUTATIONS if args.word in m[0] or args.word in m[1]]
    if args.list:
        for m in chosen:
            print("%-24s %s" % (m[1], m[0]))
        return 0
    if args.fits:
        return fits(chosen)
    tests = sorted({t for m in chosen for t in m[4].split()})
    bad = 0
    with tempfile.TemporaryDirectory() as folder:
        build = Build(folder)
        build.compile_all(tests)
        for test in tests:
            said = build.run(test)
            if said:
                sys.exit("%s fails before anything is changed: %s" % (test, said))
        for mutation in chosen:
            said = try_one(build, mutation)
            survived = said == "SURVIVES" or ":" not in said or said[:4] in ("FITS", "DOES")
            bad += survived
            print("%-6s %-22s %-80s %s" % ("MISSED" if survived else "caught", os.path.basename(mutation[1]), mutation[0], said[:90]),
                  flush=True)
    print("%d mutations, %d not caught" % (len(chosen), bad))
    return 1 if bad else 0


if __name__ == "__main__":
    sys.exit(main())
