"""What somebody tries who wants out of a notebook. `ATTEMPTS` runs inside, with `TARGETS` before it, and prints what it got hold of."""

from __future__ import annotations

ATTEMPTS = """
import contextlib, ctypes, os, socket, urllib.request

def leak(what):
    print("LEAK", what)

def tried(what, action):
    try:
        action()
    except (OSError, AssertionError):
        return
    leak(what)

for path in TARGETS["paths"]:
    tried(f"read {path}", lambda: open(path, "rb").read(1) if not os.path.isdir(path) else os.listdir(path))
    link = "/root/easymaker/link"
    with contextlib.suppress(FileNotFoundError):
        os.unlink(link)
    os.symlink(path, link)
    tried(f"read by link {path}", lambda: open(link, "rb").read(1) if not os.path.isdir(link) else os.listdir(link))
    for pid in TARGETS["pids"]:
        tried(f"read of {pid} {path}", lambda: os.stat(f"/proc/{pid}/root{path}"))

def connect(family, address):
    with socket.socket(family, socket.SOCK_STREAM) as one:
        one.settimeout(5)
        one.connect(address)

for path in TARGETS["sockets"]:
    tried(f"connect to {path}", lambda: connect(socket.AF_UNIX, path))
for address in TARGETS["addresses"]:
    tried(f"connect to {address}", lambda: connect(socket.AF_INET, tuple(address)))
    proxy = urllib.request.ProxyHandler({"http": os.environ["HTTP_PROXY"]})
    url = "http://%s:%d/" % tuple(address)
    tried(f"proxy to {url}", lambda: urllib.request.build_opener(proxy).open(url, timeout=10).read())

os.makedirs("/mnt", exist_ok=True)
libc = ctypes.CDLL(None, use_errno=True)
for pid in TARGETS["pids"]:
    tried(f"kill {pid}", lambda: os.kill(pid, 9))
    if libc.ptrace(16, pid, 0, 0) == 0:
        leak(f"ptrace {pid}")
    for kind in ("mnt", "net", "pid", "user"):
        def enter():
            descriptor = os.open(f"/proc/{pid}/ns/{kind}", os.O_RDONLY)
            assert libc.setns(descriptor, 0) == 0
        tried(f"setns {pid} {kind}", enter)

calls = {
    "mount tmpfs": lambda: libc.mount(b"none", b"/mnt", b"tmpfs", 0, None),
    "mount proc": lambda: libc.mount(b"none", b"/mnt", b"proc", 0, None),
    "remount /usr": lambda: libc.mount(b"none", b"/usr", None, 32 | 4096, None),
    "umount /usr": lambda: libc.umount2(b"/usr", 2),
    "pivot_root": lambda: libc.syscall(155, b"/mnt", b"/mnt"),
    "new user namespace": lambda: libc.unshare(0x10000000),
    "new mount namespace": lambda: libc.unshare(0x00020000),
    "chroot": lambda: libc.chroot(b"/root"),
    "setuid": lambda: libc.setresuid(1, 1, 1),
    "another host name": lambda: libc.sethostname(b"x", 1),
    "another clock": lambda: libc.clock_settime(0, (ctypes.c_long * 2)(0, 0)),
    "reboot": lambda: libc.reboot(0x89ABCDEF),
}
for what, call in calls.items():
    if call() == 0:
        leak(what)

for number in TARGETS["devices"]:
    def device():
        path = f"/root/easymaker/device-{number}"
        os.mknod(path, 0o60600, number)
        os.open(path, os.O_RDONLY)
    tried(f"block device {number}", device)
for path in ("/dev/vda", "/dev/sda", "/dev/loop0", "/dev/mem", "/dev/kmsg", "/proc/kcore", "/dev/fuse", "/dev/net/tun"):
    tried(path, lambda: os.open(path, os.O_RDONLY))
for path, text in (
    ("/proc/sys/kernel/core_pattern", "core"), ("/proc/sysrq-trigger", "s"), ("/proc/sys/vm/overcommit_memory", "0"),
    ("/proc/1/oom_score_adj", "-1000"), ("/sys/fs/cgroup/cgroup.procs", "1"), ("/usr/bin/mine", "x"),
    ("/opt/environment/mine", "x"), ("/opt/modelyard/lib/mine", "x"), ("/etc/ssl/mine", "x"),
):
    def write():
        descriptor = os.open(path, os.O_WRONLY | os.O_CREAT)
        os.write(descriptor, text.encode())
    tried(f"write {path}", write)
print("tried", len(os.listdir("/proc")) > 0)
"""
