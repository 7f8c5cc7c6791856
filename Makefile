# Two commands do all the set-up: `make demo` and `make test`.
PYTHON ?= python3
VENV   := .venv
BIN    := $(VENV)/bin

.PHONY: demo test fuzz bench docs notebooks clean

demo: $(VENV)/.installed-eval
	$(BIN)/gpudiag diagnose --fail-on never
	$(BIN)/evalkit demo --out demo-report

test: $(VENV)/.installed-dev
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/mypy
	$(BIN)/pytest

docs: $(VENV)/.installed-dev
	$(BIN)/python docs/generate.py

notebooks: $(VENV)/.installed-dev
	cd notebooks && for one in *.ipynb; do ../$(BIN)/jupyter execute --inplace "$$one" || exit 1; done

bench: $(VENV)/.installed-dev
	$(BIN)/pip install --quiet --group bench
	$(BIN)/python benchmarks/run.py

FUZZ_SECONDS ?= 600
fuzz: $(VENV)/.installed-dev
	$(BIN)/pip install --quiet --group fuzz
	for target in sniffer unpickler snapshot lint manifest; do \
	    $(BIN)/python fuzz/fuzz.py $$target -max_total_time=$(FUZZ_SECONDS) -verbosity=0 || exit 1; \
	done

$(VENV)/.created:
	$(PYTHON) -c 'import sys; sys.exit(sys.version_info < (3, 11) and "Python 3.11 or newer is needed, this is %d.%d: make PYTHON=python3.12 ..." % sys.version_info[:2])'
	$(PYTHON) -m venv $(VENV)
	$(BIN)/pip install --quiet --upgrade 'pip>=25.1'
	touch $@

$(VENV)/.installed-eval: $(VENV)/.created pyproject.toml
	$(BIN)/pip install --quiet --editable '.[eval]'
	touch $@

$(VENV)/.installed-dev: $(VENV)/.installed-eval pyproject.toml
	$(BIN)/pip install --quiet --group dev
	touch $@

clean:
	rm -rf $(VENV) demo-report build dist
