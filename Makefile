# Every target works on a fresh machine with Python, Java 17 and make; `make help` lists them.
PYTHON ?= python3
VENV := .venv
BIN := $(VENV)/bin
SITE := _build/html/index.html
PDF := _build/pdf/als-course.pdf
LOCK := $(PYTHON) tools/lock.py

# Chapters run in book/, so a relative folder named here must not depend on where one stands.
# Only its first word is looked at, because a path may have spaces in it.
absolute = $(if $(filter /% ~%,$(firstword $(1))),$(1),$(CURDIR)/$(1))
ifdef ALS_COURSE_DATA
override ALS_COURSE_DATA := $(call absolute,$(ALS_COURSE_DATA))
endif
ifdef ALS_COURSE_CACHE
override ALS_COURSE_CACHE := $(call absolute,$(ALS_COURSE_CACHE))
endif
export

.DEFAULT_GOAL := help
.PHONY: help book pdf test weekly mutants lab outputs outputs-everywhere classroom grade marks rehearse offline-kit night bench clean

help:  ## show this list
	@sed -n 's/^\([a-z-]*\):.*## /\1	/p' $(MAKEFILE_LIST) | expand -t 21

# The set-up asks again once it has the lock: another may have done it in the meantime.
$(VENV)/installed: requirements.txt requirements-serve.txt pyproject.toml
ifndef IS_LOCKED
	@$(LOCK) requirements.txt $(MAKE) --no-print-directory IS_LOCKED=1 $@
else
	$(PYTHON) -c 'import sys; sys.exit(sys.version_info < (3, 11) and "Python 3.11 or newer is needed, this is " + sys.version)'
	@# pip takes what was cut off for installed: begin anew
	test ! -e $(VENV)/unfinished || rm -r $(VENV)
	$(PYTHON) -m venv $(VENV)
	touch $(VENV)/unfinished
	@# what is imported is compiled then; all of it would take half a minute
	$(BIN)/python -m pip install --quiet --no-compile -r requirements.txt -r requirements-serve.txt
	$(BIN)/python -m pip install --quiet --no-deps --no-build-isolation -e .
	rm $(VENV)/unfinished
	mkdir -p $(VENV)/share/jupyter/lab/settings
	cp .binder/overrides.json $(VENV)/share/jupyter/lab/settings
	$(BIN)/python -m als_course.datasets
	$(BIN)/python -m als_course.java
	@# it writes for half a minute what saves each of thirty sessions ten seconds
	$(BIN)/python -m als_course.spark
	@# npm has newer rules for accessibility than the package index; without npm those do
	if command -v npm >/dev/null; then npm install --silent --no-audit --no-fund --prefix $(VENV) axe-core@4.14.1 || echo "npm could not fetch axe; the one installed by pip is used"; fi
	touch $@
endif

book: $(VENV)/installed  ## build the site and print where it is
	$(BIN)/jupyter-book build -W -n --keep-going .
	@$(BIN)/python -c 'import pathlib; print("The site is at", pathlib.Path("$(SITE)").resolve().as_uri())'

pdf: $(VENV)/installed  ## print the whole book, which needs Chromium
	$(BIN)/jupyter-book build -W -n --keep-going --builder singlehtml .
	$(BIN)/python tools/pdf.py $(PDF)

test: $(VENV)/installed  ## run every check, quick ones first
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/python -m pytest -n 2 tests/library tests/book tests/classroom
	$(BIN)/python -m pytest -n 2 --nbval --nbval-current-env tests/outputs
	$(BIN)/jupyter-book build -W -n --keep-going .
	$(BIN)/python -m pytest -n 2 tests/site

$(VENV)/mutants: tests/mutants/requirements.txt $(VENV)/installed
	$(BIN)/python -m pip install --quiet --upgrade --target $@ -r $<
	touch $@

weekly: export ALS_COURSE_WEEKLY = 1
weekly: $(VENV)/installed  ## run what takes too long for every push: answers of long chapters, killed clusters, look-alikes
	$(BIN)/python -m pytest -n 2 -m weekly tests/library tests/book tests/classroom
	$(BIN)/python -m pytest -n 2 --nbval --nbval-current-env tests/outputs
	$(BIN)/jupyter-book build -W -n --keep-going .
	$(BIN)/python -m pytest -n 2 tests/site

mutants: $(VENV)/mutants  ## break copies of the course on purpose; each mistake must turn a check red
	$(BIN)/python tests/mutants/mutants.py

lab: $(VENV)/installed  ## open JupyterLab with the chapters as notebooks
	$(BIN)/jupyter lab --notebook-dir=book

outputs: $(VENV)/installed  ## write stored outputs anew, all or CHAPTER=name; read the diff
	$(BIN)/python -m tools.outputs $(CHAPTER)

outputs-everywhere: $(VENV)/installed  ## run all pages as other processors would; list what moves
	$(BIN)/python -m tools.everywhere $(CHAPTER)

classroom: $(VENV)/installed  ## make a class's notebooks, answer key and points; SITE_URL=address links to the chapters
	$(LOCK) _build/.classroom-lock $(BIN)/python -m tools.classroom make $(if $(SITE_URL),--site "$(SITE_URL)")

LATENESS = $(if $(DEADLINE),--deadline "$(DEADLINE)") $(if $(LATE),--late $(LATE))

grade: $(VENV)/installed  ## mark a folder of notebooks: make grade SUBMISSIONS=folder
	@test -n "$(SUBMISSIONS)" || { echo "Name the folder: make grade SUBMISSIONS=folder"; exit 2; }
	$(LOCK) _build/.classroom-lock $(BIN)/python -m tools.classroom grade $(if $(LIMIT),--limit $(LIMIT)) $(if $(STUDENT),--student "$(STUDENT)") $(if $(SANDBOX),--sandbox $(SANDBOX)) $(LATENESS) "$(SUBMISSIONS)"

marks: $(VENV)/installed  ## write the tables and pages of a class anew, after corrections
	$(LOCK) _build/.classroom-lock $(BIN)/python -m tools.classroom marks $(LATENESS)

rehearse: classroom  ## grade the book's own solutions; each must get full marks and no remark
	$(LOCK) _build/.classroom-lock $(BIN)/python -m tools.classroom rehearse $(if $(SANDBOX),--sandbox $(SANDBOX)) $(CHAPTER)

offline-kit: book classroom  ## pack all that a room without a network needs into one folder
	$(LOCK) _build/.lock $(BIN)/python -m tools.classroom kit

night: $(VENV)/installed  ## train, test and publish a run of generated ratings, and compare its lists
	$(BIN)/python book/jobs/night.py _build/night --generated

bench: $(VENV)/installed  ## time ALS beside NumPy, implicit, cmfrec and Spark; five minutes of a quiet machine
	$(BIN)/python -m pip install --quiet -r tests/benchmarks/requirements.txt
	$(BIN)/python tests/benchmarks/compare.py

clean:  ## remove the site and its caches; environment, data and the marks of a class stay
	find _build -mindepth 1 -maxdepth 1 ! -name classroom -exec rm -rf {} + 2>/dev/null || true
	find _build/classroom -mindepth 1 -maxdepth 1 ! -name graded -exec rm -rf {} + 2>/dev/null || true
