# `make run` and `make test` do all of their set-up; the rest is for developers.

PYTHON ?= python3
VENV := .venv
BIN := $(VENV)/bin
NPM := $(shell command -v npm 2>/dev/null)
CLIENT := socket_server/web/client/socket.io.min.js
NODE_MODULES := tests/clients/node_modules/.installed

.PHONY: run test lint types setup bench clean help

run: $(VENV)/.installed .env $(if $(NPM),$(CLIENT))
	@echo "==> starting the server; open the address below, stop with Ctrl-C"
	@trap '' INT; APP_ENV=development $(BIN)/socket-server run

test: $(VENV)/.tested $(if $(NPM),$(CLIENT) $(NODE_MODULES))
	@echo "==> running the tests"
	@$(BIN)/python -m pytest

lint: $(VENV)/.tested
	@$(BIN)/ruff check . && $(BIN)/ruff format --check .

types: $(VENV)/.tested
	@$(BIN)/mypy

BENCH_PEER := benchmarks/peers/node/node_modules/.installed

# Beside Node's socket.io and stock Flask-SocketIO, in one interleaved run; see benchmarks/README.md.
bench: $(VENV)/.tested $(if $(NPM),$(BENCH_PEER))
	@$(BIN)/python -m benchmarks $(BENCH)

$(BENCH_PEER): benchmarks/peers/node/package.json
	@cd benchmarks/peers/node && npm install --no-package-lock --no-audit --no-fund --loglevel=error --progress=false
	@touch $@

setup: $(VENV)/.tested $(if $(NPM),$(CLIENT) $(NODE_MODULES))

$(VENV)/bin/python:
	@echo "==> making a virtual environment in $(VENV)"
	@$(PYTHON) -c 'import sys; sys.exit(sys.version_info < (3, 11))' || { echo "Python 3.11 or later is needed; name it with make PYTHON=python3.12 …"; exit 1; }
	@$(PYTHON) -m venv $(VENV) || { echo "python3-venv is missing: sudo apt install python3-venv"; exit 1; }

$(VENV)/.installed: $(VENV)/bin/python setup.cfg setup.py
	@echo "==> installing the dependencies"
	@$(BIN)/pip install --quiet --disable-pip-version-check --editable .
	@touch $@

$(VENV)/.tested: $(VENV)/.installed
	@echo "==> installing the test dependencies"
	@$(BIN)/pip install --quiet --disable-pip-version-check --editable '.[test]'
	@touch $@

.env:
	@echo "==> making a development secret in .env"
	@umask 077; $(PYTHON) -c 'import secrets; print("# Made by make run for development; production wants its own (see .env.example).\nJWT_SECRET=" + secrets.token_urlsafe(48))' > $@

# The official client for the page; without npm the page takes it from the client's CDN.
$(CLIENT): tests/clients/package.json
	@echo "==> placing the official Socket.IO client for the page"
	@$(MAKE) --no-print-directory $(NODE_MODULES)
	@mkdir -p $(@D) && cp tests/clients/node_modules/socket.io-client/dist/socket.io.min.js $@

$(NODE_MODULES): tests/clients/package.json
	@cd tests/clients && npm install --no-package-lock --no-audit --no-fund --loglevel=error --progress=false
	@touch $@

clean:
	rm -rf $(VENV) tests/clients/node_modules socket_server/web/client build *.egg-info .pytest_cache .mypy_cache .ruff_cache

help:
	@echo "make run    set up and start the server in development, with a page to try it on"
	@echo "make test   set up and run the tests"
	@echo "make lint   check style and format (ruff)"
	@echo "make types  check types (mypy)"
	@echo "make setup  install everything that the tests need"
	@echo "make bench  compare with Node's socket.io and stock Flask-SocketIO (benchmarks/README.md)"
	@echo "make clean  remove what the other targets made"
