"""The tokenizer's half of parity_inputs.py: real vocabularies, strings to try, the comparison."""

import base64
import json
import pathlib
import random
import subprocess
import tempfile

QWEN2_SPLIT = (
    r"(?i:'s|'t|'re|'ve|'m|'ll|'d)|[^\r\n\p{L}\p{N}]?\p{L}+|\p{N}| ?[^\s\p{L}\p{N}]+[\r\n]*"
    r"|\s*[\r\n]+|\s+(?!\S)|\s+"
)
LLAMA3_SPLIT = QWEN2_SPLIT.replace(r"|\p{N}|", r"|\p{N}{1,3}|")
QWEN2_SPECIAL = [
    "<|endoftext|>", "<|im_start|>", "<|im_end|>", "<|object_ref_start|>", "<|object_ref_end|>",
    "<|box_start|>", "<|box_end|>", "<|quad_start|>", "<|quad_end|>", "<|vision_start|>",
    "<|vision_end|>", "<|vision_pad|>", "<|image_pad|>", "<|video_pad|>",
]  # fmt: skip


LLAMA3_SPECIAL = {
    128000: "<|begin_of_text|>", 128001: "<|end_of_text|>", 128004: "<|finetune_right_pad_id|>",
    128005: "<|step_id|>", 128006: "<|start_header_id|>", 128007: "<|end_header_id|>",
    128008: "<|eom_id|>", 128009: "<|eot_id|>", 128010: "<|python_tag|>", 128256: "<|image|>",
}  # fmt: skip


def byte_letters():
    printable = [*range(33, 127), *range(161, 173), *range(174, 256)]
    letters, extra = {}, 256
    for b in range(256):
        if b in printable:
            letters[b] = chr(b)
        else:
            letters[b] = chr(extra)
            extra += 1
    return letters


def last_merge(ranks, token):
    """The two tokens that the merges before this one's leave of it."""
    parts = [token[i : i + 1] for i in range(len(token))]
    own = ranks[token]
    while len(parts) > 2:
        pairs = [ranks.get(a + b, own) for a, b in zip(parts, parts[1:])]
        best = min(pairs)
        if best >= own:
            return None
        i = pairs.index(best)
        parts[i : i + 2] = [parts[i] + parts[i + 1]]
    return parts if len(parts) == 2 else None


def read_ranks(path):
    ranks = {}
    for line in path.read_bytes().splitlines():
        token, rank = line.split()
        ranks[base64.b64decode(token)] = int(rank)
    return ranks


def llama3_tokenizer(base):
    """Llama-3's vocabulary in the form of `base`; as in its own file, the merges are all splits of
    every token into two others."""
    import llama_models

    found = sorted(pathlib.Path(llama_models.__path__[0]).glob("llama3/**/tokenizer.model"))
    ranks = read_ranks(found[0])
    letters = byte_letters()
    spell = lambda token: "".join(letters[b] for b in token)
    merges = []
    for token in sorted(ranks, key=ranks.get):
        splits = [(token[:i], token[i:]) for i in range(1, len(token))]
        known = [pair for pair in splits if pair[0] in ranks and pair[1] in ranks]
        known.sort(key=lambda pair: (ranks[pair[0]], ranks[pair[1]]))
        merges += [[spell(a), spell(b)] for a, b in known]
    tokenizer = json.loads(json.dumps({k: v for k, v in base.items() if k != "model"}))
    tokenizer["model"] = {**base["model"], "ignore_merges": True, "merges": merges,
                          "vocab": {spell(t): r for t, r in ranks.items()}}
    tokenizer["normalizer"] = None
    tokenizer["pre_tokenizer"]["pretokenizers"][0]["pattern"]["Regex"] = LLAMA3_SPLIT
    flags = {k: v for k, v in base["added_tokens"][0].items() if k not in ("id", "content")}
    reserved = {i: f"<|reserved_special_token_{i}|>" for i in range(128000, 128256)}
    tokenizer["added_tokens"] = [{"id": i, "content": content, **flags}
                                 for i, content in sorted((reserved | LLAMA3_SPECIAL).items())]
    return tokenizer


