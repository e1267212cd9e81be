"""The Merkle tree of RFC 9162, section 2.1, as functions over stored subtree hashes.

Hashes are 32 bytes of SHA-256; where a leaf is asked for, its `leaf_hash` is meant, not its data.
The complete subtree at (level, index) covers the 2**level leaves from index * 2**level. It never
changes again, so a store of such hashes answers for the present tree and for every earlier one.
Functions that read a store trust it; verifiers trust nothing and return a bool, whatever they get.
"""

from collections.abc import Iterator, Sequence
from functools import reduce
from hashlib import sha256
from typing import Protocol

HASH_SIZE = 32
EMPTY_ROOT = sha256(b"").digest()


class Hashes(Protocol):
    """Complete subtree hashes. Level 0 holds the leaf hashes."""

    def get(self, level: int, index: int) -> bytes:
        """Return the hash put there; raise LookupError if there is none."""


class Nodes(Hashes, Protocol):
    """A store of them."""

    def put(self, level: int, index: int, digest: bytes) -> None:
        """Store a hash. `append` puts each place once and never puts another hash there."""


def leaf_hash(data: bytes) -> bytes:
    """Return the hash of a leaf holding `data` (RFC 9162, section 2.1.1)."""
    return sha256(b"\x00" + data).digest()


def node_hash(left: bytes, right: bytes) -> bytes:
    """Return the hash of the interior node over two subtrees (RFC 9162, section 2.1.1)."""
    return sha256(b"\x01" + left + right).digest()


def append(nodes: Nodes, size: int, leaves: Sequence[bytes]) -> int:
    """Add leaf hashes to the tree of `size` leaves and return the new size.

    Puts the leaves and the subtrees that they complete, and nothing else: fewer than two puts per
    leaf over a tree's life, however the leaves are batched. Gets at most one hash per level.
    Raises ValueError, before anything is put, if the size is negative or a leaf is not 32 bytes.
    """
    for level, first, row in completed(nodes, size, leaves):
        for index, digest in enumerate(row, first):
            nodes.put(level, index, digest)
    return size + len(leaves)


def completed(
    nodes: Hashes, size: int, leaves: Sequence[bytes]
) -> Iterator[tuple[int, int, list[bytes]]]:
    """Return what appending leaf hashes to the tree of `size` leaves completes, from the leaves
    upwards: (level, index of the first subtree, their hashes). Gets and raises as `append`."""
    if size < 0:
        raise ValueError(f"tree size: got {size}, expected at least 0")
    for leaf in leaves:
        _require_hash(leaf)
    level, first, row = 0, size, list(leaves)  # the subtrees of one level that are complete now
    while row:
        yield level, first, row
        # The first of them may be a right child, whose sibling has been waiting.
        pairs = [nodes.get(level, first - 1), *row] if first & 1 else row
        # zip drops a last subtree without a sibling: it waits for later leaves.
        row = [
            sha256(b"\x01" + left + right).digest()  # node_hash, half of the cost
            for left, right in zip(pairs[::2], pairs[1::2], strict=False)
        ]
        level, first = level + 1, first >> 1


def root(nodes: Hashes, size: int) -> bytes:
    """Return MTH(D[size]) (RFC 9162, section 2.1.1). Raises ValueError if the size is negative."""
    if size < 0:
        raise ValueError(f"tree size: got {size}, expected at least 0")
    return _span(nodes, 0, size)


def inclusion_proof(nodes: Hashes, index: int, size: int) -> tuple[bytes, ...]:
    """Return PATH(index, D[size]), from the leaf upwards (RFC 9162, section 2.1.3.1).
    Raises ValueError unless 0 <= index < size."""
    if not 0 <= index < size:
        raise ValueError(f"leaf index: got {index}, expected 0 <= index < {size}")
    return tuple(_path(nodes, index, 1, size))


def verify_inclusion(
    *, leaf: bytes, index: int, size: int, proof: Sequence[bytes], root: bytes
) -> bool:
    """Return whether `proof` shows `leaf` (its hash) at `index` of the tree with this size and
    root (RFC 9162, section 2.1.3.2). Size and root must come from a verified checkpoint: a proof
    does not vouch for the size."""
    if not _are_sound(index, size, proof, leaf, root) or index == size:
        return False
    sides = _sides(index, size - 1)
    if len(proof) != len(sides):
        return False
    digest = leaf
    for sibling, is_left in zip(proof, sides, strict=True):
        digest = node_hash(sibling, digest) if is_left else node_hash(digest, sibling)
    return digest == root


def _sides(node: int, last: int) -> list[bool]:
    """Return, from the bottom up, whether each sibling on the way from `node` to the root stands
    on the left, where `last` is the last node of the same level."""
    sides = []
    while last:
        if node & 1 or node < last:  # else it ends a ragged edge and moves up without a sibling
            sides.append(bool(node & 1))
        node, last = node >> 1, last >> 1
    return sides


def _path(nodes: Hashes, index: int, width: int, size: int) -> Iterator[bytes]:
    """Return, from the bottom up, the hashes of the siblings of the complete subtree that is
    `width` leaves wide and holds the leaf `index`, and of every subtree above it."""
    siblings, start, stop = [], 0, size
    while stop - start > width:
        # RFC 9162 splits off the largest complete subtree that is smaller than the whole.
        middle = start + (1 << (stop - start - 1).bit_length() - 1)
        left, right = (start, middle), (middle, stop)
        (start, stop), sibling = (left, right) if index < middle else (right, left)
        siblings.append(sibling)
    return (_span(nodes, *sibling) for sibling in reversed(siblings))


def _span(nodes: Hashes, start: int, stop: int) -> bytes:
    """Return the hash over the leaves [start, stop), which must be a subtree of some tree."""
    peaks = []
    while start < stop:
        level = ((stop - start) & (start - stop)).bit_length() - 1
        stop -= 1 << level
        peaks.append(nodes.get(level, stop >> level))
    return _fold(peaks)


def _fold(peaks: Sequence[bytes]) -> bytes:
    """Return the hash over neighbouring complete subtrees, given from right to left."""
    return reduce(lambda right, left: node_hash(left, right), peaks) if peaks else EMPTY_ROOT


def _require_hash(digest: bytes) -> None:
    if len(digest) != HASH_SIZE:
        raise ValueError(f"leaf hash: got {len(digest)} bytes, expected {HASH_SIZE} (leaf_hash)")


def _are_sound(low: int, high: int, proof: Sequence[bytes], *digests: bytes) -> bool:
    return (
        (type(low) is type(high) is int and 0 <= low <= high < 1 << 64)  # a uint64 in RFC 9162
        and isinstance(proof, Sequence)
        and all(isinstance(h, bytes) and len(h) == HASH_SIZE for h in (*digests, *proof))
    )
