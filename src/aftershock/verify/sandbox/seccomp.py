"""The system calls that a sandboxed program may not make, as a classic BPF program for the kernel's seccomp filter."""

import platform
import struct

# "name number-on-x86_64 number-on-aarch64", a dash where there is none. From the kernel's tables of system calls.
_DENIED = (
    # other processes
    "ptrace 101 117, process_vm_readv 310 270, process_vm_writev 311 271, process_madvise 440 440, kcmp "
    "312 272, pidfd_getfd 438 438, "
    # namespaces and mounts
    "unshare 272 97, setns 308 268, mount 165 40, umount2 166 39, pivot_root 155 41, chroot 161 51, "
    "open_tree 428 428, move_mount 429 429, fsopen 430 430, fsconfig 431 431, fsmount 432 432, fspick 433 "
    "433, mount_setattr 442 442, name_to_handle_at 303 264, open_by_handle_at 304 265, fanotify_init 300 "
    "262, "
    # memory that no limit on a process counts
    "shmget 29 194, shmat 30 196, msgget 68 186, semget 64 190, mq_open 240 180, memfd_create 319 279, "
    # the network
    "socket 41 198, "
    # parts of the kernel with a history of holes, of no use to a program that computes
    "bpf 321 280, perf_event_open 298 241, userfaultfd 323 282, io_uring_setup 425 425, io_uring_enter "
    "426 426, io_uring_register 427 427, add_key 248 217, request_key 249 218, keyctl 250 219, "
    "memfd_secret 447 447, vmsplice 278 75, move_pages 279 239, migrate_pages 256 238, mbind 237 235, "
    "set_mempolicy 238 237, modify_ldt 154 -, personality 135 92, lookup_dcookie 212 18, "
    # the machine
    "kexec_load 246 104, kexec_file_load 320 294, init_module 175 105, finit_module 313 273, "
    "delete_module 176 106, reboot 169 142, swapon 167 224, swapoff 168 225, syslog 103 116, acct 163 89, "
    "quotactl 179 60, quotactl_fd 443 443, settimeofday 164 170, clock_settime 227 112, adjtimex 159 171, "
    "clock_adjtime 305 266, iopl 172 -, ioperm 173 -, uselib 134 -, vhangup 153 58, sethostname 170 161, "
    "setdomainname 171 162"
)
_CLONE3 = 435  # its flags lie in memory, where a filter can't look: "not implemented" sends callers back to clone
_CLONE_NEW = 0x7E020000  # CLONE_NEWNS, NEWCGROUP, NEWUTS, NEWIPC, NEWUSER, NEWPID and NEWNET
_MACHINES = {"x86_64": (1, 0xC000003E, 56), "aarch64": (2, 0xC00000B7, 220)}  # column, AUDIT_ARCH, clone

_LOAD, _EQUAL, _AT_LEAST, _ANY_BIT, _RETURN = 0x20, 0x15, 0x35, 0x45, 0x06
_NUMBER, _ARCH, _FIRST_ARGUMENT = 0, 4, 16  # where they lie in struct seccomp_data (little-endian low word)
_ALLOW, _KILL, _EPERM, _ENOSYS = 0x7FFF0000, 0x80000000, 0x00050001, 0x00050026


def program(machine: str = platform.machine()) -> bytes:
    """Return the filter for bwrap's --seccomp; b"" for a machine whose numbers are not known here.

    Denied calls fail with EPERM; calls in another architecture's numbering end the process.
    """
    if machine not in _MACHINES:
        return b""
    column, arch, clone = _MACHINES[machine]
    denied = [int(number) for call in _DENIED.split(",") if (number := call.split()[column]) != "-"]
    rows = [(_LOAD, 0, 0, _ARCH), (_EQUAL, 1, 0, arch), (_RETURN, 0, 0, _KILL), (_LOAD, 0, 0, _NUMBER)]
    if machine == "x86_64":  # the x32 numbering shares the architecture's name
        rows += [(_AT_LEAST, 0, 1, 0x40000000), (_RETURN, 0, 0, _KILL)]
    rows += [(_EQUAL, 0, 1, _CLONE3), (_RETURN, 0, 0, _ENOSYS)]
    rows += [row for number in denied for row in ((_EQUAL, 0, 1, number), (_RETURN, 0, 0, _EPERM))]
    rows += [(_EQUAL, 0, 3, clone), (_LOAD, 0, 0, _FIRST_ARGUMENT), (_ANY_BIT, 0, 1, _CLONE_NEW)]
    rows += [(_RETURN, 0, 0, _EPERM), (_RETURN, 0, 0, _ALLOW)]
    return b"".join(struct.pack("<HBBI", *row) for row in rows)
