"""The properties hold for correct code, and typical mistakes are caught with the message that helps."""

from __future__ import annotations

from types import SimpleNamespace

import pytest

from exercises.solutions import CAUSAL_ATTENTION, OTHERS, SOLUTIONS
from exercises.wrong import WRONG, Wrong
from transformer.exercises.catalogue import EXERCISES
from transformer.exercises.properties import attention
from transformer.exercises.property import Broken, Property

ALL = [(one.name, holds) for one in EXERCISES for holds in one.properties]


@pytest.mark.parametrize(("exercise", "holds"), ALL, ids=[f"{name}-{holds.name}" for name, holds in ALL])
def test_a_property_holds_for_this_projects_code(exercise: str, holds: Property) -> None:
    holds(SOLUTIONS[exercise])


@pytest.mark.parametrize("attend", CAUSAL_ATTENTION)
@pytest.mark.parametrize("holds", attention.CAUSAL, ids=lambda holds: holds.name)
def test_causal_properties_hold_for_attention_that_is_given_no_mask(holds: Property, attend: object) -> None:
    holds(SimpleNamespace(attention=attend))


@pytest.mark.parametrize(("exercise", "holds"), [(name, holds) for name, holds in ALL if name in OTHERS])
def test_a_property_holds_for_the_faster_versions(exercise: str, holds: Property) -> None:
    for solution in OTHERS[exercise]:
        holds(solution)


def first_broken(case: Wrong) -> tuple[Property, str] | None:
    (exercise,) = (one for one in EXERCISES if one.name == case.exercise)
    solution = SimpleNamespace(**{**vars(SOLUTIONS[case.exercise]), **case.functions})
    for holds in exercise.properties:
        try:
            holds(solution)
        except Broken as broken:
            return holds, str(broken)
        except NotImplementedError:
            continue
        except Exception as error:
            return holds, f"{type(error).__name__}: {error}"
    return None


@pytest.mark.parametrize("case", WRONG, ids=[f"{case.exercise}: {case.mistake}" for case in WRONG])
def test_a_typical_mistake_is_caught_with_its_message(case: Wrong) -> None:
    found = first_broken(case)
    assert found is not None
    holds, message = found
    assert case.says in message
    assert holds.about in case.functions  # the hint is about the function with the mistake


def test_there_are_mistakes_for_every_exercise() -> None:
    assert {case.exercise for case in WRONG} == {one.name for one in EXERCISES}
    assert len(WRONG) >= 30
