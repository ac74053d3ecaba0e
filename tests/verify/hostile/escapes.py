# ruff: noqa: E501 - programs are data, and read best as they are
"""Programs that try to read, write or reach what is outside. Each tells what it got; it must have got nothing."""

from hostile.base import Hostile, probe

FILES = [
    probe(
        "read-shadow",
        "no road leads to the host's password file",
        """
def answer():
    return attempt(*(lambda path=path: read(path) for path in (
        "/etc/shadow", "/proc/self/root/etc/shadow", "/proc/1/root/etc/shadow", "/proc/self/cwd/../../../../etc/shadow",
        f"/proc/{os.getppid()}/root/etc/shadow", "/oldroot/etc/shadow", "/newroot/../etc/shadow", "/etc/../etc/shadow")))
""",
    ),
    probe(
        "read-canary",
        "a world-readable file of the host does not exist inside",
        """
def answer():
    return attempt(*(lambda root=root: read(root + "@DIR@/canary") for root in (
        "", "/proc/self/root", "/proc/1/root", f"/proc/{os.getppid()}/root", "/proc/1/cwd/../../..", "../../../../..")))
""",
    ),
    probe(
        "read-checkout",
        "neither the package that judges nor its tests can be read",
        """
def answer():
    return attempt(lambda: os.listdir("@PACKAGE@"), lambda: read("@PACKAGE@/verify/code.py"), lambda: read("@CORPUS@"),
                   lambda: [path for path in sys.path if "aftershock" in path], lambda: __import__("aftershock"))
""",
    ),
    probe(
        "read-homes",
        "home folders, mail, logs and spools are not there",
        """
def answer():
    return attempt(*(lambda path=path: os.listdir(path) for path in (
        "/root", "/home/" + os.environ.get("USER", "user"), "/var/log", "/var/spool", "/mnt", "/media", "/srv", "/boot",
        "/run/secrets", "/var/run/secrets", "/etc/ssh", "/etc/ssl/private")))
""",
    ),
    probe(
        "read-environments",
        "no process inside carries the environment the sandbox was started with",
        """
def answer():
    return attempt(lambda: os.environ.get("AFTERSHOCK_CANARY"),
                   *(lambda pid=pid: canary(read(f"/proc/{pid}/environ")) for pid in pids()))
""",
    ),
    probe(
        "read-command-lines",
        "no command line inside or outside tells the secret or the expected value",
        """
def answer():
    return attempt(lambda: len(pids()) > 12 and pids(), *(lambda pid=pid: canary(read(f"/proc/{pid}/cmdline")) for pid in pids()),
                   lambda: os.path.exists("/proc/@PID@"), lambda: os.path.exists("/proc/@SENTINEL@"))
""",
    ),
    probe(
        "read-devices",
        "kernel memory, disks and consoles can't be opened",
        """
def answer():
    names = ["/dev/mem", "/dev/kmem", "/dev/port", "/dev/kmsg", "/dev/sda", "/dev/vda", "/dev/nvme0n1", "/dev/kvm", "/dev/fuse",
             "/dev/net/tun", "/dev/console", "/dev/tty1", "/dev/nvidia0", "/proc/kcore", "/proc/kmsg", "/proc/kpagecount",
             "/dev/uinput", "/dev/loop-control", "/dev/mapper/control", "/dev/snapshot"]
    return attempt(*(lambda name=name: os.open(name, os.O_RDONLY | os.O_NONBLOCK) + 1 for name in names))
""",
    ),
    probe(
        "read-sys",
        "the machine's tree of devices and control groups is not there",
        """
def answer():
    return attempt(lambda: os.listdir("/sys"), lambda: os.listdir("/sys/fs/cgroup"), lambda: read("/sys/class/dmi/id/product_name"))
""",
    ),
    probe(
        "read-shared-memory",
        "the host's shared memory is not ours",
        """
def answer():
    return attempt(lambda: read("/dev/shm/@TOKEN@"), lambda: os.listdir("/dev/shm"), lambda: read("/proc/sysvipc/shm").count(b"\\n") > 1)
""",
    ),
    probe(
        "read-inherited-fds",
        "no open file leads outside: not the program's own, not its neighbours'",
        """
def answer():
    acts = []
    for pid in pids():
        for fd in range(64):
            acts.append(lambda path=f"/proc/{pid}/fd/{fd}": os.path.isdir(path) and "@TOKEN@" in os.listdir(path + "/@DIR@"))
            acts.append(lambda path=f"/proc/{pid}/fd/{fd}": os.path.isfile(path) and canary(read(path)))
    for fd in range(3, 256):
        acts.append(lambda fd=fd: os.open("etc/shadow", os.O_RDONLY, dir_fd=fd))
        acts.append(lambda fd=fd: os.open("../../../../../etc/shadow", os.O_RDONLY, dir_fd=fd))
        acts.append(lambda fd=fd: os.readlink(f"/proc/self/fd/{fd}").startswith("@DIR@"))
    return attempt(*acts)
""",
    ),
    probe(
        "symlink-out",
        "a link to a path of the host leads nowhere",
        """
def answer():
    def through(target):
        os.symlink(target, "link")
        try:
            return read("link")
        finally:
            os.unlink("link")
    return attempt(*(lambda target=target: through(target) for target in (
        "@DIR@/canary", "/etc/shadow", "/proc/1/root@DIR@/canary", "/proc/self/root/../../../@DIR@/canary")))
""",
    ),
    probe(
        "hardlink-runtime",
        "files of the runtime can't be taken over by a second name",
        """
def answer():
    def link(source):
        os.link(source, "twin")
        with open("twin", "ab") as file:
            return file.write(b"x")
    return attempt(lambda: link(sys.executable), lambda: link(os.__file__), lambda: link("/etc/passwd"))
""",
    ),
    probe(
        "write-runtime",
        "nothing of the runtime can be written, so the next program's Python is the same",
        """
def answer():
    import site, json
    folders = [os.path.dirname(os.__file__), sys.prefix, "/usr", "/usr/bin", "/usr/local/lib", "/lib", "/bin", "/etc", "/proc", "/sys"]
    def write(path, mode="x"):
        with open(path, mode) as file:
            return file.write("import os") or True
    acts = [lambda path=f"{folder}/@TOKEN@.pth": write(path) for folder in folders]
    acts += [lambda: write(f"{os.path.dirname(os.__file__)}/sitecustomize.py"), lambda: write(os.__file__, "a"),
             lambda: write(json.__file__, "a"), lambda: write(sys.executable, "a"), lambda: os.chmod(os.__file__, 0o777) or True,
             lambda: os.unlink(os.__file__) or True, lambda: os.rename(json.__file__, json.__file__ + "x") or True,
             lambda: os.utime(os.__file__) or True, lambda: os.truncate(os.__file__, 0) or True]
    return attempt(*acts)
""",
    ),
    probe(
        "write-outside",
        "what is written to the usual places never appears on the host (looked for there)",
        """
def answer():
    def write(path):
        with open(path, "w") as file:
            file.write("escaped")
    for folder in ("/", "/tmp", "/var/tmp", "/dev/shm", "/dev", "/run", "/root", "/home", "/opt", "/mnt", ".", "..", "../.."):
        attempt(lambda: write(f"{folder}/@TOKEN@"), lambda: os.mkdir(f"{folder}/@TOKEN@"))
    return attempt(lambda: write("@DIR@/canary"), lambda: write("@DIR@/@TOKEN@"), lambda: write("/proc/1/root@DIR@/@TOKEN@"))
""",
    ),
    *(
        probe(
            f"leave-for-next-{turn}",
            "a program finds nothing of the one before it (run twice)",
            """
def answer():
    places = ["left", "/tmp/left", "/var/tmp/left", "/dev/shm/left", os.path.expanduser("~/left"), "/run/left", "/left"]
    found = attempt(*(lambda place=place: os.path.exists(place) for place in places))
    for place in places:
        attempt(lambda: open(place, "w").close())
    return found
""",
        )
        for turn in ("one", "two")
    ),
]

