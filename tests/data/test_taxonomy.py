"""The shipped curriculum is whole, and a file of one's own is told every mistake at once."""

import pytest

from tracetune.core.errors import InputError, NotFound
from tracetune.data.taxonomy import MAX_GRADE, load_taxonomy, parse_taxonomy

GOOD = """
[strands]
sea = "The sea"
[topics.whales]
name = "Whales"
strand = "sea"
grades = [0, 2]
sure = ["whale"]
"""


def test_the_shipped_curriculum_covers_every_grade_and_uses_every_strand():
    taxonomy = load_taxonomy()
    assert 60 <= len(taxonomy.topics) <= 100
    assert {topic.strand for topic in taxonomy.topics.values()} == set(taxonomy.strands)
    for grade in range(MAX_GRADE + 1):
        assert sum(topic.taught_in(grade) for topic in taxonomy.topics.values()) >= 5
    assert all(topic.id not in topic.yields_to for topic in taxonomy.topics.values())


def test_a_file_of_ones_own_is_read(tmp_path):
    path = tmp_path / "mine.toml"
    path.write_text(GOOD)
    assert load_taxonomy(path).topics["whales"].sure == ("whale",)
    with pytest.raises(NotFound, match="no such taxonomy"):
        load_taxonomy(tmp_path / "none.toml")


@pytest.mark.parametrize(
    ("before", "after", "mistake"),
    [
        ('strand = "sea"', 'strand = "see"', "topics.whales.strand: there is no 'see'; did you mean sea?"),
        ("grades = [0, 2]", "grades = [2, 0]", r"grades must be \[first, last\]"),
        ("grades = [0, 2]", "grades = [0, 13]", "to 12, got"),
        ("grades = [0, 2]", "grades = [false, true]", "grades must be"),
        ("sure = [", "shure = [", "unknown key shure; did you mean sure?"),
        ("sure = [", "unless = [", "nothing tells it"),
        ('"whale"', '"{whale}"', "no class {whale}"),
        ('["whale"]', '"whale"', "must be a list of texts"),
        ('name = "Whales"\n', "", "topics.whales.name must be text, got None"),
        ("[strands]", "yields = 1\n[strands]", "unknown key yields"),
        ("grades", 'yields_to = ["sharks"]\ngrades', "yields_to: there is no 'sharks'"),
        ("[strands]\n", "[strands\n", "is not TOML"),
    ],
)
def test_each_mistake_is_told_with_its_place(before, after, mistake):
    parse_taxonomy(GOOD, "mine.toml")
    with pytest.raises(InputError, match=mistake):
        parse_taxonomy(GOOD.replace(before, after), "mine.toml")


def test_all_mistakes_are_told_at_once():
    text = GOOD.replace('"sea"', '"see"').replace("[0, 2]", "7").replace('"whale"', '"..."')
    with pytest.raises(InputError) as error:
        parse_taxonomy(text, "mine.toml")
    assert str(error.value).count("mine.toml: topics.whales") == 3


def test_topics_that_yield_in_a_circle_are_refused():
    other = GOOD.split("[topics.whales]")[1].replace("Whales", "Sharks")
    one_way = GOOD + 'yields_to = ["sharks"]\n[topics.sharks]' + other
    assert set(parse_taxonomy(one_way, "mine.toml").topics) == {"whales", "sharks"}
    with pytest.raises(InputError, match="yields_to goes in a circle"):
        parse_taxonomy(one_way + 'yields_to = ["whales"]', "mine.toml")


def test_a_file_without_topics_is_refused():
    with pytest.raises(InputError, match="topics must be a section with at least one entry"):
        parse_taxonomy('[strands]\nsea = "The sea"', "mine.toml")
