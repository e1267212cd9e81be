"""merkle.py against a naive RFC 9162, transparency-dev's vectors and a real tlog-tiles log."""

import json
import os
from base64 import b64decode
from collections.abc import Callable
from functools import cache
from hashlib import sha256
from itertools import combinations, pairwise
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from agentguard.transparency.merkle import (
    EMPTY_ROOT,
    append,
    inclusion_proof,
    leaf_hash,
    node_hash,
    root,
    verify_inclusion,
)
from tests.support.trees import Frontier, MemoryNodes, consistency_proof, verify_consistency

MOST = 130  # leaves: past two full levels of 64, with every shape of ragged edge below
LEAVES = tuple(leaf_hash(f"record {number}".encode()) for number in range(MOST))

# --- The reference: RFC 9162, section 2.1, read aloud over the leaves [start, stop). ---


@cache
def mth(start: int, stop: int) -> bytes:
    if start == stop:
        return sha256(b"").digest()
    if stop - start == 1:
        return LEAVES[start]
    split = start + largest_power_of_two_below(stop - start)
    return sha256(b"\x01" + mth(start, split) + mth(split, stop)).digest()


def path(index: int, start: int, stop: int) -> list[bytes]:
    if stop - start == 1:
        return []
    split = start + largest_power_of_two_below(stop - start)
    if start + index < split:
        return [*path(index, start, split), mth(split, stop)]
    return [*path(start + index - split, split, stop), mth(start, split)]


def subproof(old: int, start: int, stop: int, *, whole: bool) -> list[bytes]:
    if old == stop - start:
        return [] if whole else [mth(start, stop)]
    split = start + largest_power_of_two_below(stop - start)
    if start + old <= split:
        return [*subproof(old, start, split, whole=whole), mth(split, stop)]
    return [*subproof(start + old - split, split, stop, whole=False), mth(start, split)]


def largest_power_of_two_below(number: int) -> int:
    power = 1
    while power * 2 < number:
        power *= 2
    return power


def tree(size: int = MOST) -> MemoryNodes:
    nodes = MemoryNodes()
    append(nodes, 0, LEAVES[:size])
    return nodes


class CountingNodes(MemoryNodes):
    """Real nodes that also note which places were read and written."""

    def __init__(self) -> None:
        super().__init__()
        self.got: list[tuple[int, int]] = []
        self.placed: list[tuple[int, int]] = []

    def get(self, level: int, index: int) -> bytes:
        self.got.append((level, index))
        return super().get(level, index)

    def put(self, level: int, index: int, digest: bytes) -> None:
        self.placed.append((level, index))
        super().put(level, index, digest)


def complete_subtrees(size: int) -> set[tuple[int, int]]:
    return {(level, i) for level in range(size.bit_length()) for i in range(size >> level)}


# --- Roots and proofs are those of the RFC. ---


def test_every_root_is_that_of_the_reference() -> None:
    nodes, frontier = tree(), Frontier()
    for size in range(MOST + 1):
        assert root(nodes, size) == frontier.root() == mth(0, size), size
        assert frontier.size == size
        if size < MOST:
            frontier.append(LEAVES[size])


def test_roots_are_those_published_for_certificate_transparency() -> None:
    data = ["", "00", "10", "2021", "3031", "40414243", "5051525354555657",
            "606162636465666768696a6b6c6d6e6f"]  # fmt: skip
    nodes = MemoryNodes()
    append(nodes, 0, [leaf_hash(bytes.fromhex(leaf)) for leaf in data])
    assert [root(nodes, size).hex() for size in range(9)] == [
        "e3b0c44298fc1c149afbf4c8996fb92427ae41e4649b934ca495991b7852b855",
        "6e340b9cffb37a989ca544e6bb780a2c78901d3fb33738768511a30617afa01d",
        "fac54203e7cc696cf0dfcb42c92a1d9dbaf70ad9e621f4bd8d98662f00e3c125",
        "aeb6bcfe274b70a14fb067a5e5578264db0fa9b51af5e0ba159158f329e06e77",
        "d37ee418976dd95753c1c73862b9398fa2a2cf9b4ff0fdfe8b30cd95209614b7",
        "4e3bbb1f7b478dcfe71fb631631519a3bca12c9aefca1612bfce4c13a86264d4",
        "76e67dadbcdf1e10e1b74ddc608abd2f98dfb16fbce75277b5232a127f2087ef",
        "ddb89be403809e325750d3d263cd78929c2942b7942a34b77e122c9594a74c8c",
        "5dc9da79a70659a9ad559cb701ded9a2ab9d823aad2f4960cfe370eff4604328",
    ]


