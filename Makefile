# Every target works on a fresh machine with Python, Java 17 and make; `make help` lists them.
PYTHON ?= python3
VENV := .venv
BIN := $(VENV)/bin
SITE := _build/html/index.html
# A double click on a chapter in JupyterLab opens it as a notebook, not as text.
NOTEBOOKS_FIRST := {"@jupyterlab/docmanager-extension:plugin": {"defaultViewers": {"markdown": "Jupytext Notebook", "myst": "Jupytext Notebook"}}}

# Chapters run in book/, so a relative folder named here must not depend on where one stands.
ifdef ALS_COURSE_DATA
override ALS_COURSE_DATA := $(abspath $(ALS_COURSE_DATA))
endif
export

.DEFAULT_GOAL := help
.PHONY: help book test lab outputs bench clean

help:  ## show this list
	@sed -n 's/^\([a-z]*\):.*## /\1	/p' $(MAKEFILE_LIST) | expand -t 10

$(VENV)/installed: requirements.txt
	$(PYTHON) -c 'import sys; sys.exit(sys.version_info < (3, 11) and "Python 3.11 or newer is needed, this is " + sys.version)'
	$(PYTHON) -m venv $(VENV)
	$(BIN)/python -m pip install --quiet -r requirements.txt
	mkdir -p $(VENV)/share/jupyter/lab/settings
	echo '$(NOTEBOOKS_FIRST)' > $(VENV)/share/jupyter/lab/settings/overrides.json
	cd book && ../$(BIN)/python -m als_course.datasets
	cd book && ../$(BIN)/python -m als_course.spark
	touch $@

book: $(VENV)/installed  ## build the site and print where it is
	$(BIN)/jupyter-book build -W -n --keep-going .
	@echo "The site is at file://$(abspath $(SITE))"

test: $(VENV)/installed  ## run every check, quick ones first
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/python -m pytest -n 2 --dist loadfile tests --ignore=tests/outputs --ignore=tests/test_site.py --ignore=tests/benchmarks
	$(BIN)/python -m pytest -n 2 --dist loadfile --nbval --nbval-current-env tests/outputs
	$(BIN)/jupyter-book build -W -n --keep-going .
	$(BIN)/python -m pytest tests/test_site.py

lab: $(VENV)/installed  ## open JupyterLab with the chapters as notebooks
	$(BIN)/jupyter lab --notebook-dir=book

outputs: $(VENV)/installed  ## write the stored outputs anew; read the diff before you commit it
	$(BIN)/python tests/chapters.py

bench: $(VENV)/installed  ## time ALS beside NumPy, implicit, cmfrec and Spark; ten minutes of a quiet machine
	$(BIN)/python -m pip install --quiet -r tests/benchmarks/requirements.txt
	$(BIN)/python tests/benchmarks/compare.py

clean:  ## remove the site and its caches; the environment and the data stay
	rm -rf _build
