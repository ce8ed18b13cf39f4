"""Steps towards safety by what audits say is lost: ``tau <- clip(tau + eta * (D - target), 0, 1)``.

``D`` is how often final answers are not the top tier's, which is all that can be known without
labels. Each disagreement beyond those of the calibration split is at worst a loss, so ``target`` is
the disagreement found there and what room the loss had below the one allowed.

``D`` is about all requests, and audits about a few: an audited disagreement counts with the inverse
of its chance (Horvitz and Thompson, 1952), and every answer that could have been audited, or that
the top tier gave, takes its share of the target off. So ``tau`` comes down again where everything
goes to the top tier, too. One update of ``eta`` is spread over the ``1 / rate`` requests that one
audit speaks for; an audit moves ``tau`` by twice ``eta`` at most, as no chance is below half the
rate, and between audits ``tau`` wanders by ``eta * sqrt(target / 2 * number of audits)`` or so by
chance alone. For any sequence of requests the mean of ``D`` tends to the target while the clip does
not bind (Gibbs and Candes, 2021).
"""

from __future__ import annotations

ETA = 0.05


class Steering:
    """``tau`` goes from 0, the fitted gear, to 1, the last of its safer steps.

    ``rate`` is the mean chance of an audit; without audits nothing is steered.
    """

    def __init__(self, rate: float, eta: float = ETA) -> None:
        self._per_request = eta * max(0.0, rate)
        self.tau = 0.0

    def note_answer(self, target: float, *, disagrees: bool) -> None:
        """An answer that the top tier gave or that could be audited.

        ``disagrees`` when it is known already that the answer is not the top tier's.
        """
        self._move((1.0 if disagrees else 0.0) - target)

    def note_audit(self, target: float, chance: float, *, agrees: bool | None) -> None:
        """An audit that ended; None when it did not come back, and speaks for nobody."""
        if agrees is None:
            self._move(target / chance)
        elif not agrees:
            self._move(1 / chance)

    def _move(self, by: float) -> None:
        self.tau = min(1.0, max(0.0, self.tau + self._per_request * by))
