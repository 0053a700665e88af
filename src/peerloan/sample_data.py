"""Generate synthetic books with drift scenarios, reproducible by a seed.

Use them for demonstrations, tests and measurements; never to decide about real people. A sample
resembles PeerLoan's table in its columns, their distributions and main dependencies, the share of
late loans, and how hard these are to predict. It holds no loan of that table. A scenario is a book
of a later quarter in which something has changed: it shows what drift looks like and what raises an
event.

A loan is drawn in four steps: a purpose; eight correlated normal scores, whose means depend on the
purpose; the columns, each from its score by a table of quantiles or shares; and the label, by a
logistic model with one effect per column. The constants were fitted on PeerLoan's table and
rounded, except where a comment calls them assumptions.
"""

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from statistics import NormalDist

import numpy as np
import numpy.typing as npt
import pyarrow as pa
import pyarrow.compute as pc

ID_PREFIX = "sample-"
"""Prefix of every `loan_id` of a sample, by which training recognises a sample."""

SCHEMA: pa.Schema = pa.schema(
    {
        "loan_id": pa.string(),
        "loan_amnt": pa.int64(),
        "int_rate": pa.float64(),
        "purpose": pa.string(),
        "grade": pa.string(),
        "annual_inc": pa.float64(),
        "revol_util": pa.float64(),
        "emp_length": pa.string(),
        "dti": pa.float64(),
        "delinq_2yrs": pa.int64(),
        "home_ownership": pa.string(),
        "is_late": pa.int64(),
    }
)
"""The columns of every sample: the loan's id, then PeerLoan's columns in PeerLoan's order."""

_Floats = npt.NDArray[np.float64]
_Codes = npt.NDArray[np.int64]

# Loans are drawn in chunks of this size, each with its own seed, and the last is cut to size. So a
# smaller sample is the beginning of a larger one, and memory is that of one chunk. Changing this
# number changes every sample.
_CHUNK = 65_536


def _rows(text: str) -> dict[str, _Floats]:
    """Parse a table of constants: on each line a name, then numbers."""
    lines = (line.split() for line in text.strip().splitlines())
    return {name: np.array(numbers, dtype=float) for name, *numbers in lines}


# --- Scores: what depends on what ---------------------------------------------------------------

# Correlations of the scores over the whole table, below the diagonal.
_CORRELATIONS = _rows("""
    amount   1
    rate     0.01  1
    income   0.47 -0.12  1
    util     0.08  0.33  0.11  1
    dti      0.02  0.21 -0.13  0.22  1
    delinq  -0.01  0.21  0.14  0.02 -0.05  1
    emp      0.09 -0.02  0.18  0.04  0.08  0.06  1
    home     0.17 -0.11  0.33  0.03  0.04  0.13  0.27  1
""")

# A purpose's share; its share in the new channel (an assumption, as are the last two rows, which
# PeerLoan's table doesn't have); its effect on the log-odds of late payment; the scores' means.
#                  share channel effect amount rate income util  dti  delinq emp   home
_PURPOSES = _rows("""
    debt_consolidation 0.4796 0.22  0.00   0.15  0.13  0.01  0.07  0.10  0.01  0.03 -0.01
    credit_card        0.2631 0.12 -0.08  -0.01 -0.25 -0.03  0.20  0.07 -0.10 -0.09 -0.09
    other              0.0889 0.10  0.17  -0.46  0.11 -0.20 -0.29 -0.27  0.03 -0.06 -0.20
    home_improvement   0.0691 0.08  0.24  -0.01 -0.11  0.32 -0.26 -0.14  0.18  0.26  0.81
    major_purchase     0.0294 0.12  0.15  -0.14 -0.06 -0.07 -0.58 -0.45  0.02 -0.19 -0.18
    house              0.0187 0.01  0.08   0.04 -0.06  0.09 -0.53 -0.54  0.21  0.06  0.43
    medical            0.0140 0.07  0.51  -0.56  0.08 -0.11 -0.29 -0.19  0.09  0.05 -0.08
    car                0.0118 0.10 -0.08  -0.56 -0.07 -0.22 -0.39 -0.40 -0.01 -0.08 -0.13
    small_business     0.0093 0.04  0.63   0.39  0.11  0.36 -0.30 -0.40  0.13 -0.05 -0.14
    vacation           0.0084 0.05  0.21  -1.16  0.14 -0.14 -0.12  0.02  0.04  0.21 -0.14
    moving             0.0070 0.03  0.20  -0.70  0.25 -0.12 -0.20 -0.18 -0.04 -0.36 -0.81
    renewable_energy   0.0005 0     0.29  -0.42  0.31 -0.27 -0.13  0.09  0.18 -0.03 -0.22
    wedding            0      0.04  0.10  -0.20  0.10 -0.05  0.10  0.00 -0.05 -0.30 -0.40
    educational        0      0.02  0.35  -0.60  0.20 -0.50 -0.10 -0.10 -0.10 -0.60 -0.60
""")

