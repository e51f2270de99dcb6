"""Agent cards: what an agent says of itself to others. Its instructions are not among that. Pure."""

import re
from collections.abc import Iterable

from a2a.types.a2a_pb2 import (
    AgentCapabilities,
    AgentCard,
    AgentInterface,
    AgentSkill,
    HTTPAuthSecurityScheme,
    SecurityRequirement,
    SecurityScheme,
    StringList,
)
from a2a.utils.constants import PROTOCOL_VERSION_0_3, PROTOCOL_VERSION_1_0, TransportProtocol

from frontdesk import __version__
from frontdesk.policies.files import PICTURES
from frontdesk.turn import Agent, Skill

VERSIONS = (PROTOCOL_VERSION_1_0, PROTOCOL_VERSION_0_3)
SCHEME = "key"
UNFIT = re.compile(r"\W+")


def card(agent: Agent, url: str, *, keyed: bool) -> AgentCard:
    """`keyed`: whether callers need a key."""
    name = agent.name or agent.id
    described = agent.description or f"The agent {name}."
    shown = AgentCard(
        name=name,
        description=described,
        version=__version__,
        supported_interfaces=[
            AgentInterface(url=url, protocol_binding=TransportProtocol.JSONRPC.value, protocol_version=version)
            for version in VERSIONS
        ],
        capabilities=AgentCapabilities(streaming=True, push_notifications=False, extended_agent_card=False),
        default_input_modes=["text/plain", "application/json", *PICTURES, *other_files(agent)],
        default_output_modes=["text/plain"],
        skills=skills(agent, Skill(name, described)),
    )
    if keyed:
        bearer = HTTPAuthSecurityScheme(scheme="bearer", description="An API key of this server, or a token.")
        shown.security_schemes[SCHEME].CopyFrom(SecurityScheme(http_auth_security_scheme=bearer))
        shown.security_requirements.append(SecurityRequirement(schemes={SCHEME: StringList()}))
    return shown


def other_files(agent: Agent) -> Iterable[str]:
    """Media types beside texts and pictures, of those that are told by name."""
    return sorted(kind for kind in agent.files if "*" not in kind and kind not in PICTURES)


def skills(agent: Agent, whole: Skill) -> list[AgentSkill]:
    """What an agent can do; a card has at least one skill, and a skill at least one tag."""
    shown: dict[str, AgentSkill] = {}
    for each in agent.skills or (whole,):
        id = UNFIT.sub("-", each.name.lower()).strip("-") or "skill"
        id = id if id not in shown else f"{id}-{len(shown)}"
        tags = list(agent.tags) or ["agent"]
        described = each.description or each.name
        shown[id] = AgentSkill(id=id, name=each.name, description=described, tags=tags)
    return list(shown.values())
