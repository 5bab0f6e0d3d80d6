#!/usr/bin/env python3
"""Style as a test: layers, lengths, names, banned calls, documented headers, no second copies.

usage: tools/tidy.py [--root DIR] [--format] [--self-test]

Prints one line for each finding and exits 1 when there is any. Needs nothing but Python. Limits on lengths are ratchets: what was too
long when the limit came stands in tools/tidy_allow.txt with its length; it may shrink but not grow, and an entry that is no longer needed
must go.
"""
import argparse
import os
import re
import shutil
import subprocess
import sys
import tempfile

MAX_FILE_LINES = 600
MAX_SCRIPT_LINES = 900  # a script is read alone, from top to bottom
MAX_FUNCTION_LINES = 70
MIN_COPY_LINES = 8  # a function body at least this long must not exist twice

C_DIRS = ("include", "src", "samplers", "cuda", "tests", "bench")
LIBRARY = ("src/", "samplers/", "cuda/")
TOP_LEVEL = {"CMakeLists.txt", "CMakePresets.json", "LICENSE", "README.md", "THIRD_PARTY.md", "cuda", "src", "include", "weights", "samplers", "tests",
             "bench", "tools"}
TEXT_ENDS = (".c", ".h", ".cu", ".cuh", ".py", ".sh", ".txt", ".md", ".cmake", ".in", ".json", ".1", ".bash", ".zsh", ".run")

# call: folders where it is allowed
BANNED = {name: () for name in ("strcpy", "strcat", "sprintf", "vsprintf", "gets", "atoi", "atol", "atoll", "atof", "strtok", "system",
                                "popen", "rand", "srand", "alloca", "setenv", "putenv")}
BANNED_IN_LIBRARY = {
    "malloc": ("src/base/", "cuda/memory.cu"), "calloc": ("src/base/",), "realloc": ("src/base/",), "free": ("src/base/", "cuda/memory.cu"),
    "strdup": ("src/base/",), "posix_memalign": ("src/base/",), "aligned_alloc": ("src/base/",),
    "printf": ("src/cli/",), "puts": ("src/cli/",), "putchar": ("src/cli/",), "exit": ("src/cli/",),
}
CUDA_PLACE = ("src/run/backend.c", "cuda/")
WORD_MARKS = ("TO" + "DO", "FIX" + "ME", "X" + "XX")
PATH_MARKS = re.compile(r"/wor" + r"k(/|\b(?![-\w.:/]))|/tm" + r"p/(?!kac[\w.-]*X{6})|\.\./share" + r"d\b")


def strip_c(text):
    """Comments and the insides of literals become spaces; lines stay where they are."""
    out, i, n = [], 0, len(text)
    while i < n:
        two = text[i:i + 2]
        if two == "/*":
            end = text.find("*/", i + 2)
            end = n if end < 0 else end + 2
        elif two == "//":
            end = text.find("\n", i)
            end = n if end < 0 else end
        elif text[i] in "\"'":
            end = i + 1
            while end < n and text[end] != text[i] and text[end] != "\n":
                end += 2 if text[end] == "\\" else 1
            end = min(n, end + 1)
            inner = re.sub(r"[^\n]", " ", text[i + 1:end - 1])
            out.append(text[i] + inner + text[end - 1:end])
            i = end
            continue
        else:
            out.append(text[i])
            i += 1
            continue
        out.append(re.sub(r"[^\n]", " ", text[i:end]))
        i = end
    return "".join(out)


def functions(code):
    """(name, first line, last line, is static) of each definition in formatted C; lines count from 0."""
    lines, i, found = code.split("\n"), 0, []
    while i < len(lines):
        if not re.match(r"[A-Za-z_]", lines[i]) or lines[i].startswith(("typedef", "extern \"")):
            i += 1
            continue
        head, j = lines[i], i
        while j + 1 < len(lines) and not re.search(r"[{;]", head) and lines[j + 1].strip():
            j += 1
            head += " " + lines[j]
        before = head.split("{")[0]
        name = re.search(r"([A-Za-z_]\w*)\s*\(", before)
        if "{" not in head or not name or "=" in before or ";" in before:
            i += 1
            continue
        end = j
        if head.count("{") != head.count("}"):
            while end + 1 < len(lines) and not lines[end].startswith("}"):
                end += 1
        found.append((name.group(1), i, end, bool(re.search(r"\bstatic\b", before))))
        i = end + 1
    return found


