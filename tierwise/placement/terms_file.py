"""What ``tierwise policy collect|fit --placement`` take from ``tierwise place --write-fit``."""

from __future__ import annotations

import argparse
from pathlib import Path

import numpy as np

from model_zoo.policies.predictions import Predictions
from runtime.core.placement.terms import FitTerms
from runtime.errors import PolicyError
from tierwise.placement.toml_file import read_toml

_SAME = 1e-6


def read_terms(path: Path) -> FitTerms:
    """The terms in a file.

    Raises:
        SettingsError: it cannot be read or is of another form.
    """
    return read_toml(path, FitTerms)


def use_for_collect(arguments: argparse.Namespace) -> None:
    """Sets models and prices, where the command line names none.

    Raises:
        PolicyError: a model has no folder.
    """
    if arguments.placement is None:
        return
    terms = read_terms(arguments.placement)
    if not arguments.price:
        arguments.price = list(terms.prices.items())
    if not arguments.model:
        missing = [tier for tier in terms.prices if tier not in terms.models]
        if missing:
            raise PolicyError(
                f"{arguments.placement} has no folder for {missing[0]}: add --model "
                f"{missing[0]}=FOLDER, and the other tiers, too"
            )
        arguments.model = [(tier, terms.models[tier]) for tier in terms.prices]


def use_for_fit(arguments: argparse.Namespace, train: Predictions) -> None:
    """Sets the loss allowed, the budget and the trace in place of the options.

    Raises:
        PolicyError: the predictions are of other tiers or prices.
    """
    if arguments.placement is None:
        return
    terms = read_terms(arguments.placement)
    if train.tiers != tuple(terms.prices):
        raise PolicyError(
            f"{arguments.placement} is for {' > '.join(terms.prices)}, {train.source} has "
            f"{' > '.join(train.tiers)}: collect with --placement, too"
        )
    prices = np.asarray(list(terms.prices.values()))
    if not np.allclose(train.relative_price, prices / prices[-1], rtol=_SAME, atol=_SAME):
        raise PolicyError(
            f"{train.source} has other prices than {arguments.placement}: collect with --placement"
        )
    arguments.max_loss = terms.max_loss
    arguments.budget_ms = (terms.budget_ms,)
    arguments.trace = arguments.placement.parent / terms.trace
