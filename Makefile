# make demo   an index of a real collection, some searches, its quality      make test   everything that must hold
PYTHON ?= python3
BIN := .venv/bin
INDEX := .demo/scifact
PIP := $(BIN)/python -m pip --disable-pip-version-check install --quiet --constraint constraints.txt

.PHONY: demo test clean

demo: .venv/installed
	@if [ ! -f $(INDEX)/manifest.json ]; then \
	  echo "== lexmax build eval/collections/scifact --out $(INDEX) --encoder bm25      (5,183 abstracts)"; \
	  $(BIN)/lexmax build eval/collections/scifact --out $(INDEX) --encoder bm25; fi
	@for query in "does vitamin D protect against heart disease" "gene therapy for blindness" \
	    "how do bacteria become resistant to antibiotics"; do \
	  echo; echo "== lexmax search $(INDEX) \"$$query\" -k 3"; $(BIN)/lexmax search $(INDEX) "$$query" -k 3; done
	@echo; echo "== lexmax eval eval/collections/scifact --index $(INDEX)"
	@$(BIN)/lexmax eval eval/collections/scifact --index $(INDEX)
	@echo; echo "== lexmax eval --suite eval/collections/scifact --documents 300 --system bm25=bm25 --system ..."
	@echo "   BM25 beside the default model, on the judged abstracts and others up to 300 (encoding takes a minute)"
	@$(BIN)/lexmax eval --suite eval/collections/scifact --documents 300 --work .demo/suite --system bm25=bm25 \
	    --system inference-free=lexmax-inference-free --system both=fusion:bm25+inference-free
	@echo
	@echo "Try next, after 'source .venv/bin/activate':"
	@echo "  lexmax search $(INDEX) \"cancer immunotherapy\" --explain"
	@echo "  lexmax serve $(INDEX)                  then POST to http://127.0.0.1:8000/v1/search"
	@echo "  lexmax build corpus.jsonl --out idx     with your own documents and the default model; lexmax build --help"

test: .venv/installed-test
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	MYPYPATH=.venv/typed $(BIN)/mypy
	$(BIN)/lint-imports
	$(BIN)/pytest
	NUMBA_DISABLE_JIT=1 LEXMAX_EXAMPLES=10 $(BIN)/pytest tests/property -k "agree or ties or bits or limit"
	NUMBA_BOUNDSCHECK=1 LEXMAX_EXAMPLES=30 $(BIN)/pytest tests/property

.venv/installed: pyproject.toml constraints.txt
	@test -x $(BIN)/python || $(PYTHON) -m venv .venv
	@echo "installing into .venv (the first time takes some minutes)"
	@$(PIP) --editable '.[all]'
	@touch $@

.venv/installed-test: .venv/installed
	@$(PIP) --editable '.[test]'
	@mkdir -p .venv/typed && ln -sfn "$(CURDIR)" .venv/typed/lexmax   # mypy does not follow editable installs
	@touch $@

clean:
	rm -rf .venv .demo .numba_cache build *.egg-info
