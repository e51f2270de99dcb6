# Two commands are all the set-up: `make demo` and `make test`. Each gets what it needs by itself.
.DEFAULT_GOAL := help
.PHONY: help demo serve test compat check format bench lock docs clean

BIN := .venv/bin
# Where it is set nothing that was compiled is kept, and each process, of hundreds in a test run, compiles for 2 s.
unexport PYTHONDONTWRITEBYTECODE

.venv/.ready: requirements.lock pyproject.toml tools/setup.sh
	@tools/setup.sh

help:  ## Show this list
	@grep -hE '^[a-z]+:.*##' $(MAKEFILE_LIST) | sed -E 's/:.*## /\t/' | expand -t 12

demo: .venv/.ready  ## See it work: a real Letta server, an agent called Milo, a client tool
	@$(BIN)/frontdesk demo

serve: .venv/.ready  ## Serve the Letta agents of LETTA_BASE_URL
	@$(BIN)/frontdesk serve

test: .venv/.ready  ## All tests, against a real Letta server
	@$(BIN)/pytest --numprocesses 2 --dist loadfile $(ARGS)

compat: .venv/.ready  ## Other people's clients, against a real gateway
	@$(BIN)/python -m tests.compat $(ARGS)

check: .venv/.ready  ## Format, lint, types, import contracts, generated docs
	@$(BIN)/ruff format --check .
	@$(BIN)/ruff check .
	@$(BIN)/lint-imports --no-cache
	@$(BIN)/pyright
	@$(BIN)/python -m tests.requirements --check
	@$(BIN)/python -m tests.docs --check

format: .venv/.ready  ## Format and mend what can be mended
	@$(BIN)/ruff check --fix --quiet . ; $(BIN)/ruff format .

bench: .venv/.ready  ## Measure against direct access and a hand-written floor
	@$(BIN)/python -m bench $(ARGS)

docs: .venv/.ready  ## Write the generated pages again
	@$(BIN)/python -m tests.requirements --write
	@$(BIN)/python -m tests.docs --write

lock: .venv/.ready  ## Pin the newest dependencies; no download addresses, so that any mirror serves
	@uv=$$(cat .venv/share/uv-path); pin="pip compile pyproject.toml --universal --generate-hashes --no-emit-index-url \
		--no-header --quiet"; \
		$$uv $$pin --group dev --upgrade --output-file requirements.lock && \
		$$uv $$pin --constraint requirements.lock --no-annotate --output-file requirements-runtime.lock

clean:  ## Remove what was built here
	@rm -rf .venv .uv dist .pytest_cache .ruff_cache .hypothesis
