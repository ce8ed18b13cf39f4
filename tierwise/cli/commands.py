"""All commands, in the order in which help lists them."""

from __future__ import annotations

from tierwise.cli import (
    audit,
    completion,
    config,
    control,
    data,
    demo,
    doctor,
    experiment,
    explain,
    hardware,
    infer,
    keys,
    metrics,
    models,
    outbox,
    policy,
    retrain,
    review,
    rollout,
    tiers,
)

ADD_PARSERS = (
    demo.add_parser,
    infer.add_parser,
    tiers.add_parser,
    config.add_parser,
    doctor.add_parser,
    metrics.add_parser,
    explain.add_parser,
    audit.add_parser,
    models.add_parser,
    hardware.add_parser,
    keys.add_parser,
    rollout.add_parser,
    experiment.add_parser,
    policy.add_parser,
    review.add_parser,
    retrain.add_parser,
    data.add_parser,
    control.add_parser,
    outbox.add_parser,
    completion.add_parser,
)
