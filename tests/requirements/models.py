"""Agents as models."""

from tests.requirements import Requirement

LIST = "https://platform.openai.com/docs/api-reference/models"
OURS = "Frontdesk"

REQUIREMENTS = {
    "models.list": Requirement("Every agent is listed as a model, with its real creation time", LIST),
    "models.fields": Requirement(
        "A model says its name, context window, capabilities and agent id", "Open WebUI, Roo Code, OpenRouter"
    ),
    "models.paths": Requirement("The list answers without `/v1`, with a slash at the end, and to HEAD", "Probes"),
    "models.hidden": Requirement("Hidden and sleeptime agents are neither listed nor found unless switched on", OURS),
    "models.filter": Requirement("Agents can be chosen by tag and by name", OURS),
    "models.names": Requirement(
        "An agent answers to its name, its id, `server/name`, and aliases; exactly, and to nothing else", OURS
    ),
    "models.duplicates": Requirement(
        "Agents of one name are listed by id; the bare name is a 404 that tells the ids", OURS
    ),
    "models.two-servers": Requirement("One name on two servers is told apart by the server", OURS),
    "models.any-name": Requirement("Any name works: spaces, every script, what paths must escape", OURS),
    "models.fresh": Requirement("An agent made a moment ago is found at once", OURS),
    "models.deleted": Requirement("A deleted agent is 404 `model_not_found`, and is not listed again", LIST),
    "models.keys": Requirement("A key sees and uses its own agents only", OURS),
    "models.pages": Requirement("More agents than fit on a page are all listed", OURS),
}
