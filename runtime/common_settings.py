"""The sections of settings that more than one tier has."""

from __future__ import annotations

from typing import Annotated, Literal

import msgspec
from msgspec import Meta

# The rule of runtime.topics.check_name, written for schemas; Python's `$` alone would let a line
# break at the end pass.
_NAME = r"[A-Za-z0-9][A-Za-z0-9._-]{0,63}"
_END = r"(?!\n)$"
_NAME_WORDS = "1 to 64 letters, digits, '.', '_' or '-', the first a letter or digit"

Name = Annotated[str, Meta(pattern=f"^{_NAME}{_END}", extra={"constraints": _NAME_WORDS})]
OptionalName = Annotated[
    str, Meta(pattern=f"^({_NAME})?{_END}", extra={"constraints": f"empty, or {_NAME_WORDS}"})
]


class BrokerSettings(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """How to reach the MQTT 5 broker."""

    host: Annotated[str, Meta(description="Host name or address.", min_length=1)] = "127.0.0.1"
    port: Annotated[int, Meta(description="TCP port.", ge=1, le=65535)] = 1883
    username: Annotated[str, Meta(description="User name; empty: none.")] = ""
    password: Annotated[
        str,
        Meta(
            description="Password. Better given by its environment variable than in a file.",
            extra={"secret": True},
        ),
    ] = ""
    tls_ca_file: Annotated[
        str, Meta(description="Certificate authority as PEM; empty: no TLS.")
    ] = ""
    tls_cert_file: Annotated[
        str, Meta(description="Our certificate as PEM, where the broker asks for one.")
    ] = ""
    tls_key_file: Annotated[str, Meta(description="Key of our certificate as PEM.")] = ""
    keep_alive_s: Annotated[
        int,
        Meta(
            description="Seconds without traffic after which a ping is sent; a dead connection is "
            "noticed after about 1.5 times as long.",
            ge=1,
            le=3600,
        ),
    ] = 10

    def __post_init__(self) -> None:
        """Refuses half a client certificate, and a certificate without TLS."""
        if bool(self.tls_cert_file) != bool(self.tls_key_file):
            raise ValueError("tls_cert_file and tls_key_file go together: set both or none")
        if self.tls_cert_file and not self.tls_ca_file:
            raise ValueError("tls_cert_file needs tls_ca_file, which switches TLS on")


class HttpSettings(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """The HTTP server: inference (Open Inference Protocol), health and metrics."""

    host: Annotated[
        str, Meta(description="Address to listen on; 0.0.0.0 for all.", min_length=1)
    ] = "127.0.0.1"
    port: Annotated[int, Meta(description="TCP port; 0: any free one.", ge=0, le=65535)] = 0


class StateSettings(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """What is kept on disk."""

    folder: Annotated[
        str,
        Meta(
            description="Folder for decision log, review queue and outbox; made when missing. "
            "One process, one folder.",
            min_length=1,
        ),
    ] = "state"
    decision_log_max_bytes: Annotated[
        int,
        Meta(
            description="Size of the decision log in bytes at which its oldest rows are deleted.",
            ge=1_048_576,
        ),
    ] = 67_108_864
    review_max_items: Annotated[
        int,
        Meta(
            description="Answers that may wait for a person to review them, at the top tier of a "
            "policy with reviews; further ones go out unreviewed.",
            ge=1,
        ),
    ] = 10_000
    review_max_bytes: Annotated[
        int,
        Meta(description="Size of all that waits for review in bytes.", ge=1_048_576),
    ] = 268_435_456
    outbox_max_items: Annotated[
        int,
        Meta(
            description="Items that may wait in the outbox; over it the oldest of the least "
            "precious kind is dropped.",
            ge=1,
            le=1_000_000,
        ),
    ] = 10_000
    outbox_max_bytes: Annotated[
        int, Meta(description="Size of all that waits in the outbox in bytes.", ge=1_048_576)
    ] = 67_108_864
    outbox_max_age_s: Annotated[
        float,
        Meta(
            description="Time in s after which what waits in the outbox is dropped, and what is "
            "known of corrections is forgotten.",
            gt=0,
        ),
    ] = 604_800.0
    received_max_bytes: Annotated[
        int,
        Meta(
            description="Size of what other tiers have sent for keeping, in bytes, at which the "
            "oldest is deleted.",
            ge=1_048_576,
        ),
    ] = 268_435_456
    rollup_interval_s: Annotated[
        float,
        Meta(
            description="How often counts of decisions are sent up through the outbox, in s, also "
            "while there is no connection. A gateway sends on those of its devices together, this "
            "often.",
            gt=0,
        ),
    ] = 60.0
    rollup_samples: Annotated[
        int,
        Meta(
            description="How many of the decisions that are counted at a time are told whole, with "
            "the id of their request, so that operators can look at single requests in the cloud "
            "tier. Never inputs, and only of requests with the residency `cloud`; 0: none.",
            ge=0,
            le=100,
        ),
    ] = 10


class LogSettings(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """Log lines on standard error."""

    level: Annotated[
        Literal["debug", "info", "warning", "error"],
        Meta(description="The least serious level that is written."),
    ] = "info"
    format: Annotated[
        Literal["json", "console"],
        Meta(description="`json`: a JSON object a line; `console`: for people."),
    ] = "json"


class ModelSettings(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """The model that this tier runs."""

    folder: Annotated[
        str, Meta(description="Folder of the model and its manifest; empty: the bundled one.")
    ] = ""
    early_folder: Annotated[
        str,
        Meta(
            description="Folder of a smaller model of the same task that answers until the one of "
            "`folder` is loaded; empty: nothing is answered before. Not with `updates.url`.",
        ),
    ] = ""
    accept_at: Annotated[
        Annotated[float, Meta(ge=0, le=1)] | None,
        Meta(
            description="Confidence at or above which this tier's answer stands; not set: as in "
            "the model's manifest.",
            examples=[0.8],
        ),
    ] = None
    threads: Annotated[int, Meta(description="Threads of one inference.", ge=1, le=256)] = 1
    isolation: Annotated[
        Literal["inline", "process"],
        Meta(
            description="`process`: a process for each member of the model, so that one that "
            "crashes, leaks or is stuck harms nothing else; `inline`: in this process, which costs "
            "less."
        ),
    ] = "inline"
    providers: Annotated[
        str,
        Meta(
            description="ONNX execution providers in the order in which they are wished for, with "
            "commas between them: `tensorrt`, `cuda`, `openvino`, `qnn`, `acl`, `xnnpack`, `cpu`, "
            "ONNX Runtime's own names, or `auto`: what this hardware is best at. What is not there "
            "or does not work is left out; the CPU is always last.",
            pattern=r"^[A-Za-z]{1,64}(?:, *[A-Za-z]{1,64}){0,15}(?!\n)$",
            examples=["openvino, cpu"],
            extra={"constraints": "names with commas between them"},
        ),
    ] = "auto"
    delegate: Annotated[
        str,
        Meta(
            description="What runs .tflite files: `xnnpack`, `none` (plain CPU kernels), "
            "`edgetpu`, the path of a delegate's library, or `auto`: the Edge TPU for files that "
            "were compiled for it, else `xnnpack`.",
            min_length=1,
        ),
    ] = "auto"
    memory_limit_mb: Annotated[
        int,
        Meta(
            description="Resident memory in MB over which the process of a member is started "
            "again; 0: none. For `process` and Linux only.",
            ge=0,
        ),
    ] = 0
    run_timeout_ms: Annotated[
        float,
        Meta(
            description="Time in ms, on top of 20 times the usual one, after which a run is given "
            "up and the process of that member started again. For `process`, and for members "
            "that are servers.",
            gt=0,
            le=600_000,
        ),
    ] = 500.0

    @property
    def wished_providers(self) -> tuple[str, ...]:
        """The names in ``providers``."""
        return tuple(name.strip() for name in self.providers.split(","))


class RequestSettings(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """Limits of what this tier takes on."""

    default_budget_ms: Annotated[
        float, Meta(description="Latency budget of a request that states none, in ms.", gt=0)
    ] = 100.0
    max_budget_ms: Annotated[
        float, Meta(description="Largest latency budget that is taken, in ms.", gt=0)
    ] = 600_000.0
    margin_ms: Annotated[
        float,
        Meta(
            description="Kept back from a budget for the way to the caller, in ms: the answer in "
            "hand goes out this much before the deadline, and earlier where this process is seen "
            "to run late (20 ms more at most).",
            ge=0,
        ),
    ] = 5.0
    max_pending: Annotated[
        int, Meta(description="Requests in progress; one more is refused at once.", ge=1)
    ] = 64
    max_body_bytes: Annotated[
        int, Meta(description="Largest request body that is taken, in bytes.", ge=1024)
    ] = 1_048_576

    def __post_init__(self) -> None:
        """Refuses a default budget that the limit would refuse."""
        if self.default_budget_ms > self.max_budget_ms:
            raise ValueError(
                f"default_budget_ms ({self.default_budget_ms:g}) is over "
                f"max_budget_ms ({self.max_budget_ms:g})"
            )


PolicyFile = Annotated[
    str,
    Meta(
        description="Policy file whose gears decide what climbs; it must have been fitted with "
        "this tier's model. Empty: the one of the bundled model while `accept_at` is not set, else "
        "`accept_at` decides."
    ),
]


class EscalationSettings(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """When a request that this tier is unsure of climbs."""

    enabled: Annotated[bool, Meta(description="false: this tier answers everything itself.")] = True
    policy: PolicyFile = ""
    min_chance: Annotated[
        float,
        Meta(
            description="Least chance of an answer from above within the remaining budget that "
            "makes escalating worth it.",
            ge=0,
            le=1,
        ),
    ] = 0.25
    link_window: Annotated[
        int, Meta(description="Escalations over which that chance is estimated.", ge=1, le=100_000)
    ] = 100
    link_half_life_s: Annotated[
        float,
        Meta(
            description="Time in s after which an observation of the link counts half.",
            gt=0,
        ),
    ] = 1.0
    probe_interval_s: Annotated[
        float,
        Meta(
            description="While the chance is too low, one unsure request climbs this often, in s, "
            "to find out whether the link is back.",
            gt=0,
        ),
    ] = 0.5
    prior_chance: Annotated[
        float, Meta(description="Chance that is assumed before anything was seen.", ge=0, le=1)
    ] = 0.8
    hedge_share: Annotated[
        float,
        Meta(
            description="Share of the escalations that may ask a second gateway beside one that "
            "is slower than 19 in 20 of its replies; 0: none.",
            ge=0,
            le=0.5,
        ),
    ] = 0.02
    reserve_ms: Annotated[
        float,
        Meta(
            description="Kept back from the remaining budget when it is passed up, in ms, so that "
            "the answer still reaches this tier's caller.",
            ge=0,
        ),
    ] = 3.0
    audit_rate: Annotated[
        float,
        Meta(
            description="Share of the answers that stand here about which all tiers above are "
            "asked afterwards, to know what other policies would do and what is lost; 0: none.",
            ge=0,
            le=1,
        ),
    ] = 0.01
    audit_budget_ms: Annotated[
        float, Meta(description="Time in ms that an audit may take.", gt=0, le=600_000)
    ] = 2000.0
    max_audits: Annotated[
        int, Meta(description="Audits in progress; further ones do not take place.", ge=1)
    ] = 2
    corrections: Annotated[
        bool,
        Meta(
            description="Whether requests that could not climb in time are kept in the outbox and "
            "asked again later, so that the caller hears of the better answer."
        ),
    ] = True
    correction_max_bytes: Annotated[
        int, Meta(description="Largest inputs that are kept for that, in bytes.", ge=1)
    ] = 262_144
    live_control: Annotated[
        bool,
        Meta(
            description="Whether load, scores and audits choose among the gears of the policy and "
            "their safer steps; false: by the latency budget alone."
        ),
    ] = True
