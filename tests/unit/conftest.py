"""How the property tests run: the same examples every time, as many as the time of a unit test allows."""

from hypothesis import HealthCheck, settings

settings.register_profile(
    "unit",
    max_examples=200,
    deadline=None,
    derandomize=True,
    database=None,
    suppress_health_check=[HealthCheck.too_slow],
)
settings.load_profile("unit")
