"""Settings of handing out model files, which the upper tiers share."""

from __future__ import annotations

from typing import Annotated

import msgspec
from msgspec import Meta

MaxBytesPerS = Annotated[
    Annotated[int, Meta(ge=10_000)] | None,
    Meta(
        description="Bytes a second of all transfers to the tier below together, so that inference "
        "beside them stays quick; not set: no limit.",
        examples=[4_000_000],
    ),
]
MaxTransfers = Annotated[
    int,
    Meta(
        description="Transfers to the tier below at once; further ones are told to come again.",
        ge=1,
        le=1024,
    ),
]
DeltaMaxBytes = Annotated[
    int,
    Meta(
        description="Bytes of deltas that are kept, made when asked for; 0: none are made.",
        ge=0,
    ),
]


class RepositorySettings(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """The published model files that this tier hands out to the tier below."""

    repository: Annotated[
        str,
        Meta(
            description="Folder with `blobs`, `metadata` and `targets`, or a URL of such a place "
            "(`s3://...`; extras `s3` and `fsspec`); empty: nothing is handed out.",
            examples=["/srv/tierwise/repository"],
        ),
    ] = ""
    max_bytes_per_s: MaxBytesPerS = None
    max_transfers: MaxTransfers = 8
    delta_max_bytes: DeltaMaxBytes = 268_435_456


class MirrorSettings(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """The mirror of published model files: fetched from above once, handed out to the region."""

    upstream_url: Annotated[
        str,
        Meta(
            description="Base URL of the HTTP port of the tier above; empty: no mirror.",
            pattern=r"^(https?://[^\s?#]+)?(?!\n)$",
            examples=["http://cloud.example:8472"],
            extra={"constraints": "empty, or http:// or https:// without a query"},
        ),
    ] = ""
    folder: Annotated[
        str,
        Meta(description="Folder of the mirror; empty: `updates` in the state folder."),
    ] = ""
    root: Annotated[
        str,
        Meta(
            description="File with the signed root of the catalogue (`root.json` of `tierwise keys "
            "init`): what is fetched before it is asked for is then verified as on a device; "
            "empty: only digests are compared.",
            examples=["/etc/tierwise/root.json"],
        ),
    ] = ""
    max_bytes: Annotated[
        int,
        Meta(
            description="Bytes of model files that are kept; over it the least recently used goes, "
            "never what is assigned or prefetched.",
            ge=1_048_576,
        ),
    ] = 8_589_934_592
    max_bytes_per_s: MaxBytesPerS = 8_000_000
    max_transfers: MaxTransfers = 8
    upstream_max_bytes_per_s: Annotated[
        Annotated[int, Meta(ge=10_000)] | None,
        Meta(
            description="Bytes a second that one transfer from the tier above may take; not set: "
            "no limit.",
            examples=[1_000_000],
        ),
    ] = None
    refresh_interval_s: Annotated[
        float, Meta(description="How often metadata is fetched from above, in s.", ge=1)
    ] = 300.0
    delta_max_bytes: DeltaMaxBytes = 268_435_456