def qwen2_tokenizer():
    import dashscope

    ranks = read_ranks(pathlib.Path(dashscope.__file__).parent / "resources" / "qwen.tiktoken")
    letters = byte_letters()
    spell = lambda token: "".join(letters[b] for b in token)
    merges = []
    for token in sorted((t for t in ranks if len(t) > 1), key=ranks.get):
        pair = last_merge(ranks, token)
        if pair:
            merges.append([spell(pair[0]), spell(pair[1])])
    flags = dict(single_word=False, lstrip=False, rstrip=False, normalized=False, special=True)
    added = [
        {"id": len(ranks) + i, "content": content, **flags}
        for i, content in enumerate(QWEN2_SPECIAL)
    ]
    byte_level = dict(type="ByteLevel", add_prefix_space=False, trim_offsets=False, use_regex=False)
    split = {"type": "Split", "pattern": {"Regex": QWEN2_SPLIT}, "behavior": "Isolated"}
    return {
        "version": "1.0",
        "truncation": None,
        "padding": None,
        "added_tokens": added,
        "normalizer": {"type": "NFC"},
        "pre_tokenizer": {
            "type": "Sequence",
            "pretokenizers": [{**split, "invert": False}, byte_level],
        },
        "post_processor": byte_level,
        "decoder": byte_level,
        "model": {
            "type": "BPE", "dropout": None, "unk_token": None, "continuing_subword_prefix": "",
            "end_of_word_suffix": "", "fuse_unk": False, "byte_fallback": False,
            "ignore_merges": False, "vocab": {spell(t): r for t, r in ranks.items()},
            "merges": merges,
        },
    }  # fmt: skip


def variants(base):
    yield "Qwen2", base, 1.0
    llama = json.loads(json.dumps(base))
    llama["normalizer"] = None
    llama["pre_tokenizer"]["pretokenizers"][0]["pattern"]["Regex"] = LLAMA3_SPLIT
    llama["model"]["ignore_merges"] = True
    llama["model"]["merges"] = [f"{a} {b}" for a, b in base["model"]["merges"]]
    yield "Llama-3's form (ignore_merges, digits by three)", llama, 0.2
    yield "Llama-3", llama3_tokenizer(base), 1.0
    gpt2 = json.loads(json.dumps(base))
    gpt2["pre_tokenizer"] = {
        "type": "ByteLevel", "add_prefix_space": False, "trim_offsets": False, "use_regex": True
    }
    flags = dict(single_word=False, lstrip=False, rstrip=False, normalized=True, special=False)
    for i, (content, change) in enumerate(
        [("qzcat", {"single_word": True}), (" qzdog", {"lstrip": True}), ("<x>", {"rstrip": True}),
         ("e\u0301t\u00e9", {}), ("<x>yz", {"lstrip": True, "rstrip": True, "normalized": False})]
    ):  # fmt: skip
        gpt2["added_tokens"].append({"id": 151657 + i, "content": content, **flags, **change})
    yield "GPT-2's form with odd added tokens", gpt2, 0.2


SCRIPTS = [
    (0x20, 0x7E), (0xA0, 0x17F), (0x250, 0x2FF), (0x300, 0x36F), (0x370, 0x3FF), (0x400, 0x4FF),
    (0x590, 0x5FF), (0x600, 0x6FF), (0x900, 0x97F), (0x9C0, 0x9E3), (0xB40, 0xBE0), (0xE00, 0xE7F),
    (0xF40, 0xFBC), (0x1100, 0x11FF), (0x1E00, 0x1EFF), (0x1F00, 0x1FFF), (0x2000, 0x206F),
    (0x20D0, 0x21FF), (0x3040, 0x30FF), (0x3130, 0x318F), (0x4E00, 0x4FFF), (0xAC00, 0xACFF),
    (0xF900, 0xFAFF), (0xFB1D, 0xFB4F), (0x11080, 0x110BF), (0x11930, 0x1193F), (0x1D150, 0x1D1FF),
    (0x1F300, 0x1F64F), (0x1ABF, 0x1ACE), (0x2F800, 0x2FA1D),
]  # fmt: skip
PIECES = [
    " ", "  ", "\n", "\r\n", "\t", " \n ", "'s", "'LL", "'\u017f", "123", "4567890", "\u00a0",
    "\u3000", "\u2028", "\u200b", "\u200d", "e\u0301", "\u1100\u1161\u11a8", "a\u0323\u0307",
    "the", " Chest", " X-ray", "?", "!!!", "...", "\u0344", "\u0f73", "\u212b", "qzcat",
    "qzcata", " \n qzdog", "<x>", "<x>yz", "e\u0301te\u0301", "<|", "|>", "\x00", "\x7f",
    *QWEN2_SPECIAL, *LLAMA3_SPECIAL.values(),
]  # fmt: skip
WORDS = (
    "is there a pleural effusion in the left lung base no yes the patient has cardiomegaly with "
    "bilateral infiltrates what modality was used to take this image axial CT of abdomen "
    "\u80ba\u90e8 X\u5149\u7247 \u30ec\u30f3\u30c8\u30b2\u30f3 "
    "\u0440\u0435\u043d\u0442\u0433\u0435\u043d "
    "na\u00efve pr\u00e9sence \u03c0\u03bd\u03b5\u03cd\u03bc\u03bf\u03bd\u03b1\u03c2 "
    "\u0639\u0646\u062f"
).split()