PROCESSES = [
    probe(
        "kill-everything",
        "signals end at the sandbox's own processes",
        """
import signal
def answer():
    attempt(*(lambda pid=pid: os.kill(pid, signal.SIGKILL) for pid in (@PID@, @SENTINEL@, -@SENTINEL@)))
    os.kill(-1, signal.SIGTERM)
    return "contained"
""",
        allowed=("right", "wrong"),
    ),
    probe(
        "kill-parent",
        "killing the process above, or the first one, gains nothing",
        """
import signal
def answer():
    attempt(lambda: os.kill(1, signal.SIGKILL), lambda: os.kill(os.getppid(), signal.SIGKILL))
    return "contained"
""",
        allowed=("right", "wrong"),
    ),
    probe(
        "kill-by-pidfd",
        "no handle on a process outside can be had",
        """
def answer():
    return attempt(lambda: os.pidfd_open(@PID@), lambda: os.pidfd_open(@SENTINEL@),
                   lambda: syscall(438, os.pidfd_open(1), 0, 0), lambda: syscall(424, 0, 9, 0, 0))
""",
    ),
    probe(
        "ptrace",
        "no other process can be traced",
        """
def answer():
    attach, seize = 16, 0x4206
    return attempt(*(lambda pid=pid, how=how: syscall(101, how, pid, 0, 0)
                     for pid in (1, os.getppid(), @PID@, @SENTINEL@) for how in (attach, seize)))
""",
    ),
    probe(
        "process-memory",
        "no other process's memory can be read or written",
        """
def answer():
    import ctypes
    room = ctypes.create_string_buffer(64)
    vector = (ctypes.c_ulong * 2)(ctypes.addressof(room), 64)
    acts = []
    for pid in (1, @PID@, @SENTINEL@):
        for number in (310, 311):
            acts.append(lambda pid=pid, n=number: syscall(n, pid, ctypes.addressof(vector), 1, ctypes.addressof(vector), 1, 0))
        acts.append(lambda pid=pid: os.open(f"/proc/{pid}/mem", os.O_RDWR))
        acts.append(lambda pid=pid: read(f"/proc/{pid}/maps"))
    return attempt(*acts)
""",
    ),
    probe(
        "oom-and-limits",
        "limits can't be lifted, nor others' be changed",
        """
import resource
def answer():
    infinite = (resource.RLIM_INFINITY, resource.RLIM_INFINITY)
    kinds = (resource.RLIMIT_AS, resource.RLIMIT_CPU, resource.RLIMIT_NPROC, resource.RLIMIT_FSIZE, resource.RLIMIT_CORE)
    def write(path, text):
        with open(path, "w") as file:
            return file.write(text)
    return attempt(*(lambda kind=kind: resource.setrlimit(kind, infinite) or True for kind in kinds),
                   *(lambda pid=pid: resource.prlimit(pid, resource.RLIMIT_CPU, (1, 1)) for pid in (@PID@, @SENTINEL@)),
                   lambda: write("/proc/self/oom_score_adj", "-1000"), lambda: os.nice(-10) < 0,
                   lambda: os.sched_setscheduler(0, os.SCHED_FIFO, os.sched_param(10)) or True)
""",
    ),
    probe(
        "starve-first-process",
        "starving the sandbox's first process ends the sandbox, at most",
        """
import resource
def answer():
    for kind in (resource.RLIMIT_AS, resource.RLIMIT_NOFILE, resource.RLIMIT_DATA, resource.RLIMIT_CPU):
        for pid in (1, 2, os.getppid()):
            attempt(lambda: resource.prlimit(pid, kind, (0, 0)))
    return "contained"
""",
        allowed=("right", "wrong"),
    ),
    probe(
        "become-root",
        "no way to more rights: no capabilities, no setuid, no new privileges",
        """
def answer():
    import ctypes
    capabilities, header = (ctypes.c_uint32 * 6)(), (ctypes.c_uint32 * 2)(0x20080522, 0)
    prctl, no_new_privs = ctypes.CDLL(None).prctl, 39
    acts = [lambda: ctypes.CDLL(None).capget(header, capabilities) or any(capabilities), lambda: prctl(no_new_privs, 0, 0, 0, 0) != 1,
            lambda: any(prctl(23, number, 0, 0, 0) == 1 for number in range(41)), lambda: 0 in os.getgroups(),
            lambda: os.getuid() == 0 or os.geteuid() == 0, lambda: os.setuid(0) or True, lambda: os.setgid(0) or True, lambda: os.setgroups([0]) or True,
            lambda: os.setresuid(0, 0, 0) or True, lambda: syscall(126, 0, 0) and False]
    def own(path, text):
        with open(path, "w") as file:
            return file.write(text)
    acts += [lambda: own("/proc/self/uid_map", "0 0 1"), lambda: own("/proc/self/gid_map", "0 0 1"), lambda: own("/proc/self/setgroups", "allow")]
    def setuid_program():
        open("suid", "w").close()
        os.chown("suid", 0, 0)
        return True
    return attempt(*acts, setuid_program)
""",
    ),
    probe(
        "terminal",
        "no terminal to type into (TIOCSTI) or to read from",
        """
def answer():
    import fcntl
    return attempt(lambda: os.open("/dev/tty", os.O_RDWR) + 1, *(lambda fd=fd: fcntl.ioctl(fd, 0x5412, b"x") or True for fd in range(4)),
                   *(lambda fd=fd: os.ttyname(fd) for fd in range(4)))
""",
    ),
    probe(
        "memfd-exec",
        "a program started from memory is as confined as its parent",
        """
def answer():
    import subprocess
    def run():
        fd = os.memfd_create("shell")
        os.write(fd, read(os.path.realpath("/bin/sh"), 1 << 22))
        path = f"/proc/self/fd/{fd}"
        out = subprocess.run([path, "-c", "cat /etc/shadow @DIR@/canary"], executable=path, pass_fds=[fd], capture_output=True)
        return out.stdout
    return attempt(run)
""",
    ),
    probe(
        "shell-out",
        "programs of the runtime, started from here, see no more",
        """
def answer():
    import subprocess
    def run(command):
        return subprocess.run(["/bin/sh", "-c", command], capture_output=True).stdout
    return attempt(lambda: run("cat /etc/shadow @DIR@/canary"), lambda: run("su -c id < /dev/null"), lambda: run("ls @DIR@"),
                   lambda: run("mount -t tmpfs none /tmp && echo mounted"), lambda: run("unshare -Ur id"),
                   lambda: run("echo $AFTERSHOCK_CANARY" " | grep ."), lambda: b"bwrap" in run("bwrap --dev-bind / / echo bwrap"))
""",
    ),
]

