"""Settings: types and ranges from the dataclass, whether a value comes as text, from TOML or from Python."""

import dataclasses
import json
import math
import tomllib
import typing
from dataclasses import dataclass

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from stages import algorithms
from stages.errors import UserError
from stages.settings import Generate, Prepare, Report, Settings, Train, key, setting

steady = settings(deadline=None, derandomize=True)
STAGES = (Prepare, Generate, Train, Report)


@dataclass(frozen=True)
class Toy(Settings):
    rounds: int = setting(10, "Whole, from 1 to 100.", low=1, high=100)
    rate: float = setting(0.5, "Above 0, up to 1.", above=0, high=1)
    lambda_: float = setting(1.0, "A keyword of Python.", low=0)
    pairs: str = setting("bank", "One of two.", choices=("bank", "live"))
    shuffle: bool = setting(True, "A flag.")
    seeds: tuple[int, ...] = setting((0,), "Several.", low=0, high=10**9)
    models: tuple[str, ...] = setting((), "Several words.")
    source: str | None = setting(None, "Perhaps.")
    size: int | None = setting(32, "A number, or as it is.", low=8, none="native")


values = {
    "rounds": st.integers(1, 100),
    "rate": st.floats(0, 1, exclude_min=True),
    "lambda": st.floats(0, 1e6),
    "pairs": st.sampled_from(["bank", "live"]),
    "shuffle": st.booleans(),
    "seeds": st.lists(st.integers(0, 10**9), min_size=1, max_size=4),
    "models": st.lists(st.from_regex(r"[a-z]{1,5}", fullmatch=True), max_size=3),
    "source": st.from_regex(r"[a-z/]{1,8}", fullmatch=True),
}
chosen = st.fixed_dictionaries({}, optional=values)


def text(value):
    """As a user types it."""
    if isinstance(value, bool):
        return "on" if value else "off"
    return ",".join(map(str, value)) if isinstance(value, list) else str(value)


def toml(value):
    return json.dumps(value, ensure_ascii=False)


@steady
@given(chosen)
def test_values_typed_as_text_written_in_toml_or_given_in_python_are_the_same(given_values):
    made = Toy.make(given_values)
    assert {name: made.as_dict()[name] for name in given_values} == given_values
    assert Toy.make({name: text(value) for name, value in given_values.items()}) == made
    file = "\n".join(f"{name} = {toml(value)}" for name, value in given_values.items())
    assert Toy.make(tomllib.loads(file)) == made
    assert Toy.make(json.loads(json.dumps(made.as_dict()))) == made


@steady
@given(st.integers(-1000, 1000))
def test_a_whole_number_outside_its_range_is_refused_with_the_bound(value):
    try:
        assert Toy.make({"rounds": str(value)}).rounds == value
        assert 1 <= value <= 100
    except UserError as error:
        bound = "at least 1" if value < 1 else "at most 100"
        assert not 1 <= value <= 100 and str(error) == f"rounds must be {bound}, not {value:,}."


@steady
@given(st.floats())
def test_a_number_outside_its_range_is_refused(value):
    try:
        assert Toy.make({"rate": value}).rate == value and 0 < value <= 1
    except UserError as error:
        assert not 0 < value <= 1 and str(error).startswith("rate must be ")


def test_bounds_are_inclusive_or_exclusive_as_they_say():
    assert Toy.make({"rounds": 1}, {"rounds": 100}, {"rate": 1, "lambda": 0}) == Toy(100, 1.0, 0.0)
    with pytest.raises(UserError, match=r"rate must be above 0, not 0\."):
        Toy(rate=0.0)
    for value in (math.nan, math.inf, -math.inf):
        with pytest.raises(UserError, match="lambda must be a finite number"):
            Toy(lambda_=value)


@pytest.mark.parametrize("kind", [*STAGES, *(algorithms.get(name).Hyper for name in algorithms.NAMES)])
def test_every_number_has_an_upper_bound_that_its_default_is_far_from(kind):
    hints = typing.get_type_hints(kind)
    for field in dataclasses.fields(kind):
        if {int, float} & {hints[field.name], *typing.get_args(hints[field.name])} and hints[field.name] is not bool:
            for value in ("1" + "0" * 30, 10**400, 2**1000):
                with pytest.raises(UserError, match=f"{kind.called(key(field))} must be (at most|a number)") as error:
                    kind.make({key(field): value})
                assert len(str(error.value)) < 120


def test_text_that_no_file_can_hold_is_refused():
    for value in ("a\0b", "a\udcff"):
        with pytest.raises(UserError, match="source must be text in UTF-8"):
            Toy.make({"source": value})


