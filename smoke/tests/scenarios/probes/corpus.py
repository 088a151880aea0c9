"""Gives each string of a corpus to each call and each command-line argument that names something. Prints what was taken.
Argument: the daemon's socket. Finds the contract by reflection, as client.py does."""
import base64, os, re, subprocess, sys
import grpc
from google.protobuf import json_format, message_factory
from google.protobuf.descriptor_pool import DescriptorPool
from grpc_reflection.v1alpha.proto_reflection_descriptor_database import ProtoReflectionDescriptorDatabase

SERVICE = "holdfast.daemon.v1.Daemon"
TARGETS = ["etc/passwd", "var/lib/holdfast/owners/bob", "victim", "run/holdfast/helper.sock"]
corpus = []
for target in TARGETS:
    for up in ("../", "../../../../../../../../", "/", "./", "..\\", "....//", "%2e%2e/", "%2e%2e%2f", "..%2f", "%252e%252e/", "..;/", "~/", "~bob/", "file:///"):
        corpus.append(up + target)
corpus += [".", "..", "...", "/", "//", "-", "--", "-a", "--all", "--help", "@", "*", "?", "[a]", "{a,b}", "$HOME", "$(id)", "`id`"]
corpus += ["victim/", "/victim", "victim/.", "victim/../victim", "Victim", "VICTIM", "victim ", " victim", "victim\n", "victim\t", "vic tim"]
corpus += ["\u202evictim", "victim\u200b", "\u0432ictim", "vi\u0301ctim", "\uff56ictim", "\u2025/x", "\u2024\u2024/x", "\u0130", "\u00df", "\U0001f600"]
corpus += ["a" * 33, "a" * 4096, "../" * 1365, "/" * 4096, "x" * 65536, "victim.", ".victim", "victim:80", "a;b", "a|b", "a&b", "a'b", 'a"b', "a\\b"]
corpus += ["00000000000000000", "FFFFFFFFFFFFFFFF", "0x00", "zzzz", "+0ff", "\x1b[31m", "\x7f", "a\rb", "con", "nul.", "holdfast.db"]
NUL = ["victim\0", "\0", "a\0b", "../\0"]
assert len(corpus) + len(NUL) > 100, len(corpus)

channel = grpc.insecure_channel("unix:" + sys.argv[1], options=[("grpc.default_authority", "localhost")])
pool = DescriptorPool(ProtoReflectionDescriptorDatabase(channel))
service = pool.FindServiceByName(SERVICE)
message = lambda described: message_factory.GetMessageClass(described)
LEGAL = re.compile("[a-z0-9][a-z0-9-]{0,31}")
taken, asked = [], 0


def ask(method, **fields):
    """Whether the daemon took it; a refusal of the words themselves is none."""
    global asked
    asked += 1
    described = service.methods_by_name[method]
    kinds = {(False, False): channel.unary_unary, (False, True): channel.unary_stream, (True, True): channel.stream_stream}
    call = kinds[described.client_streaming, described.server_streaming](
        f"/{SERVICE}/{method}",
        request_serializer=lambda request: request.SerializeToString(),
        response_deserializer=message(described.output_type).FromString,
    )
    request = json_format.ParseDict(fields, message(described.input_type)())
    try:
        reply = call(iter([request]) if described.client_streaming else request, timeout=20)
        if described.server_streaming:
            list(reply)
        return True
    except grpc.RpcError as error:
        if error.code() not in (grpc.StatusCode.NOT_FOUND, grpc.StatusCode.INVALID_ARGUMENT):
            taken.append(f"{method} {fields!r:.80}: {error.code().name} {error.details():.100}")
        return False


def must_refuse(method, shown, **fields):
    if ask(method, **fields):
        taken.append(f"{method} took {shown!r:.60}")


command = [base64.b64encode(b"true").decode()]
for word in corpus + NUL:
    for method in service.methods_by_name:
        described = service.methods_by_name[method].input_type
        names = [field.name for field in described.fields if field.name == "worker"]
        if names:
            must_refuse(method, word, worker=word)
        if method == "Stats":
            must_refuse(method, word, workers=[word])
        if method == "Exec":
            must_refuse(method, word, open={"worker": word, "command": command})
    spec = {"network": "none", "command": command, "removeOnExit": True}
    if not LEGAL.fullmatch(word):
        must_refuse("Run", word, spec={**spec, "name": word})
        must_refuse("Run", word, spec={**spec, "network": word})
    if not re.fullmatch("[A-Za-z0-9][A-Za-z0-9._:-]{0,127}", word):
        must_refuse("Run", word, spec={**spec, "externalId": word})
    must_refuse("List", word, filters=["name=" + word + "/"])
    must_refuse("List", word, filters=[word])

environment = {**os.environ, "LC_ALL": "C.UTF-8"}
typed = [word for word in corpus if len(word) <= 8192]


def holdfast(*words):
    global asked
    asked += 1
    return subprocess.run(["holdfast", *words], env=environment, capture_output=True, timeout=60)


for verb in ("start", "stop", "restart", "kill", "rm", "suspend", "resume", "wait"):
    done = holdfast(verb, "--", *typed)
    if done.returncode not in (2, 4) or done.stdout:
        taken.append(f"holdfast {verb}: {done.returncode} {done.stdout[:100]!r} {done.stderr[:200]!r}")
for word in typed:
    run = ["run", "--net", "none", "--name=" + word, "--", "true"]
    for words in [["logs", "--", word]] + ([] if LEGAL.fullmatch(word) else [run]):
        done = holdfast(*words)
        if done.returncode not in (2, 4):
            taken.append(f"holdfast {words!r:.80}: {done.returncode} {done.stderr[:100]!r}")
print("\n".join(f"was taken: {line}" for line in taken[:40]))
print(f"{asked} questions, {len(taken)} taken")
sys.exit(1 if taken else 0)