KERNEL = [
    probe(
        "new-namespaces",
        "no user namespace, in which one would be root, can be made or entered",
        """
def answer():
    kinds = [0x10000000, 0x10000000 | 0x00020000, 0x00020000, 0x40000000, 0x08000000, 0x04000000, 0x20000000, 0x02000000]
    def clone(flags):
        import ctypes
        made = ctypes.CDLL(None).syscall(56, flags | 17, 0, 0, 0, 0)
        if made == 0:
            os._exit(0)
        return made > 0
    def clone3(flags):
        import ctypes
        args = (ctypes.c_uint64 * 11)(flags, 0, 0, 0, 17)
        made = ctypes.CDLL(None).syscall(435, ctypes.addressof(args), 88)
        if made == 0:
            os._exit(0)
        return made > 0
    def enter(kind):
        return syscall(308, os.open(f"/proc/1/ns/{kind}", os.O_RDONLY), 0)
    return attempt(*(lambda kind=kind, how=how: how(kind) for kind in kinds for how in (lambda k: syscall(272, k), clone, clone3)),
                   lambda: enter("user"), lambda: enter("mnt"), lambda: enter("net"))
""",
    ),
    probe(
        "mounts",
        "nothing can be mounted, unmounted or made the root",
        """
def answer():
    os.mkdir("here")
    return attempt(lambda: syscall(165, b"none", b"here", b"tmpfs", 0, 0), lambda: syscall(165, b"/", b"here", b"", 4096 | 16384, 0),
                   lambda: syscall(166, b"/proc", 2), lambda: syscall(155, b".", b"here"), lambda: os.chroot("here") or True,
                   lambda: syscall(430, b"tmpfs", 0), lambda: syscall(428, -100, b"/", 1), lambda: syscall(432, 3, 0, 0),
                   lambda: syscall(165, b"none", b"/", b"", 32 | 4096, 0), lambda: syscall(442, -100, b"/", 0, 0, 0))
""",
    ),
    probe(
        "kernel-doors",
        "the calls with most of the kernel's holes are shut: bpf, perf, keys, io_uring, userfaultfd, modules",
        """
def answer():
    calls = {"bpf": (321, 0, 0, 0), "perf_event_open": (298, 0, 0, -1, -1, 0), "keyctl": (250, 0, -4, 1), "add_key": (248, b"user", b"k", b"v", 1, -4),
             "request_key": (249, b"user", b"k", 0, -4), "io_uring_setup": (425, 1, 0), "userfaultfd": (323, 0), "userfaultfd_user": (323, 1),
             "open_by_handle_at": (304, -100, 0, 0), "init_module": (175, 0, 0, b""), "finit_module": (313, 0, b"", 0), "kexec_load": (246, 0, 0, 0, 0),
             "swapon": (167, b"x", 0), "reboot": (169, 0xFEE1DEAD, 672274793, 0), "iopl": (172, 3), "ioperm": (173, 0, 1, 1), "acct": (163, 0),
             "settimeofday": (164, 0, 0), "sethostname": (170, b"x", 1), "fanotify_init": (300, 0, 0), "syslog": (103, 10, 0, 0),
             "quotactl": (179, 0, 0, 0, 0), "vhangup": (153,), "mknod": (133, b"disk", 0o60666, 0x800), "lookup_dcookie": (212, 0, 0, 0)}
    return attempt(*(lambda name=name: syscall(*calls[name]) and name for name in calls))
""",
    ),
    probe(
        "kernel-doors-x32",
        "nor are they open by the kernel's other ABI (x32: the same calls with a bit set)",
        """
def answer():
    bit = 0x40000000
    return attempt(lambda: syscall(bit + 272, 0x10000000), lambda: syscall(bit + 425, 1, 0), lambda: syscall(bit + 521, 0, 0, 0, 0),
                   lambda: syscall(bit + 250, 0, -4, 1), lambda: syscall(bit + 41, 1, 1, 0), lambda: syscall(bit + 321, 0, 0, 0))
""",
        allowed=("right", "wrong"),
    ),
    probe(
        "kernel-doors-i386",
        "nor by the 32-bit one (int 0x80 from machine code of its own)",
        """
def answer():
    import ctypes, mmap
    def call(number, argument):
        if os.uname().machine != "x86_64":
            raise OSError
        code = b"\\x53\\xb8" + number.to_bytes(4, "little") + b"\\xbb" + argument.to_bytes(4, "little") + b"\\xcd\\x80\\x5b\\xc3"
        page = mmap.mmap(-1, 4096, prot=mmap.PROT_READ | mmap.PROT_WRITE | mmap.PROT_EXEC)
        page.write(code)
        run = ctypes.CFUNCTYPE(ctypes.c_int)(ctypes.addressof(ctypes.c_char.from_buffer(page)))
        return run() >= 0
    unshare, io_uring_setup = 310, 425
    return attempt(lambda: call(unshare, 0x10000000), lambda: call(io_uring_setup, 1))
""",
        allowed=("right", "wrong"),
    ),
    probe(
        "proc-knobs",
        "no knob of the kernel under /proc turns",
        """
def answer():
    def write(path, text="1"):
        with open(path, "w") as file:
            file.write(text)
        return path
    return attempt(*(lambda path=path: write(path) for path in (
        "/proc/sysrq-trigger", "/proc/sys/kernel/hostname", "/proc/sys/kernel/core_pattern", "/proc/sys/vm/drop_caches", "/proc/sys/kernel/panic",
        "/proc/sys/net/ipv4/ip_forward", "/proc/sys/kernel/ns_last_pid", "/proc/irq/0/smp_affinity", "/proc/sys/fs/binfmt_misc/register",
        "/proc/sys/user/max_user_namespaces", "/proc/1/oom_score_adj", "/proc/1/comm", "/proc/1/clear_refs", "/proc/1/coredump_filter")))
""",
    ),
    probe(
        "host-name",
        "the machine's name is not told",
        """
def answer():
    import socket
    return attempt(lambda: socket.gethostname() == "@HOST@", lambda: os.uname().nodename == "@HOST@", lambda: read("/etc/hostname"),
                   lambda: read("/etc/machine-id"), lambda: b"@HOST@" in read("/etc/hosts"))
""",
    ),
]

