#!/usr/bin/env python3
"""Counts the cases of a ctest JUnit file; prints the skipped ones with their reasons.

Last line: `N passed, N failed, N skipped`. Exit code 1 when a case failed or none ran.
"""

import re
import sys
import xml.etree.ElementTree as ElementTree


def reason(case: ElementTree.Element) -> str:
    """What GTEST_SKIP() was given, from the test's output."""
    output = case.findtext("system-out") or ""
    found = re.search(r": Skipped\n(.*?)\n(?:\n|\[)", output, re.S)
    text = " ".join(found[1].split()) if found else ""
    return text or (case.find("skipped").get("message") or "no reason given")


def main() -> int:
    cases = list(ElementTree.parse(sys.argv[1]).getroot().iter("testcase"))
    failed = [c for c in cases if c.get("status") == "fail"]
    skipped = [c for c in cases if c not in failed and c.find("skipped") is not None]
    for case in skipped:
        print(f"skipped: {case.get('name')}: {reason(case)}")
    for case in failed:
        print(f"failed: {case.get('name')}")
    passed = len(cases) - len(failed) - len(skipped)
    print(f"{passed} passed, {len(failed)} failed, {len(skipped)} skipped")
    return 1 if failed or not passed else 0


if __name__ == "__main__":
    sys.exit(main())
