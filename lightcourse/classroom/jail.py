"""A script that enters Linux namespaces of its own, and there becomes another program.

``python -I -S jail.py PLAN`` with a plan in JSON, which :mod:`lightcourse.classroom.isolation`
writes. Inside there is no network, no other process, no file but what the plan names, all
read-only but for a folder in memory, and an ordinary user without capabilities. The process
that the new program runs in is the first of its own process tree: with it all others die, and
it dies with whoever started this script.

See namespaces(7), pivot_root(2) and mount_setattr(2), which is there since Linux 5.12.
"""

import ctypes
import json
import os
import platform
import select
import shutil
import signal
import sys

NEW_NAMESPACES = 0x7C020000  # user, mounts, processes, network, System V IPC, host name
MS_NOSUID, MS_NODEV, MS_BIND, MS_REC, MS_PRIVATE = 2, 4, 4096, 16384, 1 << 18
MNT_DETACH, AT_FDCWD, AT_RECURSIVE = 2, -100, 0x8000
READ_ONLY, NO_SUID, NO_DEV = 1, 2, 4  # of mount_setattr
MOUNT_SETATTR = 442  # the same number on every processor
PIVOT_ROOT = {"x86_64": 155, "aarch64": 41, "riscv64": 41, "ppc64le": 203, "s390x": 217}
PR_SET_PDEATHSIG, PR_SET_NO_NEW_PRIVS = 1, 38
NOBODY = 65534
DEVICES = ("null", "zero", "full", "random", "urandom")

_libc = ctypes.CDLL(None, use_errno=True)


def _call(what, result):
    """Raise ``OSError`` that names the call where one of libc's functions failed."""
    if result == -1:
        number = ctypes.get_errno()
        raise OSError(number, f"{what}: {os.strerror(number)}")


def _mount(source, target, kind=None, flags=0, options=None):
    values = [None if v is None else os.fsencode(v) for v in (source, target, kind)]
    data = None if options is None else options.encode()
    _call(f"mount {target}", _libc.mount(*values, ctypes.c_ulong(flags), data))


def _lock(target, attributes, how=AT_RECURSIVE):
    """Set attributes, such as READ_ONLY, of a mount and of all beneath it."""
    wanted = (ctypes.c_uint64 * 4)(attributes, 0, 0, 0)
    path, size = os.fsencode(target), ctypes.c_size_t(ctypes.sizeof(wanted))
    result = _libc.syscall(MOUNT_SETATTR, AT_FDCWD, path, how, wanted, size)
    _call(f"mount_setattr {target}", result)


def _enter_namespaces():
    """Leave the machine's namespaces for new ones.

    Root keeps its number and gets nobody's, for later; whoever else starts this is nobody
    inside. The map of users is written by a child that stays outside.
    """
    me, uid, gid = os.getpid(), os.geteuid(), os.getegid()
    readable, writable = os.pipe()
    child = os.fork()
    if child == 0:
        os.close(writable)
        _answer_with_maps(readable, me, uid, gid)
    _call("unshare", _libc.unshare(NEW_NAMESPACES))
    os.write(writable, b"1")
    if os.waitpid(child, 0)[1]:
        raise PermissionError(1, "the kernel maps no users into a new namespace")


def _answer_with_maps(readable, pid, uid, gid):
    status = 1
    try:
        if os.read(readable, 1):
            _write_maps(pid, uid, gid)
            status = 0
    finally:
        os._exit(status)


def _write_maps(pid, uid, gid):
    if uid != 0:
        _write(f"/proc/{pid}/setgroups", "deny")
    for name, number in (("uid_map", uid), ("gid_map", gid)):
        both = f"0 0 1\n{NOBODY} {NOBODY} 1\n"
        _write(f"/proc/{pid}/{name}", both if uid == 0 else f"{NOBODY} {number} 1\n")


def _write(path, text):
    file = os.open(path, os.O_WRONLY)
    os.write(file, text.encode())
    os.close(file)


