"""Agents by what one wants of them, in whatever words and language."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from frontdesk.policies.search import Search, words
from frontdesk.turn import Agent, Skill


def agent(id: str, name: str, description: str = "", *tags: str, skills: tuple[Skill, ...] = ()) -> Agent:
    return Agent(id, name, "python", description=description, tags=tags, skills=skills)


HOUSE = [
    agent("1", "weather", "Tells what the days will be like.", skills=(Skill("get_forecast", "For any city"),)),
    agent("2", "Translator", "Translates texts between languages."),
    agent("3", "abacus", "Adds and multiplies numbers.", "math"),
    agent("4", "BerlinGuide", "Ein Reiseführer für Berlin und seine Sehenswürdigkeiten."),
    agent("5", "東京案内", "東京の観光案内をします。天気も。"),
    agent("6", "postman", "Sends mails, and sorts them. Can translate mails too."),
    agent("7", "butler"),
]


@pytest.mark.parametrize(
    ("query", "found"),
    [
        ("weather", ["weather"]),
        ("a forecast for Oslo", ["weather"]),
        ("forecasting", ["weather"]),
        ("get_forecast", ["weather"]),
        ("translator", ["Translator", "postman"]),
        ("an agent that can translate a mail", ["postman", "Translator"]),
        ("do some math for me", ["abacus"]),
        ("BERLIN", ["BerlinGuide"]),
        ("guide", ["BerlinGuide"]),
        ("reisefuhrer", ["BerlinGuide"]),
        ("観光", ["東京案内"]),
        ("天気", ["東京案内"]),
        ("butler", ["butler"]),
        ("zebra", []),
        ("can", ["postman"]),
        ("", []),
        ("?!", []),
        ("\x00\ud800", []),
    ],
)
def test_an_agent_is_found_by_what_it_is_wanted_for(query: str, found: list[str]) -> None:
    assert [each.name for each in Search().ranked(query, HOUSE)] == found


def test_a_name_counts_more_than_a_description() -> None:
    told = agent("1", "anna", "Knows about chess.")
    called = agent("2", "chess")
    assert Search().ranked("chess", [told, called, *HOUSE]) == [called, told]


def test_who_repeats_a_word_without_end_gains_little() -> None:
    loud = agent("1", "loud", "chess " * 500)
    apt = agent("2", "apt", "Plays chess and go.", "chess")
    assert Search().ranked("chess go", [loud, apt, *HOUSE])[0] == apt


def test_an_agent_that_has_changed_is_found_by_what_it_is_now() -> None:
    search = Search()
    assert search.ranked("chess", [agent("1", "anna", "Plays chess.")])
    assert not search.ranked("chess", [agent("1", "anna", "Plays go.")])
    assert search.ranked("go", [agent("1", "anna", "Plays go.")])


def test_only_those_are_found_who_were_asked_for() -> None:
    search = Search()
    assert search.ranked("weather", HOUSE)
    assert not search.ranked("weather", HOUSE[1:])


def test_names_of_programs_are_taken_apart() -> None:
    assert list(words("getHTTPForecast2_for")) == ["gethttpforecast", "get", "http", "forecast", "2", "for"]


@given(st.text(), st.lists(st.tuples(st.text(), st.text(), st.text()), max_size=6))
def test_any_words_give_agents_in_one_order(query: str, told: list[tuple[str, str, str]]) -> None:
    agents = [agent(str(number), *each) for number, each in enumerate(told)]
    found = Search().ranked(query, agents)
    assert len(found) == len({each.id for each in found})
    assert Search().ranked(query, list(reversed(agents))) == found
