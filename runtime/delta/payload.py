"""Compressed bytes, with a size that is known before they are decompressed.

Rules of this file:
  * decompressing never makes more bytes than it was asked for, whatever the payload says of itself;
  * what does not come to exactly that many, or has something left over, is a ``DeltaError``.

A dictionary of raw bytes is found by zstd only with tables that are large enough for it: long
distance matching does nothing there, and at low levels the tables come too small (facebook/zstd
#2835, #3553). So their sizes are given, and a test looks at the ratio.
"""

from __future__ import annotations

import bz2
import enum
from typing import Final

import zstandard

from runtime.errors import DeltaError

BAD: Final = "the delta does not decompress to what it says; fetch the full file"
MIN_LOG, MAX_LOG = 10, 27
MAX_TABLE_LOG: Final = 23
MIN_DICTIONARY_LEVEL: Final = 9
# What zstd leaves more of, bz2 does no better, and it is slow there.
BZ2_SHARE: Final = 0.4


class Codec(enum.IntEnum):
    """How a payload is compressed."""

    STORED = 0
    ZSTD = 1
    BZ2 = 2


def pack_zstd(data: bytes, level: int) -> bytes:
    """One zstd frame that says its size."""
    return zstandard.ZstdCompressor(level=level).compress(data)


def pack_against(data: bytes | memoryview, dictionary: bytes | memoryview, level: int) -> bytes:
    """One zstd frame with a raw dictionary, which ``unpack_against`` needs again."""
    size = len(data) + len(dictionary)
    window_log = min(max(size.bit_length(), MIN_LOG), MAX_LOG)
    table_log = min(window_log, MAX_TABLE_LOG)
    parameters = zstandard.ZstdCompressionParameters.from_level(
        max(level, MIN_DICTIONARY_LEVEL),
        window_log=window_log,
        hash_log=table_log,
        chain_log=table_log,
        write_content_size=True,
    )
    compressor = zstandard.ZstdCompressor(dict_data=_raw(dictionary), compression_params=parameters)
    return compressor.compress(data)


def smallest(data: bytes, level: int) -> tuple[Codec, bytes]:
    """The data by the codec that makes the least of them."""
    packed = {Codec.STORED: data, Codec.ZSTD: pack_zstd(data, level)}
    if len(packed[Codec.ZSTD]) <= BZ2_SHARE * len(data):
        packed[Codec.BZ2] = bz2.compress(data)
    return min(packed.items(), key=lambda item: (len(item[1]), item[0]))


def unpack(payload: bytes, codec: Codec, size: int) -> bytes:
    """The ``size`` bytes of a payload.

    Raises:
        DeltaError: it is not a payload of this codec, or not of this size.
    """
    match codec:
        case Codec.STORED:
            if len(payload) != size:
                raise DeltaError(BAD)
            return payload
        case Codec.ZSTD:
            return _unpack_zstd(payload, zstandard.ZstdDecompressor(), size)
        case Codec.BZ2:
            return _unpack_bz2(payload, size)


def unpack_against(payload: bytes, dictionary: bytes | memoryview, size: int) -> bytes:
    """The ``size`` bytes of a zstd payload with a raw dictionary.

    Raises:
        DeltaError: it is no such payload, or not of this size.
    """
    return _unpack_zstd(payload, zstandard.ZstdDecompressor(dict_data=_raw(dictionary)), size)


def _raw(dictionary: bytes | memoryview) -> zstandard.ZstdCompressionDict:
    return zstandard.ZstdCompressionDict(
        bytes(dictionary), dict_type=zstandard.DICT_TYPE_RAWCONTENT
    )


def _unpack_zstd(payload: bytes, decompressor: zstandard.ZstdDecompressor, size: int) -> bytes:
    try:
        # The library allocates what the frame asks for, so that is looked at first.
        if zstandard.frame_content_size(payload) != size:
            raise DeltaError(BAD)
        data = decompressor.decompress(payload, max_output_size=size, allow_extra_data=False)
    except zstandard.ZstdError as error:
        raise DeltaError(BAD) from error
    if len(data) != size:
        raise DeltaError(BAD)
    return data


def _unpack_bz2(payload: bytes, size: int) -> bytes:
    decompressor = bz2.BZ2Decompressor()
    try:
        # One more than is needed, so that the end of the stream is read too.
        data = decompressor.decompress(payload, max_length=size + 1)
    except (OSError, ValueError) as error:
        raise DeltaError(BAD) from error
    if len(data) != size or not decompressor.eof or decompressor.unused_data:
        raise DeltaError(BAD)
    return data
