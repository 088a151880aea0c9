"""A gRPC client that knows nothing of Holdfast: it finds the contract by reflection, runs a worker, follows its output,
waits for it, stops another, and reads a refusal. Prints one JSON object. Argument: the daemon's socket."""
import json, sys
import grpc
from google.protobuf import json_format, message_factory
from google.protobuf.descriptor_pool import DescriptorPool
from google.rpc import error_details_pb2
from grpc_reflection.v1alpha.proto_reflection_descriptor_database import ProtoReflectionDescriptorDatabase
from grpc_status import rpc_status

# Without this option grpc sends the socket's path as :authority, which HTTP/2 does not allow (docs/api.md).
channel = grpc.insecure_channel("unix:" + sys.argv[1], options=[("grpc.default_authority", "localhost")])
database = ProtoReflectionDescriptorDatabase(channel)
pool = DescriptorPool(database)


def message(name):
    return message_factory.GetMessageClass(pool.FindMessageTypeByName(name))


def call(service, method, fields):
    described = pool.FindServiceByName(service).methods_by_name[method]
    make = channel.unary_stream if described.server_streaming else channel.unary_unary
    ask = make(
        f"/{service}/{method}",
        request_serializer=lambda request: request.SerializeToString(),
        response_deserializer=message(described.output_type.full_name).FromString,
    )
    return ask(json_format.ParseDict(fields, message(described.input_type.full_name)()), timeout=30)


def daemon(method, **fields):
    return call("holdfast.daemon.v1.Daemon", method, fields)


def text(word):
    import base64
    return base64.b64encode(word.encode()).decode()


said = {"services": sorted(database.get_services())}
said["health"] = [
    call("grpc.health.v1.Health", "Check", {"service": name}).status for name in ("", "holdfast.daemon.v1.Daemon")
]
spec = {"name": "py", "network": "none", "command": [text(w) for w in ("sh", "-c", "echo out; echo err >&2; sleep 1; exit 7")]}
run = [event.WhichOneof("event") for event in daemon("Run", spec=spec)]
said["run"] = run
pieces = [event.output for event in daemon("Logs", worker="py", follow=True)]
said["stdout"] = b"".join(p.bytes for p in pieces if p.stream == 1).decode()
said["stderr"] = b"".join(p.bytes for p in pieces if p.stream == 2).decode()
said["code"] = daemon("Wait", worker="py").worker.exit.code
spec = {"name": "long", "network": "none", "command": [text("sleep"), text("1000")]}
list(daemon("Run", spec=spec))
said["live"] = [worker.name for worker in daemon("List").workers]
said["stopped"] = daemon("Stop", worker="long").worker.exit.signal
said["events"] = [reply.event.kind for reply in daemon("Events") if reply.HasField("event")]
try:
    daemon("Stop", worker="nosuch")
except grpc.RpcError as error:
    status = rpc_status.from_call(error)
    info, problem = error_details_pb2.ErrorInfo(), message("holdfast.problem.v1.Problem")()
    for detail in status.details:
        detail.Unpack(info), detail.Unpack(problem)
    said["refusal"] = {
        "code": error.code().name,
        "reason": info.reason,
        "domain": info.domain,
        "hint": info.metadata["hint"],
        "message": problem.message,
    }
print(json.dumps(said))
