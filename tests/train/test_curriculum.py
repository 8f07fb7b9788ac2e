"""Stages in order, promotion by what was measured, review of what came before, and going on from any place."""

import json
from collections import Counter
from dataclasses import replace
from itertools import pairwise
from typing import ClassVar

import pytest
from tests.train.test_grpo import Recorder

from tracetune.config.grpo_schema import CurriculumSettings, GrpoSettings
from tracetune.core.errors import InputError
from tracetune.core.values import Completion, Problem
from tracetune.tasks.reward_set import Rewarded
from tracetune.train.curriculum import Course, Curriculum, is_right, make_curriculum, pass_share
from tracetune.train.grpo import Place, Recipe, train_grpo
from tracetune.train.prompts import Prompt, PromptStream
from tracetune.train.rollout import Rollout

BY_GRADE = CurriculumSettings(by="grade", promote_at=0.75, window=4, review=0.25)


def prompt(number: int, **meta) -> Prompt:
    return Prompt(Problem(f"p{number}", f"question {number}", str(number), meta=meta), f"q {number}", (number + 1, 7))


PROMPTS = [prompt(n, grade=("K", 2, 10)[n % 3]) for n in range(18)]


def numeric(share_of: dict[str, float]):
    """A verifier that finds so many of a stage's completions right, by the grade of the question."""

    def score(prompts, completions, answers, columns):
        del prompts, answers
        scores = []
        for place, (_, name) in enumerate(zip(completions, columns["grade"], strict=True)):
            right = float(place % 4 < 4 * share_of.get(str(name), 0.0))
            scores.append(Rewarded(right, {"numeric": right}, {}, 0, None))
        return scores

    return score


def recipe(backend=None, *, settings=BY_GRADE, shares=None, num_steps=12, **grpo) -> Recipe:
    return Recipe(
        backend=backend or Recorder(num_iterations=grpo.get("num_iterations", 1)),
        stream=PromptStream(PROMPTS, seed=3),
        score=numeric({"K": 1.0, "2": 0.5} if shares is None else shares),
        settings=GrpoSettings(num_generations=4, **grpo),
        num_prompts=2,
        num_steps=num_steps,
        seed=3,
        curriculum=make_curriculum(PROMPTS, settings, seed=3),
    )


def grades(infos) -> list[list[str]]:
    return [[str(rollout.problem.meta["grade"]) for rollout in info.rollouts[::4]] for info in infos]


def test_grades_come_in_the_order_of_school_and_topics_in_that_given():
    assert [stage.name for stage in make_curriculum(PROMPTS, BY_GRADE, seed=1).stages] == [
        "grade K",
        "grade 2",
        "grade 10",
    ]
    tags = (["sums"], ["shares", "sums"], [], ["shares"])
    tagged = [prompt(number, topic_tags=topics) for number, topics in enumerate(tags)]
    by_topic = CurriculumSettings(by="topic", order=("sums", "shares", "roots"))
    stages = make_curriculum(tagged, by_topic, seed=1).stages
    assert [(stage.name, [one.problem.id for one in stage.prompts]) for stage in stages] == [
        ("topic sums", ["p0"]),
        ("topic shares", ["p1", "p3", "p2"]),
    ]


def test_difficulties_have_an_order_as_words_or_numbers_and_no_other():
    def order(*names) -> list[str]:
        prompts = [prompt(number, difficulty=name) for number, name in enumerate(names)]
        stages = make_curriculum(prompts, CurriculumSettings(by="difficulty"), seed=1).stages
        return [stage.name.removeprefix("difficulty ") for stage in stages]

    assert order("hard", "easy", "medium") == ["easy", "medium", "hard"]
    assert order(10, 2, 1.5) == ["1.5", "2", "10"]
    with pytest.raises(InputError, match="easy, tricky have no natural order"):
        order("tricky", "easy")


@pytest.mark.parametrize(
    ("settings", "told"),
    [
        (replace(BY_GRADE, order=("K", "2")), r"curriculum\.order: lacks 10 \(6 problems\)"),
        (CurriculumSettings(by="difficulty", order=("easy",)), "at least two stages, got none"),
    ],
)
def test_what_cannot_be_put_in_order_is_refused(settings, told):
    with pytest.raises(InputError, match=told):
        make_curriculum(PROMPTS, settings, seed=1)


def test_a_stage_gives_way_when_enough_of_its_last_prompts_were_right():
    infos = list(train_grpo(recipe()))
    assert [int(info.rewards["curriculum_stage"]) for info in infos] == [1, 1] + [2] * 10
    assert infos[1].rewards["curriculum_pass_rate"] == 1.0
    assert infos[2].rewards["curriculum_pass_rate"] == 0.5
    assert [info.told for info in infos if info.told] == [
        "curriculum: grade K is left after 2 steps, passed: 100% right over the last 4 prompts; grade 2 begins, "
        "stage 2 of 3 with 6 problems"
    ]
    assert all(set(names) == {"K"} for names in grades(infos)[:2])
    assert list(train_grpo(recipe(shares={"K": 0.5})))[-1].rewards["curriculum_stage"] == 1


