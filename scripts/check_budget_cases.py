"""The self-test of check_budget.py: functions that it must see, with their exact lengths."""

import tempfile
from pathlib import Path

import check_budget

LONG = "  f(1);\n"

# source, expected (first line, lines) of every function
CASES = [
    ("int f() {\n  return 1;\n}\n", [(1, 3)]),
    ("namespace a::b {\nint f(int x) { return x; }\n}  // namespace a::b\n", [(2, 1)]),
    ('const char* s = "{ ) {";\nchar c = \'{\';  // {\nint f() {\n}\n', [(3, 2)]),
    ('auto r = R"x(\n{ int g() { )x";\nint f() {\n}\n', [(3, 2)]),
    ("int n = 1'000'000;\nint f() {\n  return 0xff'ff;\n}\n", [(2, 3)]),
    ("int t[] = {1, 2, 3};\nstd::map<int, F> m{{1, f()}, {2, g()}};\nint f() {\n}\n", [(3, 2)]),
    ("class A : public B<C()> {\n public:\n  int f() const {\n  }\n  int x_{3};\n};\n", [(3, 2)]),
    ("A::A(int x)\n    : x_{x}, y_(f(x)), z_{1, {2}} {\n  g();\n}\n", [(1, 4)]),
    ("A::A(int x) : x_(x) {}\nint g() {\n}\n", [(1, 1), (2, 2)]),
    ("template <class T>\nauto f(T x) -> std::vector<T> {\n  return {x};\n}\n", [(1, 4)]),
    ("void f() noexcept(true) {\n  auto g = [](int x) { return x; };\n  struct S { int a; };\n}\n",
     [(1, 4)]),
    ("auto compare = [](int a, int b) {\n  return a < b;\n};\n", [(1, 3)]),
    ("enum class E { a, b };\nstruct P { int x = 0; };\nvoid f(P p = {}) {\n}\n", [(3, 2)]),
    ("#define M(x) do { x; \\\n  } while (0) {\nint f() {\n}\n", [(3, 2)]),
    ("__global__ void k(int* p) {\n  *p = 1;\n}\n", [(1, 3)]),
    ("TEST(Suite, Name) {\n  EXPECT_EQ(f(), (S{1, 2}));\n}\n", [(1, 3)]),
    ("struct H {\n  bool operator()(int a) const noexcept {\n    return a;\n  }\n};\n", [(2, 3)]),
    ('extern "C" {\nint f() {\n}\n}\n', [(2, 2)]),
    ("Foo x = make({1, 2});\nstatic const Bar b(g({1}), 2);\nint f() {\n}\n", [(3, 2)]),
    ("template <class T>\n  requires(sizeof(T) > 1)\nint f(T) {\n}\n", [(1, 4)]),
    ("A& A::operator=(A&& o) & {\n}\nA::operator bool() const {\n}\n", [(1, 2), (3, 2)]),
]

# path, content, whether it must be complained about
FILES = [
    ("src/a/a.cpp", "int f() {\n" + LONG * 58 + "}\n", False),
    ("src/a/a.cpp", "int f() {\n" + LONG * 59 + "}\n", True),
    ("include/medvqa/a/a.h", "struct A {\n  A(int x) : x_{x} {\n" + LONG * 60 + "  }\n};\n", True),
    ("src/a/a.cpp", "auto f = [](int x) {\n" + LONG * 60 + "};\n", True),
    ("kernels/cuda/a.cu", "__global__ void k() {\n" + LONG * 118 + "}\n", False),
    ("kernels/cuda/a.cu", "__global__ void k() {\n" + LONG * 119 + "}\n", True),
    ("kernels/cpu/a.cpp", "void k() {\n" + LONG * 119 + "}\n", True),
    ("tests/a/a_test.cpp", "TEST(A, B) {\n" + LONG * 118 + "}\n", False),
    ("tests/a/a_test.cpp", "TEST(A, B) {\n" + LONG * 119 + "}\n", True),
    ("tests/a/a_test.cpp", "void f() {\n" + LONG * 70 + "}\n", True),
    ("src/a/a.cpp", "// x\n" * 400, False),
    ("src/a/a.cpp", "// x\n" * 401, True),
    ("src/a/a.cpp", "// " + "x" * 97 + "\n", False),
    ("src/a/a.cpp", "// " + "x" * 98 + "\n", True),
    ("src/a/a.cpp", "int f() {\n  g(1;\n", True),
    ("scripts/a.py", "x = 1\n" * 401, True),
    ("scripts/a.py", "x = '" + "x" * 100 + "'\n", True),
]


def run() -> int:
    """Prints every wrong verdict and a count; returns the exit code."""
    wrong = 0
    for source, expected in CASES:
        found = [(first, lines) for first, lines, _ in check_budget.functions(source)]
        if found != expected:
            wrong += 1
            print(f"self-test: {found} for {expected}:\n{source}")
    for path, content, bad in FILES:
        with tempfile.TemporaryDirectory() as folder:
            file = Path(folder) / path
            file.parent.mkdir(parents=True)
            file.write_text(content)
            if bool(check_budget.check_file(Path(folder), file)) != bad:
                wrong += 1
                print(f"self-test: wrong verdict on {path}, {content.count(chr(10))} lines")
    count = len(CASES) + len(FILES)
    print(f"check_budget self-test: {count - wrong} passed, {wrong} failed")
    return 1 if wrong else 0