class Tidy:
    def __init__(self, root):
        self.root, self.findings = root, []
        self.read_layers()
        self.files = self.list_files()

    def report(self, path, line, text):
        self.findings.append("%s:%d: %s" % (path, line, text) if line else "%s: %s" % (path, text))

    def text(self, path):
        with open(os.path.join(self.root, path), encoding="utf-8", errors="replace") as f:
            return f.read()

    def list_files(self):
        """Tracked and new files, without those that git ignores; all files where there is no git."""
        try:
            done = subprocess.run(["git", "ls-files", "-co", "--exclude-standard"], cwd=self.root, capture_output=True, text=True)
            names = done.stdout.split("\n") if done.returncode == 0 else []
        except OSError:
            names = []
        if not any(names):
            names = [os.path.relpath(os.path.join(d, f), self.root) for d, _, fs in os.walk(self.root) for f in fs]
            names = [n for n in names if not re.match(r"(\.git|build)", n)]
        return sorted(n for n in set(names) if n and os.path.isfile(os.path.join(self.root, n)))

    def read_layers(self):
        self.direct, self.library, self.public = {}, {}, []
        for line in self.text("tools/layers.txt").split("\n"):
            line = line.split("#")[0].strip()
            if not line:
                continue
            head, _, tail = line.partition(":")
            if head == "public":
                self.public = tail.split()
            elif head.startswith("library "):
                self.library[head.split()[1]] = tail.split()
            else:
                self.direct[head] = tail.split()

    def allowed(self, folder):
        seen, todo = set(), [folder]
        while todo:
            f = todo.pop()
            if f not in seen:
                seen.add(f)
                todo += self.direct.get(f, [])
        return seen

    def folder_of(self, path):
        hits = [f for f in self.direct if path.startswith(f + "/")]
        return max(hits, key=len) if hits else None

    # ---- checks of one C file ----
    def check_includes(self, path, text):
        folder = self.folder_of(path)
        public = path.startswith("include/kac/")
        if not folder and not public:
            if path.startswith(LIBRARY):
                self.report(path, 0, "its folder is not in tools/layers.txt")
            return
        for number, line in enumerate(text.split("\n"), 1):
            m = re.match(r'\s*#\s*include\s*([<"])([^>"]+)[>"]', line)
            if not m:
                continue
            mark, name = m.groups()
            if name.startswith("kac/"):
                if public:
                    self.check_public_order(path, number, name[4:])
            elif mark == "<":
                for prefix, where in self.library.items():
                    if name.startswith(prefix) and folder not in where:
                        self.report(path, number, "<%s> belongs to %s alone" % (name, ", ".join(where)))
            elif public:
                self.report(path, number, "a public header includes \"%s\"" % name)
            else:
                self.check_layer(path, number, folder, name)

    def check_public_order(self, path, number, name):
        mine = os.path.basename(path)
        if mine not in self.public or name not in self.public:
            self.report(path, number, "%s or %s is not in the list of public headers (tools/layers.txt)" % (mine, name))
        elif self.public.index(name) >= self.public.index(mine):
            self.report(path, number, "<kac/%s> stands above <kac/%s>" % (name, mine))

    def check_layer(self, path, number, folder, name):
        here = os.path.normpath(os.path.join(os.path.dirname(path), name))
        places = [here, os.path.join("src", name), name]
        target = next((p for p in places if os.path.isfile(os.path.join(self.root, p))), None)
        if target is None:
            self.report(path, number, "\"%s\" is in no folder of the project" % name)
            return
        other = self.folder_of(target)
        if other is None or other not in self.allowed(folder):
            self.report(path, number, "%s may not include %s (tools/layers.txt)" % (folder, target))

    def check_calls(self, path, code):
        rules = dict(BANNED)
        if path.startswith(LIBRARY):
            rules.update(BANNED_IN_LIBRARY)
        for number, line in enumerate(code.split("\n"), 1):
            if re.match(r"\s*#\s*(if|ifdef|ifndef|elif)\b.*CUDA", line) and not path.startswith(CUDA_PLACE) and \
                    not path.startswith("tests/"):
                self.report(path, number, "the choice of a backend belongs to %s" % CUDA_PLACE[0])
            for m in re.finditer(r"(?<![\w.>])([a-z_]\w*)\s*\(", line):
                where = rules.get(m.group(1))
                if where is not None and not path.startswith(tuple(where) or ("\0",)):
                    self.report(path, number, "%s() is not used here" % m.group(1))

    def check_functions(self, path, text, code, copies, lengths):
        lines = text.split("\n")
        for name, first, last, static in functions(code):
            lengths[("function", path, name)] = (last - first + 1, MAX_FUNCTION_LINES)
            if path.startswith(LIBRARY) and not static and not name.startswith("kac_") and name not in ("main", "LLVMFuzzerTestOneInput"):
                self.report(path, first + 1, "%s is neither static nor named kac_..." % name)
            if path.startswith(LIBRARY) and last - first + 1 >= MIN_COPY_LINES:
                body = re.sub(r"\s+", "", "".join(lines[first + 1:last]))
                copies.setdefault(body, []).append("%s:%d %s" % (path, first + 1, name))

    def check_documented(self, path, text):
        """In a public header every function stands in a paragraph that has a comment, before it or on its line."""
        if not path.startswith("include/kac/"):
            return
        documented, in_comment = False, False
        for number, line in enumerate(text.split("\n"), 1):
            if not line.strip():
                documented = False
            if "/*" in line or in_comment:
                documented = True
                in_comment = "*/" not in line.split("/*")[-1]
                if not re.sub(r"/\*.*?\*/", "", line).strip() or in_comment:
                    continue
            if re.match(r"[A-Za-z_].*\bkac_\w+\(", line) and not documented:
                self.report(path, number, "a public function without a comment")

    # ---- all files ----
    def check_texts(self):
        for path in self.files:
            if path.startswith("weights/") or not (path.endswith(TEXT_ENDS) or os.path.basename(path) in ("run", "CMakeLists.txt")):
                continue
            for number, line in enumerate(self.text(path).split("\n"), 1):
                for word in WORD_MARKS:
                    if re.search(r"\b%s\b" % word, line):
                        self.report(path, number, "%s: do it, or say in the text what is missing" % word)
                if PATH_MARKS.search(line):
                    self.report(path, number, "a path of one machine")

    def check_tree(self):
        for name in sorted({p.split("/")[0] for p in self.files}):
            if name not in TOP_LEVEL and not name.startswith("."):
                self.report(name, 0, "does not belong at the top of the tree")
        for path in self.files:
            n_bytes = os.path.getsize(os.path.join(self.root, path))
            if n_bytes > 15 << 20:
                self.report(path, 0, "%d bytes; no file is larger than 15 MiB" % n_bytes)

    def check_lengths(self, lengths):
        allow = {}
        for number, line in enumerate(self.text("tools/tidy_allow.txt").split("\n"), 1):
            words = line.split("#")[0].split()
            if words:
                allow[tuple(words[:-1])] = (int(words[-1]), number)
        for key, (length, limit) in sorted(lengths.items()):
            old = allow.pop(key, None)
            what = "%s is %d lines long" % (" ".join(key[2:]) or "the file", length)
            if length <= limit:
                if old:
                    self.report("tools/tidy_allow.txt", old[1], "%s: %s, remove the entry" % (key[1], what))
            elif not old:
                self.report(key[1], 0, "%s; the limit is %d: split it by idea" % (what, limit))
            elif length != old[0]:
                self.report("tools/tidy_allow.txt", old[1], "%s: %s, %d allowed: %s" % (
                    key[1], what, old[0], "it may not grow" if length > old[0] else "write the new length"))
        for key, (_, number) in allow.items():
            self.report("tools/tidy_allow.txt", number, "%s: no such entry any more, remove it" % " ".join(key))

    def run(self):
        copies, lengths = {}, {}
        for path in self.files:
            is_c = path.split("/")[0] in C_DIRS and path.endswith((".c", ".h", ".cu", ".cuh"))
            if not is_c and not path.endswith(".py"):
                continue
            text = self.text(path)
            lengths[("file", path)] = (text.count("\n"), MAX_FILE_LINES if is_c else MAX_SCRIPT_LINES)
            if not is_c:
                continue
            code = strip_c(text)
            self.check_includes(path, text)
            self.check_calls(path, code)
            self.check_functions(path, text, code, copies, lengths)
            self.check_documented(path, text)
        for places in copies.values():
            if len(places) > 1:
                self.report(places[0].split(":")[0], int(places[0].split(":")[1].split()[0]), "second copy: " + ", ".join(places))
        self.check_lengths(lengths)
        self.check_texts()
        self.check_tree()
        return self.findings

    def unformatted(self):
        """Files that clang-format 14 would change; None where it is not installed (other versions disagree)."""
        tool = shutil.which("clang-format-14") or shutil.which("clang-format")
        if not tool or " 14." not in subprocess.run([tool, "--version"], capture_output=True, text=True).stdout:
            return None
        names = [p for p in self.files if p.split("/")[0] in C_DIRS and p.endswith((".c", ".h"))]
        bad = []
        for name in names:
            done = subprocess.run([tool, "--dry-run", "-Werror", name], cwd=self.root, capture_output=True)
            bad += [name] if done.returncode else []
        return bad