def draw_code_point(rng):
    while True:
        c = rng.randrange(0x110000)
        if not 0xD800 <= c < 0xE000:
            return chr(c)


def draw_string(rng):
    kind = rng.randrange(7)
    n = rng.randrange(1, 40)
    if kind == 0:
        return "".join(draw_code_point(rng) for _ in range(n))
    if kind == 1:
        return rng.randbytes(rng.randrange(1, 120)).decode("utf-8", "replace")
    if kind == 2:
        return "".join(rng.choice(PIECES) for _ in range(n))
    if kind == 3:
        return " ".join(rng.choice(WORDS) for _ in range(n))
    if kind == 4:
        low, high = rng.choice(SCRIPTS)
        return "".join(chr(rng.randint(low, high)) for _ in range(n))
    if kind == 5:
        text = []
        for _ in range(n):
            low, high = rng.choice(SCRIPTS)
            text += [chr(rng.randint(low, high)), rng.choice(["", "", " ", rng.choice(PIECES)])]
        return "".join(text)
    return rng.choice("ab \n\t1.\u00e9\u4e2d") * rng.randrange(1, 400)


def exhaustive_strings():
    """Every code point, after a letter and after a space, and before a mark."""
    points = [chr(c) for c in range(0x110000) if not 0xD800 <= c < 0xE000]
    for i in range(0, len(points), 64):
        yield "".join(f"a{c} {c}\u0301 1" for c in points[i : i + 64])


def in_characters(text, offsets):
    """Byte ranges as ranges of the characters they touch, which is how the reference gives them."""
    starts = []
    for i, c in enumerate(text):
        starts += [i] * len(c.encode("utf-8"))
    starts.append(len(text))
    return [(starts[b], starts[e - 1] + 1) for b, e in offsets]


def compare_text(driver, path, strings, name, reference=None):
    """Ids, and offsets where normalising changes nothing; `reference` if not the file itself."""
    from tokenizers import Tokenizer, normalizers

    # LlamaTokenizer normalises nothing.
    nfc = (lambda text: text) if reference else normalizers.NFC().normalize_str
    compares_text = reference is not None
    reference = reference or Tokenizer.from_file(str(path))
    lines = "".join(json.dumps(s) + "\n" for s in strings)
    run = subprocess.run(
        [driver, "tokenize", str(path)], input=lines.encode(), stdout=subprocess.PIPE, check=True
    )
    answers = run.stdout.splitlines()
    assert len(answers) == len(strings), f"{len(answers)} answers to {len(strings)} strings"
    wrong_ids = wrong_offsets = wrong_texts = offsets_compared = tokens = 0
    encoded = reference.encode_batch(strings, add_special_tokens=False)
    for text, line, expected in zip(strings, answers, encoded):
        answer = json.loads(line)
        if compares_text and answer["text"] != reference.decode(expected.ids, False):
            wrong_texts += 1
            if wrong_texts <= 5:
                print("decoded differs:", ascii(text)[:200], ascii(answer["text"])[:200])
        tokens += len(expected.ids)
        flat = [x for pair in answer["offsets"] for x in pair]
        if answer["ids"] != expected.ids:
            wrong_ids += 1
            if wrong_ids <= 5:
                print("ids differ:", ascii(text)[:300], answer["ids"][:20], expected.ids[:20])
        elif nfc(text) == text:
            offsets_compared += 1
            if in_characters(text, answer["offsets"]) != expected.offsets:
                wrong_offsets += 1
                if wrong_offsets <= 5:
                    print("offsets differ:", ascii(text)[:200])
        elif any(b < a for a, b in zip(flat[::2], flat[2::2])) or any(
            b < a for a, b in zip(flat[1::2], flat[3::2])
        ):
            wrong_offsets += 1
            print("offsets not monotone:", ascii(text)[:200])
    print(
        f"{name}: {len(strings)} strings, {tokens} tokens, {wrong_ids} mismatches of ids; "
        f"{offsets_compared} with offsets compared, {wrong_offsets} mismatches"
        + (f"; {wrong_texts} decoded otherwise" if compares_text else ""),
        flush=True,
    )
    return wrong_ids + wrong_offsets + wrong_texts


