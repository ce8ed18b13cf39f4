"""Everything Tierwise raises, and what each error is called on the wire.

    TierwiseError
    |- RequestError            the caller's fault: cannot be answered, do not retry unchanged
    |  |- MalformedBodyError       not an Open Inference Protocol body
    |  |- InvalidTensorError       wrong name, datatype, shape, byte count, or not finite
    |  |- UnknownModelError        no such model or version here
    |  |- PayloadTooLargeError     over the stated limit of bytes
    |  |- ResidencyError           the payload has come further than it may
    |  |- EmbeddingError           inputs are the output of a model that this one was not made for
    |  |- InvalidBudgetError       budget <= 0, not a number, or over the limit
    |  |- UnknownPageError         there is nothing under this address
    |  |- UnauthorizedError        no token, or another one
    |  `- ForbiddenError           asked for by a name, or from a page, that is not ours
    |- RefusedError            a healthy tier declined; the answer in hand stands
    |  |- TooLateError             the remaining budget is over, or too short to finish in
    |  |- OverloadedError          queues are full; carries ``retry_after_ms``
    |  `- StoppedError             an operator has stopped the tier, or whoever asks
    |- UnavailableError        something of ours did not work; retry or use what is in hand
    |  |- NotConnectedError        the message bus has no connection
    |  |- BackendError             a model failed to run
    |  |  `- LeftOutError             none was run, because it failed too often lately
    |  |- StorageError             the disk did not take it, or has too much to do
    |  |  `- NoRoomError              it would not fit; nothing was written
    |  |- FetchError               a mirror does not answer, or not well: later, or another one
    |  |  `- MissingFileError         it has no such file
    |  |- ExpiredError             what the catalogue says has expired: nothing new is fetched
    |  `- ShuttingDownError        the process is draining
    |- ArtifactError           a model file or manifest is missing, truncated, of another digest
    |  `- DeltaError               a delta does not lead to the file; the full file does
    |- SecurityError           somebody has tampered with signed metadata or files: ``because``
    |- ReleaseError            a release, or what is said about one, may not be taken: ``because``
    |- RolloutError            a rollout cannot do what was asked for now; the text says what can
    |  |- UnknownRolloutError      there is no such rollout
    |  `- RolloutConflictError     somebody else has changed it, or holds it
    |- PolicyError             a policy file, or what it would be fitted on, cannot be used
    |- SettingsError           a setting is unknown, of the wrong type, or out of range
    `- StartError              a process could not start: port in use, broker missing, file missing

``code`` is stable on the wire and in metrics; ``CATALOGUE`` maps it to an HTTP status and to the
text that a stranger may read. Misuse of an API inside the process is ``RuntimeError`` or
``ValueError``.
"""

from __future__ import annotations

from typing import ClassVar, NamedTuple


class TierwiseError(Exception):
    """Root of all errors of this project."""

    code: ClassVar[str] = "internal"


class RequestError(TierwiseError):
    """The request cannot be answered as it is."""

    code = "bad_request"


class MalformedBodyError(RequestError):
    """The body is not an Open Inference Protocol request."""

    code = "malformed_body"


class InvalidTensorError(RequestError):
    """A tensor has the wrong name, datatype, shape or byte count, or holds NaN or infinity."""

    code = "invalid_tensor"


class UnknownModelError(RequestError):
    """No such model, or no such version of it, is served here."""

    code = "unknown_model"


class PayloadTooLargeError(RequestError):
    """The body is over the limit of bytes."""

    code = "payload_too_large"


class InvalidBudgetError(RequestError):
    """The latency budget is not a number of milliseconds in the allowed range."""

    code = "invalid_budget"


class UnknownPageError(RequestError):
    """There is nothing under this address."""

    code = "unknown_page"


class UnauthorizedError(RequestError):
    """Whoever asks has not shown that they may."""

    code = "unauthorized"


class ForbiddenError(RequestError):
    """It may not be asked for like this, whoever asks."""

    code = "forbidden"


class ResidencyError(RequestError):
    """The payload may not be worked on at this tier."""

    code = "residency"


class EmbeddingError(RequestError):
    """The inputs are the output of another model than the one that this model was made for."""

    code = "embedding_mismatch"


class RefusedError(TierwiseError):
    """A healthy tier declined the work."""

    code = "refused"


class TooLateError(RefusedError):
    """The remaining budget is over or too short; ``retry_after_ms`` when less is to be done."""

    code = "too_late"

    def __init__(self, message: str, *, retry_after_ms: float = 0.0) -> None:
        super().__init__(message)
        self.retry_after_ms = retry_after_ms


class OverloadedError(RefusedError):
    """Queues are full."""

    code = "overloaded"

    def __init__(self, message: str, *, retry_after_ms: float = 0.0) -> None:
        super().__init__(message)
        self.retry_after_ms = retry_after_ms


class StoppedError(RefusedError):
    """An operator has stopped this tier, or whoever asks it."""

    code = "stopped"


class UnavailableError(TierwiseError):
    """Something of ours did not work."""

    code = "unavailable"


class NotConnectedError(UnavailableError):
    """The message bus has no connection."""

    code = "not_connected"


class BackendError(UnavailableError):
    """A model failed to run, or gave an output that is no answer."""

    code = "backend_failed"