# --- Columns: from score to value ---------------------------------------------------------------

# Quantiles at points of the normal score; amounts and incomes in thousands. Values outside a
# column's bounds are clipped to them, which gives the bounds their share of loans: 3.6 % ask for
# the highest amount, and 1 % use none of their credit lines.
_QUANTILES = _rows("""
    score   -4.3   -3  -2.5    -2  -1.5    -1  -0.5     0   0.5    1  1.5    2   2.5    3  4.3
    amount   0.6  0.8   1.2   2.2   3.9   6.2   9.3  12.4  18.8 25.4   34   42    42   42   42
    income   2.7   11    16    23  30.5    40  52.5    68    89  117  157  222   340  650 9500
    util    -0.1 -.04 -.013  .015  .073  .164  .278  .413  .563  .71  .84  .93  .979 1.01 1.24
    dti     -0.1 -0.1  0.73  2.14  4.69  8.16  12.2  16.7 21.62 26.7 31.7 36.1  38.5 39.6   40
""")
_AMOUNT_BOUNDS, _DTI_BOUNDS, _LEAST_INCOME = (1_000, 40_000), (0, 39.99), 2_000

# People round to a grain (5000, 1000, …). The row of a grain gives the share of values rounded to
# it or to a larger one, by the size of the value (first row); all others have the last grain. The
# shares are lower than the shares of multiples in the table: smaller grains hit these by chance.
_AMOUNT_GRAINS = _rows("""
    size   2500 7500 15000 25000 35000
    5000   0    0.28  0.39  0.50  0.76
    1000   0.47 0.69  0.84  0.86  0.93
    500    0.64 0.77  0.88  0.89  0.95
    100    0.94 0.95  0.96  0.96  0.97
    25     1    1     1     1     1
""")
_INCOME_GRAINS = _rows("""
    size   20000 45000 80000 150000 300000
    10000  0      0.09  0.14   0.32   0.52
    5000   0.10   0.31  0.47   0.62   0.77
    1000   0.65   0.80  0.86   0.90   0.95
    100    0.80   0.89  0.93   0.95   0.96
    1      1      1     1      1      1
""")

# A grade's share; the share of its lowest rate among its rates (the others share the rest
# equally); its rates, without those that hardly any of its loans have.
_GRADES = _rows("""
    A 0.2638 0.19 0.0531 0.0607 0.0619 0.0671 0.0683 0.0734 0.0746 0.0796 0.0808
    B 0.2956 0.10 0.0943 0.0958 0.0992 0.1007 0.1041 0.1056 0.1090 0.1105 0.1198 0.1213
    C 0.2691 0.11 0.1261 0.1306 0.1358 0.1403 0.1407 0.1452 0.1504 0.1549 0.1601 0.1646
    D 0.1358 0.24 0.1747 0.1845 0.1942 0.2039 0.2185
    E 0.0295 0.16 0.2290 0.2387 0.2484 0.2581 0.2677
    F 0.0054 0.59 0.2872 0.2969 0.3017 0.3065 0.3075
    G 0.0008 0.77 0.3079 0.3084 0.3089 0.3094 0.3099
""")