def test_a_stage_is_left_when_its_steps_are_up():
    infos = list(train_grpo(recipe(settings=replace(BY_GRADE, max_steps_per_stage=3), shares={})))
    assert [int(info.rewards["curriculum_stage"]) for info in infos] == [1] * 3 + [2] * 3 + [3] * 6
    assert "its steps are up: 0% right over the last 4 prompts" in (infos[2].told or "")


def test_earlier_stages_keep_their_share_of_prompts_and_do_not_count_for_the_stage():
    infos = list(train_grpo(recipe()))
    later = Counter(name for names in grades(infos)[2:] for name in names)
    assert later == {"2": 15, "K": 5}
    assert infos[-1].rewards["curriculum_pass_rate"] == 0.5
    none = list(train_grpo(recipe(settings=replace(BY_GRADE, review=0.0))))
    assert Counter(name for names in grades(none)[2:] for name in names) == {"2": 20}


def test_every_problem_of_a_stage_comes_before_one_comes_again():
    curriculum, course = make_curriculum(PROMPTS, BY_GRADE, seed=3), Course(stage=1)
    draw = curriculum.draw(course, 16)
    fresh = [one.problem.id for one, is_fresh in zip(draw.prompts, draw.is_fresh, strict=True) if is_fresh]
    assert len(fresh) == 12
    assert set(fresh[:6]) == set(fresh[6:]) == {one.problem.id for one in PROMPTS if one.problem.meta["grade"] == 2}
    assert curriculum.draw(curriculum.draw(course, 5).course or course, 11).course == draw.course


@pytest.mark.parametrize("grpo", [{}, {"num_iterations": 2}, {"dynamic_sampling": True, "max_resamples": 2}])
def test_going_on_from_what_was_saved_is_the_same_as_never_having_stopped(grpo):
    whole = list(train_grpo(recipe(**grpo)))
    for stopped in [info for info in whole[:-1] if info.is_whole]:
        place = Place.restored(json.loads(json.dumps(list(stopped.place))))
        assert place == stopped.place
        rest = list(train_grpo(recipe(**grpo), place))
        assert [info.rollouts for info in rest] == [info.rollouts for info in whole[stopped.place.step :]]
        assert [info.rewards for info in rest] == [info.rewards for info in whole[stopped.place.step :]]
        assert [info.told for info in rest] == [info.told for info in whole[stopped.place.step :]]
    assert [info.told for info in whole].count(None) == len(whole) - 1


def test_a_course_that_is_lost_is_another_run():
    # The negative control of the test above.
    whole = list(train_grpo(recipe()))
    lost = whole[4].place._replace(course=None)
    rest = list(train_grpo(recipe(), lost))
    assert [info.rollouts for info in rest] != [info.rollouts for info in whole[5:]]


def test_no_completion_of_a_run_is_drawn_with_the_key_of_another():
    class Keys(Recorder):
        seen: ClassVar[list[bytes]] = []

        def sample(self, prompts, keys_PG2):
            self.seen.extend(key.tobytes() for keys in keys_PG2 for key in keys)
            return super().sample(prompts, keys_PG2)

    list(train_grpo(recipe(Keys())))
    assert len(Keys.seen) == len(set(Keys.seen)) == 12 * 2 * 4


def rollout(parts, text="Answer: 5", stop="stop") -> Rollout:
    completion = Completion((1,), (-1.0,), text, stop, None, (-1.0,), (-1.0,))
    return Rollout(
        problem=Problem("p", "2 + 3?", "5"),
        prompt="p",
        prompt_tokens=(1,),
        index=0,
        completion=completion,
        parts=parts,
        total=1.0,
        advantage=0.0,
    )


def test_right_is_what_the_runs_verifiers_say_else_the_evaluations_grader():
    assert is_right(rollout({"numeric": 1.0, "format": 0.0})) is True
    assert is_right(rollout({"numeric": 0.0, "format": 1.0})) is False
    assert is_right(rollout({"numeric": 0.0, "math_verify": 1.0})) is True
    assert is_right(rollout({"numeric": None})) is None
    assert is_right(rollout({"my:reward": 0.0})) is True
    assert is_right(rollout({"my:reward": 9.0}, text="Answer: 6")) is False
    assert is_right(rollout({"numeric": 1.0}, stop="error")) is None


def test_what_could_not_be_judged_is_no_failure():
    right, wrong, unknown = (rollout({"numeric": score}) for score in (1.0, 0.0, None))
    assert pass_share([right, wrong, unknown]) == 0.5
    assert pass_share([unknown]) is None
    curriculum = make_curriculum(PROMPTS, BY_GRADE, seed=1)
    assert curriculum.measured(Course(passes=(1.0,)), [[unknown], [right, wrong]]).passes == (1.0, 0.5)


def test_stages_follow_each_other_one_by_one():
    curriculum = make_curriculum(PROMPTS, replace(BY_GRADE, max_steps_per_stage=1), seed=1)
    courses = [Course()]
    for _ in range(4):
        courses.append(curriculum.turned(courses[-1], num_steps=1).course or Course())
    assert [course.stage for course in courses] == [0, 1, 2, 2, 2]
    assert all(after.stage - before.stage in (0, 1) for before, after in pairwise(courses))
    assert isinstance(curriculum, Curriculum)
