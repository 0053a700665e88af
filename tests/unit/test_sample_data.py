"""A sample is reproducible, resembles PeerLoan's table, and drifts as its scenario describes."""

import hashlib
import subprocess
import sys
from functools import cache
from itertools import pairwise
from typing import Any

import numpy as np
import numpy.typing as npt
import pyarrow as pa
import pytest
import xgboost
from sklearn.metrics import roc_auc_score

from peerloan import sample_data

LOANS = 100_000
SEED = 7


@cache
def book(scenario: str = "calm") -> pa.Table:
    return sample_data.draw(LOANS, SEED, scenario)


def column(name: str, scenario: str = "calm") -> npt.NDArray[Any]:
    return np.asarray(book(scenario)[name].to_numpy())


def levels(name: str, scenario: str = "calm") -> set[Any]:
    return set(book(scenario)[name].unique().to_pylist())


def shares(name: str) -> dict[Any, float]:
    return {row["values"]: row["counts"] / LOANS for row in book()[name].value_counts().to_pylist()}


def late_rate(scenario: str = "calm") -> float:
    return float(column("is_late", scenario).mean())


def late_by(name: str) -> dict[str, float]:
    groups = book().group_by(name).aggregate([("is_late", "mean")]).to_pylist()
    return {group[name]: group["is_late_mean"] for group in groups}


def digest(table: pa.Table) -> str:
    return hashlib.sha256(repr(table.to_pylist()).encode()).hexdigest()


# --- The same loans again -------------------------------------------------------------------------


@pytest.mark.parametrize("scenario", sample_data.SCENARIOS)
def test_same_arguments_give_the_same_loans(scenario: str) -> None:
    assert sample_data.draw(LOANS, SEED, scenario).equals(book(scenario))


def test_another_process_draws_the_same_loans() -> None:
    program = (
        "import hashlib; from peerloan import sample_data; "
        "print(hashlib.sha256(repr(sample_data.draw(500, 7).to_pylist()).encode()).hexdigest())"
    )
    other = subprocess.run(
        [sys.executable, "-c", program],
        env={"PYTHONPATH": ":".join(sys.path), "PYTHONHASHSEED": "1"},
        capture_output=True,
        check=True,
        text=True,
    )
    assert other.stdout.strip() == digest(sample_data.draw(500, SEED))


@pytest.mark.parametrize("loans", [1, 1_000, 65_536, 65_537])
def test_fewer_loans_are_the_first_of_more(loans: int) -> None:
    assert sample_data.draw(loans, SEED).equals(book().slice(0, loans))


def test_batches_are_the_table_in_pieces() -> None:
    pieces = list(sample_data.batches(LOANS, SEED))
    assert len(pieces) == 2
    assert all(piece.schema == sample_data.SCHEMA for piece in pieces)
    assert pa.Table.from_batches(pieces).equals(book())


def test_seeds_and_scenarios_draw_other_loans() -> None:
    def amounts(seed: int, scenario: str) -> tuple[Any, ...]:
        return tuple(sample_data.draw(100, seed, scenario)["annual_inc"].to_pylist())

    drawn = {amounts(seed, scenario) for seed in range(3) for scenario in sample_data.SCENARIOS}
    assert len(drawn) == 3 * len(sample_data.SCENARIOS)


# --- What a sample looks like ---------------------------------------------------------------------


def test_columns_are_the_loan_id_and_peerloans_in_their_order_and_types() -> None:
    assert book().schema == sample_data.SCHEMA
    assert [(field.name, str(field.type)) for field in book().schema] == [
        ("loan_id", "string"),
        ("loan_amnt", "int64"),
        ("int_rate", "double"),
        ("purpose", "string"),
        ("grade", "string"),
        ("annual_inc", "double"),
        ("revol_util", "double"),
        ("emp_length", "string"),
        ("dti", "double"),
        ("delinq_2yrs", "int64"),
        ("home_ownership", "string"),
        ("is_late", "int64"),
    ]


def test_loan_ids_name_seed_scenario_and_number() -> None:
    ids = book("recession")["loan_id"].to_pylist()
    assert ids[0] == "sample-7-recession-1"
    assert ids[-1] == f"sample-7-recession-{LOANS}"
    assert len(set(ids)) == LOANS
    assert all(loan_id.startswith(sample_data.ID_PREFIX) for loan_id in ids)