# Shares of ordered categories, lowest score first: years of employment (10 stands for more, too),
# past delinquencies, and homes as in `_HOMES`, whose last three no score decides.
_SHARES = _rows("""
    emp    0.074 0.073 0.102 0.090 0.072 0.068 0.051 0.041 0.036 0.030 0.363
    delinq .8506 .1042 .0262 .0099 .0043 .0018 .0011 .0006 .0004 .0004 .0002 .0001 .0001
    home   0.4211 0.1324 0.4465
""")
_EMP_LENGTHS = ("< 1 year", "1 year", *(f"{years} years" for years in range(2, 10)), "10+ years")
_HOMES = ("RENT", "OWN", "MORTGAGE", "ANY", "OTHER", "NONE")

# Share of loans without employment, at points of the income score, and factors for RENT, OWN and
# MORTGAGE. The retired have less income, and own their home more often.
_EMP_MISSING = _rows("""
    score -3   -2.5 -2   -1.5 -1   -0.5  0     1     2
    share 0.62 0.50 0.28 0.15 0.10 0.068 0.052 0.024 0.01
    home  0.8 1.8 1.05
""")
_UTIL_MISSING = 0.001

# --- Label: effects on the log-odds of late payment -----------------------------------------------

# By column: knots, and the effects at them; linear between the knots, constant outside. What a dti
# above 40 does is an assumption: PeerLoan lends to 39.99. Employment is counted in years, -1 where
# none is named.
_EFFECTS: dict[str, tuple[Sequence[float], Sequence[float]]] = {
    "rate": ((0.065, 0.08, 0.11, 0.15, 0.20, 0.26), (-1.9, -0.95, -0.3, 0.37, 0.88, 1.35)),
    "amount": ((1_000, 5_000, 20_000, 30_000, 40_000), (-1, -0.15, 0, 0.3, 0.5)),
    "income": ((20_000, 120_000, 250_000), (0.03, -0.02, -0.45)),
    "util": ((0, 0.1, 0.3, 0.6, 0.9, 1), (0.38, 0.22, 0.1, -0.11, -0.26, 0.2)),
    "dti": ((5, 10, 20, 30, 40, 50), (0.3, 0.02, -0.04, -0.06, 0.03, 0.2)),
    "delinq": ((0, 3), (0, 0.12)),
    "emp": ((-1, 0, 10), (0.22, 0, -0.17)),
}
# In the order of `_HOMES`; the last three are assumptions, since few loans have them.
_HOME_EFFECTS = np.array([0, -0.13, -0.29, 0.3, 0.2, 0.4])


# --- Scenarios ------------------------------------------------------------------------------------


@dataclass(frozen=True)
class _Scenario:
    """What a scenario changes, assumptions all; without any it is PeerLoan's ordinary quarter."""

    base: float = -3.68  # the log-odds that the effects are added to
    income: float = 1.0  # multiplies incomes and divides dti: the debts stay
    rate: float = 0.0  # added to interest rates
    channel: bool = False  # whether purposes have their shares in the new channel
    shifts: Mapping[str, float] = field(default_factory=dict)  # added to the scores they name
    rare_homes: Sequence[float] = (0.0001, 0, 0)  # shares of ANY, OTHER and NONE


_SCENARIOS = {
    "calm": _Scenario(),
    "recession": _Scenario(base=-2.45, income=0.83, shifts={"util": 0.35, "delinq": 0.15}),
    # An ordinary rate plus this is never an ordinary rate.
    "rate-shock": _Scenario(rate=0.0225),
    # Found by advertising: younger people who earn less, rent more, and borrow less.
    "new-channel": _Scenario(
        channel=True,
        shifts={"amount": -0.3, "rate": 0.2, "income": -0.2, "emp": -0.3, "home": -0.4},
        rare_homes=(0.0001, 0.02, 0.008),
    ),
}