def test_every_inclusion_proof_is_that_of_the_reference_and_verifies() -> None:
    nodes = tree()
    for size in range(1, MOST + 1):
        for index in range(size):
            proof = inclusion_proof(nodes, index, size)
            assert list(proof) == path(index, 0, size), (index, size)
            assert verify_inclusion(
                leaf=LEAVES[index], index=index, size=size, proof=proof, root=mth(0, size)
            ), (index, size)


def test_every_consistency_proof_is_that_of_the_reference_and_verifies() -> None:
    nodes = tree()
    for new in range(1, MOST + 1):
        for old in range(1, new + 1):
            proof = consistency_proof(nodes, old, new)
            assert list(proof) == subproof(old, 0, new, whole=True), (old, new)
            assert verify_consistency(
                old_size=old, new_size=new, old_root=mth(0, old), new_root=mth(0, new), proof=proof
            ), (old, new)


def test_leaves_and_nodes_are_hashed_apart_so_that_neither_passes_for_the_other() -> None:
    left, right = LEAVES[:2]
    assert leaf_hash(left + right) != node_hash(left, right)
    assert leaf_hash(b"") == sha256(b"\x00").digest()
    assert sha256(b"").digest() == EMPTY_ROOT


# --- Appending. ---


@given(st.lists(st.integers(0, 40), max_size=8))
def test_batches_of_any_sizes_write_each_complete_subtree_once_and_nothing_else(
    batches: list[int],
) -> None:
    nodes, size = CountingNodes(), 0
    for batch in batches:
        taken = LEAVES[size : size + batch]
        nodes.got.clear()
        size = append(nodes, size, taken)
        levels = [level for level, _ in nodes.got]
        assert levels == sorted(set(levels)), "more than one get on a level"
        assert len(levels) <= size.bit_length()
    assert len(nodes.placed) == len(set(nodes.placed)) == 2 * size - size.bit_count()
    assert set(nodes.placed) == complete_subtrees(size)
    assert root(nodes, size) == mth(0, size)


def test_appending_nothing_changes_nothing() -> None:
    nodes = CountingNodes()
    assert append(nodes, 0, []) == 0
    assert append(nodes, 7, ()) == 7
    assert nodes.placed == nodes.got == []


def test_roots_and_proofs_read_logarithmically_many_nodes() -> None:
    nodes, size = CountingNodes(), (1 << 13) - 1  # every peak there is: the worst ragged edge
    append(nodes, 0, [leaf_hash(b"%d" % number) for number in range(size)])
    readers: list[Callable[[], object]] = [
        lambda: root(nodes, size),
        lambda: inclusion_proof(nodes, 0, size),
        lambda: inclusion_proof(nodes, size - 1, size),
        lambda: consistency_proof(nodes, 4095, size),
        lambda: consistency_proof(nodes, 1, size),
    ]
    for read in readers:
        nodes.got.clear()
        read()
        assert len(nodes.got) <= 2 * size.bit_length()
        assert len(nodes.got) == len(set(nodes.got))


def test_a_stored_subtree_hash_cannot_be_replaced() -> None:
    nodes = tree(5)
    nodes.put(0, 0, LEAVES[0])
    with pytest.raises(ValueError, match=r"subtree \(0, 0\) has another hash"):
        append(nodes, 0, [LEAVES[1]])
    assert nodes.get(0, 0) == LEAVES[0]


def test_a_leaf_that_is_not_a_hash_is_refused_before_anything_is_put() -> None:
    nodes, frontier = CountingNodes(), Frontier()
    with pytest.raises(ValueError, match="leaf hash: got 4 bytes, expected 32"):
        append(nodes, 0, [LEAVES[0], b"data"])
    assert nodes.placed == []
    with pytest.raises(ValueError, match="leaf hash: got 4 bytes, expected 32"):
        frontier.append(b"data")
    assert (frontier.size, frontier.root()) == (0, EMPTY_ROOT)


@pytest.mark.parametrize(
    "ask",
    [
        lambda nodes: append(nodes, -1, [LEAVES[0]]),
        lambda nodes: root(nodes, -1),
        lambda nodes: inclusion_proof(nodes, 0, 0),
        lambda nodes: inclusion_proof(nodes, 5, 5),
        lambda nodes: inclusion_proof(nodes, -1, 5),
        lambda nodes: consistency_proof(nodes, 0, 5),
        lambda nodes: consistency_proof(nodes, 5, 4),
        lambda nodes: consistency_proof(nodes, -1, -1),
        lambda nodes: consistency_proof(nodes, -2, 3),
    ],
)
def test_asking_for_what_does_not_exist_is_a_value_error(
    ask: Callable[[MemoryNodes], object],
) -> None:
    with pytest.raises(ValueError, match=r"got .*-?\d.* expected"):
        ask(tree(5))


def test_asking_beyond_what_is_stored_is_a_lookup_error() -> None:
    with pytest.raises(LookupError):
        root(tree(5), 6)


