"""The model card: what a version is, for the people who answer for it."""

from __future__ import annotations

from peerloan.loan import Definition
from peerloan.model import Policy, TrainedOn


def model_card(
    candidate: str,
    definition: Definition,
    trained_on: TrainedOn,
    metrics: dict[str, float],
    policy: Policy,
) -> str:
    """The card as Markdown."""
    warning = (
        "> **Trained on the built-in sample.** Its loans are synthetic: no decision about a person "
        "may rest on this version.\n\n"
        if trained_on.sample
        else ""
    )
    fields = "\n".join(
        f"| {field.name} | {field.label} | {field.kind} | {field.expected} |"
        for field in definition.fields
    )
    figures = "\n".join(f"| {name} | {value:.6g} |" for name, value in metrics.items())
    return f"""# {definition.model}: {candidate}

{warning}Predicts for each loan how likely its holder is to be late in the next quarter
(`{definition.label.column}` is {definition.label.late!r}), and says yes from a probability of
{policy.threshold:.4f} on ({policy.aim} {policy.aim_value:g}).

## Trained on
{trained_on.source}: {trained_on.loans:,} loans, {trained_on.late:,} of them late
({trained_on.late / trained_on.loans:.2%}). Fingerprint `{trained_on.fingerprint}`.

## On held-out loans
A stratified fifth was held out for these figures; the version itself was then fitted on all loans.

| figure | value |
|---|---|
{figures}

## Features
| field | label | kind | expected |
|---|---|---|---|
{fields}

## Limits
The figures hold for loans like those of the training table. Probabilities are as the estimator
gives them; reasons are measured against the training table's mean.
"""
