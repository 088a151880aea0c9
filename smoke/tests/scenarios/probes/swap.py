# Exchanges two names for ever, in one step each time (renameat2, RENAME_EXCHANGE): swap.py A B
import ctypes, sys

libc = ctypes.CDLL(None, use_errno=True)
a, b = (path.encode() for path in sys.argv[1:3])
print("swapping", flush=True)
while True:
    libc.syscall(ctypes.c_long(316), ctypes.c_long(-100), a, ctypes.c_long(-100), b, ctypes.c_ulong(2))
