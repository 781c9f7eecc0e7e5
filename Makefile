# make fit                                        the volume demo: train, test, maps
# make fit CONFIG=configs/graph/motifs.yaml       the same for another modality; FLAGS="--trainer.max_epochs 5" go along
# make test                                       the tests
# make bench FLAGS=--quick                        every pool against its peers; FLAGS="--device cuda" on a GPU
# make docs                                       the guides and the API as one site
# make results FLAGS="--data DIR"                 the numbers of the README again, each by its command: hours
# make profile CONFIG=configs/graph/nci1.yaml     where a training step's time goes
PYTHON ?= python3
CONFIG ?= configs/volume/lesions.yaml
FLAGS ?=
BIN = .venv/bin
READY = .venv/.ready

.PHONY: fit test slow bench results profile lint format docs check clean

fit: $(READY)
	$(BIN)/python -m tasks fit -c $(CONFIG) $(FLAGS)

# Two processes with one thread each: small tensors gain nothing from threads.
test: $(READY)
	OMP_NUM_THREADS=1 $(BIN)/python -m pytest -n 2 --doctest-modules modalpool tasks tests
	@echo "All tests passed. Look at: README.md, then run make fit"

slow: $(READY)
	$(BIN)/python -m pytest -m slow

bench: $(READY)
	$(BIN)/python tests/benchmarks $(FLAGS)

results: $(READY)
	$(BIN)/python -m tasks results $(FLAGS)

profile: $(READY)
	$(BIN)/python tests/benchmarks/step.py -c $(CONFIG) $(FLAGS)

lint: $(READY)
	$(BIN)/ruff check
	$(BIN)/ruff format --check
	$(BIN)/mypy

format: $(READY)
	$(BIN)/ruff check --fix
	$(BIN)/ruff format

# Strict: a warning, such as a link that leads nowhere or a parameter without a type, is an error.
docs: $(READY)
	NO_MKDOCS_2_WARNING=1 $(BIN)/python -m mkdocs build --quiet
	@echo "Look at: build/site/index.html (its search needs a server: python3 -m http.server -d build/site)"

check: lint docs test

# The stamp is newer than what it was made from, so set-up runs again only when one of them changes.
$(READY): pyproject.toml constraints.txt
	$(PYTHON) -m venv .venv
	$(BIN)/python -m pip install --quiet --upgrade "pip>=25.1"
	$(BIN)/python -m pip install --progress-bar on -c constraints.txt -e ".[all]" --group dev
	@touch $(READY)

clean:
	rm -rf .venv build dist .pytest_cache .ruff_cache .mypy_cache .hypothesis
