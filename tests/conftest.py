"""For all tests: hypothesis looks for wrong answers, not for slow ones, as a busy machine is no mistake."""
from hypothesis import settings

settings.register_profile("tadpole", deadline=None)
settings.load_profile("tadpole")
