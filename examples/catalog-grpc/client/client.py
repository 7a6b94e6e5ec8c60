"""Calls the catalogue with Python's grpcio and says what it sees; ends with an error at the first surprise.

scripts/try-catalog runs it, with the address of a server that nobody else calls.
"""

import sys
import threading

import grpc
from google.protobuf.descriptor_pool import DescriptorPool
from grpc_reflection.v1alpha.proto_reflection_descriptor_database import (
    ProtoReflectionDescriptorDatabase,
)

import catalog_pb2 as pb
import catalog_pb2_grpc


def call(method, request, **options):
    """The answer, and what the cache told."""
    answer, finished = method.with_call(request, timeout=options.pop("timeout", 30), **options)
    assert finished.code() == grpc.StatusCode.OK
    return answer, dict(finished.initial_metadata())["cache-status"]


def expect(what, told, answer, verdict):
    print(f"{what:44} {told}")
    assert verdict in told, f"{what}: expected {verdict!r} in {told!r}"
    return answer


def failure(method, request, **options):
    """The status of a call that must fail."""
    try:
        method(request, timeout=options.pop("timeout", 30), **options)
    except grpc.RpcError as error:
        return error.code(), error.details()
    raise AssertionError("it did not fail")


def main(address):
    channel = grpc.insecure_channel(address)
    catalog = catalog_pb2_grpc.CatalogStub(channel)

    product, told = call(catalog.Get, pb.GetRequest(id=7))
    expect("get 7", told, product, "fwd=uri-miss; stored")
    again, told = call(catalog.Get, pb.GetRequest(id=7))
    expect("get 7 once more", told, again, "catalog; hit")
    assert again == product and again.id == 7 and again.name, again

    other, told = call(catalog.Get, pb.GetRequest(id=8))
    expect("get 8", told, other, "fwd=uri-miss; stored")
    assert other.id == 8

    # The same message, but for a field that the server does not know.
    raw = channel.unary_unary("/catalog.Catalog/Get", response_deserializer=pb.Product.FromString)
    answer, told = call(raw, b"\x7a\x03abc\x08\x07")
    expect("get 7 with an unknown field before it", told, answer, "catalog; hit")
    assert answer == product

    page, told = call(catalog.List, pb.ListRequest(category=product.category))
    expect(f"list {product.category}", told, page, "fwd=uri-miss; stored")
    page, told = call(catalog.List, pb.ListRequest(category=product.category))
    expect(f"list {product.category} once more", told, page, "catalog; hit")
    assert len(page.products) == 20 and page.total == 2000, page

    _, told = call(catalog.Get, pb.GetRequest(id=7), metadata=[("authorization", "Bearer ada")])
    expect("get 7 with credentials", told, None, "detail=authorization-not-shared")

    code, details = failure(catalog.Get, pb.GetRequest(id=0))
    print(f"{'get 0':44} {code.name}: {details}")
    assert code == grpc.StatusCode.NOT_FOUND
    code, details = failure(catalog.List, pb.ListRequest(category="Shoes"))
    print(f"{'list Shoes':44} {code.name}: {details}")
    assert code == grpc.StatusCode.INVALID_ARGUMENT

    seen, changes = [], catalog.Watch(pb.WatchRequest(), timeout=60)
    first = threading.Event()

    def watch():
        try:
            for change in changes:
                seen.append(change)
                first.set()
        except grpc.RpcError as error:
            # As it ends below.
            assert error.code() == grpc.StatusCode.CANCELLED, error

    watching = threading.Thread(target=watch, daemon=True)
    watching.start()
    # The stream has begun when its metadata have come.
    changes.initial_metadata()
    changed, told = call(catalog.Update, pb.UpdateRequest(id=7, price_cents=1))
    expect("update 7", told, changed, "detail=writes")
    assert changed.price_cents == 1
    assert first.wait(30) and seen[0] == changed, seen
    print(f"{'watch':44} told of {seen[0].name}")
    changes.cancel()

    answer, told = call(catalog.Get, pb.GetRequest(id=7))
    expect("get 7 after that", told, answer, "stored")
    assert answer.price_cents == 1
    answer, told = call(catalog.List, pb.ListRequest(category=product.category))
    expect(f"list {product.category} after that", told, answer, "stored")
    assert answer.products[0].id == 7
    answer, told = call(catalog.Get, pb.GetRequest(id=8))
    expect("get 8 after that", told, answer, "catalog; hit")

    # Many at once, over one connection.
    calls = [catalog.Get.future(pb.GetRequest(id=9), timeout=30) for _ in range(200)]
    assert {answer.result().id for answer in calls} == {9}
    told = [dict(answer.initial_metadata())["cache-status"] for answer in calls]
    filled = sum("uri-miss; stored" in one for one in told)
    print(f"{'200 calls at once':44} {filled} filled, the others shared")
    assert filled == 1, told

    compressed, told = call(catalog.Get, pb.GetRequest(id=8), compression=grpc.Compression.NoCompression)
    expect("get 8 without compression", told, compressed, "catalog; hit")

    # Reflection: what grpcurl asks.
    pool = DescriptorPool(ProtoReflectionDescriptorDatabase(channel))
    service = pool.FindServiceByName("catalog.Catalog")
    names = [method.name for method in service.methods]
    print(f"{'reflection':44} {', '.join(names)}")
    assert names == ["Get", "List", "Watch", "Update"]
    channel.close()


if __name__ == "__main__":
    main(sys.argv[1])
