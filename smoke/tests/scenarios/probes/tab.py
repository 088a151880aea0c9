"""Types a line and TAB into an interactive bash that has the completion script, and prints what the terminal shows.
Arguments: the line; then what must come within ten seconds."""
import os, pty, select, sys, time

line, expected = sys.argv[1], sys.argv[2]
pid, terminal = pty.fork()
if pid == 0:
    os.environ.update(PS1="ready> ", TERM="dumb", INPUTRC="/dev/null")
    os.execvp("bash", ["bash", "--norc", "--noprofile", "-i"])


def read_until(word, seconds):
    shown, until = "", time.monotonic() + seconds
    while word not in shown and time.monotonic() < until:
        if select.select([terminal], [], [], 0.2)[0]:
            try:
                shown += os.read(terminal, 65536).decode(errors="replace")
            except OSError:
                break
    return shown


read_until("ready> ", 10)
os.write(terminal, b"source <(holdfast completion bash); echo is-$((40+2))\n")
read_until("is-42", 10)
os.write(terminal, line.encode() + b"\t\t")
shown = read_until(expected, 10)
os.close(terminal)
print(shown)
sys.exit(0 if expected in shown else 1)