# --- Verifiers: one way in, every other is False. ---


@st.composite
def inclusions(draw: st.DrawFn) -> dict[str, Any]:
    size = draw(st.integers(1, MOST))
    index = draw(st.integers(0, size - 1))
    proof = inclusion_proof(tree(size), index, size)
    return dict(leaf=LEAVES[index], index=index, size=size, proof=proof, root=mth(0, size))


@st.composite
def consistencies(draw: st.DrawFn) -> dict[str, Any]:
    new = draw(st.integers(1, MOST))
    old = draw(st.integers(1, new))
    proof = consistency_proof(tree(new), old, new)
    roots = dict(old_root=mth(0, old), new_root=mth(0, new))
    return dict(old_size=old, new_size=new, proof=proof, **roots)


def flip_a_bit(data: st.DataObject, case: dict[str, Any]) -> dict[str, Any]:
    """Return `case` with one bit of one of its hashes flipped."""
    places = [name for name, value in case.items() if isinstance(value, bytes)]
    places += [f"proof {number}" for number in range(len(case["proof"]))]
    name, _, number = data.draw(st.sampled_from(places)).partition(" ")
    old = case["proof"][int(number)] if number else case[name]
    bit = data.draw(st.integers(0, 255))
    new = (int.from_bytes(old) ^ (1 << bit)).to_bytes(32)
    if number:
        before, after = case["proof"][: int(number)], case["proof"][int(number) + 1 :]
        return case | {"proof": (*before, new, *after)}
    return case | {name: new}


@given(inclusions(), st.data())
def test_a_flipped_bit_anywhere_fails_inclusion(case: dict[str, Any], data: st.DataObject) -> None:
    assert verify_inclusion(**case)
    assert not verify_inclusion(**flip_a_bit(data, case))


@given(consistencies(), st.data())
def test_a_flipped_bit_anywhere_fails_consistency(
    case: dict[str, Any], data: st.DataObject
) -> None:
    assert verify_consistency(**case)
    assert not verify_consistency(**flip_a_bit(data, case))


def test_a_proof_shows_a_leaf_at_its_own_index_only() -> None:
    nodes = tree(40)
    for size in range(2, 41):
        for index in range(size):
            proof = inclusion_proof(nodes, index, size)
            for other in set(range(size)) - {index}:
                assert not verify_inclusion(
                    leaf=LEAVES[index], index=other, size=size, proof=proof, root=mth(0, size)
                ), (index, other, size)


def test_a_rewritten_leaf_makes_every_later_size_inconsistent() -> None:
    edited = MemoryNodes()
    append(edited, 0, [*LEAVES[:3], leaf_hash(b"rewritten"), *LEAVES[4:20]])
    for old, new in combinations(range(4, 21), 2):
        assert not verify_consistency(
            old_size=old,
            new_size=new,
            old_root=mth(0, old),
            new_root=root(edited, new),
            proof=consistency_proof(edited, old, new),
        ), (old, new)


STRANGE_HASHES = [b"", b"twelve bytes", bytes(31), bytes(33), "é" * 32, None, 0, bytearray(32)]
STRANGE_SIZES = [-1, 1 << 64, 1 << 70, 1.0, "1", None, True]


def variants(case: dict[str, Any], sizes: tuple[str, ...]) -> list[dict[str, Any]]:
    """Return `case` damaged in every structural way that says nothing about hash values."""
    proof: tuple[bytes, ...] = case["proof"]
    proofs: list[object] = [proof[:-1], proof[1:], (*proof, bytes(32)), (bytes(32), *proof), None]
    proofs += [b"".join(proof), iter(proof), dict.fromkeys(proof), (*proof, *[bytes(32)] * 999)]
    proofs += [(*proof[:-1], strange) for strange in STRANGE_HASHES]
    hashes = [name for name, value in case.items() if isinstance(value, bytes)]
    return [
        *(case | {"proof": damaged} for damaged in proofs),
        *(case | {name: strange} for name in hashes for strange in STRANGE_HASHES),
        *(case | {name: strange} for name in sizes for strange in STRANGE_SIZES),
    ]


@given(inclusions().filter(lambda case: case["size"] > 1))
def test_verify_inclusion_is_total(case: dict[str, Any]) -> None:
    for damaged in variants(case, ("index", "size")):
        assert verify_inclusion(**damaged) is False, damaged
    assert verify_inclusion(**case | {"index": case["size"]}) is False


@given(consistencies().filter(lambda case: case["old_size"] < case["new_size"]))
def test_verify_consistency_is_total(case: dict[str, Any]) -> None:
    for damaged in variants(case, ("old_size", "new_size")):
        assert verify_consistency(**damaged) is False, damaged
    swapped = {"old_size": case["new_size"], "new_size": case["old_size"]}
    assert verify_consistency(**case | swapped) is False


