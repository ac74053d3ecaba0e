# ruff: noqa: E501 - programs are data, and read best as they are
"""Hostile programs in other languages, where their compilers or interpreters are installed."""

from pathlib import Path

from aftershock.verify.program import StdioTest
from hostile.base import TIGHT, Hostile, control

_TOOLS = {"c": "/usr/bin/gcc", "cpp": "/usr/bin/g++", "javascript": "/usr/bin/node"}
_FOREIGN = StdioTest("", "contained\n")
_WRONG = StdioTest("", "7\n")

_ALL = [
    Hostile(
        "c-include",
        "the compiler reads no more than the program may",
        '#include "@DIR@/canary"\n#include "/etc/shadow"\nint main() { return 0; }\n',
        (_WRONG,),
        ("wrong",),
        language="c",
    ),
    Hostile(
        "c-incbin",
        "nor does the assembler",
        '#include <stdio.h>\n__asm__(".data\\nx: .incbin \\"@DIR@/canary\\"\\n.byte 0\\n");\nextern char x[];\n'
        "int main() { puts(x); }\n",
        (_WRONG,),
        ("wrong",),
        language="c",
    ),
    Hostile(
        "c-read",
        "a binary sees what Python sees",
        """
#include <stdio.h>
#include <stdlib.h>
#include <unistd.h>
int main() {
    FILE *f = fopen("@DIR@/canary", "r"), *g = fopen("/etc/shadow", "r"), *h = fopen("/usr/@TOKEN@", "w");
    puts(f || g || h || getenv("AFTERSHOCK_CANARY") || geteuid() == 0 ? "ESCAPED" : "contained");
}
""",
        (_FOREIGN,),
        ("right",),
        language="c",
    ),
    Hostile(
        "c-system-calls",
        "a binary can't make system calls that Python can't",
        """
#include <stdio.h>
#include <sys/syscall.h>
#include <unistd.h>
int main() {
    int got = 0;
    got |= syscall(SYS_unshare, 0x10000000) == 0;
    got |= syscall(SYS_socket, 2, 1, 0) >= 0;
    got |= syscall(SYS_bpf, 0, 0, 0) >= 0;
    got |= syscall(SYS_ptrace, 16, 1, 0, 0) == 0;
    got |= syscall(SYS_mount, "none", "/tmp", "tmpfs", 0, 0) == 0;
    puts(got ? "ESCAPED" : "contained");
}
""",
        (_FOREIGN,),
        ("right",),
        language="c",
    ),
    Hostile("c-fork-bomb", "ended with all its children", "#include <unistd.h>\nint main() { for (;;) fork(); }\n", (_WRONG,), ("wrong",), TIGHT, "c"),
    Hostile("c-memory", "refused beyond the limit", '#include <stdlib.h>\n#include <string.h>\n#include <stdio.h>\nint main() { char *p; long n = 0; while ((p = malloc(1 << 20))) { memset(p, 1, 1 << 20); if (++n > 384) puts("ESCAPED"); } return 1; }\n', (_WRONG,), ("wrong",), language="c"),
    Hostile("c-overflow", "a stack that overflows is the program's", "int f(int n) { volatile char x[4096]; x[n % 4096] = 1; return f(n + 1) + x[0]; }\nint main() { return f(0); }\n", (_WRONG,), ("wrong",), language="c"),
    Hostile("cpp-templates", "templates without end end", "template <int n> struct X { static const int v = X<n + 1>::v + X<n + 2>::v; };\nint main() { return X<0>::v; }\n", (_WRONG,), ("wrong",), language="cpp"),
    Hostile("cpp-include-itself", "includes without end end", '#include "program.cpp"\n#include "program.cpp"\nint main() {}\n', (_WRONG,), ("wrong",), TIGHT, language="cpp"),
    Hostile(
        "js-read",
        "node sees what Python sees",
        """
const fs = require("fs"), got = [];
for (const path of ["/etc/shadow", "@DIR@/canary", "/proc/1/environ", "/proc/self/environ"]) {
  try { if (fs.readFileSync(path, "utf8").match(/CANARY|root:/)) got.push(path); } catch {}
}
try { fs.writeFileSync("/usr/@TOKEN@", "x"); got.push("write"); } catch {}
if (process.env.AFTERSHOCK_CANARY) got.push("env");
console.log(got.length ? "ESCAPED " + got : "contained");
""",
        (_FOREIGN,),
        ("right",),
        language="javascript",
    ),
    Hostile(
        "js-connect",
        "node has no network",
        """
const s = require("net").connect(@TCP@, "127.0.0.1");
s.on("connect", () => { console.log("ESCAPED"); process.exit(0); });
s.on("error", () => { console.log("contained"); process.exit(0); });
""",
        (_FOREIGN,),
        ("right",),
        language="javascript",
    ),
    Hostile("js-loop", "ended by its time", "for (;;) {}\n", (_WRONG,), ("wrong",), TIGHT, "javascript"),
    Hostile("js-memory", "refused beyond the limit", "const x = []; for (;;) x.push(new Array(1e6).fill(7));\n", (_WRONG,), ("wrong",), language="javascript"),
    Hostile("js-children", "ended with all it started", 'const c = require("child_process"); for (;;) c.spawn("/bin/sleep", ["1000"]);\n', (_WRONG,), ("wrong",), TIGHT, "javascript"),
    control("c-good", "plain C", '#include <stdio.h>\nint main() { int n; scanf("%d", &n); printf("%d\\n", n * n); }\n', StdioTest("7", "49"), StdioTest("3", "9"), language="c"),
    control("cpp-good", "plain C++", "#include <iostream>\n#include <vector>\nint main() { int n; std::cin >> n; std::vector<int> v(n, 7); std::cout << v.size() << std::endl; }\n", StdioTest("7", "7"), language="cpp"),
    control("js-good", "plain JavaScript", 'console.log(require("fs").readFileSync(0, "utf8").trim().split(" ").length);\n', StdioTest("a b c", "3"), language="javascript"),
]  # fmt: skip
OTHERS: list[Hostile] = [item for item in _ALL if Path(_TOOLS[item.language]).exists()]
