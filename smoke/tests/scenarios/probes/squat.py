"""Tries to take the place of what is in each directory given; prints `attempt errno`."""
import errno, os, socket, sys

def attempt(name, act):
    try:
        act()
        print(name, "done")
    except OSError as error:
        print(name, errno.errorcode[error.errno])

for place in sys.argv[1:]:
    attempt(f"mkdir:{place}", lambda: os.mkdir(f"{place}/squat"))
    attempt(f"bind:{place}", lambda: socket.socket(socket.AF_UNIX).bind(f"{place}/squat.sock"))
    attempt(f"link:{place}", lambda: os.symlink("/tmp", f"{place}/squat.link"))
    attempt(f"chmod:{place}", lambda: os.chmod(place, 0o777))
    attempt(f"move:{place}", lambda: os.rename(place, place + ".gone"))
    for entry in os.listdir(place):
        path = f"{place}/{entry}"
        attempt(f"rename:{path}", lambda: os.rename(path, path + ".gone"))
        attempt(f"remove:{path}", lambda: os.rmdir(path) if os.path.isdir(path) else os.unlink(path))