SCENARIOS: tuple[str, ...] = tuple(_SCENARIOS)
"""Names of the scenarios: first the ordinary quarter (calm), then the changed ones."""


def draw(loans: int, seed: int = 0, scenario: str = "calm") -> pa.Table:
    """Draw a book of synthetic loans in memory; for a million and more use `batches`.

    The same arguments always give the same loans, and a smaller book is the beginning of a larger
    one. Books of different seeds or scenarios are independent.

    Raises ValueError if `loans` is below 1, `seed` below 0, or `scenario` none of `SCENARIOS`.
    """
    return pa.Table.from_batches(batches(loans, seed, scenario), SCHEMA)


def batches(loans: int, seed: int = 0, scenario: str = "calm") -> Iterator[pa.RecordBatch]:
    """Draw the loans of `draw` in batches of at most 65,536, for a book larger than memory.

    Raises the errors of `draw` at once, not at the first batch.
    """
    if scenario not in _SCENARIOS:
        raise ValueError(f"scenario must be one of {', '.join(SCENARIOS)}; given: {scenario!r}")
    if loans < 1:
        raise ValueError(f"loans must be a whole number from 1; given: {loans}")
    if seed < 0:
        raise ValueError(f"seed must be a whole number from 0; given: {seed}")
    return (
        _chunk(start, min(_CHUNK, loans - start), seed, scenario)
        for start in range(0, loans, _CHUNK)
    )


