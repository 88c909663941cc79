#!/usr/bin/env python3
"""Holds the size budget: files, functions, kernels, lines; and prints lines per module.

C++ and CUDA in include, src, kernels, tests: file <= 400 lines, host function <= 60, kernel
(__global__) and test body <= 120, line <= 100 columns. Python in scripts: file <= 400, line <= 100.
A function's length runs from the first line of its signature to its closing brace.
"""

import argparse
import collections
import re
import sys
from pathlib import Path

ROOT = Path(__file__).resolve().parent.parent
FILE_LINES, FUNCTION_LINES, KERNEL_LINES, TEST_LINES, COLUMNS = 400, 60, 120, 120, 100
SUFFIXES = {".h", ".cpp", ".cu", ".cuh"}

# What is not code becomes blanks; identifiers and numbers are matched so that a digit separator
# or a prefix is not taken for a quote.
TOKEN = re.compile(
    r"(?P<blank>//[^\n]*|/\*.*?\*/"
    r'|(?:u8|[uUL])?R"(?P<mark>[^()\\\s]{0,16})\(.*?\)(?P=mark)"'
    r'|(?:u8|[uUL])?"(?:\\.|[^"\\\n])*"'
    r"|(?:u8|[uUL])?'(?:\\.|[^'\\\n])+'"
    r"|(?:^|(?<=\n))[ \t]*\#(?:\\\r?\n|[^\n])*)"
    r"|[A-Za-z_]\w*|\d[\w'.]*", re.S)
TYPE = re.compile(r"(?:template\s*<.*>\s*)?(?:typedef\s+)?(?:class|struct|union|enum)\b", re.S)
NAMESPACE = re.compile(r"(?:inline\s+)?namespace\b|extern\s*$")
MEMBERS = re.compile(r"\)[^()]*?[^:]:[^:]")  # a constructor's member initialisers have begun
BODY_END = re.compile(r"(?:[)}]|\b(?:const|noexcept|override|final|mutable|try|volatile)|&)$")
ACCESS = re.compile(r"\s*(?:public|private|protected)\s*:")
TEST = re.compile(r"(?:TYPED_)?TEST(?:_F|_P)?\s*\(|TYPED_TEST_P\s*\(|BENCHMARK")


def blanked(text: str) -> str:
    """The text with comments, literals and preprocessor lines blanked, line breaks kept."""
    def blank(match: re.Match) -> str:
        return re.sub(r"[^\n]", " ", match[0]) if match["blank"] else match[0]
    return TOKEN.sub(blank, text)


def opens(header: str) -> str:
    """What a brace after `header` opens outside functions: namespace, type, function, value."""
    head = re.sub(r"\[\[.*?\]\]", "", header).strip()
    if NAMESPACE.match(head):
        return "namespace"
    if TYPE.match(head) and not head.endswith(")"):
        return "type"
    if ")" not in head or head.endswith(("=", "(", ",", "return")):
        return "value"
    tail = head[head.index(")"):]
    if BODY_END.search(head) or "->" in tail and not MEMBERS.search(head):
        return "function"
    if MEMBERS.search(head):
        return "value"
    return "function" if re.search(r"\)\s*(?:requires\b.*|noexcept\b.*)$", head, re.S) else "value"


def functions(text: str) -> list[tuple[int, int, str]]:
    """(first line, lines, header) of every function of a file; inner ones belong to the outer."""
    code = blanked(text)
    found, stack, line = [], [], 1
    header, header_line = "", 1
    for char in code:
        if char == "\n":
            line += 1
        if not header.strip() and not char.isspace():
            header_line = line
        if stack and stack[-1][0] in ("function", "inner"):
            if char == "{":
                stack.append(("inner", "", 0))
            elif char == "}":
                kind, head, begin = stack.pop()
                if kind == "function":
                    found.append((begin, line - begin + 1, head))
                    header = ""
        elif char == "{":
            kind = "inner value" if stack and "value" in stack[-1][0] else opens(header)
            stack.append((kind, header, header_line))
            header = header if "value" in kind else ""
        elif char == "}":
            kind, head, _ = stack.pop() if stack else ("unbalanced", "", 0)
            if kind == "unbalanced":
                return [(line, 10**6, "braces do not balance")]
            header = head + "{}" if "value" in kind else ""
        elif char == ";" and not (stack and "value" in stack[-1][0]):
            header = ""
        elif not (stack and "value" in stack[-1][0]):
            header = "" if ACCESS.fullmatch(header + char) else header + char
    if stack:
        found.append((line, 10**6, "braces do not balance at the end of the file"))
    return found


def limit_of(path: Path, header: str) -> int:
    """The longest a function with this header may be."""
    if "__global__" in header:
        return KERNEL_LINES
    if "tests" in path.parts and TEST.search(header):
        return TEST_LINES
    return FUNCTION_LINES


def name_of(header: str) -> str:
    """A function's name for a message."""
    head = " ".join(re.sub(r"template\s*<[^{}()]*>", "", header).split())
    return head[:60]


def check_file(root: Path, file: Path) -> list[str]:
    """Complaints about one file, each `path:line: text`."""
    path = file.relative_to(root)
    text = file.read_text(encoding="utf-8")
    lines = text.splitlines()
    complaints = []
    if len(lines) > FILE_LINES:
        complaints.append(f"{path}:{FILE_LINES + 1}: {len(lines)} lines, limit {FILE_LINES}")
    for number, line in enumerate(lines, 1):
        if len(line) > COLUMNS:
            complaints.append(f"{path}:{number}: {len(line)} columns, limit {COLUMNS}")
    if file.suffix in SUFFIXES:
        for first, length, header in functions(text):
            limit = limit_of(path, header)
            if length > limit:
                complaints.append(f"{path}:{first}: {length} lines, limit {limit}: "
                                  f"{name_of(header)}")
    return complaints


def tree(root: Path) -> list[Path]:
    """All files under the budget."""
    code = [f for folder in ("include", "src", "kernels", "tests")
            for f in sorted((root / folder).rglob("*")) if f.suffix in SUFFIXES]
    return code + sorted((root / "scripts").rglob("*.py"))


def module_of(path: Path) -> str:
    """The row of the line count that a file belongs to."""
    parts = path.parts
    if parts[:2] == ("include", "medvqa"):
        return parts[2]
    if parts[0] == "src":
        return parts[1]
    return "/".join(parts[:2]) if len(parts) > 2 else parts[0]


def print_counts(root: Path, files: list[Path]) -> None:
    """Files and lines of every module, and of the whole tree."""
    counts: dict[str, list[int]] = collections.defaultdict(lambda: [0, 0])
    for file in files:
        for row in (module_of(file.relative_to(root)), "all"):
            counts[row][0] += 1
            counts[row][1] += len(file.read_text(encoding="utf-8").splitlines())
    print("module                files  lines")
    for row, (number, lines) in sorted(counts.items(), key=lambda c: (c[0] == "all", c[0])):
        print(f"{row:<20} {number:>6} {lines:>6}")


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--self-test", action="store_true", help="prove that it can fail")
    parser.add_argument("--root", type=Path, default=ROOT)
    arguments = parser.parse_args()
    if arguments.self_test:
        import check_budget_cases
        return check_budget_cases.run()
    root = arguments.root.resolve()
    files = tree(root)
    print_counts(root, files)
    complaints = [c for file in files for c in check_file(root, file)]
    print("\n".join(complaints + [f"check_budget: {len(files)} files, "
                                  f"{len(complaints)} complaints"]))
    return 1 if complaints else 0


if __name__ == "__main__":
    sys.exit(main())
