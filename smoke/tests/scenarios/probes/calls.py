# Makes each call that stands on standard input ("name number argument..."), and says "name errno" for each.
# The names are words for the reader alone. A call that forks ends its child.
import ctypes, errno, os, sys

libc = ctypes.CDLL(None, use_errno=True)
libc.syscall.restype = ctypes.c_long
for line in sys.stdin:
    name, number, *arguments = line.split()
    ctypes.set_errno(0)
    parent = os.getpid()
    answer = libc.syscall(ctypes.c_long(int(number)), *[ctypes.c_ulong(int(a, 0)) for a in arguments])
    if os.getpid() != parent:
        os._exit(0)
    said = "done" if answer >= 0 else errno.errorcode.get(ctypes.get_errno(), ctypes.get_errno())
    print(name, said, flush=True)