def _chunk(start: int, size: int, seed: int, scenario: str) -> pa.RecordBatch:
    """The first `size` loans of the chunk that begins after loan `start`."""
    change = _SCENARIOS[scenario]
    key = (SCENARIOS.index(scenario), start // _CHUNK)
    rng = np.random.default_rng(np.random.SeedSequence(seed, spawn_key=key))
    chance = iter(rng.random((7, _CHUNK)))  # one row for each independent choice below

    purpose = _pick(_PURPOSE_ROWS[:, int(change.channel)], next(chance))
    # Not `@`: the result must not depend on how a linear algebra library splits the work.
    noise = np.einsum("ij,kj->ik", rng.standard_normal((_CHUNK, len(_CORRELATIONS))), _FACTOR)
    scores = dict(zip(_CORRELATIONS, (_PURPOSE_ROWS[purpose, 3:] + noise).T, strict=True))
    for name, shift in change.shifts.items():
        scores[name] = scores[name] + shift

    amount = _quantile("amount", scores) * 1_000
    amount = np.clip(_heap(amount, _AMOUNT_GRAINS, next(chance)), *_AMOUNT_BOUNDS)
    income = _quantile("income", scores) * 1_000 * change.income
    income = np.maximum(_heap(income, _INCOME_GRAINS, next(chance)), _LEAST_INCOME)
    util = np.round(np.maximum(_quantile("util", scores), 0), 3)
    dti = np.round(np.clip(_quantile("dti", scores), *_DTI_BOUNDS) / change.income, 2)
    step = _ordered(_RATE_SHARES, scores["rate"])
    rate = np.round(_RATES[step] + change.rate, 4)
    emp, delinq, home = (_ordered(shares, scores[name]) for name, shares in _SHARES.items())
    no_emp = np.interp(scores["income"], _EMP_MISSING["score"], _EMP_MISSING["share"])
    no_emp = next(chance) < no_emp * _EMP_MISSING["home"][home]
    emp = np.where(no_emp, -1, emp)
    no_util = next(chance) < _UTIL_MISSING
    rare = _pick((1 - sum(change.rare_homes), *change.rare_homes), next(chance))
    home = np.where(rare > 0, rare + len(_SHARES["home"]) - 1, home)

    log_odds = change.base + _PURPOSE_ROWS[purpose, 2] + _HOME_EFFECTS[home]
    values = np.array([rate, amount, income, util, dti, delinq, emp])
    for value, (knots, effects) in zip(values, _EFFECTS.values(), strict=True):
        log_odds += np.interp(value, knots, effects)
    late = next(chance) < 1 / (1 + np.exp(-log_odds))

    number = pc.cast(pa.array(np.arange(start + 1, start + _CHUNK + 1)), pa.string())
    columns = [
        pc.binary_join_element_wise(f"{ID_PREFIX}{seed}-{scenario}", number, "-"),
        pa.array(amount.astype(np.int64)),
        pa.array(rate),
        pa.array(list(_PURPOSES)).take(pa.array(purpose)),
        pa.array(list(_GRADES)).take(pa.array(_RATE_GRADES[step])),
        pa.array(income),
        pa.array(util, mask=no_util),
        pa.array(_EMP_LENGTHS).take(pa.array(emp, mask=no_emp)),
        pa.array(dti),
        pa.array(delinq),
        pa.array(_HOMES).take(pa.array(home)),
        pa.array(late.astype(np.int64)),
    ]
    return pa.RecordBatch.from_arrays(columns, schema=SCHEMA).slice(0, size)


def _pick(shares: npt.ArrayLike, chance: _Floats) -> _Codes:
    """Pick a category (index) with these shares, by a uniform chance from 0 to 1."""
    up_to = np.cumsum(shares)
    return np.searchsorted(up_to / up_to[-1], chance, side="right")


def _ordered(shares: npt.ArrayLike, score: _Floats) -> _Codes:
    """Pick an ordered category (index) with these shares, by a standard normal score."""
    below = np.cumsum(shares)[:-1] / np.sum(shares)
    return np.searchsorted([NormalDist().inv_cdf(share) for share in below], score)


def _quantile(column: str, scores: Mapping[str, _Floats]) -> _Floats:
    """The column's value at its normal score, before clipping and rounding."""
    points, values = _QUANTILES["score"], _QUANTILES[column]
    if column != "income":
        return np.interp(scores[column], points, values)
    # Incomes are so skewed that their logarithm is interpolated.
    return np.asarray(np.exp(np.interp(scores[column], points, np.log(values))))


def _heap(values: _Floats, grains: Mapping[str, _Floats], chance: _Floats) -> _Floats:
    """Round values as people do: to the largest grain whose share the chance is below."""
    (_, sizes), *rows = grains.items()
    hits = [chance < np.interp(values, sizes, shares) for _, shares in rows]
    grain: _Floats = np.select(hits, [float(name) for name, _ in rows])
    return np.asarray(np.round(values / grain) * grain)


def _factor() -> _Floats:
    """Cholesky factor of the scores' covariance, minus the part that purposes explain."""
    total = np.eye(len(_CORRELATIONS))
    for i, row in enumerate(_CORRELATIONS.values()):
        total[i, : i + 1] = total[: i + 1, i] = row
    shares, means = _PURPOSE_ROWS[:, 0], _PURPOSE_ROWS[:, 3:]
    return np.asarray(np.linalg.cholesky(total - (means.T * shares) @ means))


_PURPOSE_ROWS = np.array(list(_PURPOSES.values()))
_FACTOR = _factor()

# Rates in ascending order, and so in the order of grades, with the share and grade of each.
_RATES = np.concatenate([rates for _, _, *rates in _GRADES.values()])
_RATE_GRADES = np.repeat(range(len(_GRADES)), [len(row) - 2 for row in _GRADES.values()])
_RATE_SHARES = np.concatenate(
    [
        [share * lowest, *[share * (1 - lowest) / len(others)] * len(others)]
        for share, lowest, _, *others in _GRADES.values()
    ]
)
