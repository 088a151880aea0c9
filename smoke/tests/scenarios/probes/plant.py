"""Tries to put a name into each directory given: a link, a hard link, a file, a directory. Prints `what errno`."""
import errno, os, sys

for place in sys.argv[1:]:
    for what, attempt in {
        "symlink": lambda name: os.symlink("/etc/canary", name),
        "hardlink": lambda name: os.link("/etc/canary", name),
        "file": lambda name: os.close(os.open(name, os.O_CREAT | os.O_EXCL | os.O_WRONLY)),
        "directory": lambda name: os.mkdir(name),
    }.items():
        try:
            attempt(f"{place}/.current.new")
            outcome = "done"
        except OSError as error:
            outcome = errno.errorcode[error.errno]
        print(f"{what}:{place}", outcome)
