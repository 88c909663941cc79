#!/usr/bin/env python3
"""What each CUDA kernel takes of a multiprocessor, for every architecture: tests/bench/KERNELS.md.

Compiles kernels/cuda again, file by file and architecture by architecture, with the options of a
configured build (`cmake --preset cuda`); results are kept beside it while no source changes.

  scripts/kernel_table.py                 writes the page
  scripts/kernel_table.py --check         spills in attention or NF4 kernels on sm_80, sm_90 fail
"""

import argparse
import concurrent.futures
import hashlib
import json
import re
import shlex
import struct
import subprocess
import sys
import tempfile
from dataclasses import asdict, dataclass
from pathlib import Path

import kernel_bytes

ROOT = Path(__file__).resolve().parent.parent
PAGE = ROOT / "tests/bench/KERNELS.md"
# Kernels of these files may not spill on these architectures.
WITHOUT_SPILLS = re.compile(r"^(attention|attention_backward|nf4|nf4_product)$")
CHECKED = (80, 90)


@dataclass(frozen=True)
class Limits:
    """Of a multiprocessor: CUDA C++ Programming Guide, "Technical specifications per compute
    capability"; shared memory in bytes, of which the system takes `reserved` a block."""
    warps: int
    blocks: int
    shared: int
    reserved: int
    granularity: int  # of shared memory
    registers: int = 65536


LIMITS = {75: Limits(32, 16, 64 << 10, 0, 256), 80: Limits(64, 32, 164 << 10, 1024, 128),
          86: Limits(48, 16, 100 << 10, 1024, 128), 89: Limits(48, 24, 100 << 10, 1024, 128),
          90: Limits(64, 32, 228 << 10, 1024, 128)}


@dataclass(frozen=True)
class Usage:
    """One instantiation on one architecture."""
    kernel: str
    threads: int
    registers: int
    shared: int  # static
    spilled: int  # bytes stored and loaded


