"""What every test gets: the plugins in tests/support, and one hypothesis profile."""

from __future__ import annotations

from hypothesis import HealthCheck, settings

pytest_plugins = [
    "pytester",  # runs the feature plugin on a project of its own
    "tests.support.browser",
    "tests.support.database",
    "tests.support.features",
    "tests.support.node",
    "tests.support.ports",
    "tests.support.server",
]

settings.register_profile(
    "parley",
    max_examples=100,
    # Examples are bounded in number, not in time: a busy machine is no failure.
    deadline=None,
    # The same examples each run, so that a failure is its commit's and not chance's; `--hypothesis-profile=explore`
    # looks further.
    derandomize=True,
    suppress_health_check=[HealthCheck.too_slow],
    print_blob=True,
)
settings.register_profile("explore", settings.get_profile("parley"), derandomize=False, max_examples=5_000)
settings.load_profile("parley")