SENTENCEPIECE_PIECES = [
    "<s>", "</s>", "<unk>", "[INST] ", " [/INST]", "<|user|>\n", "\u2581", "\u2581\u2581 ",
    "    ",
    "<0x0A>", "<0xE4>", "<pad>", "qzcat", " \n qzdog", "<x>", "[LESION]", "aaaa", "--------",
]  # fmt: skip


def sentencepiece_variants():
    """Name, model, settings, whether with tokenizer.json, share of the strings."""
    from reference import sentencepiece_tokenizer as reference
    from reference.samples import FOREIGN

    lines = reference.CORPUS.strip().splitlines() + [" ".join(WORDS), " ".join(FOREIGN)] * 3
    lines += ["a  a   a    a     a        a", "-" * 40, "aaaaaaaaaaaaaaaa" * 3, "0000 11 2024"]
    plain = reference.train(lines, 900)
    symbols = reference.train(lines, 900, user_defined_symbols=["[LESION]", "\u2581--"],
                              control_symbols=["<ctl>"], character_coverage=0.98)
    flags = dict(single_word=False, lstrip=False, rstrip=False, normalized=True, special=False)
    usual = {str(i): {"content": t, **flags, "special": True, "normalized": i == 1}
             for i, t in enumerate(["<unk>", "<s>", "</s>"])}
    odd = [("qzcat", {"single_word": True}), (" qzdog", {"lstrip": True}),
           ("<x>", {"rstrip": True}),
           ("<pad>", dict(flags, special=True, normalized=False, lstrip=True, rstrip=True))]
    size = 900
    added = usual | {str(size + i): {"content": t, **flags, **change}
                     for i, (t, change) in enumerate(odd)}
    yield "SentencePiece", plain, {}, False, 1.0
    yield "... legacy", plain, {"legacy": True}, False, 0.3
    yield "... without a space in front", plain, {"add_prefix_space": False}, False, 0.1
    yield "... with tokenizer.json", plain, {"legacy": False}, True, 0.2
    yield "... with odd added tokens", plain, {"added_tokens_decoder": added}, False, 0.3
    yield ("... with odd added tokens, legacy, and tokenizer.json", plain,
           {"added_tokens_decoder": added, "legacy": True}, True, 0.2)
    yield ("... with symbols of its own", symbols,
           {"pad_token": "<pad>", "bos_token": {"__type": "AddedToken", "content": "<s>", **flags}},
           False, 0.2)
    yield "... with further special tokens", symbols, {
        "additional_special_tokens": ["<x>", "qzcat"], "pad_token": "</s>"}, False, 0.1


def check_sentencepiece(args):
    from reference import sentencepiece_tokenizer as reference

    rng = random.Random(args.seed + 1)
    draw = lambda: "".join(rng.choice(SENTENCEPIECE_PIECES + PIECES) if rng.random() < 0.5 else
                           rng.choice(WORDS) for _ in range(rng.randrange(1, 20)))
    strings = [draw_string(rng) if i % 2 else draw() for i in range(args.count)]
    bad = 0
    for name, model, settings, as_json, share in sentencepiece_variants():
        with tempfile.TemporaryDirectory() as folder:
            path = pathlib.Path(folder)
            reference.write(path, model, settings, as_json)
            backend = reference.load(path).backend_tokenizer
            part = strings[: int(len(strings) * share)]
            bad += compare_text(args.driver, path, part, name, backend)
            if share == 1.0:
                every = list(exhaustive_strings())
                bad += compare_text(args.driver, path, every, name + ", every code point", backend)
    return bad


def check_text(args):
    rng = random.Random(args.seed)
    strings = [draw_string(rng) for _ in range(args.count)]
    exhaustive = list(exhaustive_strings())
    bad = 0
    with tempfile.TemporaryDirectory() as folder:
        path = pathlib.Path(folder) / "tokenizer.json"
        for name, tokenizer, share in variants(qwen2_tokenizer()):
            path.write_text(json.dumps(tokenizer), encoding="utf-8")
            bad += compare_text(args.driver, path, strings[: int(len(strings) * share)], name)
            bad += compare_text(args.driver, path, exhaustive, name + ", every code point")
    return bad
