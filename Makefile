# `make demo` trains R1-Zero from the shipped base and opens its report; `make test` checks the code and runs the tests;
# `make bench` measures a small set of speeds against others' and compares the ratios with the kept ones.
# Each sets up all it needs in .venv; a stamp file makes the second time quick.

PYTHON ?= python3
RUN := runs/demo
BIN := .venv/bin

.PHONY: demo test lint bench clean
.DELETE_ON_ERROR:

demo: .venv/demo.stamp
	@"$(BIN)/aftershock" run recipes/nano/zero.toml --out $(RUN) --resume \
	  || { echo "make demo: to begin again, rm -r $(RUN) and make demo" >&2; exit 1; }
	@if [ -n "$$DISPLAY$$WAYLAND_DISPLAY" ] || [ "$$(uname)" = Darwin ]; then \
	  "$(BIN)/python" -c 'import pathlib, webbrowser; webbrowser.open(pathlib.Path("$(RUN)/report.html").resolve().as_uri())'; \
	else echo "open this in a browser: $(CURDIR)/$(RUN)/report.html"; fi

test: lint
	"$(BIN)/python" -m pytest -n auto --maxprocesses 4 --dist worksteal

lint: .venv/dev.stamp
	"$(BIN)/ruff" check .
	"$(BIN)/ruff" format --check .
	"$(BIN)/mypy"

bench: .venv/dev.stamp
	"$(BIN)/python" benchmarks/ratios.py

clean:
	rm -rf .venv

.venv/python.stamp:
	@"$(PYTHON)" -c 'import sys; sys.exit(sys.version_info < (3, 11))' \
	  || { echo "aftershock needs Python 3.11 or newer, $(PYTHON) is older or missing; say which to use: make PYTHON=python3.12" >&2; exit 1; }
	"$(PYTHON)" -m venv .venv
	@touch $@

.venv/demo.stamp: .venv/python.stamp pyproject.toml constraints.txt
	"$(BIN)/python" -m pip install --quiet --disable-pip-version-check -c constraints.txt -e ".[report]"
	@touch $@

.venv/dev.stamp: .venv/python.stamp pyproject.toml constraints.txt
	"$(BIN)/python" -m pip install --quiet --disable-pip-version-check -c constraints.txt -e ".[dev]"
	@touch $@