@pytest.mark.parametrize(
    ("old_root", "new_root", "proof", "consistent"),
    [
        (LEAVES[0], LEAVES[0], (), True),
        (LEAVES[0], LEAVES[1], (), False),
        (LEAVES[0], LEAVES[0], (LEAVES[0],), False),
        (b"twelve bytes", b"twelve bytes", (), False),
    ],
)
def test_trees_of_one_size_are_consistent_only_with_equal_roots_and_no_proof(
    old_root: bytes, new_root: bytes, proof: tuple[bytes, ...], consistent: bool
) -> None:
    for size in (1, 2, 3, 8):
        verdict = verify_consistency(
            old_size=size, new_size=size, old_root=old_root, new_root=new_root, proof=proof
        )
        assert verdict is consistent, size


@pytest.mark.parametrize("size", [-1, 1 << 64])
def test_a_size_that_is_not_a_uint64_is_no_tree(size: int) -> None:
    assert not verify_consistency(
        old_size=size, new_size=size, old_root=EMPTY_ROOT, new_root=EMPTY_ROOT, proof=()
    )


def test_an_empty_tree_vouches_for_no_larger_one() -> None:
    empty: dict[str, Any] = dict(old_size=0, old_root=EMPTY_ROOT, proof=())
    assert verify_consistency(**empty, new_size=0, new_root=EMPTY_ROOT)
    assert not verify_consistency(**empty, new_size=1, new_root=LEAVES[0])
    assert not verify_consistency(**empty | {"proof": (LEAVES[0],)}, new_size=1, new_root=LEAVES[0])
    forged: dict[str, Any] = dict(old_size=0, new_size=0, old_root=LEAVES[0], new_root=LEAVES[0])
    assert not verify_consistency(**forged, proof=())


# --- Vectors made elsewhere. ---

VECTORS = os.environ.get("AGENTGUARD_VECTORS", "")
needs_vectors = pytest.mark.skipif(not VECTORS, reason="AGENTGUARD_VECTORS names no folder")
# It says "consistent" of two equal 12-byte roots; here every root is 32 bytes.
SHORT_ROOTS = "sizes-are-equal-one-and-proof-is-empty.json"


def vectors(kind: str) -> list[dict[str, Any]]:
    files = sorted(Path(VECTORS, "merkle", kind).rglob("*.json"))
    assert len(files) == 98, f"got {len(files)} {kind} vectors in {VECTORS!r}, expected 98"
    return [json.loads(file.read_text()) | {"file": file} for file in files]


def proof_of(vector: dict[str, Any]) -> list[bytes]:
    return [b64decode(digest) for digest in vector["proof"] or ()]


@needs_vectors
def test_transparency_dev_inclusion_vectors_are_judged_as_they_say() -> None:
    for vector in vectors("inclusion"):
        verdict = verify_inclusion(
            leaf=b64decode(vector["leafHash"]),
            index=vector["leafIdx"],
            size=vector["treeSize"],
            proof=proof_of(vector),
            root=b64decode(vector["root"]),
        )
        assert verdict is not vector["wantErr"], vector["file"]


@needs_vectors
def test_transparency_dev_consistency_vectors_are_judged_as_they_say() -> None:
    for vector in vectors("consistency"):
        case: dict[str, Any] = dict(
            old_size=vector["size1"],
            new_size=vector["size2"],
            old_root=b64decode(vector["root1"]),
            new_root=b64decode(vector["root2"]),
            proof=proof_of(vector),
        )
        if vector["file"].name == SHORT_ROOTS:
            assert (len(case["old_root"]), vector["wantErr"]) == (12, False)
            assert not verify_consistency(**case)
            case |= dict.fromkeys(("old_root", "new_root"), sha256(case["old_root"]).digest())
        assert verify_consistency(**case) is not vector["wantErr"], vector["file"]


@needs_vectors
def test_a_tessera_tile_holds_the_leaf_hashes_of_its_entry_bundle() -> None:
    tiles = Path(VECTORS, "tessera", "log", "tile")
    bundle, tile = (tiles / kind / "000.p" / "15" for kind in ("entries", "0"))
    data, hashes = bundle.read_bytes(), tile.read_bytes()
    entries = []
    while data:  # tlog-tiles: each entry after its length, a big-endian uint16
        length = 2 + int.from_bytes(data[:2])
        entries.append(data[2:length])
        data = data[length:]
    assert (entries[0], entries[-1], len(entries)) == (b"one", b"fivten", 15)
    bounds = pairwise(range(0, len(hashes) + 1, 32))
    assert [leaf_hash(entry) for entry in entries] == [hashes[a:b] for a, b in bounds]
