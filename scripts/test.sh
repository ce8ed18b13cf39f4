#!/bin/sh
# Runs the test suite against the installed wheel and holds coverage to its floors.
#   sh scripts/test.sh VENV [pytest options]
# Floors: every line and branch of runtime/core, 90 % over all.
set -eu

bin=$1/bin
shift

# Nothing of the source tree can be imported, here or in programs that tests start.
PYTHONSAFEPATH=1
INSTALLED_TIERWISE=1
WHEEL_UNDER_TEST=$(ls "$PWD"/dist/tierwise-*.whl)
export PYTHONSAFEPATH INSTALLED_TIERWISE WHEEL_UNDER_TEST
unset PYTHONPATH

rm -f .coverage .coverage.*
# Programs that tests start are measured, too, and combined by the plug-in.
if [ $# -gt 0 ]; then
    "$bin/pytest" --cov --cov-report= "$@"
else
    # These may share the machine: one more at once than it has processors, as many of them wait.
    "$bin/pytest" --cov --cov-report= -n "$(($(nproc) + 1))" --dist worksteal -m "not nightly and not alone" \
        tests/unit tests/properties tests/integration tests/contract tests/golden
    # Whole programs, each of several processes; what fetches packages is for the night (make nightly).
    "$bin/pytest" --cov --cov-append --cov-report= -n "$(nproc)" --dist worksteal \
        -m "not nightly and not alone" tests/e2e tests/docs tests/examples tests/packaging
    # One at a time: tests with deadlines of their own, which others would disturb.
    "$bin/pytest" --cov --cov-append --cov-report= -m "alone and not nightly" \
        tests/integration tests/e2e
fi

"$bin/coverage" report --fail-under=90
"$bin/coverage" report --include='*/runtime/core/*' --fail-under=100 >/dev/null || {
    "$bin/coverage" report --include='*/runtime/core/*'
    echo "runtime/core has lines or branches that no test runs" >&2
    exit 1
}