def self_test(root):
    """Every rule must be able to fail: a small tree with one sin each."""
    sins = {
        "src/base/a.c": ("#include \"tensor/t.h\"\nint bad(void) {\n    return atoi(\"1\");\n}\n",
                         ["may not include", "atoi() is not", "neither static"]),
        "src/tensor/t.h": ("#include <stb_image.h>\n", ["belongs to src/io alone"]),
        "src/tensor/m.c": ("static void *f(void) {\n    return malloc(1);\n}\n#ifdef KAC_CUDA\n#endif\n",
                           ["malloc() is not", "choice of a backend"]),
        "include/kac/status.h": ("#include <kac/steer.h>\n\nint kac_lonely(void);\n", ["stands above", "without a comment"]),
        "src/nn/long.c": ("static void f(void) {\n" + "    g();\n" * 80 + "}\n", ["80 lines".replace("80", "82") + " long; the limit"]),
        "src/nn/copy1.c": ("static void f(void) {\n" + "".join("    g(%d);\n" % i for i in range(9)) + "}\n", ["second copy"]),
        "src/nn/copy2.c": ("static void g(void) {\n" + "".join("    g(%d);\n" % i for i in range(9)) + "}\n", []),
        "src/io/mark.c": ("/* %s: later */\n/* see /wor%s/x */\n" % (WORD_MARKS[0], "k"), ["do it, or say", "path of one machine"]),
        "notes/x.md": ("x\n", ["top of the tree"]),
        "tools/tidy_allow.txt": ("file src/base/a.c 700\n", ["remove the entry"]),
    }
    with tempfile.TemporaryDirectory() as top:
        shutil.copytree(os.path.join(root, "tools"), os.path.join(top, "tools"))
        for path, (text, _) in sins.items():
            os.makedirs(os.path.dirname(os.path.join(top, path)), exist_ok=True)
            with open(os.path.join(top, path), "w", encoding="utf-8") as f:
                f.write(text)
        found = "\n".join(Tidy(top).run())
    missed = [want for _, wants in sins.values() for want in wants if want not in found]
    for want in missed:
        print("tidy.py did not find: " + want)
    return 1 if missed else 0


def main():
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    parser.add_argument("--root", default=os.path.dirname(os.path.dirname(os.path.abspath(__file__))))
    parser.add_argument("--format", action="store_true", help="fail on files that clang-format 14 would change")
    parser.add_argument("--self-test", action="store_true", help="check that every rule can fail")
    args = parser.parse_args()
    if args.self_test:
        return self_test(args.root)
    tidy = Tidy(args.root)
    findings = tidy.run()
    if args.format:
        bad = tidy.unformatted()
        if bad is None:
            print("clang-format 14 is not installed: formatting not checked")
        findings += ["%s: not formatted (clang-format -i)" % name for name in bad or []]
    for line in findings:
        print(line)
    print("%d files, %d findings" % (len(tidy.files), len(findings)))
    return 1 if findings else 0


if __name__ == "__main__":
    sys.exit(main())
