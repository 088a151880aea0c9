"""`root_opens.py TRACE`: the calls of an strace -f of file and process calls in which a process with root's uid names
something below an owner's directories. Prints each, then `calls N`."""
import re, sys

OURS = re.compile(r'"(/var/lib/holdfast/owners/[a-z]+/|/run/holdfast/owners/[a-z]+/workers/)')
OPENED = re.compile(r'"/var/lib/holdfast/owners/[a-z]+"')
owner, calls = {}, 0
for line in open(sys.argv[1], errors="replace"):
    pid, _, rest = line.partition(" ")
    rest = rest.strip()
    calls += 1
    born = re.match(r"(?:clone|clone3|fork|vfork)\(.*= (\d+)", rest) or re.match(r"<\.\.\. (?:clone|clone3|fork|vfork) resumed.*= (\d+)", rest)
    if born:
        owner[born.group(1)] = owner.get(pid, False)
    # Who gave root's rights up, by itself or by executing what does it first.
    if re.search(r"set(?:res|re)?uid\w*\((?!0\b|-1\b)", rest) or re.search(r'execve\(.*"--reuid', rest):
        owner[pid] = True
    # Below it, or it itself to go on from there by descriptor.
    reached = OURS.search(rest) and not re.match(r"(execve|exit)", rest) or rest.startswith("open") and OPENED.search(rest)
    if reached and not owner.get(pid):
        print(pid, rest[:160])
print("calls", calls)