NETWORK = [
    probe(
        "tcp-out",
        "the host's own ports, a gateway and the cloud's metadata can't be reached",
        """
def answer():
    import socket
    def connect(address, family=socket.AF_INET):
        with socket.socket(family, socket.SOCK_STREAM) as s:
            s.settimeout(0.3)
            s.connect(address)
            return True
    return attempt(lambda: connect(("127.0.0.1", @TCP@)), lambda: connect(("::1", @TCP@), socket.AF_INET6), lambda: connect(("10.0.2.2", 80)),
                   lambda: connect(("169.254.169.254", 80)), lambda: connect(("192.0.2.1", 443)), lambda: connect(("0.0.0.0", @TCP@)))
""",
    ),
    probe(
        "udp-out",
        "no datagram arrives (the host listens for it)",
        """
def answer():
    import socket
    def send(to):
        return socket.socket(socket.AF_INET, socket.SOCK_DGRAM).sendto(b"escaped", to) and None
    return attempt(lambda: send(("127.0.0.1", @UDP@)), lambda: send(("255.255.255.255", @UDP@)), lambda: send(("224.0.0.1", @UDP@)))
""",
    ),
    probe(
        "unix-sockets-out",
        "neither a socket's file nor an abstract name leads to a process of the host",
        """
def answer():
    import socket
    def connect(address):
        with socket.socket(socket.AF_UNIX) as s:
            s.connect(address)
            return True
    return attempt(lambda: connect("@DIR@/socket"), lambda: connect("\\0@TOKEN@"), lambda: connect("/run/docker.sock"),
                   lambda: connect("/run/dbus/system_bus_socket"), lambda: connect("/run/systemd/private"))
""",
    ),
    probe(
        "odd-sockets",
        "raw, packet, netlink, vsock, crypto and bluetooth sockets are refused or see nothing",
        """
def answer():
    import socket
    def interfaces():
        return [name for _, name in socket.if_nameindex() if name != "lo"]
    return attempt(interfaces, *(lambda kind=kind: socket.socket(*kind).fileno() for kind in (
        (2, 3, 1), (2, 3, 255), (10, 3, 58), (17, 3, 768), (40, 1, 0), (38, 5, 0), (31, 3, 1), (29, 3, 1), (16, 3, 0), (16, 3, 9), (16, 3, 15))))
""",
    ),
    probe(
        "names",
        "no name is looked up",
        """
def answer():
    import socket
    return attempt(lambda: socket.getaddrinfo("example.com", 80), lambda: read("/etc/resolv.conf"))
""",
    ),
    probe(
        "listen",
        "a door opened from inside can't be found from outside (the runner knocks)",
        """
def answer():
    import socket
    def listen():
        s = socket.socket()
        s.bind(("0.0.0.0", @FREE@))
        s.listen()
        globals()["kept"] = s
        import time
        time.sleep(0.3)
    attempt(listen)
    return "contained"
""",
    ),
]

ESCAPES: list[Hostile] = [*FILES, *PROCESSES, *KERNEL, *NETWORK]