def test_an_empty_text_is_not_an_absent_one():
    assert Generate.make({"negative_prompt": ""}).negative_prompt == "" and Generate().negative_prompt is None
    assert Generate.make({"negative_prompt": None}).as_dict()["negative_prompt"] is None


def test_every_member_of_a_tuple_is_checked():
    assert Toy.make({"seeds": 3}).seeds == (3,) and Toy.make({"seeds": "3,5"}).seeds == (3, 5)
    with pytest.raises(UserError, match="seeds must be at least 0, not -5"):
        Toy.make({"seeds": "3,-5"})


def test_all_mistakes_are_reported_at_once():
    with pytest.raises(UserError) as error:
        Toy.make({"rounds": 0, "rate": 2.0, "lambda": -1, "pairs": "banks", "seeds": [1, -1]})
    sentence = str(error.value)
    for part in ("rounds must be at least 1", "rate must be at most 1", "lambda must be at least 0",
                 "did you mean bank", "seeds must be at least 0"):  # fmt: skip
        assert part in sentence


@pytest.mark.parametrize(
    ("name", "value", "sentence"),
    [
        ("rounds", "ten", "rounds must be a whole number, not 'ten'"),
        ("rounds", "1.5", "rounds must be a whole number, not '1.5'"),
        ("rounds", 1.5, "rounds must be a whole number, not '1.5'"),
        ("rounds", True, "rounds must be a whole number, not 'True'"),
        ("rounds", None, "rounds must be a whole number, not 'None'"),
        ("rounds", math.nan, "rounds must be a whole number"),
        ("rounds", math.inf, "rounds must be a whole number"),
        ("rounds", [1], "rounds must be a whole number"),
        ("rate", "fast", "rate must be a number, not 'fast'"),
        ("rate", False, "rate must be a number, not 'False'"),
        ("shuffle", "maybe", "shuffle must be on or off, not 'maybe'"),
        ("shuffle", 1, "shuffle must be on or off, not '1'"),
        ("seeds", "0,x", "seeds must be a whole number, not 'x'"),
        ("pairs", "lively", "did you mean live"),
        ("pairs", "", "known: bank, live"),
        ("source", "", "source must not be empty"),
        ("rounds", 10**400, r"rounds must be at most 100, not 1.000e\+400\.$"),
        ("rounds", "1" + "0" * 5000, r"rounds must be a whole number, not '10{56}\.\.\."),
    ],
)  # fmt: skip
def test_a_value_of_the_wrong_type_is_refused_in_a_sentence(name, value, sentence):
    with pytest.raises(UserError, match=sentence):
        Toy.make({name: value})


@pytest.mark.parametrize(
    ("word", "meant"), [("on", True), ("True", True), ("YES", True), ("off", False), ("no", False)]
)
def test_words_for_a_flag(word, meant):
    assert Toy.make({"shuffle": word}).shuffle is meant


@pytest.mark.parametrize(
    ("stage", "name", "near"),
    [
        (Train, "round", "rounds"),
        (Train, "batchsize", "batch_size"),
        (Prepare, "bta", "beta"),
        (Toy, "lamda", "lambda"),
    ],
)
def test_a_name_that_is_no_setting_offers_the_near_ones(stage, name, near):
    with pytest.raises(UserError, match=f"no setting named '{name}'; did you mean .*{near}"):
        stage.make({name: 1})


def test_lambda_is_written_without_its_underscore():
    assert Toy.make({"lambda": "2"}).lambda_ == Toy.make({"lambda_": 2}).lambda_ == 2.0
    assert Toy().as_dict()["lambda"] == 1.0 and "lambda_" not in Toy().as_dict()


def test_later_layers_win_and_dashes_are_underscores():
    preset, typed = {"batch-size": 32, "lr": 0.1}, {"batch_size": "64"}
    made = Train.make(preset, typed)
    assert (made.batch_size, made.lr, made.rounds) == (64, 0.1, Train().rounds)


def test_an_option_may_be_taken_back():
    assert Toy.make({"source": "here"}, {"source": None}).source is None
    assert Toy.make({"size": "native"}).size is None and Toy.make({"size": "native"}, {"size": "16"}).size == 16


@pytest.mark.parametrize("stage", STAGES)
def test_what_a_stage_resolved_makes_the_same_settings_again(stage):
    assert stage.make(json.loads(json.dumps(stage().as_dict()))) == stage()


@pytest.mark.parametrize("stage", STAGES)
def test_every_setting_of_a_stage_says_what_it_means(stage):
    for field in dataclasses.fields(stage):
        assert field.metadata["help"].endswith("."), field.name
