"""Merkle trees beside the one that the ledger keeps: what tests and benchmarks compare it with.

A witness would verify the consistency proofs; until there is one, only tests make them.
"""

from __future__ import annotations

from collections.abc import Sequence

from agentguard.transparency.merkle import (
    EMPTY_ROOT,
    Hashes,
    _are_sound,
    _fold,
    _path,
    _require_hash,
    _sides,
    _span,
    node_hash,
)


class MemoryNodes:
    """Nodes in a dict, for tests and offline verification. Refuses to change a stored hash."""

    def __init__(self) -> None:
        self._digests: dict[tuple[int, int], bytes] = {}

    def get(self, level: int, index: int) -> bytes:
        return self._digests[level, index]

    def put(self, level: int, index: int, digest: bytes) -> None:
        if self._digests.setdefault((level, index), digest) != digest:
            raise ValueError(f"subtree {(level, index)} has another hash: is the tree size right?")


class Frontier:
    """The root of a stream of leaves in O(log n) memory; `size` is how many there were so far."""

    def __init__(self) -> None:
        self.size = 0
        self._peaks: list[bytes] = []  # complete subtrees without a sibling yet, largest first

    def append(self, leaf: bytes) -> None:
        """Add one leaf hash. Raises ValueError if it is not 32 bytes."""
        _require_hash(leaf)
        carry, completed = self.size, leaf
        while carry & 1:  # each trailing one bit of the size is a peak whose sibling is here now
            completed = node_hash(self._peaks.pop(), completed)
            carry >>= 1
        self._peaks.append(completed)
        self.size += 1

    def root(self) -> bytes:
        """Return the root over the leaves so far; appending may go on afterwards."""
        return _fold(self._peaks[::-1])


def consistency_proof(nodes: Hashes, old: int, new: int) -> tuple[bytes, ...]:
    """Return PROOF(old, D[new]) (RFC 9162, section 2.1.4.1); empty if the sizes are equal.
    Raises ValueError unless 0 < old < new or old == new: from an empty tree there is no proof."""
    if not (0 < old <= new or old == new == 0):
        raise ValueError(f"tree sizes: got {old} and {new}, expected 0 < old <= new")
    if old == new:
        return ()
    width = old & -old  # of the smallest subtree that ends where the old tree does
    path = _path(nodes, old - 1, width, new)
    # When that subtree is the whole old tree, the verifier has its hash.
    return tuple(path) if width == old else (_span(nodes, old - width, old), *path)


def verify_consistency(
    *, old_size: int, new_size: int, old_root: bytes, new_root: bytes, proof: Sequence[bytes]
) -> bool:
    """Return whether `proof` shows that the new tree starts with the leaves of the old one
    (RFC 9162, section 2.1.4.2). Trees of one size are consistent if their roots are equal and the
    proof is empty. From an empty tree to a larger one the answer is False: every tree extends the
    empty one, so nothing would vouch for `new_root`."""
    if not _are_sound(old_size, new_size, proof, old_root, new_root):
        return False
    if old_size == new_size:
        return not proof and old_root == new_root and (old_size > 0 or old_root == EMPTY_ROOT)
    if old_size == 0:
        return False
    width = old_size & -old_size
    hashes = [old_root, *proof] if width == old_size else proof
    sides = _sides(old_size // width - 1, (new_size - 1) // width)
    if len(hashes) != 1 + len(sides):
        return False
    old_digest = new_digest = hashes[0]
    for sibling, is_left in zip(hashes[1:], sides, strict=True):
        if is_left:
            old_digest = node_hash(sibling, old_digest)
            new_digest = node_hash(sibling, new_digest)
        else:  # beyond the old tree's end
            new_digest = node_hash(new_digest, sibling)
    return old_digest == old_root and new_digest == new_root
