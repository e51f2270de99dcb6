"""What clients were recorded to send and to need."""

from tests.requirements import Requirement

REQUIREMENTS = {
    "clients.node": Requirement(
        "The official client for Node: lists, streams, runs tools, throws the right classes, stops in mid-stream",
        "https://github.com/openai/openai-node",
    ),
    "clients.open-webui": Requirement(
        "Open WebUI 0.12: pages with 36 tools which it runs itself, and its title task", "Recorded"
    ),
    "clients.roo-code": Requirement(
        "Roo Code 3.52: a prompt of 100 kB, 21 tools, parts, a result followed by a message", "Recorded"
    ),
}