@pytest.mark.parametrize("scenario", sample_data.SCENARIOS)
def test_only_utilisation_and_employment_are_missing_as_often_as_they_should(scenario: str) -> None:
    missing = {name: book(scenario)[name].null_count / LOANS for name in sample_data.SCHEMA.names}
    assert missing.pop("revol_util") == pytest.approx(0.001, abs=0.0005)
    assert missing.pop("emp_length") == pytest.approx(0.07, abs=0.02)
    assert set(missing.values()) == {0}


@pytest.mark.parametrize("scenario", sample_data.SCENARIOS)
def test_every_value_is_one_that_a_loan_can_have(scenario: str) -> None:
    amount, income = column("loan_amnt", scenario), column("annual_inc", scenario)
    util, dti = column("revol_util", scenario), column("dti", scenario)
    assert amount.min() == 1_000
    assert amount.max() == 40_000
    assert not (amount % 25).any()
    assert income.min() > 0
    assert np.nanmin(util) == 0
    assert 1 < np.nanmax(util) <= 1.3
    assert np.array_equal(util, np.round(util, 3), equal_nan=True)
    assert dti.min() == 0
    assert dti.max() <= (50 if scenario == "recession" else 39.99)
    assert np.array_equal(dti, np.round(dti, 2))
    assert column("delinq_2yrs", scenario).min() == 0
    assert levels("is_late", scenario) == {0, 1}


def test_numbers_have_the_quartiles_of_peerloans_table() -> None:
    quartiles = {
        "loan_amnt": (8_000, 12_000, 20_000),
        "annual_inc": (48_000, 68_000, 98_000),
        "revol_util": (0.236, 0.413, 0.616),
        "dti": (10.75, 16.7, 23.41),
    }
    for name, expected in quartiles.items():
        assert np.nanquantile(column(name), [0.25, 0.5, 0.75]) == pytest.approx(expected, rel=0.1)


def test_categories_have_the_shares_of_peerloans_table() -> None:
    grade, purpose, home = shares("grade"), shares("purpose"), shares("home_ownership")
    assert [grade[g] for g in "ABCD"] == pytest.approx([0.264, 0.296, 0.269, 0.136], abs=0.01)
    assert purpose["debt_consolidation"] == pytest.approx(0.48, abs=0.01)
    assert len(purpose) == 12
    assert [home[h] for h in ("MORTGAGE", "RENT", "OWN")] == pytest.approx(
        [0.4465, 0.4211, 0.1324], abs=0.01
    )
    assert shares("emp_length")["10+ years"] == pytest.approx(0.337, abs=0.01)
    assert shares("delinq_2yrs")[0] == pytest.approx(0.85, abs=0.01)


def test_amounts_and_incomes_are_heaped_at_round_numbers() -> None:
    assert np.mean(column("loan_amnt") == 10_000) == pytest.approx(0.12, abs=0.03)
    assert np.mean(column("loan_amnt") % 1_000 == 0) == pytest.approx(0.80, abs=0.03)
    assert np.mean(column("annual_inc") % 1_000 == 0) == pytest.approx(0.85, abs=0.03)


def test_each_grade_has_rates_of_its_own_that_rise_with_it() -> None:
    grade, rate = column("grade"), column("int_rate")
    ranges = [(rate[grade == g].min(), rate[grade == g].max()) for g in "ABCDEFG"]
    assert all(highest < lowest for (_, highest), (lowest, _) in pairwise(ranges))


def test_columns_depend_on_one_another() -> None:
    income, owner = column("annual_inc"), column("home_ownership") == "MORTGAGE"
    pairs = {
        "loan_amnt": np.corrcoef(column("loan_amnt"), np.log(income))[0, 1],
        "home": np.corrcoef(owner, np.log(income))[0, 1],
        "dti": np.corrcoef(column("dti"), np.log(income))[0, 1],
        "rate": np.corrcoef(column("int_rate"), np.nan_to_num(column("revol_util"), nan=0.4))[0, 1],
    }
    expected = {"loan_amnt": 0.45, "home": 0.28, "dti": -0.14, "rate": 0.31}
    assert pairs == pytest.approx(expected, abs=0.07)


