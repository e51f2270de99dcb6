"""The skill that limits what is spent on an agent's turns. The server does the counting."""

from decimal import Decimal

from frontdesk import amounts, prices
from frontdesk.agents.agent import Agent
from frontdesk.agents.errors import AgentError
from frontdesk.agents.skill import Skill
from frontdesk.amounts import Per, Period


class Budget(Skill):
    """No more than `limit` is spent on this agent: `Budget("0.10 USD")` by each user a day.

    limit: `5 USD`, or `200000 tokens`.
    per: who has so much: each `key`, each `user`, the `agent` itself whoever asks (and so has `all`).
    period: in a `day` or a `month` (in UTC), or ever (`total`).
    reserve: what a turn sets aside before it begins, and before each further call of its model, at least.
    name: by which what has been spent is remembered; an agent's budgets have different ones.
    price_input_per_mtok, price_output_per_mtok: dollars for a million tokens of a model whose price is not known.

    Raises AgentError.
    """

    name = "budget"

    def __init__(
        self,
        limit: str,
        *,
        per: Per = "user",
        period: Period = "day",
        reserve: str = "",
        name: str = "",
        price_input_per_mtok: Decimal | str | int | None = None,
        price_output_per_mtok: Decimal | str | int | None = None,
    ) -> None:
        try:
            self.budget = amounts.budget(
                name or f"{per}-{period}",
                limit,
                per=per,
                period=period,
                reserve=reserve,
                price_input_per_mtok=price_input_per_mtok,
                price_output_per_mtok=price_output_per_mtok,
            )
        except ValueError as error:
            raise AgentError(f"The skill Budget({limit!r:.50}) cannot be had: {error}.") from None

    def join(self, agent: Agent) -> None:
        """Raises AgentError for a second budget of this name, and for a model of which nobody knows what it costs."""
        budget = self.budget
        if [each.name for each in budgets_of(agent)].count(budget.name) > 1:
            raise AgentError(
                f"{agent.name} has two budgets that are called {budget.name}: give each its own, with"
                ' Budget(…, name="…").'
            )
        if budget.unit == "tokens" or budget.has_prices:
            return
        for model in agent.models:
            spec = model if isinstance(model, str) else f"{model.system}/{model.model_name}"
            if not prices.known(spec):
                raise AgentError(
                    f"The budget of {agent.name} is in US dollars, and nobody knows what {spec} costs. Give the Budget"
                    " price_input_per_mtok and price_output_per_mtok (0 where it is free), or set it in tokens."
                )


def budgets_of(agent: Agent) -> tuple[amounts.Budget, ...]:
    """Those of an agent's skills."""
    return tuple(skill.budget for skill in agent.parts.skills if isinstance(skill, Budget))
