"""Checksums. OpenSSL's, behind `hashlib`, are faster for much content, but to load them takes longer than to look at little of it."""

from __future__ import annotations

__all__ = ["is_md5", "md5", "md5_of", "sha256"]

TYPE_CHECKING = False
if TYPE_CHECKING:
    from _hashlib import HASH
    from hashlib import md5 as _light_md5
    from hashlib import sha256
else:
    try:
        from _md5 import md5 as _light_md5
    except ImportError:
        from hashlib import md5 as _light_md5
    try:
        from _sha2 import sha256
    except ImportError:
        try:
            from _sha256 import sha256  # until Python 3.11
        except ImportError:
            from hashlib import sha256

_LITTLE_BYTES = 1 << 20


def md5(size: int) -> HASH:
    """The digest, still empty, for content of about `size` bytes."""
    if size <= _LITTLE_BYTES:
        return _light_md5(usedforsecurity=False)
    import hashlib  # noqa: PLC0415 - see above

    return hashlib.md5(usedforsecurity=False)


def md5_of(content: bytes | memoryview) -> str:
    """The MD5 of content that is at hand, in hex digits."""
    digest = md5(len(content))
    digest.update(content)
    return digest.hexdigest()


def is_md5(text: str) -> bool:
    """Whether a text can be an MD5, in small hex digits."""
    return len(text) == 32 and not text.strip("0123456789abcdef")