class StorageError(UnavailableError):
    """What was to be kept could not be written."""

    code = "storage_failed"


class NoRoomError(StorageError):
    """It would not fit on the disk, or not into its quota; the text has the figures."""

    code = "no_room"


class FetchError(UnavailableError):
    """A mirror could not be asked, or broke off; what was verified before stays usable."""

    code = "fetch_failed"


class MissingFileError(FetchError):
    """The mirror has no such file."""

    code = "not_on_mirror"


class ExpiredError(UnavailableError):
    """Signed metadata has expired, or somebody keeps newer ones back; nothing new is fetched."""

    code = "catalogue_expired"


class LeftOutError(BackendError):
    """A model failed too often, and is left alone for a while; that has been told."""

    code = "left_out"


class ShuttingDownError(UnavailableError):
    """The process is draining and takes no new work."""

    code = "shutting_down"


class ArtifactError(TierwiseError):
    """A model file or its manifest is missing, truncated, or does not match its digest."""

    code = "invalid_artifact"


class ReleaseError(TierwiseError):
    """A release, or a statement about releases, may not be taken; ``because`` says which rule."""

    code = "release_refused"

    def __init__(self, message: str, *, because: str) -> None:
        super().__init__(message)
        self.because = because


class SecurityError(TierwiseError):
    """Signed metadata or files are not what they must be; ``because`` says which rule they break.

    Not a fault of the network: report it, and ask another mirror.
    """

    code = "security_event"

    def __init__(self, message: str, *, because: str) -> None:
        super().__init__(message)
        self.because = because


class RolloutError(TierwiseError):
    """A rollout cannot do what was asked for; nothing has changed."""

    code = "rollout_refused"


class UnknownRolloutError(RolloutError):
    """There is no such rollout, or experiment."""

    code = "unknown_rollout"


class RolloutConflictError(RolloutError):
    """The stored state is not the one that was changed, or another controller holds the store."""

    code = "rollout_conflict"


class DeltaError(ArtifactError):
    """A delta is damaged, hostile, or for another file; fetch the full file instead."""

    code = "invalid_delta"


class PolicyError(TierwiseError):
    """A policy file, or the data that one would be fitted or judged on, cannot be used."""

    code = "invalid_policy"


class SettingsError(TierwiseError):
    """A setting is unknown, of the wrong type, or out of range."""

    code = "invalid_settings"


class StartError(TierwiseError):
    """A process could not start; the text says what to do."""

    code = "cannot_start"


class Public(NamedTuple):
    """What the outside sees of an error."""

    http_status: int
    text: str


CATALOGUE: dict[str, Public] = {
    "internal": Public(500, "Internal error"),
    "bad_request": Public(400, "The request cannot be answered as it is"),
    "malformed_body": Public(400, "Not an Open Inference Protocol request"),
    "invalid_tensor": Public(400, "A tensor does not fit the model"),
    "unknown_model": Public(404, "No such model or version is served here"),
    "payload_too_large": Public(413, "The request is over the limit of bytes"),
    "unknown_page": Public(404, "There is nothing under this address"),
    "unauthorized": Public(401, "Whoever asks has not shown that they may"),
    "forbidden": Public(403, "It may not be asked for like this"),
    "residency": Public(403, "The payload may not be worked on here"),
    "embedding_mismatch": Public(409, "The inputs are of a model that this one was not made for"),
    "invalid_budget": Public(400, "The latency budget is not usable"),
    "refused": Public(503, "The work was declined"),
    "too_late": Public(504, "The remaining latency budget is too short"),
    "overloaded": Public(503, "Queues are full"),
    "stopped": Public(503, "Stopped by an operator"),
    "unavailable": Public(503, "Temporarily unavailable"),
    "not_connected": Public(503, "No connection to the message broker"),
    "backend_failed": Public(500, "The model failed to run"),
    "storage_failed": Public(503, "It could not be stored"),
    "no_room": Public(507, "There is no room for it"),
    "fetch_failed": Public(503, "A mirror of the catalogue cannot be read"),
    "not_on_mirror": Public(503, "The mirror has no such file"),
    "catalogue_expired": Public(503, "The signed catalogue has expired"),
    "security_event": Public(500, "Signed data did not verify"),
    "left_out": Public(503, "The model is left alone for a while"),
    "shutting_down": Public(503, "Shutting down"),
    "invalid_artifact": Public(500, "A model file is not usable"),
    "release_refused": Public(409, "The release may not be taken"),
    "rollout_refused": Public(409, "The rollout cannot do that now"),
    "unknown_rollout": Public(404, "There is no such rollout"),
    "rollout_conflict": Public(409, "Somebody else has changed the rollout"),
    "invalid_delta": Public(500, "A delta of a model file is not usable"),
    "invalid_policy": Public(500, "The policy is not usable"),
    "invalid_settings": Public(500, "The settings are not usable"),
    "cannot_start": Public(500, "The process could not start"),
}


def public(code: str) -> Public:
    """The HTTP status and public text of an error code; an unknown code reads as internal."""
    return CATALOGUE.get(code, CATALOGUE["internal"])


def describe(error: TierwiseError) -> str:
    """The text for a caller: the detail where the caller is at fault, else the catalogue."""
    if isinstance(error, RequestError | RefusedError):
        return str(error) or public(error.code).text
    return public(error.code).text