# --- Who is late ----------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("scenario", "low", "high"),
    [
        ("calm", 0.020, 0.024),
        ("recession", 0.061, 0.071),
        ("rate-shock", 0.026, 0.033),
        ("new-channel", 0.025, 0.033),
    ],
)
def test_late_rate(scenario: str, low: float, high: float) -> None:
    assert low < late_rate(scenario) < high


def test_late_rate_rises_with_the_grade() -> None:
    late = late_by("grade")
    assert [late[g] for g in "ABCDE"] == pytest.approx([0.005, 0.015, 0.028, 0.046, 0.068], rel=0.3)


def test_small_businesses_are_late_most_and_credit_cards_least_of_the_common_purposes() -> None:
    late = late_by("purpose")
    common = [p for p, share in shares("purpose").items() if share > 0.009]
    assert max(common, key=late.__getitem__) == "small_business"
    assert late["credit_card"] < late["debt_consolidation"] < late["small_business"]


def test_late_loans_are_as_hard_to_predict_as_peerloans() -> None:
    table = sample_data.draw(60_000, seed=1)
    label = table["is_late"].to_numpy()
    names = [name for name in table.column_names if name not in ("loan_id", "is_late")]
    encoded = [
        np.unique(table[name].to_numpy().astype(str), return_inverse=True)[1]
        if pa.types.is_string(table[name].type)
        else table[name].to_numpy()
        for name in names
    ]
    features = np.column_stack(encoded).astype(float)
    settings = {"max_depth": 1, "eta": 0.05, "objective": "binary:logistic", "nthread": 1}
    train = xgboost.DMatrix(features[:40_000], label[:40_000])
    model = xgboost.train(settings, train, num_boost_round=400)
    auc = roc_auc_score(label[40_000:], model.predict(xgboost.DMatrix(features[40_000:])))
    assert 0.68 < auc < 0.77


# --- What the scenarios change --------------------------------------------------------------------


def median(name: str, scenario: str) -> float:
    return float(np.nanmedian(column(name, scenario)))


def test_in_a_recession_incomes_fall_and_the_burden_of_debt_rises() -> None:
    assert 0.78 < median("annual_inc", "recession") / median("annual_inc", "calm") < 0.87
    assert 1.1 < median("dti", "recession") / median("dti", "calm") < 1.3
    assert 1.1 < median("revol_util", "recession") / median("revol_util", "calm") < 1.4


def test_after_a_rate_shock_no_rate_was_seen_before() -> None:
    assert not levels("int_rate", "rate-shock") & levels("int_rate")
    assert median("int_rate", "rate-shock") > median("int_rate", "calm")


@pytest.mark.parametrize("scenario", ["recession", "new-channel"])
def test_without_a_rate_shock_every_rate_was_seen_before(scenario: str) -> None:
    assert levels("int_rate", scenario) <= levels("int_rate")


def test_a_new_channel_brings_unseen_purposes_and_homes_and_another_mix() -> None:
    assert levels("purpose", "new-channel") - levels("purpose") == {"wedding", "educational"}
    assert levels("home_ownership", "new-channel") - levels("home_ownership") == {"OTHER", "NONE"}
    assert np.mean(column("purpose", "new-channel") == "debt_consolidation") < 0.3


@pytest.mark.parametrize("scenario", ["recession", "rate-shock"])
def test_without_a_new_channel_every_category_was_seen_before(scenario: str) -> None:
    for name in ("purpose", "grade", "emp_length", "home_ownership"):
        assert levels(name, scenario) <= levels(name)


# --- Wrong use ------------------------------------------------------------------------------------


def test_an_unknown_scenario_is_refused_with_the_valid_ones() -> None:
    with pytest.raises(
        ValueError, match=r"calm, recession, rate-shock, new-channel; given: 'boom'"
    ):
        sample_data.draw(10, scenario="boom")


@pytest.mark.parametrize("loans", [0, -5])
def test_no_loans_are_refused(loans: int) -> None:
    with pytest.raises(ValueError, match=rf"loans must be a whole number from 1; given: {loans}"):
        sample_data.draw(loans)


def test_a_negative_seed_is_refused_before_the_first_batch() -> None:
    with pytest.raises(ValueError, match="seed must be a whole number from 0; given: -1"):
        sample_data.batches(10, seed=-1)