def _furnish(plan):
    """Mount all that is seen inside under the plan's root, an empty folder."""
    root = plan["root"]
    _mount(None, "/", flags=MS_REC | MS_PRIVATE)
    _mount("none", root, "tmpfs", MS_NOSUID | MS_NODEV, "size=1m,mode=755")
    # First, for a course that lies below /tmp is shown in there.
    for target, size in plan["scratch"]:
        os.makedirs(root + target, exist_ok=True)
        options = f"size={size},nr_inodes=50k,mode=1777"
        _mount("none", root + target, "tmpfs", MS_NOSUID | MS_NODEV, options)
    for source, target in plan["shown"]:
        _show(source, root + target, READ_ONLY | NO_SUID | NO_DEV)
    for target, source in plan["links"]:
        os.makedirs(os.path.dirname(root + target), exist_ok=True)
        os.symlink(source, root + target)
    for name in DEVICES:
        _show(f"/dev/{name}", f"{root}/dev/{name}", NO_SUID)
    for target, text in plan["files"]:
        _make(root + target, text)
    for source, target in plan["copies"]:
        os.makedirs(root + target, exist_ok=True)
        _mount("none", root + target, "tmpfs", MS_NOSUID | MS_NODEV, "size=256m,mode=1777")
        _copy(source, root + target)
    for path in plan["hidden"]:
        if os.path.isdir(root + path):
            _mount("none", root + path, "tmpfs", MS_NOSUID | MS_NODEV, "size=4k,mode=555")


def _show(source, target, attributes):
    if os.path.isdir(source):
        os.makedirs(target, exist_ok=True)
    else:
        _make(target, "")
    _mount(source, target, flags=MS_BIND | MS_REC)
    _lock(target, attributes)


def _make(target, text):
    os.makedirs(os.path.dirname(target), exist_ok=True)
    with open(target, "w") as file:
        file.write(text)


def _copy(source, target):
    """Copy the plain files of a folder, such that anybody may read and write the copies."""
    for entry in os.scandir(source):
        if entry.is_file(follow_symlinks=False):
            copy = shutil.copyfile(entry.path, os.path.join(target, entry.name))
            os.chmod(copy, 0o666)


def _move_in(root):
    """Make ``root`` the root of all files, and let go of the old one for good."""
    # In the new process: there /proc shows its own tree.
    os.makedirs(f"{root}/proc")
    _mount("proc", f"{root}/proc", "proc", MS_NOSUID | MS_NODEV)
    os.makedirs(f"{root}/dev/pts")
    _mount("devpts", f"{root}/dev/pts", "devpts", MS_NOSUID, "newinstance,ptmxmode=0666,mode=620")
    _lock(root, READ_ONLY, how=0)
    os.chdir(root)
    _call("pivot_root", _libc.syscall(PIVOT_ROOT[platform.machine()], b".", b"."))
    _call("umount", _libc.umount2(b".", MNT_DETACH))
    os.chdir("/")


def _become_ordinary():
    """Give up every right: nobody's number, and none that a program file could give back."""
    if os.geteuid() == 0:
        os.setgroups([])
        os.setresgid(NOBODY, NOBODY, NOBODY)
        os.setresuid(NOBODY, NOBODY, NOBODY)
    _call("prctl", _libc.prctl(PR_SET_NO_NEW_PRIVS, 1, 0, 0, 0))


def _die_with_parent(parent):
    _call("prctl", _libc.prctl(PR_SET_PDEATHSIG, signal.SIGKILL, 0, 0, 0))
    if os.getppid() != parent:  # it died before we asked
        os._exit(1)


def _start(plan, parent_alive):
    """Be the first process inside, and become the plan's program."""
    _move_in(plan["root"])
    _become_ordinary()
    # After the change of user, which would undo it. The parent has no number in here: whether
    # it still lives, its end of a pipe tells.
    _call("prctl", _libc.prctl(PR_SET_PDEATHSIG, signal.SIGKILL, 0, 0, 0))
    os.close(parent_alive[1])
    if select.select(parent_alive[:1], [], [], 0)[0]:
        os._exit(1)
    for folder in plan["folders"]:
        os.makedirs(folder)
    os.chdir(plan["folders"][0])
    if not plan["loud"]:
        for number in (0, 1, 2):
            os.dup2(os.open("/dev/null", os.O_RDWR), number)
    os.execve(plan["command"][0], plan["command"], plan["environment"])


def main(plan):
    """Enter, start the program, wait for its end; return its status."""
    _die_with_parent(plan["parent"])
    _enter_namespaces()
    _write_if_allowed("/proc/sys/user/max_user_namespaces", "0")
    _call("sethostname", _libc.sethostname(b"classroom", 9))
    _furnish(plan)
    alive = os.pipe()
    child = os.fork()
    if child == 0:
        try:
            _start(plan, alive)
        except OSError as error:
            _fail(error)
    os.close(alive[0])
    return os.waitstatus_to_exitcode(os.waitpid(child, 0)[1])


def _write_if_allowed(path, text):
    """Forbid namespaces inside the namespaces, one lock more, where the kernel lets us."""
    try:
        _write(path, text)
    except OSError:
        return


def _fail(error):
    print(error.strerror or error, file=sys.stderr, flush=True)
    os._exit(3)


if __name__ == "__main__":
    try:
        sys.exit(abs(main(json.loads(sys.argv[1]))))
    except OSError as problem:
        _fail(problem)
