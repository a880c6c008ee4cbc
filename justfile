# Commands for contributors: `just --list` shows them. They need `pip install -e '.[test,dev,docs]'`.

# Run the tests on all cores; arguments go to pytest: `just test tests/report -x`
test *ARGUMENTS:
    pytest {{ARGUMENTS}}

# Run what CI runs besides the tests and the documentation
check:
    ruff check .
    ruff format --check .
    lint-imports
    mypy

# Build the documentation into site/
docs:
    mkdocs build -q --strict

# Serve the documentation and rebuild it after each change
serve:
    mkdocs serve

# Compare speed with other libraries, about 15 minutes: needs `pip install -e '.[bench]'`
bench:
    pytest -o addopts=-q tests/benchmarks