def rounded_up(n: int, unit: int) -> int:
    return -(-n // unit) * unit


def occupancy(limits: Limits, threads: int, registers: int, shared: int) -> float:
    """Resident warps over the most there can be. Registers are given out to warps by 256, and warps
    to four schedulers."""
    warps = rounded_up(threads, 32) // 32
    of_registers = limits.registers // rounded_up(max(registers, 1) * 32, 256) // 4 * 4 // warps
    room = rounded_up(shared + limits.reserved, limits.granularity)
    of_shared = limits.shared // room if room else limits.blocks
    return min(limits.blocks, limits.warps // warps, of_registers, of_shared) * warps / limits.warps


def dynamic_shared(kernel: str) -> int:
    """Bytes that the launch asks for: attention_fragments.h, KeyPlan of attention_backward.cu."""
    found = re.match(r"attention_(dq_|dkv_)?fragment_kernel<\w+, (\d+)>", kernel)
    if not found:
        return 0
    size = int(found[2])
    rows, statistics = 128, 0  # keys and values, or two stages of 32 of each
    if found[1] == "dkv_":
        stages, kept = (2, 0) if size <= 80 else (1, 128)
        rows, statistics = kept + stages * 64, stages * 32 * 8
    return rows * (size + 8) * 2 + statistics


def plain_name(demangled: str) -> str:
    """kernel<types>, without namespaces and arguments."""
    name = re.sub(r"\(anonymous namespace\)::|medvqa::cuda::|scalar::", "", demangled)
    name = name.removeprefix("void ")
    depth = 0
    for i, c in enumerate(name):
        depth += (c == "<") - (c == ">")
        if c == "(" and depth == 0:
            name = name[:i]
            break
    name = name.replace("__nv_bfloat16", "bf16").replace("__half", "f16").replace("float", "f32")
    return re.sub(r"\((?:bool|int)\)|\([\w:]*Choice\)", "", name)


def launch_bounds(cubin: bytes) -> dict[str, int]:
    """Threads a block of each kernel: EIATTR_MAX_THREADS of its section .nv.info."""
    table, size, count, names_at = (struct.unpack_from("<Q", cubin, 0x28)[0],
                                    *struct.unpack_from("<HHH", cubin, 0x3A))
    sections = [struct.unpack_from("<IIQQQQ", cubin, table + i * size) for i in range(count)]
    names = sections[names_at][4]
    bounds = {}
    for name_at, _, _, _, offset, length in sections:
        begin = names + name_at
        name = cubin[begin:cubin.index(b"\0", begin)].decode()
        if not name.startswith(".nv.info."):
            continue
        at = offset
        while at < offset + length:
            form, attribute, value = struct.unpack_from("<BBH", cubin, at)
            if (form, attribute) == (4, 5):
                x, y, z = struct.unpack_from("<III", cubin, at + 4)
                bounds[name.removeprefix(".nv.info.")] = x * y * z
            at += 4 + (value if form == 4 else 0)
    return bounds


def parse_usage(text: str) -> dict[str, tuple[int, int, int]]:
    """Mangled name -> registers, static shared bytes, spilled bytes, of ptxas -v."""
    usage = {}
    for part in re.split(r"Compiling entry function '", text)[1:]:
        spills = re.search(r"(\d+) bytes spill stores, (\d+) bytes spill loads", part)
        used = re.search(r"Used (\d+) registers", part)
        shared = re.search(r"(\d+) bytes smem", part)
        if not spills or not used:
            raise ValueError(f"ptxas told nothing of {part[:80]}")
        usage[part[:part.index("'")]] = (int(used[1]), int(shared[1]) if shared else 0,
                                         int(spills[1]) + int(spills[2]))
    return usage


def compile_commands(build: Path) -> dict[str, list[str]]:
    """Stem -> nvcc's command without output and architecture."""
    file = build / "compile_commands.json"
    if not file.is_file():
        sys.exit(f"kernel_table: no {file}; run cmake --preset cuda first")
    commands = {}
    for entry in json.loads(file.read_text(encoding="utf-8")):
        words = shlex.split(entry["command"])
        if not entry["file"].endswith(".cu") or "/nvcc" not in " ".join(words[:2]):
            continue
        words = words[next(i for i, w in enumerate(words) if w.endswith("nvcc")):]
        words[words.index("-o"):words.index("-o") + 2] = []
        kept = [w for w in words if not w.startswith("--generate-code") and w not in ("-c", "-g")]
        commands[Path(entry["file"]).stem] = kept
    if not commands:
        sys.exit(f"kernel_table: {build} was configured without CUDA")
    return commands


def sources_hash(command: list[str], file: Path) -> str:
    """Of a file and all files of the tree that it includes, however deep."""
    folders = [Path(w[2:]) for w in command if w.startswith("-I")]
    digest, seen, todo = hashlib.sha256(), set(), [file]
    while todo:
        source = todo.pop()
        if source in seen:
            continue
        seen.add(source)
        text = source.read_bytes()
        digest.update(text)
        for name in re.findall(rb'^\s*#include "(.*?)"', text, re.M):
            places = [folder / name.decode() for folder in [source.parent, *folders]]
            todo += [place.resolve() for place in places if place.is_file()][:1]
    return digest.hexdigest()


def compiled(command: list[str], stem: str, architecture: int, kept: Path) -> list[Usage]:
    """The kernels of one file; from `kept` where nothing has changed."""
    source = Path(next(w for w in command if w.endswith(".cu")))
    options = shlex.join(w for w in command if not w.startswith("-DMEDVQA_CUDA_BUILT_FOR"))
    key = hashlib.sha256((sources_hash(command, source) + options).encode()).hexdigest()
    file = kept / f"{stem}.{architecture}.json"
    if file.is_file():
        known = json.loads(file.read_text(encoding="utf-8"))
        if known["key"] == key:
            return [Usage(**u) for u in known["usage"]]
    with tempfile.TemporaryDirectory() as folder:
        cubin = Path(folder) / "kernels.cubin"
        done = subprocess.run(command + ["-cubin", f"-arch=sm_{architecture}", "--resource-usage",
                                         "-o", str(cubin)], capture_output=True, text=True)
        if done.returncode != 0:
            sys.exit(f"kernel_table: {stem}.cu for sm_{architecture}:\n{done.stderr}")
        bounds = launch_bounds(cubin.read_bytes())
    told = parse_usage(done.stdout + done.stderr)
    names = subprocess.run(["c++filt"], input="\n".join(told), capture_output=True, text=True,
                           check=True).stdout.splitlines()
    usage = [Usage(plain_name(name), bounds[mangled], *numbers)
             for name, (mangled, numbers) in zip(names, told.items())]
    kept.mkdir(parents=True, exist_ok=True)
    file.write_text(json.dumps({"key": key, "usage": [asdict(u) for u in usage]}), encoding="utf-8")
    return usage


def cell(u: Usage, architecture: int) -> str:
    """registers, occupancy, and spilled bytes where there are any"""
    part = occupancy(LIMITS[architecture], u.threads, u.registers,
                     u.shared + dynamic_shared(u.kernel))
    text = f"{u.registers}, {100 * part:.0f} %"
    return text + (f", **spills {u.spilled} B**" if u.spilled else "")


def page(usages: dict[tuple[str, int], list[Usage]]) -> str:
    stems = sorted({stem for stem, _ in usages})
    lines = [kernel_bytes.HEAD]
    for stem in stems:
        columns = {a: {u.kernel: u for u in usages[stem, a]} for a in LIMITS}
        if not columns[80]:
            continue
        lines += [f"\n### {stem}.cu\n",
                  "| kernel | threads | shared B | " + " | ".join(f"sm_{a}" for a in LIMITS) + " |",
                  "|---|---|---|" + "---|" * len(LIMITS)]
        for kernel in sorted(columns[80]):
            u = columns[80][kernel]
            shared = u.shared + dynamic_shared(kernel)
            cells = [cell(columns[a][kernel], a) if kernel in columns[a] else "-" for a in LIMITS]
            lines.append(f"| `{kernel}` | {u.threads} | {shared} | " + " | ".join(cells) + " |")
    lines += ["", kernel_bytes.table()]
    return "\n".join(lines) + "\n"


def spills(usages: dict[tuple[str, int], list[Usage]]) -> list[str]:
    return [f"{u.kernel} spills {u.spilled} bytes on sm_{architecture}"
            for (stem, architecture), found in usages.items() for u in found
            if WITHOUT_SPILLS.match(stem) and architecture in CHECKED and u.spilled]


def self_test() -> int:
    text = ("ptxas info    : Compiling entry function '_Z1aILi3EEvv' for 'sm_80'\n"
            "    24 bytes stack frame, 20 bytes spill stores, 16 bytes spill loads\n"
            "ptxas info    : Used 64 registers, used 1 barriers, 16640 bytes smem, 568 bytes cmem\n"
            "ptxas info    : Compiling entry function '_Z1bv' for 'sm_80'\n"
            "    0 bytes stack frame, 0 bytes spill stores, 0 bytes spill loads\n"
            "ptxas info    : Used 8 registers\n")
    bad = Usage("dq<bf16, 64>", 256, 64, 16640, 36)
    good = Usage("dq<bf16, 64>", 256, 104, 16640, 0)
    cases = [
        (parse_usage(text), {"_Z1aILi3EEvv": (64, 16640, 36), "_Z1bv": (8, 0, 0)}),
        (plain_name("void medvqa::cuda::(anonymous namespace)::f<__nv_bfloat16, 8, "
                    "(medvqa::cuda::(anonymous namespace)::Choice)1, (bool)0>(int, float*)"),
         "f<bf16, 8, 1, 0>"),
        (spills({("attention_backward", 80): [bad]}),
         ["dq<bf16, 64> spills 36 bytes on sm_80"]),
        (spills({("attention_backward", 80): [good], ("attention", 75): [bad],
                 ("swiglu", 80): [bad]}), []),
        # Full at 32 registers; by registers; by shared memory; by threads.
        (occupancy(LIMITS[80], 256, 32, 0), 1.0), (occupancy(LIMITS[80], 256, 64, 0), 0.5),
        (occupancy(LIMITS[80], 128, 255, 36864), 8 / 64),
        (occupancy(LIMITS[75], 128, 64, 32768), 8 / 32),
        (occupancy(LIMITS[86], 1024, 32, 0), 32 / 48), (occupancy(LIMITS[89], 32, 16, 0), 24 / 48),
        (dynamic_shared("attention_fragment_kernel<bf16, 80>"), 128 * 88 * 2),
        (dynamic_shared("attention_dkv_fragment_kernel<f16, 128>"), 192 * 136 * 2 + 256),
        (dynamic_shared("attention_dkv_fragment_kernel<f16, 64>"), 128 * 72 * 2 + 512),
        (dynamic_shared("swiglu_kernel<f16, 8>"), 0),
    ]
    failed = [(got, want) for got, want in cases if got != want]
    for got, want in failed:
        print(f"got {got}\nexpected {want}")
    print(f"{len(cases) - len(failed)} passed, {len(failed)} failed")
    return 1 if failed else 0


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__,
                                     formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--build", type=Path, default=ROOT / "build/cuda")
    parser.add_argument("--check", action="store_true")
    parser.add_argument("--jobs", type=int, default=1)
    parser.add_argument("--self-test", action="store_true")
    arguments = parser.parse_args()
    if arguments.self_test:
        return self_test()
    commands = compile_commands(arguments.build.resolve())
    wanted = [(stem, a) for stem in sorted(commands) for a in LIMITS
              if not arguments.check or WITHOUT_SPILLS.match(stem) and a in CHECKED]
    kept = arguments.build.resolve() / "kernel_table"
    with concurrent.futures.ThreadPoolExecutor(arguments.jobs) as pool:
        usages = dict(zip(wanted, pool.map(
            lambda w: compiled(commands[w[0]], w[0], w[1], kept), wanted)))
    found = spills(usages)
    for line in found:
        print(line)
    if not arguments.check:
        PAGE.write_text(page(usages), encoding="utf-8")
        print(f"{PAGE}: {sum(len(u) for u in usages.values())} kernels in {len(usages)} files")
    print(f"{sum(len(u) for u in usages.values()) - len(found)} passed, {len(found)} failed")
    return 1 if found else 0


if __name__ == "__main__":
    sys.exit(main())
