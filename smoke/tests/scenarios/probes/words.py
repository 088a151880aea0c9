"""`words.py DAEMON-SOCKET`: says a hundred things that are no worker to every verb and every call that takes one.
Prints each that was taken for something, then how many there were."""
import os, subprocess, sys

sys.path.insert(0, os.path.dirname(os.path.abspath(__file__)))
import h2

bases = ["../x", "..", ".", "/", "//", "/etc/passwd", "../../../../etc/passwd", "..%2f..%2fetc", "%2e%2e/x", "%2e%2e%2fx",
         "x/../w", "./w", "w/", "/w", "w/.", "w/..", "workers/w", "../alice/x", "x\\..\\w", "..\\x", "W", "w ", " w", "w\t", "\tw",
         "w\n", "\nw", "w\r\n", "w\r", "w;", "w&", "w|id", "$(touch /tmp/pwned)", "`touch /tmp/pwned`", "w$IFS", "${w}", "w'", 'w"',
         "w*", "*", "?", "[w]", "{w}", "w,w", "w:w", "w=w", "w@", "@w", "w#", "#", "~", "~alice", "%s%n", "%00", "w%00", "w%0a",
         "ｗ", "w\u0301", "é", "\u202ew", "w\u200b", "\ufeffw", "ω", "𝐰", "İ", "w\x7f", "\x1b[2J", "a" * 33, "a" * 255, "a" * 4096,
         "../" * 1000, "_", "w_w", "w.w", ".w", "-w", "--help", "-", "--", "-rf", "--force", "0x77", "0", "00000000000000000",
         "000000000000000g", "ABCDEF0123456789", "0123456789abcde/", "self", "..;/", "....//", "file:///etc/passwd",
         "unix:///run/x", "\\\\host\\share", "CON", "nul", "w\x0b", "w\x0c", "\u2028w", "proc/self", "fd/0", "/proc/self/fd/0",
         "/dev/stdin", "...", "w...", "../x/log"]
verbs = ["stop", "start", "restart", "kill", "rm", "wait", "logs", "inspect", "port"]
tried, named = 0, set()
for number, word in enumerate(bases):
    # Verbs read the word alike: each word by some, each verb with many.
    for verb in verbs[number % 3::3]:
        done = subprocess.run(["holdfast", verb, "--", word], capture_output=True, stdin=subprocess.DEVNULL, timeout=30)
        tried += 1
        if done.returncode not in (2, 4) or b"panicked" in done.stderr or b"\x1b" in done.stderr:
            print("cli", verb, repr(word), done.returncode, done.stderr[:200])
    done = subprocess.run(["holdfast", "run", "-d", "--rm", f"--name={word}", "--net", "none", "--", "true"], capture_output=True, timeout=30)
    tried += 1
    plain = word.isascii() and 0 < len(word) <= 32 and word[0] != "-" and all(c.islower() or c.isdigit() or c == "-" for c in word)
    named.add(word.encode() if plain else b"")
    if done.returncode == 0 and not plain:
        print("run", repr(word), done.returncode)
raw = [word.encode() for word in bases] + [b"w\0", b"\0", b"w\0/../x", b"\xff\xfe", b"\xc0\xaf..\xc0\xaf", b"\xed\xa0\x80", b"", b"\x80" * 16]
for word in set(raw) - named | {b""}:
    for call in ("Start", "Stop", "Restart", "Kill", "Remove", "Wait", "Inspect", "Logs"):
        outcome = h2.call(sys.argv[1], h2.DAEMON + call, h2.message({1: word}))
        tried += 1
        if outcome == "answered":
            print("call", call, word)
print("tried", tried)
