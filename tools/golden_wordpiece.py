#!/usr/bin/env python3
"""tests/text/data/wordpiece: a small BERT vocabulary and what transformers' BertTokenizer makes of the texts in the folder above.

    python tools/golden_wordpiece.py            (about ten seconds)

vocab.txt is trained on those texts when it is not there. ids.jsonl: one row for each row of transformers_ids.jsonl ("uncased", "cased" ids), then rows with
a text of their own. The tokenizers library knows marks and punctuation of an old version of Unicode; rows with characters that were
added since are empty. Needs transformers, tokenizers.
"""
import json
import pathlib
import random
import unicodedata

from tokenizers import BertWordPieceTokenizer, normalizers, pre_tokenizers
from transformers import BertTokenizerFast

DATA = pathlib.Path(__file__).resolve().parent.parent / "tests/text/data"
OUT = DATA / "wordpiece"
HOLE = "\ue000"  # stands for a zero byte in transformers_ids.jsonl


def own_texts():
    """What BERT treats differently from CLIP: accents, Chinese characters, punctuation of all kinds, controls, long words."""
    texts = ["", " ", "[CLS] a [SEP] b [MASK]", "[cls]", "[MASK][MASK]x", "[UNK]", "a[PAD]", "İstanbul ISTANBUL ıi", "ΣΊΣΥΦΟΣ Σ",
             "ÀÉÎÕÜ naïve café Ångström Å", "e\u0301 a\u0308\u0323", "ﬁ ligature ½ ² K Å", "你好 world 世界", "日本語テキスト", "한국어 텍스트",
             "\u1112\u1161\u11ab", "\U0002b825x\U0002b925y", "\uf900\U0002f800", "don't — “quoted” «x» ¿qué? ‽ ・ 。", "$100 + 5% = <ok> ^_^ `x` |y| ~z",
             "€5 £6 ¥7 №8 °9", "a\u00adb a\u200bb a\u200db a\ufeffb", "a\tb\nc\rd\x0be\x0cf\x1fg\x85h\xa0i\u2028j\u3000k", "a\ue123b a\ufffdb",
             "x" * 99, "x" * 100, "x" * 101, "é" * 100, "ẞ ß ŉ ǰ ΐ", "Ǆ ǅ ǆ", "𝐀𝐁 𝔘 🅰", "👍🏽 👩‍👩‍👧 🇩🇪", "a\u0301\u0302\u0303", "ौ कि", "ไทย ภาษา", "עִבְרִית", "اَلْعَرَبِيَّةُ",
             "unaffable", "##able", "a##able", "# #", "...", "....a", "a.b.c", "ƒ ʰ ˆ ˜", "１２３ ＡＢＣ ！？", "\u0378\u0530x", "ὈΔΥΣΣΕΎΣ", "Ⅷ ⅷ", "\u0345", "K\u030c"]
    rng = random.Random(5)
    ranges = [(0x20, 0x7f), (0xa0, 0x250), (0x250, 0x600), (0x600, 0x1000), (0x1000, 0x2000), (0x2000, 0x2e80), (0x2e80, 0xa000),
              (0xac00, 0xd7a4), (0xf900, 0x10000), (0x10000, 0x10400), (0x1d400, 0x1d800), (0x1f300, 0x1fa00), (0x20000, 0x2fa20)]
    for i in range(600):
        lo, hi = ranges[i % len(ranges)]
        texts.append("".join(chr(rng.randrange(lo, hi)) for _ in range(rng.randrange(1, 12))))
    return texts


def newer_characters():
    """Those whose class the library does not know as Python does."""
    marks = normalizers.BertNormalizer(lowercase=False, strip_accents=True, clean_text=False, handle_chinese_chars=False)
    clean = normalizers.BertNormalizer(lowercase=False, strip_accents=False, handle_chinese_chars=False)
    split = pre_tokenizers.BertPreTokenizer()
    found = set()
    for c in [chr(c) for c in range(128, 0x110000) if not 0xd800 <= c < 0xe000]:
        kind = unicodedata.category(c)
        if (kind == "Cf") != (kind not in ("Cc", "Co") and c != "\ufffd" and clean.normalize_str(c) == "") or \
                (kind == "Mn") != (marks.normalize_str(c) == "") or \
                (kind[0] == "P") != (len(split.pre_tokenize_str("a" + c)) == 2):
            found.add(c)
    return found


def train(corpus):
    trainer = BertWordPieceTokenizer(lowercase=False, strip_accents=False)
    folded = BertWordPieceTokenizer(lowercase=True)
    trainer.train_from_iterator(corpus + [folded.normalize(t) for t in corpus], vocab_size=3600, min_frequency=3,
                                limit_alphabet=1500, show_progress=False)
    tokens = sorted(trainer.get_vocab().items(), key=lambda item: item[1])
    (OUT / "vocab.txt").write_text("".join(token + "\n" for token, _ in tokens))


def main():
    newer = newer_characters()
    rows = [json.loads(line) for line in (DATA / "transformers_ids.jsonl").read_text().splitlines()]
    texts = [row["text"].replace(HOLE, "\0") for row in rows]
    own = own_texts()
    OUT.mkdir(parents=True, exist_ok=True)
    if not (OUT / "vocab.txt").exists():  # training does not give the same list twice
        train(texts + own)
    vocab = {token: i for i, token in enumerate((OUT / "vocab.txt").read_text().split("\n")[:-1])}
    references = {name: BertTokenizerFast(vocab=vocab, do_lower_case=name == "uncased") for name in ("uncased", "cased")}
    with open(OUT / "ids.jsonl", "w") as f:
        for i, text in enumerate(texts + own):
            row = {} if i < len(texts) else {"text": text.replace("\0", HOLE)}
            if not newer & set(text):
                row.update({name: t(text)["input_ids"] for name, t in references.items()})
            f.write(json.dumps(row, separators=(",", ":")) + "\n")
    print(len(texts), len(own), len(vocab))


if __name__ == "__main__":
    main()
